//! Epoll sets: made first, and filled when what they watch is there.

use ckpt_image::files::Watched;
use ckpt_image::record;
use ckpt_sys::Errno;
use ckpt_sys::call::{self, Fd};
use linux_raw_sys::general::{
    EPOLLET, EPOLLIN, EPOLLONESHOT, EPOLLOUT, EPOLLWAKEUP, F_GETFD, FD_CLOEXEC, O_CLOEXEC,
};

use super::{Restored, duplicate_beyond};
use crate::report::{OrFail, note};

/// An empty one.
pub fn restore(restored: &Restored<'_>) {
    let made = call::epoll_create(restored.record.flags & O_CLOEXEC);
    restored.take(made.or_fail(format_args!("making the epoll set {}", restored.record.fd)));
}

/// Adds what it watches; what is silent first, see [`watch`].
pub fn fill(restored: &Restored<'_>) {
    let set = Fd(restored.record.fd);
    let watched = record::all::<Watched>(restored.state);
    let (silent, others) = (watched.clone().filter(is_silent), watched.filter(|w| !is_silent(w)));
    for watched in silent.chain(others) {
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
        return watch(set, watched);
    }
    let others = match call::fcntl(number, F_GETFD, 0) {
        Ok(flags) => Some((duplicate_beyond(number)?, flags)),
        Err(_) => None,
    };
    call::dup3(through, number, 0)?;
    let result = watch(set, watched);
    match others {
        Some((other, flags)) => {
            call::dup3(other, number, if flags & FD_CLOEXEC != 0 { O_CLOEXEC } else { 0 })?;
            call::close(other);
        }
        None => call::close(number),
    }
    result
}

/// Whether it has been told, and is silent from then on (`EPOLLONESHOT`): the kernel takes away all but the
/// flags then (fs/eventpoll.c: ep_send_events). Until then it watches for hang-ups and errors at least.
fn is_silent(watched: &Watched) -> bool {
    watched.events & !(EPOLLWAKEUP | EPOLLONESHOT | EPOLLET) == 0
}

/// Adds what has the number. What is to be silent is told once more, to this program, if there is something
/// to tell; nothing else in the set has anything to tell yet.
fn watch(set: Fd, watched: &Watched) -> Result<(), Errno> {
    const ANY: u32 = EPOLLIN | EPOLLOUT;
    let Watched { fd, events, data, .. } = *watched;
    if is_silent(watched) && call::poll_now(Fd(fd), ANY)? != 0 {
        call::epoll_add(set, Fd(fd), events | ANY, data)?;
        return call::epoll_take(set);
    }
    call::epoll_add(set, Fd(fd), events, data)
}
