//! Sockets.

use core::ffi::c_int;
use core::fmt;
use core::mem::offset_of;
use core::net::{IpAddr, Ipv4Addr, SocketAddr};
use core::ptr::null_mut;

use linux_raw_sys::general::{self as nr, iovec};
use linux_raw_sys::net::{
    AF_INET, AF_INET6, AF_UNIX, IPPROTO_TCP, MSG_CTRUNC, MSG_DONTWAIT, MSG_NOSIGNAL, MSG_PEEK,
    SO_ATTACH_FILTER, SO_DETACH_FILTER, SO_GET_FILTER, SO_PEEK_OFF, SOL_SOCKET, TCP_INFO, cmsghdr,
    msghdr, sockaddr_in, sockaddr_in6, tcp_info,
};
use linux_raw_sys::ptrace::{sock_filter, sock_fprog};

use super::{Argument, Fd, Result, again, filled, registers, result_of, syscall};
use crate::{Errno, Escaped};

/// The address of a socket: a family, and what that makes of the rest.
#[derive(Clone, Copy)]
pub struct Address {
    /// The bytes of the structure.
    pub bytes: [u8; Self::MOST],
    /// How many there are.
    pub length: usize,
}

impl Address {
    /// The most bytes an address has (`struct sockaddr_storage`).
    pub const MOST: usize = 128;

    /// The address of these bytes; what is over is cut off.
    pub fn new(bytes: &[u8]) -> Self {
        let length = bytes.len().min(Self::MOST);
        let mut address = Self { bytes: [0; Self::MOST], length };
        address.bytes[..length].copy_from_slice(&bytes[..length]);
        address
    }

    /// The bytes that there are.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.length]
    }

    /// That of this machine to itself, for a family that has one.
    pub fn loopback(family: u32, port: u16) -> Self {
        let [family, port] = [(family as u16).to_ne_bytes(), port.to_be_bytes()];
        let mut bytes = [0; size_of::<sockaddr_in6>()];
        bytes[..2].copy_from_slice(&family);
        bytes[2..4].copy_from_slice(&port);
        let host = Ipv4Addr::LOCALHOST;
        if u32::from(u16::from_ne_bytes(family)) == AF_INET {
            bytes[4..8].copy_from_slice(&host.octets());
            return Self::new(&bytes[..size_of::<sockaddr_in>()]);
        }
        bytes[8..24].copy_from_slice(&host.to_ipv6_mapped().octets());
        Self::new(&bytes)
    }

    /// The family; 0 for no address.
    pub fn family(&self) -> u32 {
        self.as_bytes().get(..2).map_or(0, |at| u16::from_ne_bytes([at[0], at[1]]).into())
    }

    /// Host and port, of the internet's families.
    pub fn host_and_port(&self) -> Option<(IpAddr, u16)> {
        let bytes = self.as_bytes();
        let port = u16::from_be_bytes(bytes.get(2..4)?.try_into().ok()?);
        let host = match self.family() {
            AF_INET => <[u8; 4]>::try_from(bytes.get(4..8)?).ok()?.into(),
            AF_INET6 => <[u8; 16]>::try_from(bytes.get(8..24)?).ok()?.into(),
            _ => return None,
        };
        Some((host, port))
    }

    /// The name of a Unix socket: a path, or behind a NUL the rest of an abstract one; nothing if it has
    /// none.
    pub fn name(&self) -> &[u8] {
        let name = match self.family() {
            AF_UNIX => self.as_bytes().get(2..).unwrap_or(&[]),
            _ => &[],
        };
        match name {
            [0, ..] => name,
            path => path.split(|&byte| byte == 0).next().unwrap_or(path),
        }
    }
}

/// As people write it: `127.0.0.1:80`, `[::1]:80`, a path, or `@` and an abstract name.
impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.host_and_port(), self.name()) {
            (Some((host, port)), _) => SocketAddr::new(host, port).fmt(f),
            (None, [0, name @ ..]) => write!(f, "@{}", Escaped(name)),
            (None, path) => Escaped(path).fmt(f),
        }
    }
}

/// An address that the kernel fills in.
fn address(call: impl FnOnce(*mut u8, *mut u32) -> Result<usize>) -> Result<Address> {
    let mut bytes = [0; Address::MOST];
    let mut length = Address::MOST as u32;
    call(bytes.as_mut_ptr(), &raw mut length)?;
    Ok(Address::new(&bytes[..(length as usize).min(Address::MOST)]))
}

/// socket(2).
pub fn socket(family: u32, kind: u32, protocol: u32) -> Result<Fd> {
    call!(__NR_socket, family, kind, protocol).map(|fd| Fd(fd as i32))
}

/// socketpair(2).
pub fn socketpair(family: u32, kind: u32, protocol: u32) -> Result<[Fd; 2]> {
    let pair = filled::<[i32; 2]>(|into| call!(__NR_socketpair, family, kind, protocol, into))?;
    Ok(pair.map(Fd))
}

/// bind(2).
pub fn bind(fd: Fd, address: &Address) -> Result<()> {
    call!(__NR_bind, fd, address.bytes.as_ptr(), address.length).map(drop)
}

/// connect(2).
pub fn connect(fd: Fd, address: &Address) -> Result<()> {
    call!(__NR_connect, fd, address.bytes.as_ptr(), address.length).map(drop)
}

/// listen(2).
pub fn listen(fd: Fd, backlog: u32) -> Result<()> {
    call!(__NR_listen, fd, backlog).map(drop)
}

/// accept4(2).
pub fn accept(fd: Fd, flags: u32) -> Result<Fd> {
    let null = null_mut::<u8>();
    again(|| call!(__NR_accept4, fd, null, null, flags)).map(|fd| Fd(fd as i32))
}

/// shutdown(2).
pub fn shutdown(fd: Fd, how: u32) -> Result<()> {
    call!(__NR_shutdown, fd, how).map(drop)
}

/// getsockname(2).
pub fn local_address(fd: Fd) -> Result<Address> {
    address(|into, length| call!(__NR_getsockname, fd, into, length))
}

/// getpeername(2).
pub fn remote_address(fd: Fd) -> Result<Address> {
    address(|into, length| call!(__NR_getpeername, fd, into, length))
}

/// getsockopt(2): as much of `value` as the kernel has filled in.
pub fn socket_option(fd: Fd, level: u32, name: u32, value: &mut [u8]) -> Result<&mut [u8]> {
    let mut length = value.len() as u32;
    call!(__NR_getsockopt, fd, level, name, value.as_mut_ptr(), &raw mut length)?;
    let length = (length as usize).min(value.len());
    Ok(&mut value[..length])
}

/// The packet filter of a socket (`SO_GET_FILTER`), which fills a part of `value`; nothing if there is none.
/// One of the new kind (`SO_ATTACH_BPF`) is not told.
pub fn socket_filter(fd: Fd, value: &mut [u8]) -> Result<&mut [u8]> {
    const SIZE: usize = size_of::<sock_filter>();
    // The kernel counts instructions.
    let mut count = (value.len() / SIZE) as u32;
    let into = value.as_mut_ptr();
    call!(__NR_getsockopt, fd, SOL_SOCKET, SO_GET_FILTER, into, &raw mut count)?;
    let length = (count as usize * SIZE).min(value.len());
    Ok(&mut value[..length])
}

/// Gives a socket a packet filter: `SO_ATTACH_FILTER`.
pub fn set_socket_filter(fd: Fd, filter: &[u8]) -> Result<()> {
    let count = filter.len() / size_of::<sock_filter>();
    let program = sock_fprog {
        len: u16::try_from(count).map_err(|_| Errno::EINVAL)?,
        filter: filter.as_ptr().cast_mut().cast(),
    };
    let (program, size) = (&raw const program, size_of::<sock_fprog>());
    call!(__NR_setsockopt, fd, SOL_SOCKET, SO_ATTACH_FILTER, program, size).map(drop)
}

/// Takes it away again: `SO_DETACH_FILTER`.
pub fn remove_socket_filter(fd: Fd) -> Result<()> {
    set_socket_number(fd, SOL_SOCKET, SO_DETACH_FILTER, 0)
}

/// getsockopt(2) of a number.
pub fn socket_number(fd: Fd, level: u32, name: u32) -> Result<u32> {
    let mut value = [0; 4];
    socket_option(fd, level, name, &mut value)?;
    Ok(u32::from_ne_bytes(value))
}

/// setsockopt(2).
pub fn set_socket_option(fd: Fd, level: u32, name: u32, value: &[u8]) -> Result<()> {
    call!(__NR_setsockopt, fd, level, name, value.as_ptr(), value.len()).map(drop)
}

/// setsockopt(2) of a number.
pub fn set_socket_number(fd: Fd, level: u32, name: u32, value: u32) -> Result<()> {
    set_socket_option(fd, level, name, &value.to_ne_bytes())
}

/// What getsockopt(2) tells of a TCP socket: `TCP_INFO`. What the kernel does not know is 0.
pub fn tcp_information(fd: Fd) -> Result<tcp_info> {
    let mut length = size_of::<tcp_info>() as u32;
    let (level, length) = (IPPROTO_TCP as u32, &raw mut length);
    filled(|into: *mut tcp_info| call!(__NR_getsockopt, fd, level, TCP_INFO, into, length))
}

/// A message that has been looked at.
#[derive(Clone, Copy, Debug)]
pub struct Peeked {
    /// Its bytes, or of a stream those that there are; more than the room if it did not fit.
    pub length: usize,
    /// How much of the control messages' room is filled.
    pub control: usize,
    /// Whether there were more of them.
    pub control_cut: bool,
}

/// recvmsg(2) that takes nothing and does not wait, at a position in the queue if the socket has
/// `SO_PEEK_OFF`. `flags`: `MSG_TRUNC` to be told the length of a message though it does not fit.
pub fn peek_message(fd: Fd, bytes: &mut [u8], control: &mut [u64], flags: u32) -> Result<Peeked> {
    peek_parts(fd, &mut [part_of(bytes)], control, flags)
}

/// The same of a stream, but only what has been sent in pieces that fit as a whole: how many bytes those
/// are. `EFAULT` if the first one does not. At the address `nowhere` no byte can be written.
pub fn peek_whole_pieces(fd: Fd, bytes: &mut [u8], nowhere: u64) -> Result<usize> {
    let behind = iovec { iov_base: nowhere as *mut _, iov_len: 1 };
    peek_parts(fd, &mut [part_of(bytes), behind], &mut [], 0).map(|peeked| peeked.length)
}

fn part_of(bytes: &mut [u8]) -> iovec {
    iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() as u64 }
}

fn peek_parts(fd: Fd, parts: &mut [iovec], control: &mut [u64], flags: u32) -> Result<Peeked> {
    let mut header = msghdr {
        msg_name: null_mut(),
        msg_namelen: 0,
        msg_iov: parts.as_mut_ptr().cast(),
        msg_iovlen: parts.len(),
        msg_control: control.as_mut_ptr().cast(),
        msg_controllen: size_of_val(control),
        msg_flags: 0,
    };
    /// `MSG_CMSG_CLOEXEC` (include/linux/socket.h).
    const CLOSE_ON_EXEC: u32 = 0x4000_0000;
    let flags = flags | MSG_PEEK | MSG_DONTWAIT | CLOSE_ON_EXEC;
    let length = call!(__NR_recvmsg, fd, &raw mut header, flags)?;
    let control_cut = header.msg_flags & MSG_CTRUNC != 0;
    Ok(Peeked { length, control: header.msg_controllen, control_cut })
}

/// The position that [`peek_message`] begins at: `SO_PEEK_OFF`.
pub fn set_peek_position(fd: Fd, position: u32) -> Result<()> {
    set_socket_number(fd, SOL_SOCKET, SO_PEEK_OFF, position)
}

/// sendmsg(2), without waiting and without SIGPIPE, to the peer.
pub fn send_message(fd: Fd, bytes: &[u8], control: &[u64]) -> Result<usize> {
    let mut part =
        iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() as u64 };
    let header = msghdr {
        msg_name: null_mut(),
        msg_namelen: 0,
        msg_iov: (&raw mut part).cast(),
        msg_iovlen: 1,
        msg_control: control.as_ptr().cast_mut().cast(),
        msg_controllen: size_of_val(control),
        msg_flags: 0,
    };
    call!(__NR_sendmsg, fd, &raw const header, MSG_DONTWAIT | MSG_NOSIGNAL)
}

/// Room for the control messages (cmsg(3)) that a message can have: the sender's credentials, and 253
/// descriptors.
pub type Control = [u64; 160];

/// The control messages in the first `length` bytes of `control`: level, type and contents.
pub fn control_messages(
    control: &[u64],
    length: usize,
) -> impl Iterator<Item = (u32, u32, &[u8])> + Clone {
    // SAFETY: any bytes are bytes.
    let bytes: &[u8] =
        unsafe { core::slice::from_raw_parts(control.as_ptr().cast(), size_of_val(control)) };
    let mut rest = bytes.get(..length).unwrap_or(bytes);
    core::iter::from_fn(move || {
        let size = usize::from_ne_bytes(rest.get(..size_of::<usize>())?.try_into().ok()?);
        let number =
            |at: usize| Some(c_int::from_ne_bytes(rest.get(at..at + 4)?.try_into().ok()?) as u32);
        let level = number(offset_of!(cmsghdr, cmsg_level))?;
        let kind = number(offset_of!(cmsghdr, cmsg_type))?;
        let contents = rest.get(size_of::<cmsghdr>()..size)?;
        rest = rest.get(size.next_multiple_of(8)..).unwrap_or(&[]);
        Some((level, kind, contents))
    })
}

/// Writes a control message for `contents`, of which there are some, into `control`. Returns how much of
/// that it takes; nothing if there is no room.
pub fn control_message(control: &mut [u64], kind: u32, contents: &[u8]) -> usize {
    const HEADER: usize = size_of::<cmsghdr>() / size_of::<u64>();
    let length = HEADER + contents.len().div_ceil(size_of::<u64>());
    let Some(control) = control.get_mut(..length).filter(|_| !contents.is_empty()) else {
        return 0;
    };
    let header = cmsghdr {
        cmsg_len: size_of::<cmsghdr>() + contents.len(),
        cmsg_level: SOL_SOCKET as c_int,
        cmsg_type: kind as c_int,
    };
    control.fill(0);
    // SAFETY: there is room for both, and the header's alignment is that of the room.
    unsafe {
        control.as_mut_ptr().cast::<cmsghdr>().write(header);
        let into = control.as_mut_ptr().add(HEADER).cast::<u8>();
        into.copy_from_nonoverlapping(contents.as_ptr(), contents.len());
    }
    length
}
