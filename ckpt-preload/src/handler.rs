//! The signal handler: out of the program, and back into it.
//!
//! It runs on whatever stack the program was on when the signal came, of which nothing is known but
//! that the kernel's signal frame fitted. So it needs as little of it as can be: the context, and
//! one call to leave for the private stack.

use core::ptr::null_mut;
use core::sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, Ordering::Relaxed, Ordering::SeqCst};

use ckpt_arch::{Context, SignalFrame, outcome, restore_context, save_context_then, signal_return};
use ckpt_sys::Errno;
use ckpt_sys::call::{self, ALL_SIGNALS};
use linux_raw_sys::general::{
    SA_ONSTACK, SA_RESTART, SA_RESTORER, SA_SIGINFO, kernel_sigaction, kernel_sigset_t, siginfo_t,
};

use crate::config::config;
use crate::{calls, checkpoint, limits, threads};

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

/// Installs the handler for `signal`; returns the disposition it had. All signals are blocked while it
/// runs.
pub fn install(signal: u32) -> Result<kernel_sigaction, Errno> {
    let handler = handle as *const () as usize;
    let flags = SA_ONSTACK | SA_RESTART | SA_SIGINFO | SA_RESTORER;
    // SAFETY: the handler is one, takes the arguments that SA_SIGINFO brings, and ends in the trampoline.
    unsafe { call::sigaction(signal, Some(&action(handler, flags))) }
}

/// A disposition.
fn action(handler: usize, flags: u32) -> kernel_sigaction {
    kernel_sigaction {
        // SAFETY: an address, or one of the two constants; null is None.
        sa_handler_kernel: unsafe {
            core::mem::transmute::<usize, Option<unsafe extern "C" fn(i32)>>(handler)
        },
        sa_flags: flags.into(),
        sa_restorer: Some(signal_return),
        sa_mask: kernel_sigset_t { sig: [ALL_SIGNALS] },
    }
}

/// Gives `signal` back the disposition `before`, by default the default one, unless somebody else has
/// a handler by now. Where it is pending without a handler it is forgotten, which comes of ignoring it.
pub fn uninstall(signal: u32, before: Option<kernel_sigaction>) {
    if !is_installed(signal) {
        return;
    }
    let before = before.unwrap_or_else(|| action(DEFAULT, 0));
    if address_of(&before) == DEFAULT {
        // SAFETY: there is no handler.
        let _ = unsafe { call::sigaction(signal, Some(&action(IGNORE, 0))) };
    }
    // SAFETY: what was a handler is one.
    let _ = unsafe { call::sigaction(signal, Some(&before)) };
}

/// Whether `signal` has this handler.
pub fn is_installed(signal: u32) -> bool {
    // SAFETY: only asks.
    unsafe { call::sigaction(signal, None) }.is_ok_and(|action| is_ours(&action))
}

/// Whether a handler is this one.
pub fn is_ours(action: &kernel_sigaction) -> bool {
    address_of(action) == handle as *const () as usize
}

/// `SIG_DFL`, where a handler's address would be.
pub const DEFAULT: usize = 0;
/// `SIG_IGN`, likewise.
pub const IGNORE: usize = 1;

/// The address of a handler, or the constant in its place.
pub fn address_of(action: &kernel_sigaction) -> usize {
    action.sa_handler_kernel.map_or(0, |handler| handler as usize)
}

/// Calls the handler that the program has for a signal that is borrowed, if one that was sent is meant
/// for it.
fn pass_on(signal: i32, info: *const siginfo_t, frame: *mut SignalFrame) {
    let Some(action) = threads::kept(signal as u32) else { return };
    let address = address_of(&action);
    if address > IGNORE {
        // SAFETY: it is a handler; one that wants but the first argument leaves the others alone.
        unsafe {
            let handler = core::mem::transmute::<
                usize,
                unsafe extern "C" fn(i32, *const siginfo_t, *mut SignalFrame),
            >(address);
            handler(signal, info, frame);
        }
    }
}

/// The thread that is on the private stack, or 0.
static OWNER: AtomicU32 = AtomicU32::new(0);

/// Whether a request has come while a checkpoint was under way, since when all threads had stopped.
static AGAIN: AtomicBool = AtomicBool::new(false);

/// All threads have stopped: what was requested until now is served by this checkpoint.
pub fn all_have_stopped() {
    AGAIN.store(false, SeqCst);
}

/// What a signal means for the thread that got it.
enum Role {
    /// It takes the checkpoint, on the private stack.
    Leader,
    /// Another does, and it is parked in this round meanwhile.
    Parked(u32),
    /// Nothing: the checkpoint that it was sent for is over, or the one under way has not begun yet.
    Bystander,
}

/// What the signal means for the calling thread. An owner of the private stack who is none of this
/// process's threads is a fork's parent, or was the leader in the process that was checkpointed.
fn role(info: &siginfo_t) -> Role {
    let own = call::gettid();
    let is_request = !threads::is_to_stop(info);
    loop {
        let owner = OWNER.load(SeqCst);
        if owner != 0 && owner != own && call::thread_exists(call::getpid(), owner) {
            AGAIN.fetch_or(is_request, SeqCst);
            match threads::round() {
                Some(round) => return Role::Parked(round),
                None if OWNER.load(SeqCst) == owner => return Role::Bystander,
                None => continue, // it has just gone, and may have overlooked the request
            }
        }
        if !is_request {
            return Role::Bystander;
        }
        if OWNER.compare_exchange(owner, own, SeqCst, SeqCst).is_ok() {
            if owner != 0 {
                // The round of the owner who is gone is over, and what it had borrowed is not borrowed here.
                threads::release();
            }
            return Role::Leader;
        }
    }
}

/// The handler.
unsafe extern "C" fn handle(signal: i32, info: *const siginfo_t, frame: *mut SignalFrame) {
    // SAFETY: the kernel has filled it in.
    if signal as u32 != config().signal && !threads::is_to_stop(unsafe { &*info }) {
        return pass_on(signal, info, frame);
    }
    // SAFETY: the kernel has put it there, for this handler alone.
    let call = calls::under_way(unsafe { &*frame });
    // SAFETY: the kernel has filled it in.
    let outcome = match role(unsafe { &*info }) {
        Role::Leader => lead(info, frame),
        Role::Parked(round) => threads::park(round, frame),
        Role::Bystander => outcome::SAVED,
    };
    // SAFETY: as above; nobody else looks at it any more.
    unsafe { call.finish(frame, outcome == outcome::RESTARTED) };
}

/// Takes the checkpoint; returns why it returned.
#[inline(never)] // its stack is not for parked threads to carry
fn lead(info: *const siginfo_t, frame: *const SignalFrame) -> u64 {
    let owner = call::gettid();
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
    // done; what is left is to finish the call under way, and to return into the program.
    if outcome == outcome::FAILED {
        // A defect of the library's. Pending signals and descriptors may be lost by it; limits are not.
        limits::put_back();
    }
    // In a restarted process another thread may have got a request already, and been quicker.
    let own = call::gettid();
    if OWNER.compare_exchange(owner, own, SeqCst, SeqCst).is_err() {
        return outcome;
    }
    threads::release();
    OWNER.store(0, SeqCst);
    if AGAIN.swap(false, SeqCst) {
        let _ = call::send_to_thread(call::getpid(), own, config().signal);
    }
    outcome
}
