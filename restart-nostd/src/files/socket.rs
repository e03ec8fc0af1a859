//! Sockets.
//!
//! They are made with all other descriptors. What other processes can see of them, and what needs other
//! descriptors, comes in [`finish`]: files of Unix sockets, waiting for connections, what is in the queues,
//! and the end of what was connected to something that is gone.
//!
//! A socket that was connected is made as one end of a new connection. If the other end is not the
//! program's, it is this program's until then: at a number of its own, see [`other_end`]. What is known to
//! stand is made again as it was, if possible, or else such a connection: see [`connect`].

use ckpt_image::files::{Descriptor, Socket, descriptor, ending, phase};
use ckpt_image::record::first;
use ckpt_sys::Errno;
use ckpt_sys::call::{self, Address, Fd, File};
use linux_raw_sys::general::{F_DUPFD_CLOEXEC, F_GETFD, F_SETFL, O_CLOEXEC, O_NONBLOCK};
use linux_raw_sys::net::{
    AF_NETLINK, AF_UNIX, IPPROTO_IPV6, IPV6_V6ONLY, SHUT_RD, SHUT_WR, SO_ERROR, SO_LINGER,
    SO_REUSEADDR, SOCK_DGRAM, SOCK_STREAM, SOL_SOCKET,
};

use super::{BEYOND, Relaxed, Restored, descriptors, for_each_open_file, move_beyond};
use super::{connection, options, sent, socket_names};
use crate::image::Image;
use crate::report::{OrFail, fail, note};

/// The address that a socket had.
pub fn local(socket: &Socket) -> Address {
    Address::new(&socket.local[..socket.local_length.into()])
}

/// That of its peer.
pub fn remote(socket: &Socket) -> Address {
    Address::new(&socket.remote[..socket.remote_length.into()])
}

pub fn is_unix(socket: &Socket) -> bool {
    u32::from(socket.family) == AF_UNIX
}

/// Makes a socket, and the one that it is connected to.
pub fn restore(restored: &Restored<'_>) {
    let socket: Socket = restored.state();
    if socket.phase == phase::ESTABLISHED {
        return make_new(restored, &socket);
    }
    if !socket.was_connected() {
        return make(restored, &socket);
    }
    let step = format_args!("making the connection of descriptor {}", restored.record.fd);
    match partner(restored, &socket) {
        Some(other) if other.record.fd < restored.record.fd => {} // It has been made with that.
        Some(other) => {
            let [one, two] = loop_back(&socket, &other.state()).or_fail(step);
            take(restored, one);
            take(&Restored { record: &other.record, ..*restored }, two);
        }
        None => lose_later(restored, &socket),
    }
}

/// Makes a connection whose other end is this program's, until it is lost.
pub fn lose_later(restored: &Restored<'_>, socket: &Socket) {
    let step = format_args!("making the connection of descriptor {}", restored.record.fd);
    let [own, other] = match loop_back(socket, socket) {
        // Without a network there is nothing to be lost.
        Err(errno) if socket.phase != phase::PAIRED => {
            note(format_args!("{step}: {errno}; it has never been connected, now"));
            return make(restored, &Socket { local_length: 0, ..*socket });
        }
        ends => ends.or_fail(step),
    };
    take(restored, own);
    let number = other_end(restored.record);
    let made = call::fcntl(other.fd(), F_DUPFD_CLOEXEC, number.0 as u32).or_fail(step);
    if made as i32 != number.0 {
        Err::<(), _>(Errno::EMFILE).or_fail(step);
    }
}

/// A descriptor and its state.
pub struct Partner<'a> {
    pub record: Descriptor,
    state: &'a [u8],
}

impl Partner<'_> {
    fn state(&self) -> Socket {
        first(self.state).map_or(bytemuck::Zeroable::zeroed(), |(socket, _)| socket)
    }
}

/// The descriptor that a socket is connected to, if each is to the other.
pub fn partner<'a>(restored: &Restored<'a>, socket: &Socket) -> Option<Partner<'a>> {
    if socket.phase != phase::PAIRED {
        return None;
    }
    let mut all = descriptors(restored.image, restored.head);
    let (record, _, state) = all.find(|(record, ..)| record.fd == socket.peer)?;
    let other = first::<Socket>(state).ok()?.0;
    let is_mutual = record.kind == descriptor::SOCKET
        && record.shares == record.fd
        && other.phase == phase::PAIRED
        && other.peer == restored.record.fd
        && other.peer != record.fd
        && (is_unix(&other), other.kind) == (is_unix(socket), socket.kind);
    is_mutual.then_some(Partner { record, state })
}

/// The number at which the other end of a connection is that is not the program's.
pub fn other_end(record: &Descriptor) -> Fd {
    /// More than this program has open besides.
    const OWN: i32 = 64;
    Fd(BEYOND.load(Relaxed).saturating_add(OWN).saturating_add(record.fd))
}

/// Whether it is one of a connection that is going to be lost: this program has the other end.
pub fn is_lost(record: &Descriptor) -> bool {
    call::fcntl(other_end(record), F_GETFD, 0).is_ok()
}

/// Two sockets that are connected, of the kinds that these were, out of the way.
fn loop_back(one: &Socket, other: &Socket) -> Result<[File; 2], Errno> {
    let kind = u32::from(one.kind) | O_CLOEXEC;
    let ends = match is_unix(one) {
        true => call::socketpair(AF_UNIX, kind, 0)?.map(File::from_fd),
        false => loopback_connection(one.family.into(), other.family.into())?,
    };
    let [one, other] = ends.map(|end| move_beyond(end.into_fd()));
    Ok([File::from_fd(one?), File::from_fd(other?)])
}

/// A TCP connection of this machine to itself.
fn loopback_connection(one: u32, other: u32) -> Result<[File; 2], Errno> {
    let new = |family| {
        let new = File::from_fd(call::socket(family, SOCK_STREAM | O_CLOEXEC, 0)?);
        // The address is an old one in any case.
        let _ = call::set_socket_number(new.fd(), IPPROTO_IPV6 as u32, IPV6_V6ONLY, 0);
        Ok::<_, Errno>(new)
    };
    let port = |address: Address| address.host_and_port().map(|(_, port)| port);
    let listening = new(other)?;
    call::bind(listening.fd(), &Address::loopback(other, 0))?;
    call::listen(listening.fd(), 1)?;
    let to = port(call::local_address(listening.fd())?).unwrap_or(0);
    let connecting = new(one)?;
    call::connect(connecting.fd(), &Address::loopback(one, to))?;
    let from = port(call::local_address(connecting.fd())?);
    loop {
        // Somebody else may have come first.
        let other = File::from_fd(call::accept(listening.fd(), O_CLOEXEC)?);
        if call::remote_address(other.fd()).is_ok_and(|address| port(address) == from) {
            return Ok([connecting, other]);
        }
    }
}

/// Gives a socket of this program's its number and its mode.
fn take(restored: &Restored<'_>, socket: File) {
    let Restored { record, .. } = restored;
    let step = format_args!("making descriptor {}", record.fd);
    call::fcntl(socket.fd(), F_SETFL, record.flags & O_NONBLOCK).or_fail(step);
    restored.take(socket.into_fd());
}

/// Makes a new socket of the same kind.
fn make_new(restored: &Restored<'_>, socket: &Socket) {
    let Restored { record, .. } = *restored;
    let kind = u32::from(socket.kind) | record.flags & (O_CLOEXEC | O_NONBLOCK);
    let made = call::socket(socket.family.into(), kind, socket.protocol)
        .or_fail(format_args!("making the socket {}", record.fd));
    restored.take(made);
}

/// Makes a socket that was not connected. A Unix socket gets its options and name later.
fn make(restored: &Restored<'_>, socket: &Socket) {
    make_new(restored, socket);
    if is_unix(socket) {
        return;
    }
    options::restore(restored, socket);
    let fd = Fd(restored.record.fd);
    let address = local(socket);
    if address.host_and_port().is_none_or(|(_, port)| port != 0) && address.length > 0 {
        match bind(fd, socket, &address) {
            Ok(()) => {}
            Err(errno) if socket.phase == phase::DIRECTED => {
                note(format_args!("the socket {} cannot have {address} again: {errno}", fd.0));
            }
            Err(errno) => fail(format_args!(
                "the socket {} cannot have {address} again: {errno}; if another process has it, end \
                 that",
                fd.0
            )),
        }
    }
    if socket.phase == phase::DIRECTED
        && let Err(errno) = call::connect(fd, &remote(socket))
    {
        note(format_args!("the socket {} cannot send to {}: {errno}", fd.0, remote(socket)));
    }
}

/// Gives a socket its address: a TCP socket even if connections of the former process are still about to
/// end there, and a netlink socket another number if it is taken.
fn bind(fd: Fd, socket: &Socket, address: &Address) -> Result<(), Errno> {
    if u32::from(socket.kind) == SOCK_STREAM {
        let reuse = call::socket_number(fd, SOL_SOCKET, SO_REUSEADDR)?;
        call::set_socket_number(fd, SOL_SOCKET, SO_REUSEADDR, 1)?;
        let result = call::bind(fd, address);
        call::set_socket_number(fd, SOL_SOCKET, SO_REUSEADDR, reuse)?;
        return result;
    }
    match call::bind(fd, address) {
        Err(Errno::EADDRINUSE) if address.family() == AF_NETLINK => {
            let mut any = *address;
            any.bytes[4..8].fill(0); // nl_pid (netlink(7))
            call::bind(fd, &any)
        }
        result => result,
    }
}

/// Makes connections to other processes again, now that those sockets are waiting for connections that have
/// the same addresses.
pub fn connect(image: &Image) {
    for_each(image, listen);
    connection::restore(image);
}

/// Does with the sockets what else other processes can see, and what needs all descriptors.
pub fn finish(image: &Image) {
    for_each(image, socket_names::restore);
    for_each(image, sent::restore);
    for_each(image, end);
}

fn for_each(image: &Image, act: fn(&Restored<'_>, &Socket)) {
    for_each_open_file(image, |restored| {
        if restored.record.kind == descriptor::SOCKET {
            act(restored, &restored.state());
        }
    });
}

/// Lets it wait for connections; a Unix socket has to have a name first.
fn listen(restored: &Restored<'_>, socket: &Socket) {
    if socket.phase == phase::LISTENING && !is_unix(socket) {
        start_listening(restored, socket);
    }
}

pub fn start_listening(restored: &Restored<'_>, socket: &Socket) {
    let fd = Fd(restored.record.fd);
    if let Err(errno) = call::listen(fd, socket.backlog) {
        fail(format_args!(
            "the socket {} cannot listen at {} again: {errno}; if another process does, end that",
            fd.0,
            local(socket)
        ));
    }
}

/// Brings a socket into the state that it was in: its queue is filled.
fn end(restored: &Restored<'_>, socket: &Socket) {
    let fd = Fd(restored.record.fd);
    let unix_datagrams = is_unix(socket) && u32::from(socket.kind) == SOCK_DGRAM;
    if socket.phase == phase::DIRECTED
        && unix_datagrams
        && let Err(errno) = call::connect(fd, &remote(socket))
    {
        note(format_args!("the socket {} cannot send to {}: {errno}", fd.0, remote(socket)));
    }
    if is_unix(socket) || socket.was_connected() {
        options::restore(restored, socket);
    }
    if socket.was_connected() && is_lost(restored.record) {
        lose(fd, File::from_fd(other_end(restored.record)), socket);
    }
    for (bit, how) in [(1, SHUT_RD), (2, SHUT_WR)] {
        if socket.shutdown & bit != 0 {
            let _ = call::shutdown(fd, how);
        }
    }
}

/// Closes the other end of a connection, so that the program sees of it what it has seen, or would see
/// if the process at the other end had crashed.
fn lose(fd: Fd, other: File, socket: &Socket) {
    if socket.ending != ending::ORDERLY {
        if is_unix(socket) {
            // What is closed with something in its queue is a reset.
            let _ = call::send_message(fd, b"x", &[]);
        } else {
            end_at_once(other.fd());
        }
    }
    drop(other);
    if socket.ending == ending::TOLD {
        let _ = call::socket_number(fd, SOL_SOCKET, SO_ERROR);
    }
}

/// Lets a TCP socket reset its connection when it is closed.
pub fn end_at_once(fd: Fd) {
    // struct linger: on, and no time.
    let at_once = [1_i32.to_ne_bytes(), 0_i32.to_ne_bytes()];
    let _ = call::set_socket_option(fd, SOL_SOCKET, SO_LINGER, at_once.as_flattened());
}
