//! `libtest1.so`: code that runs in somebody else's program, before its `main`.
//!
//! This is all there is to getting in: a shared library named in `LD_PRELOAD`, and in it a function
//! whose address stands in the section `.init_array`. `libckpt.so` comes into a program by the same
//! door, to install its signal handler.

use std::ffi::{c_char, c_int};

constructor::constructor!(construct);

unsafe extern "C" fn construct(argc: c_int, argv: *const *const c_char) {
    // SAFETY: the dynamic loader calls this first, with the program's arguments.
    unsafe { constructor::announce("test1", argc, argv) };
}
