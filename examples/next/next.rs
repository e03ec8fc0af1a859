//! `libnext.so`: preloaded, it tells of every `write` that a program makes.
//!
//! ```text
//! LD_PRELOAD=./libnext.so ./counting-test 1 3 0
//! ```
//!
//! The dynamic linker looks a symbol up in the program first, then in the preloaded libraries, then
//! in those that the program asks for, and takes the first there is. So the program's calls of
//! `write` come here; and "the next one", in this order, is the one it would have had without us.
//!
//! Systems that save a program by wrapping its calls are made of hundreds of such functions, since
//! they learn what it has only by watching it from the start. They do not see what does not go
//! through a symbol: the C library's calls within itself, system calls without a library, static
//! programs. `libckpt.so` wraps nothing, and asks the kernel afterwards.

use std::ffi::c_void;
use std::sync::OnceLock;

type Write = unsafe extern "C" fn(i32, *const c_void, usize) -> isize;

/// The `write` that stands behind ours.
fn next_write() -> Write {
    static NEXT: OnceLock<Write> = OnceLock::new();
    *NEXT.get_or_init(|| {
        // SAFETY: the name is a C string. RTLD_NEXT goes on behind the library that calls.
        let next = unsafe { libc::dlsym(libc::RTLD_NEXT, c"write".as_ptr()) };
        assert!(!next.is_null(), "there is no write but ours");
        // SAFETY: whatever comes next under this name has the type of write(2).
        unsafe { std::mem::transmute::<*mut c_void, Write>(next) }
    })
}

/// write(2), and a line on standard error that tells of it.
///
/// # Safety
///
/// That of write(2).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn write(fd: i32, bytes: *const c_void, length: usize) -> isize {
    let next = next_write();
    // SAFETY: the caller's contract.
    let result = unsafe { next(fd, bytes, length) };
    // SAFETY: errno is the calling thread's.
    let errno = unsafe { *libc::__errno_location() };
    let line = format!("next: write({fd}, {length} bytes) = {result}\n");
    // SAFETY: the line is as long as it says. By way of eprintln this would come back to us.
    unsafe { next(2, line.as_ptr().cast(), line.len()) };
    // SAFETY: as above. What we did must not show in it.
    unsafe { *libc::__errno_location() = errno };
    result
}
