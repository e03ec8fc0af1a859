//! Descriptors by which the kernel tells of events: counters, timers, signals, and the end of the
//! process itself.

use bytemuck::bytes_of;
use ckpt_image::NoteWriter;
use ckpt_image::files::{EventCounter, FileTimer, descriptor};
use ckpt_sys::Errno;
use ckpt_sys::call::{self, Fd};
use ckpt_sys::lines::number;
use ckpt_sys::proc::{self, Holder};
use ckpt_sys::timer::nanoseconds_of;
use linux_raw_sys::general::CLOCK_REALTIME;

use super::{Found, Obstacle};

/// `TFD_TIMER_ABSTIME` (include/uapi/linux/timerfd.h).
const ABSOLUTE: u32 = 1;

/// An eventfd.
pub fn capture_counter(found: &Found<'_>, notes: &mut NoteWriter<'_>) -> Result<u32, Obstacle> {
    let count = found.value("eventfd-count", 16).ok_or(Errno::ENOSYS)?;
    let semaphore = match found.value("eventfd-semaphore", 10) {
        Some(semaphore) => semaphore,
        None => is_semaphore(found.fd, count)?.into(),
    };
    notes.push(bytes_of(&EventCounter { count, semaphore }))?;
    Ok(descriptor::EVENT_COUNTER)
}

/// Whether a read takes but one from the count. Before Linux 6.5 only a read tells: of a count of two,
/// after which it is put back.
fn is_semaphore(fd: Fd, count: u64) -> Result<bool, Errno> {
    let add = |number: u64| match number {
        0 => Ok(0),
        _ => call::write(fd, &number.to_ne_bytes()),
    };
    let take = || {
        let mut taken = [0; 8];
        call::read(fd, &mut taken).map(|_| u64::from_ne_bytes(taken))
    };
    let added = 2_u64.saturating_sub(count);
    add(added)?;
    let taken = take()?;
    let semaphore = taken == 1;
    if semaphore {
        // One is gone; should more have been added, that goes, too.
        for _ in 1..added {
            take()?;
        }
        add(u64::from(added == 0))?;
    } else {
        add(taken - added)?;
    }
    Ok(semaphore)
}

/// A timerfd.
pub fn capture_timer(found: &Found<'_>, notes: &mut NoteWriter<'_>) -> Result<u32, Obstacle> {
    let clock = found.value("clockid", 10).ok_or(Errno::ENOSYS)? as i32;
    let flags = found.value("settime flags", 8).ok_or(Errno::ENOSYS)? as u32;
    // This brings the ticks up to date, which are then read.
    let setting = call::timerfd_gettime(found.fd)?;
    let mut text = [0; 512];
    let info = super::read_info(found.fd, &mut text)?;
    let ticks = Found { info, ..*found }.value("ticks", 10).ok_or(Errno::ENOSYS)?;
    let interval = nanoseconds_of(setting.it_interval);
    let mut next = nanoseconds_of(setting.it_value);
    if next == 0 && ticks != 0 {
        next = interval; // It has fired in between.
    }
    if next != 0 && flags & ABSOLUTE != 0 && clock == CLOCK_REALTIME as i32 {
        next += call::clock(clock);
    }
    notes.push(bytes_of(&FileTimer { clock, flags, next, interval, ticks }))?;
    Ok(descriptor::TIMER)
}

/// A signalfd.
pub fn capture_signals(found: &Found<'_>, notes: &mut NoteWriter<'_>) -> Result<u32, Obstacle> {
    let mask = found.value("sigmask", 16).ok_or(Errno::ENOSYS)?;
    notes.push(bytes_of(&mask))?;
    Ok(descriptor::SIGNALS)
}

/// A pidfd.
pub fn capture_process(found: &Found<'_>) -> Result<u32, Obstacle> {
    match proc::value_of(found.info, b"Pid") {
        Some(b"-1") => Err(Obstacle::new(format_args!("a pidfd of a process that has ended"))),
        Some(pid) => match number(pid, 10).ok_or(Errno::ENOSYS)? as u32 {
            own if own == call::getpid() => Ok(descriptor::PROCESS),
            other => Err(Obstacle::new(format_args!("a pidfd of {}", Holder(other)))),
        },
        None => Err(Errno::ENOSYS.into()),
    }
}
