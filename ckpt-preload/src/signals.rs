//! Pending signals and dispositions.

use ckpt_arch::SignalFrame;
use ckpt_image::NoteWriter;
use ckpt_image::record::{self, Disposition, Pending, kind};
use ckpt_sys::call::{self, ALL_SIGNALS};
use ckpt_sys::lines::number;
use ckpt_sys::{Errno, proc};
use linux_raw_sys::general::{_NSIG, siginfo_t};

use crate::report::{Failure, OrReport, not_written};

/// The signals that are pending, as a mask.
pub fn pending() -> u64 {
    call::pending_signals().unwrap_or(0)
}

/// Notes the pending signals with all they carry.
///
/// The kernel shows only which there are, not their values and counts. So they are taken out of
/// the queues one by one into `room`, and put back in the same order: all signals are blocked here,
/// so that none is delivered meanwhile, and to oneself one may queue any siginfo.
pub fn capture_pending(
    notes: &mut NoteWriter<'_>,
    frame: &SignalFrame,
    checkpoint_signal: u32,
    text: &mut [u8],
    room: &mut [u8],
) -> Result<(), Failure> {
    let whole = room.len() / size_of::<Pending>() * size_of::<Pending>();
    let room: &mut [Pending] = bytemuck::cast_slice_mut(&mut room[..whole]);
    let taken = take_all(room, text);
    put_back(&room[..taken]).or_report(format_args!("queueing pending signals again"))?;
    if taken == room.len() {
        return Err(not_written(format_args!("more than {taken} signals are pending")));
    }
    notes.begin(record::NAME, kind::PENDING)?;
    for signal in &room[..taken] {
        if signal.signal != checkpoint_signal && survives(signal.signal, frame.mask) {
            notes.push_record(signal, &[])?;
        }
    }
    notes.end()?;
    Ok(())
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

/// Queues signals for this process.
fn put_back(signals: &[Pending]) -> Result<(), Errno> {
    let (pid, tid) = (call::getpid(), call::gettid());
    let mut result = Ok(());
    for Pending { signal, to_thread, info } in signals {
        let info = info.as_ptr().cast();
        let queued = match to_thread {
            0 => call::queue_to_process(pid, *signal, info),
            _ => call::queue_to_thread(pid, tid, *signal, info),
        };
        result = result.and(queued);
    }
    result
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
