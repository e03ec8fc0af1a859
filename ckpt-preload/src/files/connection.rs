//! An established TCP connection to another process. With the privilege for it, `TCP_REPAIR`, the kernel
//! tells all that it has of one: see [`Connection`]. The peer does not notice; what it sends meanwhile is
//! received as ever.

use bytemuck::{Zeroable, bytes_of};
use ckpt_image::files::{Connection, Socket, SocketMessage, phase};
use ckpt_image::{Full, NoteWriter};
use ckpt_sys::call::{self, Fd, TcpQueue};
use ckpt_sys::{Errno, is_repairable};
use linux_raw_sys::general::POLLRDHUP;
use linux_raw_sys::net::{
    IPPROTO_TCP, SO_RCVBUF, SO_REUSEADDR, SO_SNDBUF, SOL_SOCKET, TCP_MAXSEG, TCP_TIMESTAMP,
};

use super::socket::FOR_READING;
use super::{Obstacle, sent};

/// What is left free for all other descriptors.
const RESERVE: usize = 8 << 20;

/// A socket in repair mode.
struct Repair {
    fd: Fd,
    /// `SO_REUSEADDR`, which the mode changes.
    reuse: u32,
}

impl Repair {
    fn begin(fd: Fd) -> Result<Self, Errno> {
        let reuse = call::socket_number(fd, SOL_SOCKET, SO_REUSEADDR)?;
        call::begin_repair(fd)?;
        Ok(Self { fd, reuse })
    }
}

impl Drop for Repair {
    fn drop(&mut self) {
        let _ = call::end_repair(self.fd).or_else(|_| call::end_repair_and_ask(self.fd));
        let _ = call::set_socket_number(self.fd, SOL_SOCKET, SO_REUSEADDR, self.reuse);
    }
}

/// Notes where the connection of a socket stands, and what is in its queues. Says whether it could: if not,
/// nothing has been noted, and the connection is one that is lost.
pub fn capture(fd: Fd, socket: &mut Socket, notes: &mut NoteWriter<'_>) -> Result<bool, Obstacle> {
    if socket.phase != phase::CLOSED || !is_repairable(fd)? {
        return Ok(false);
    }
    let Ok(_repair) = Repair::begin(fd) else { return Ok(false) };
    let at = notes.open_description().len();
    let noted = note(fd, notes);
    let shutdown = match noted {
        Ok(shutdown) if notes.room().len() >= RESERVE => shutdown,
        _ => {
            notes.take_back(at);
            return Ok(false);
        }
    };
    socket.phase = phase::ESTABLISHED;
    socket.shutdown |= shutdown;
    Ok(true)
}

/// Notes it; returns what is shut down.
fn note(fd: Fd, notes: &mut NoteWriter<'_>) -> Result<u32, Obstacle> {
    let received = Received::settled(fd)?;
    let connection = describe(fd, &received)?;
    notes.push(bytes_of(&connection))?;
    call::choose_queue(fd, TcpQueue::Received)?;
    sent::note_bytes(fd, received.readable, notes)?;
    call::choose_queue(fd, TcpQueue::Sent)?;
    note_sent(fd, notes)?;
    Ok(if received.ended { FOR_READING } else { 0 })
}

/// What has come from the peer.
#[derive(PartialEq, Eq)]
struct Received {
    /// The number of the byte that comes next.
    next: u32,
    /// How many bytes before it can be read.
    readable: usize,
    /// Whether the peer has sent all, or the program wants no more.
    ended: bool,
    /// How much the peer has been told that there is room for, and from which number on.
    window: (u32, u32),
}

impl Received {
    fn now(fd: Fd) -> Result<Self, Errno> {
        let window = call::repair_window(fd)?;
        Ok(Self {
            next: call::next_in_queue(fd, TcpQueue::Received)?,
            readable: call::readable_bytes(fd)?,
            ended: call::poll_now(fd, POLLRDHUP)? & POLLRDHUP != 0,
            window: (window.rcv_wnd, window.rcv_wup),
        })
    }

    /// The same, not half before something has come and half after it. The peer may be sending; since
    /// nobody reads, there comes an end to that.
    fn settled(fd: Fd) -> Result<Self, Errno> {
        let mut before = Self::now(fd)?;
        loop {
            let now = Self::now(fd)?;
            if now == before {
                return Ok(now);
            }
            before = now;
        }
    }
}

fn describe(fd: Fd, received: &Received) -> Result<Connection, Errno> {
    let information = call::tcp_information(fd)?;
    let of_tcp = |name| call::socket_number(fd, IPPROTO_TCP as u32, name);
    let of_socket = |name| call::socket_number(fd, SOL_SOCKET, name);
    let window = call::repair_window(fd)?;
    Ok(Connection {
        next_sent: call::next_in_queue(fd, TcpQueue::Sent)?,
        next_received: received.next,
        options: information.tcpi_options.into(),
        send_scale: information.tcpi_snd_wscale().into(),
        receive_scale: information.tcpi_rcv_wscale().into(),
        segment: of_tcp(TCP_MAXSEG)?,
        timestamp: of_tcp(TCP_TIMESTAMP)?,
        send_window: window.snd_wnd,
        largest_window: window.max_window,
        receive_window: received.window.0,
        window_start: received.window.1,
        send_buffer: of_socket(SO_SNDBUF)?,
        receive_buffer: of_socket(SO_RCVBUF)?,
    })
}

/// Notes what has been sent and not been acknowledged. The kernel shows whole segments: more at the
/// beginning, if a part of the first one has been acknowledged, or is in this moment.
fn note_sent(fd: Fd, notes: &mut NoteWriter<'_>) -> Result<(), Obstacle> {
    let at = notes.open_description().len();
    notes.push(bytes_of(&SocketMessage::zeroed()))?;
    let shown = call::peek_message(fd, notes.room(), &mut [], 0)?.length;
    let length = call::unacknowledged_bytes(fd)?;
    let bytes = notes.room().get_mut(..shown).ok_or(Full)?;
    bytes.copy_within(shown.checked_sub(length).ok_or(Errno::EIO)?.., 0);
    notes.advance(length)?;
    let message = SocketMessage { length: length as u64, ..SocketMessage::zeroed() };
    notes.amend(at, bytes_of(&message));
    Ok(notes.align()?)
}
