//! Input and output under way.
//!
//! The kernel begins a `read` or a `write` again after a handler, and the program notices nothing; but
//! for two kinds of it, which are finished here, in the way of [`calls`](crate::calls):
//!
//! * calls on a socket that has a time-out (`SO_RCVTIMEO`, `SO_SNDTIMEO`) end with `EINTR`;
//! * what has moved a part of the data returns how much. A program that does not expect signals may
//!   rely on a pipe, a terminal or a stream socket to take all that is written, and on `MSG_WAITALL`.
//!
//! ```text
//!   until nothing is left, or, unless all is asked for, something has been moved:
//!     ppoll(the descriptor, time left, the program's mask)       waits, and lets signals in
//!     send(what is left, MSG_DONTWAIT)                           does not wait
//! ```
//!
//! Other files than sockets have no `MSG_DONTWAIT`; they are given so little at once that they take it
//! if poll(2) says that they can be written to. Nor have `accept` and `connect`: they do not wait
//! after poll(2) unless somebody else has taken the connection meanwhile. In a restarted process the
//! descriptor may be that of another kind of file than it was.
#![allow(non_upper_case_globals, reason = "the kernel's names of calls, in patterns")]

use ckpt_arch::CallMade;
use ckpt_sys::call;
use ckpt_sys::timer::BILLION;
use ckpt_sys::{Errno, Fd};
use linux_raw_sys::general::{
    __NR_accept, __NR_accept4, __NR_connect, __NR_read, __NR_readv, __NR_recvfrom, __NR_recvmsg,
    __NR_sendmsg, __NR_sendto, __NR_write, __NR_writev, F_GETFL, O_NONBLOCK, PIPE_BUF, POLLIN,
    POLLOUT, S_IFIFO, S_IFMT, S_IFSOCK, iovec, pollfd,
};
use linux_raw_sys::net::{
    AF_UNIX, MSG_DONTWAIT, MSG_MORE, MSG_NOSIGNAL, MSG_WAITALL, SO_DOMAIN, SO_RCVTIMEO,
    SO_SNDTIMEO, SO_TYPE, SOCK_STREAM, SOL_SOCKET, msghdr,
};

use crate::calls::{NEVER, Wait};

/// A call that moves data, as it is to be finished.
pub struct Transfer {
    call: CallMade,
    kind: Kind,
    /// Bytes that have been moved.
    moved: usize,
    /// Until when it waits.
    pub wait: Wait,
}

/// What is moved.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// What comes first: data, a message or a connection.
    Input,
    /// All the data that there is room for.
    AllInput,
    /// All the data.
    Output,
    /// Nothing: a connection is made.
    Connection,
}

impl Transfer {
    /// A call that has failed with `EINTR` at `now`; `None` unless it is that of a socket with a time-out.
    pub fn not_begun(call: CallMade, now: u64) -> Option<Self> {
        let kind = Kind::of(&call)?;
        let time = kind.time_out(descriptor(&call)).filter(|&time| time != NEVER)?;
        Some(Self { call, kind, moved: 0, wait: Wait::relative(now, time) })
    }

    /// A call that has moved `count` bytes, if that is not all, though it was to move all.
    pub fn in_part(call: CallMade, count: usize, now: u64) -> Option<Self> {
        let kind = Kind::of(&call).filter(|kind| kind.is_for_all())?;
        Rest::behind(&call, count)?.next()?;
        let time = kind.time_out(descriptor(&call)).unwrap_or(NEVER);
        Some(Self { call, kind, moved: count, wait: Wait::relative(now, time) })
    }

    /// Moves the rest; returns what the whole call returns. The program's mask is `own`.
    pub fn finish(&self, own: u64) -> Result<usize, Errno> {
        let mut moved = self.moved;
        let result = self.move_rest(&mut moved, own);
        if moved > 0 { Ok(moved) } else { result }
    }

    fn move_rest(&self, moved: &mut usize, own: u64) -> Result<usize, Errno> {
        let mut rest = Rest::behind(&self.call, *moved).ok_or(Errno::EINTR)?;
        loop {
            let part = rest.next();
            if part.is_none() && *moved > 0 {
                return Ok(*moved);
            }
            let ready = self.wait_until_ready(own)?;
            match self.move_part(part.unwrap_or_default(), *moved > 0) {
                // An error of the socket's that is not this call's to tell.
                Err(Errno::EAGAIN) if !ready => return Err(Errno::EINTR),
                Err(Errno::EAGAIN) => {}
                Ok(count @ 1..) if self.kind.is_for_all() => {
                    *moved += count;
                    rest.skip(count);
                }
                result => return result,
            }
        }
    }

    /// Waits for the descriptor. Says whether it is ready, rather than in error.
    fn wait_until_ready(&self, own: u64) -> Result<bool, Errno> {
        let events = if self.kind.is_input() { POLLIN } else { POLLOUT } as i16;
        let mut polled = pollfd { fd: descriptor(&self.call).0, events, revents: 0 };
        let at = &raw mut polled as u64;
        let ready = self.wait.last(own, |wait, time, mask| {
            // SAFETY: the descriptor polled is ours.
            unsafe { call::wait_poll(wait, at, 1, time, mask) }
        });
        match ready? {
            0 if self.kind == Kind::Connection => Err(Errno::EINPROGRESS),
            0 => Err(Errno::EAGAIN),
            _ => Ok(polled.revents & events != 0),
        }
    }

    /// The call, without its waiting, for a part of the data. Of an end of the other side's that comes
    /// after something has been moved the next call tells, with the signal.
    fn move_part(&self, part: Part, has_moved: bool) -> Result<usize, Errno> {
        let [fd, second, third, fourth, fifth, sixth] = self.call.arguments;
        let Part { at, length } = part;
        let no_wait = u64::from(MSG_DONTWAIT);
        // SAFETY: a msghdr is plain numbers and pointers, for which zeros are valid.
        let mut message = unsafe { core::mem::zeroed::<msghdr>() };
        let file = descriptor(&self.call);
        let is_socket = option(file, SO_TYPE).is_some();
        let (number, arguments) = match (self.call.number, self.kind) {
            (__NR_read, _) if is_socket => (__NR_recvfrom, [fd, second, third, no_wait, 0, 0]),
            (__NR_readv, _) if is_socket => {
                message.msg_iov = second as *mut _;
                message.msg_iovlen = third as usize;
                (__NR_recvmsg, [fd, &raw const message as u64, no_wait, 0, 0, 0])
            }
            (__NR_recvfrom, _) => {
                let flags = fourth & !u64::from(MSG_WAITALL) | no_wait;
                (__NR_recvfrom, [fd, at, length, flags, fifth, sixth])
            }
            (__NR_recvmsg, _) => (__NR_recvmsg, [fd, second, third | no_wait, 0, 0, 0]),
            (_, Kind::Output) if is_socket => {
                let silent = if has_moved { u64::from(MSG_NOSIGNAL) } else { 0 };
                let flags = flags(&self.call) | no_wait | silent;
                (__NR_sendto, [fd, at, length, flags, 0, 0])
            }
            (_, Kind::Output) => (__NR_write, [fd, at, length.min(at_once(file)), 0, 0, 0]),
            (number, _) => (number, self.call.arguments),
        };
        // SAFETY: the program has made this very call, or one that does the same.
        unsafe { call::make(number, arguments) }
    }
}

impl Kind {
    /// What `call` moves, if it can be finished.
    fn of(call: &CallMade) -> Option<Self> {
        call.first_is_known.then_some(())?;
        let fd = descriptor(call);
        let flags = flags(call);
        match call.number {
            __NR_read | __NR_readv | __NR_accept | __NR_accept4 => Some(Self::Input),
            __NR_recvfrom if flags == MSG_WAITALL.into() && is_stream(fd) && blocks(fd) => {
                Some(Self::AllInput)
            }
            __NR_recvfrom | __NR_recvmsg => {
                (flags & u64::from(MSG_WAITALL) == 0).then_some(Self::Input)
            }
            __NR_write | __NR_writev | __NR_sendto | __NR_sendmsg => Self::of_output(call),
            // The sockets of AF_UNIX do not say when it is worth another try.
            __NR_connect => (option(fd, SO_DOMAIN)? != AF_UNIX).then_some(Self::Connection),
            _ => None,
        }
    }

    fn of_output(call: &CallMade) -> Option<Self> {
        const HARMLESS: u64 = (MSG_NOSIGNAL | MSG_MORE) as u64;
        let fd = descriptor(call);
        blocks(fd).then_some(())?;
        let takes_all = match call::fstat(fd).ok()?.st_mode & S_IFMT {
            S_IFIFO => true,
            S_IFSOCK => is_stream(fd) && flags(call) & !HARMLESS == 0 && !has_control_data(call)?,
            _ => call::is_terminal(fd),
        };
        takes_all.then_some(Self::Output)
    }

    fn is_input(self) -> bool {
        matches!(self, Self::Input | Self::AllInput)
    }

    /// Whether the call is to move all that it is given.
    fn is_for_all(self) -> bool {
        matches!(self, Self::AllInput | Self::Output)
    }

    /// The time-out that the socket has for it, in nanoseconds; `None` if it is no socket.
    fn time_out(self, fd: Fd) -> Option<u64> {
        let which = if self.is_input() { SO_RCVTIMEO } else { SO_SNDTIMEO };
        let mut time = [0_u64; 2];
        call::socket_option(fd, SOL_SOCKET, which, bytemuck::bytes_of_mut(&mut time)).ok()?;
        let [seconds, microseconds] = time;
        let time = seconds.saturating_mul(BILLION).saturating_add(microseconds * 1000);
        Some(if time == 0 { NEVER } else { time })
    }
}

fn descriptor(call: &CallMade) -> Fd {
    Fd(call.arguments[0] as i32)
}

/// The flags (`MSG_...`) of a call that has some.
fn flags(call: &CallMade) -> u64 {
    match call.number {
        __NR_recvfrom | __NR_sendto => call.arguments[3],
        __NR_recvmsg | __NR_sendmsg => call.arguments[2],
        _ => 0,
    }
}

/// An option that is a number.
fn option(socket: Fd, which: u32) -> Option<u32> {
    let mut value = 0_u32;
    call::socket_option(socket, SOL_SOCKET, which, bytemuck::bytes_of_mut(&mut value)).ok()?;
    Some(value)
}

fn is_stream(fd: Fd) -> bool {
    option(fd, SO_TYPE) == Some(SOCK_STREAM)
}

fn blocks(fd: Fd) -> bool {
    call::fcntl(fd, F_GETFL, 0).is_ok_and(|flags| flags & O_NONBLOCK == 0)
}

/// How many bytes a file that is no socket takes at once, if poll(2) says that it can be written to. A
/// terminal may make eight characters of each.
fn at_once(fd: Fd) -> u64 {
    if call::is_terminal(fd) { 32 } else { PIPE_BUF.into() }
}

/// The words of a `struct msghdr` at `address`: name, its length, parts, how many, control data, its
/// length, flags.
fn message(address: u64) -> Option<[u64; 7]> {
    let mut words = [0; 7];
    call::peek(address, bytemuck::bytes_of_mut(&mut words)).then_some(words)
}

/// Whether a call sends more than data; `None` if that cannot be read.
fn has_control_data(call: &CallMade) -> Option<bool> {
    match call.number {
        __NR_sendmsg => message(call.arguments[1]).map(|message| message[5] != 0),
        _ => Some(false),
    }
}

/// Data that lies together.
#[derive(Clone, Copy, Default)]
struct Part {
    at: u64,
    length: u64,
}

/// What a call has still to move.
struct Rest {
    part: Part,
    /// Where further parts are named (`struct iovec`),
    parts: u64,
    /// and how many.
    count: u64,
}

impl Rest {
    /// What comes behind so many bytes of it.
    fn behind(call: &CallMade, moved: usize) -> Option<Self> {
        let [_, second, third, ..] = call.arguments;
        let of_parts = |parts, count| Self { part: Part::default(), parts, count };
        let mut rest = match call.number {
            __NR_writev => of_parts(second, third),
            __NR_sendmsg => message(second).map(|message| of_parts(message[2], message[3]))?,
            _ => Self { part: Part { at: second, length: third }, parts: 0, count: 0 },
        };
        rest.skip(moved);
        Some(rest)
    }

    /// The next part of it.
    fn next(&mut self) -> Option<Part> {
        while self.part.length == 0 {
            self.count = self.count.checked_sub(1)?;
            let mut words = [0; 2];
            call::peek(self.parts, bytemuck::bytes_of_mut(&mut words)).then_some(())?;
            let [at, length] = words;
            self.part = Part { at, length };
            self.parts += size_of::<iovec>() as u64;
        }
        Some(self.part)
    }

    fn skip(&mut self, bytes: usize) {
        let mut left = bytes as u64;
        while left > 0 && self.next().is_some() {
            let count = left.min(self.part.length);
            self.part.at += count;
            self.part.length -= count;
            left -= count;
        }
    }
}
