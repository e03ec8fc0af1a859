//! What stands in the way of restoring a socket, for those that look at it from inside of the process and
//! from outside.

use core::fmt;

use linux_raw_sys::general::POLLIN;
use linux_raw_sys::net::{
    AF_INET, AF_INET6, AF_NETLINK, AF_PACKET, AF_UNIX, SO_DOMAIN, SO_TYPE, SOCK_DGRAM, SOCK_STREAM,
    SOL_SOCKET,
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
