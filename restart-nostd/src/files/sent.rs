//! What had been sent to sockets and not been received: it is sent again.

use ckpt_image::files::{Socket, SocketMessage, phase};
use ckpt_image::record::all_with_tails;
use ckpt_sys::Errno;
use ckpt_sys::call::{self, Control, Fd, File};
use linux_raw_sys::general::O_CLOEXEC;
use linux_raw_sys::net::{
    AF_UNIX, SCM_CREDENTIALS, SCM_RIGHTS, SO_SNDBUF, SO_SNDBUFFORCE, SOCK_STREAM, SOL_SOCKET,
};

use super::Restored;
use super::socket::{is_lost, is_unix, local, other_end, partner};
use crate::report::OrFail;

/// The most descriptors that go with a message (unix(7)).
pub const MOST_PASSED: usize = 253;

/// Sends again what was in the queue of a socket.
pub fn restore(restored: &Restored<'_>, socket: &Socket) {
    let Restored { record, state, .. } = *restored;
    let messages = match socket.parts(&state[size_of::<Socket>()..]) {
        Ok(parts) if !parts.messages.is_empty() => parts.messages,
        _ => return,
    };
    // Of a connection that is lost what had been received; of one that is not, nothing.
    let count = match socket.phase {
        phase::ESTABLISHED if is_lost(record) => 1,
        phase::ESTABLISHED => 0,
        _ => usize::MAX,
    };
    let step = format_args!("sending again what was on its way to descriptor {}", record.fd);
    let named;
    let from = if !socket.was_connected() {
        // Anybody may send to a socket with a name.
        let kind = u32::from(socket.kind) | O_CLOEXEC;
        named = call::socket(AF_UNIX, kind, 0).map(File::from_fd).or_fail(step);
        call::connect(named.fd(), &local(socket)).or_fail(step);
        named.fd()
    } else if let Some(partner) = partner(restored, socket) {
        Fd(partner.record.fd)
    } else {
        other_end(record)
    };
    let is_stream = u32::from(socket.kind) == SOCK_STREAM;
    let pid = restored.head.process().0.pid;
    for (message, tail) in all_with_tails::<SocketMessage>(messages).take(count) {
        let (passed, bytes) = message.passed_and_bytes(tail);
        let mut credentials = [message.pid, message.user, message.group];
        if message.pid == pid {
            credentials[0] = call::getpid();
        }
        let message = Sent { from, is_unix: is_unix(socket), is_stream, credentials };
        let sent = message.send(bytes, passed);
        // A connection that is lost may be lost some bytes earlier.
        if ![phase::CLOSED, phase::ESTABLISHED].contains(&socket.phase) {
            sent.or_fail(step);
        }
    }
}

/// How something is sent again.
struct Sent {
    from: Fd,
    is_unix: bool,
    is_stream: bool,
    /// Process, user and group; process 0 for none.
    credentials: [u32; 3],
}

impl Sent {
    fn send(&self, bytes: &[u8], passed: impl Iterator<Item = i32> + Clone) -> Result<(), Errno> {
        let mut done = self.send_part(bytes, passed)?;
        while self.is_stream && done < bytes.len() {
            done += self.send_part(&bytes[done..], core::iter::empty())?;
        }
        Ok(())
    }

    fn send_part(
        &self,
        bytes: &[u8],
        passed: impl Iterator<Item = i32> + Clone,
    ) -> Result<usize, Errno> {
        let send = |credentials: [u32; 3]| self.send_as(credentials, bytes, passed.clone());
        match send(self.credentials) {
            // Somebody else's.
            Err(Errno::EPERM | Errno::ESRCH) => {
                let (user, group) = call::user_and_group();
                send([call::getpid(), user, group])
            }
            Err(Errno::EAGAIN | Errno::EMSGSIZE) => {
                let size = self.enlarge_buffer(bytes.len())?;
                let sent = send(self.credentials);
                self.set_buffer(size)?;
                sent
            }
            result => result,
        }
    }

    fn send_as(
        &self,
        credentials: [u32; 3],
        bytes: &[u8],
        passed: impl Iterator<Item = i32>,
    ) -> Result<usize, Errno> {
        let mut control: Control = [0; _];
        let mut length = 0;
        if self.is_unix && credentials[0] != 0 {
            let credentials = bytemuck::cast_slice(&credentials);
            length += call::control_message(&mut control, SCM_CREDENTIALS, credentials);
        }
        let mut descriptors = [0; MOST_PASSED];
        let mut count = 0;
        for (into, fd) in descriptors.iter_mut().zip(passed) {
            *into = fd;
            count += 1;
        }
        let descriptors = bytemuck::cast_slice(&descriptors[..count]);
        length += call::control_message(&mut control[length..], SCM_RIGHTS, descriptors);
        call::send_message(self.from, bytes, &control[..length])
    }

    /// Makes room for `more` bytes, since they had room before; returns the size that the buffer had.
    fn enlarge_buffer(&self, more: usize) -> Result<u32, Errno> {
        /// What the kernel needs for each piece of it.
        const OVERHEAD: u32 = 64 << 10;
        // The kernel doubles what is set (socket(7)).
        let size = call::socket_number(self.from, SOL_SOCKET, SO_SNDBUF)? / 2;
        self.set_buffer(size.saturating_add(more as u32).saturating_add(OVERHEAD))?;
        Ok(size)
    }

    fn set_buffer(&self, size: u32) -> Result<(), Errno> {
        call::set_socket_number(self.from, SOL_SOCKET, SO_SNDBUFFORCE, size)
            .or_else(|_| call::set_socket_number(self.from, SOL_SOCKET, SO_SNDBUF, size))
    }
}
