//! The descriptors of an image, each with its kind and state.

use std::io::Write;

use anyhow::Result;
use ckpt_image::Head;
use ckpt_image::files::{
    Descriptor, EventCounter, FileTimer, Lock, Message, Pipe, Queue, QueueMessage, Socket,
    Terminal, Watch, WatchQueue, Watched, descriptor, lock,
};
use ckpt_image::record::{self, all_with_tails, first, kind};
use ckpt_sys::Escaped;

use super::sockets;
use super::state::{clock, signals_in};
use super::{heading, note};
use crate::text::{Bytes, Nanoseconds, joined};

/// Prints them.
pub fn print(out: &mut dyn Write, head: &Head<'_>) -> Result<()> {
    heading(out, "DESCRIPTORS")?;
    writeln!(out, "{:>4}  {:<9}  {:<16} {:>12}  path", "fd", "kind", "mode", "offset")?;
    for (descriptor, tail) in all_with_tails::<Descriptor>(note(head, kind::DESCRIPTORS)) {
        let (path, state) = descriptor.path_and_state(tail);
        let mut more = match descriptor.shares {
            other if other == descriptor.fd => described(&descriptor, state),
            other => format!("as {other}"),
        };
        if descriptor.passed != 0 {
            more.insert_str(0, if more.is_empty() { "on its way" } else { "on its way, " });
        }
        writeln!(
            out,
            "{:>4}  {:<9}  {:<16} {:>12}  {}{}",
            descriptor.fd,
            kind_of(descriptor.kind),
            mode(descriptor.flags),
            descriptor.offset,
            Escaped(path),
            if more.is_empty() { more } else { format!(" ({more})") },
        )?;
    }
    Ok(())
}

fn kind_of(kind: u32) -> &'static str {
    match kind {
        descriptor::REGULAR => "file",
        descriptor::DIRECTORY => "directory",
        descriptor::DEVICE => "device",
        descriptor::INHERITED => "inherited",
        descriptor::FAILING => "failing",
        descriptor::PIPE => "pipe",
        descriptor::FIFO => "FIFO",
        descriptor::EVENT_COUNTER => "eventfd",
        descriptor::TIMER => "timerfd",
        descriptor::SIGNALS => "signalfd",
        descriptor::EPOLL => "epoll",
        descriptor::PROCESS => "pidfd",
        descriptor::DELETED => "deleted",
        descriptor::SOCKET => "socket",
        descriptor::MEMFD => "memfd",
        descriptor::SHARED_MEMORY => "shared",
        descriptor::MESSAGE_QUEUE => "queue",
        descriptor::INOTIFY => "inotify",
        descriptor::PLACE => "place",
        descriptor::KERNEL => "kernel",
        descriptor::TERMINAL | descriptor::OWN_TERMINAL => "terminal",
        descriptor::PSEUDO_TERMINAL => "pty",
        _ => "?",
    }
}

/// The state of a descriptor in words, if it has any.
fn described(record: &Descriptor, state: &[u8]) -> String {
    if state.is_empty() && !record.has_contents() {
        return String::new();
    }
    let words = match record.kind {
        descriptor::PIPE | descriptor::FIFO => first::<Pipe>(state).map(|(pipe, messages)| {
            let lengths = all_with_tails::<Message>(messages).map(|(message, _)| message.length);
            let packets = if pipe.packets == 0 { "" } else { " in packets" };
            format!("{}{packets} of {}", Bytes(lengths.sum()), Bytes(pipe.capacity.into()))
        }),
        descriptor::EVENT_COUNTER => first::<EventCounter>(state).map(|(counter, _)| {
            let kind = if counter.semaphore == 0 { "" } else { ", a semaphore" };
            format!("count {}{kind}", counter.count)
        }),
        descriptor::TIMER => first::<FileTimer>(state).map(|(timer, _)| {
            let every = match timer.interval {
                0 => String::new(),
                interval => format!(", every {}", Nanoseconds(interval)),
            };
            let set = if timer.next == 0 { "not set" } else { "set" };
            format!("{set}{every}, {} ticks, {}", timer.ticks, clock(timer.clock))
        }),
        descriptor::SIGNALS => first::<u64>(state).map(|(mask, _)| joined(signals_in(mask))),
        descriptor::EPOLL => Ok(joined(record::all::<Watched>(state).map(|watched| {
            format!("{} for {:#x} with {:#x}", watched.fd, watched.events, watched.data)
        }))),
        descriptor::SOCKET => {
            first::<Socket>(state).map(|(socket, rest)| sockets::described(&socket, rest))
        }
        descriptor::TERMINAL | descriptor::OWN_TERMINAL | descriptor::PSEUDO_TERMINAL => {
            first::<Terminal>(state).map(|(terminal, _)| terminal_in_words(&terminal))
        }
        descriptor::MESSAGE_QUEUE => first::<Queue>(state).map(|(queue, messages)| {
            let count = all_with_tails::<QueueMessage>(messages).count();
            format!("{count} messages of at most {}", queue.most)
        }),
        descriptor::INOTIFY => first::<WatchQueue>(state).map(|(queue, watches)| {
            let watches = all_with_tails::<Watch>(watches).map(|(watch, path)| {
                format!("{} {} for {:#x}", watch.number, Escaped(path), watch.mask)
            });
            format!("{} unread; {}", Bytes(queue.unread), joined(watches))
        }),
        kind if descriptor::WITH_LOCKS.contains(&kind) => {
            let size = record.has_contents().then(|| Bytes(record.size).to_string());
            Ok(joined(
                size.into_iter().chain(record::all::<Lock>(state).map(|lock| lock_of(&lock))),
            ))
        }
        _ => Ok(String::new()),
    };
    words.unwrap_or_else(|why| why.to_string())
}

/// A lock in words.
fn lock_of(lock: &Lock) -> String {
    let kind = match lock.kind {
        lock::POSIX => "POSIX lock",
        lock::OPEN_FILE => "lock of the open file",
        lock::WHOLE => "lock",
        lock::LEASE => "lease",
        _ => "?",
    };
    let sharing = if lock.exclusive == 0 { "shared" } else { "exclusive" };
    let range = match (lock.start, lock.length) {
        (0, 0) => String::new(),
        (start, 0) => format!(" from {start}"),
        (start, length) => format!(" {start}-{}", start.saturating_add(length) - 1),
    };
    format!("{sharing} {kind}{range}")
}

fn terminal_in_words(terminal: &Terminal) -> String {
    let local = |flag| terminal.local & flag != 0;
    let keys = if local(libc::ICANON) { "lines" } else { "single keys" };
    let echo = if local(libc::ECHO) { ", echo" } else { "" };
    format!("{keys}{echo}, {} by {}", terminal.columns, terminal.rows)
}

/// The flags of open(2) that are the same everywhere, in words.
fn mode(flags: u32) -> String {
    let mut words = vec![match flags & 3 {
        0 => "r",
        1 => "w",
        _ => "rw",
    }];
    for (bit, word) in [
        (libc::O_APPEND, "append"),
        (libc::O_NONBLOCK, "nonblock"),
        (libc::O_DSYNC, "sync"),
        (libc::O_CLOEXEC, "cloexec"),
    ] {
        if flags & bit as u32 != 0 {
            words.push(word);
        }
    }
    words.join(",")
}
