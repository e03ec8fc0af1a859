//! The signal handler: out of the program, and back into it.
//!
//! It runs on whatever stack the program was on when the signal came, of which nothing is known but
//! that the kernel's signal frame fitted. So it needs as little of it as can be: the context, and
//! one call to leave for the private stack.

use core::ptr::null_mut;
use core::sync::atomic::{AtomicPtr, AtomicU32, Ordering::Relaxed};

use ckpt_arch::{Context, SignalFrame, outcome, restore_context, save_context_then, signal_return};
use ckpt_sys::Errno;
use ckpt_sys::call::{self, ALL_SIGNALS};
use linux_raw_sys::general::{
    SA_ONSTACK, SA_RESTART, SA_RESTORER, SA_SIGINFO, kernel_sigaction, kernel_sigset_t, siginfo_t,
};

use crate::config::{Config, config};
use crate::{checkpoint, limits};

/// What the handler was called with.
pub struct Request {
    /// Why the signal was sent.
    pub info: *const siginfo_t,
    /// The program as it was interrupted.
    pub frame: *const SignalFrame,
    /// The way back into the handler.
    pub context: *const Context,
}

/// The context to go back to if something goes wrong on the private stack.
static WAY_OUT: AtomicPtr<Context> = AtomicPtr::new(null_mut());

/// Sets the context that [`give_up`] goes back to.
pub fn set_way_out(context: *mut Context) {
    WAY_OUT.store(context, Relaxed);
}

/// Leaves the private stack with [`outcome::FAILED`].
pub fn give_up() -> ! {
    // SAFETY: the private stack is only entered after the way out has been set, from a frame that
    // has not returned yet.
    unsafe { restore_context(WAY_OUT.load(Relaxed), outcome::FAILED) }
}

/// Installs the handler, and says whether that went well. All signals are blocked while it runs.
pub fn install(config: &Config) -> Result<(), Errno> {
    let handler = handle as unsafe extern "C" fn(i32, *const siginfo_t, *const SignalFrame);
    let action = kernel_sigaction {
        // SAFETY: both are addresses of functions; SA_SIGINFO tells the kernel of the arguments.
        sa_handler_kernel: unsafe {
            core::mem::transmute::<
                unsafe extern "C" fn(i32, *const siginfo_t, *const SignalFrame),
                Option<unsafe extern "C" fn(i32)>,
            >(handler)
        },
        sa_flags: (SA_ONSTACK | SA_RESTART | SA_SIGINFO | SA_RESTORER).into(),
        sa_restorer: Some(signal_return),
        sa_mask: kernel_sigset_t { sig: [ALL_SIGNALS] },
    };
    // SAFETY: the handler is one, and ends in the trampoline.
    unsafe { call::sigaction(config.signal, Some(&action)) }.map(drop)
}

/// The thread that is on the private stack, or 0.
static OWNER: AtomicU32 = AtomicU32::new(0);

/// Whether the calling thread may use the private stack. If another one is on it, that checkpoint
/// serves this request, too. If that thread is none of this process's, it is a fork's parent.
fn enter() -> bool {
    let own = call::gettid();
    match OWNER.compare_exchange(0, own, Relaxed, Relaxed) {
        Ok(_) => true,
        Err(owner) if call::thread_exists(call::getpid(), owner) => false,
        Err(owner) => OWNER.compare_exchange(owner, own, Relaxed, Relaxed).is_ok(),
    }
}

/// The handler.
unsafe extern "C" fn handle(_: i32, info: *const siginfo_t, frame: *const SignalFrame) {
    if !enter() {
        return;
    }
    let mut context = Context::default();
    let mut request = Request { info, frame, context: &raw const context };
    let stack_top = config().scratch.stack_top();
    set_way_out(&raw mut context);
    // SAFETY: the private stack is this thread's, in which the signal is blocked as long as it is in
    // use. `checkpoint::run` does not unwind.
    let outcome = unsafe {
        save_context_then(&raw mut context, stack_top, checkpoint::run, (&raw mut request).cast())
    };
    // Here the process may be another one. Whatever is to be put right then, restart-static has
    // done; what is left is to return into the program.
    if outcome == outcome::FAILED {
        // A defect of the library's. Pending signals and descriptors may be lost by it; limits are not.
        limits::put_back();
    }
    OWNER.store(0, Relaxed);
}
