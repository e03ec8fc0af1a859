//! Established TCP connections, looked at and made again: `TCP_REPAIR` (include/uapi/linux/tcp.h). It takes
//! `CAP_NET_ADMIN` over the network namespace, and all the rest works in this mode only.

use linux_raw_sys::general as nr;
use linux_raw_sys::ioctl::TIOCOUTQ;
use linux_raw_sys::net::{
    _bindgen_ty_5 as queue, IPPROTO_TCP, TCP_QUEUE_SEQ, TCP_REPAIR, TCP_REPAIR_OFF,
    TCP_REPAIR_OFF_NO_WP, TCP_REPAIR_ON, TCP_REPAIR_OPTIONS, TCP_REPAIR_QUEUE, TCP_REPAIR_WINDOW,
    tcp_repair_opt, tcp_repair_window,
};

use super::{
    Argument, Fd, Result, filled, registers, result_of, set_socket_number, socket_number, syscall,
};

const TCP: u32 = IPPROTO_TCP as u32;

/// A queue of a TCP socket.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub enum TcpQueue {
    /// What has been received and not been read.
    Received = queue::TCP_RECV_QUEUE as u32,
    /// What has been sent and not been acknowledged.
    Sent = queue::TCP_SEND_QUEUE as u32,
}

/// Begins to repair a connection: what is sent to a queue is put there, and nothing else is done with it.
pub fn begin_repair(fd: Fd) -> Result<()> {
    set_socket_number(fd, TCP, TCP_REPAIR, TCP_REPAIR_ON)
}

/// Ends that, without a sign to the peer (Linux 4.19).
pub fn end_repair(fd: Fd) -> Result<()> {
    set_socket_number(fd, TCP, TCP_REPAIR, TCP_REPAIR_OFF_NO_WP as u32)
}

/// Ends that, and asks the peer for an acknowledgement.
pub fn end_repair_and_ask(fd: Fd) -> Result<()> {
    set_socket_number(fd, TCP, TCP_REPAIR, TCP_REPAIR_OFF)
}

/// Says which queue is meant from here on.
pub fn choose_queue(fd: Fd, queue: TcpQueue) -> Result<()> {
    set_socket_number(fd, TCP, TCP_REPAIR_QUEUE, queue as u32)
}

/// The number of the byte that is next put into a queue.
pub fn next_in_queue(fd: Fd, queue: TcpQueue) -> Result<u32> {
    choose_queue(fd, queue)?;
    socket_number(fd, TCP, TCP_QUEUE_SEQ)
}

/// Sets it, before there is a connection.
pub fn set_next_in_queue(fd: Fd, queue: TcpQueue, number: u32) -> Result<()> {
    choose_queue(fd, queue)?;
    set_socket_number(fd, TCP, TCP_QUEUE_SEQ, number)
}

/// How many bytes have been sent and not been acknowledged: `ioctl(SIOCOUTQ)`.
pub fn unacknowledged_bytes(fd: Fd) -> Result<usize> {
    filled::<i32>(|into| call!(__NR_ioctl, fd, TIOCOUTQ, into)).map(|bytes| bytes as usize)
}

/// The windows of both ends.
pub fn repair_window(fd: Fd) -> Result<tcp_repair_window> {
    let mut length = size_of::<tcp_repair_window>() as u32;
    let length = &raw mut length;
    filled(|into: *mut tcp_repair_window| {
        call!(__NR_getsockopt, fd, TCP, TCP_REPAIR_WINDOW, into, length)
    })
}

/// Sets them.
pub fn set_repair_window(fd: Fd, window: &tcp_repair_window) -> Result<()> {
    let (value, length) = (core::ptr::from_ref(window), size_of_val(window));
    call!(__NR_setsockopt, fd, TCP, TCP_REPAIR_WINDOW, value, length).map(drop)
}

/// Sets something that the ends have agreed on: an option of TCP, and its value.
pub fn set_repair_option(fd: Fd, option: u8, value: u32) -> Result<()> {
    let option = tcp_repair_opt { opt_code: option.into(), opt_val: value };
    let (value, length) = (&raw const option, size_of_val(&option));
    call!(__NR_setsockopt, fd, TCP, TCP_REPAIR_OPTIONS, value, length).map(drop)
}
