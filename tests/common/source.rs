//! What a program writes, taken in as it comes.

use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd};

/// A stream, as far as it has been read.
#[derive(Default)]
pub struct Source {
    /// The descriptor, until its end has been reached.
    pub from: Option<File>,
    pub text: Vec<u8>,
    /// How much of the text has been handed out as lines.
    pub seen: usize,
}

impl Source {
    pub fn new(from: Option<File>) -> Source {
        Source { from, ..Source::default() }
    }

    pub fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.from.as_ref().map(|file| file.as_fd())
    }

    /// The next complete line that has not been handed out.
    pub fn line(&mut self) -> Option<String> {
        let fresh = &self.text[self.seen..];
        let length = fresh.iter().position(|byte| *byte == b'\n')?;
        let line = String::from_utf8_lossy(&fresh[..length]).into_owned();
        self.seen += length + 1;
        Some(line)
    }

    /// Reads what there is. The user's end of a terminal without a program gives an error.
    pub fn take_in(&mut self) {
        let mut buffer = [0; 65536];
        match self.from.as_mut().expect("polled, so open").read(&mut buffer) {
            Ok(0) | Err(_) => self.from = None,
            Ok(length) => self.text.extend_from_slice(&buffer[..length]),
        }
    }
}
