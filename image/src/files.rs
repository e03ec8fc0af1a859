//! What the image holds of descriptors.
//!
//! ```text
//!   Descriptor | path, padded to 8 bytes | state, padded to 8 bytes | Descriptor | ...
//! ```
//!
//! The state is that of a kind of descriptor: a structure of this file, or several.

use bytemuck::{Pod, Zeroable};
use static_assertions::const_assert_eq;

use crate::Invalid;
use crate::record::{Mapping, WithTail, all, first};

/// What a descriptor is.
pub mod descriptor {
    /// A regular file, opened again by its path.
    pub const REGULAR: u32 = 1;
    /// A directory, likewise.
    pub const DIRECTORY: u32 = 2;
    /// A plain device such as `/dev/null`, likewise.
    pub const DEVICE: u32 = 3;
    /// A standard stream that was a terminal, a pipe or the like: that of the restart.
    pub const INHERITED: u32 = 4;
    /// What cannot be restored: a descriptor on which everything fails.
    pub const FAILING: u32 = 5;
    /// An end of a pipe: [`Pipe`](super::Pipe) and its [`Message`](super::Message)s.
    pub const PIPE: u32 = 6;
    /// A FIFO, opened again by its path, likewise.
    pub const FIFO: u32 = 7;
    /// An eventfd: [`EventCounter`](super::EventCounter).
    pub const EVENT_COUNTER: u32 = 8;
    /// A timerfd: [`FileTimer`](super::FileTimer).
    pub const TIMER: u32 = 9;
    /// A signalfd: its signal mask, 64 bits.
    pub const SIGNALS: u32 = 10;
    /// An epoll set: [`Watched`](super::Watched) descriptors.
    pub const EPOLL: u32 = 11;
    /// A pidfd of the process itself.
    pub const PROCESS: u32 = 12;
    /// A regular file that has been deleted: [`FileContents`](super::FileContents) has what is in it.
    pub const DELETED: u32 = 13;
    /// A socket: [`Socket`](super::Socket), its [`SocketOption`](super::SocketOption)s, a
    /// [`Connection`](super::Connection) if it is [`ESTABLISHED`](super::phase::ESTABLISHED), and
    /// [`SocketMessage`](super::SocketMessage)s.
    pub const SOCKET: u32 = 20;

    /// A terminal: [`Terminal`](super::Terminal). It becomes that of the restart.
    pub const TERMINAL: u32 = 30;
    /// The other end of a pseudo-terminal of which the process has both: [`Terminal`](super::Terminal),
    /// [`PseudoTerminal`](super::PseudoTerminal) and [`Message`](super::Message)s.
    pub const PSEUDO_TERMINAL: u32 = 31;
    /// The terminal's end of such a one: [`Terminal`](super::Terminal).
    pub const OWN_TERMINAL: u32 = 32;
    /// An inotify queue: [`WatchQueue`](super::WatchQueue) and its [`Watch`](super::Watch)es.
    pub const INOTIFY: u32 = 40;
    /// What has a path and is not opened (`O_PATH`), by that path.
    pub const PLACE: u32 = 41;
    /// A file or directory of `/proc` or `/sys`, opened again by its path; of the process itself and its
    /// threads, by what that is now.
    pub const KERNEL: u32 = 42;
    /// A memfd, whose contents are in the image, too.
    pub const MEMFD: u32 = 50;
    /// A file in `/dev/shm`, which is memory, too: opened again by its path, or made again.
    pub const SHARED_MEMORY: u32 = 51;
    /// A POSIX message queue: [`Queue`](super::Queue) and its [`QueueMessage`](super::QueueMessage)s.
    pub const MESSAGE_QUEUE: u32 = 52;

    /// All of them.
    pub const KNOWN: [core::ops::RangeInclusive<u32>; 5] = [
        REGULAR..=DELETED,
        SOCKET..=SOCKET,
        TERMINAL..=OWN_TERMINAL,
        INOTIFY..=KERNEL,
        MEMFD..=MESSAGE_QUEUE,
    ];
    /// The kinds whose contents are in the image.
    pub const WITH_CONTENTS: [u32; 3] = [DELETED, MEMFD, SHARED_MEMORY];
    /// The kinds whose state are the [`Lock`](super::Lock)s that the program holds by them.
    pub const WITH_LOCKS: [u32; 6] = [REGULAR, DIRECTORY, DEVICE, DELETED, MEMFD, SHARED_MEMORY];
}

/// A descriptor.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable, Debug, PartialEq, Eq)]
pub struct Descriptor {
    /// Its number.
    pub fd: i32,
    /// A constant of [`descriptor`].
    pub kind: u32,
    /// The flags of open(2), close-on-exec among them, but for `O_ASYNC` and `O_TMPFILE`.
    pub flags: u32,
    /// The lowest descriptor that shares the open file: itself, if none is lower.
    pub shares: i32,
    /// The file offset.
    pub offset: u64,
    /// The file's size.
    pub size: u64,
    /// The device it is on, as stat(2) numbers it.
    pub device: u64,
    /// Its inode.
    pub inode: u64,
    /// The length of the path behind this record.
    pub name_length: u32,
    /// The file's modification time, nanoseconds and
    pub mtime_nsec: u32,
    /// seconds.
    pub mtime: i64,
    /// The checksum of the file's last bytes ([`tail_of_file`]); 0 if it is not known.
    pub tail: u64,
    /// Who gets its signals: a thread, process or process group (fcntl(2), `F_SETOWN_EX`); 0 for nobody.
    pub owner: i32,
    /// Which of them: `F_OWNER_TID`, `F_OWNER_PID` or `F_OWNER_PGRP`.
    pub owner_kind: u32,
    /// Which signal (`F_SETSIG`); 0 for SIGIO.
    pub signal: u16,
    /// Whether it is sent (`O_ASYNC`): 1 or 0.
    pub asynchronous: u8,
    /// Whether it is but a file that is on its way in a socket (`SCM_RIGHTS`), under a number that the
    /// program did not have: 1 or 0.
    pub passed: u8,
    /// The length of the state behind the path.
    pub state_length: u32,
}
const_assert_eq!(size_of::<Descriptor>(), 88);

impl WithTail for Descriptor {
    fn tail_length(&self) -> usize {
        (self.name_length as usize).next_multiple_of(8) + self.state_length as usize
    }
}

impl Descriptor {
    /// Path and state, which are what stands behind the record.
    pub fn path_and_state<'a>(&self, tail: &'a [u8]) -> (&'a [u8], &'a [u8]) {
        let length = self.name_length as usize;
        let state = tail.get(length.next_multiple_of(8)..).unwrap_or(&[]);
        (tail.get(..length).unwrap_or(tail), state)
    }

    /// Whether the contents of its file are in the image.
    pub fn has_contents(&self) -> bool {
        descriptor::WITH_CONTENTS.contains(&self.kind)
    }

    /// Whether it is of the file that `other` is of.
    pub fn is_same_file(&self, other: &Self) -> bool {
        (self.kind, self.device, self.inode) == (other.kind, other.device, other.inode)
    }

    /// Whether the file, whose path is `path`, is the one that `mapping` is of, whose name is `name`. In
    /// some file systems `/proc/PID/maps` shows another device than stat(2) does.
    pub fn is_mapped(&self, path: &[u8], mapping: &Mapping, name: &[u8]) -> bool {
        let (major, minor) =
            (self.device >> 8 & 0xfff, self.device & 0xff | self.device >> 12 & 0xf_ff00);
        let device = major << 32 | minor;
        self.inode == mapping.inode && (device == mapping.device || shown(path) == name)
    }
}

/// What the kernel appends to the name of a file that has none any more.
pub const NO_NAME: &[u8] = b" (deleted)";

/// The name of a file, by what the kernel shows of it.
pub fn shown(path: &[u8]) -> &[u8] {
    path.strip_suffix(NO_NAME).unwrap_or(path)
}

/// Which bytes of a file of `size` bytes are its tail: by them it is known again.
pub const fn tail_of_file(size: u64) -> core::ops::Range<u64> {
    size.saturating_sub(TAIL as u64)..size
}

/// The most bytes in the tail of a file.
pub const TAIL: usize = 4096;

/// An open file whose contents are in the image: it has no name any more, or never had one, or it is
/// lost at the next boot. Behind it stand its [`Extent`]s.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable, Debug, PartialEq, Eq)]
pub struct FileContents {
    /// The lowest descriptor of it.
    pub fd: i32,
    /// Its permissions (stat(2), `st_mode`).
    pub mode: u32,
    /// Its owner
    pub user: u32,
    /// and group.
    pub group: u32,
    /// What must not be done to it (fcntl(2), `F_GET_SEALS`), if it is a memfd.
    pub seals: u32,
    /// How many [`Extent`]s it has.
    pub extents: u32,
    /// Where in the image the bytes of its first extent are; those of the others follow.
    pub offset: u64,
    /// How many bytes that are in all,
    pub stored: u64,
    /// and their checksum.
    pub checksum: u64,
}
const_assert_eq!(size_of::<FileContents>(), 48);

impl WithTail for FileContents {
    fn tail_length(&self) -> usize {
        self.extents as usize * size_of::<Extent>()
    }
}

/// A part of a file that is in the image. Where there is none, the file has a hole.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable, Debug, PartialEq, Eq)]
pub struct Extent {
    /// Where in the file it begins.
    pub start: u64,
    /// How many bytes it has.
    pub length: u64,
}
const_assert_eq!(size_of::<Extent>(), 16);

/// A lock on a file.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable, Debug, PartialEq, Eq)]
pub struct Lock {
    /// A constant of [`lock`].
    pub kind: u32,
    /// Whether nobody else may have one: 1 or 0.
    pub exclusive: u32,
    /// Its first byte.
    pub start: u64,
    /// How many bytes; 0 for all that come.
    pub length: u64,
}
const_assert_eq!(size_of::<Lock>(), 24);

/// What a lock is.
pub mod lock {
    /// Of bytes, held by the process (fcntl(2), `F_SETLK`).
    pub const POSIX: u32 = 1;
    /// Of bytes, held by the open file (fcntl(2), `F_OFD_SETLK`).
    pub const OPEN_FILE: u32 = 2;
    /// Of the whole file (flock(2)).
    pub const WHOLE: u32 = 3;
    /// A lease (fcntl(2), `F_SETLEASE`).
    pub const LEASE: u32 = 4;

    /// All of them.
    pub const KNOWN: core::ops::RangeInclusive<u32> = POSIX..=LEASE;
}

/// A pipe. Of its descriptors the first one has its contents.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable, Debug, PartialEq, Eq)]
pub struct Pipe {
    /// Bytes it has room for (`F_GETPIPE_SZ`).
    pub capacity: u32,
    /// Whether each write to it is a packet (`O_DIRECT`, pipe(2)): 1 or 0.
    pub packets: u32,
}
const_assert_eq!(size_of::<Pipe>(), 8);

/// Bytes that are on their way: of a pipe in packet mode a packet, else all that there are.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable, Debug, PartialEq, Eq)]
pub struct Message {
    /// How many bytes follow.
    pub length: u64,
}
const_assert_eq!(size_of::<Message>(), 8);

impl WithTail for Message {
    fn tail_length(&self) -> usize {
        self.length as usize
    }
}

/// An eventfd (eventfd(2)).
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable, Debug, PartialEq, Eq)]
pub struct EventCounter {
    /// Its count.
    pub count: u64,
    /// Whether a read takes but one from it (`EFD_SEMAPHORE`): 1 or 0.
    pub semaphore: u64,
}
const_assert_eq!(size_of::<EventCounter>(), 16);

/// A timerfd (timerfd_create(2)).
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable, Debug, PartialEq, Eq)]
pub struct FileTimer {
    /// The clock.
    pub clock: i32,
    /// The flags of timerfd_settime(2).
    pub flags: u32,
    /// Until it fires next; or when, for a point of a clock that may be set (`TFD_TIMER_ABSTIME` of
    /// `CLOCK_REALTIME`); 0 if it does not.
    pub next: u64,
    /// From then on; 0 for once.
    pub interval: u64,
    /// How often it has fired since it was last read.
    pub ticks: u64,
}
const_assert_eq!(size_of::<FileTimer>(), 32);

/// What an epoll set watches (epoll_ctl(2)).
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable, Debug, PartialEq, Eq)]
pub struct Watched {
    /// The number it was added by, which may be another's by now.
    pub fd: i32,
    /// A descriptor of the same open file.
    pub through: i32,
    /// The user's data.
    pub data: u64,
    /// For which events, with flags such as `EPOLLET`.
    pub events: u32,
    /// Always 0.
    pub reserved: u32,
}
const_assert_eq!(size_of::<Watched>(), 24);

/// A POSIX message queue (mq_overview(7)). Of its descriptors the first one has its messages.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable, Debug, PartialEq, Eq)]
pub struct Queue {
    /// How many messages it may have.
    pub most: u64,
    /// How many bytes a message may have.
    pub longest: u64,
    /// Its permissions (stat(2), `st_mode`).
    pub mode: u32,
    /// Its owner
    pub user: u32,
    /// and group.
    pub group: u32,
    /// Always 0.
    pub reserved: u32,
}
const_assert_eq!(size_of::<Queue>(), 32);

/// A message in a queue, the one that is received first before the others.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable, Debug, PartialEq, Eq)]
pub struct QueueMessage {
    /// How many bytes follow.
    pub length: u32,
    /// Its priority.
    pub priority: u32,
}
const_assert_eq!(size_of::<QueueMessage>(), 8);

impl WithTail for QueueMessage {
    fn tail_length(&self) -> usize {
        self.length as usize
    }
}

/// A socket (socket(2)).
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable, Debug, PartialEq, Eq)]
pub struct Socket {
    /// The family of its addresses.
    pub family: u16,
    /// Its type, such as `SOCK_STREAM`.
    pub kind: u16,
    /// The protocol.
    pub protocol: u32,
    /// A constant of [`phase`].
    pub phase: u32,
    /// The descriptor that it is connected to; -1 if there is none.
    pub peer: i32,
    /// How many connections wait at most (listen(2)).
    pub backlog: u32,
    /// Which directions are shut down (shutdown(2)): 1 for reading, 2 for writing.
    pub shutdown: u32,
    /// Of one whose peer is gone, or may be at the restart: a constant of [`ending`].
    pub ending: u32,
    /// The mode of the file that a Unix socket is bound to; 0 if that file is no longer there.
    pub mode: u32,
    /// How many bytes of options there are.
    pub options_length: u32,
    /// How many of `local` there are,
    pub local_length: u16,
    /// and of `remote`.
    pub remote_length: u16,
    /// Its own address.
    pub local: [u8; 128],
    /// That of the peer.
    pub remote: [u8; 128],
}
const_assert_eq!(size_of::<Socket>(), 296);

impl Socket {
    /// Whether it is or was connected, as one end of a connection of which the other may be gone.
    pub fn was_connected(&self) -> bool {
        [phase::PAIRED, phase::CLOSED, phase::ESTABLISHED].contains(&self.phase)
    }

    /// What stands behind it in the image, which is `rest`.
    ///
    /// # Errors
    ///
    /// If `rest` is too short.
    pub fn parts<'a>(&self, rest: &'a [u8]) -> Result<SocketParts<'a>, Invalid> {
        let (options, rest) =
            rest.split_at_checked(self.options_length as usize).ok_or(Invalid::Damaged)?;
        if self.phase != phase::ESTABLISHED {
            return Ok(SocketParts { options, connection: None, messages: rest });
        }
        let (connection, messages) = first::<Connection>(rest)?;
        Ok(SocketParts { options, connection: Some(connection), messages })
    }
}

/// What stands behind a [`Socket`].
#[derive(Clone, Copy, Default, Debug)]
pub struct SocketParts<'a> {
    /// [`SocketOption`]s.
    pub options: &'a [u8],
    /// Of one that is established.
    pub connection: Option<Connection>,
    /// [`SocketMessage`]s.
    pub messages: &'a [u8],
}

/// What has been done with a socket.
pub mod phase {
    /// It has been made, and perhaps been given an address.
    pub const OPEN: u32 = 1;
    /// It is listening.
    pub const LISTENING: u32 = 2;
    /// A datagram socket that sends to an address.
    pub const DIRECTED: u32 = 3;
    /// It is connected to a socket of the same process.
    pub const PAIRED: u32 = 4;
    /// It has been connected to a socket that is gone, or that another process has.
    pub const CLOSED: u32 = 5;
    /// It is connected by TCP to another process, and where the connection stands is known.
    pub const ESTABLISHED: u32 = 6;

    /// All of them.
    pub const KNOWN: core::ops::RangeInclusive<u32> = OPEN..=ESTABLISHED;
}

/// What the program sees of the end of a connection.
pub mod ending {
    /// The end of the file.
    pub const ORDERLY: u32 = 1;
    /// `ECONNRESET`, once.
    pub const RESET: u32 = 2;
    /// That has been told already.
    pub const TOLD: u32 = 3;
}

/// Where an established TCP connection stands, as `TCP_REPAIR` tells it (include/uapi/linux/tcp.h). Two
/// [`SocketMessage`]s follow: what has been received and not been read, and what has been sent, by the
/// program if not yet by the kernel, and not been acknowledged.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable, Debug, PartialEq, Eq)]
pub struct Connection {
    /// The number of the byte that the program sends next (`TCP_QUEUE_SEQ`),
    pub next_sent: u32,
    /// and that of the one that is received next.
    pub next_received: u32,
    /// What the ends have agreed on: `TCPI_OPT_…`, as `TCP_INFO` has it.
    pub options: u32,
    /// By how many bits the peer's window is shifted,
    pub send_scale: u16,
    /// and its own.
    pub receive_scale: u16,
    /// How many bytes of data the peer takes in a segment (`TCP_MAXSEG`).
    pub segment: u32,
    /// What is sent as a timestamp next (`TCP_TIMESTAMP`).
    pub timestamp: u32,
    /// How much the peer has room for (`TCP_REPAIR_WINDOW`, `snd_wnd`),
    pub send_window: u32,
    /// and has had at most (`max_window`).
    pub largest_window: u32,
    /// How much the peer has been told that there is room for (`rcv_wnd`),
    pub receive_window: u32,
    /// and from which number on (`rcv_wup`).
    pub window_start: u32,
    /// The size of the buffer for what is sent (`SO_SNDBUF`),
    pub send_buffer: u32,
    /// and for what is received (`SO_RCVBUF`).
    pub receive_buffer: u32,
}
const_assert_eq!(size_of::<Connection>(), 48);

/// An option of a socket that is not as in a new one (getsockopt(2)). Its value follows.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable, Debug, PartialEq, Eq)]
pub struct SocketOption {
    /// Of which protocol.
    pub level: u32,
    /// Which one.
    pub name: u32,
    /// How many bytes its value has.
    pub length: u32,
    /// Always 0.
    pub reserved: u32,
}
const_assert_eq!(size_of::<SocketOption>(), 16);

impl WithTail for SocketOption {
    fn tail_length(&self) -> usize {
        self.length as usize
    }
}

/// Bytes that have been sent to a socket and not been received: a message, or of a stream a part. The
/// numbers of the descriptors that go with them follow, 4 bytes each, padded to 8 bytes, then the
/// bytes.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable, Debug, PartialEq, Eq)]
pub struct SocketMessage {
    /// How many bytes there are.
    pub length: u64,
    /// The sender's process id, if it is known (`SCM_CREDENTIALS`); 0 if not.
    pub pid: u32,
    /// Its user id,
    pub user: u32,
    /// and group id.
    pub group: u32,
    /// How many descriptors go with them.
    pub passed: u32,
}
const_assert_eq!(size_of::<SocketMessage>(), 24);

impl WithTail for SocketMessage {
    fn tail_length(&self) -> usize {
        let passed = (self.passed as usize * size_of::<i32>()).next_multiple_of(8);
        passed.saturating_add(self.length as usize)
    }
}

impl SocketMessage {
    /// The descriptors and the bytes, which are what stands behind the record.
    pub fn passed_and_bytes<'a>(
        &self,
        tail: &'a [u8],
    ) -> (impl Iterator<Item = i32> + Clone + 'a, &'a [u8]) {
        let length = self.passed as usize * size_of::<i32>();
        let bytes = tail.get(length.next_multiple_of(8)..).unwrap_or(&[]);
        (all(tail.get(..length).unwrap_or(&[])), bytes)
    }
}

/// An inotify queue (inotify(7)).
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable, Debug, PartialEq, Eq)]
pub struct WatchQueue {
    /// Bytes of events that had not been read, and are not restored.
    pub unread: u64,
}
const_assert_eq!(size_of::<WatchQueue>(), 8);

/// What an inotify queue watches.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable, Debug, PartialEq, Eq)]
pub struct Watch {
    /// Its number.
    pub number: i32,
    /// For which events, with flags such as `IN_ONESHOT`.
    pub mask: u32,
    /// The length of the path behind this record.
    pub name_length: u32,
    /// Always 0.
    pub reserved: u32,
}
const_assert_eq!(size_of::<Watch>(), 16);

impl WithTail for Watch {
    fn tail_length(&self) -> usize {
        self.name_length as usize
    }
}

/// A terminal (termios(3)): `struct termios2`, `struct winsize`, and which one it is.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable, Debug, PartialEq, Eq)]
pub struct Terminal {
    /// The modes of what is typed, `c_iflag`,
    pub input: u32,
    /// of what is written, `c_oflag`,
    pub output: u32,
    /// of the line, `c_cflag`,
    pub control: u32,
    /// and of editing and echo, `c_lflag`.
    pub local: u32,
    /// The line discipline.
    pub discipline: u8,
    /// The keys that mean something, `c_cc`.
    pub keys: [u8; 19],
    /// Bits a second of what is typed
    pub input_speed: u32,
    /// and written.
    pub output_speed: u32,
    /// Rows of the window,
    pub rows: u16,
    /// columns,
    pub columns: u16,
    /// its width in pixels
    pub width: u16,
    /// and its height.
    pub height: u16,
    /// The number of its device: both ends of a pseudo-terminal have the same.
    pub device: u32,
}
const_assert_eq!(size_of::<Terminal>(), 56);

/// What a pseudo-terminal has beyond that. Behind it stand the bytes that are on their way: in one
/// [`Message`] each what has been written to the terminal, and what has been typed.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable, Debug, PartialEq, Eq)]
pub struct PseudoTerminal {
    /// Whether what is read tells of the terminal's state, too (`TIOCPKT`): 1 or 0.
    pub packets: u32,
    /// Whether the terminal's end may not be opened (`TIOCSPTLCK`): 1 or 0.
    pub locked: u32,
    /// Whether nobody else may open the terminal's end (`TIOCEXCL`): 1 or 0.
    pub exclusive: u32,
    /// Whether the terminal's end has ever been opened and is closed by now: 1 or 0.
    pub closed: u32,
}
const_assert_eq!(size_of::<PseudoTerminal>(), 16);
