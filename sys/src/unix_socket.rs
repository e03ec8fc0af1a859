//! What only the kernel knows of a Unix socket, and tells by netlink (sock_diag(7)).

use linux_raw_sys::general::O_CLOEXEC;
use linux_raw_sys::net::{AF_NETLINK, AF_UNIX, SOCK_RAW};
use linux_raw_sys::netlink::{NETLINK_SOCK_DIAG, NLM_F_REQUEST, NLMSG_ERROR, nlattr, nlmsghdr};

use crate::Errno;
use crate::call::{self, File};

/// A Unix socket.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct UnixSocket {
    /// The inode of the socket that it is connected to; 0 if that has been closed or not been accepted.
    pub peer: Option<u32>,
    /// Which directions are shut down (shutdown(2)): 1 for reading, 2 for writing.
    pub shutdown: u32,
    /// Whether it is listening, and for how many connections at a time (listen(2)).
    pub backlog: Option<u32>,
    /// The inode of the file that it is bound to.
    pub file: Option<u32>,
}

/// include/uapi/linux/sock_diag.h.
const SOCK_DIAG_BY_FAMILY: u16 = 20;
/// `TCP_LISTEN` (include/net/tcp_states.h), which holds for these, too.
const LISTENING: u8 = 10;

/// The question: `struct unix_diag_req` (include/uapi/linux/unix_diag.h) behind its header.
#[repr(C)]
struct Question {
    header: nlmsghdr,
    family: u8,
    protocol: u8,
    padding: u16,
    states: u32,
    inode: u32,
    show: u32,
    cookie: [u32; 2],
}

/// `UDIAG_SHOW_VFS`, `UDIAG_SHOW_PEER` and `UDIAG_SHOW_RQLEN`.
const SHOW: u32 = 2 | 4 | 16;

// The attributes of the answer.
const FILE: u16 = 1;
const PEER: u16 = 2;
const QUEUE: u16 = 4;
const SHUTDOWN: u16 = 6;

impl UnixSocket {
    /// The one with this inode, in the network namespace of the caller.
    ///
    /// # Errors
    ///
    /// `ENOENT` if there is none, or the kernel has no `CONFIG_UNIX_DIAG`; those of socket(2).
    pub fn of_inode(inode: u64) -> Result<Self, Errno> {
        let kind = SOCK_RAW | O_CLOEXEC; // SOCK_CLOEXEC is that (include/linux/net.h).
        let kernel = File::from_fd(call::socket(AF_NETLINK, kind, NETLINK_SOCK_DIAG)?);
        let question = Question {
            header: nlmsghdr {
                nlmsg_len: size_of::<Question>() as u32,
                nlmsg_type: SOCK_DIAG_BY_FAMILY,
                nlmsg_flags: NLM_F_REQUEST as u16,
                nlmsg_seq: 0,
                nlmsg_pid: 0,
            },
            family: AF_UNIX as u8,
            protocol: 0,
            padding: 0,
            states: u32::MAX,
            inode: inode as u32,
            show: SHOW,
            cookie: [u32::MAX; 2], // whichever
        };
        // SAFETY: the structure has no padding.
        let bytes = unsafe {
            core::slice::from_raw_parts((&raw const question).cast(), size_of::<Question>())
        };
        call::write(kernel.fd(), bytes)?;
        let mut answer = [0; 512];
        let length = call::read(kernel.fd(), &mut answer)?;
        Self::parse(&answer[..length])
    }

    fn parse(answer: &[u8]) -> Result<Self, Errno> {
        const HEADER: usize = size_of::<nlmsghdr>();
        // struct unix_diag_msg: family, type, state, padding, inode, cookie
        const MESSAGE: usize = 16;
        let kind = answer.get(4..6).ok_or(Errno::EPROTO)?;
        if kind == (NLMSG_ERROR as u16).to_ne_bytes() {
            let errno = number(&answer[HEADER..]).unwrap_or(0) as i32;
            return Err(Errno(errno.unsigned_abs()));
        }
        let state = *answer.get(HEADER + 2).ok_or(Errno::EPROTO)?;
        let mut found = Self::default();
        for (name, value) in attributes(answer.get(HEADER + MESSAGE..).unwrap_or(&[])) {
            match name {
                FILE => found.file = number(value),
                PEER => found.peer = number(value),
                SHUTDOWN => found.shutdown = value.first().copied().unwrap_or(0).into(),
                QUEUE if state == LISTENING => found.backlog = value.get(4..).and_then(number),
                _ => {}
            }
        }
        Ok(found)
    }
}

/// The attributes of a netlink message, by name.
fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    const HEADER: usize = size_of::<nlattr>();
    core::iter::from_fn(move || {
        let length = u16::from_ne_bytes(bytes.get(..2)?.try_into().ok()?).into();
        let name = u16::from_ne_bytes(bytes.get(2..4)?.try_into().ok()?);
        let value = bytes.get(HEADER..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or(&[]);
        Some((name, value))
    })
}

/// The 32-bit number at the beginning of `bytes`.
fn number(bytes: &[u8]) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(..4)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsRawFd;
    use std::os::unix::net::UnixStream;

    #[test]
    fn the_peer_of_a_socket_and_its_end() {
        let inode = |socket: &UnixStream| {
            call::fstat(call::Fd(socket.as_raw_fd())).expect("a socket").st_ino
        };
        let (one, other) = UnixStream::pair().expect("a pair");
        let found = UnixSocket::of_inode(inode(&one)).expect("a Unix socket");
        let expected = UnixSocket { peer: Some(inode(&other) as u32), ..UnixSocket::default() };
        assert_eq!(found, expected);
        drop(other);
        let found = UnixSocket::of_inode(inode(&one)).expect("a Unix socket");
        assert_eq!((found.peer, found.shutdown), (Some(0), 3));
    }
}
