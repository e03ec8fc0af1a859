//! Interval timers and POSIX timers, the one of `CKPT_INTERVAL` among them.

use ckpt_image::NoteWriter;
use ckpt_image::record::{self, INTERVAL_TIMER, IntervalTimer, Timer, kind};
use ckpt_sys::Errno;
use ckpt_sys::call::{self, File};
use ckpt_sys::lines::{Lines, number, split_once};
use linux_raw_sys::general::{
    CLOCK_MONOTONIC, ITIMER_PROF, ITIMER_REAL, ITIMER_VIRTUAL, SIGEV_NONE, SIGEV_SIGNAL,
    SIGEV_THREAD_ID, itimerspec, sigevent, timespec, timeval,
};
use linux_raw_sys::prctl::{
    PR_TIMER_CREATE_RESTORE_IDS, PR_TIMER_CREATE_RESTORE_IDS_OFF, PR_TIMER_CREATE_RESTORE_IDS_ON,
};

use crate::report::{Failure, OrReport, not_written};

/// Starts the timer of `CKPT_INTERVAL`, in nanoseconds.
///
/// It has a number that the program never gets, so that the program's own are what they would be
/// without it. Before Linux 6.15 a number cannot be chosen: then it has the first one.
pub fn start_interval(interval: u64, signal: u32) -> Result<(), Errno> {
    // SAFETY: sigevent is plain numbers and pointers, for which zeros are valid.
    let mut event = unsafe { core::mem::zeroed::<sigevent>() };
    event.sigev_notify = SIGEV_SIGNAL as i32;
    event.sigev_signo = signal as i32;
    let mut id = INTERVAL_TIMER;
    // SAFETY: changes what timer_create does, and nothing else.
    let choose = |mode| unsafe { call::prctl(PR_TIMER_CREATE_RESTORE_IDS, mode as usize) };
    let _ = choose(PR_TIMER_CREATE_RESTORE_IDS_ON);
    let created = call::timer_create(CLOCK_MONOTONIC as i32, &event, &mut id);
    let _ = choose(PR_TIMER_CREATE_RESTORE_IDS_OFF);
    created?;
    let time = timespec {
        tv_sec: (interval / 1_000_000_000) as i64,
        tv_nsec: (interval % 1_000_000_000) as i64,
    };
    call::timer_settime(id, &itimerspec { it_interval: time, it_value: time })
}

/// Notes both kinds of timers.
pub fn capture(notes: &mut NoteWriter<'_>, text: &mut [u8]) -> Result<(), Failure> {
    notes.begin(record::NAME, kind::INTERVAL_TIMERS)?;
    for which in [ITIMER_REAL, ITIMER_VIRTUAL, ITIMER_PROF] {
        let timer = call::interval_timer(which).or_report(format_args!("asking for a timer"))?;
        let nanoseconds = |t: timeval| t.tv_sec as u64 * 1_000_000_000 + t.tv_usec as u64 * 1000;
        let timer = IntervalTimer {
            remaining: nanoseconds(timer.it_value),
            interval: nanoseconds(timer.it_interval),
        };
        notes.push_record(&timer, &[])?;
    }
    notes.end()?;

    notes.begin(record::NAME, kind::TIMERS)?;
    let file = File::open(c"/proc/self/timers", 0).or_report(format_args!(
        "opening /proc/self/timers (the kernel needs CONFIG_CHECKPOINT_RESTORE)"
    ))?;
    let mut lines = Lines::new(file.fd(), text);
    let mut timer: Timer = bytemuck::Zeroable::zeroed();
    while let Some(line) = lines.next_line().or_report(format_args!("reading timers"))? {
        let (key, value) = split_once(line, b':').unwrap_or((line, b""));
        let complete = take(&mut timer, key, value.trim_ascii()).ok_or_else(|| {
            not_written(format_args!("a line of /proc/self/timers is not understood"))
        })?;
        if complete {
            let state = call::timer_gettime(timer.id).or_report(format_args!("asking a timer"))?;
            let nanoseconds = |t: timespec| t.tv_sec as u64 * 1_000_000_000 + t.tv_nsec as u64;
            timer.remaining = nanoseconds(state.it_value);
            timer.interval = nanoseconds(state.it_interval);
            notes.push_record(&timer, &[])?;
        }
    }
    notes.end()?;
    Ok(())
}

/// Takes in one line of `/proc/self/timers`; `Some(true)` with the last one of a timer, `None` if it
/// is not understood.
///
/// ```text
/// ID: 1
/// signal: 60/00007fff86e452a8
/// notify: signal/pid.2634
/// ClockID: 0
/// ```
fn take(timer: &mut Timer, key: &[u8], value: &[u8]) -> Option<bool> {
    match key {
        b"ID" => timer.id = number(value, 10)? as i32,
        b"signal" => {
            let (signal, payload) = split_once(value, b'/')?;
            timer.signal = number(signal, 10)? as i32;
            timer.value = number(payload, 16)?;
        }
        b"notify" => {
            let (how, whom) = split_once(value, b'/')?;
            let to = if whom.starts_with(b"tid") { SIGEV_THREAD_ID } else { SIGEV_SIGNAL };
            timer.notify = match how {
                b"none" => SIGEV_NONE as i32,
                b"signal" => to as i32,
                _ => return None,
            };
        }
        b"ClockID" => {
            let magnitude = value.strip_prefix(b"-");
            let clock = number(magnitude.unwrap_or(value), 10)? as i32;
            timer.clock = if magnitude.is_some() { -clock } else { clock };
            return Some(true);
        }
        _ => {}
    }
    Some(false)
}
