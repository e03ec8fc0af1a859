//! Target: inside a signal handler, on an alternate stack.
//!
//! ```text
//! altstack [autodisarm]
//! ```
//!
//! Sets an alternate signal stack (with `autodisarm`: `SS_AUTODISARM`, so that the kernel
//! disarms it while a handler runs), raises SIGUSR1, and converses with the test (see
//! `protocol`) from within the handler: its locals, its place on the alternate stack, the
//! mask it runs under and the state of the alternate stack are verified. After `quit` the
//! handler returns, and `main` verifies its own locals, mask and alternate stack.

mod pattern;
mod protocol;

use pattern::mix;
use protocol::{Check, expect, finish, serve};
use std::hint::black_box;
use std::mem::{offset_of, zeroed};
use std::ops::Range;
use std::ptr::{null, null_mut};
use std::sync::OnceLock;

/// Room enough for frames with the registers of AMX or SME, the checkpointer's and ours.
const STACK_SIZE: usize = 256 * 1024;

/// From linux/signal.h: disarm the alternate stack while a handler runs.
const SS_AUTODISARM: libc::c_int = 1 << 31;

/// What the handler has to know, set before the signal is raised.
struct Setting {
    stack: Range<usize>,
    autodisarm: bool,
}

static SETTING: OnceLock<Setting> = OnceLock::new();

/// What the checks inside the handler came to.
static OUTCOME: OnceLock<Check> = OnceLock::new();

/// Known words, different for each `key`.
fn words(key: u64) -> [u64; 32] {
    std::array::from_fn(|n| mix((key << 8) + n as u64))
}

/// The numbers of the blocked signals.
fn blocked() -> Vec<libc::c_int> {
    // SAFETY: all-zero bytes are a valid set, and it outlives the call.
    let set = unsafe {
        let mut set: libc::sigset_t = zeroed();
        libc::sigprocmask(libc::SIG_SETMASK, null(), &raw mut set);
        set
    };
    // SAFETY: `set` was filled in above.
    (1..=64).filter(|&signal| unsafe { libc::sigismember(&raw const set, signal) } == 1).collect()
}

/// What `sigaltstack` reads back: start, size, flags.
fn alternate_stack() -> (usize, usize, libc::c_int) {
    // SAFETY: all-zero bytes are a valid `stack_t`, and it outlives the call.
    let stack = unsafe {
        let mut stack: libc::stack_t = zeroed();
        libc::sigaltstack(null(), &raw mut stack);
        stack
    };
    (stack.ss_sp.addr(), stack.ss_size, stack.ss_flags)
}

extern "C" fn handler(signal: libc::c_int, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    let setting = SETTING.get().expect("set before the signal was raised");
    let local = black_box(words(2));
    let outcome = serve(|| {
        expect("number of the handled signal", libc::SIGUSR1, signal)?;
        // SAFETY: the kernel's siginfo, on the stack of this handler.
        expect("si_code", libc::SI_TKILL, unsafe { (*info).si_code })?;
        expect("locals of the handler", words(2), *black_box(&local))?;
        for (what, address) in [
            ("local", (&raw const local).addr()),
            ("siginfo", info.addr()),
            ("context", context.addr() + offset_of!(libc::ucontext_t, uc_sigmask)),
        ] {
            expect(format_args!("{what} on the alternate stack"), true, {
                setting.stack.contains(&address)
            })?;
        }
        expect("mask in the handler", vec![libc::SIGHUP, libc::SIGUSR1, libc::SIGTERM], blocked())?;
        let in_use = if setting.autodisarm {
            (0, 0, libc::SS_DISABLE)
        } else {
            (setting.stack.start, STACK_SIZE, libc::SS_ONSTACK)
        };
        expect("alternate stack in the handler", in_use, alternate_stack())
    });
    OUTCOME.set(outcome).expect("the signal is raised once");
}

/// Makes `stack` the alternate stack, `handler` the handler of SIGUSR1, and blocks SIGHUP.
fn set_up(stack: &mut [u8], flags: libc::c_int) {
    let alternate =
        libc::stack_t { ss_sp: stack.as_mut_ptr().cast(), ss_flags: flags, ss_size: stack.len() };
    // SAFETY: `stack` lives until the program ends; the handler has the signature that
    // SA_SIGINFO asks for; the signal is only ever raised in `main`, where every call is safe.
    unsafe {
        assert_eq!(libc::sigaltstack(&raw const alternate, null_mut()), 0);
        let mut action: libc::sigaction = zeroed();
        action.sa_sigaction = handler as *const () as usize;
        action.sa_flags = libc::SA_ONSTACK | libc::SA_SIGINFO;
        libc::sigaddset(&raw mut action.sa_mask, libc::SIGTERM);
        assert_eq!(libc::sigaction(libc::SIGUSR1, &raw const action, null_mut()), 0);
        let mut set: libc::sigset_t = zeroed();
        libc::sigaddset(&raw mut set, libc::SIGHUP);
        assert_eq!(libc::sigprocmask(libc::SIG_SETMASK, &raw const set, null_mut()), 0);
    }
}

fn main() {
    let autodisarm = match std::env::args().nth(1).as_deref() {
        None => false,
        Some("autodisarm") => true,
        Some(_) => {
            eprintln!("usage: altstack [autodisarm]");
            std::process::exit(2);
        }
    };
    let stack = vec![0; STACK_SIZE].leak();
    let flags = if autodisarm { SS_AUTODISARM } else { 0 };
    set_up(stack, flags);
    let start = stack.as_ptr().addr();
    SETTING.get_or_init(|| Setting { stack: start..start + STACK_SIZE, autodisarm });

    let local = black_box(words(1));
    // SAFETY: the handler is installed, and nothing here is in the middle of anything.
    unsafe { libc::raise(libc::SIGUSR1) };
    let inside = OUTCOME.get().cloned().unwrap_or(Err("the handler did not run".into()));
    finish(
        inside
            .and_then(|()| expect("locals of main", words(1), *black_box(&local)))
            .and_then(|()| expect("mask after the handler", vec![libc::SIGHUP], blocked()))
            .and_then(|()| {
                let found = alternate_stack();
                expect("alternate stack after the handler", (start, STACK_SIZE, flags), found)
            }),
    );
}
