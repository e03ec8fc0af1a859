//! How things are shown to people.

use std::fmt::{self, Display};
use std::time::Duration;

use ckpt_sys::Escaped;

/// A number of things: `1 page`, `3 pages`.
pub struct Counted(pub usize, pub &'static str, pub &'static str);

impl Display for Counted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.0, if self.0 == 1 { self.1 } else { self.2 })
    }
}

/// A number of bytes: `4 KiB`, `1.5 MiB`.
pub struct Bytes(pub u64);

impl Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
        if self.0 < 1024 {
            return f.pad(&format!("{} B", self.0));
        }
        let unit = (self.0.ilog2() / 10) as usize - 1;
        let tenths = (u128::from(self.0) * 10) >> (10 * (unit + 1));
        let (whole, tenth) = (tenths / 10, tenths % 10);
        // One decimal is enough, and none where it says nothing.
        if whole >= 100 || tenth == 0 {
            f.pad(&format!("{whole} {}", UNITS[unit]))
        } else {
            f.pad(&format!("{whole}.{tenth} {}", UNITS[unit]))
        }
    }
}

/// A time since the epoch, in UTC: `2026-03-01 09:30:05 UTC`.
pub struct Utc(pub Duration);

impl Display for Utc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.as_secs();
        let (days, time) = (seconds / 86_400, seconds % 86_400);
        // Years that begin in March have their leap day at the end. Eras of 400 years are alike.
        let days = days + 719_468; // since 0000-03-01
        let (era, day) = (days / 146_097, days % 146_097);
        let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
        let day = day - (365 * year + year / 4 - year / 100);
        let month = (5 * day + 2) / 153; // March is 0
        let day = day - (153 * month + 2) / 5 + 1;
        let year = era * 400 + year + u64::from(month >= 10);
        let month = if month < 10 { month + 3 } else { month - 9 };
        let (hour, minute, second) = (time / 3600, time / 60 % 60, time % 60);
        write!(f, "{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02} UTC")
    }
}

/// Nanoseconds: `1.5 s`, `0.25 ms`.
pub struct Nanoseconds(pub u64);

impl Display for Nanoseconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", Duration::from_nanos(self.0))
    }
}

/// A word of a command line as a person would type it to a shell.
pub struct Quoted<'a>(pub &'a [u8]);

impl Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"%+,-./:=@_".contains(byte);
        if !self.0.is_empty() && self.0.iter().all(plain) {
            return Escaped(self.0).fmt(f);
        }
        write!(f, "'{}'", Escaped(self.0).to_string().replace('\'', "'\\''"))
    }
}

/// The things of `list`, separated by spaces, or `none`.
pub fn joined<T: Display>(list: impl IntoIterator<Item = T>) -> String {
    let words: Vec<String> = list.into_iter().map(|item| item.to_string()).collect();
    if words.is_empty() { "none".to_owned() } else { words.join(" ") }
}

/// Breaks `text` at spaces into lines of at most `width` characters, where that is possible.
pub fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        let last = lines.len() - 1;
        let line = &mut lines[last];
        if !line.is_empty() && line.chars().count() + 1 + word.chars().count() > width {
            lines.push(word.to_owned());
        } else {
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes() {
        for (bytes, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1 KiB"),
            (4096, "4 KiB"),
            (1536, "1.5 KiB"),
            (132 << 10, "132 KiB"),
            ((8 << 20) + 1, "8 MiB"),
            (u64::MAX, "15.9 EiB"),
        ] {
            assert_eq!(Bytes(bytes).to_string(), text);
        }
    }

    #[test]
    fn dates() {
        for (seconds, text) in [
            (0, "1970-01-01 00:00:00 UTC"),
            (951_782_399, "2000-02-28 23:59:59 UTC"),
            (951_782_400, "2000-02-29 00:00:00 UTC"),
            (1_709_251_199, "2024-02-29 23:59:59 UTC"),
            (1_709_251_200, "2024-03-01 00:00:00 UTC"),
            (4_107_542_400, "2100-03-01 00:00:00 UTC"),
            (1_798_761_599, "2026-12-31 23:59:59 UTC"),
        ] {
            assert_eq!(Utc(Duration::from_secs(seconds)).to_string(), text);
        }
    }

    #[test]
    fn words_of_a_command() {
        let quoted = |word: &str| Quoted(word.as_bytes()).to_string();
        assert_eq!(quoted("--file=/tmp/a"), "--file=/tmp/a");
        assert_eq!(quoted("a b"), "'a b'");
        assert_eq!(quoted(""), "''");
        assert_eq!(quoted("it's\n"), "'it'\\''s\\n'");
    }

    #[test]
    fn lines_are_broken_at_spaces() {
        assert_eq!(wrapped("ab cd ef", 5), ["ab cd", "ef"]);
        assert_eq!(wrapped("abcdefg hi", 5), ["abcdefg", "hi"]);
        assert_eq!(wrapped("", 5), [""]);
    }
}
