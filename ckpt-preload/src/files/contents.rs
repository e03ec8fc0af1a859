//! Open files whose contents are in the image, since they are nowhere else, or are lost at the next boot:
//! memfds, deleted files, and files in `/dev/shm`.

use core::ops::Range;

use bytemuck::{Zeroable, bytes_of};
use ckpt_image::files::{Descriptor, Extent, FileContents, NO_NAME, descriptor};
use ckpt_image::record::{self, all_with_tails, kind};
use ckpt_image::{Full, NoteWriter};
use ckpt_sys::Errno;
use ckpt_sys::call::{self, Fd};
use ckpt_sys::descriptor::is_shared_memory;
use linux_raw_sys::general::{
    F_GETFL, HUGETLBFS_MAGIC, O_ACCMODE, O_PATH, O_RDONLY, O_RDWR, O_WRONLY,
};

use super::{Found, Obstacle, Reader, lowest, regular};
use crate::report::{Failure, OrReport};

/// Extents with at most so many bytes between them become one.
const CLOSE: u64 = 64 << 10;

/// A memfd.
pub fn capture_memfd(found: &Found<'_>) -> Result<u32, Obstacle> {
    if call::file_system(found.fd)? == HUGETLBFS_MAGIC {
        return Err(Obstacle::new(format_args!("a memfd of huge pages")));
    }
    can_be_copied(found)?;
    Ok(descriptor::MEMFD)
}

/// A deleted file.
pub fn capture_deleted(found: &Found<'_>) -> Result<u32, Obstacle> {
    can_be_copied(found)?;
    Ok(descriptor::DELETED)
}

/// Another regular file, if it is of those whose contents are taken. One in `/dev/shm` that the program cannot
/// write to is not: the restart could not, either.
pub fn capture_named(found: &Found<'_>, record: &Descriptor) -> Option<Result<u32, Obstacle>> {
    if is_shared_memory(found.path)
        && regular::is_under_its_name(found).is_ok()
        && (regular::may_be_written(found) || is_written(found))
    {
        return Some(can_be_copied(found).map(|()| descriptor::SHARED_MEMORY));
    }
    // It has another name, which nobody tells; but to read it a copy will do.
    let is_read = record.flags & (O_ACCMODE | O_PATH) == O_RDONLY;
    let lost = found.path.ends_with(NO_NAME) && is_read;
    (lost && regular::is_under_its_name(found).is_err()).then(|| capture_deleted(found))
}

/// Whether the program has a descriptor by which the file can be written.
fn is_written(found: &Found<'_>) -> bool {
    let is_it = |fd| {
        let status = call::fstat(fd)?;
        let same = (status.st_dev, status.st_ino) == (found.status.st_dev, found.status.st_ino);
        let mode = call::fcntl(fd, F_GETFL, 0)? & (O_ACCMODE | O_PATH);
        Ok(same && [O_WRONLY, O_RDWR].contains(&mode))
    };
    lowest(is_it).is_ok_and(|found| found.is_some())
}

/// Refuses a file that cannot be read, or not without the process's losing a lock on it.
fn can_be_copied(found: &Found<'_>) -> Result<(), Obstacle> {
    let mut byte = 0;
    let read = Reader::of(found.fd).and_then(|file| {
        // SAFETY: there is room for a byte.
        unsafe { call::pread(file.fd(), &raw mut byte, 1, 0) }
    });
    let name = found.kind.name();
    read.map(drop).map_err(|why| match why {
        Errno::EBUSY => {
            Obstacle::new(format_args!("{name} that is locked, and that the program cannot read"))
        }
        _ => Obstacle::new(format_args!("{name} that cannot be read ({why})")),
    })
}

/// Notes which files have contents in the image, and where in them there are any. The descriptors' records
/// are at `descriptors` of the notes. Returns where the new records are.
pub fn list(
    notes: &mut NoteWriter<'_>,
    descriptors: Range<usize>,
) -> Result<Range<usize>, Failure> {
    notes.begin(record::NAME, kind::FILE_CONTENTS)?;
    let start = notes.position();
    let mut last = -1;
    while let Some(found) = next_file(&notes.bytes()[descriptors.clone()], last) {
        note_file(notes, &found).or_report(format_args!("asking about descriptor {}", found.fd))?;
        last = found.fd;
    }
    let end = notes.position();
    notes.end()?;
    Ok(start..end)
}

/// The next descriptor behind `last` that is the first one of a file with contents.
fn next_file(descriptors: &[u8], last: i32) -> Option<Descriptor> {
    let all = all_with_tails::<Descriptor>(descriptors).map(|(record, _)| record);
    let is_first =
        |record: &Descriptor| all.clone().find(|other| other.is_same_file(record)) == Some(*record);
    all.clone().find(|record| record.fd > last && record.has_contents() && is_first(record))
}

/// Notes one of them.
fn note_file(notes: &mut NoteWriter<'_>, descriptor: &Descriptor) -> Result<(), Failure> {
    let fd = Fd(descriptor.fd);
    let status = call::fstat(fd)?;
    let source = Reader::of(fd)?;
    let seals = if descriptor.kind == descriptor::MEMFD { call::seals(source.fd())? } else { 0 };
    let mut file = FileContents {
        fd: fd.0,
        mode: status.st_mode,
        user: status.st_uid,
        group: status.st_gid,
        seals,
        ..FileContents::zeroed()
    };
    let at = notes.open_description().len();
    notes.push(bytes_of(&file))?;
    let mut pending = Extent::zeroed();
    let mut position = 0;
    while position < descriptor.size {
        let rest = position..descriptor.size;
        let data = if source.is_seekable() { call::data_in(source.fd(), rest) } else { rest };
        if data.start <= pending.start + pending.length + CLOSE {
            pending.length = data.end - pending.start;
        } else {
            note_extent(notes, &mut file, pending)?;
            pending = Extent { start: data.start, length: data.end - data.start };
        }
        position = data.end;
    }
    note_extent(notes, &mut file, pending)?;
    notes.amend(at, bytes_of(&file));
    Ok(())
}

fn note_extent(
    notes: &mut NoteWriter<'_>,
    file: &mut FileContents,
    extent: Extent,
) -> Result<(), Full> {
    if extent.length == 0 {
        return Ok(());
    }
    file.extents += 1;
    file.stored += extent.length;
    notes.push(bytes_of(&extent))
}
