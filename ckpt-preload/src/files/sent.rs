//! What has been sent to a socket and not been received: looked at (`MSG_PEEK`) piece by piece, at a
//! position (`SO_PEEK_OFF`), and left where it is.
//!
//! Looking at passed descriptors (`SCM_RIGHTS`) opens them once more, under the lowest free numbers. One
//! that is but on its way is given a number beyond all others until the end of the capture, and is
//! captured like any other: see [`Passed`].

use core::ops::Range;

use bytemuck::{Zeroable, bytes_of, cast_slice};
use ckpt_image::NoteWriter;
use ckpt_image::files::{Socket, SocketMessage, phase};
use ckpt_sys::call::{self, Control, Fd, Peeked};
use ckpt_sys::lines::number;
use ckpt_sys::{Errno, proc};
use linux_raw_sys::general::{F_DUPFD_CLOEXEC, POLLERR, S_IFMT, S_IFSOCK};
use linux_raw_sys::net::{
    AF_UNIX, MSG_TRUNC, SCM_CREDENTIALS, SCM_RIGHTS, SO_PASSCRED, SO_PASSPIDFD, SO_PASSSEC,
    SO_PEEK_OFF, SO_TYPE, SOCK_STREAM, SOL_SOCKET, ucred,
};

use super::{Found, Obstacle, lowest, read_info};
use crate::config::config;

/// How an option of a Unix socket is while it is looked at, and what it was.
struct Setting {
    fd: Fd,
    name: u32,
    was: u32,
}

impl Setting {
    /// Sets it; where the kernel does not have it there is nothing to be done.
    fn begin(fd: Fd, name: u32, value: u32) -> Option<Self> {
        let was = call::socket_number(fd, SOL_SOCKET, name).ok()?;
        call::set_socket_number(fd, SOL_SOCKET, name, value).ok()?;
        Some(Self { fd, name, was })
    }
}

impl Drop for Setting {
    fn drop(&mut self) {
        let _ = call::set_socket_number(self.fd, SOL_SOCKET, self.name, self.was);
    }
}

/// A queue that is looked at: with each message come its sender's credentials, and nothing that would
/// open a descriptor but descriptors.
struct Queue {
    fd: Fd,
    is_stream: bool,
    _settings: [Option<Setting>; 4],
}

impl Queue {
    fn of_unix(fd: Fd) -> Result<Self, Errno> {
        let settings = [(SO_PEEK_OFF, 0), (SO_PASSCRED, 1), (SO_PASSPIDFD, 0), (SO_PASSSEC, 0)];
        Ok(Self {
            fd,
            is_stream: call::socket_number(fd, SOL_SOCKET, SO_TYPE)? == SOCK_STREAM,
            _settings: settings.map(|(name, value)| Setting::begin(fd, name, value)),
        })
    }

    /// Looks at what there is at `position`.
    fn peek(
        &self,
        position: usize,
        bytes: &mut [u8],
        control: &mut [u64],
    ) -> Result<Peeked, Errno> {
        call::set_peek_position(self.fd, position as u32)?;
        let flags = if self.is_stream { 0 } else { MSG_TRUNC };
        call::peek_message(self.fd, bytes, control, flags)
    }

    /// The message at `position`, if there is one; `room` is overwritten.
    fn next(&self, position: usize, room: &mut [u8]) -> Result<Option<Message>, Errno> {
        if self.is_stream {
            return self.next_part(position, room);
        }
        // A read tells an error before it tells of messages, and it is gone then.
        if call::poll_now(self.fd, 0)? & POLLERR != 0 {
            return Ok(None);
        }
        let mut message = Message::new();
        match self.peek(position, &mut [], &mut message.control) {
            Err(Errno::EAGAIN) => return Ok(None),
            // The end of the file, since a message has at least credentials.
            Ok(Peeked { control: 0, .. }) => return Ok(None),
            peeked => message.take_in_whole(peeked?)?,
        }
        Ok(Some(message))
    }

    /// Of a stream, as much as there is before the next descriptors, or with them: what is read stops
    /// behind the bytes that were sent with them.
    fn next_part(&self, position: usize, room: &mut [u8]) -> Result<Option<Message>, Errno> {
        if position >= call::readable_bytes(self.fd)? {
            return Ok(None);
        }
        let mut message = Message::new();
        /// Room for credentials, and for nothing else: so it is told that there are descriptors.
        const CREDENTIALS: usize = 4;
        let only_credentials = &mut [0; CREDENTIALS];
        let part = self.peek(position, room, only_credentials)?;
        let mut length = part.length;
        if part.control_cut {
            // All but the last byte: then the piece with the descriptors does not fit.
            call::set_peek_position(self.fd, position as u32)?;
            let before = &mut room[..length.saturating_sub(1)];
            let (nowhere, _) = config().scratch.guard();
            length = match call::peek_whole_pieces(self.fd, before, nowhere) {
                Err(Errno::EFAULT) | Ok(0) => {
                    let part = self.peek(position, &mut room[..length], &mut message.control)?;
                    message.take_in_whole(part)?;
                    return Ok(Some(message));
                }
                before => before?,
            };
        }
        message.control[..CREDENTIALS].copy_from_slice(only_credentials);
        message.take_in(Peeked { length, ..part });
        Ok(Some(message))
    }
}

/// A message in a queue.
struct Message {
    length: usize,
    control: Control,
    control_length: usize,
}

impl Message {
    fn new() -> Self {
        Self { length: 0, control: [0; _], control_length: 0 }
    }

    fn take_in(&mut self, peeked: Peeked) {
        (self.length, self.control_length) = (peeked.length, peeked.control);
    }

    /// The same of one that was looked at with room for all that came with it. For some of its descriptors
    /// there may have been no numbers.
    fn take_in_whole(&mut self, peeked: Peeked) -> Result<(), Errno> {
        self.take_in(peeked);
        if peeked.control_cut {
            self.opened().iter().for_each(|&fd| call::close(Fd(fd)));
            return Err(Errno::EMFILE);
        }
        Ok(())
    }

    /// What came with it of `kind`.
    fn control_message(&self, kind: u32) -> &[u8] {
        call::control_messages(&self.control, self.control_length)
            .find(|&(level, found, _)| (level, found) == (SOL_SOCKET, kind))
            .map_or(&[], |(.., contents)| contents)
    }

    /// The descriptors that have been opened by looking at it.
    fn opened(&self) -> &[i32] {
        match self.control_message(SCM_RIGHTS) {
            [] => &[],
            numbers => cast_slice(numbers),
        }
    }

    /// What is noted of it but the descriptors and the bytes.
    fn record(&self) -> SocketMessage {
        let credentials = self.control_message(SCM_CREDENTIALS);
        let [pid, user, group] = match credentials.len() == size_of::<ucred>() {
            true => bytemuck::pod_read_unaligned(credentials),
            false => [0; 3],
        };
        let passed = self.opened().len() as u32;
        SocketMessage { length: self.length as u64, pid, user, group, passed }
    }
}

/// Notes what is in the queue of a socket.
pub fn capture(
    found: &Found<'_>,
    socket: &Socket,
    notes: &mut NoteWriter<'_>,
) -> Result<(), Obstacle> {
    if u32::from(socket.family) != AF_UNIX {
        return if socket.was_connected() { capture_bytes(found.fd, notes) } else { Ok(()) };
    }
    let is_stream = u32::from(socket.kind) == SOCK_STREAM;
    if socket.phase == phase::LISTENING || (is_stream && !socket.was_connected()) {
        return Ok(());
    }
    let queue = Queue::of_unix(found.fd)?;
    let mut position = 0;
    while let Some(message) = queue.next(position, notes.room())? {
        note(&queue, position, &message, notes)?;
        position += message.length;
    }
    Ok(())
}

/// Notes one message.
fn note(
    queue: &Queue,
    position: usize,
    message: &Message,
    notes: &mut NoteWriter<'_>,
) -> Result<(), Obstacle> {
    let opened = message.opened();
    let noted = note_head(message, opened, notes);
    opened.iter().for_each(|&fd| call::close(Fd(fd)));
    noted?;
    notes.align()?;
    if message.length > 0 {
        let room = notes.room().get_mut(..message.length).ok_or(ckpt_image::Full)?;
        let control = &mut [];
        queue.peek(position, room, control)?;
        notes.advance(message.length)?;
    }
    Ok(notes.align()?)
}

/// Notes what stands before the bytes of a message: the numbers of the descriptors that it has `opened`.
fn note_head(
    message: &Message,
    opened: &[i32],
    notes: &mut NoteWriter<'_>,
) -> Result<(), Obstacle> {
    notes.push(bytes_of(&message.record()))?;
    opened.iter().try_for_each(|&fd| {
        let known = same_as(Fd(fd), opened)?.ok_or_else(|| {
            Obstacle::new(format_args!("a socket with a descriptor in it that cannot be made out"))
        })?;
        Ok(notes.push(bytes_of(&known.0))?)
    })
}

/// The lowest descriptor of the open file of `fd` that is not one of those that have just been opened.
fn same_as(fd: Fd, opened: &[i32]) -> Result<Option<Fd>, Errno> {
    let tid = call::gettid();
    let status = call::fstat(fd)?;
    lowest(|other| {
        Ok(!opened.contains(&other.0)
            && call::fstat(other)
                .is_ok_and(|found| (found.st_dev, found.st_ino) == (status.st_dev, status.st_ino))
            && call::same_open_file(tid, fd, other) == Ok(true))
    })
}

/// Notes the bytes that an end of a TCP connection has received, if there are any.
fn capture_bytes(fd: Fd, notes: &mut NoteWriter<'_>) -> Result<(), Obstacle> {
    match call::readable_bytes(fd).unwrap_or(0) {
        0 => Ok(()),
        length => note_bytes(fd, length, notes),
    }
}

/// Notes the first bytes that a TCP socket has received, of which there are at least so many.
pub fn note_bytes(fd: Fd, length: usize, notes: &mut NoteWriter<'_>) -> Result<(), Obstacle> {
    // Linux 6.9 knows a position here, too, but it may be none.
    let _setting = match call::socket_number(fd, SOL_SOCKET, SO_PEEK_OFF) {
        Ok(position) if position as i32 >= 0 => Setting::begin(fd, SO_PEEK_OFF, 0),
        _ => None,
    };
    let record = SocketMessage { length: length as u64, ..SocketMessage::zeroed() };
    notes.push(bytes_of(&record))?;
    let room = notes.room().get_mut(..length).ok_or(ckpt_image::Full)?;
    if length > 0 && call::peek_message(fd, room, &mut [], 0)?.length != length {
        return Err(Errno::EIO.into());
    }
    notes.advance(length)?;
    Ok(notes.align()?)
}

/// The descriptors that are but on their way, in a socket of the program's, and have a number for the
/// time of the capture. They are closed when this is dropped.
pub struct Passed {
    numbers: Range<i32>,
}

impl Passed {
    /// Gives each of them a number beyond all others; what is in the queues of those that are sockets
    /// themselves, too.
    pub fn open() -> Result<Self, Errno> {
        let mut last = 2;
        proc::for_each_descriptor(|fd| {
            last = last.max(fd.0);
            Ok::<(), Errno>(())
        })?;
        let mut passed = Self { numbers: last + 1..last + 1 };
        let mut seen = 0..last + 1;
        while !seen.is_empty() {
            proc::for_each_descriptor(|fd| {
                if seen.contains(&fd.0) && has_descriptors(fd) {
                    passed.open_from(fd)
                } else {
                    Ok(())
                }
            })?;
            seen = seen.end..passed.numbers.end;
        }
        Ok(passed)
    }

    /// Whether `fd` is one of them.
    pub fn contains(&self, fd: Fd) -> bool {
        self.numbers.contains(&fd.0)
    }

    /// Gives a number to what is on its way in a socket.
    fn open_from(&mut self, socket: Fd) -> Result<(), Errno> {
        let queue = Queue::of_unix(socket)?;
        let mut room = [0; 4096];
        let mut position = 0;
        while let Some(message) = queue.next(position, &mut room)? {
            let opened = message.opened();
            for (index, &fd) in opened.iter().enumerate() {
                let taken = self.take(Fd(fd), &opened[index..]);
                if taken.is_err() {
                    opened[index..].iter().for_each(|&fd| call::close(Fd(fd)));
                    return taken;
                }
                call::close(Fd(fd));
            }
            position += message.length;
        }
        Ok(())
    }

    /// Gives a number to an open file that has none but `fd`.
    fn take(&mut self, fd: Fd, opened: &[i32]) -> Result<(), Errno> {
        if same_as(fd, opened)?.is_none() {
            // Of a number beyond the limit the kernel says that it is wrong.
            let beyond = |why| if why == Errno::EINVAL { Errno::EMFILE } else { why };
            let number = call::fcntl(fd, F_DUPFD_CLOEXEC, self.numbers.end as u32);
            self.numbers.end = number.map_err(beyond)? as i32 + 1;
        }
        Ok(())
    }
}

impl Drop for Passed {
    fn drop(&mut self) {
        self.numbers.clone().for_each(|fd| call::close(Fd(fd)));
    }
}

/// Whether there are descriptors in the queue of a socket: `fdinfo` tells (Linux 5.8).
fn has_descriptors(fd: Fd) -> bool {
    if !call::fstat(fd).is_ok_and(|status| status.st_mode & S_IFMT == S_IFSOCK) {
        return false;
    }
    let mut text = [0; 512];
    read_info(fd, &mut text)
        .ok()
        .and_then(|info| number(proc::value_of(info, b"scm_fds")?, 10))
        .is_some_and(|count| count > 0)
}
