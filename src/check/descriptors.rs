//! Which open descriptors of a running program could not be restored.

use std::fs::{self, Metadata};
use std::os::unix::fs::{FileTypeExt, MetadataExt};

use ckpt_sys::Escaped;
use ckpt_sys::call::{Fd, same_open_file};

use super::Findings;
use super::process::Process;
use crate::text::Counted;

/// Finds the descriptors that stand in the way of a checkpoint.
pub fn check(process: &Process, found: &mut Findings) {
    let descriptors = match process.descriptors() {
        Ok(descriptors) => descriptors,
        Err(error) => {
            return found.unknown(format!("its descriptors could not be listed: {error:#}"));
        }
    };
    let mut all_well = true;
    for (fd, target) in &descriptors {
        let problems = [obstacle(process, *fd, target), lock(process, *fd, target)];
        for problem in problems.into_iter().flatten() {
            all_well = false;
            found.no(format!("descriptor {fd} {problem}"));
        }
    }
    if all_well {
        found.ok(format!(
            "{} can be restored",
            match descriptors.len() {
                0 => "no descriptors are open: all".to_owned(),
                1 => "its one open descriptor".to_owned(),
                count => format!("all its {}", Counted(count, "descriptor", "open descriptors")),
            }
        ));
    }
}

/// What descriptor `fd` is, if that cannot be restored.
fn obstacle(process: &Process, fd: i32, target: &[u8]) -> Option<String> {
    let path = format!("/proc/{}/fd/{fd}", process.pid);
    // One that has been closed meanwhile is none.
    let metadata = fs::metadata(path).ok()?;
    let kind = unrestorable(&metadata, target)?;
    // A standard stream becomes that of the restart, and so do its duplicates.
    let is_standard =
        (0..=2).any(|other| same_open_file(process.pid, Fd(other), Fd(fd)) == Ok(true));
    (!is_standard).then(|| {
        let advice = match kind {
            "a deleted file" => "which is gone with the program",
            _ => "which cannot be restored yet",
        };
        format!("is {kind} ({}), {advice}", Escaped(target))
    })
}

/// The kind of a file, if it cannot be restored.
fn unrestorable(metadata: &Metadata, target: &[u8]) -> Option<&'static str> {
    let kind = metadata.file_type();
    if kind.is_file() && target.starts_with(b"/memfd:") {
        Some("a memfd")
    } else if (kind.is_file() || kind.is_dir()) && metadata.nlink() == 0 {
        Some("a deleted file")
    } else if kind.is_file() && target.starts_with(b"/proc/") {
        Some("a file of /proc")
    } else if kind.is_file() && !target.starts_with(b"/") {
        Some("an object of the kernel") // a name space
    } else if kind.is_file() || kind.is_dir() {
        None
    } else if kind.is_char_device() {
        match (libc::major(metadata.rdev()), libc::minor(metadata.rdev())) {
            // null, zero, full, random, urandom (the kernel's devices.txt)
            (1, 3 | 5 | 7 | 8 | 9) => None,
            (4 | 5 | 136..=143, _) => Some("a terminal"),
            _ => Some("a character device"),
        }
    } else if kind.is_block_device() {
        Some("a block device")
    } else if kind.is_fifo() {
        Some("a pipe")
    } else if kind.is_socket() {
        Some("a socket")
    } else {
        // epoll, eventfd, timerfd, signalfd, inotify, pidfd...: the target tells which.
        Some("an object of the kernel")
    }
}

/// The locks that descriptor `fd` holds.
fn lock(process: &Process, fd: i32, target: &[u8]) -> Option<String> {
    let info = process.read(&format!("fdinfo/{fd}")).ok()?;
    let locked = info.split(|&byte| byte == b'\n').any(|line| line.starts_with(b"lock:"));
    locked.then(|| format!("holds a lock on {}, which cannot be restored yet", Escaped(target)))
}
