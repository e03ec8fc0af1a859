//! Descriptors that the command line gives.

use ckpt_image::Head;
use ckpt_image::files::{Descriptor, descriptor};
use ckpt_sys::Escaped;
use ckpt_sys::call::{self, Fd};
use linux_raw_sys::general::{O_DIRECT, O_PATH, S_IFMT, S_IFREG, SEEK_SET};

use super::{Restored, records};
use crate::image::Image;
use crate::paths::{self, with_name};
use crate::report::{OrFail, fail};

/// The kind of a descriptor that is given, which is not in an image.
pub const KIND: u32 = 0;

/// Refuses what cannot be given.
pub fn check(image: &Image, head: &Head<'_>) {
    for (fd, path) in paths::all_given() {
        let Some((record, ..)) = records(image, head).find(|(record, ..)| record.fd == fd) else {
            fail(format_args!("--fd {fd}={}: the program has no descriptor {fd}", Escaped(path)))
        };
        // What others have from it would be nowhere.
        let has_more = [descriptor::PSEUDO_TERMINAL, descriptor::MESSAGE_QUEUE];
        if record.has_contents() || has_more.contains(&record.kind) {
            fail(format_args!(
                "--fd {fd}={}: what descriptor {fd} was is in the image, and other parts of the \
                 program may have it, too; leave the option out",
                Escaped(path)
            ));
        }
        with_name(path, call::stat).or_fail(format_args!("--fd {fd}={}", Escaped(path)));
    }
}

/// Opens what is given with the flags that the descriptor had; a file where it was, if it is that long.
pub fn open(restored: &Restored<'_>) {
    let record = restored.record;
    let path = paths::given(record.fd).unwrap_or(b"");
    let step = format_args!("opening {} as descriptor {}", Escaped(path), record.fd);
    let opened = with_name(path, |path| call::openat(path, record.flags, 0)).or_fail(step);
    restored.take(opened);
    let status = call::fstat(Fd(record.fd)).or_fail(step);
    if status.st_mode & S_IFMT == S_IFREG && record.flags & O_PATH == 0 {
        let offset = record.offset.min(status.st_size as u64);
        call::lseek(Fd(record.fd), offset as i64, SEEK_SET).or_fail(step);
    }
}

/// What takes the place of a descriptor.
pub fn instead_of(record: &Descriptor) -> Descriptor {
    // Of a pipe, it means packets.
    let unlike = if record.kind == descriptor::PIPE { O_DIRECT } else { 0 };
    let flags = record.flags & !unlike;
    Descriptor { kind: KIND, shares: record.fd, flags, device: 0, inode: 0, ..*record }
}
