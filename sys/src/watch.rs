//! The reader of the lines that tell what an inotify queue watches, in `/proc/PID/fdinfo/N` (proc(5)).
//!
//! ```text
//! inotify wd:1 ino:20a3 sdev:fe00000 mask:3c8 ignored_mask:0 fhandle-bytes:8 fhandle-type:1 f_handle:…
//! ```

use crate::inode::Inode;
use crate::lines::number;

/// What is watched.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Watched {
    /// The number of the watch.
    pub number: i32,
    /// For which events.
    pub mask: u32,
    /// Which file.
    pub inode: Inode,
}

impl Watched {
    /// Parses a line; `None` if it is of something else.
    pub fn parse(line: &[u8]) -> Option<Self> {
        let value = |key: &[u8], radix| {
            let mut words = line.split(|&byte| byte == b' ');
            number(words.find_map(|word| word.strip_prefix(key))?, radix)
        };
        Some(Self {
            number: value(b"wd:", 10)? as i32,
            mask: value(b"mask:", 16)? as u32,
            inode: Inode { device: device(value(b"sdev:", 16)?), number: value(b"ino:", 16)? },
        })
    }
}

/// A device as stat(2) numbers it, by the kernel's own number for it (include/linux/kdev_t.h).
fn device(own: u64) -> u64 {
    let (major, minor) = (own >> 20, own & 0xf_ffff);
    minor & 0xff | major << 8 | (minor & !0xff) << 12
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line() {
        let line =
            b"inotify wd:3 ino:20a3 sdev:fe00101 mask:800003c8 ignored_mask:0 fhandle-bytes:8";
        let inode = Inode { device: 0x10_fe01, number: 0x20a3 };
        let expected = Watched { number: 3, mask: 0x8000_03c8, inode };
        assert_eq!(Watched::parse(line), Some(expected));
        assert_eq!(Watched::parse(b"inotify wd:3"), None);
    }
}
