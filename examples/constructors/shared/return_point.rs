//! The way back out of a call that is not done: what C programs do with `sigsetjmp` and
//! `siglongjmp`, by the stubs with which the checkpointer itself leaves a program and comes back.
//!
//! `sigsetjmp` returns twice, and compilers must be told of it: what they keep in a register or on
//! the stack across the call may be stale the second time. Our stub is used so that every call
//! returns *once*: what is to be left half-way runs on a stack of its own, inside the call.
//!
//! ```text
//!   the stack of the process               the other stack, from its top at each call
//!
//!   |  the dynamic loader      |
//!   |  the constructor         |
//!   |  ReturnPoint::call       |           |  round                   |
//!   |  return address of       |           |  the target's main       |
//!   |  save_context_then       |           |  ...                     |
//!   |--------------------------|           |  signal frame of ^C      |
//!             ^                            |  the handler: jump()     |
//!             |                            |--------------------------|
//!             |                                        |
//!             '---------- restore_context -------------'
//! ```
//!
//! However often that happens, no stack grows: the next call begins at the top again. What stands
//! on the other stack is simply forgotten, and no destructor runs there.
//!
//! A signal handler that is left this way never returns, so the kernel does not unblock the signal
//! either: the mask is ours to put back, which is the `sig` in `siglongjmp`. On the stack of the
//! process every signal is blocked, on the other one the mask is as it was at the beginning. So no
//! handler can jump before there is somewhere to jump to, or twice.

use std::cell::UnsafeCell;
use std::ffi::c_int;
use std::io::Error;
use std::mem::{MaybeUninit, zeroed};
use std::ptr::{null, null_mut};

use ckpt_arch::{Context, restore_context, save_context_then};

const STACK: usize = 8 << 20;
const GUARD: usize = 64 << 10;

/// The outcome that no exit status is like.
const JUMPED: u64 = 1 << 32;

/// Where to come back to.
pub struct ReturnPoint {
    context: UnsafeCell<Context>,
    stack_top: *mut u8,
    /// The signals that were blocked at the beginning.
    mask: libc::sigset_t,
}

impl ReturnPoint {
    /// Blocks all signals until something is called.
    pub fn new() -> &'static Self {
        let (flags, readable) =
            (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, libc::PROT_READ | libc::PROT_WRITE);
        // SAFETY: a new mapping, the lowest part of which becomes a guard.
        let stack = unsafe { libc::mmap(null_mut(), STACK, readable, flags, -1, 0) };
        assert_ne!(stack, libc::MAP_FAILED, "a stack: {}", Error::last_os_error());
        // SAFETY: within that mapping, which nobody else knows.
        unsafe { libc::mprotect(stack, GUARD, libc::PROT_NONE) };
        Box::leak(Box::new(Self {
            context: UnsafeCell::default(),
            stack_top: stack.cast::<u8>().wrapping_add(STACK),
            mask: block_all(),
        }))
    }

    /// Calls `work` and returns what it returns, or `None` if it was left by [`Self::jump`].
    pub fn call(&self, work: impl Fn() -> c_int) -> Option<c_int> {
        let mut round = || {
            set_mask(&self.mask);
            let status = work();
            block_all();
            status
        };
        // SAFETY: the context stays where it is; the stack is ours and, now that no call is under
        // way, nobody uses it; `call_back` is told the type of what it is given, and a panic is an
        // abort.
        let outcome = unsafe {
            let function = call_back_of(&round);
            let argument = (&raw mut round).cast();
            save_context_then(self.context.get(), self.stack_top, function, argument)
        };
        (outcome != JUMPED).then_some(outcome as c_int)
    }

    /// Makes the [`Self::call`] under way return.
    ///
    /// # Safety
    ///
    /// One is under way ([`Self::is_under_way`]), and what it has called can be abandoned.
    pub unsafe fn jump(&self) -> ! {
        block_all();
        // SAFETY: the caller's contract: the frame of `call` is still there.
        unsafe { restore_context(self.context.get(), JUMPED) }
    }

    /// Whether the caller was called by [`Self::call`]: whether it stands on the other stack.
    pub fn is_under_way(&self) -> bool {
        let local = 0_u8;
        let depth = self.stack_top.addr().wrapping_sub((&raw const local).addr());
        depth < STACK
    }

    /// Puts the signal mask back, when there will be no more calls.
    pub fn leave(&self) {
        set_mask(&self.mask);
    }
}

/// A C function that calls a closure like `_work`.
fn call_back_of<F: FnMut() -> c_int>(_work: &F) -> unsafe extern "C" fn(*mut u8) -> u64 {
    unsafe extern "C" fn call_back<F: FnMut() -> c_int>(work: *mut u8) -> u64 {
        // SAFETY: the argument is an `F` that lives until the call returns.
        let work = unsafe { &mut *work.cast::<F>() };
        u64::from(work() as u32)
    }
    call_back::<F>
}

/// Blocks every signal that can be blocked; returns the mask before.
fn block_all() -> libc::sigset_t {
    // SAFETY: both sets are ours; the one that is read has been filled in.
    unsafe {
        let (mut all, mut before) = (MaybeUninit::uninit(), zeroed());
        libc::sigfillset(all.as_mut_ptr());
        libc::sigprocmask(libc::SIG_SETMASK, all.as_ptr(), &mut before);
        before
    }
}

fn set_mask(mask: &libc::sigset_t) {
    // SAFETY: the kernel only reads the mask.
    unsafe { libc::sigprocmask(libc::SIG_SETMASK, mask, null::<libc::sigset_t>().cast_mut()) };
}
