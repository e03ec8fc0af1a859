//! Descriptors.

use core::ffi::CStr;
use core::fmt::Write;

use ckpt_image::record::{self, Descriptor, TAIL, all_with_tails, descriptor, kind, tail_of_file};
use ckpt_image::{Checksum, NoteWriter};
use ckpt_sys::call::{self, Fd};
use ckpt_sys::lines::number;
use ckpt_sys::{Errno, Escaped, Line, proc};
use linux_raw_sys::general::{
    O_ACCMODE, O_CLOEXEC, O_NONBLOCK, O_RDONLY, S_IFBLK, S_IFCHR, S_IFDIR, S_IFIFO, S_IFMT,
    S_IFREG, S_IFSOCK, stat,
};

use crate::config::PATH;
use crate::report::{Failure, OrReport, not_written};

/// Notes every descriptor, or refuses one that could not be restored.
pub fn capture(notes: &mut NoteWriter<'_>, text: &mut [u8]) -> Result<(), Failure> {
    notes.begin(record::NAME, kind::DESCRIPTORS)?;
    proc::for_each_descriptor(|fd| capture_one(notes, fd, text))
        .or_report(format_args!("listing the descriptors"))?;
    notes.end()?;
    Ok(())
}

/// Notes one descriptor.
fn capture_one(notes: &mut NoteWriter<'_>, fd: Fd, text: &mut [u8]) -> Result<(), Failure> {
    let step = format_args!("asking about descriptor {}", fd.0);
    let mut link = Line::<48>::new();
    let _ = write!(link, "/proc/thread-self/fd/{}\0", fd.0);
    let mut path = [0; PATH];
    let path = call::readlink(as_path(&link), &mut path).or_report(step)?;
    let status = call::fstat(fd).or_report(step)?;
    let mut name = Line::<48>::new();
    let _ = write!(name, "/proc/thread-self/fdinfo/{}\0", fd.0);
    let info = proc::read_file(as_path(&name), text).or_report(step)?;
    let value = |key, radix| proc::value_of(info, key).and_then(|text| number(text, radix));

    let mut descriptor = Descriptor {
        fd: fd.0,
        kind: 0,
        flags: value(b"flags", 8).unwrap_or(0) as u32,
        shares: fd.0,
        offset: value(b"pos", 10).unwrap_or(0),
        size: status.st_size as u64,
        device: status.st_dev,
        inode: status.st_ino,
        name_length: path.len() as u32,
        mtime_nsec: status.st_mtime_nsec as u32,
        mtime: status.st_mtime as i64,
        tail: 0,
    };
    descriptor.shares = shares_with(notes, &descriptor);
    let kind = kind_of(fd, &status, path).and_then(|kind| {
        let found = descriptor.shares != fd.0 || is_under_its_name(&status, path);
        if found { Ok(kind) } else { Err("a file that is no longer under its name") }
    });
    descriptor.kind = match kind {
        Ok(kind) => kind,
        // A standard stream becomes that of the restart, which may have three where the program had
        // one terminal; and so do its duplicates.
        Err(_) if fd.0 <= 2 => {
            descriptor.shares = fd.0;
            descriptor::INHERITED
        }
        Err(_) if descriptor.shares <= 2 => descriptor::INHERITED,
        Err(what) => {
            return Err(not_written(format_args!(
                "descriptor {} is {what} ({}), which cannot be restored yet",
                fd.0,
                Escaped(path)
            )));
        }
    };
    if descriptor.kind == descriptor::REGULAR && descriptor.flags & O_ACCMODE != O_RDONLY {
        descriptor.tail = tail(path, descriptor.size).unwrap_or(0);
    }
    if info.windows(6).any(|word| word == b"\nlock:") {
        return Err(not_written(format_args!(
            "descriptor {} holds a lock on {}, which cannot be restored yet",
            fd.0,
            Escaped(path)
        )));
    }
    notes.push_record(&descriptor, path)?;
    Ok(())
}

/// The text as a path; it ends with the NUL that was written into it.
fn as_path<const N: usize>(line: &Line<N>) -> &CStr {
    CStr::from_bytes_until_nul(line.as_bytes()).unwrap_or(c"")
}

/// A path with the NUL that ends it.
fn terminated(path: &[u8]) -> Line<{ PATH + 1 }> {
    let mut line = Line::new();
    line.push(path);
    line.push(b"\0");
    line
}

/// The lowest descriptor noted so far that shares the open file, or itself.
fn shares_with(notes: &NoteWriter<'_>, new: &Descriptor) -> i32 {
    let tid = call::gettid();
    all_with_tails::<Descriptor>(notes.open_description())
        .map(|(other, _)| other)
        .filter(|other| other.shares == other.fd)
        .filter(|other| (other.device, other.inode) == (new.device, new.inode))
        .find(|other| {
            // Without kcmp(2) two that look the same are taken for the same.
            call::same_open_file(tid, Fd(other.fd), Fd(new.fd)).unwrap_or(
                other.offset == new.offset && (other.flags ^ new.flags) & !O_CLOEXEC == 0,
            )
        })
        .map_or(new.fd, |other| other.fd)
}

/// The checksum of the tail of a file, by which the restart knows it again before it cuts it back. The
/// descriptor itself may be open for writing only.
fn tail(path: &[u8], size: u64) -> Result<u64, Errno> {
    let file = call::File::open(as_path(&terminated(path)), O_NONBLOCK)?;
    let range = tail_of_file(size);
    let mut buffer = [0; TAIL];
    let buffer = &mut buffer[..(range.end - range.start) as usize];
    // SAFETY: the bytes are those of the buffer.
    let read = unsafe { call::pread(file.fd(), buffer.as_mut_ptr(), buffer.len(), range.start) }?;
    let mut sum = Checksum::new();
    sum.update(&buffer[..read]);
    Ok(sum.value())
}

/// Whether the file of a descriptor can be opened again by its path.
fn is_under_its_name(status: &stat, path: &[u8]) -> bool {
    call::stat(as_path(&terminated(path)))
        .is_ok_and(|there| (there.st_dev, there.st_ino) == (status.st_dev, status.st_ino))
}

/// How a descriptor is restored, or what it is if it cannot be.
fn kind_of(fd: Fd, status: &stat, path: &[u8]) -> Result<u32, &'static str> {
    match status.st_mode & S_IFMT {
        S_IFREG if path.starts_with(b"/memfd:") => Err("a memfd"),
        S_IFREG | S_IFDIR if status.st_nlink == 0 => Err("a deleted file"),
        S_IFREG if path.starts_with(b"/proc/") => Err("a file of /proc"),
        S_IFREG if !path.starts_with(b"/") => Err("an object of the kernel"), // a name space
        S_IFREG => Ok(descriptor::REGULAR),
        S_IFDIR => Ok(descriptor::DIRECTORY),
        S_IFCHR if is_plain_device(status.st_rdev) => Ok(descriptor::DEVICE),
        S_IFCHR if call::is_terminal(fd) => Err("a terminal"),
        S_IFCHR => Err("a character device"),
        S_IFBLK => Err("a block device"),
        S_IFIFO => Err("a pipe"),
        S_IFSOCK => Err("a socket"),
        // Anonymous inodes have no type: epoll, eventfd, timerfd, signalfd, inotify...
        _ => Err("an object of the kernel"),
    }
}

/// null, zero, full, random, urandom (the kernel's devices.txt).
fn is_plain_device(device: u64) -> bool {
    const MEMORY: u64 = 1 << 8;
    [3, 5, 7, 8, 9].map(|minor| MEMORY | minor).contains(&device)
}
