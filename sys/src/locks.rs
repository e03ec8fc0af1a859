//! The reader of the lines that tell of locks, in `/proc/PID/fdinfo/N` and `/proc/locks` (proc(5)).
//!
//! ```text
//! lock:   1: POSIX  ADVISORY  WRITE 1234 fe:00:131211 0 EOF
//! lock:   1: FLOCK  ADVISORY  READ  1234 fe:00:131211 0 EOF
//! lock:   1: LEASE  ACTIVE    WRITE 1234 fe:00:131211 0 EOF
//! ```

use crate::lines::number;

/// What a lock is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// Of bytes, held by a process (fcntl(2), `F_SETLK`).
    Posix,
    /// Of bytes, held by an open file (fcntl(2), `F_OFD_SETLK`).
    OpenFile,
    /// Of a whole file (flock(2)).
    Whole,
    /// A lease (fcntl(2), `F_SETLEASE`).
    Lease,
    /// A lease that the kernel takes back, since somebody wants to open the file.
    BrokenLease,
}

/// A lock.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Lock {
    /// What it is.
    pub kind: Kind,
    /// Whether nobody else may have one.
    pub exclusive: bool,
    /// The process that took it; `None` where the kernel does not tell.
    pub pid: Option<u32>,
    /// The inode of the file.
    pub inode: u64,
    /// Its first byte.
    pub start: u64,
    /// How many bytes; 0 for all that come.
    pub length: u64,
}

impl Lock {
    /// Parses a line; `None` if it is of something else.
    pub fn parse(line: &[u8]) -> Option<Self> {
        let line = line.strip_prefix(b"lock:").unwrap_or(line);
        let mut words =
            line.split(|byte| b" \t".contains(byte)).filter(|word| !word.is_empty()).skip(1);
        let mut next = || words.next();
        let kind = match (next()?, next()?) {
            (b"POSIX", _) => Kind::Posix,
            (b"OFDLCK", _) => Kind::OpenFile,
            (b"FLOCK", _) => Kind::Whole,
            (b"LEASE", b"ACTIVE") => Kind::Lease,
            (b"LEASE", _) => Kind::BrokenLease,
            _ => return None,
        };
        let exclusive = next()? == b"WRITE";
        let pid = number(next()?, 10).filter(|&pid| pid != 0).map(|pid| pid as u32);
        let inode = number(next()?.rsplit(|&byte| byte == b':').next()?, 10)?;
        let start = number(next()?, 10)?;
        let length = match next()? {
            b"EOF" => 0,
            last => number(last, 10)?.checked_sub(start)? + 1,
        };
        Some(Self { kind, exclusive, pid, inode, start, length })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_every_kind() {
        let lock = Lock {
            kind: Kind::Posix,
            exclusive: true,
            pid: Some(1234),
            inode: 131_211,
            start: 0,
            length: 0,
        };
        let parsed = |text: &str| Lock::parse(text.as_bytes());
        let line = "lock:\t1: POSIX  ADVISORY  WRITE 1234 fe:00:131211 0 EOF";
        assert_eq!(parsed(line), Some(lock));
        let line = "12: OFDLCK ADVISORY  READ -1 00:1b:7 10 19";
        let expected = Lock {
            kind: Kind::OpenFile,
            exclusive: false,
            pid: None,
            inode: 7,
            start: 10,
            length: 10,
        };
        assert_eq!(parsed(line), Some(expected));
        for (words, kind) in [
            ("FLOCK  ADVISORY ", Kind::Whole),
            ("LEASE  ACTIVE   ", Kind::Lease),
            ("LEASE  BREAKING ", Kind::BrokenLease),
        ] {
            let line = format!("lock:\t1: {words} WRITE 1234 fe:00:131211 0 EOF");
            assert_eq!(parsed(&line), Some(Lock { kind, ..lock }));
        }
        for wrong in ["", "lock:", "1: -> POSIX ADVISORY WRITE 1 0:0:0 0 EOF", "1: POSIX A WRITE 1"]
        {
            assert_eq!(parsed(wrong), None, "{wrong}");
        }
    }
}
