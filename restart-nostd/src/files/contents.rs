//! Files whose contents are in the image: memfds, deleted files, and files in `/dev/shm`.
//!
//! The first two are made, with what is in them, before memory is, since the program may have mapped them;
//! one in `/dev/shm` only if it is gone, and is written to late, with all that changes the world outside.
//! What would stand in the way of that comes last: permissions and seals.

use core::ops::Range;

use ckpt_image::files::{Descriptor, Extent, FileContents, descriptor, shown};
use ckpt_image::record::{Mapping, all};
use ckpt_image::{Checksum, Head, Invalid};
use ckpt_sys::call::{self, Fd, File};
use ckpt_sys::{Errno, Line, proc};
use linux_raw_sys::general::{
    F_SEAL_SEAL, MFD_ALLOW_SEALING, MFD_EXEC, O_CLOEXEC, O_CREAT, O_DIRECTORY, O_EXCL, O_NOFOLLOW,
    O_PATH, O_RDWR, O_TMPFILE, S_IFMT, S_IFREG, SEEK_SET, stat,
};

use super::{OF_PATH, Restored, descriptors, move_beyond, reopen};
use crate::contents::{for_each_chunk, write_differences};
use crate::image::Image;
use crate::paths::{Shown, is_moved, with_name, with_path};
use crate::report::{OrFail, fail};
use crate::undo::{self, Made};

/// Refuses shared memory that is not what the program had; if it is gone it will be made again.
pub fn check_shared_memory(head: &Head<'_>, path: &[u8], inode: u64) {
    let same_boot = head.process().0.boot_id == proc::boot_id();
    let is_it = |there: &stat| {
        there.st_mode & S_IFMT == S_IFREG && (is_moved(path) || same_boot && there.st_ino == inode)
    };
    match with_path(path, call::stat) {
        Err(Errno::ENOENT) => {}
        Ok(there) if is_it(&there) => {
            if !with_path(path, call::may_write) {
                fail(format_args!(
                    "{}, which the program shares, may not be written by this user; give it the permission",
                    Shown(path)
                ));
            }
        }
        Ok(_) => fail(format_args!(
            "{}, which the program shares, is now another file of that name; remove it, and it is made \
             again",
            Shown(path)
        )),
        Err(why) => Err::<(), _>(why).or_fail(format_args!("{}", Shown(path))),
    }
}

/// Makes a file and its descriptor; of a file with several the first one makes it.
pub fn restore(restored: &Restored<'_>) {
    let Restored { record, path, .. } = *restored;
    let step = format_args!("making {} again for descriptor {}", Shown(path), record.fd);
    let first = restored.first_of_file();
    let opened = match record.kind {
        descriptor::SHARED_MEMORY => {
            if first.fd == record.fd {
                for_each_part(restored, |_, _| {});
                make_shared_memory(path, record.size);
            }
            with_path(path, |path| call::openat(path, record.flags & !OF_PATH, 0))
        }
        _ if first.fd != record.fd => reopen(Fd(first.fd), record.flags),
        kind => {
            let made = if kind == descriptor::MEMFD {
                make_memfd(shown(path).strip_prefix(b"/memfd:").unwrap_or(path))
            } else {
                make_deleted(shown(path))
            };
            let file = made.and_then(move_beyond).map(File::from_fd).or_fail(step);
            call::ftruncate(file.fd(), record.size).or_fail(step);
            load(restored, file.fd());
            reopen(file.fd(), record.flags)
        }
    };
    restored.take(opened.or_fail(step));
    if record.flags & O_PATH == 0 {
        call::lseek(Fd(record.fd), record.offset as i64, SEEK_SET).or_fail(step);
    }
}

/// A memfd with nothing in it.
pub fn make_memfd(name: &[u8]) -> Result<Fd, Errno> {
    with_name(name, |name| {
        // Before Linux 6.3 there is but one kind; where the other one is forced, so be it.
        call::memfd_create(name, MFD_ALLOW_SEALING | MFD_EXEC)
            .or_else(|_| call::memfd_create(name, MFD_ALLOW_SEALING))
    })
}

/// An empty file without a name, in the directory of `path`; if that is not possible, in memory.
pub fn make_deleted(path: &[u8]) -> Result<Fd, Errno> {
    let end = path.iter().rposition(|&byte| byte == b'/').unwrap_or(0);
    with_path(path.get(..end.max(1)).unwrap_or(b"/"), |directory| {
        // Without O_DIRECTORY, which is in the kernel's O_TMPFILE, a kernel without it makes the
        // directory a file.
        call::openat(directory, O_TMPFILE | O_DIRECTORY | O_RDWR | O_CLOEXEC, 0o600)
    })
    .or_else(|_| make_and_unlink(&path[..end]))
    .or_else(|_| make_memfd(b"deleted"))
}

/// For file systems that have no files without a name.
fn make_and_unlink(directory: &[u8]) -> Result<Fd, Errno> {
    let mut path = Line::<4096>::new();
    path.push(directory);
    path.push(Line::<32>::of(format_args!("/.ckpt-{}", call::getpid())).as_bytes());
    with_path(path.as_bytes(), |path| {
        let made = call::openat(path, O_CREAT | O_EXCL | O_RDWR | O_CLOEXEC | O_NOFOLLOW, 0o600)?;
        call::unlink(path)?;
        Ok(made)
    })
}

/// Makes a file in `/dev/shm` again if it is gone. Until its contents are written it has but zeros.
pub fn make_shared_memory(path: &'static [u8], size: u64) {
    let step = format_args!("making {} again", Shown(path));
    let flags = O_CREAT | O_EXCL | O_NOFOLLOW | O_RDWR | O_CLOEXEC;
    match with_path(path, |path| call::openat(path, flags, 0o600)) {
        Err(Errno::EEXIST) => {}
        made => {
            let file = File::from_fd(made.or_fail(step));
            undo::remember(Made::File(path));
            call::ftruncate(file.fd(), size).or_fail(step);
        }
    }
}

/// The descriptor that has the contents of the file of which `mapping` is, and its path.
fn descriptor_of<'a>(
    image: &Image,
    head: &Head<'a>,
    mapping: &Mapping,
    name: &[u8],
) -> Option<(Descriptor, &'a [u8])> {
    descriptors(image, head)
        .map(|(record, path, _)| (record, path))
        .find(|(record, path)| record.has_contents() && record.is_mapped(path, mapping, name))
}

/// Whether a descriptor has the contents of the file of which `mapping` is.
pub fn has_contents_of(image: &Image, head: &Head<'_>, mapping: &Mapping, name: &[u8]) -> bool {
    descriptor_of(image, head, mapping, name).is_some()
}

/// That file, open in `mode`.
pub fn of_mapping(
    image: &Image,
    head: &Head<'_>,
    mapping: &Mapping,
    name: &[u8],
    mode: u32,
) -> Option<File> {
    let (record, path) = descriptor_of(image, head, mapping, name)?;
    let step = format_args!("opening {}, which the program has mapped", Shown(path));
    Some(File::from_fd(reopen(Fd(record.fd), mode | O_CLOEXEC).or_fail(step)))
}

/// What the image tells of the contents of a file.
fn contents_of<'a>(restored: &Restored<'a>) -> (FileContents, &'a [u8]) {
    let mut all = restored.head.file_contents().into_iter().flatten();
    all.find(|(file, _)| file.fd == restored.record.fd)
        .unwrap_or_else(|| restored.image.fail(&Invalid::Damaged))
}

/// Writes what shared memory had in it; and gives a file the owner, permissions, modification time and
/// seals that it had.
pub fn finish(restored: &Restored<'_>) {
    let Restored { record, path, .. } = *restored;
    if !record.has_contents() || restored.first_of_file().fd != record.fd {
        return;
    }
    let step = format_args!("writing {} for descriptor {}", Shown(path), record.fd);
    let file = File::from_fd(reopen(Fd(record.fd), O_RDWR | O_CLOEXEC).or_fail(step));
    if record.kind == descriptor::SHARED_MEMORY {
        call::ftruncate(file.fd(), record.size).or_fail(step);
        load(restored, file.fd());
    }
    let (contents, _) = contents_of(restored);
    // Another user's can only be made by root.
    let _ = call::fchown(file.fd(), contents.user, contents.group);
    let _ = call::fchmod(file.fd(), contents.mode & 0o7777);
    let _ = call::set_modified(file.fd(), record.mtime, record.mtime_nsec);
    if record.kind == descriptor::MEMFD && contents.seals != 0 {
        seal(file.fd(), contents.seals).or_fail(format_args!("sealing {}", Shown(path)));
    }
}

/// Seals a memfd; the last seal forbids others.
fn seal(fd: Fd, seals: u32) -> Result<(), Errno> {
    match call::seals(fd)? & seals {
        there if there == seals => Ok(()),
        there if there & F_SEAL_SEAL != 0 => Err(Errno::EPERM),
        _ => call::add_seals(fd, seals),
    }
}

/// Lets a file hold what the image has: where nothing is stored it gets holes.
fn load(restored: &Restored<'_>, into: Fd) {
    let Restored { record, path, .. } = *restored;
    let step = format_args!("writing {} for descriptor {}", Shown(path), record.fd);
    let mut end = 0;
    for_each_part(restored, |bytes, start| {
        clear(into, end..start).or_fail(step);
        write_differences(into, bytes, start).or_fail(step);
        end = start + bytes.len() as u64;
    });
    clear(into, end..record.size).or_fail(step);
}

/// Calls `each` with all that the image has of a file, part by part, and with where in the file a part
/// begins; and compares the checksum.
fn for_each_part(restored: &Restored<'_>, mut each: impl FnMut(&[u8], u64)) {
    let Restored { image, record, .. } = *restored;
    let (contents, extents) = contents_of(restored);
    let mut sum = Checksum::new();
    let mut position = contents.offset;
    for Extent { start, length } in all(extents) {
        if start + length > record.size {
            image.fail(&Invalid::Damaged);
        }
        for_each_chunk(image, position, length, |chunk, done| {
            sum.update(chunk);
            each(chunk, start + done);
        });
        position += length;
    }
    if sum.value() != contents.checksum {
        image.fail(&Invalid::Checksum);
    }
}

/// Makes a part of a file a hole, unless it is one.
fn clear(file: Fd, part: Range<u64>) -> Result<(), Errno> {
    if part.is_empty() || call::data_in(file, part.clone()).is_empty() {
        return Ok(());
    }
    call::punch_hole(file, part)
}
