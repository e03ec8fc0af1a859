//! Pipes and FIFOs.
//!
//! A pipe is made with its first descriptor, together with all the others of it. All but the two ends
//! that pipe(2) gives are open files of their own, which are opened through `/proc`. What was in it is
//! written while both ends are there; those that the program did not have are then closed.

use ckpt_image::files::{Message, Pipe, descriptor};
use ckpt_image::record::all_with_tails;
use ckpt_sys::call::{self, Fd, File};
use ckpt_sys::{Errno, Escaped};
use linux_raw_sys::general::{
    F_DUPFD_CLOEXEC, F_SETFL, F_SETPIPE_SZ, O_ACCMODE, O_CLOEXEC, O_DIRECT, O_NONBLOCK, O_RDWR,
    S_IFIFO, S_IFMT,
};

use super::{Restored, descriptors, move_beyond, reopen};
use crate::paths::{Shown, with_path};
use crate::report::{OrFail, fail, note};

/// Refuses a FIFO that is not there, or is something else by now.
pub fn check(path: &[u8]) {
    let step = format_args!("{}, which the program has open", Escaped(path));
    if with_path(path, call::stat).or_fail(step).st_mode & S_IFMT != S_IFIFO {
        fail(format_args!("{step}, is no longer a FIFO; put it back"));
    }
}

/// Makes all descriptors of a pipe, if this is the first of them.
pub fn restore(restored: &Restored<'_>) {
    let Restored { image, head, record, .. } = *restored;
    let all = || {
        let all = descriptors(image, head).filter(|(other, ..)| {
            other.shares == other.fd && (other.device, other.inode) == (record.device, record.inode)
        });
        all.filter(|(other, ..)| [descriptor::PIPE, descriptor::FIFO].contains(&other.kind))
    };
    if all().next().is_some_and(|(first, ..)| first.fd != record.fd) {
        return;
    }
    let step = format_args!("making the pipe {}", record.fd);
    let [to_read, to_write] = make(restored);
    for (other, path, state) in all() {
        let through = if other.flags & O_ACCMODE == 0 { &to_read } else { &to_write };
        let opened = reopen(through.fd(), other.flags & !O_DIRECT).or_fail(step);
        if other.flags & O_DIRECT != 0 {
            call::fcntl(opened, F_SETFL, other.flags).or_fail(step);
        }
        let end = Restored { record: &other, path, state, ..*restored };
        end.take(opened);
        if !state.is_empty() {
            fill(&end, &to_write);
        }
    }
}

/// Both ends, out of the way.
fn make(restored: &Restored<'_>) -> [File; 2] {
    let step = format_args!("making the pipe {}", restored.record.fd);
    let ends = if restored.record.kind == descriptor::FIFO {
        let step = format_args!("opening the FIFO {}", Shown(restored.path));
        let both = with_path(restored.path, |path| call::openat(path, O_RDWR | O_CLOEXEC, 0));
        let both = both.or_fail(step);
        let again = call::fcntl(both, F_DUPFD_CLOEXEC, 0).or_fail(step);
        [both, Fd(again as i32)]
    } else {
        call::pipe(O_CLOEXEC | restored.record.flags & O_DIRECT).or_fail(step)
    };
    ends.map(|end| File::from_fd(move_beyond(end).or_fail(step)))
}

/// Gives a pipe its capacity and writes what was in it.
fn fill(restored: &Restored<'_>, to_write: &File) {
    let step = format_args!("filling the pipe {}", restored.record.fd);
    if call::readable_bytes(to_write.fd()).or_fail(step) > 0 {
        return; // Of a FIFO that somebody has had open all the time: it is still there.
    }
    let pipe: Pipe = restored.state();
    if let Err(errno) = call::fcntl(to_write.fd(), F_SETPIPE_SZ, pipe.capacity) {
        note(format_args!(
            "the pipe {} has not room for {} bytes, as it had: {errno}",
            restored.record.fd, pipe.capacity
        ));
    }
    let mode = O_NONBLOCK | if pipe.packets != 0 { O_DIRECT } else { 0 };
    call::fcntl(to_write.fd(), F_SETFL, mode).or_fail(step);
    for (_, bytes) in all_with_tails::<Message>(&restored.state[size_of::<Pipe>()..]) {
        if call::write(to_write.fd(), bytes).or_fail(step) != bytes.len() {
            Err::<(), _>(Errno::EAGAIN).or_fail(step);
        }
    }
}
