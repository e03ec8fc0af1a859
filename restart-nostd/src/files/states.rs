//! Whether what an image has of a descriptor is what one of its kind can have.

use ckpt_image::files::{
    Descriptor, EventCounter, FileTimer, Lock, Message, Pipe, PseudoTerminal, Queue, QueueMessage,
    Socket, SocketMessage, SocketOption, SocketParts, Terminal, Watch, WatchQueue, Watched,
    descriptor, lock, phase,
};
use ckpt_image::record::{all, all_with_tails, are_whole, first};
use ckpt_sys::call::Address;
use linux_raw_sys::general::O_PATH;
use linux_raw_sys::net::{
    AF_INET, AF_INET6, AF_NETLINK, AF_UNIX, IPPROTO_TCP, SOCK_DGRAM, SOCK_STREAM,
};

use super::sent;

/// Whether the state of a descriptor with an open file of its own is well-formed.
pub fn is_well(record: &Descriptor, state: &[u8]) -> bool {
    is_state(record, state) == Some(true)
}

/// The same; `None` if something is missing.
fn is_state(record: &Descriptor, state: &[u8]) -> Option<bool> {
    Some(match record.kind {
        descriptor::PIPE | descriptor::FIFO | descriptor::TERMINAL | descriptor::MESSAGE_QUEUE
            if state.is_empty() =>
        {
            true
        }
        descriptor::PIPE | descriptor::FIFO => are_whole::<Message>(behind::<Pipe>(state)?),
        descriptor::EVENT_COUNTER => behind::<EventCounter>(state).is_some(),
        descriptor::TIMER => behind::<FileTimer>(state).is_some(),
        descriptor::SIGNALS => behind::<u64>(state).is_some(),
        descriptor::EPOLL => state.len().is_multiple_of(size_of::<Watched>()),
        descriptor::SOCKET => is_socket(state)?,
        descriptor::INOTIFY => {
            let watches = behind::<WatchQueue>(state)?;
            are_whole::<Watch>(watches)
                && all_with_tails::<Watch>(watches).all(|(watch, _)| watch.number > 0)
        }
        descriptor::TERMINAL | descriptor::OWN_TERMINAL => behind::<Terminal>(state).is_some(),
        descriptor::PSEUDO_TERMINAL => {
            let messages = behind::<PseudoTerminal>(behind::<Terminal>(state)?)?;
            let count = all_with_tails::<Message>(messages).count();
            are_whole::<Message>(messages) && [0, 2].contains(&count)
        }
        descriptor::MESSAGE_QUEUE => are_whole::<QueueMessage>(behind::<Queue>(state)?),
        // By its path it would be opened as whatever is there.
        descriptor::PLACE => record.flags & O_PATH != 0,
        kind if descriptor::WITH_LOCKS.contains(&kind) => {
            state.len().is_multiple_of(size_of::<Lock>())
                && all::<Lock>(state).all(|lock| lock::KNOWN.contains(&lock.kind))
        }
        _ => true,
    })
}

/// What stands behind a record.
fn behind<T: bytemuck::Pod>(bytes: &[u8]) -> Option<&[u8]> {
    first::<T>(bytes).ok().map(|(_, rest)| rest)
}

fn is_socket(state: &[u8]) -> Option<bool> {
    let (socket, rest) = first::<Socket>(state).ok()?;
    let SocketParts { options, connection, messages } = socket.parts(rest).ok()?;
    Some(
        phase::KNOWN.contains(&socket.phase)
            && usize::from(socket.local_length) <= Address::MOST
            && usize::from(socket.remote_length) <= Address::MOST
            && can_be(&socket, !messages.is_empty())
            && (connection.is_none() || is_tcp(&socket) && are_queues(messages))
            && are_whole::<SocketOption>(options)
            && are_whole::<SocketMessage>(messages)
            && all_with_tails::<SocketMessage>(messages)
                .all(|(message, _)| message.passed as usize <= sent::MOST_PASSED),
    )
}

fn is_tcp(socket: &Socket) -> bool {
    [AF_INET, AF_INET6].contains(&socket.family.into())
        && (socket.kind.into(), socket.protocol) == (SOCK_STREAM, IPPROTO_TCP as u32)
}

/// Whether messages are what a connection has in its two queues.
fn are_queues(messages: &[u8]) -> bool {
    let all = all_with_tails::<SocketMessage>(messages);
    all.clone().count() == 2 && all.clone().all(|(message, _)| message.passed == 0)
}

/// Whether there is such a socket, and it can have been done with it what it says, and have something in
/// its queue.
fn can_be(socket: &Socket, has_messages: bool) -> bool {
    let (family, kind) = (u32::from(socket.family), u32::from(socket.kind));
    let (is_unix, is_internet) = (family == AF_UNIX, [AF_INET, AF_INET6].contains(&family));
    let can_be_connected = is_unix || is_internet && kind == SOCK_STREAM;
    (is_unix || is_internet || family == AF_NETLINK)
        && (can_be_connected || !socket.was_connected())
        && (socket.phase != phase::DIRECTED || kind == SOCK_DGRAM)
        && (!has_messages || socket.was_connected() || is_unix && kind == SOCK_DGRAM)
}
