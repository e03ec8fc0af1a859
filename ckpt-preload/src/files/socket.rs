//! Sockets: what has been done with one, its addresses, and its peer.
//!
//! The options, what is in its queue, and what else there is of a connection are in files of their own.

use core::net::{IpAddr, Ipv6Addr};

use bytemuck::{Zeroable, bytes_of};
use ckpt_image::NoteWriter;
use ckpt_image::files::{Descriptor, Socket, descriptor, ending, phase};
use ckpt_sys::call::{self, Address, Fd, File};
use ckpt_sys::{Errno, Line, SocketObstacle, UnixSocket, tcp};
use linux_raw_sys::general::{O_NONBLOCK, O_PATH, POLLERR, POLLRDHUP, S_IFMT, S_IFSOCK};
use linux_raw_sys::net::{
    AF_INET, AF_INET6, AF_UNIX, SO_DOMAIN, SO_PROTOCOL, SO_TYPE, SOCK_DGRAM, SOCK_STREAM,
    SOL_SOCKET, tcp_info,
};

use super::{Found, Obstacle, connection, lowest, options, sent};

/// What is shut down (`struct sock`): for reading, and for writing.
pub const FOR_READING: u32 = 1;
const FOR_WRITING: u32 = 2;

/// A socket.
pub fn capture(
    found: &Found<'_>,
    record: &Descriptor,
    notes: &mut NoteWriter<'_>,
) -> Result<u32, Obstacle> {
    if record.flags & O_PATH != 0 {
        return Err(Obstacle::new(format_args!("the file of a socket")));
    }
    if let Some(what) = SocketObstacle::of(found.fd, found.status.st_ino)? {
        return Err(Obstacle::new(format_args!("{what}")));
    }
    let number = |name| call::socket_number(found.fd, SOL_SOCKET, name);
    let mut socket = Socket {
        family: number(SO_DOMAIN)? as u16,
        kind: number(SO_TYPE)? as u16,
        protocol: number(SO_PROTOCOL)?,
        phase: phase::OPEN,
        peer: -1,
        ..Socket::zeroed()
    };
    (socket.local, socket.local_length) = stored(call::local_address(found.fd));
    match (socket.family.into(), socket.kind.into()) {
        (AF_UNIX, _) => describe_unix(found, &mut socket)?,
        (AF_INET | AF_INET6, SOCK_STREAM) => describe_tcp(found, &mut socket)?,
        (AF_INET | AF_INET6, SOCK_DGRAM) => describe_datagrams(found, &mut socket),
        _ => {}
    }
    if found.standard && socket.phase == phase::CLOSED {
        return Err(Obstacle::new(format_args!("a connection to another process")));
    }
    let at = notes.open_description().len();
    notes.push(bytes_of(&socket))?;
    options::capture(found.fd, &socket, notes)?;
    socket.options_length = (notes.open_description().len() - at - size_of::<Socket>()) as u32;
    if !connection::capture(found.fd, &mut socket, notes)? {
        sent::capture(found, &socket, notes)?;
    }
    notes.amend(at, bytes_of(&socket));
    Ok(descriptor::SOCKET)
}

/// An address as the image has it; none if there is none.
fn stored(address: Result<Address, Errno>) -> ([u8; 128], u16) {
    address.map_or(([0; 128], 0), |address| (address.bytes, address.length as u16))
}

/// Whether an error is waiting to be told.
fn has_error(fd: Fd) -> Result<bool, Errno> {
    Ok(call::poll_now(fd, 0)? & POLLERR != 0)
}

/// A Unix socket.
fn describe_unix(found: &Found<'_>, socket: &mut Socket) -> Result<(), Obstacle> {
    let unix = UnixSocket::of_inode(found.status.st_ino)?;
    let is_datagram = u32::from(socket.kind) == SOCK_DGRAM;
    socket.shutdown = unix.shutdown;
    socket.mode = mode_of_file(found.fd, &unix);
    if let Some(backlog) = unix.backlog {
        (socket.phase, socket.backlog) = (phase::LISTENING, backlog);
    }
    let Some(peer) = unix.peer else { return Ok(()) };
    (socket.remote, socket.remote_length) = stored(call::remote_address(found.fd));
    let own = match peer {
        0 => None,
        inode => descriptor_of(inode, found)?,
    };
    let is_mutual = match own {
        Some(_) if is_datagram => {
            UnixSocket::of_inode(peer.into())?.peer == Some(found.status.st_ino as u32)
        }
        own => own.is_some(),
    };
    let is_named = usize::from(socket.remote_length) > size_of::<u16>();
    if let Some(own) = own.filter(|_| is_mutual) {
        (socket.phase, socket.peer) = (phase::PAIRED, own.0);
    } else if is_datagram && is_named {
        socket.phase = phase::DIRECTED;
    } else {
        let is_gone = is_datagram || (peer == 0 && unix.shutdown == FOR_READING | FOR_WRITING);
        let is_orderly = is_gone && !has_error(found.fd)?;
        socket.phase = phase::CLOSED;
        socket.ending = if is_orderly { ending::ORDERLY } else { ending::RESET };
    }
    Ok(())
}

/// The mode of the file that a Unix socket is bound to, if that is there; else 0.
fn mode_of_file(fd: Fd, unix: &UnixSocket) -> u32 {
    let Ok(address) = call::local_address(fd) else { return 0 };
    let mut path = Line::<{ Address::MOST + 1 }>::new();
    path.push(address.name());
    path.push(b"\0");
    let status = call::stat(path.as_path()).ok();
    let status = status.filter(|status| unix.file == Some(status.st_ino as u32));
    status.map_or(0, |status| status.st_mode)
}

/// The lowest descriptor of the socket with this inode.
fn descriptor_of(inode: u32, found: &Found<'_>) -> Result<Option<Fd>, Errno> {
    lowest(|fd| {
        let status = call::fstat(fd)?;
        Ok(status.st_mode & S_IFMT == S_IFSOCK
            && (status.st_dev, status.st_ino) == (found.status.st_dev, inode.into()))
    })
}

/// A TCP socket, or one that looks like it.
fn describe_tcp(found: &Found<'_>, socket: &mut Socket) -> Result<(), Obstacle> {
    let info = call::tcp_information(found.fd)?;
    match info.tcpi_state {
        tcp::LISTEN => {
            // There the kernel tells it (tcp_get_info).
            (socket.phase, socket.backlog) = (phase::LISTENING, info.tcpi_sacked);
        }
        // A thread waits in connect(2), which connects a new one as well.
        tcp::SYN_SENT if found.value("flags", 8).unwrap_or(0) & u64::from(O_NONBLOCK) == 0 => {
            socket.local_length = 0;
            socket.local.fill(0);
        }
        tcp::CLOSE if call::poll_now(found.fd, POLLRDHUP)? & POLLRDHUP == 0 => {}
        state => {
            (socket.remote, socket.remote_length) = stored(call::remote_address(found.fd));
            socket.phase = phase::CLOSED;
            socket.ending = match state {
                tcp::CLOSE_WAIT | tcp::LAST_ACK | tcp::CLOSING | tcp::TIME_WAIT => ending::ORDERLY,
                tcp::CLOSE if !has_error(found.fd)? => ending::TOLD,
                _ => ending::RESET,
            };
            let has_finished =
                [tcp::FIN_WAIT1, tcp::FIN_WAIT2, tcp::LAST_ACK, tcp::CLOSING, tcp::TIME_WAIT];
            if has_finished.contains(&state) {
                socket.shutdown = FOR_WRITING;
            }
            if let Some(peer) = tcp_peer(found.fd)?
                && state != tcp::CLOSE
                && has_all(&info, &call::tcp_information(peer)?)
            {
                (socket.phase, socket.peer, socket.ending) = (phase::PAIRED, peer.0, 0);
            }
        }
    }
    Ok(())
}

/// The other end of a connection, if this process has it: the addresses are the same, crosswise.
fn tcp_peer(fd: Fd) -> Result<Option<Fd>, Errno> {
    let (Ok(local), Ok(remote)) = (call::local_address(fd), call::remote_address(fd)) else {
        return Ok(None);
    };
    let (local, remote) = (end(&local), end(&remote));
    if local.map(|(host, _)| host) != remote.map(|(host, _)| host) {
        return Ok(None); // Not to itself.
    }
    lowest(|other| {
        Ok(call::local_address(other).is_ok_and(|address| end(&address) == remote)
            && call::remote_address(other).is_ok_and(|address| end(&address) == local))
    })
}

/// The host and port of an address, the host as a new one even if it is an old one.
fn end(address: &Address) -> Option<(Ipv6Addr, u16)> {
    let (host, port) = address.host_and_port()?;
    let host = match host {
        IpAddr::V4(host) => host.to_ipv6_mapped(),
        IpAddr::V6(host) => host,
    };
    Some((host, port))
}

/// Whether two ends of a connection have received all that the other one has sent: what is still with
/// the sender cannot be looked at.
fn has_all(one: &tcp_info, other: &tcp_info) -> bool {
    let has = |receiver: &tcp_info, sender: &tcp_info| {
        let sent = sender.tcpi_bytes_sent - sender.tcpi_bytes_retrans;
        sender.tcpi_notsent_bytes == 0 && receiver.tcpi_bytes_received >= sent
    };
    has(one, other) && has(other, one)
}

/// UDP, and what is like it.
fn describe_datagrams(found: &Found<'_>, socket: &mut Socket) {
    (socket.remote, socket.remote_length) = stored(call::remote_address(found.fd));
    if socket.remote_length > 0 {
        socket.phase = phase::DIRECTED;
    }
}

/// A new socket of the same kind.
pub fn like(socket: &Socket) -> Result<File, Errno> {
    let kind = u32::from(socket.kind) | linux_raw_sys::general::O_CLOEXEC;
    call::socket(socket.family.into(), kind, socket.protocol).map(File::from_fd)
}
