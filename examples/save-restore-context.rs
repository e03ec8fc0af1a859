//! Saves the registers and the stack, and comes back to them: one call that returns twice.
//!
//! ```text
//! save-restore-context
//! ```
//!
//! A checkpoint within one process: the *image* is a piece of heap, and instead of a new process
//! there is this one, whose stack is overwritten with what was saved. The stubs are those of
//! `libckpt.so` and `restart-static`, in `arch/src`.
//!
//! ```text
//!   the program's stack                  the private stack
//!   | main, run            |             | save_stack: copies the      |
//!   | save_context_then:   |  leaves for | stack, which stands still   |
//!   |   return address     | ----------> | meanwhile; returns SAVED    |  the first return
//!   |                      | <---------- |                             |
//!   | run goes on, changes |             |                             |
//!   | what is on the stack | ----------> | restore_stack: copies all   |
//!   |                      | <---------- | back; returns RESTARTED     |  the second return
//! ```
//!
//! # What goes wrong with a call that returns twice
//!
//! The C functions of this kind, `setjmp` and `getcontext`, save the registers only, the stack
//! pointer among them, and return. All that the registers point to is left to luck:
//!
//! * *The frame has returned.* A wrapper that calls `setjmp` and returns leaves a saved stack
//!   pointer into nothing: other calls have used that memory since, and the second return pops what
//!   they left there. Hence the condition on `restore_context` that the calling frame is still there.
//! * *Slots are used again.* A frame that is still there has gone on after the first return. The
//!   compiler sees a call that returns once; a variable that is not needed on the way that was taken
//!   gives its slot to another, and on the second return that other value is found in it. C compilers
//!   know `setjmp` by name and are careful (`returns_twice`); Rust has no such attribute.
//! * *Registers go back, memory does not.* A local variable may live in a register that a callee
//!   preserves, and then has its old value at the second return; or in memory, and then has its new
//!   one. The optimiser decides which. C's answer is `volatile`: always memory.
//! * *Who writes the image changes it.* If the call returned first and the stack was saved later, the
//!   code that saves it would run in just these frames: half of the image would be from then, half
//!   from now.
//!
//! That is why `save_context_then` takes a function. It runs on another stack, *before the first
//! return*: so the registers and the stack are saved at one instant, at which nothing of the program
//! moves; and as both are put back, the second return finds every variable, wherever it lives, as it
//! was. To the compiler the call returns once, in whichever process, which is the truth: there is no
//! history in which what lies between the two returns has happened to this stack.
//!
//! * *The canary.* Functions built with a stack protector keep a copy of a secret word in their
//!   frames and compare the two before they return. On x86_64 the secret lies at `fs:0x28`, in the
//!   record of the thread; on aarch64 it is a variable of the C library. Frames that come back must
//!   find the same secret, so a restart must give the thread its old thread pointer, and the memory
//!   there and everywhere, before any such function returns. Within one process all of it is still
//!   there, as this program shows.
//!
//! What is not in the image is not put back, which is why a real one holds all of memory.

mod report;

#[cfg(not(any(target_arch = "aarch64", target_arch = "x86_64")))]
compile_error!("where does the canary lie on this processor?");

use std::hint::black_box;
use std::process::ExitCode;
use std::ptr;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use anyhow::{Result, ensure};
use ckpt_arch::outcome::{FAILED, RESTARTED, SAVED};
use ckpt_arch::{Context, ThreadPointers, leave_for_stack, restore_context, save_context_then};
use ckpt_sys::{Errno, maps};

/// What is saved. It must not lie on the stack itself.
#[derive(Default)]
struct Image {
    context: Context,
    stack_start: u64,
    stack: Vec<u8>,
}

/// Not on the stack, so not in the image.
static ELSEWHERE: AtomicU64 = AtomicU64::new(1);

/// Saves the program's stack, on the private one. `image` is an [`Image`].
unsafe extern "C" fn save_stack(image: *mut u8) -> u64 {
    // SAFETY: the caller passes an image of its own, and does nothing until this returns.
    let image = unsafe { &mut *image.cast::<Image>() };
    let found = maps::for_each::<Errno>(c"/proc/self/maps", &mut [0; 8192], |mapping| {
        if mapping.name == b"[stack]" {
            let length = mapping.length() as usize;
            image.stack_start = mapping.start;
            image.stack.reserve_exact(length);
            // SAFETY: the stack can be read, and there is room for it.
            unsafe {
                ptr::copy_nonoverlapping(mapping.start as _, image.stack.as_mut_ptr(), length);
                image.stack.set_len(length);
            }
        }
        Ok(())
    });
    if found.is_ok() && !image.stack.is_empty() { SAVED } else { FAILED }
}

/// Puts the program's stack back, from the private one, then the registers. `image` is an
/// [`Image`].
unsafe extern "C" fn restore_stack(image: *mut u8) -> ! {
    // SAFETY: the image is not on the stack that is overwritten, and nor are we. The frame that
    // saved it is there again, exactly as it was.
    unsafe {
        let image = &*image.cast::<Image>();
        ptr::copy_nonoverlapping(
            image.stack.as_ptr(),
            image.stack_start as *mut u8,
            image.stack.len(),
        );
        restore_context(&image.context, RESTARTED)
    }
}

/// The secret of the stack protector: `fs:0x28`.
#[cfg(target_arch = "x86_64")]
fn canary() -> u64 {
    let thread = ThreadPointers::current().thread_pointer;
    // SAFETY: the C library keeps the record of the thread there, which is longer.
    unsafe { *((thread + 0x28) as *const u64) }
}

/// The secret of the stack protector: the dynamic loader has a variable for it.
#[cfg(target_arch = "aarch64")]
fn canary() -> u64 {
    unsafe extern "C" {
        safe static __stack_chk_guard: u64;
    }
    __stack_chk_guard
}

fn show(when: &str, on_stack: &AtomicU64) {
    let thread = ThreadPointers::current().thread_pointer;
    println!("{when}");
    println!("  on the stack {}, elsewhere {}", on_stack.load(Relaxed), ELSEWHERE.load(Relaxed));
    println!("  thread pointer {thread:#x}, canary {:#x}", canary());
}

fn run() -> Result<()> {
    let mut private_stack = vec![0_u128; 4096]; // 64 KiB; its end is a multiple of 16
    let stack_top = private_stack.as_mut_ptr_range().end.cast::<u8>();
    let mut image = Box::new(Image::default());
    let image = &raw mut *image;
    let on_stack = AtomicU64::new(1);
    let on_stack = black_box(&on_stack); // in memory: for all the compiler knows, others see it

    show("before the call", on_stack);
    // SAFETY: nobody else uses the image and the private stack; save_stack does not unwind.
    let outcome = unsafe {
        save_context_then(&raw mut (*image).context, stack_top, save_stack, image.cast())
    };
    // From here on everything happens twice.
    ensure!(outcome != FAILED, "this program's stack could not be saved");
    if outcome == RESTARTED {
        show("the call returns RESTARTED", on_stack);
        return Ok(());
    }
    show("the call returns SAVED", on_stack);
    on_stack.store(2, Relaxed);
    ELSEWHERE.store(2, Relaxed);
    show("both have been changed", on_stack);
    // SAFETY: nobody uses the private stack any more; restore_stack does not return to here.
    unsafe { leave_for_stack(stack_top, restore_stack, image.cast()) }
}

fn main() -> ExitCode {
    report::report(if std::env::args_os().len() > 1 {
        Err(anyhow::anyhow!("usage: save-restore-context, without arguments"))
    } else {
        run()
    })
}
