//! Waiting for a file to appear or to change, without polling: inotify.

use std::ffi::OsString;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::Path;
use std::time::Instant;

use rustix::fs::inotify::{self, CreateFlags, Reader, WatchFlags};

use super::PATIENCE;

/// The events on one file or directory from now on.
pub struct Watch(OwnedFd);

impl Watch {
    /// The names that files in `directory` are renamed to.
    pub fn renames(directory: &Path) -> Watch {
        Watch::new(directory, WatchFlags::MOVED_TO)
    }

    /// The names of files created in `directory`.
    pub fn creations(directory: &Path) -> Watch {
        Watch::new(directory, WatchFlags::CREATE)
    }

    /// Each write to `file`.
    pub fn writes(file: &Path) -> Watch {
        Watch::new(file, WatchFlags::MODIFY)
    }

    fn new(path: &Path, events: WatchFlags) -> Watch {
        let queue = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK).expect("inotify");
        inotify::add_watch(&queue, path, events)
            .unwrap_or_else(|e| panic!("watching {}: {e}", path.display()));
        Watch(queue)
    }

    /// The names of all that has happened since the last call; empty ones for a file itself.
    pub fn names(&self) -> Vec<OsString> {
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut events = Reader::new(&self.0, &mut buffer);
        let mut names = Vec::new();
        while let Ok(event) = events.next() {
            let name = event.file_name().map_or(&b""[..], |name| name.to_bytes());
            names.push(OsString::from_vec(name.to_vec()));
        }
        names
    }

    /// Waits for an event of that name.
    pub fn wait_for(&self, name: &str) {
        let deadline = Instant::now() + PATIENCE;
        while !self.names().iter().any(|it| it == name) {
            let left = deadline.saturating_duration_since(Instant::now()).as_millis();
            assert!(left > 0, "waited in vain for {name}");
            let mut queue =
                libc::pollfd { fd: self.0.as_raw_fd(), events: libc::POLLIN, revents: 0 };
            // SAFETY: one of ours.
            unsafe { libc::poll(&raw mut queue, 1, left as _) };
        }
    }
}

impl AsFd for Watch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
