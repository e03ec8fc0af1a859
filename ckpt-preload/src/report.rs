//! The one line on standard error that says what went wrong.

use core::fmt::{self, Write};

use ckpt_image::Full;
use ckpt_sys::call::{self, STDERR, signal_bit};
use ckpt_sys::{Errno, Escaped, Line};
use linux_raw_sys::general::{POLLOUT, SIGPIPE, SIGXFSZ};

/// Why there is no image.
pub enum Failure {
    /// The line has been written.
    Reported,
    /// A system call failed; what for is still to be said.
    Errno(Errno),
}

impl From<Errno> for Failure {
    fn from(errno: Errno) -> Self {
        Self::Errno(errno)
    }
}

impl From<Full> for Failure {
    fn from(_: Full) -> Self {
        not_written(format_args!(
            "there are too many mappings, descriptors or messages to describe"
        ))
    }
}

/// Says what a failed system call was for.
pub trait OrReport<T> {
    /// Turns an error into a line that names `step` and the error.
    fn or_report(self, step: fmt::Arguments<'_>) -> Result<T, Failure>;
}

impl<T, E: Into<Failure>> OrReport<T> for Result<T, E> {
    fn or_report(self, step: fmt::Arguments<'_>) -> Result<T, Failure> {
        self.map_err(|error| match error.into() {
            Failure::Errno(errno) => not_written(format_args!("{step}: {errno}")),
            Failure::Reported => Failure::Reported,
        })
    }
}

/// Reports that the image is not written, and why.
pub fn not_written(why: fmt::Arguments<'_>) -> Failure {
    line(format_args!("{}: not written: {why}", Escaped(crate::writer::target())));
    Failure::Reported
}

/// Writes `ckpt: `, `text` and a newline to standard error; unless that would block, since nobody
/// may be reading. All signals are blocked; one that comes of the writing, as nobody reads or the
/// file may not become longer, is taken back, since it would kill the program.
pub fn line(text: fmt::Arguments<'_>) {
    const OF_WRITING: u64 = signal_bit(SIGPIPE) | signal_bit(SIGXFSZ);
    if !call::poll_now(STDERR, POLLOUT).is_ok_and(|ready| ready != 0) {
        return;
    }
    let mut line = Line::<2048>::new();
    let _ = write!(line, "ckpt: {text}");
    let pending_before = crate::signals::pending();
    line.write_to(STDERR);
    let new = crate::signals::pending() & !pending_before & OF_WRITING;
    if new != 0 {
        call::take_pending(new);
    }
}
