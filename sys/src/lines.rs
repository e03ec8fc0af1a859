//! Reads a file line by line through a buffer of the caller's.

use crate::Errno;
use crate::call::{self, Fd};

/// A reader of lines. The buffer must be longer than any line; one that is not is an error
/// (`EOVERFLOW`), since half a line must never be taken for a whole one.
pub struct Lines<'b> {
    fd: Fd,
    buffer: &'b mut [u8],
    start: usize,
    end: usize,
    at_end: bool,
}

impl<'b> Lines<'b> {
    /// Reads from `fd`, which stays the caller's.
    pub fn new(fd: Fd, buffer: &'b mut [u8]) -> Self {
        Self { fd, buffer, start: 0, end: 0, at_end: false }
    }

    /// The next line, without its newline.
    ///
    /// # Errors
    ///
    /// Those of read(2), and `EOVERFLOW`.
    pub fn next_line(&mut self) -> Result<Option<&[u8]>, Errno> {
        self.next_ended_by(b'\n')
    }

    /// The next piece that ends with `end`, without it.
    ///
    /// # Errors
    ///
    /// Those of read(2), and `EOVERFLOW`.
    pub fn next_ended_by(&mut self, end: u8) -> Result<Option<&[u8]>, Errno> {
        let mut searched = 0;
        loop {
            let unread = &self.buffer[self.start..self.end];
            if let Some(found) = unread[searched..].iter().position(|&byte| byte == end) {
                let line = self.start..self.start + searched + found;
                self.start = line.end + 1;
                return Ok(Some(&self.buffer[line]));
            }
            searched = unread.len();
            if self.at_end {
                let line = self.start..self.end;
                self.start = self.end;
                return Ok((!line.is_empty()).then(|| &self.buffer[line]));
            }
            self.buffer.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
            if self.end == self.buffer.len() {
                return Err(Errno::EOVERFLOW);
            }
            match call::read(self.fd, &mut self.buffer[self.end..])? {
                0 => self.at_end = true,
                read => self.end += read,
            }
        }
    }
}

/// Splits `text` at the first `separator`.
pub fn split_once(text: &[u8], separator: u8) -> Option<(&[u8], &[u8])> {
    let at = text.iter().position(|&byte| byte == separator)?;
    Some((&text[..at], &text[at + 1..]))
}

/// A number written in `radix` and nothing else.
pub fn number(text: &[u8], radix: u32) -> Option<u64> {
    core::str::from_utf8(text).ok().and_then(|text| u64::from_str_radix(text, radix).ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Seek, Write};
    use std::os::fd::AsRawFd;

    fn lines_of(content: &[u8], buffer: usize) -> Result<Vec<Vec<u8>>, Errno> {
        let path = std::env::temp_dir().join(format!(
            "ckpt-lines-{}-{:?}",
            std::process::id(),
            std::thread::current().id()
        ));
        let mut file = std::fs::File::options()
            .create(true)
            .truncate(true)
            .read(true)
            .write(true)
            .open(&path)
            .unwrap();
        std::fs::remove_file(&path).unwrap();
        file.write_all(content).unwrap();
        file.rewind().unwrap();
        let mut buffer = vec![0; buffer];
        let mut lines = Lines::new(Fd(file.as_raw_fd()), &mut buffer);
        let mut all = Vec::new();
        while let Some(line) = lines.next_line()? {
            all.push(line.to_vec());
        }
        Ok(all)
    }

    #[test]
    fn lines_across_the_end_of_the_buffer() {
        let expected: Vec<_> = [&b"one"[..], b"", b"three"].map(<[u8]>::to_vec).into();
        for buffer in 6..20 {
            assert_eq!(lines_of(b"one\n\nthree\n", buffer).as_ref(), Ok(&expected));
            assert_eq!(lines_of(b"one\n\nthree", buffer).as_ref(), Ok(&expected));
        }
        assert_eq!(lines_of(b"", 8), Ok(vec![]));
        assert_eq!(lines_of(b"0123456789\n", 8), Err(Errno::EOVERFLOW));
    }
}
