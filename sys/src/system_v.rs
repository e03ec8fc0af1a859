//! What the kernel tells of System V objects (sysvipc(7)): which there are, and who uses them.

use core::ffi::CStr;
use core::fmt;

use linux_raw_sys::general::POLLIN;

use crate::Errno;
use crate::call::{self, File};
use crate::lines::{Lines, number};

/// Calls `each` for every line of a table in `/proc/sysvipc` (proc(5)), that of the headings among them.
///
/// # Errors
///
/// Those of open(2) and read(2); what `each` fails with ends the listing.
pub fn for_each_line<E: From<Errno>>(
    table: &CStr,
    mut each: impl FnMut(&[u8]) -> Result<(), E>,
) -> Result<(), E> {
    let file = match File::open(table, 0) {
        Err(Errno::ENOENT) => return Ok(()), // The kernel has none.
        file => file?,
    };
    let mut buffer = [0; 1024];
    let mut lines = Lines::new(file.fd(), &mut buffer);
    while let Some(line) = lines.next_line()? {
        each(line)?;
    }
    Ok(())
}

/// The columns of a line.
pub struct Columns<'l>(&'l [u8]);

impl<'l> Columns<'l> {
    /// Those of `line`.
    pub fn of(line: &'l [u8]) -> Self {
        Self(line)
    }

    fn next(&mut self) -> Option<&'l [u8]> {
        self.0 = self.0.trim_ascii_start();
        let end = self.0.iter().position(|&byte| byte == b' ').unwrap_or(self.0.len());
        let (word, rest) = self.0.split_at(end);
        self.0 = rest;
        (!word.is_empty()).then_some(word)
    }

    /// The next one, which is a key, and shown with a sign.
    pub fn key(&mut self) -> Option<u32> {
        core::str::from_utf8(self.next()?).ok()?.parse::<i32>().ok().map(|key| key as u32)
    }

    /// The next one, a number in `radix`.
    pub fn number(&mut self, radix: u32) -> Option<u64> {
        number(self.next()?, radix)
    }
}

/// Who uses an object.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum User {
    /// The process of that id.
    Process(u32),
    /// One that waits, of which no more is told.
    Waiting,
}

impl User {
    /// Process `pid`, if it runs: it exists, and has not ended.
    pub fn alive(pid: u32) -> Option<Self> {
        let alive = match call::pidfd_open(pid, 0).map(File::from_fd) {
            Ok(process) => call::poll_now(process.fd(), POLLIN) == Ok(0),
            Err(_) => call::kill(pid, 0) != Err(Errno::ESRCH),
        };
        alive.then_some(Self::Process(pid))
    }
}

impl fmt::Display for User {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Process(pid) => write!(f, "process {pid}"),
            Self::Waiting => f.write_str("a process that waits"),
        }
    }
}
