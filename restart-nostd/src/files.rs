//! Descriptors.
//!
//! Each gets the number that it had, and those that shared an open file share one again. It goes in
//! rounds over all of them, since some are of no use before others are there: first those whose memory
//! the program has mapped, then all others, but for files of the program's threads, which come when these
//! are there, then connections, and what refers to other descriptors. What each kind needs is
//! in a file of its own.
//!
//! This program's own descriptors are beyond all of the program's meanwhile: see [`begin`].

mod connection;
mod contents;
mod epoll;
mod event;
mod given;
mod inotify;
mod kernel;
mod locks;
mod options;
mod pipe;
mod pseudo_terminal;
mod queue;
mod regular;
mod sent;
mod socket;
mod socket_names;
mod states;
mod terminal;

pub use terminal::restore_modes;

pub use contents::{
    check_shared_memory, has_contents_of, make_deleted, make_memfd, make_shared_memory, of_mapping,
};
pub use regular::Changed;
pub use socket_names::path_of as path_of_socket;

use core::sync::atomic::{AtomicI32, Ordering::Relaxed};

use ckpt_image::files::{Descriptor, descriptor};
use ckpt_image::record::{Session, all_with_tails, are_whole, first, kind};
use ckpt_image::{Head, Invalid};
use ckpt_sys::call::{self, Fd, File};
use ckpt_sys::{Errno, Escaped, Line, proc};
use linux_raw_sys::general::{
    F_DUPFD_CLOEXEC, F_GETFL, F_OWNER_PGRP, F_OWNER_PID, F_OWNER_TID, F_SETFD, F_SETFL, F_SETSIG,
    FASYNC, FD_CLOEXEC, O_ACCMODE, O_APPEND, O_CLOEXEC, O_CREAT, O_DIRECT, O_DIRECTORY, O_EXCL,
    O_NOFOLLOW, O_NONBLOCK, O_PATH, O_RDWR, O_TMPFILE, O_TRUNC, RLIMIT_FSIZE, RLIMIT_MEMLOCK,
    RLIMIT_NOFILE, rlimit64, stat,
};

use crate::image::Image;
use crate::paths;
use crate::place::Place;
use crate::report::{self, OrFail, note};
use crate::threads;

/// The descriptors as an image has them, with their paths and states.
fn records<'a>(
    image: &Image,
    head: &Head<'a>,
) -> impl Iterator<Item = (Descriptor, &'a [u8], &'a [u8])> + Clone + use<'a> {
    let records = head.note(kind::DESCRIPTORS).unwrap_or_else(|why| image.fail(&why));
    all_with_tails::<Descriptor>(records).map(|(record, tail)| {
        let (path, state) = record.path_and_state(tail);
        (record, path, state)
    })
}

/// The descriptors that are to be restored, with their paths and states: those of the image, but for those
/// that the command line gives.
fn descriptors<'a>(
    image: &Image,
    head: &Head<'a>,
) -> impl Iterator<Item = (Descriptor, &'a [u8], &'a [u8])> + Clone + use<'a> {
    records(image, head).map(|(record, path, state)| match paths::given(record.fd) {
        Some(_) => (given::instead_of(&record), path, &[][..]),
        None => (record, path, state),
    })
}

/// Refuses what cannot be opened again here.
pub fn check(image: &Image, head: &Head<'_>, changed: Changed) {
    // Those are of the moment of opening, and never shown by the kernel.
    const NEVER_SHOWN: u32 = O_CREAT | O_EXCL | O_TRUNC;
    if !are_whole::<Descriptor>(head.note(kind::DESCRIPTORS).unwrap_or(&[])) {
        image.fail(&Invalid::Damaged);
    }
    let same_boot = head.process().0.boot_id == proc::boot_id();
    let mut last = -1;
    for (record, ..) in records(image, head) {
        if record.fd <= last
            || !(0..=record.fd).contains(&record.shares)
            || !descriptor::KNOWN.iter().any(|kinds| kinds.contains(&record.kind))
            || record.flags & NEVER_SHOWN != 0
        {
            image.fail(&Invalid::Damaged);
        }
        last = record.fd;
        let is_shared =
            |other: &Descriptor| (other.fd, other.shares) == (record.shares, record.shares);
        if record.shares != record.fd
            && !descriptors(image, head).any(|(other, ..)| is_shared(&other))
        {
            image.fail(&Invalid::Damaged);
        }
    }
    changed.choose();
    given::check(image, head);
    for (record, path, state) in descriptors(image, head).filter(|(r, ..)| r.shares == r.fd) {
        let is_empty_queue = record.kind == descriptor::MESSAGE_QUEUE
            && state.is_empty()
            && first_of_file(image, head, &record) == record;
        if is_empty_queue || !states::is_well(&record, state) {
            image.fail(&Invalid::Damaged);
        }
        match record.kind {
            descriptor::REGULAR
            | descriptor::DIRECTORY
            | descriptor::DEVICE
            | descriptor::PLACE => regular::check(head, &record, path, same_boot, changed),
            descriptor::FIFO => pipe::check(path),
            descriptor::KERNEL => kernel::check(image, head, path),
            descriptor::INOTIFY => inotify::check(state),
            descriptor::MESSAGE_QUEUE => queue::check(head, &record, path),
            descriptor::SHARED_MEMORY => {
                contents::check_shared_memory(head, path, record.inode);
            }
            descriptor::SOCKET => socket_names::check(&record, state),
            _ => {}
        }
    }
}

/// The first descriptor of the same file.
fn first_of_file(image: &Image, head: &Head<'_>, of: &Descriptor) -> Descriptor {
    let mut all = descriptors(image, head).map(|(record, ..)| record);
    all.find(|record| record.is_same_file(of)).unwrap_or(*of)
}

/// A descriptor that is restored.
struct Restored<'a> {
    image: &'a Image,
    head: &'a Head<'static>,
    record: &'a Descriptor,
    path: &'static [u8],
    state: &'static [u8],
}

impl Restored<'_> {
    /// The structure that the state consists of, or begins with.
    fn state<T: bytemuck::Pod>(&self) -> T {
        first(self.state).unwrap_or_else(|why| self.image.fail(&why)).0
    }

    /// The first descriptor of the same file.
    fn first_of_file(&self) -> Descriptor {
        first_of_file(self.image, self.head, self.record)
    }

    /// Gives it the number that it had.
    fn take(&self, opened: Fd) {
        let fd = Fd(self.record.fd);
        if opened == fd {
            return set_close_on_exec(self.record);
        }
        call::dup3(opened, fd, self.record.flags & O_CLOEXEC)
            .or_fail(format_args!("making descriptor {}", fd.0));
        call::close(opened);
    }
}

/// Lets a descriptor be closed at the next execve(2), or not, as it was.
fn set_close_on_exec(record: &Descriptor) {
    let mode = if record.flags & O_CLOEXEC == 0 { 0 } else { FD_CLOEXEC };
    let _ = call::fcntl(Fd(record.fd), F_SETFD, mode);
}

/// The lowest number beyond all of the program's descriptors.
static BEYOND: AtomicI32 = AtomicI32::new(0);

/// Duplicates a descriptor beyond all of the program's.
fn duplicate_beyond(fd: Fd) -> Result<Fd, Errno> {
    let beyond = BEYOND.load(Relaxed) as u32;
    call::fcntl(fd, F_DUPFD_CLOEXEC, beyond).map(|made| Fd(made as i32))
}

/// Moves a descriptor of this program's beyond all of the program's.
fn move_beyond(fd: Fd) -> Result<Fd, Errno> {
    let moved = duplicate_beyond(fd)?;
    call::close(fd);
    Ok(moved)
}

/// The flags of open(2) that are for a path, and not for what is opened.
const OF_PATH: u32 = O_TMPFILE | O_DIRECTORY | O_NOFOLLOW;

/// Opens the file of a descriptor anew.
fn reopen(fd: Fd, flags: u32) -> Result<Fd, Errno> {
    let own = Line::<48>::of(format_args!("/proc/self/fd/{}\0", fd.0));
    call::openat(own.as_path(), flags & !OF_PATH, 0)
}

/// Gets this program's own descriptors out of the way. From here on lines go to a descriptor beyond all of
/// the program's.
pub fn begin(image: &mut Image) {
    for resource in [RLIMIT_NOFILE, RLIMIT_FSIZE, RLIMIT_MEMLOCK] {
        raise_limit(resource);
    }
    let numbers = descriptors(image, &image.head()).map(|(record, ..)| record.fd.saturating_add(1));
    BEYOND.store(numbers.max().unwrap_or(0).max(3), Relaxed);
    image.fd = move_beyond(image.fd).or_fail(format_args!("duplicating a descriptor"));
    // Without a standard error there is nowhere to say anything; its number may be that of a file.
    report::redirect(duplicate_beyond(report::stream()).unwrap_or(Fd(-1)));
    terminal::keep_one();
}

/// Raises a soft limit as far as it goes, until the program's own is restored.
fn raise_limit(resource: u32) {
    if let Ok(limit) = call::prlimit(resource, None) {
        let _ = call::prlimit(resource, Some(&rlimit64 { rlim_cur: limit.rlim_max, ..limit }));
    }
}

/// Calls `act` for each descriptor that does not share the open file of a lower one.
fn for_each_open_file(image: &Image, mut act: impl FnMut(&Restored<'_>)) {
    let head = image.head();
    for (record, path, state) in descriptors(image, &head) {
        if record.shares == record.fd {
            act(&Restored { image, head: &head, record: &record, path, state });
        }
    }
}

/// Makes the descriptors of what the program may have mapped without there being a name for it.
pub fn restore_nameless(image: &Image) {
    for_each_open_file(image, |restored| {
        if restored.record.has_contents() {
            contents::restore(restored);
        }
    });
}

/// Gives every other descriptor what it had, but for those of threads.
pub fn restore(image: &Image) {
    for_each_open_file(image, restore_one);
}

/// Opens what is of threads, now that they are there.
pub fn complete(image: &Image, place: &Place) {
    for_each_open_file(image, |restored| {
        if restored.record.kind == descriptor::KERNEL {
            kernel::open(image, restored, place);
        }
    });
}

/// Does with the descriptors what other processes can see, and what needs all of them to be there.
pub fn finish(image: &Image) {
    socket::connect(image);
    let head = image.head();
    for (record, ..) in descriptors(image, &head).filter(|(record, ..)| record.shares != record.fd)
    {
        share(&record);
    }
    for_each_open_file(image, |restored| {
        if restored.record.kind == descriptor::EPOLL {
            epoll::fill(restored);
        }
    });
    socket::finish(image);
}

/// Gives one descriptor what it had.
fn restore_one(restored: &Restored<'_>) {
    match restored.record.kind {
        given::KIND => given::open(restored),
        descriptor::REGULAR | descriptor::DIRECTORY | descriptor::DEVICE | descriptor::PLACE => {
            regular::open(restored);
        }
        descriptor::INHERITED => inherit(restored.record),
        descriptor::FAILING => fail_always(restored),
        descriptor::PIPE | descriptor::FIFO => pipe::restore(restored),
        descriptor::EVENT_COUNTER => event::restore_counter(restored),
        descriptor::TIMER => event::restore_timer(restored),
        descriptor::SIGNALS => event::restore_signals(restored),
        descriptor::PROCESS => event::restore_process(restored),
        descriptor::EPOLL => epoll::restore(restored),
        descriptor::MESSAGE_QUEUE => queue::restore(restored),
        descriptor::SOCKET => socket::restore(restored),
        descriptor::INOTIFY => inotify::restore(restored),
        descriptor::TERMINAL => terminal::restore(restored),
        descriptor::PSEUDO_TERMINAL => pseudo_terminal::restore(restored),
        descriptor::OWN_TERMINAL if !pseudo_terminal::has_other_end(restored) => {
            fail_always(restored);
        }
        _ => {}
    }
}

/// Makes a descriptor that shares the open file of another.
fn share(record: &Descriptor) {
    let fd = Fd(record.fd);
    match call::dup3(Fd(record.shares), fd, record.flags & O_CLOEXEC) {
        // A duplicate of a standard stream that the restart does not have.
        Err(Errno::EBADF)
            if [descriptor::INHERITED, descriptor::TERMINAL].contains(&record.kind) =>
        {
            call::close(fd);
        }
        result => result.or_fail(format_args!("making descriptor {}", fd.0)),
    }
}

/// Leaves a standard stream what it is here, but in the program's mode.
fn inherit(record: &Descriptor) {
    let fd = Fd(record.fd);
    let Ok(flags) = call::fcntl(fd, F_GETFL, 0) else { return };
    let flags = flags & !O_NONBLOCK | record.flags & O_NONBLOCK;
    let _ = call::fcntl(fd, F_SETFL, flags);
    set_close_on_exec(record);
}

/// Makes a descriptor by which nothing can be read, written, or asked.
fn fail_always(restored: &Restored<'_>) {
    let (fd, path) = (restored.record.fd, Escaped(restored.path));
    note(format_args!("descriptor {fd}, which was {path}, is not restored, and fails"));
    take_nothing(restored);
}

/// The descriptor by which nothing can be done.
fn take_nothing(restored: &Restored<'_>) {
    let nothing = File::open(c"/", O_PATH).or_fail(format_args!("opening /"));
    restored.take(nothing.into_fd());
}

/// Restores who gets a descriptor's signals, and which: the program's own process, threads and process
/// group by what they are now. Nobody else, who may be somebody else by now.
pub fn restore_owners(image: &Image, place: &Place) {
    let (process, _) = image.head().process();
    let session = image.head().note(kind::SESSION).and_then(first::<Session>);
    let group = session.unwrap_or_else(|why| image.fail(&why)).0.group;
    for_each_open_file(image, |Restored { record, .. }| {
        let fd = Fd(record.fd);
        let owner = match record.owner_kind {
            F_OWNER_TID => threads::id_of(place, record.owner as u32).map(|tid| tid as i32),
            F_OWNER_PID if record.owner as u32 == process.pid => Some(call::getpid() as i32),
            F_OWNER_PGRP if record.owner as u32 == group => {
                call::process_group().ok().map(|group| group as i32)
            }
            _ => None,
        };
        let set_owner = || match record.owner {
            0 => Ok(()),
            _ => match owner {
                Some(id) => call::set_owner(fd, record.owner_kind, id),
                None => Err(Errno::ESRCH),
            },
        };
        let set_signal = || match record.signal {
            0 => Ok(()),
            signal => call::fcntl(fd, F_SETSIG, signal.into()).map(drop),
        };
        // With this flag open(2) would set it, but not have the signals sent.
        let begin = || match record.asynchronous {
            0 => Ok(()),
            _ => call::fcntl(fd, F_SETFL, record.flags | FASYNC).map(drop),
        };
        if let Err(errno) = set_owner().and_then(|()| set_signal()).and_then(|()| begin()) {
            note(format_args!(
                "who gets the signals of descriptor {} is not restored: {errno}",
                fd.0
            ));
        }
    });
}

/// Closes what the program did not have, apart from what this program still needs.
pub fn close_others(image: &Image) {
    let head = image.head();
    let programs = descriptors(image, &head).map(|(record, ..)| record);
    proc::for_each_descriptor(|fd| {
        let is_programs = programs.clone().any(|record| record.fd == fd.0);
        if !is_programs && fd != image.fd && fd != report::stream() {
            call::close(fd);
        }
        Ok::<(), Errno>(())
    })
    .or_fail(format_args!("listing the descriptors"));
}

/// Cuts files that have grown since the checkpoint, and that the program writes to, back; and writes what
/// shared memory had in it.
pub fn write_back(image: &Image) {
    for_each_open_file(image, |restored| {
        regular::cut_back(restored.record, restored.path);
        contents::finish(restored);
        if restored.record.kind == descriptor::MESSAGE_QUEUE {
            queue::fill(restored);
        }
    });
}

/// Takes the locks that the program held, which somebody else may have by now. They stay as long as no
/// descriptor of a locked file is closed. Of files whose contents are yet to be written leases come later; of
/// those that have no name, which nobody else has, all of them.
pub fn lock(image: &Image) {
    for_each_open_file(image, |restored| match restored.record.kind {
        descriptor::SHARED_MEMORY => locks::take_but_leases(restored),
        _ if restored.record.has_contents() => {}
        _ => locks::take(restored),
    });
}

/// The program's descriptor by which the file of `device` and `inode` can be read and written.
pub fn descriptor_of(image: &Image, file: &stat) -> Option<Fd> {
    // Through those one cannot write anything anywhere.
    const UNFIT: u32 = O_APPEND | O_DIRECT | O_PATH;
    descriptors(image, &image.head())
        .filter(|(record, ..)| record.flags & (O_ACCMODE | UNFIT) == O_RDWR)
        .map(|(record, ..)| Fd(record.fd))
        .find(|&fd| {
            call::fstat(fd).is_ok_and(|own| (own.st_dev, own.st_ino) == (file.st_dev, file.st_ino))
        })
}

/// Begins to watch what the program watches: only now, since nothing that this program has done to files
/// is to be told. The image is needed no more, and may be in a directory that is watched.
pub fn watch(image: &Image) {
    call::close(image.fd);
    for_each_open_file(image, |restored| {
        if restored.record.kind == descriptor::INOTIFY {
            inotify::watch(restored);
        }
    });
}

/// Closes the last descriptors of this program, and those that are but on their way: the last line has
/// been written. They may have been of files that the program has locked.
pub fn close_own(image: &Image) {
    if report::stream() != call::STDERR {
        call::close(report::stream());
        report::redirect(call::STDERR);
    }
    let is_passed = |restored: &Restored<'_>| restored.record.passed != 0;
    for_each_open_file(image, |restored| {
        if is_passed(restored) {
            locks::take(restored);
            call::close(Fd(restored.record.fd));
        }
    });
    for_each_open_file(image, |restored| {
        if !is_passed(restored) {
            locks::take(restored);
        }
    });
}
