//! Descriptors by which the kernel tells of events: counters, timers, signals, and the end of the
//! process itself.

use ckpt_image::files::{EventCounter, FileTimer};
use ckpt_sys::call::{self, Fd, SFD_CLOEXEC, SFD_NONBLOCK};
use ckpt_sys::timer::timespec_of;
use linux_raw_sys::general::{CLOCK_REALTIME, O_CLOEXEC, O_NONBLOCK, itimerspec};

use super::Restored;
use crate::report::OrFail;

/// `TFD_TIMER_ABSTIME` (include/uapi/linux/timerfd.h).
const ABSOLUTE: u32 = 1;

/// An eventfd. Its flags are those of open(2), but for the one of a semaphore.
pub fn restore_counter(restored: &Restored<'_>) {
    /// `EFD_SEMAPHORE` (include/uapi/linux/eventfd.h).
    const SEMAPHORE: u32 = 1;
    let EventCounter { count, semaphore } = restored.state();
    let step = format_args!("making the eventfd {}", restored.record.fd);
    let kind = if semaphore != 0 { SEMAPHORE } else { 0 };
    let made = call::eventfd(restored.record.flags & (O_CLOEXEC | O_NONBLOCK) | kind).or_fail(step);
    restored.take(made);
    if count != 0 {
        call::write(Fd(restored.record.fd), &count.to_ne_bytes()).or_fail(step);
    }
}

/// A timerfd.
pub fn restore_timer(restored: &Restored<'_>) {
    let timer: FileTimer = restored.state();
    let step = format_args!("making the timerfd {}", restored.record.fd);
    let flags = restored.record.flags & (O_CLOEXEC | O_NONBLOCK);
    restored.take(call::timerfd_create(timer.clock, flags).or_fail(step));
    let fd = Fd(restored.record.fd);
    if timer.next != 0 {
        let value = itimerspec {
            it_interval: timespec_of(timer.interval),
            it_value: timespec_of(timer.next),
        };
        // But for the clock that may be set, until then is as good as when.
        let is_point = timer.clock == CLOCK_REALTIME as i32;
        let flags = if is_point { timer.flags } else { timer.flags & !ABSOLUTE };
        call::timerfd_settime(fd, flags, &value).or_fail(step);
    }
    if timer.ticks != 0 {
        call::timerfd_set_ticks(fd, timer.ticks).or_fail(step);
    }
}

/// A signalfd.
pub fn restore_signals(restored: &Restored<'_>) {
    let flags = restored.record.flags & (SFD_CLOEXEC | SFD_NONBLOCK);
    let made = call::signalfd(restored.state(), flags);
    restored.take(made.or_fail(format_args!("making the signalfd {}", restored.record.fd)));
}

/// A pidfd of the process itself.
pub fn restore_process(restored: &Restored<'_>) {
    // PIDFD_NONBLOCK is that of open(2) (include/uapi/linux/pidfd.h).
    let made = call::pidfd_open(call::getpid(), restored.record.flags & O_NONBLOCK);
    restored.take(made.or_fail(format_args!("making the pidfd {}", restored.record.fd)));
}
