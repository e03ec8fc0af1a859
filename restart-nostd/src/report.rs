//! The one line on standard error that says what went wrong.

use core::fmt::{self, Write};
use core::sync::atomic::{AtomicBool, AtomicI32, Ordering::Relaxed};

use ckpt_sys::call::{self, Fd, STDERR};
use ckpt_sys::{Errno, Line};

use crate::undo;

/// The status of a restart that failed, as env(1) and its kin have it.
pub const FAILED: u32 = 125;

/// Where lines go: standard error, until the program's own is in its place.
static STREAM: AtomicI32 = AtomicI32::new(STDERR.0);

/// Whether more is told than what goes wrong.
static VERBOSE: AtomicBool = AtomicBool::new(false);

/// Lets more be told.
pub fn be_verbose() {
    VERBOSE.store(true, Relaxed);
}

/// Lets lines go to `stream` from now on.
pub fn redirect(stream: Fd) {
    STREAM.store(stream.0, Relaxed);
}

/// Where lines go.
pub fn stream() -> Fd {
    Fd(STREAM.load(Relaxed))
}

/// Writes `restart-static: `, `text` and a newline.
pub fn line(text: fmt::Arguments<'_>) {
    let mut line = Line::<2048>::new();
    let _ = write!(line, "restart-static: {text}");
    line.write_to(stream());
}

/// Ends the process with a line that says why. What it has made for others to see is removed first.
pub fn fail(why: fmt::Arguments<'_>) -> ! {
    undo::all();
    line(why);
    call::exit_group(FAILED)
}

/// Says what was done, if that is to be told.
pub fn tell(what: fmt::Arguments<'_>) {
    if VERBOSE.load(Relaxed) {
        line(what);
    }
}

/// Says what is not as it was, though the program can live without it.
pub fn note(what: fmt::Arguments<'_>) {
    line(format_args!("note: {what}"));
}

/// Ends the process where something has failed.
pub trait OrFail<T> {
    /// The value, or the end: with a line that names `step` and the error.
    fn or_fail(self, step: fmt::Arguments<'_>) -> T;
}

impl<T> OrFail<T> for Result<T, Errno> {
    fn or_fail(self, step: fmt::Arguments<'_>) -> T {
        self.unwrap_or_else(|errno| fail(format_args!("{step}: {errno}")))
    }
}
