//! What a socket is, and what stands in the way of restoring it, for those that look at it from inside of
//! the process and from outside.

use core::fmt;

use linux_raw_sys::general::{POLLIN, POLLPRI};
use linux_raw_sys::net::{
    AF_INET, AF_INET6, AF_NETLINK, AF_PACKET, AF_UNIX, IPPROTO_TCP, SO_DOMAIN, SO_PROTOCOL,
    SO_TYPE, SOCK_DGRAM, SOCK_STREAM, SOL_SOCKET, TCP_ULP,
};

use crate::call::{self, Fd};
use crate::{Errno, UnixSocket};

/// Why a socket cannot be restored. It is shown as what the socket is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SocketObstacle {
    /// raw(7).
    Raw,
    /// packet(7).
    Packet,
    /// A family of addresses of which nothing is known here.
    Family(u32),
    /// The kernel's messages cannot be had again.
    Unread,
    /// `SO_ATTACH_BPF`.
    Filter,
    /// The kernel does not tell what a Unix socket is connected to.
    NoPeer(Errno),
}

impl SocketObstacle {
    /// Finds it, if there is one. `inode` is the socket's.
    ///
    /// # Errors
    ///
    /// Those of getsockopt(2).
    pub fn of(fd: Fd, inode: u64) -> Result<Option<Self>, Errno> {
        let family = call::socket_number(fd, SOL_SOCKET, SO_DOMAIN)?;
        let obstacle = match (family, call::socket_number(fd, SOL_SOCKET, SO_TYPE)?) {
            (AF_UNIX, _) => UnixSocket::of_inode(inode).err().map(Self::NoPeer),
            (AF_INET | AF_INET6, SOCK_STREAM | SOCK_DGRAM) => None,
            (AF_INET | AF_INET6, _) => Some(Self::Raw),
            (AF_NETLINK, _) => (call::poll_now(fd, POLLIN)? & POLLIN != 0).then_some(Self::Unread),
            (AF_PACKET, _) => Some(Self::Packet),
            (family, _) => Some(Self::Family(family)),
        };
        // Without room for it the kernel tells but its length.
        let is_told = call::socket_filter(fd, &mut []).is_ok();
        Ok(obstacle.or((!is_told).then_some(Self::Filter)))
    }
}

impl fmt::Display for SocketObstacle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Raw => "a raw socket",
            Self::Packet => "a packet socket",
            Self::Family(family) => return write!(f, "a socket of address family {family}"),
            Self::Unread => "a netlink socket with messages that have not been read",
            Self::Filter => "a socket with an eBPF filter",
            Self::NoPeer(errno) => {
                return write!(
                    f,
                    "a Unix socket, whose peer this kernel does not tell ({errno}; CONFIG_UNIX_DIAG)"
                );
            }
        })
    }
}

/// The states of a TCP socket (include/net/tcp_states.h).
#[allow(missing_docs, reason = "RFC 9293 has them")]
pub mod tcp {
    pub const ESTABLISHED: u8 = 1;
    pub const SYN_SENT: u8 = 2;
    pub const FIN_WAIT1: u8 = 4;
    pub const FIN_WAIT2: u8 = 5;
    pub const TIME_WAIT: u8 = 6;
    pub const CLOSE: u8 = 7;
    pub const CLOSE_WAIT: u8 = 8;
    pub const LAST_ACK: u8 = 9;
    pub const LISTEN: u8 = 10;
    pub const CLOSING: u8 = 11;
}

/// Whether all that there is of a TCP connection is told to those who have the privilege for it
/// (`TCP_REPAIR`): it is established, with no urgent byte in it that is to be read, and nothing above it that
/// makes something else of its bytes (`TCP_ULP`).
///
/// # Errors
///
/// Those of getsockopt(2).
pub fn is_repairable(fd: Fd) -> Result<bool, Errno> {
    if call::socket_number(fd, SOL_SOCKET, SO_PROTOCOL)? != IPPROTO_TCP as u32 {
        return Ok(false);
    }
    let state = call::tcp_information(fd)?.tcpi_state;
    let upper =
        call::socket_option(fd, IPPROTO_TCP as u32, TCP_ULP, &mut [0; 16]).map(|name| name.len());
    Ok([tcp::ESTABLISHED, tcp::CLOSE_WAIT].contains(&state)
        && call::poll_now(fd, POLLPRI)? & POLLPRI == 0
        && upper.is_ok_and(|length| length == 0))
}
