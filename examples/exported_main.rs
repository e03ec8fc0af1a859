//! What `counting-test` and `primes-test` share: a `main` that is a C function, by that name.
//!
//! Rust's own `main` can be called once, by Rust's start-up code, and takes its arguments from
//! wherever that has put them. These two programs can also be run by somebody who has found the
//! symbol `main` (`constructors/` does), with other arguments, more than once, and even while an
//! earlier run has been interrupted for good. Hence
//!
//! * their arguments are those that `main` is called with;
//! * they allocate nothing and take no lock, which an abandoned run would keep for ever;
//! * each line is one `write`, and nothing lingers in a buffer.

use std::ffi::{CStr, c_char, c_int};
use std::fs::File;
use std::io::{self, Write};
use std::mem::ManuallyDrop;
use std::os::fd::FromRawFd;

/// The arguments of a C `main`.
#[derive(Clone, Copy)]
pub struct Arguments<'a>(&'a [*const c_char]);

impl Arguments<'_> {
    /// # Safety
    ///
    /// `argv` has `argc` strings, which stay as they are.
    pub unsafe fn new(argc: c_int, argv: *const *const c_char) -> Self {
        // SAFETY: the caller's contract.
        Self(unsafe { std::slice::from_raw_parts(argv, argc as usize) })
    }

    /// How many there are after the program's name.
    pub fn count(self) -> usize {
        self.0.len().saturating_sub(1)
    }

    /// The argument at `place`, from 1, if there are so many. What is no text is no number either,
    /// and the empty string will do for it.
    pub fn get(&self, place: usize) -> Option<&str> {
        // SAFETY: a string, as `new` was promised.
        self.0.get(place).map(|text| unsafe { CStr::from_ptr(*text) }.to_str().unwrap_or(""))
    }
}

/// Prints `number` on a line of its own.
pub fn print_line(number: u64) -> io::Result<()> {
    let mut line = [0; 21]; // 20 digits at most
    let mut rest = &mut line[..];
    writeln!(rest, "{number}")?;
    let length = 21 - rest.len();
    // SAFETY: descriptor 1 is only written to; it is not closed when this handle goes.
    let mut stdout = ManuallyDrop::new(unsafe { File::from_raw_fd(1) });
    match stdout.write_all(&line[..length]) {
        // As with Rust's own: what is closed takes everything.
        Err(error) if error.raw_os_error() == Some(libc::EBADF) => Ok(()),
        done => done,
    }
}

/// Does the program's work; returns its exit status.
pub fn run(name: &str, work: impl FnOnce() -> io::Result<()>) -> c_int {
    // As Rust does before its own `main`: a broken pipe is an error of `write`, not a death.
    // SAFETY: nobody else sets a handler meanwhile.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_IGN) };
    match work() {
        Ok(()) => libc::EXIT_SUCCESS,
        Err(error) => {
            eprintln!("{name}: cannot write: {error}");
            libc::EXIT_FAILURE
        }
    }
}
