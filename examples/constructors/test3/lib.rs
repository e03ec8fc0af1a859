//! `libtest3.so`: a program that does not end, because its `exit` is not the C library's.
//!
//! The dynamic loader looks a name up in the program first, then in the preloaded libraries, then in
//! the libraries the program was linked with: whoever calls `exit` gets ours. (Not the C library
//! itself when the original `main` returns: it calls its own directly. That never happens here.)

use std::ffi::{c_char, c_int, c_void};
use std::mem::transmute;
use std::ptr::null_mut;
use std::sync::atomic::{AtomicPtr, Ordering};

use constructor::{ReturnPoint, Target};

constructor::constructor!(construct);

/// Where `exit` leads.
static BEGINNING: AtomicPtr<ReturnPoint> = AtomicPtr::new(null_mut());

unsafe extern "C" fn construct(argc: c_int, argv: *const *const c_char) {
    // SAFETY: the dynamic loader calls this first, with the program's arguments.
    let target = unsafe { Target::new("test3", argc, argv) };
    let beginning = ReturnPoint::new();
    BEGINNING.store((&raw const *beginning).cast_mut(), Ordering::Relaxed);
    // SAFETY: the function only stores a pointer.
    unsafe { libc::pthread_atfork(None, None, Some(in_a_child)) };
    loop {
        // Whether `main` returned or `exit` was called is all the same.
        beginning.call(|| target.run(&target.ask()));
    }
}

/// In place of the C library's: back to the question.
#[unsafe(no_mangle)]
pub extern "C" fn exit(status: c_int) -> ! {
    // SAFETY: null, or what the constructor has put there for ever.
    match unsafe { BEGINNING.load(Ordering::Relaxed).as_ref() } {
        // SAFETY: a call is under way, and whoever calls `exit` does not expect it to return.
        Some(beginning) if beginning.is_under_way() => unsafe { beginning.jump() },
        _ => really_exit(status),
    }
}

/// What the target has forked may end.
unsafe extern "C" fn in_a_child() {
    BEGINNING.store(null_mut(), Ordering::Relaxed);
}

/// The `exit` that comes after ours in the order of the search.
fn really_exit(status: c_int) -> ! {
    type Exit = unsafe extern "C" fn(c_int) -> !;
    // SAFETY: looks up a name, that of a function of this type, which every C library has.
    unsafe {
        transmute::<*mut c_void, Exit>(libc::dlsym(libc::RTLD_NEXT, c"exit".as_ptr()))(status)
    }
}
