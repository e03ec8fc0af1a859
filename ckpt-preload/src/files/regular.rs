//! Files, with their names or without, and directories.

use ckpt_image::Checksum;
use ckpt_image::files::{Descriptor, TAIL, descriptor, tail_of_file};
use ckpt_sys::call;
use ckpt_sys::proc::process_of;
use ckpt_sys::{Errno, Line};
use linux_raw_sys::general::{AT_SYMLINK_NOFOLLOW, O_ACCMODE, O_RDONLY, stat};

use super::{Found, Obstacle, Reader};
use crate::config::PATH;

/// A file: it must still be under its name. One that is written to is known again by its tail.
pub fn capture(found: &Found<'_>, record: &mut Descriptor) -> Result<u32, Obstacle> {
    is_under_its_name(found)?;
    if record.flags & O_ACCMODE != O_RDONLY {
        record.tail = tail(found, record.size).unwrap_or(0);
    }
    Ok(descriptor::REGULAR)
}

/// A directory, likewise.
pub fn capture_directory(found: &Found<'_>) -> Result<u32, Obstacle> {
    is_under_its_name(found)?;
    Ok(descriptor::DIRECTORY)
}

/// What is known by its path alone, likewise.
pub fn capture_place(found: &Found<'_>) -> Result<u32, Obstacle> {
    is_under_its_name(found)?;
    Ok(descriptor::PLACE)
}

/// A file or directory of `/proc` or `/sys`, whose inode says nothing.
pub fn capture_kernels(found: &Found<'_>) -> Result<u32, Obstacle> {
    let of_another = process_of(found.path).is_some_and(|(id, _)| id != call::getpid());
    if status(found).is_err() && !of_another {
        return Err(Obstacle::new(format_args!("{} that is gone", found.kind.name())));
    }
    Ok(descriptor::KERNEL)
}

/// Whether a descriptor is of something that has a path.
pub fn has_name(found: &Found<'_>) -> bool {
    found.path.starts_with(b"/") && found.status.st_nlink > 0
}

/// What is under its path now.
fn status(found: &Found<'_>) -> Result<stat, Errno> {
    call::status_at(terminated(found.path).as_path(), AT_SYMLINK_NOFOLLOW)
}

/// Whether the program's user may write to what is under its path.
pub fn may_be_written(found: &Found<'_>) -> bool {
    call::may_write(terminated(found.path).as_path())
}

/// Refuses what is not under its name.
pub fn is_under_its_name(found: &Found<'_>) -> Result<(), Obstacle> {
    let own = (found.status.st_dev, found.status.st_ino);
    let there = status(found);
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
fn tail(found: &Found<'_>, size: u64) -> Result<u64, Errno> {
    let reader = Reader::of(found.fd)?;
    let range = tail_of_file(size);
    let mut buffer = [0; TAIL];
    let buffer = &mut buffer[..(range.end - range.start) as usize];
    // SAFETY: the bytes are those of the buffer.
    let read = unsafe { call::pread(reader.fd(), buffer.as_mut_ptr(), buffer.len(), range.start) }?;
    let mut sum = Checksum::new();
    sum.update(&buffer[..read]);
    Ok(sum.value())
}
