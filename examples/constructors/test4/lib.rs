//! `libtest4.so`: `^C` lets you choose another integer. Once.
//!
//! The handler calls `main`, so it is under way as long as that is; and while a handler is under
//! way the kernel keeps its signal blocked. A second `^C` therefore waits until the run that the
//! first one began has ended and the handler has returned. With an endless target it waits for
//! ever. `test5` mends this.

use std::ffi::{c_char, c_int};
use std::ptr::null_mut;
use std::sync::atomic::{AtomicPtr, Ordering};

use constructor::Target;

constructor::constructor!(construct);

static TARGET: AtomicPtr<Target> = AtomicPtr::new(null_mut());

unsafe extern "C" fn construct(argc: c_int, argv: *const *const c_char) {
    // SAFETY: the dynamic loader calls this first, with the program's arguments.
    let target = Box::leak(Box::new(unsafe { Target::new("test4", argc, argv) }));
    TARGET.store(target, Ordering::Relaxed);
    let integer = target.ask();
    constructor::on_interrupt(choose_again);
    let status = target.run(&integer);
    // SAFETY: no other thread is in `exit`.
    unsafe { libc::exit(status) }
}

/// The handler: another run on top of the one that was interrupted, which then goes on.
extern "C" fn choose_again(_signal: c_int) {
    // SAFETY: stored, for ever, before this became the handler.
    let target = unsafe { &*TARGET.load(Ordering::Relaxed) };
    target.run(&target.ask());
}
