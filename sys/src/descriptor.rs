//! What a descriptor is, for those that look at it from inside of the process and from outside.

use crate::call::MQUEUE_MAGIC;
use linux_raw_sys::general::{S_IFBLK, S_IFCHR, S_IFDIR, S_IFIFO, S_IFMT, S_IFREG, S_IFSOCK};

/// What a descriptor is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// A regular file with a name.
    Regular,
    /// A regular file whose last name is gone.
    DeletedFile,
    /// A directory.
    Directory,
    /// A directory that has been removed.
    DeletedDirectory,
    /// memfd_create(2).
    Memfd,
    /// A file or directory of `/proc` or `/sys`.
    Kernel,
    /// A POSIX message queue (mq_open(3)).
    MessageQueue,
    /// A name space (namespaces(7)).
    Namespace,
    /// null, zero, full, random, urandom.
    PlainDevice,
    /// A terminal, or the terminal's end of a pseudo-terminal.
    Terminal,
    /// The other end of a pseudo-terminal (`/dev/ptmx`).
    TerminalMaster,
    /// Another character device.
    CharacterDevice,
    /// A block device.
    BlockDevice,
    /// pipe(2).
    Pipe,
    /// A FIFO, which has a name.
    Fifo,
    /// socket(2).
    Socket,
    /// eventfd(2).
    EventCounter,
    /// timerfd_create(2).
    Timer,
    /// signalfd(2).
    Signals,
    /// epoll_create(2).
    Epoll,
    /// inotify_init(2).
    Inotify,
    /// pidfd_open(2).
    Process,
    /// io_uring_setup(2).
    IoUring,
    /// perf_event_open(2).
    PerfEvent,
    /// userfaultfd(2).
    UserFaults,
    /// Something else that only the kernel knows.
    Other,
}

impl Kind {
    /// What a file is, by its mode, its device number if it is a device, and the number of its names
    /// (stat(2)), and by what `/proc/PID/fd/N` points to.
    pub fn of(mode: u32, device: u64, names: u64, target: &[u8]) -> Self {
        match mode & S_IFMT {
            S_IFREG if target.starts_with(b"/memfd:") => Self::Memfd,
            S_IFREG | S_IFDIR if is_kernels(target) => Self::Kernel,
            S_IFREG if is_process(target) => Self::Process,
            S_IFREG if !target.starts_with(b"/") => Self::Namespace,
            S_IFREG if names == 0 => Self::DeletedFile,
            S_IFREG => Self::Regular,
            S_IFDIR if names == 0 => Self::DeletedDirectory,
            S_IFDIR => Self::Directory,
            S_IFCHR => Self::of_device(device),
            S_IFBLK => Self::BlockDevice,
            S_IFIFO if target.starts_with(b"/") => Self::Fifo,
            S_IFIFO => Self::Pipe,
            S_IFSOCK => Self::Socket,
            _ => Self::of_anonymous(target),
        }
    }

    /// The same, once it is known on which kind of file system a file is that looks as if it were in the
    /// root directory: message queues do.
    pub fn or_queue(self, target: &[u8], file_system: impl FnOnce() -> Option<u32>) -> Self {
        let in_root = target.starts_with(b"/") && !target[1..].contains(&b'/');
        let is_file = [Self::Regular, Self::DeletedFile].contains(&self);
        let is_queue = is_file && in_root && file_system() == Some(MQUEUE_MAGIC);
        if is_queue { Self::MessageQueue } else { self }
    }

    /// A character device by its number (the kernel's devices.txt).
    fn of_device(device: u64) -> Self {
        let (major, minor) = (device >> 8 & 0xfff, device & 0xff | device >> 12 & 0xf_ff00);
        match (major, minor) {
            (1, 3 | 5 | 7 | 8 | 9) => Self::PlainDevice,
            (5, 2) => Self::TerminalMaster,
            (4 | 5 | 136..=143, _) => Self::Terminal,
            _ => Self::CharacterDevice,
        }
    }

    /// What has an inode without a type.
    fn of_anonymous(target: &[u8]) -> Self {
        let name = target.strip_prefix(b"anon_inode:").unwrap_or(target);
        match name {
            b"[eventfd]" => Self::EventCounter,
            b"[timerfd]" => Self::Timer,
            b"[signalfd]" => Self::Signals,
            b"[eventpoll]" => Self::Epoll,
            b"inotify" => Self::Inotify,
            b"[io_uring]" => Self::IoUring,
            b"[perf_event]" => Self::PerfEvent,
            b"[userfaultfd]" => Self::UserFaults,
            _ if is_process(target) => Self::Process,
            _ => Self::Other,
        }
    }

    /// In words.
    pub fn name(self) -> &'static str {
        match self {
            Self::Regular => "a file",
            Self::DeletedFile => "a deleted file",
            Self::Directory => "a directory",
            Self::DeletedDirectory => "a deleted directory",
            Self::Memfd => "a memfd",
            Self::Kernel => "a file of /proc or /sys",
            Self::MessageQueue => "a message queue",
            Self::Namespace => "a name space",
            Self::PlainDevice => "a plain device",
            Self::Terminal => "a terminal",
            Self::TerminalMaster => "a pseudo-terminal",
            Self::CharacterDevice => "a character device",
            Self::BlockDevice => "a block device",
            Self::Pipe => "a pipe",
            Self::Fifo => "a FIFO",
            Self::Socket => "a socket",
            Self::EventCounter => "an eventfd",
            Self::Timer => "a timerfd",
            Self::Signals => "a signalfd",
            Self::Epoll => "an epoll set",
            Self::Inotify => "an inotify queue",
            Self::Process => "a pidfd",
            Self::IoUring => "an io_uring",
            Self::PerfEvent => "a performance counter",
            Self::UserFaults => "a userfaultfd",
            Self::Other => "an object of the kernel",
        }
    }
}

/// Whether a file is POSIX shared memory, or a semaphore (shm_overview(7), sem_overview(7)).
pub fn is_shared_memory(path: &[u8]) -> bool {
    path.starts_with(b"/dev/shm/")
}

/// Whether a mapping is of System V shared memory: `/SYSV`, its key, and that it has no name.
pub fn is_segment(name: &[u8]) -> bool {
    let key = name.strip_prefix(b"/SYSV").and_then(|name| name.strip_suffix(b" (deleted)"));
    key.is_some_and(|key| key.len() == 8 && key.iter().all(u8::is_ascii_hexdigit))
}

/// `/proc` is where it always is, and so is `/sys`.
fn is_kernels(target: &[u8]) -> bool {
    target.starts_with(b"/proc/") || target.starts_with(b"/sys/")
}

/// A pidfd has an inode of its own file system since Linux 6.9.
fn is_process(target: &[u8]) -> bool {
    target == b"anon_inode:[pidfd]" || target.starts_with(b"pidfd:")
}
