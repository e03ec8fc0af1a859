//! Descriptors.
//!
//! All of them are known from `/proc/self/fd` and `fdinfo`, and from what can be asked of them without
//! changing them. Descriptors that share one open file are told apart from those that do not by
//! kcmp(2); only the first of them has a state. What each kind has is in a file of its own.
//!
//! While they are looked at all other threads are stopped, so that nothing in them changes by the
//! program's own doing.

mod connection;
mod contents;
mod epoll;
mod event;
mod holder;
mod inotify;
mod locks;
mod names;
mod options;
mod pipe;
mod queue;
mod reader;
mod regular;
mod sent;
mod socket;
mod terminal;

pub use names::find as find_name;
pub use reader::Reader;

use core::fmt::{self, Write};
use core::ops::Range;

use bytemuck::{Zeroable, bytes_of};
use ckpt_image::files::{Descriptor, descriptor};
use ckpt_image::record::{self, all_with_tails, kind};
use ckpt_image::{Full, NoteWriter};
use ckpt_sys::call::{self, Fd};
use ckpt_sys::descriptor::Kind;
use ckpt_sys::lines::number;
use ckpt_sys::{Errno, Escaped, Line, proc};
use linux_raw_sys::general::{
    F_GETFD, F_GETSIG, FASYNC, FD_CLOEXEC, O_CLOEXEC, O_PATH, O_TMPFILE, stat,
};

use self::sent::Passed;
use crate::config::{PATH, config};
use crate::report::{self, Failure, OrReport, not_written};

/// A descriptor that is looked at.
struct Found<'a> {
    fd: Fd,
    kind: Kind,
    /// What `/proc/self/fd/N` points to.
    path: &'a [u8],
    status: stat,
    /// `/proc/self/fdinfo/N`; of one that is longer than the buffer, the beginning.
    info: &'a [u8],
    /// Whether it is a standard stream, or shares its open file with one.
    standard: bool,
}

impl Found<'_> {
    /// A number that `fdinfo` has for `key`, written in `radix`.
    fn value(&self, key: &str, radix: u32) -> Option<u64> {
        proc::value_of(self.info, key.as_bytes()).and_then(|text| number(text, radix))
    }
}

/// Why a descriptor is not captured.
enum Obstacle {
    /// It cannot be restored: what it is, in words.
    Impossible(Line<104>),
    /// There will be no image.
    Failure(Failure),
}

impl Obstacle {
    fn new(what: fmt::Arguments<'_>) -> Self {
        let mut line = Line::new();
        let _ = line.write_fmt(what);
        Self::Impossible(line)
    }
}

impl From<Failure> for Obstacle {
    fn from(failure: Failure) -> Self {
        Self::Failure(failure)
    }
}

impl From<Full> for Obstacle {
    fn from(full: Full) -> Self {
        Self::Failure(full.into())
    }
}

/// A call on a descriptor that is looked at has failed.
impl From<Errno> for Obstacle {
    fn from(errno: Errno) -> Self {
        Self::new(format_args!("of a kind that this kernel does not tell about ({errno})"))
    }
}

/// Where among the notes the records of descriptors are.
pub struct Noted {
    /// The descriptors themselves.
    pub descriptors: Range<usize>,
    /// Those of files whose contents are in the image; where they are is yet to be told.
    pub contents: Range<usize>,
    /// The descriptors on their way, which are open as long as anything is read from them.
    _passed: Passed,
}

/// Notes every descriptor, or refuses one that could not be restored; and which open files have their
/// contents in the image.
pub fn capture(notes: &mut NoteWriter<'_>, text: &mut [u8]) -> Result<Noted, Failure> {
    notes.begin(record::NAME, kind::DESCRIPTORS)?;
    let start = notes.position();
    let passed = Passed::open().or_report(format_args!("looking at descriptors on their way"))?;
    proc::for_each_descriptor(|fd| capture_one(notes, fd, passed.contains(fd), text))
        .or_report(format_args!("listing the descriptors"))?;
    let descriptors = start..notes.position();
    notes.end()?;
    let contents = contents::list(notes, descriptors.clone())?;
    Ok(Noted { descriptors, contents, _passed: passed })
}

/// Notes one descriptor. `passed`: it is but on its way.
fn capture_one(
    notes: &mut NoteWriter<'_>,
    fd: Fd,
    passed: bool,
    text: &mut [u8],
) -> Result<(), Failure> {
    let step = format_args!("asking about descriptor {}", fd.0);
    let mut path = [0; PATH];
    let path =
        call::readlink(own(format_args!("fd/{}", fd.0)).as_path(), &mut path).or_report(step)?;
    let status = call::fstat(fd).or_report(step)?;
    let other_name = if status.st_nlink > 0 { find_name(path, status.st_ino) } else { None };
    let path = other_name.as_ref().map_or(path, |path| record::text(path.as_bytes()));
    let info = read_info(fd, text).or_report(step)?;
    let kind = Kind::of(status.st_mode, status.st_rdev, status.st_nlink as u64, path)
        .or_queue(path, || call::file_system(fd).ok());
    let mut found = Found { fd, kind, path, status, info, standard: false };

    let mut record = describe(&found);
    record.passed = passed.into();
    record.shares = shares_with(notes, &record);
    found.standard = record.shares <= 2;
    let at = notes.open_description().len();
    notes.push_record(&record, path)?;
    let state_at = notes.open_description().len();
    let result = if record.shares == fd.0 {
        capture_state(&found, &mut record, notes)
    } else {
        let other = descriptors(notes).find(|(other, ..)| other.fd == record.shares);
        record.kind = other.map_or(descriptor::INHERITED, |(other, ..)| other.kind);
        Ok(())
    };
    match result {
        Ok(()) => {}
        Err(Obstacle::Failure(failure)) => return Err(failure),
        Err(Obstacle::Impossible(what)) => {
            notes.take_back(state_at);
            record.kind = substitute(&found, what)?;
        }
    }
    if [descriptor::INHERITED, descriptor::TERMINAL].contains(&record.kind) && fd.0 <= 2 {
        // The restart may have three streams where the program had one terminal.
        record.shares = fd.0;
    }
    record.state_length = (notes.open_description().len() - state_at) as u32;
    notes.align()?;
    notes.amend(at, bytes_of(&record));
    Ok(())
}

/// `/proc/thread-self/NAME`.
fn own(name: fmt::Arguments<'_>) -> Line<64> {
    let mut path = Line::new();
    let _ = write!(path, "/proc/thread-self/{name}\0");
    path
}

/// The lowest descriptor that `is_it`.
fn lowest(is_it: impl Fn(Fd) -> Result<bool, Errno>) -> Result<Option<Fd>, Errno> {
    let mut lowest = None;
    proc::for_each_descriptor(|fd| {
        if lowest.is_none() && is_it(fd)? {
            lowest = Some(fd);
        }
        Ok::<(), Errno>(())
    })?;
    Ok(lowest)
}

/// The beginning of `fdinfo`.
fn read_info(fd: Fd, text: &mut [u8]) -> Result<&[u8], Errno> {
    let file = call::File::open(own(format_args!("fdinfo/{}", fd.0)).as_path(), 0)?;
    let read = call::read(file.fd(), text)?;
    Ok(&text[..read])
}

/// What any descriptor has.
fn describe(found: &Found<'_>) -> Descriptor {
    let Found { fd, path, status, .. } = found;
    // Of the terminal that ioctl(TIOCGPTPEER) opens, fdinfo goes on to say what was said then.
    let closed_on_exec = match call::fcntl(*fd, F_GETFD, 0) {
        Ok(flags) if flags & FD_CLOEXEC != 0 => O_CLOEXEC,
        _ => 0,
    };
    let flags = found.value("flags", 8).unwrap_or(0) as u32 & !O_CLOEXEC | closed_on_exec;
    let (owner_kind, owner) = match flags & O_PATH {
        0 => call::owner(*fd).unwrap_or((0, 0)),
        _ => (0, 0),
    };
    Descriptor {
        fd: fd.0,
        flags: of_open_file(flags),
        shares: fd.0,
        offset: found.value("pos", 10).unwrap_or(0),
        size: status.st_size as u64,
        device: status.st_dev,
        inode: status.st_ino,
        name_length: path.len() as u32,
        mtime_nsec: status.st_mtime_nsec as u32,
        mtime: status.st_mtime as i64,
        owner,
        owner_kind,
        signal: call::fcntl(*fd, F_GETSIG, 0).unwrap_or(0) as u16,
        asynchronous: u8::from(flags & FASYNC != 0),
        ..Descriptor::zeroed()
    }
}

/// The flags with which a descriptor is opened again: not those that are set otherwise, nor what made a file
/// without a name (`O_TMPFILE` has the bit of `O_DIRECTORY` in it).
fn of_open_file(flags: u32) -> u32 {
    let made = if flags & O_TMPFILE == O_TMPFILE { O_TMPFILE } else { 0 };
    flags & !(FASYNC | made)
}

/// The descriptors noted so far, with their paths and states.
fn descriptors<'n>(
    notes: &'n NoteWriter<'_>,
) -> impl Iterator<Item = (Descriptor, &'n [u8], &'n [u8])> + Clone {
    all_with_tails::<Descriptor>(notes.open_description()).map(|(record, tail)| {
        let (path, state) = record.path_and_state(tail);
        (record, path, state)
    })
}

/// The lowest descriptor noted so far that shares the open file, or itself.
fn shares_with(notes: &NoteWriter<'_>, new: &Descriptor) -> i32 {
    let tid = call::gettid();
    descriptors(notes)
        .map(|(other, ..)| other)
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

/// Finds out how the open file of a descriptor is restored, and notes its state.
fn capture_state(
    found: &Found<'_>,
    record: &mut Descriptor,
    notes: &mut NoteWriter<'_>,
) -> Result<(), Obstacle> {
    record.kind = match found.kind {
        Kind::Kernel => regular::capture_kernels(found)?,
        _ if record.flags & O_PATH != 0 && regular::has_name(found) => {
            regular::capture_place(found)?
        }
        Kind::Regular => match contents::capture_named(found, record) {
            Some(captured) => captured?,
            None => regular::capture(found, record)?,
        },
        Kind::DeletedFile => contents::capture_deleted(found)?,
        Kind::Memfd => contents::capture_memfd(found)?,
        Kind::Directory => regular::capture_directory(found)?,
        Kind::PlainDevice => descriptor::DEVICE,
        Kind::Pipe | Kind::Fifo => pipe::capture(found, record, notes)?,
        Kind::EventCounter => event::capture_counter(found, notes)?,
        Kind::Timer => event::capture_timer(found, notes)?,
        Kind::Signals => event::capture_signals(found, notes)?,
        Kind::Process => event::capture_process(found)?,
        Kind::Epoll => epoll::capture(found, notes)?,
        Kind::MessageQueue => queue::capture(found, record, notes)?,
        Kind::Socket => socket::capture(found, record, notes)?,
        Kind::Inotify => inotify::capture(found, notes)?,
        Kind::Terminal => terminal::capture(found, record.flags, notes)?,
        Kind::TerminalMaster => terminal::capture_master(found, record.flags, notes)?,
        kind => return Err(Obstacle::new(format_args!("{}", kind.name()))),
    };
    locks::capture(found, record.kind, notes)
}

/// What takes the place of a descriptor that cannot be restored. A standard stream becomes that of the
/// restart.
fn substitute(found: &Found<'_>, what: Line<104>) -> Result<u32, Failure> {
    if found.standard {
        return Ok(descriptor::INHERITED);
    }
    let (fd, path) = (found.fd.0, Escaped(found.path));
    if !config().force {
        return Err(not_written(format_args!(
            "descriptor {fd} is {what} ({path}), which cannot be restored; CKPT_FORCE=1 writes an \
             image in which it fails"
        )));
    }
    report::line(format_args!("descriptor {fd} is {what} ({path}), and will fail after a restart"));
    Ok(descriptor::FAILING)
}
