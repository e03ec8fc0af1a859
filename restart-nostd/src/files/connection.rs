//! Established TCP connections to other processes, made again where they stood: `TCP_REPAIR`.
//!
//! The peer knows nothing of a checkpoint. It may have gone, or may have gone on with the program, which
//! then has read or written more than the image knows: its bytes would be taken for others, or be waited
//! for for ever. So each peer is asked, before any byte of the program's can be sent. Its answer has the
//! number of the byte that it sends next, and that of the byte that it waits for; the kernel believes it,
//! and notes the first one (`snd_wl1`), only if the second one is of a byte that the image knows of. A
//! connection that is out of step is reset, at both ends. What the peer sends while a socket is not complete
//! is dropped.
//!
//! What has been sent and not been acknowledged counts as lost on the way, even if it had not left the
//! machine: so its receipt is no surprise. It comes to no harm if the peer gets it twice.

use core::sync::atomic::AtomicU32;

use ckpt_image::files::{Connection, Socket, SocketMessage, SocketParts, descriptor};
use ckpt_image::record::{all_with_tails, first};
use ckpt_sys::call::{self, Fd, TcpQueue};
use ckpt_sys::{Errno, tcp};
use linux_raw_sys::general::{CLOCK_MONOTONIC, CLOCK_REALTIME};
use linux_raw_sys::net::{
    IPPROTO_IPV6, IPPROTO_TCP, IPV6_V6ONLY, SO_BUF_LOCK, SO_RCVBUF, SO_RCVBUFFORCE, SO_SNDBUF,
    SO_SNDBUFFORCE, SOL_SOCKET, TCP_TIMESTAMP, TCPI_OPT_SACK, TCPI_OPT_TIMESTAMPS, TCPI_OPT_WSCALE,
    tcp_repair_window,
};
use linux_raw_sys::ptrace::{BPF_K, BPF_RET};

use super::socket::{self, is_lost, local, lose_later, remote};
use super::{Restored, for_each_open_file, options};
use crate::image::Image;
use crate::report::note;

/// A connection that is to be made again.
struct Established<'a> {
    restored: &'a Restored<'a>,
    socket: Socket,
    connection: Connection,
    /// What has been received, and what has been sent.
    queues: [&'a [u8]; 2],
}

/// Why it is not known that both ends of a connection are in step.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Open {
    /// The peer has not answered,
    Silent,
    /// or not with numbers that the image knows of; it may still have got old ones.
    Astray,
    /// The peer has sent something that is not here; it may come yet.
    Behind,
}

/// A packet filter that lets nothing through: an instruction, `BPF_RET | BPF_K`, and 0 bytes.
const NOTHING: [u8; 8] = [(BPF_RET | BPF_K) as u8, 0, 0, 0, 0, 0, 0, 0];

/// What could not be done, and why.
type Obstacle = (&'static str, Errno);

/// Connections that are lost: all but the first one are but counted.
#[derive(Default)]
struct Losses {
    count: usize,
}

impl Losses {
    fn add(&mut self, lost: &Established<'_>, why: core::fmt::Arguments<'_>) {
        if self.count == 0 {
            note(format_args!(
                "the connection of descriptor {} to {} is lost: {why}",
                lost.restored.record.fd,
                remote(&lost.socket)
            ));
        }
        self.count += 1;
    }
}

/// Makes them all again, or loses them.
pub fn restore(image: &Image) {
    let mut losses = Losses::default();
    for_each(image, |established| {
        if let Err((what, errno)) = established.make() {
            losses.add(established, format_args!("{what}: {errno}"));
            established.lose();
        }
    });
    come_into_step(image, &mut losses);
    if losses.count > 1 {
        note(format_args!("{} more connections are lost", losses.count - 1));
    }
}

/// Calls `act` for each connection that is not lost.
fn for_each(image: &Image, mut act: impl FnMut(&Established<'_>)) {
    for_each_open_file(image, |restored| {
        if let Some(established) = Established::of(restored)
            && !is_lost(restored.record)
        {
            act(&established);
        }
    });
}

/// Asks each peer where it stands, again and again until it answers, all of them at once.
fn come_into_step(image: &Image, losses: &mut Losses) {
    /// A peer tells strangers where it stands but twice a second (`tcp_invalid_ratelimit`).
    const AGAIN: u64 = 600_000_000;
    const PAUSE: u64 = 5_000_000;
    let start = call::clock(CLOCK_MONOTONIC as i32);
    let age = since_checkpoint(image);
    let (mut asked, mut next) = (0, start);
    loop {
        let now = call::clock(CLOCK_MONOTONIC as i32);
        let is_time = now >= next;
        let mut is_open = false;
        for_each(image, |established| {
            let Some(why) = established.open_question() else { return };
            let is_known = why == Open::Astray && is_time && asked > 1;
            if is_known || now - start >= why.patience(age) {
                losses.add(established, format_args!("{}", why.in_words()));
                return established.reset();
            }
            is_open = true;
            if is_time && why != Open::Behind {
                established.ask();
            }
        });
        if !is_open {
            return;
        }
        if is_time {
            (asked, next) = (asked + 1, now + AGAIN);
        }
        let _ = call::futex_wait(&AtomicU32::new(0), 0, Some(PAUSE));
    }
}

/// How long ago the checkpoint was.
fn since_checkpoint(image: &Image) -> u64 {
    let taken_at = image.head().process().0.taken_at;
    call::clock(CLOCK_REALTIME as i32).saturating_sub(taken_at)
}

impl Open {
    /// How long it may last, `age` after the checkpoint. A peer sends again what is not acknowledged at
    /// intervals that double: if that has been on its way since the checkpoint, it comes before the double
    /// time is over.
    fn patience(self, age: u64) -> u64 {
        const USUAL: u64 = 3_000_000_000;
        const MOST: u64 = 30_000_000_000;
        match self {
            Self::Silent | Self::Astray => USUAL,
            Self::Behind => age.saturating_mul(2).clamp(USUAL, MOST),
        }
    }

    fn in_words(self) -> &'static str {
        match self {
            Self::Silent => "the peer does not answer",
            Self::Astray => "the peer has gone on since the checkpoint",
            Self::Behind => "the peer has gone on since the checkpoint, and does not send again",
        }
    }
}

impl<'a> Established<'a> {
    fn of(restored: &'a Restored<'a>) -> Option<Self> {
        if restored.record.kind != descriptor::SOCKET {
            return None;
        }
        let (socket, rest) = first::<Socket>(restored.state).ok()?;
        let SocketParts { connection, messages, .. } = socket.parts(rest).ok()?;
        let mut messages = all_with_tails::<SocketMessage>(messages);
        let mut queue = || {
            let (message, tail) = messages.next()?;
            Some(message.passed_and_bytes(tail).1)
        };
        Some(Self { restored, socket, connection: connection?, queues: [queue()?, queue()?] })
    }

    fn fd(&self) -> Fd {
        Fd(self.restored.record.fd)
    }

    /// Makes it again, up to where the peer may be asked.
    fn make(&self) -> Result<(), Obstacle> {
        let fd = self.fd();
        let Connection { next_sent, next_received, .. } = self.connection;
        let [received, sent] = self.queues;
        let privilege = "it takes CAP_NET_ADMIN, TCP_REPAIR";
        call::begin_repair(fd).map_err(|errno| (privilege, errno))?;
        call::set_socket_filter(fd, &NOTHING).map_err(|errno| ("a packet filter", errno))?;
        self.enlarge_buffers();
        // The addresses may be old ones.
        let _ = call::set_socket_number(fd, IPPROTO_IPV6 as u32, IPV6_V6ONLY, 0);
        call::bind(fd, &local(&self.socket)).map_err(|errno| ("its own address, bind", errno))?;
        for (queue, next, bytes) in
            [(TcpQueue::Sent, next_sent, sent), (TcpQueue::Received, next_received, received)]
        {
            let number = next.wrapping_sub(bytes.len() as u32);
            call::set_next_in_queue(fd, queue, number).map_err(|errno| ("its numbers", errno))?;
        }
        call::connect(fd, &remote(&self.socket)).map_err(|errno| match errno {
            // Another socket has both, perhaps still that of the program.
            Errno::EADDRNOTAVAIL => ("its addresses", Errno::EADDRINUSE),
            errno => ("connect", errno),
        })?;
        self.agree().map_err(|errno| ("what the ends have agreed on", errno))?;
        for (queue, bytes) in [(TcpQueue::Received, received), (TcpQueue::Sent, sent)] {
            fill(fd, queue, bytes).map_err(|errno| ("room for what is on its way", errno))?;
        }
        self.set_window().map_err(|errno| ("its windows", errno))?;
        call::remove_socket_filter(fd).map_err(|errno| ("its packet filter", errno))
    }

    /// Makes the buffers as large as they were. The kernel may enlarge them further.
    fn enlarge_buffers(&self) {
        let Connection { send_buffer, receive_buffer, .. } = self.connection;
        for (names, size) in [
            ([SO_SNDBUFFORCE, SO_SNDBUF], send_buffer),
            ([SO_RCVBUFFORCE, SO_RCVBUF], receive_buffer),
        ] {
            if call::socket_number(self.fd(), SOL_SOCKET, names[1]).is_ok_and(|now| now < size) {
                let _ = options::set_buffer(self.fd(), names, &size.to_ne_bytes());
            }
        }
        let _ = call::set_socket_number(self.fd(), SOL_SOCKET, SO_BUF_LOCK, 0);
    }

    /// Sets what the ends have agreed on.
    fn agree(&self) -> Result<(), Errno> {
        // Options of TCP (include/net/tcp.h).
        const SEGMENT: u8 = 2;
        const WINDOW: u8 = 3;
        const SACK: u8 = 4;
        const TIMESTAMP: u8 = 8;
        let Connection { options, send_scale, receive_scale, segment, .. } = self.connection;
        let has = |flag| options & flag != 0;
        let (send, receive) =
            if has(TCPI_OPT_WSCALE) { (send_scale, receive_scale) } else { (0, 0) };
        // A new connection has scales, be it asked for or not.
        for (is_agreed, option, value) in [
            (true, SEGMENT, segment),
            (true, WINDOW, u32::from(send) | u32::from(receive) << 16),
            (has(TCPI_OPT_SACK), SACK, 0),
            (has(TCPI_OPT_TIMESTAMPS), TIMESTAMP, 0),
        ] {
            if is_agreed {
                call::set_repair_option(self.fd(), option, value)?;
            }
        }
        call::set_socket_number(self.fd(), IPPROTO_TCP as u32, TCP_TIMESTAMP, self.timestamp())
    }

    /// The timestamp that would be sent by now: one that is older than those that the peer has got would not
    /// be accepted.
    fn timestamp(&self) -> u32 {
        let microseconds = since_checkpoint(self.restored.image) / 1000;
        match self.connection.timestamp {
            odd if odd & 1 != 0 => odd.wrapping_add(microseconds as u32) | 1,
            even => even.wrapping_add((microseconds / 1000) as u32 + 2) & !1,
        }
    }

    fn set_window(&self) -> Result<(), Errno> {
        let connection = self.connection;
        let window = tcp_repair_window {
            // Older than what the peer will answer.
            snd_wl1: connection.next_received.wrapping_sub(1),
            snd_wnd: connection.send_window,
            max_window: connection.largest_window,
            rcv_wnd: connection.receive_window,
            rcv_wup: connection.window_start,
        };
        call::set_repair_window(self.fd(), &window)
    }

    /// Asks the peer where it stands.
    fn ask(&self) {
        let fd = self.fd();
        let _ = call::begin_repair(fd).and_then(|()| call::end_repair_and_ask(fd));
    }

    /// Why it is not known to be in step; nothing if it is, or has been ended by the peer.
    fn open_question(&self) -> Option<Open> {
        let information = call::tcp_information(self.fd()).ok()?;
        if information.tcpi_state == tcp::CLOSE {
            return None;
        }
        let (answered, next) = numbers(self.fd()).ok()?;
        let expected = self.connection.next_received;
        if next != expected {
            return None; // It has come.
        }
        match answered.wrapping_sub(expected) as i32 {
            0 => None,
            1.. => Some(Open::Behind),
            _ if information.tcpi_segs_in > 0 => Some(Open::Astray),
            _ => Some(Open::Silent),
        }
    }

    /// Ends it at both ends.
    fn reset(&self) {
        let _ = call::end_repair(self.fd());
        socket::end_at_once(self.fd());
        self.lose();
    }

    /// Puts one in its place that is going to be lost.
    fn lose(&self) {
        lose_later(self.restored, &self.socket);
    }
}

/// The number that the peer has answered, and that of the byte that it has to send next.
fn numbers(fd: Fd) -> Result<(u32, u32), Errno> {
    call::begin_repair(fd)?;
    let window = call::repair_window(fd);
    let next = call::next_in_queue(fd, TcpQueue::Received);
    call::end_repair(fd)?;
    Ok((window?.snd_wl1, next?))
}

/// Puts `bytes` into a queue.
fn fill(fd: Fd, queue: TcpQueue, mut bytes: &[u8]) -> Result<(), Errno> {
    call::choose_queue(fd, queue)?;
    while !bytes.is_empty() {
        let done = call::send_message(fd, bytes, &[])?;
        bytes = bytes.get(done..).unwrap_or(&[]);
    }
    Ok(())
}
