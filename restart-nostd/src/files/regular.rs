//! Files, directories and plain devices, which are opened again by their paths.

use core::sync::atomic::{AtomicU8, Ordering::Relaxed};

use ckpt_image::files::{Descriptor, TAIL, descriptor, tail_of_file};
use ckpt_image::{Checksum, Head};
use ckpt_sys::call::{self, Fd, File};
use linux_raw_sys::general::{
    AT_SYMLINK_NOFOLLOW, O_ACCMODE, O_APPEND, O_PATH, O_RDONLY, O_WRONLY, S_IFCHR, S_IFDIR, S_IFMT,
    S_IFREG, SEEK_SET, stat,
};

use super::Restored;
use crate::image::read_at;
use crate::memory;
use crate::paths::{Shown, is_moved, with_path};
use crate::report::{OrFail, fail};

/// Refuses files that are not there, or hold less than they did. `same_boot`: it is the same boot of the
/// same machine.
pub fn check(head: &Head<'_>, record: &Descriptor, path: &[u8], same_boot: bool, changed: Changed) {
    let step = format_args!("{}, which the program has open", Shown(path));
    let status = with_path(path, |path| call::status_at(path, AT_SYMLINK_NOFOLLOW));
    let status = status.unwrap_or_else(|errno| {
        fail(format_args!("{step}: {errno}; put it back, or say with --map-path where it is"))
    });
    if record.kind != kind_of(&status) && record.kind != descriptor::PLACE {
        fail(format_args!("{step}, is no longer of the kind it was; put it back"));
    }
    // A copy, on another machine, is another file; here it is not what the program had open.
    let other = status.st_ino != record.inode || !may_be_same_device(status.st_dev, record.device);
    if same_boot && other && !is_moved(path) && record.kind != descriptor::DEVICE {
        fail(format_args!("{step}, is now another file of that name; put the old one back"));
    }
    if record.kind == descriptor::REGULAR && (status.st_size as u64) < record.size {
        fail(format_args!(
            "{step}, has shrunk from {} to {} bytes since the checkpoint; put it back",
            record.size, status.st_size
        ));
    }
    if changed == Changed::Check
        && record.kind == descriptor::REGULAR
        && has_changed(record, &status)
    {
        fail(format_args!("{step}, has changed since the checkpoint; put it back as it was"));
    }
    if is_written(record) {
        check_written(head, record, path, &status, changed);
    }
}

/// Whether two numbers may be of the same device. A file system that is on none, such as an overlayfs, has
/// another number, of major 0, each time it is mounted.
fn may_be_same_device(one: u64, other: u64) -> bool {
    let is_none = |device: u64| device >> 8 & 0xfff == 0;
    one == other || is_none(one) && is_none(other)
}

/// Whether the size or the modification time of a file is another one.
fn has_changed(record: &Descriptor, status: &stat) -> bool {
    let times = (status.st_mtime as i64, status.st_mtime_nsec as u32);
    status.st_size as u64 != record.size || times != (record.mtime, record.mtime_nsec)
}

/// Whether a descriptor is a file that the program may write to.
fn is_written(record: &Descriptor) -> bool {
    record.kind == descriptor::REGULAR
        && record.flags & O_PATH == 0
        && record.flags & O_ACCMODE != O_RDONLY
}

/// Refuses a file that the program writes to, and that cannot be made again what it was. Output only
/// grows, and is cut back: if it still ends as it did, there, and is not something else by now. A
/// file that is read, too, such as a database, must not have changed at all, since its contents are
/// not in the image; unless it is mapped and they are.
fn check_written(
    head: &Head<'_>,
    record: &Descriptor,
    path: &[u8],
    status: &stat,
    changed: Changed,
) {
    let size = status.st_size as u64;
    let is_output = record.flags & O_ACCMODE == O_WRONLY
        || record.flags & O_APPEND != 0
        || record.fd <= call::STDERR.0;
    if !is_output && has_changed(record, status) && !memory::is_written_back(head, path) {
        fail(format_args!(
            "{}, which the program reads and writes, has changed since the checkpoint; put a copy of \
             that time back",
            Shown(path)
        ));
    }
    if is_output && changed == Changed::Truncate && size > record.size && record.tail != 0 {
        let range = tail_of_file(record.size);
        let mut buffer = [0; TAIL];
        let buffer = &mut buffer[..(range.end - range.start) as usize];
        let file = with_path(path, |path| File::open(path, 0));
        let read = file.and_then(|file| read_at(file.fd(), buffer, range.start));
        let mut sum = Checksum::new();
        sum.update(buffer);
        if read.is_ok() && sum.value() != record.tail {
            fail(format_args!(
                "{}, to which the program writes, is not what it was at the checkpoint, and would be \
                 cut to {} bytes; move it away, and put the old one back, or use --files=keep",
                Shown(path),
                record.size
            ));
        }
    }
}

/// What becomes of files that have changed since the checkpoint.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Changed {
    /// What the program writes to is cut back, if it has grown.
    Truncate,
    /// What the program writes to may have grown, and stays so.
    Keep,
    /// There may be none.
    Check,
}

/// What was chosen, as its place in [`Changed::ALL`].
static CHOSEN: AtomicU8 = AtomicU8::new(Changed::Truncate as u8);

impl Changed {
    /// All of them, by their words on the command line.
    pub const ALL: [(&[u8], Self); 3] =
        [(b"truncate", Self::Truncate), (b"keep", Self::Keep), (b"check", Self::Check)];

    /// Chooses for good.
    pub fn choose(self) {
        CHOSEN.store(self as u8, Relaxed);
    }

    fn chosen() -> Self {
        Self::ALL[usize::from(CHOSEN.load(Relaxed))].1
    }
}

/// The kind of descriptor that a file makes.
fn kind_of(status: &stat) -> u32 {
    match status.st_mode & S_IFMT {
        S_IFREG => descriptor::REGULAR,
        S_IFDIR => descriptor::DIRECTORY,
        S_IFCHR => descriptor::DEVICE,
        _ => 0,
    }
}

/// Opens it again, where it was.
pub fn open(restored: &Restored<'_>) {
    let Restored { record, path, .. } = restored;
    let step = format_args!("opening {} as descriptor {}", Shown(path), record.fd);
    let opened = with_path(path, |path| call::openat(path, record.flags, 0)).or_fail(step);
    restored.take(opened);
    if record.kind == descriptor::DIRECTORY && record.offset != 0 {
        // ext4 takes where a large directory is first read for its beginning, be that its end.
        let _ = call::getdents64(Fd(record.fd), &mut [0; 512]);
    }
    if record.flags & O_PATH == 0 && record.kind != descriptor::DEVICE {
        call::lseek(Fd(record.fd), record.offset as i64, SEEK_SET).or_fail(step);
    }
}

/// Cuts a file that has grown since the checkpoint, and that the program writes to, back to the length
/// it had: it will write the rest again.
pub fn cut_back(record: &Descriptor, path: &[u8]) {
    if !is_written(record) || Changed::chosen() != Changed::Truncate {
        return;
    }
    let step = format_args!("cutting {} back to {} bytes", Shown(path), record.size);
    if call::fstat(Fd(record.fd)).or_fail(step).st_size as u64 > record.size {
        call::ftruncate(Fd(record.fd), record.size).or_fail(step);
    }
}
