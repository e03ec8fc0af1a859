//! The options of a socket that are not as in a new one.

use bytemuck::{Zeroable, bytes_of};
use ckpt_image::NoteWriter;
use ckpt_image::files::{Socket, SocketOption};
use ckpt_sys::call::{self, Fd};
use linux_raw_sys::net::*;
use linux_raw_sys::netlink::{
    NETLINK_BROADCAST_ERROR, NETLINK_CAP_ACK, NETLINK_EXT_ACK, NETLINK_GET_STRICT_CHK,
    NETLINK_LIST_MEMBERSHIPS, NETLINK_LISTEN_ALL_NSID, NETLINK_NO_ENOBUFS, NETLINK_PKTINFO,
};

use super::{Obstacle, socket};

/// In the order in which they are to be set: `IP_TOS` sets the priority, too.
const OF_IP: &[u32] = &[
    IP_TOS,
    IP_TTL,
    IP_MTU_DISCOVER,
    IP_RECVERR,
    IP_PKTINFO,
    IP_RECVTTL,
    IP_RECVTOS,
    IP_FREEBIND,
    IP_TRANSPARENT,
    IP_BIND_ADDRESS_NO_PORT,
    IP_MINTTL,
    IP_RECVORIGDSTADDR,
    IP_RECVFRAGSIZE,
    IP_LOCAL_PORT_RANGE,
];

const OF_IPV6: &[u32] = &[
    IPV6_V6ONLY,
    IPV6_UNICAST_HOPS,
    IPV6_MTU_DISCOVER,
    IPV6_RECVERR,
    IPV6_RECVPKTINFO,
    IPV6_RECVHOPLIMIT,
    IPV6_RECVTCLASS,
    IPV6_TCLASS,
    IPV6_DONTFRAG,
    IPV6_AUTOFLOWLABEL,
    IPV6_FREEBIND,
    IPV6_TRANSPARENT,
    IPV6_FLOWINFO_SEND,
    IPV6_ADDR_PREFERENCES,
];

const OF_IP_DATAGRAMS: &[u32] =
    &[IP_MULTICAST_TTL, IP_MULTICAST_LOOP, IP_MULTICAST_ALL, IP_MULTICAST_IF];

const OF_IPV6_DATAGRAMS: &[u32] =
    &[IPV6_MULTICAST_HOPS, IPV6_MULTICAST_LOOP, IPV6_MULTICAST_ALL, IPV6_MULTICAST_IF];

const OF_TCP: &[u32] = &[
    TCP_NODELAY,
    TCP_CORK,
    TCP_KEEPIDLE,
    TCP_KEEPINTVL,
    TCP_KEEPCNT,
    TCP_SYNCNT,
    TCP_LINGER2,
    TCP_DEFER_ACCEPT,
    TCP_CONGESTION,
    TCP_THIN_LINEAR_TIMEOUTS,
    TCP_USER_TIMEOUT,
    TCP_FASTOPEN,
    TCP_FASTOPEN_CONNECT,
    TCP_NOTSENT_LOWAT,
    TCP_SAVE_SYN,
    TCP_INQ,
];

/// Those that a connection changes by itself.
const OF_TCP_UNCONNECTED: &[u32] = &[TCP_MAXSEG, TCP_WINDOW_CLAMP];

/// `UDP_CORK`, `UDP_SEGMENT` and `UDP_GRO` (include/uapi/linux/udp.h).
const OF_UDP: &[u32] = &[1, 103, 104];

const OF_NETLINK: &[u32] = &[
    NETLINK_PKTINFO,
    NETLINK_BROADCAST_ERROR,
    NETLINK_NO_ENOBUFS,
    NETLINK_LISTEN_ALL_NSID,
    NETLINK_CAP_ACK,
    NETLINK_EXT_ACK,
    NETLINK_GET_STRICT_CHK,
    NETLINK_LIST_MEMBERSHIPS,
];

const OF_ALL: &[u32] = &[
    SO_REUSEADDR,
    SO_REUSEPORT,
    SO_BROADCAST,
    SO_DONTROUTE,
    SO_KEEPALIVE,
    SO_OOBINLINE,
    SO_LINGER,
    SO_PRIORITY,
    SO_MARK,
    SO_BINDTODEVICE,
    SO_RCVLOWAT,
    SO_RCVTIMEO,
    SO_SNDTIMEO,
    SO_SNDBUF,
    SO_RCVBUF,
    SO_TIMESTAMP_OLD,
    SO_TIMESTAMP_NEW,
    SO_TIMESTAMPNS_OLD,
    SO_TIMESTAMPNS_NEW,
    SO_TIMESTAMPING_OLD,
    SO_TIMESTAMPING_NEW,
    SO_RXQ_OVFL,
    SO_RCVMARK,
    SO_SELECT_ERR_QUEUE,
    SO_NO_CHECK,
    SO_BUSY_POLL,
    SO_MAX_PACING_RATE,
    SO_ZEROCOPY,
    SO_PASSCRED,
    SO_PASSSEC,
    SO_PASSPIDFD,
    SO_PASSRIGHTS,
    SO_PEEK_OFF,
];

/// Notes them.
pub fn capture(fd: Fd, socket: &Socket, notes: &mut NoteWriter<'_>) -> Result<(), Obstacle> {
    let new = socket::like(socket)?;
    for (level, names) in levels(socket) {
        for &name in names.iter().filter(|&&name| is_chosen(fd, level, name)) {
            let (mut value, mut usual) = ([0; 64], [0; 64]);
            let (Ok(value), Ok(usual)) = (
                call::socket_option(fd, level, name, &mut value),
                call::socket_option(new.fd(), level, name, &mut usual),
            ) else {
                continue;
            };
            if value != usual {
                let length = value.len() as u32;
                let option = SocketOption { level, name, length, ..SocketOption::zeroed() };
                notes.push_record(&option, value)?;
            }
        }
    }
    capture_filter(fd, notes)
}

/// Notes the packet filter, and whether it is there for good.
fn capture_filter(fd: Fd, notes: &mut NoteWriter<'_>) -> Result<(), Obstacle> {
    let option = |name, length| SocketOption { level: SOL_SOCKET, name, length, reserved: 0 };
    let at = notes.open_description().len();
    notes.push(bytes_of(&option(SO_ATTACH_FILTER, 0)))?;
    let length = call::socket_filter(fd, notes.room())?.len();
    if length == 0 {
        notes.take_back(at);
    } else {
        notes.advance(length)?;
        notes.amend(at, bytes_of(&option(SO_ATTACH_FILTER, length as u32)));
    }
    let locked = call::socket_number(fd, SOL_SOCKET, SO_LOCK_FILTER)?;
    if locked != 0 {
        notes.push_record(&option(SO_LOCK_FILTER, 4), &locked.to_ne_bytes())?;
    }
    Ok(())
}

/// The options that a socket may have.
fn levels(socket: &Socket) -> [(u32, &'static [u32]); 8] {
    let when = |has: bool, names| if has { names } else { &[][..] };
    let family = u32::from(socket.family);
    let is_internet = [AF_INET, AF_INET6].contains(&family);
    let is_stream = u32::from(socket.kind) == SOCK_STREAM;
    let is_connected = socket.was_connected();
    let protocol = if is_stream { OF_TCP } else { OF_UDP };
    [
        (IPPROTO_IP as u32, when(is_internet, OF_IP)),
        (IPPROTO_IPV6 as u32, when(family == AF_INET6, OF_IPV6)),
        (IPPROTO_IP as u32, when(is_internet && !is_stream, OF_IP_DATAGRAMS)),
        (IPPROTO_IPV6 as u32, when(family == AF_INET6 && !is_stream, OF_IPV6_DATAGRAMS)),
        (SOL_SOCKET, OF_ALL),
        (socket.protocol, when(is_internet, protocol)),
        (socket.protocol, when(is_internet && is_stream && !is_connected, OF_TCP_UNCONNECTED)),
        (SOL_NETLINK, when(family == AF_NETLINK, OF_NETLINK)),
    ]
}

/// Whether an option is the program's choice: the kernel chooses the size of buffers unless that has
/// been set (Linux 5.14 tells).
fn is_chosen(fd: Fd, level: u32, name: u32) -> bool {
    let lock = match (level, name) {
        (SOL_SOCKET, SO_SNDBUF) => SOCK_SNDBUF_LOCK,
        (SOL_SOCKET, SO_RCVBUF) => SOCK_RCVBUF_LOCK,
        _ => return true,
    };
    call::socket_number(fd, SOL_SOCKET, SO_BUF_LOCK).is_ok_and(|locks| locks & lock != 0)
}
