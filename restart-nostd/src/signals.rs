//! Dispositions and pending signals.

use core::mem::transmute;

use ckpt_image::Invalid;
use ckpt_image::record::{Disposition, Pending, Timer, kind};
use ckpt_sys::call::{self, ALL_SIGNALS, signal_bit};
use ckpt_sys::{Errno, signal_name};
use linux_raw_sys::general::{
    _NSIG, SIGCONT, SIGEV_NONE, SIGKILL, SIGSTOP, kernel_sigaction, kernel_sigset_t,
};

use crate::faults::FAULTS;
use crate::image::Image;
use crate::report::OrFail;

/// Refuses signals to be queued that are none, or that cannot wait: those of `PENDING` and of timers.
pub fn check(image: &Image) {
    let head = image.head();
    let pending = image.records::<Pending>(&head, kind::PENDING).map(|record| record.signal);
    let of_timers = image
        .records::<Timer>(&head, kind::TIMERS)
        .filter(|timer| timer.notify != SIGEV_NONE as i32)
        .map(|timer| timer.signal as u32);
    let possible = |signal| (1..=_NSIG).contains(&signal) && ![SIGKILL, SIGSTOP].contains(&signal);
    if !pending.chain(of_timers).all(possible) {
        image.fail(&Invalid::Damaged);
    }
}

/// Blocks every signal but those of wrong addresses; the signal frame has the program's own mask.
pub fn block() {
    call::set_signal_mask(ALL_SIGNALS & !FAULTS).or_fail(format_args!("blocking signals"));
}

/// Gives `signal` its default disposition.
pub fn set_default(signal: u32) -> Result<(), Errno> {
    if [SIGKILL, SIGSTOP].contains(&signal) {
        return Ok(());
    }
    let action = kernel_sigaction {
        sa_handler_kernel: None,
        sa_flags: 0,
        sa_restorer: None,
        sa_mask: kernel_sigset_t { sig: [0] },
    };
    // SAFETY: no handler.
    unsafe { call::sigaction(signal, Some(&action)) }.map(drop)
}

/// Stops this process by `signal`, all signals being blocked, until it is continued. Whether it was: what
/// belongs to an orphaned process group does not stop.
pub fn stop_by(signal: u32) -> bool {
    let continued = signal_bit(SIGCONT);
    while call::take_pending(continued).is_some() {}
    let _ = set_default(signal).and_then(|()| call::kill(call::getpid(), signal));
    if let Ok(mask) = call::set_signal_mask(ALL_SIGNALS & !signal_bit(signal)) {
        let _ = call::set_signal_mask(mask);
    }
    call::take_pending(continued).is_some()
}

/// Restores the dispositions, then queues the signals that were pending: the other way round, setting
/// a disposition to "ignore" would drop the signal that is pending already. Nothing is delivered any more until the program goes on.
pub fn restore(image: &Image) {
    call::set_signal_mask(ALL_SIGNALS).or_fail(format_args!("blocking signals"));
    let head = image.head();
    for (signal, record) in (1..).zip(image.records::<Disposition>(&head, kind::DISPOSITIONS)) {
        if [SIGKILL, SIGSTOP].contains(&signal) {
            continue;
        }
        let action = kernel_sigaction {
            // SAFETY: an address, or one of the two constants; null is None.
            sa_handler_kernel: unsafe {
                transmute::<usize, Option<unsafe extern "C" fn(i32)>>(record.handler as usize)
            },
            sa_flags: record.flags,
            // SAFETY: likewise.
            sa_restorer: unsafe {
                transmute::<usize, Option<unsafe extern "C" fn()>>(record.restorer as usize)
            },
            sa_mask: kernel_sigset_t { sig: [record.mask] },
        };
        // SAFETY: what was a handler in the program is one again, before any signal is delivered.
        unsafe { call::sigaction(signal, Some(&action)) }
            .or_fail(format_args!("restoring the disposition of {}", signal_name(signal)));
    }
    queue(image, 0);
    queue(image, image.head().process().0.pid);
}

/// Queues the signals that were pending for thread `old`, as its id was, which the calling thread is to
/// become; or, for 0, those of the process, which the process's first thread must do.
pub fn queue(image: &Image, old: u32) {
    let (pid, tid) = (call::getpid(), call::gettid());
    let pending = image.records::<Pending>(&image.head(), kind::PENDING);
    for record in pending.filter(|record| record.to_thread == old) {
        let info = record.info.as_ptr().cast();
        match old {
            0 => call::queue_to_process(pid, record.signal, info),
            _ => call::queue_to_thread(pid, tid, record.signal, info),
        }
        .or_fail(format_args!("queueing {}, which was pending", signal_name(record.signal)));
    }
}
