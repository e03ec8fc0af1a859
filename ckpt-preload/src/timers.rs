//! Interval timers and POSIX timers, the one of `CKPT_INTERVAL` among them.

use ckpt_image::NoteWriter;
use ckpt_image::record::{self, INTERVAL_TIMER, IntervalTimer, Pending, Timer, kind};
use ckpt_sys::call::{self, File};
use ckpt_sys::lines::{Lines, number, split_once};
use ckpt_sys::{Errno, timer};
use linux_raw_sys::general::{
    CLOCK_MONOTONIC, ITIMER_PROF, ITIMER_REAL, ITIMER_VIRTUAL, SIGEV_NONE, SIGEV_SIGNAL,
    SIGEV_THREAD_ID, sigevent, timeval,
};
use linux_raw_sys::prctl::{
    PR_TIMER_CREATE_RESTORE_IDS, PR_TIMER_CREATE_RESTORE_IDS_OFF, PR_TIMER_CREATE_RESTORE_IDS_ON,
};

use crate::config::config;
use crate::report::{Failure, OrReport, not_written};
use crate::signals::of_timer;

/// The value of the timer of `CKPT_INTERVAL` is the address of this, by which it is known.
static MARK: u8 = 0;

fn mark() -> u64 {
    &raw const MARK as u64
}

/// Starts the timer of `CKPT_INTERVAL`, in nanoseconds.
///
/// It has a number that the program never gets, so that the program's own are what they would be
/// without it. Before Linux 6.15 a number cannot be chosen: then it has the first one. It fires once,
/// and is set again when that checkpoint has been taken, so that checkpoints never catch up with each
/// other.
pub fn start_interval(interval: u64, signal: u32) -> Result<(), Errno> {
    // SAFETY: sigevent is plain numbers and pointers, for which zeros are valid.
    let mut event = unsafe { core::mem::zeroed::<sigevent>() };
    event.sigev_notify = SIGEV_SIGNAL as i32;
    event.sigev_signo = signal as i32;
    event.sigev_value.sival_ptr = mark() as *mut _;
    let mut id = INTERVAL_TIMER;
    // SAFETY: changes what timer_create does, and nothing else.
    let choose = |mode| unsafe { call::prctl(PR_TIMER_CREATE_RESTORE_IDS, mode as usize) };
    let _ = choose(PR_TIMER_CREATE_RESTORE_IDS_ON);
    let created = call::timer_create(CLOCK_MONOTONIC as i32, &event, &mut id);
    let _ = choose(PR_TIMER_CREATE_RESTORE_IDS_OFF);
    created?;
    timer::set(id, CLOCK_MONOTONIC as i32, interval, 0, 0)
}

/// Lets the timer of `CKPT_INTERVAL` begin anew, if this process has it: a child that was forked has
/// not.
pub fn restart_interval(text: &mut [u8]) {
    if config().interval == 0 {
        return;
    }
    let _ = for_each(text, |timer| {
        if timer.value == mark() {
            let _ = timer::set(timer.id, timer.clock, config().interval, 0, 0);
        }
        Ok(())
    });
}

/// Notes both kinds of timers. `taken` are the signals that were pending; timers of which they are
/// are set so that they queue them again.
pub fn capture(
    notes: &mut NoteWriter<'_>,
    text: &mut [u8],
    taken: &[Pending],
) -> Result<(), Failure> {
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
    for_each(text, |timer| {
        let step = format_args!("asking for timer {}", timer.id);
        let state = call::timer_gettime(timer.id).or_report(step)?;
        let mut timer = Timer {
            clock: of_this_process(timer.clock),
            remaining: timer::nanoseconds_of(state.it_value),
            interval: timer::nanoseconds_of(state.it_interval),
            ..*timer
        };
        if timer.value == mark() {
            timer.remaining = config().interval;
        } else if timer.interval > 0
            && let Some(fired) = taken.iter().find_map(|pending| of_timer(pending, timer.id))
        {
            timer.overdue = fired;
            let Timer { id, clock, remaining, interval, overdue, .. } = timer;
            timer::set(id, clock, remaining, interval, overdue)
                .or_report(format_args!("setting timer {id} again"))?;
        }
        Ok(notes.push_record(&timer, &[])?)
    })?;
    notes.end()?;
    Ok(())
}

/// A CPU-time clock of this very process, named by its id, as the one of whoever asks: the id will be
/// another (include/linux/posix-timers_types.h). Those of threads keep the thread's.
fn of_this_process(clock: i32) -> i32 {
    const KIND: i32 = 7;
    const OF_THREAD: i32 = 4;
    let pid = !(clock >> 3) as u32;
    let own = clock < 0 && clock & OF_THREAD == 0 && pid == call::getpid();
    if own { !0 << 3 | clock & KIND } else { clock }
}

/// Calls `each` for every POSIX timer of this process, without the time it has left.
fn for_each(
    text: &mut [u8],
    mut each: impl FnMut(&Timer) -> Result<(), Failure>,
) -> Result<(), Failure> {
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
            each(&timer)?;
        }
    }
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
            let thread = whom.strip_prefix(b"tid.");
            let to = if thread.is_some() { SIGEV_THREAD_ID } else { SIGEV_SIGNAL };
            timer.thread = match thread {
                Some(tid) => number(tid, 10)?,
                None => 0,
            };
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
