//! `libtest2.so`: a constructor that calls the target's `main` itself.
//!
//! `main` is a function like any other, if one knows where it is: the target exports it, so `dlsym`
//! finds it. Since the constructor never returns, the start-up code never comes to call it as well.

use std::ffi::{c_char, c_int};

use constructor::Target;

constructor::constructor!(construct);

unsafe extern "C" fn construct(argc: c_int, argv: *const *const c_char) {
    // SAFETY: the dynamic loader calls this first, with the program's arguments.
    let target = unsafe { Target::new("test2", argc, argv) };
    let status = target.run(&target.ask());
    // SAFETY: no other thread is in `exit`.
    unsafe { libc::exit(status) }
}
