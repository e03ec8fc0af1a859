//! Text in a fixed buffer, and the names of signals.

use core::ffi::CStr;
use core::fmt;

use crate::call::{self, Fd};

/// A line of text of at most `N` bytes; what is over is cut off.
///
/// It is written as a whole, so that lines of several processes do not mix.
pub struct Line<const N: usize = 1024> {
    bytes: [u8; N],
    length: usize,
}

impl<const N: usize> Line<N> {
    /// An empty one.
    pub const fn new() -> Self {
        Self { bytes: [0; N], length: 0 }
    }

    /// The text that `format` makes.
    pub fn of(format: fmt::Arguments<'_>) -> Self {
        let mut line = Self::new();
        let _ = fmt::Write::write_fmt(&mut line, format);
        line
    }

    /// What has been written into it.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.length]
    }

    /// Appends bytes that need not be text: the name of a file.
    pub fn push(&mut self, bytes: &[u8]) {
        let room = (N - self.length).min(bytes.len());
        self.bytes[self.length..self.length + room].copy_from_slice(&bytes[..room]);
        self.length += room;
    }

    /// Cuts off all but the first `length` bytes.
    pub fn truncate(&mut self, length: usize) {
        self.length = self.length.min(length);
    }

    /// The text up to the NUL that was written into it, as a path.
    pub fn as_path(&self) -> &CStr {
        CStr::from_bytes_until_nul(self.as_bytes()).unwrap_or(c"")
    }

    /// Whether something may have been cut off.
    pub fn is_full(&self) -> bool {
        self.length == N
    }

    /// Writes it and a newline to `fd`, whatever comes of it.
    pub fn write_to(&mut self, fd: Fd) {
        self.length = self.length.min(N - 1);
        self.push(b"\n");
        let _ = call::write(fd, self.as_bytes());
    }
}

impl<const N: usize> Default for Line<N> {
    fn default() -> Self {
        Self::new()
    }
}

impl<const N: usize> fmt::Write for Line<N> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.push(text.as_bytes());
        Ok(())
    }
}

impl<const N: usize> fmt::Display for Line<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Escaped(self.as_bytes()).fmt(f)
    }
}

/// A file name to be shown in a line: bytes that are not printable text are shown as `\x1b`.
pub struct Escaped<'a>(pub &'a [u8]);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for chunk in self.0.utf8_chunks() {
            for character in chunk.valid().chars() {
                if character.is_control() {
                    write!(f, "{}", character.escape_default())?;
                } else {
                    fmt::Write::write_char(f, character)?;
                }
            }
            for byte in chunk.invalid() {
                write!(f, "\\x{byte:02x}")?;
            }
        }
        Ok(())
    }
}

/// The standard signals by number, from 1 (signal(7)).
const SIGNALS: [&str; 31] = [
    "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2",
    "PIPE", "ALRM", "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG",
    "XCPU", "XFSZ", "VTALRM", "PROF", "WINCH", "IO", "PWR", "SYS",
];

/// The first real-time signal that programs may use: both C libraries keep 32 and 33 (glibc) or 32
/// to 34 (musl) to themselves, and call 34 or 35 `SIGRTMIN`. This is glibc's.
const RTMIN: u32 = 34;

/// The number of a signal given as `USR2`, `SIGUSR2`, `12`, `RTMIN+3` or `RTMAX-1`; `None` if there
/// is none such.
pub fn signal_from_name(name: &[u8]) -> Option<u32> {
    let name = core::str::from_utf8(name).ok()?;
    let name = name.strip_prefix("SIG").unwrap_or(name);
    let offset = |text: &str, sign| match text {
        "" => Some(0),
        _ => text.strip_prefix(sign)?.parse::<u32>().ok(),
    };
    let number = if let Some(rest) = name.strip_prefix("RTMIN") {
        RTMIN.checked_add(offset(rest, '+')?)?
    } else if let Some(rest) = name.strip_prefix("RTMAX") {
        64_u32.checked_sub(offset(rest, '-')?).filter(|&n| n >= RTMIN)?
    } else if let Some(position) = SIGNALS.iter().position(|&known| known == name) {
        position as u32 + 1
    } else {
        name.parse().ok()?
    };
    (1..=64).contains(&number).then_some(number)
}

/// A signal by name, for people.
pub fn signal_name(signal: u32) -> impl fmt::Display {
    struct Name(u32);
    impl fmt::Display for Name {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            match (self.0, SIGNALS.get((self.0 as usize).wrapping_sub(1))) {
                (_, Some(name)) => write!(f, "SIG{name}"),
                (RTMIN, _) => f.write_str("SIGRTMIN"),
                (RTMIN.., _) => write!(f, "SIGRTMIN+{}", self.0 - RTMIN),
                _ => write!(f, "signal {}", self.0),
            }
        }
    }
    Name(signal)
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::fmt::Write;

    #[test]
    fn a_line_is_cut_off_at_its_end() {
        let mut line = Line::<8>::new();
        write!(line, "{}-{}", 12345, 67890).unwrap();
        assert_eq!(line.as_bytes(), b"12345-67");
        assert!(line.is_full());
    }

    #[test]
    fn signals_by_name_and_number() {
        for (name, number) in [
            ("USR2", 12),
            ("SIGUSR2", 12),
            ("12", 12),
            ("HUP", 1),
            ("SYS", 31),
            ("RTMIN", 34),
            ("RTMIN+3", 37),
            ("SIGRTMAX-1", 63),
            ("RTMAX", 64),
            ("64", 64),
        ] {
            assert_eq!(signal_from_name(name.as_bytes()), Some(number), "{name}");
        }
        for name in ["", "0", "65", "USR3", "RTMIN-1", "RTMIN+31", "RTMIN3", "-1", "RTMAX-40"] {
            assert_eq!(signal_from_name(name.as_bytes()), None, "{name}");
        }
        for number in 1..=64 {
            let name = signal_name(number).to_string();
            if let Some(found) = signal_from_name(name.as_bytes()) {
                assert_eq!(found, number);
            }
        }
    }

    #[test]
    fn names_are_shown_without_control_characters() {
        assert_eq!(Escaped(b"a b\n\x1b[1m\xff\xc3\xa9").to_string(), "a b\\n\\u{1b}[1m\\xff\u{e9}");
    }
}
