//! The options of sockets.

use ckpt_image::files::{Socket, SocketOption, phase};
use ckpt_image::record::all_with_tails;
use ckpt_sys::Errno;
use ckpt_sys::call::{self, Fd};
use linux_raw_sys::net::{
    IPPROTO_IPV6, IPV6_V6ONLY, SO_ATTACH_FILTER, SO_LOCK_FILTER, SO_RCVBUF, SO_RCVBUFFORCE,
    SO_SNDBUF, SO_SNDBUFFORCE, SOL_NETLINK, SOL_SOCKET,
};
use linux_raw_sys::netlink::{NETLINK_ADD_MEMBERSHIP, NETLINK_LIST_MEMBERSHIPS};

use super::Restored;
use super::socket::is_lost;
use crate::report::note;

/// Sets them.
pub fn restore(restored: &Restored<'_>, socket: &Socket) {
    let fd = Fd(restored.record.fd);
    let is_over = socket.phase == phase::CLOSED || is_lost(restored.record);
    let options = &restored.state[size_of::<Socket>()..][..socket.options_length as usize];
    for (option, value) in all_with_tails::<SocketOption>(options) {
        let SocketOption { level, name, .. } = option;
        // It has been decided by the connection.
        let decided = socket.was_connected() && (level, name) == (IPPROTO_IPV6 as u32, IPV6_V6ONLY);
        // It would be in the way of the end of a connection.
        let in_the_way =
            is_over && level == SOL_SOCKET && [SO_ATTACH_FILTER, SO_LOCK_FILTER].contains(&name);
        if !decided
            && !in_the_way
            && let Err(errno) = set(fd, level, name, value)
            && !is_over
        {
            note(format_args!(
                "option {name} of level {level} of the socket {} is not restored: {errno}",
                fd.0
            ));
        }
    }
}

/// Sets one to what getsockopt(2) has told.
fn set(fd: Fd, level: u32, name: u32, value: &[u8]) -> Result<(), Errno> {
    match (level, name) {
        (SOL_SOCKET, SO_SNDBUF) => set_buffer(fd, [SO_SNDBUFFORCE, name], value),
        (SOL_SOCKET, SO_RCVBUF) => set_buffer(fd, [SO_RCVBUFFORCE, name], value),
        (SOL_SOCKET, SO_ATTACH_FILTER) => call::set_socket_filter(fd, value),
        (SOL_NETLINK, NETLINK_LIST_MEMBERSHIPS) => join_groups(fd, value),
        _ => call::set_socket_option(fd, level, name, value),
    }
}

/// Sets the size of a buffer, beyond the usual limit if that is permitted. The kernel has doubled it
/// (socket(7)).
pub fn set_buffer(fd: Fd, names: [u32; 2], value: &[u8]) -> Result<(), Errno> {
    let size = u32::from_ne_bytes(value.try_into().map_err(|_| Errno::EINVAL)?) / 2;
    let [beyond, usual] = names;
    call::set_socket_number(fd, SOL_SOCKET, beyond, size)
        .or_else(|_| call::set_socket_number(fd, SOL_SOCKET, usual, size))
}

/// Joins groups of netlink, a bit each from the first one on.
fn join_groups(fd: Fd, groups: &[u8]) -> Result<(), Errno> {
    let bit = |group: usize| groups[group / 8] >> (group % 8) & 1 != 0;
    (0..groups.len() * 8).filter(|&group| bit(group)).try_for_each(|group| {
        let group = group as u32 + 1;
        call::set_socket_number(fd, SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, group)
    })
}
