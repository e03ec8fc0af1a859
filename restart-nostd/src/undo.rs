//! What this program has made that others can see, by a name or an id. If the restart fails it is removed
//! again, so that the next attempt finds what this one has found.

use core::cell::UnsafeCell;

use ckpt_sys::Errno;
use ckpt_sys::call::{self, Fd};

use crate::files::path_of_socket;
use crate::paths::{with_name, with_path};

/// Something that has been made.
#[derive(Clone, Copy)]
pub enum Made {
    /// A file, under the path that it had.
    File(&'static [u8]),
    /// A POSIX message queue.
    Queue(&'static [u8]),
    /// The file that the Unix socket of that descriptor is bound to.
    SocketName(Fd),
    /// A segment of System V shared memory, by its id.
    Segment(i32),
    /// A set of System V semaphores, by its id.
    Semaphores(i32),
    /// A queue of System V messages, by its id.
    Messages(i32),
}

/// The most that are remembered; others stay.
const MOST: usize = 1024;

struct List {
    things: [Made; MOST],
    count: usize,
}

struct Shared(UnsafeCell<List>);
// SAFETY: only the first thread remembers; the others wait meanwhile, and whoever fails is the last.
unsafe impl Sync for Shared {}

static LIST: Shared = Shared(UnsafeCell::new(List { things: [Made::Segment(0); MOST], count: 0 }));

/// Remembers what has just been made.
pub fn remember(made: Made) {
    // SAFETY: see `Shared`.
    let list = unsafe { &mut *LIST.0.get() };
    if let Some(place) = list.things.get_mut(list.count) {
        *place = made;
        list.count += 1;
    }
}

/// Removes all that has been made, the last one first.
pub fn all() {
    // SAFETY: see `Shared`. What fails in here finds nothing more to be removed.
    let list = unsafe { &mut *LIST.0.get() };
    while let Some(last) = list.count.checked_sub(1) {
        list.count = last;
        let _ = remove(list.things[last]);
    }
}

fn remove(made: Made) -> Result<(), Errno> {
    match made {
        Made::File(path) => with_path(path, call::unlink),
        Made::Queue(name) => with_name(name, call::mq_unlink),
        Made::SocketName(socket) => {
            let path = path_of_socket(&call::local_address(socket)?).ok_or(Errno::ENOENT)?;
            call::unlink(path.as_path())
        }
        Made::Segment(id) => call::shm_remove(id),
        Made::Semaphores(id) => call::sem_remove(id),
        Made::Messages(id) => call::msg_remove(id),
    }
}
