//! Files without a name, whose contents are in the image.

use ckpt_image::files::FileContents;
use ckpt_image::{Checksum, Invalid};
use ckpt_sys::call::{self, Fd, File};
use ckpt_sys::{Errno, Escaped, Line};
use linux_raw_sys::general::{O_CLOEXEC, O_DIRECTORY, O_PATH, O_RDWR, O_TMPFILE, SEEK_SET};

use super::{Restored, move_beyond};
use crate::contents::for_each_chunk;
use crate::memory::with_path;
use crate::report::OrFail;

/// The part of a file that is written at a time, unless it is all zeros.
const UNIT: usize = 4096;

/// What the kernel appends to the name of a file that has been deleted.
const DELETED: &[u8] = b" (deleted)";

/// Makes a deleted file again, without a name, in the directory where it had one; if that is not possible,
/// in memory.
pub fn restore_deleted(restored: &Restored<'_>) {
    let Restored { record, path, .. } = *restored;
    let step = format_args!("making {} again for descriptor {}", Escaped(path), record.fd);
    let path = path.strip_suffix(DELETED).unwrap_or(path);
    let end = path.iter().rposition(|&byte| byte == b'/').unwrap_or(0).max(1);
    // Without O_DIRECTORY, which is in the kernel's O_TMPFILE, a kernel without it makes the directory a
    // file.
    let flags = O_TMPFILE | O_DIRECTORY | O_RDWR | O_CLOEXEC;
    let made = with_path(&path[..end], |directory| call::openat(directory, flags, 0o600))
        .or_else(|_| call::memfd_create(c"deleted"))
        .and_then(move_beyond)
        .or_fail(step);
    let file = File::from_fd(made);
    load(restored, file.fd());
    let own = Line::<48>::of(format_args!("/proc/self/fd/{}\0", file.fd().0));
    restored.take(call::openat(own.as_path(), record.flags, 0).or_fail(step));
    if record.flags & O_PATH == 0 {
        call::lseek(Fd(record.fd), record.offset as i64, SEEK_SET).or_fail(step);
    }
}

/// Writes what the image has into an empty file. Where there are only zeros it stays a hole.
fn load(restored: &Restored<'_>, into: Fd) {
    let Restored { image, head, record, path, .. } = *restored;
    let step = format_args!("writing {} for descriptor {}", Escaped(path), record.fd);
    let contents: FileContents = head
        .file_contents()
        .ok()
        .and_then(|mut all| all.find(|contents| contents.fd == record.fd))
        .unwrap_or_else(|| image.fail(&Invalid::Damaged));
    call::ftruncate(into, contents.length).or_fail(step);
    let mut sum = Checksum::new();
    for_each_chunk(image, contents.offset, contents.length, |chunk, done| {
        sum.update(chunk);
        for (index, part) in chunk.chunks(UNIT).enumerate() {
            if part.iter().all(|&byte| byte == 0) {
                continue;
            }
            let at = done + (index * UNIT) as u64;
            let written = call::pwrite(into, part.as_ptr(), part.len(), at).or_fail(step);
            if written != part.len() {
                Err::<(), _>(Errno::ENOSPC).or_fail(step);
            }
        }
    });
    if sum.value() != contents.checksum {
        image.fail(&Invalid::Checksum);
    }
}
