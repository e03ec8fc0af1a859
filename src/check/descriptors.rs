//! Which open descriptors of a running program could not be restored.

use std::ffi::{CString, OsStr};
use std::fs::{self, Metadata};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use ckpt_image::files::NO_NAME;
use ckpt_sys::call::{Fd, File, file_system, same_open_file};
use ckpt_sys::descriptor::Kind;
use ckpt_sys::lines::number;
use ckpt_sys::locks::{self, Lock};
use ckpt_sys::proc::{Holder, process_of, value_of};
use ckpt_sys::watch::Watched;
use ckpt_sys::{Escaped, SocketObstacle, inode};
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};

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
        if let Some(problem) = obstacle(process, *fd, target) {
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
    let metadata = fs::metadata(&path).ok()?;
    let kind = Kind::of(metadata.mode(), metadata.rdev(), metadata.nlink(), target)
        .or_queue(target, || file_system_of(&path));
    let what = match kind {
        Kind::Kernel if process_of(target).is_some_and(|(id, _)| id != process.pid) => None,
        Kind::Kernel => is_gone(target).then(|| format!("{} that is gone", kind.name())),
        _ if is_place(process, fd) && target.starts_with(b"/") && metadata.nlink() > 0 => None,
        Kind::Regular if is_lost(process, fd, target, &metadata) => {
            Some("a file that is no longer under its name".to_owned())
        }
        Kind::Memfd if file_system_of(&path) == Some(libc::HUGETLBFS_MAGIC as u32) => {
            Some("a memfd of huge pages".to_owned())
        }
        Kind::Regular | Kind::Directory | Kind::PlainDevice => broken_lease(process, fd),
        Kind::DeletedFile | Kind::Memfd => {
            broken_lease(process, fd).or_else(|| locked_away(process, kind, &metadata))
        }
        Kind::EventCounter | Kind::Timer | Kind::Signals | Kind::Epoll | Kind::Terminal => {
            other_lock(process, fd, kind)
        }
        Kind::Pipe | Kind::Fifo => {
            pipe(process, fd, kind, target).or_else(|| other_lock(process, fd, kind))
        }
        Kind::Inotify => watch(process, fd).or_else(|| other_lock(process, fd, kind)),
        Kind::TerminalMaster => {
            pseudo_terminal(process, fd).or_else(|| other_lock(process, fd, kind))
        }
        Kind::Process => pidfd(process, fd).or_else(|| other_lock(process, fd, kind)),
        Kind::MessageQueue => {
            queue(process, &path, target).or_else(|| other_lock(process, fd, kind))
        }
        Kind::Socket => {
            socket(process, fd, metadata.ino()).or_else(|| other_lock(process, fd, kind))
        }
        other => Some(other.name().to_owned()),
    }?;
    // A standard stream becomes that of the restart, and so do its duplicates.
    let is_standard =
        (0..=2).any(|other| same_open_file(process.pid, Fd(other), Fd(fd)) == Ok(true));
    (!is_standard).then(|| format!("is {what} ({}), which cannot be restored", Escaped(target)))
}

/// Whether a file that is written to has lost its name, and has no other one in the same directory.
fn is_lost(process: &Process, fd: i32, target: &[u8], metadata: &Metadata) -> bool {
    let own = (metadata.dev(), metadata.ino());
    let is_it = |path: &Path| fs::metadata(path).is_ok_and(|it| (it.dev(), it.ino()) == own);
    let path = Path::new(OsStr::from_bytes(target));
    let Some(gone) = target.strip_suffix(NO_NAME) else { return !is_it(path) };
    let directory = Path::new(OsStr::from_bytes(gone)).parent().map(fs::read_dir);
    let mut entries = directory.into_iter().flatten().flatten().flatten();
    let is_read = mode(process, fd) == Some(libc::O_RDONLY);
    !is_it(path) && !is_read && !entries.any(|entry| is_it(&entry.path()))
}

/// Which kind of file system the file at `path` is on.
fn file_system_of(path: &str) -> Option<u32> {
    let path = CString::new(path).ok()?;
    let file = File::open(&path, libc::O_PATH as u32).ok()?;
    file_system(file.fd()).ok()
}

/// What a pipe is, unless it is the process's own: it has both ends, or nobody has the other one.
fn pipe(process: &Process, fd: i32, kind: Kind, target: &[u8]) -> Option<String> {
    let own = mode(process, fd)?;
    let all = process.descriptors().ok()?;
    let ends =
        all.iter().filter(|(_, other)| other == target).filter_map(|(fd, _)| mode(process, *fd));
    if own == libc::O_RDWR || ends.clone().any(|end| end != own) {
        return None;
    }
    let holder = holders(process.pid, target).next()?;
    Some(format!("{} to {holder}", kind.name()))
}

/// What a pseudo-terminal is, if another process has it open.
fn pseudo_terminal(process: &Process, fd: i32) -> Option<String> {
    let info = process.read(&format!("fdinfo/{fd}")).ok()?;
    let number = number(value_of(&info, b"tty-index")?, 10)?;
    let holder = holders(process.pid, format!("/dev/pts/{number}").as_bytes()).next()?;
    Some(format!("a pseudo-terminal on which {holder} is"))
}

/// The other processes that have open what `/proc/PID/fd/N` shows as `target`.
fn holders(pid: u32, target: &[u8]) -> impl Iterator<Item = Holder> {
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let ids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let holders = ids.filter(move |&other| other != pid).filter(move |other| {
        let links = fs::read_dir(format!("/proc/{other}/fd")).into_iter().flatten().flatten();
        let mut targets = links.filter_map(|link| fs::read_link(link.path()).ok());
        targets.any(|other| other.as_os_str().as_bytes() == target)
    });
    holders.map(Holder)
}

/// What a message queue is, unless the process has it to itself and asked for no notification.
fn queue(process: &Process, path: &str, target: &[u8]) -> Option<String> {
    let state = fs::read_to_string(path).unwrap_or_default();
    if let Some(holder) = holders(process.pid, target).next() {
        Some(format!("a message queue that {holder} has open, too"))
    } else if state.split_whitespace().any(|word| word == "NOTIFY_PID:0") {
        None
    } else {
        Some("a message queue with a notification (mq_notify), or that cannot be read".to_owned())
    }
}

/// What a pidfd is, unless it is of the process itself.
fn pidfd(process: &Process, fd: i32) -> Option<String> {
    let info = process.read(&format!("fdinfo/{fd}")).ok()?;
    match value_of(&info, b"Pid") {
        Some(b"-1") => Some("a pidfd of a process that has ended".to_owned()),
        Some(pid) => match number(pid, 10)? as u32 {
            own if own == process.pid => None,
            other => Some(format!("a pidfd of {}", Holder(other))),
        },
        None => Some(Kind::Process.name().to_owned()),
    }
}

/// A duplicate of a descriptor. One that cannot be had may have been closed meanwhile.
pub fn socket_of(process: &Process, fd: i32) -> Option<OwnedFd> {
    let holder = pidfd_open(Pid::from_raw(process.pid as i32)?, PidfdFlags::empty()).ok()?;
    pidfd_getfd(&holder, fd, PidfdGetfdFlags::empty()).ok()
}

/// What a socket is that cannot be restored.
fn socket(process: &Process, fd: i32, inode: u64) -> Option<String> {
    let socket = socket_of(process, fd)?;
    match SocketObstacle::of(Fd(socket.as_raw_fd()), inode) {
        Ok(obstacle) => obstacle.map(|what| what.to_string()),
        Err(_) => Some("the file of a socket".to_owned()),
    }
}

/// The locks that descriptor `fd` holds.
fn locks_of(process: &Process, fd: i32) -> Vec<Lock> {
    let info = process.read(&format!("fdinfo/{fd}")).unwrap_or_default();
    let lines = info.split(|&byte| byte == b'\n').filter(|line| line.starts_with(b"lock:"));
    lines.filter_map(Lock::parse).collect()
}

/// A file whose lease is being taken back, if it is one.
fn broken_lease(process: &Process, fd: i32) -> Option<String> {
    let broken = locks_of(process, fd).iter().any(|lock| lock.kind == locks::Kind::BrokenLease);
    broken.then(|| "a file whose lease is being taken back".to_owned())
}

/// A lock on what is no file.
fn other_lock(process: &Process, fd: i32, kind: Kind) -> Option<String> {
    let locked = !locks_of(process, fd).is_empty();
    locked.then(|| format!("{} on which the program holds a lock", kind.name()))
}

/// A file that cannot be read without a lock's being lost, if it is one.
fn locked_away(process: &Process, kind: Kind, file: &Metadata) -> Option<String> {
    let same = |other: i32| {
        let other = fs::metadata(format!("/proc/{}/fd/{other}", process.pid));
        other.is_ok_and(|other| (other.dev(), other.ino()) == (file.dev(), file.ino()))
    };
    let all = process.descriptors().ok()?;
    let all: Vec<_> = all.iter().map(|(fd, _)| *fd).filter(|&other| same(other)).collect();
    let readable = |&fd: &i32| mode(process, fd).is_some_and(|mode| mode != libc::O_WRONLY);
    let locked = |&fd: &i32| !locks_of(process, fd).is_empty();
    (!all.iter().any(readable) && all.iter().any(locked))
        .then(|| format!("{} that is locked, and that the program cannot read", kind.name()))
}

/// An inotify queue of which a watched file is not found, if it is one.
fn watch(process: &Process, fd: i32) -> Option<String> {
    let info = process.read(&format!("fdinfo/{fd}")).ok()?;
    let directory = format!("/proc/{}", process.pid);
    let lines = info.split(|&byte| byte == b'\n');
    let lost = lines
        .filter_map(Watched::parse)
        .find(|watched| inode::path_of(&directory, watched.inode).is_none())?;
    let (number, inode) = (lost.number, lost.inode.number);
    Some(format!("an inotify queue whose watch {number} is of a file not found, inode {inode}"))
}

/// Whether there is nothing at `path` any more.
fn is_gone(path: &[u8]) -> bool {
    fs::symlink_metadata(OsStr::from_bytes(path)).is_err()
}

/// Whether descriptor `fd` is known by its path alone (`O_PATH`).
fn is_place(process: &Process, fd: i32) -> bool {
    flags(process, fd).is_some_and(|flags| flags & libc::O_PATH != 0)
}

/// Whether descriptor `fd` is for reading, writing or both.
fn mode(process: &Process, fd: i32) -> Option<i32> {
    flags(process, fd).map(|flags| flags & libc::O_ACCMODE)
}

/// The flags of open(2).
fn flags(process: &Process, fd: i32) -> Option<i32> {
    let info = process.read(&format!("fdinfo/{fd}")).ok()?;
    number(value_of(&info, b"flags")?, 8).map(|flags| flags as i32)
}
