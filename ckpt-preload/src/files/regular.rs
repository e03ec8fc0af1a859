//! Files and directories that are opened again by their paths.

use ckpt_image::Checksum;
use ckpt_image::files::{Descriptor, TAIL, descriptor, tail_of_file};
use ckpt_sys::call;
use ckpt_sys::{Errno, Line};
use linux_raw_sys::general::{O_ACCMODE, O_NONBLOCK, O_RDONLY};

use super::{Found, Obstacle};
use crate::config::PATH;

/// A file: it must still be under its name. One that is written to is known again by its tail.
pub fn capture(found: &Found<'_>, record: &mut Descriptor) -> Result<u32, Obstacle> {
    is_under_its_name(found)?;
    if has_lock(found.info) {
        return Err(Obstacle::new(format_args!("{LOCKED}")));
    }
    if record.flags & O_ACCMODE != O_RDONLY {
        record.tail = tail(found.path, record.size).unwrap_or(0);
    }
    Ok(descriptor::REGULAR)
}

/// What a file with a lock is, in words.
pub const LOCKED: &str = "a file on which the program holds a lock";

/// Whether a descriptor holds a lock, by its `fdinfo`.
pub fn has_lock(info: &[u8]) -> bool {
    info.windows(6).any(|word| word == b"\nlock:")
}

/// A directory, likewise.
pub fn capture_directory(found: &Found<'_>) -> Result<u32, Obstacle> {
    is_under_its_name(found)?;
    Ok(descriptor::DIRECTORY)
}

/// Refuses what is not under its name.
pub fn is_under_its_name(found: &Found<'_>) -> Result<(), Obstacle> {
    let own = (found.status.st_dev, found.status.st_ino);
    let there = call::stat(terminated(found.path).as_path());
    if there.is_ok_and(|there| (there.st_dev, there.st_ino) == own) {
        return Ok(());
    }
    Err(Obstacle::new(format_args!("{} that is no longer under its name", found.kind.name())))
}

/// A path with the NUL that ends it.
fn terminated(path: &[u8]) -> Line<{ PATH + 1 }> {
    let mut line = Line::new();
    line.push(path);
    line.push(b"\0");
    line
}

/// The checksum of the tail of a file, by which the restart knows it again before it cuts it back. The
/// descriptor itself may be open for writing only.
fn tail(path: &[u8], size: u64) -> Result<u64, Errno> {
    let file = call::File::open(terminated(path).as_path(), O_NONBLOCK)?;
    let range = tail_of_file(size);
    let mut buffer = [0; TAIL];
    let buffer = &mut buffer[..(range.end - range.start) as usize];
    // SAFETY: the bytes are those of the buffer.
    let read = unsafe { call::pread(file.fd(), buffer.as_mut_ptr(), buffer.len(), range.start) }?;
    let mut sum = Checksum::new();
    sum.update(&buffer[..read]);
    Ok(sum.value())
}
