//! Epoll sets.

use bytemuck::{Zeroable, bytes_of};
use ckpt_image::NoteWriter;
use ckpt_image::files::{Watched, descriptor};
use ckpt_sys::Errno;
use ckpt_sys::call::{self, Fd, File};
use ckpt_sys::lines::{Lines, number};

use super::{Found, Obstacle, lowest, own};

/// An epoll set: what it watches, by the lines `tfd: N events: N data: N pos:N ino:N sdev:N` of its
/// `fdinfo`.
pub fn capture(found: &Found<'_>, notes: &mut NoteWriter<'_>) -> Result<u32, Obstacle> {
    let file = File::open(own(format_args!("fdinfo/{}", found.fd.0)).as_path(), 0)?;
    let mut buffer = [0; 4096];
    let mut lines = Lines::new(file.fd(), &mut buffer);
    while let Some(line) = lines.next_line()? {
        if !line.starts_with(b"tfd:") {
            continue;
        }
        let entry = Entry::parse(line).ok_or(Errno::ENOSYS)?;
        let through = entry.holder(found.fd)?.ok_or_else(|| {
            Obstacle::new(format_args!(
                "an epoll set with a descriptor, once {}, that only another process has",
                entry.fd
            ))
        })?;
        notes.push(bytes_of(&Watched {
            fd: entry.fd,
            through: through.0,
            data: entry.data,
            events: entry.events,
            ..Watched::zeroed()
        }))?;
    }
    Ok(descriptor::EPOLL)
}

/// A line.
struct Entry {
    fd: i32,
    events: u32,
    data: u64,
    inode: u64,
}

impl Entry {
    fn parse(line: &[u8]) -> Option<Self> {
        let mut words = line.split(|byte| b" :\t".contains(byte)).filter(|word| !word.is_empty());
        let mut value = |key: &[u8], radix| {
            words.by_ref().find(|&word| word == key)?;
            number(words.next()?, radix)
        };
        Some(Self {
            fd: value(b"tfd", 10)? as i32,
            events: value(b"events", 16)? as u32,
            data: value(b"data", 16)?,
            inode: value(b"ino", 16)?,
        })
    }

    /// A descriptor of the open file: the one by whose number it was added, unless that has been closed
    /// since.
    fn holder(&self, set: Fd) -> Result<Option<Fd>, Errno> {
        let tid = call::gettid();
        let is_it = |fd: Fd| {
            call::fstat(fd).is_ok_and(|status| status.st_ino == self.inode)
                && call::epoll_watches(tid, set, self.fd, fd).unwrap_or(true)
        };
        if is_it(Fd(self.fd)) {
            return Ok(Some(Fd(self.fd)));
        }
        lowest(|fd| Ok(is_it(fd)))
    }
}
