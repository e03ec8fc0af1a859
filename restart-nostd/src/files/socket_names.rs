//! The names of Unix sockets: paths, and abstract ones.

use ckpt_image::files::{Descriptor, Socket, phase};
use ckpt_image::record::first;
use ckpt_sys::call::{self, Address, Fd, File};
use ckpt_sys::{Errno, Line};
use linux_raw_sys::general::{O_CLOEXEC, O_NONBLOCK, S_IFMT, S_IFSOCK};
use linux_raw_sys::net::{AF_UNIX, SOCK_DGRAM};

use super::Restored;
use super::socket::{is_unix, local, start_listening};
use crate::report::{OrFail, fail, note};
use crate::undo::{self, Made};

/// Whether a socket gets a name; one that was accepted has that of the socket that was listening.
fn has_name(socket: &Socket) -> bool {
    let may_have = !socket.was_connected() || u32::from(socket.kind) == SOCK_DGRAM;
    is_unix(socket) && may_have && !local(socket).name().is_empty()
}

/// The path of a name, unless it is an abstract one.
pub fn path_of(name: &Address) -> Option<Line<{ Address::MOST + 1 }>> {
    let path = name.name();
    if path.starts_with(b"\0") {
        return None;
    }
    let mut line = Line::new();
    line.push(path);
    line.push(b"\0");
    Some(line)
}

/// Refuses if somebody has the name. A relative path means nothing yet.
pub fn check(record: &Descriptor, state: &[u8]) {
    let Ok((socket, _)) = first::<Socket>(state) else { return };
    let name = local(&socket);
    if has_name(&socket) && socket.mode != 0 && name.name().starts_with(b"/") {
        is_free(record, &socket, &name);
    }
}

/// Refuses if somebody has the name of a file. Says whether nobody has, but the file is there.
fn is_free(record: &Descriptor, socket: &Socket, name: &Address) -> bool {
    let Some(path) = path_of(name) else { return false };
    let Ok(status) = call::stat(path.as_path()) else { return false };
    let taken = |why: &str| -> ! {
        fail(format_args!("{name}, the name of the socket {}, {why}", record.fd))
    };
    if status.st_mode & S_IFMT != S_IFSOCK {
        taken("is now something else; move it away");
    }
    let kind = u32::from(socket.kind) | O_CLOEXEC | O_NONBLOCK;
    let probe = call::socket(AF_UNIX, kind, 0).map(File::from_fd);
    match probe.and_then(|probe| call::connect(probe.fd(), name)) {
        Err(Errno::ECONNREFUSED) => true, // It is what a process left that is gone.
        Err(Errno::EACCES) => taken("is another user's; remove it"),
        _ => taken("is another process's; end that"),
    }
}

/// Gives a socket its name, and lets it wait for connections.
pub fn restore(restored: &Restored<'_>, socket: &Socket) {
    let fd = Fd(restored.record.fd);
    let name = local(socket);
    if has_name(socket) {
        bind(restored, socket, &name).unwrap_or_else(|errno| {
            fail(format_args!(
                "the socket {} cannot have the name {name} again: {errno}; if another process has it, \
                 end that",
                fd.0
            ))
        });
    }
    if is_unix(socket) && socket.phase == phase::LISTENING {
        if name.name().is_empty()
            || call::local_address(fd).is_ok_and(|name| name.name().is_empty())
        {
            // One without a name does not listen: one that the kernel chooses (unix(7)).
            let any = Address::new(&(AF_UNIX as u16).to_ne_bytes());
            call::bind(fd, &any).or_fail(format_args!("naming the socket {}", fd.0));
        }
        start_listening(restored, socket);
    }
}

/// Gives a socket its name: a file of the same mode, in the place of one that nobody listens at. One whose
/// file had been removed gets none.
fn bind(restored: &Restored<'_>, socket: &Socket, name: &Address) -> Result<(), Errno> {
    let fd = Fd(restored.record.fd);
    let Some(path) = path_of(name) else { return call::bind(fd, name) };
    if socket.mode == 0 {
        return Ok(());
    }
    if is_free(restored.record, socket, name) {
        call::unlink(path.as_path())?;
    }
    call::bind(fd, name)?;
    undo::remember(Made::SocketName(fd));
    if let Err(errno) = call::chmod(path.as_path(), socket.mode & !S_IFMT) {
        note(format_args!("the mode of {name} is not restored: {errno}"));
    }
    Ok(())
}
