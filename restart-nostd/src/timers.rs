//! Interval timers and POSIX timers.

use ckpt_image::record::{INTERVAL_TIMER, IntervalTimer, Timer, kind};
use ckpt_sys::call;
use linux_raw_sys::general::{
    ITIMER_PROF, ITIMER_REAL, ITIMER_VIRTUAL, SIGEV_THREAD_ID, itimerspec, itimerval, sigevent,
    timespec, timeval,
};
use linux_raw_sys::prctl::{
    PR_TIMER_CREATE_RESTORE_IDS, PR_TIMER_CREATE_RESTORE_IDS_OFF, PR_TIMER_CREATE_RESTORE_IDS_ON,
};

use crate::image::Image;
use crate::report::{OrFail, fail};

const BILLION: u64 = 1_000_000_000;

/// Restores both kinds of timers, with the time they had left.
pub fn restore(image: &Image) {
    let head = image.head();
    let records = image.records::<IntervalTimer>(&head, kind::INTERVAL_TIMERS);
    for (which, record) in [ITIMER_REAL, ITIMER_VIRTUAL, ITIMER_PROF].into_iter().zip(records) {
        let time = |nanoseconds: u64| timeval {
            tv_sec: (nanoseconds / BILLION) as i64,
            tv_usec: (nanoseconds % BILLION / 1000) as i64,
        };
        let value =
            itimerval { it_interval: time(record.interval), it_value: time(record.remaining) };
        call::set_interval_timer(which, &value).or_fail(format_args!("setting a timer"));
    }

    // SAFETY: changes what timer_create does, and nothing else.
    let choose = |mode| unsafe { call::prctl(PR_TIMER_CREATE_RESTORE_IDS, mode as usize) };
    let chosen = choose(PR_TIMER_CREATE_RESTORE_IDS_ON).is_ok();
    let all = || image.records::<Timer>(&head, kind::TIMERS);
    // By ascending number, since without a choice the kernel counts up.
    let mut last = -1;
    while let Some(record) = all().filter(|timer| timer.id > last).min_by_key(|timer| timer.id) {
        last = record.id;
        restore_one(&record, chosen);
    }
    let _ = choose(PR_TIMER_CREATE_RESTORE_IDS_OFF);
}

/// Restores a POSIX timer. If its number cannot be chosen (before Linux 6.15), timers are made and
/// deleted until the kernel has come to it; but nobody knows the checkpointer's own by its number.
fn restore_one(record: &Timer, chosen: bool) {
    /// Farther than this the kernel will not have to count.
    const MOST: usize = 1 << 20;
    let step = format_args!("making timer {} again", record.id);
    // SAFETY: sigevent is plain numbers and pointers, for which zeros are valid.
    let mut event = unsafe { core::mem::zeroed::<sigevent>() };
    event.sigev_notify = record.notify;
    event.sigev_signo = record.signal;
    event.sigev_value.sival_ptr = record.value as *mut _;
    if record.notify == SIGEV_THREAD_ID as i32 {
        event._sigev_un._tid = call::gettid() as i32;
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
    let time = |nanoseconds: u64| timespec {
        tv_sec: (nanoseconds / BILLION) as i64,
        tv_nsec: (nanoseconds % BILLION) as i64,
    };
    let value = itimerspec { it_interval: time(record.interval), it_value: time(record.remaining) };
    call::timer_settime(id, &value).or_fail(step);
}
