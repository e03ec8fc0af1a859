//! Epoll sets: made first, and filled when what they watch is there.

use ckpt_image::files::Watched;
use ckpt_image::record;
use ckpt_sys::Errno;
use ckpt_sys::call::{self, Fd};
use linux_raw_sys::general::{F_GETFD, FD_CLOEXEC, O_CLOEXEC};

use super::{Restored, duplicate_beyond};
use crate::report::{OrFail, note};

/// An empty one.
pub fn restore(restored: &Restored<'_>) {
    let made = call::epoll_create(restored.record.flags & O_CLOEXEC);
    restored.take(made.or_fail(format_args!("making the epoll set {}", restored.record.fd)));
}

/// Adds what it watches.
pub fn fill(restored: &Restored<'_>) {
    let set = Fd(restored.record.fd);
    for watched in record::all::<Watched>(restored.state) {
        match add(set, &watched) {
            Ok(()) => {}
            // A standard stream may be a file here, which epoll(7) does not watch.
            Err(Errno::EPERM | Errno::EBADF) => note(format_args!(
                "the epoll set {} cannot watch descriptor {} as it is here",
                set.0, watched.fd
            )),
            result => result.or_fail(format_args!(
                "adding descriptor {} to the epoll set {}",
                watched.fd, set.0
            )),
        }
    }
}

/// Adds a descriptor by the number it was added by, be that another's by now.
fn add(set: Fd, watched: &Watched) -> Result<(), Errno> {
    let (number, through) = (Fd(watched.fd), Fd(watched.through));
    if number == through {
        return call::epoll_add(set, number, watched.events, watched.data);
    }
    let others = match call::fcntl(number, F_GETFD, 0) {
        Ok(flags) => Some((duplicate_beyond(number)?, flags)),
        Err(_) => None,
    };
    call::dup3(through, number, 0)?;
    let result = call::epoll_add(set, number, watched.events, watched.data);
    match others {
        Some((other, flags)) => {
            call::dup3(other, number, if flags & FD_CLOEXEC != 0 { O_CLOEXEC } else { 0 })?;
            call::close(other);
        }
        None => call::close(number),
    }
    result
}
