//! What files hold, and what is said of them.

use core::ffi::CStr;
use core::ops::Range;
use core::ptr::null;

use linux_raw_sys::general::{self as nr, *};

use super::{Argument, Fd, Result, filled, lseek, registers, result_of, syscall};
use crate::Errno;

/// memfd_create(2).
pub fn memfd_create(name: &CStr, flags: u32) -> Result<Fd> {
    call!(__NR_memfd_create, name, flags | MFD_CLOEXEC).map(|fd| Fd(fd as i32))
}

/// What must not be done to a memfd: fcntl(2), `F_GET_SEALS`.
pub fn seals(fd: Fd) -> Result<u32> {
    call!(__NR_fcntl, fd, F_GET_SEALS).map(|seals| seals as u32)
}

/// fcntl(2), `F_ADD_SEALS`.
pub fn add_seals(fd: Fd, seals: u32) -> Result<()> {
    call!(__NR_fcntl, fd, F_ADD_SEALS, seals).map(drop)
}

/// fchmod(2).
pub fn fchmod(fd: Fd, mode: u32) -> Result<()> {
    call!(__NR_fchmod, fd, mode).map(drop)
}

/// fchown(2).
pub fn fchown(fd: Fd, user: u32, group: u32) -> Result<()> {
    call!(__NR_fchown, fd, user, group).map(drop)
}

/// Sets the modification time and leaves that of the last access: futimens(3).
pub fn set_modified(fd: Fd, seconds: i64, nanoseconds: u32) -> Result<()> {
    let times = [
        timespec { tv_sec: 0, tv_nsec: UTIME_OMIT.into() },
        timespec { tv_sec: seconds, tv_nsec: nanoseconds.into() },
    ];
    call!(__NR_utimensat, fd, null::<u8>(), times.as_ptr(), 0_u32).map(drop)
}

/// Which kind of file system a file is on: fstatfs(2), `f_type`.
pub fn file_system(fd: Fd) -> Result<u32> {
    filled::<statfs>(|into| call!(__NR_fstatfs, fd, into)).map(|found| found.f_type as u32)
}

/// Makes a part of a file a hole: fallocate(2), `FALLOC_FL_PUNCH_HOLE`.
pub fn punch_hole(fd: Fd, part: Range<u64>) -> Result<()> {
    let mode = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;
    call!(__NR_fallocate, fd, mode, part.start, part.end - part.start).map(drop)
}

/// The first data of a file that lies in `part`, or nothing at its end: lseek(2), `SEEK_DATA` and
/// `SEEK_HOLE`. Where nobody can tell, there is data everywhere.
pub fn data_in(fd: Fd, part: Range<u64>) -> Range<u64> {
    let Range { start, end } = part;
    let data = match lseek(fd, start as i64, SEEK_DATA) {
        Ok(found) => found.clamp(start, end),
        Err(Errno::ENXIO) => end,
        Err(_) => start,
    };
    let hole = lseek(fd, data as i64, SEEK_HOLE).unwrap_or(end);
    data..hole.clamp(data, end)
}
