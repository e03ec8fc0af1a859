//! Interval timers and POSIX timers.

use ckpt_image::record::{INTERVAL_TIMER, IntervalTimer, Timer, kind};
use ckpt_sys::{call, timer};
use linux_raw_sys::general::{
    ITIMER_PROF, ITIMER_REAL, ITIMER_VIRTUAL, SIGEV_THREAD_ID, itimerval, sigevent, timeval,
};
use linux_raw_sys::prctl::{
    PR_TIMER_CREATE_RESTORE_IDS, PR_TIMER_CREATE_RESTORE_IDS_OFF, PR_TIMER_CREATE_RESTORE_IDS_ON,
};

use crate::image::Image;
use crate::place::Place;
use crate::report::{OrFail, fail};
use crate::threads;

const BILLION: u64 = 1_000_000_000;

/// Makes the POSIX timers, which do not run yet.
pub fn make(image: &Image, place: &Place) {
    // SAFETY: changes what timer_create does, and nothing else.
    let choose = |mode| unsafe { call::prctl(PR_TIMER_CREATE_RESTORE_IDS, mode as usize) };
    let chosen = choose(PR_TIMER_CREATE_RESTORE_IDS_ON).is_ok();
    for_each(image, |record| make_one(&here(place, record), chosen));
    let _ = choose(PR_TIMER_CREATE_RESTORE_IDS_OFF);
}

/// Starts the timers of both kinds, with the time they had left.
pub fn start(image: &Image) {
    let records = image.records::<IntervalTimer>(&image.head(), kind::INTERVAL_TIMERS);
    for (which, record) in [ITIMER_REAL, ITIMER_VIRTUAL, ITIMER_PROF].into_iter().zip(records) {
        let time = |nanoseconds: u64| timeval {
            tv_sec: (nanoseconds / BILLION) as i64,
            tv_usec: (nanoseconds % BILLION / 1000) as i64,
        };
        let value =
            itimerval { it_interval: time(record.interval), it_value: time(record.remaining) };
        call::set_interval_timer(which, &value).or_fail(format_args!("setting a timer"));
    }
    for_each(image, |&Timer { id, clock, remaining, interval, overdue, .. }| {
        let result = timer::set(id, clock, remaining, interval, overdue);
        // Where numbers cannot be chosen the checkpointer's own timer was started when it was made.
        if id != INTERVAL_TIMER {
            result.or_fail(format_args!("setting timer {id}"));
        }
    });
}

/// Calls `each` for the POSIX timers by ascending number, since without a choice the kernel counts up.
fn for_each(image: &Image, mut each: impl FnMut(&Timer)) {
    let head = image.head();
    let all = || image.records::<Timer>(&head, kind::TIMERS);
    let mut last = -1;
    while let Some(record) = all().filter(|timer| timer.id > last).min_by_key(|timer| timer.id) {
        last = record.id;
        each(&record);
    }
}

/// A timer with the ids of threads that they have here.
fn here(place: &Place, record: &Timer) -> Timer {
    /// A CPU-time clock of a thread, named by its id (include/linux/posix-timers_types.h).
    const OF_THREAD: i32 = 4;
    let mut timer = *record;
    if let Some(tid) = threads::id_of(place, record.thread as u32) {
        timer.thread = tid.into();
    }
    if record.clock < 0
        && record.clock & OF_THREAD != 0
        && let Some(tid) = threads::id_of(place, !(record.clock >> 3) as u32)
    {
        timer.clock = !(tid as i32) << 3 | record.clock & 7;
    }
    timer
}

/// Makes a POSIX timer. If its number cannot be chosen (before Linux 6.15), timers are made and
/// deleted until the kernel has come to it; but nobody knows the checkpointer's own by its number.
fn make_one(record: &Timer, chosen: bool) {
    /// Farther than this the kernel will not have to count.
    const MOST: usize = 1 << 20;
    let step = format_args!("making timer {} again", record.id);
    // SAFETY: sigevent is plain numbers and pointers, for which zeros are valid.
    let mut event = unsafe { core::mem::zeroed::<sigevent>() };
    event.sigev_notify = record.notify;
    event.sigev_signo = record.signal;
    event.sigev_value.sival_ptr = record.value as *mut _;
    if record.notify == SIGEV_THREAD_ID as i32 {
        event._sigev_un._tid = record.thread as i32;
    }
    let mut id = record.id;
    for _ in 0..MOST {
        call::timer_create(record.clock, &event, &mut id).or_fail(step);
        if id == record.id || !chosen && record.id == INTERVAL_TIMER {
            break;
        }
        call::timer_delete(id);
        if chosen || id > record.id {
            break;
        }
    }
    if id != record.id && record.id != INTERVAL_TIMER {
        fail(format_args!("{step}: the kernel gives other numbers"));
    }
    if id != record.id {
        timer::set(id, record.clock, record.remaining, 0, 0).or_fail(step);
    }
}
