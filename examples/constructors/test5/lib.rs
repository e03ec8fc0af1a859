//! `libtest5.so`: `^C` lets you choose another integer, at once, however often.
//!
//! The handler does not call `main`; it leaves, together with the run that it interrupted, for the
//! constructor's beginning, and the signal mask is put back on the way. This is how the checkpointer
//! comes back into a program: the context that it saved is restored, whatever the processor was
//! doing meanwhile.

use std::ffi::{c_char, c_int};
use std::ptr::null_mut;
use std::sync::atomic::{AtomicPtr, Ordering};

use constructor::{ReturnPoint, Target};

constructor::constructor!(construct);

static BEGINNING: AtomicPtr<ReturnPoint> = AtomicPtr::new(null_mut());

unsafe extern "C" fn construct(argc: c_int, argv: *const *const c_char) {
    // SAFETY: the dynamic loader calls this first, with the program's arguments.
    let target = unsafe { Target::new("test5", argc, argv) };
    let beginning = ReturnPoint::new();
    BEGINNING.store((&raw const *beginning).cast_mut(), Ordering::Relaxed);
    constructor::on_interrupt(begin_again);
    let status = loop {
        if let Some(status) = beginning.call(|| target.run(&target.ask())) {
            break status;
        }
    };
    beginning.leave();
    // SAFETY: no other thread is in `exit`.
    unsafe { libc::exit(status) }
}

/// The handler, which does not return.
extern "C" fn begin_again(_signal: c_int) {
    // SAFETY: stored, for ever, before this became the handler; and the signal is open only during
    // a call. The target holds nothing that is missed when a run of it is abandoned.
    unsafe { (*BEGINNING.load(Ordering::Relaxed)).jump() }
}
