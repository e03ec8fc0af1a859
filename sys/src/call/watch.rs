//! Watching files: inotify(7).

use core::ffi::CStr;

use linux_raw_sys::general as nr;
use linux_raw_sys::ioctl::INOTIFY_IOC_SETNEXTWD;

use super::{Argument, Fd, Result, registers, result_of, syscall};

/// inotify_init1(2).
pub fn inotify(flags: u32) -> Result<Fd> {
    call!(__NR_inotify_init1, flags).map(|fd| Fd(fd as i32))
}

/// inotify_add_watch(2): returns the number of the watch.
pub fn inotify_add_watch(queue: Fd, path: &CStr, mask: u32) -> Result<i32> {
    call!(__NR_inotify_add_watch, queue, path, mask).map(|number| number as i32)
}

/// Says which number the next watch gets: `ioctl(INOTIFY_IOC_SETNEXTWD)` (Linux 4.17).
pub fn inotify_set_next(queue: Fd, number: i32) -> Result<()> {
    call!(__NR_ioctl, queue, INOTIFY_IOC_SETNEXTWD, number).map(drop)
}
