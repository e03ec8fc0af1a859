//! POSIX timers as captured and restored: setting one so that it goes on where it was.

use linux_raw_sys::general::{TIMER_ABSTIME, itimerspec, timespec};

use crate::Errno;
use crate::call;

/// Nanoseconds in a second.
pub const BILLION: u64 = 1_000_000_000;

/// Nanoseconds as the kernel has them.
pub fn timespec_of(nanoseconds: u64) -> timespec {
    timespec { tv_sec: (nanoseconds / BILLION) as i64, tv_nsec: (nanoseconds % BILLION) as i64 }
}

/// What the kernel has, in nanoseconds.
pub fn nanoseconds_of(time: timespec) -> u64 {
    time.tv_sec as u64 * BILLION + time.tv_nsec as u64
}

/// Lets timer `id` of `clock` fire in `remaining` nanoseconds, and every `interval` from then on;
/// but `overdue` times at once, if it is that many intervals late.
///
/// A timer whose signal is pending is not armed: the kernel goes on with it when the signal is
/// delivered, and tells the program how often it would have fired meanwhile. So it is set to when it
/// should have fired first. That queues the signal again, and the kernel counts as before.
///
/// # Errors
///
/// Those of timer_settime(2).
pub fn set(id: i32, clock: i32, remaining: u64, interval: u64, overdue: u64) -> Result<(), Errno> {
    let it_interval = timespec_of(interval);
    if overdue == 0 {
        let it_value = timespec_of(remaining);
        return call::timer_settime(id, 0, &itimerspec { it_interval, it_value });
    }
    let next = call::clock(clock).saturating_add(remaining);
    let due = next.saturating_sub(interval.saturating_mul(overdue)).max(1);
    let it_value = timespec_of(due);
    call::timer_settime(id, TIMER_ABSTIME, &itimerspec { it_interval, it_value })
}
