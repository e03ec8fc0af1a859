//! Descriptors.

use ckpt_image::record::{
    Descriptor, TAIL, all_with_tails, are_whole, descriptor, kind, tail_of_file,
};
use ckpt_image::{Checksum, Head, Invalid};
use ckpt_sys::call::{self, Fd, File};
use ckpt_sys::{Errno, Escaped, proc};
use linux_raw_sys::general::{
    F_DUPFD_CLOEXEC, F_GETFL, F_SETFD, F_SETFL, FD_CLOEXEC, O_ACCMODE, O_APPEND, O_CLOEXEC,
    O_CREAT, O_EXCL, O_NONBLOCK, O_PATH, O_RDONLY, O_TRUNC, O_WRONLY, RLIMIT_FSIZE, RLIMIT_MEMLOCK,
    RLIMIT_NOFILE, S_IFCHR, S_IFDIR, S_IFMT, S_IFREG, SEEK_SET, rlimit64, stat,
};

use crate::image::{Image, read_at};
use crate::memory;
use crate::memory::with_path;
use crate::report::{self, OrFail, fail};

/// The descriptors of an image with their paths.
fn descriptors<'a>(
    image: &Image,
    head: &Head<'a>,
) -> impl Iterator<Item = (Descriptor, &'a [u8])> + Clone + use<'a> {
    all_with_tails(head.note(kind::DESCRIPTORS).unwrap_or_else(|why| image.fail(&why)))
}

/// Whether a descriptor is opened again by its path, and not a duplicate of one that is.
fn is_opened(record: &Descriptor) -> bool {
    record.kind != descriptor::INHERITED && record.shares == record.fd
}

/// Refuses files that are not there, or hold less than they did.
pub fn check(image: &Image, head: &Head<'_>) {
    // Those are of the moment of opening, and never shown by the kernel.
    const NEVER_SHOWN: u32 = O_CREAT | O_EXCL | O_TRUNC;
    if !are_whole::<Descriptor>(head.note(kind::DESCRIPTORS).unwrap_or(&[])) {
        image.fail(&Invalid::Damaged);
    }
    // A copy, on another machine, is another file; here it is not what the program had open.
    let same_boot = head.process().0.boot_id == proc::boot_id();
    let mut last = -1;
    for (record, path) in descriptors(image, head) {
        if record.fd <= last
            || !(0..=record.fd).contains(&record.shares)
            || record.flags & NEVER_SHOWN != 0
        {
            image.fail(&Invalid::Damaged);
        }
        last = record.fd;
        if !is_opened(&record) {
            continue;
        }
        let step = format_args!("{}, which the program has open", Escaped(path));
        let status = with_path(path, call::stat).or_fail(step);
        if record.kind != kind_of(&status) {
            fail(format_args!("{step}, is no longer of the kind it was; put it back"));
        }
        let other = (status.st_dev, status.st_ino) != (record.device, record.inode);
        if same_boot && other && record.kind != descriptor::DEVICE {
            fail(format_args!("{step}, is now another file of that name; put the old one back"));
        }
        if record.kind == descriptor::REGULAR && (status.st_size as u64) < record.size {
            fail(format_args!(
                "{step}, has shrunk from {} to {} bytes since the checkpoint; put it back",
                record.size, status.st_size
            ));
        }
        if is_written(&record) {
            check_written(head, &record, path, &status);
        }
    }
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
fn check_written(head: &Head<'_>, record: &Descriptor, path: &[u8], status: &stat) {
    let size = status.st_size as u64;
    let changed = size != record.size
        || (status.st_mtime as i64, status.st_mtime_nsec as u32)
            != (record.mtime, record.mtime_nsec);
    let is_output = record.flags & O_ACCMODE == O_WRONLY
        || record.flags & O_APPEND != 0
        || record.fd <= call::STDERR.0;
    if !is_output && changed && !memory::is_written_back(head, path) {
        fail(format_args!(
            "{}, which the program reads and writes, has changed since the checkpoint; put a copy of \
             that time back",
            Escaped(path)
        ));
    }
    if is_output && size > record.size && record.tail != 0 {
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
                 cut to {} bytes; move it away, and put the old one back",
                Escaped(path),
                record.size
            ));
        }
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

/// Gives every descriptor what it had, and closes all that the program did not have. From here on
/// lines go to a descriptor beyond all of the program's.
pub fn restore(image: &mut Image) {
    for resource in [RLIMIT_NOFILE, RLIMIT_FSIZE, RLIMIT_MEMLOCK] {
        raise_limit(resource);
    }
    let head = image.head();
    let all = descriptors(image, &head);
    let beyond = all.clone().map(|(record, _)| record.fd + 1).max().unwrap_or(0).max(3);
    let move_beyond =
        |fd: Fd| call::fcntl(fd, F_DUPFD_CLOEXEC, beyond as u32).map(|moved| Fd(moved as i32));
    image.fd = move_beyond(image.fd).or_fail(format_args!("duplicating a descriptor"));
    // Without a standard error there is nowhere to say anything.
    if let Ok(stream) = move_beyond(report::stream()) {
        report::redirect(stream);
    }
    for (record, path) in all.clone() {
        restore_one(&record, path);
    }
    close_others(image, all);
}

/// Raises a soft limit as far as it goes, until the program's own is restored.
fn raise_limit(resource: u32) {
    if let Ok(limit) = call::prlimit(resource, None) {
        let _ = call::prlimit(resource, Some(&rlimit64 { rlim_cur: limit.rlim_max, ..limit }));
    }
}

/// Gives one descriptor what it had.
fn restore_one(record: &Descriptor, path: &[u8]) {
    let fd = Fd(record.fd);
    let step = format_args!("opening {} as descriptor {}", Escaped(path), record.fd);
    let close_on_exec = record.flags & O_CLOEXEC;
    if record.shares != record.fd {
        match call::dup3(Fd(record.shares), fd, close_on_exec) {
            // A duplicate of a standard stream that the restart does not have.
            Err(Errno::EBADF) if record.kind == descriptor::INHERITED => call::close(fd),
            result => result.or_fail(step),
        }
        return;
    }
    if record.kind == descriptor::INHERITED {
        let Ok(flags) = call::fcntl(fd, F_GETFL, 0) else { return };
        let flags = flags & !O_NONBLOCK | record.flags & O_NONBLOCK;
        let _ = call::fcntl(fd, F_SETFL, flags);
        let mode = if close_on_exec == 0 { 0 } else { FD_CLOEXEC };
        let _ = call::fcntl(fd, F_SETFD, mode);
        return;
    }
    let opened = with_path(path, |path| call::openat(path, record.flags, 0)).or_fail(step);
    if opened != fd {
        call::dup3(opened, fd, close_on_exec).or_fail(step);
        call::close(opened);
    }
    if record.flags & O_PATH == 0 && record.kind != descriptor::DEVICE {
        call::lseek(fd, record.offset as i64, SEEK_SET).or_fail(step);
    }
}

/// Closes what the program did not have, apart from what this program still needs.
fn close_others(image: &Image, all: impl Iterator<Item = (Descriptor, &'static [u8])> + Clone) {
    proc::for_each_descriptor(|fd| {
        let programs = all.clone().any(|(record, _)| record.fd == fd.0);
        if !programs && fd != image.fd && fd != report::stream() {
            call::close(fd);
        }
        Ok::<(), Errno>(())
    })
    .or_fail(format_args!("listing the descriptors"));
}

/// Cuts files that have grown since the checkpoint, and that the program writes to, back to the
/// length they had: it will write the rest again.
pub fn cut_back(image: &Image) {
    let head = image.head();
    for (record, path) in descriptors(image, &head) {
        if !is_opened(&record) || !is_written(&record) {
            continue;
        }
        let step = format_args!("cutting {} back to {} bytes", Escaped(path), record.size);
        if call::fstat(Fd(record.fd)).or_fail(step).st_size as u64 > record.size {
            call::ftruncate(Fd(record.fd), record.size).or_fail(step);
        }
    }
}

/// Closes the descriptors of this program: the last line has been written.
pub fn close_own(image: &Image) {
    call::close(image.fd);
    if report::stream() != call::STDERR {
        call::close(report::stream());
    }
}
