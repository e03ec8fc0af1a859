//! Locks and leases on files.

use linux_raw_sys::general::{self as nr, *};

use super::{Argument, Fd, Result, again, registers, result_of, syscall};

/// Whose a record lock is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LockOwner {
    /// The process's, which loses it when it closes any descriptor of the file.
    Process,
    /// The open file's.
    OpenFile,
}

/// Locks `length` bytes from `start` on, all that come for 0, without waiting: fcntl(2), `F_SETLK` and
/// `F_OFD_SETLK`.
pub fn lock_record(
    fd: Fd,
    owner: LockOwner,
    exclusive: bool,
    start: u64,
    length: u64,
) -> Result<()> {
    let command = if owner == LockOwner::Process { F_SETLK } else { F_OFD_SETLK };
    let lock = flock {
        l_type: lock_type(exclusive) as _,
        l_whence: SEEK_SET as _,
        l_start: start as _,
        l_len: length as _,
        l_pid: 0,
    };
    call!(__NR_fcntl, fd, command, &raw const lock).map(drop)
}

/// flock(2) without waiting.
pub fn lock_file(fd: Fd, exclusive: bool) -> Result<()> {
    let kind = if exclusive { LOCK_EX } else { LOCK_SH };
    again(|| call!(__NR_flock, fd, kind | LOCK_NB)).map(drop)
}

/// fcntl(2), `F_SETLEASE`.
pub fn lease(fd: Fd, exclusive: bool) -> Result<()> {
    call!(__NR_fcntl, fd, F_SETLEASE, lock_type(exclusive)).map(drop)
}

fn lock_type(exclusive: bool) -> u32 {
    if exclusive { F_WRLCK } else { F_RDLCK }
}
