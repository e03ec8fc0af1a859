//! The thread: what the C library has told the kernel about it, and the way back into the program.

use ckpt_arch::{Context, Resume, ThreadPointers};
use ckpt_image::Invalid;
use ckpt_image::record::{Thread, kind};
use ckpt_sys::call;

use crate::files;
use crate::image::Image;
use crate::place::Place;
use crate::report::OrFail;

/// The thread that the image has.
pub fn of_image(image: &Image) -> Thread {
    let mut threads = image.records::<Thread>(&image.head(), kind::THREADS);
    threads.next().unwrap_or_else(|| image.fail(&Invalid::Damaged))
}

/// Refuses a thread that is in no memory of the image's.
pub fn check(image: &Image) {
    let Thread { resume, context, frame, tid_address, tid_cache, held_mutexes, .. } =
        of_image(image);
    let needed = [resume, context, frame];
    let optional = [tid_address, tid_cache, held_mutexes];
    let lies_in_memory = |&address: &u64| image.has_memory(address, size_of::<u64>() as u64);
    if !needed.iter().all(lies_in_memory)
        || !optional.iter().filter(|address| **address != 0).all(lies_in_memory)
    {
        image.fail(&Invalid::Damaged);
    }
}

/// Tells the kernel what the C library had told it, and the C library the new thread id.
pub fn register(image: &Image) {
    let thread = of_image(image);
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
    }
}

/// Becomes the program.
///
/// # Safety
///
/// Everything else has been restored.
pub unsafe fn resume(image: &Image, place: &Place) -> ! {
    let thread = of_image(image);
    let pointers =
        ThreadPointers { thread_pointer: thread.thread_pointer, second: thread.second_pointer };
    // SAFETY: this program has no thread-local storage.
    if unsafe { pointers.set() } != 0 {
        image.fail(&Invalid::Damaged);
    }
    files::close_own(image);
    // SAFETY: the address is that of `resume` in the image's libckpt.so, which is mapped.
    unsafe {
        let resume = core::mem::transmute::<usize, Resume>(thread.resume as usize);
        resume(thread.context as *const Context, place.start as usize, place.length as usize)
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
