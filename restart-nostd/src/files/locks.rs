//! Locks on files, taken when all descriptors are there: a process that closes any descriptor of a
//! file loses its POSIX locks on it.

use ckpt_image::files::{Lock, descriptor, lock};
use ckpt_image::record::all;
use ckpt_sys::call::{self, Fd, File, LockOwner};
use ckpt_sys::lines::Lines;
use ckpt_sys::{Errno, locks};

use super::Restored;
use crate::paths::Shown;
use crate::report::fail;

/// Takes the locks that the program held by a descriptor. One that it has already stays.
pub fn take(restored: &Restored<'_>) {
    take_those(restored, |_| true);
}

/// Takes those of them that do not keep anybody from writing to the file.
pub fn take_but_leases(restored: &Restored<'_>) {
    take_those(restored, |lock| lock.kind != lock::LEASE);
}

fn take_those(restored: &Restored<'_>, is_one: impl Fn(&Lock) -> bool) {
    let Restored { record, path, state, .. } = *restored;
    if !descriptor::WITH_LOCKS.contains(&record.kind) {
        return;
    }
    for lock in all::<Lock>(state).filter(is_one) {
        match take_one(Fd(record.fd), &lock) {
            Ok(()) => {}
            Err(Errno::EAGAIN | Errno::EACCES) => fail(format_args!(
                "{}, which the program has locked as descriptor {}, is held by {} meanwhile; end that \
                 first",
                Shown(path),
                record.fd,
                Holder::of(Fd(record.fd)),
            )),
            Err(errno) => {
                fail(format_args!("locking {} as descriptor {}: {errno}", Shown(path), record.fd))
            }
        }
    }
}

fn take_one(fd: Fd, lock: &Lock) -> Result<(), Errno> {
    let exclusive = lock.exclusive != 0;
    let record = |owner| call::lock_record(fd, owner, exclusive, lock.start, lock.length);
    match lock.kind {
        lock::POSIX => record(LockOwner::Process),
        lock::OPEN_FILE => record(LockOwner::OpenFile),
        lock::WHOLE => call::lock_file(fd, exclusive),
        _ => call::lease(fd, exclusive), // There are no others: see `states`.
    }
}

/// Who has a lock on a file, for a message.
struct Holder(Option<u32>);

impl Holder {
    /// The first process, but this one, that `/proc/locks` tells of.
    fn of(fd: Fd) -> Self {
        let Ok(status) = call::fstat(fd) else { return Self(None) };
        let Ok(file) = File::open(c"/proc/locks", 0) else { return Self(None) };
        let mut buffer = [0; 1024];
        let mut lines = Lines::new(file.fd(), &mut buffer);
        while let Ok(Some(line)) = lines.next_line() {
            if let Some(lock) = locks::Lock::parse(line)
                && lock.inode == status.st_ino
                && lock.pid.is_some_and(|pid| pid != call::getpid())
            {
                return Self(lock.pid);
            }
        }
        Self(None)
    }
}

impl core::fmt::Display for Holder {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self.0 {
            Some(pid) => write!(f, "process {pid}"),
            None => f.write_str("another process"),
        }
    }
}
