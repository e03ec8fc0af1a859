//! A thread: what the C library has told the kernel about it, what else is its own, and the way back
//! into the program.

use ckpt_arch::{Context, Resume, ThreadPointers, set_vector_lengths};
use ckpt_image::Invalid;
use ckpt_image::record::{CPUS, Thread};
use ckpt_sys::Errno;
use ckpt_sys::call::{self, SchedulingAttributes};
use linux_raw_sys::prctl::{PR_SET_NAME, PR_SET_TIMERSLACK};

use core::sync::atomic::AtomicU32;

use crate::image::Image;
use crate::place::Place;
use crate::report::{OrFail, note};

/// Refuses a thread that is in no memory of the image's.
pub fn check(image: &Image, thread: &Thread) {
    let Thread { resume, context, frame, tid_address, tid_cache, held_mutexes, .. } = *thread;
    let needed = [resume, context, frame];
    let optional = [tid_address, tid_cache, held_mutexes];
    let lies_in_memory = |&address: &u64| image.has_memory(address, size_of::<u64>() as u64);
    // SAFETY: this program has no thread-local storage.
    let pointers_are_possible = unsafe { pointers_of(thread).set() } == 0;
    if !pointers_are_possible
        || !needed.iter().all(lies_in_memory)
        || !optional.iter().filter(|address| **address != 0).all(lies_in_memory)
    {
        image.fail(&Invalid::Damaged);
    }
}

fn pointers_of(thread: &Thread) -> ThreadPointers {
    ThreadPointers { thread_pointer: thread.thread_pointer, second: thread.second_pointer }
}

/// Makes the calling thread `thread`: tells the kernel what the C library had told it, the C library
/// the new thread id, and restores what else the kernel keeps of each thread.
pub fn register(thread: &Thread, affinity: &[u8]) {
    // SAFETY: the addresses are those that the program has told the kernel; its memory is there.
    unsafe {
        if thread.tid_cache != 0 {
            replace(thread.tid_cache, thread.tid, call::gettid());
        }
        call::set_tid_address(thread.tid_address);
        call::set_robust_list(thread.robust_list, thread.robust_list_length)
            .or_fail(format_args!("registering the robust list"));
        if thread.rseq != 0 {
            call::rseq(thread.rseq, thread.rseq_length, false, thread.rseq_signature)
                .or_fail(format_args!("registering the rseq area"));
        }
        // Neither changes memory: a name that a NUL ends, a number.
        let _ = call::prctl(PR_SET_NAME, thread.name.as_ptr() as usize);
        let _ = call::prctl(PR_SET_TIMERSLACK, thread.timer_slack as usize);
    }
    restore_scheduling(thread, affinity);
}

/// Restores policy, priorities and affinity, where they are not what they were already.
fn restore_scheduling(thread: &Thread, affinity: &[u8]) {
    let scheduling = SchedulingAttributes {
        size: size_of::<SchedulingAttributes>() as u32,
        policy: thread.scheduling_policy,
        flags: thread.scheduling_flags,
        nice: thread.nice,
        priority: thread.scheduling_priority,
        ..SchedulingAttributes::default()
    };
    let same_scheduling = call::scheduling().is_ok_and(|here| {
        (here.policy, here.flags, here.priority)
            == (scheduling.policy, scheduling.flags, scheduling.priority)
    });
    let mut mask = [0; CPUS / 8];
    let same_mask = call::affinity(0, &mut mask).is_ok_and(|length| mask[..length] == *affinity);
    let note_failure = |what: &str, same: bool, restore: &dyn Fn() -> Result<(), Errno>| {
        if !same && let Err(errno) = restore() {
            note(format_args!("the {what} is not restored: {errno}"));
        }
    };
    let nice = thread.nice;
    note_failure("nice value", call::nice() == Ok(nice), &|| call::set_nice(nice));
    note_failure("scheduling policy", same_scheduling, &|| call::set_scheduling(&scheduling));
    let io_priority = thread.io_priority;
    note_failure("I/O priority", call::io_priority() == Ok(io_priority), &|| {
        call::set_io_priority(io_priority)
    });
    note_failure("CPU affinity", same_mask, &|| call::set_affinity(affinity));
}

/// Goes on as `thread`, or, without one, ends the calling thread; in the image's `resume`. `users`
/// counts those who have not gone yet.
///
/// # Safety
///
/// Everything else has been restored.
pub unsafe fn resume(
    thread: Option<&Thread>,
    resume: u64,
    place: &Place,
    users: &'static AtomicU32,
) -> ! {
    if let Some(thread) = thread {
        set_vector_lengths(thread.vectors);
        // What is impossible has been refused.
        // SAFETY: this program has no thread-local storage.
        unsafe { pointers_of(thread).set() };
    }
    let context = thread.map_or(core::ptr::null(), |thread| thread.context as *const Context);
    // SAFETY: the address is that of `resume` in the image's libckpt.so, which is mapped.
    unsafe {
        let resume = core::mem::transmute::<usize, Resume>(resume as usize);
        resume(context, place.start as usize, place.length as usize, users.as_ptr())
    }
}

/// Puts `new` at `address`, where `old` is; anything else stays.
///
/// # Safety
///
/// There are four bytes of memory at `address` that nobody else uses.
pub unsafe fn replace(address: u64, old: u32, new: u32) {
    let word = address as *mut u32;
    // SAFETY: the caller's contract.
    unsafe {
        if word.read_unaligned() == old {
            word.write_unaligned(new);
        }
    }
}
