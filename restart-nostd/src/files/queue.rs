//! POSIX message queues: one that is gone is made again, and each gets the messages that were in it.

use ckpt_image::Head;
use ckpt_image::files::{Descriptor, Queue, QueueMessage, shown};
use ckpt_image::record::{all_with_tails, first};
use ckpt_sys::call::{self, Fd, File};
use ckpt_sys::{Errno, Escaped, Line, proc};
use linux_raw_sys::general::{O_CLOEXEC, O_CREAT, O_EXCL, O_NONBLOCK, O_RDWR};

use super::{Restored, move_beyond, reopen};
use crate::paths::with_name as with_path;
use crate::report::{OrFail, fail};
use crate::undo::{self, Made};

/// Refuses a queue that is not the one that the program had; if it is gone it will be made again.
pub fn check(head: &Head<'_>, record: &Descriptor, path: &[u8]) {
    let same_boot = head.process().0.boot_id == proc::boot_id();
    let step = format_args!("the message queue {}", Escaped(path));
    let is_it =
        |fd: Fd| same_boot && call::fstat(fd).is_ok_and(|status| status.st_ino == record.inode);
    match open(path, O_NONBLOCK, None).map(File::from_fd) {
        Err(Errno::ENOENT) => {}
        found if shown(path) != path => drop(found),
        found if is_it(found.as_ref().map_or(Fd(-1), File::fd)) => {}
        Ok(_) => fail(format_args!(
            "{step} is now another one of that name; remove it, and it is made again"
        )),
        Err(why) => Err::<(), _>(why).or_fail(step),
    }
}

/// The name of a queue; the kernel's are without the slash.
fn name_of(path: &[u8]) -> &[u8] {
    path.strip_prefix(b"/").unwrap_or(path)
}

/// Opens a queue, or makes one.
fn open(path: &[u8], flags: u32, make: Option<&Queue>) -> Result<Fd, Errno> {
    with_path(name_of(path), |name| match make {
        None => call::mq_open(name, flags | O_CLOEXEC, 0, None),
        Some(queue) => call::mq_open(
            name,
            flags | O_CREAT | O_EXCL | O_CLOEXEC,
            0o600,
            Some((queue.most as i64, queue.longest as i64)),
        ),
    })
}

/// Makes a descriptor of a queue.
pub fn restore(restored: &Restored<'_>) {
    let Restored { record, path, .. } = *restored;
    let step = format_args!("opening the message queue {} as {}", Escaped(path), record.fd);
    let first = restored.first_of_file();
    let opened = if first.fd != record.fd {
        reopen(Fd(first.fd), record.flags)
    } else {
        let made =
            if shown(path) == path { open_or_make(restored) } else { make_nameless(restored) };
        let queue = made.and_then(move_beyond).map(File::from_fd).or_fail(step);
        reopen(queue.fd(), record.flags)
    };
    restored.take(opened.or_fail(step));
}

/// The queue of that name.
fn open_or_make(restored: &Restored<'_>) -> Result<Fd, Errno> {
    match open(restored.path, O_RDWR, None) {
        Err(Errno::ENOENT) => {
            let made = open(restored.path, O_RDWR, Some(&restored.state()))?;
            undo::remember(Made::Queue(name_of(restored.path)));
            Ok(made)
        }
        opened => opened,
    }
}

/// A queue whose name has been removed; it had one, which somebody else may have taken.
fn make_nameless(restored: &Restored<'_>) -> Result<Fd, Errno> {
    let queue = restored.state();
    let make = |name: &[u8]| {
        let made = open(name, O_RDWR, Some(&queue))?;
        with_path(name_of(name), call::mq_unlink)?;
        Ok(made)
    };
    make(shown(restored.path)).or_else(|why| match why {
        Errno::EEXIST => make(Line::<32>::of(format_args!("/ckpt-{}", call::getpid())).as_bytes()),
        why => Err(why),
    })
}

/// Lets a queue hold what it held, unless nothing has been put into it or taken from it since then.
pub fn fill(restored: &Restored<'_>) {
    let Restored { record, path, .. } = *restored;
    if restored.first_of_file().fd != record.fd {
        return;
    }
    let step = format_args!("filling the message queue {}", Escaped(path));
    let queue: Queue = restored.state();
    let file = File::from_fd(reopen(Fd(record.fd), O_RDWR | O_NONBLOCK | O_CLOEXEC).or_fail(step));
    let status = call::fstat(file.fd()).or_fail(step);
    let modified = (status.st_mtime as i64, status.st_mtime_nsec as u32);
    if modified == (record.mtime, record.mtime_nsec) && status.st_ino == record.inode {
        return;
    }
    let messages = first::<Queue>(restored.state).map_or(&[][..], |(_, messages)| messages);
    call::mq_clear(file.fd()).or_fail(step);
    for (message, bytes) in all_with_tails::<QueueMessage>(messages) {
        call::mq_send(file.fd(), bytes, message.priority).or_fail(step);
    }
    let _ = call::fchown(file.fd(), queue.user, queue.group);
    let _ = call::fchmod(file.fd(), queue.mode & 0o7777);
}
