//! Pending signals and dispositions.

use ckpt_arch::SignalFrame;
use ckpt_image::NoteWriter;
use ckpt_image::record::{self, Disposition, Pending, kind};
use ckpt_sys::call::{self, ALL_SIGNALS};
use ckpt_sys::lines::number;
use ckpt_sys::{proc, timer};
use linux_raw_sys::general::{_NSIG, SI_TIMER, siginfo_t};

use crate::config::config;
use crate::report::{Failure, OrReport};

/// The signals that are pending, as a mask.
pub fn pending() -> u64 {
    call::pending_signals().unwrap_or(0)
}

/// Takes the pending signals out of their queues, into `room`, with all they carry.
///
/// The kernel shows only which there are, not their values and counts. So they are taken, and
/// [`put_back`] in the same order: all signals are blocked here, so that none is delivered meanwhile,
/// and to oneself one may queue any siginfo.
pub fn take<'r>(room: &'r mut [u8], text: &mut [u8]) -> &'r [Pending] {
    let whole = room.len() / size_of::<Pending>() * size_of::<Pending>();
    let room: &mut [Pending] = bytemuck::cast_slice_mut(&mut room[..whole]);
    let taken = take_all(room, text);
    &room[..taken]
}

/// If a pending signal is that of a timer: the timer's number, and how often it has fired.
fn timer_of(pending: &Pending) -> Option<(i32, u64)> {
    // siginfo_t of a timer: signal, error, code, padding, timer, overrun.
    let words: &[i32] = bytemuck::cast_slice(&pending.info[..24]);
    (words[2] == SI_TIMER).then(|| (words[4], words[5].max(0) as u64 + 1))
}

/// Whether a pending signal is that of timer `id`; then, how often it has fired.
pub fn of_timer(pending: &Pending, id: i32) -> Option<u64> {
    timer_of(pending).filter(|(timer, _)| *timer == id).map(|(_, fired)| fired)
}

/// Notes those signals of `taken` that belong into the image. Those of `timers` come back with them.
pub fn capture_pending(
    notes: &mut NoteWriter<'_>,
    frame: &SignalFrame,
    taken: &[Pending],
) -> Result<(), Failure> {
    notes.begin(record::NAME, kind::PENDING)?;
    for signal in taken {
        let request = signal.signal == config().signal;
        if !request && survives(signal.signal, frame.mask) && !is_requeued_by_timer(signal) {
            notes.push_record(signal, &[])?;
        }
    }
    notes.end()?;
    Ok(())
}

/// Whether a pending signal is that of a timer that goes on, and so queues it itself.
fn is_requeued_by_timer(signal: &Pending) -> bool {
    timer_of(signal).is_some_and(|(id, _)| {
        call::timer_gettime(id).is_ok_and(|timer| timer::nanoseconds_of(timer.it_interval) > 0)
    })
}

/// Takes pending signals out of the queues until there is none, or no room; returns how many.
fn take_all(room: &mut [Pending], text: &mut [u8]) -> usize {
    let mut taken = 0;
    while let Some(slot) = room.get_mut(taken) {
        // The kernel gives the thread's own first; only of those is it to be known that they are.
        let own = thread_directed(text);
        let (set, to_thread) = if own == 0 { (ALL_SIGNALS, 0) } else { (own, 1) };
        let Some(info) = call::take_pending(set) else { break };
        // SAFETY: a siginfo_t begins with its number whatever else it holds.
        let signal = unsafe { info.__bindgen_anon_1.__bindgen_anon_1.si_signo } as u32;
        // SAFETY: it is 128 bytes, which were zeros before the kernel filled them in.
        let info = unsafe { core::mem::transmute::<siginfo_t, [u8; 128]>(info) };
        *slot = Pending { signal, to_thread, info };
        taken += 1;
    }
    taken
}

/// The pending signals that are directed to the thread.
fn thread_directed(text: &mut [u8]) -> u64 {
    let status = proc::read_file(c"/proc/self/status", text).unwrap_or(&[]);
    proc::value_of(status, b"SigPnd").and_then(|value| number(value, 16)).unwrap_or(0)
}

/// Queues the signals again that were taken.
pub fn put_back(taken: &[Pending]) -> Result<(), Failure> {
    let (pid, tid) = (call::getpid(), call::gettid());
    let mut result = Ok(());
    for pending in taken.iter().filter(|pending| !is_requeued_by_timer(pending)) {
        let Pending { signal, to_thread, info } = pending;
        let info = info.as_ptr().cast();
        let queued = match to_thread {
            0 => call::queue_to_process(pid, *signal, info),
            _ => call::queue_to_thread(pid, tid, *signal, info),
        };
        result = result.and(queued);
    }
    result.or_report(format_args!("queueing pending signals again"))
}

/// Whether a pending signal belongs into the image. One that would end or stop the program and is
/// only held up by the handler was meant for this process; it would undo every restart.
fn survives(signal: u32, mask: u64) -> bool {
    let blocked = mask & 1 << (signal - 1) != 0;
    // SAFETY: only asks.
    let default = unsafe { call::sigaction(signal, None) }
        .is_ok_and(|action| action.sa_handler_kernel.is_none());
    blocked || !default
}

/// Notes the dispositions of all signals.
pub fn capture_dispositions(notes: &mut NoteWriter<'_>) -> Result<(), Failure> {
    notes.begin(record::NAME, kind::DISPOSITIONS)?;
    for signal in 1..=_NSIG {
        // SAFETY: only asks.
        let action = unsafe { call::sigaction(signal, None) }
            .or_report(format_args!("asking for the disposition of signal {signal}"))?;
        let disposition = Disposition {
            handler: action.sa_handler_kernel.map_or(0, |handler| handler as usize as u64),
            flags: action.sa_flags,
            restorer: action.sa_restorer.map_or(0, |restorer| restorer as usize as u64),
            mask: action.sa_mask.sig[0],
        };
        notes.push_record(&disposition, &[])?;
    }
    notes.end()?;
    Ok(())
}
