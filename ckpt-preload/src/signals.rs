//! Pending signals and dispositions.

use bytemuck::Zeroable;
use ckpt_arch::SignalFrame;
use ckpt_image::NoteWriter;
use ckpt_image::record::{self, Disposition, Pending, kind};
use ckpt_sys::call::{self, ALL_SIGNALS, signal_bit};
use ckpt_sys::lines::number;
use ckpt_sys::{Errno, proc, timer};
use linux_raw_sys::general::{_NSIG, SI_TIMER, siginfo_t};

use crate::config::config;
use crate::report::{Failure, OrReport};
use crate::threads::{self, Parked};

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

/// Notes those signals of `taken` that belong into the image. Those of timers come back with them.
/// `frame` is that of this thread.
pub fn capture_pending(
    notes: &mut NoteWriter<'_>,
    frame: &SignalFrame,
    taken: &[Pending],
) -> Result<(), Failure> {
    notes.begin(record::NAME, kind::PENDING)?;
    for signal in taken {
        let request = signal.signal == config().signal || is_to_stop(signal);
        let blocked = blocked_by_receiver(signal, frame);
        if !request && survives(signal.signal, blocked) && !is_requeued_by_timer(signal) {
            notes.push_record(signal, &[])?;
        }
    }
    notes.end()?;
    Ok(())
}

/// Whether it was sent to stop a thread.
fn is_to_stop(pending: &Pending) -> bool {
    // SAFETY: it was one, and is again.
    let info = unsafe { core::mem::transmute::<[u8; 128], siginfo_t>(pending.info) };
    threads::is_to_stop(&info)
}

/// The signals that are blocked where `signal` is to be delivered: by the thread it is directed to, or
/// by all of them.
fn blocked_by_receiver(signal: &Pending, frame: &SignalFrame) -> u64 {
    let of = |parked: &Parked| {
        // SAFETY: the thread is parked, and its frame stays as it is.
        unsafe { (*parked.frame).mask }
    };
    match signal.to_thread {
        0 => threads::parked().fold(frame.mask, |mask, (_, parked)| mask & of(parked)),
        tid => threads::parked()
            .find_map(|(parked_tid, parked)| (parked_tid == tid).then(|| of(parked)))
            .unwrap_or(frame.mask),
    }
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
        let (set, to_thread) = if own == 0 { (ALL_SIGNALS, 0) } else { (own, call::gettid()) };
        let Some(pending) = take_one(set, to_thread) else { break };
        *slot = pending;
        taken += 1;
    }
    taken + threads::take_pending(&mut room[taken..])
}

/// Takes a pending signal of `set`, if there is one, which is directed to thread `to_thread`, or, for
/// 0, to the process.
pub fn take_one(set: u64, to_thread: u32) -> Option<Pending> {
    let info = call::take_pending(set)?;
    let signal = call::signal_of(&info);
    // SAFETY: it is 128 bytes, which were zeros before the kernel filled them in.
    let info = unsafe { core::mem::transmute::<siginfo_t, [u8; 128]>(info) };
    Some(Pending { signal, to_thread, info })
}

/// The pending signals that are directed to the thread.
fn thread_directed(text: &mut [u8]) -> u64 {
    let status = proc::read_file(c"/proc/thread-self/status", text).unwrap_or(&[]);
    proc::value_of(status, b"SigPnd").and_then(|value| number(value, 16)).unwrap_or(0)
}

/// Queues the signals again that were taken.
pub fn put_back(taken: &[Pending]) -> Result<(), Failure> {
    let own = call::gettid();
    let mut result = Ok(());
    for pending in taken.iter().filter(|pending| !is_requeued_by_timer(pending)) {
        let who = if pending.to_thread == 0 { call::getpid() } else { pending.to_thread };
        let queued =
            match if who == own { Some(queue(pending)) } else { threads::queue(who, pending) } {
                Some(queued) => queued,
                // The first thread has ended: then it cannot be said any more who had sent it.
                None => call::kill(call::getpid(), pending.signal),
            };
        result = result.and(queued);
    }
    result.or_report(format_args!("queueing pending signals again"))
}

/// Queues a signal for the calling thread, or for the process, whose first thread that must be.
pub fn queue(Pending { signal, to_thread, info }: &Pending) -> Result<(), Errno> {
    let info = info.as_ptr().cast();
    match to_thread {
        0 => call::queue_to_process(call::getpid(), *signal, info),
        tid => call::queue_to_thread(call::getpid(), *tid, *signal, info),
    }
}

/// Whether `signal` has its default disposition.
pub fn is_default(signal: u32) -> bool {
    // SAFETY: only asks.
    unsafe { call::sigaction(signal, None) }.is_ok_and(|action| action.sa_handler_kernel.is_none())
}

/// Whether a pending signal belongs into the image. One that would end or stop the program and is
/// only held up by the handler was meant for this process; it would undo every restart.
fn survives(signal: u32, mask: u64) -> bool {
    let blocked = mask & signal_bit(signal) != 0;
    blocked || !is_default(signal)
}

/// Notes the dispositions of all signals.
pub fn capture_dispositions(notes: &mut NoteWriter<'_>) -> Result<(), Failure> {
    notes.begin(record::NAME, kind::DISPOSITIONS)?;
    for signal in 1..=_NSIG {
        let action = match threads::kept(signal) {
            Some(action) if threads::is_borrowed(signal) => action,
            None if threads::is_borrowed(signal) => {
                notes.push_record(&Disposition::zeroed(), &[])?;
                continue;
            }
            // SAFETY: only asks.
            _ => unsafe { call::sigaction(signal, None) }
                .or_report(format_args!("asking for the disposition of signal {signal}"))?,
        };
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
