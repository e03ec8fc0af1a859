//! `libwrap.a`: linked into a program, it tells of every `malloc` and of `exit`.
//!
//! ```text
//! gcc -static -o program program.c libwrap.a -Wl,--wrap=malloc,--wrap=exit
//! ```
//!
//! Nothing can be preloaded into a program that no dynamic linker starts. What is left is the linker
//! that makes it. Told `--wrap=malloc`, it takes in everything that it puts together, the objects of
//! the C library too,
//!
//! ```text
//!   a reference to malloc           for one to __wrap_malloc, which is here, and
//!   a reference to __real_malloc    for one to malloc.
//! ```
//!
//! A call within one object is settled before the linker sees it.
//!
//! So any allocation of ours would come back to us, and on without end. Hence there is no `std` here,
//! nor a function of the C library that might allocate.
#![no_std]

use core::ffi::{CStr, c_char, c_int, c_longlong, c_void};
use core::panic::PanicInfo;

unsafe extern "C" {
    fn __real_malloc(size: usize) -> *mut c_void;
    fn __real_exit(status: c_int) -> !;
    fn snprintf(buffer: *mut c_char, size: usize, format: *const c_char, ...) -> c_int;
    fn write(fd: c_int, bytes: *const c_void, length: usize) -> isize;
    fn abort() -> !;
}

/// Tells of a call in a line on standard error.
fn say(function: &CStr, argument: c_longlong) {
    let mut line = [0; 64];
    let size = line.len();
    let format = c"wrap: %s(%lld)\n".as_ptr();
    // SAFETY: the buffer is as long as it says, and the arguments are those of the format.
    let length = unsafe { snprintf(line.as_mut_ptr(), size, format, function.as_ptr(), argument) };
    // SAFETY: the names here are short, so that the line is in the buffer.
    unsafe { write(2, line.as_ptr().cast(), length as usize) };
}

/// malloc(3), and before it a line on standard error that tells of it.
///
/// # Safety
///
/// That of malloc(3).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn __wrap_malloc(size: usize) -> *mut c_void {
    say(c"malloc", size as c_longlong);
    // SAFETY: the caller's contract.
    unsafe { __real_malloc(size) }
}

/// exit(3), and before it a line on standard error that tells of it.
///
/// # Safety
///
/// That of exit(3).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn __wrap_exit(status: c_int) -> ! {
    say(c"exit", status.into());
    // SAFETY: the caller's contract.
    unsafe { __real_exit(status) }
}

/// Rust asks for one. Nothing here panics.
#[panic_handler]
fn panic(_: &PanicInfo<'_>) -> ! {
    // SAFETY: it may be called at any time.
    unsafe { abort() }
}
