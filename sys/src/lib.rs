//! The kernel as the freestanding programs see it.
//!
//! Nothing in here allocates, locks, or relies on a libc, on thread-local storage or on any
//! initialisation; so all of it may be called in a signal handler of a program about which nothing
//! is known.
//!
//! * [`call`]: the system calls, one typed line each;
//! * [`Errno`]: what they answer, by name;
//! * [`descriptor`]: what a descriptor is;
//! * [`Line`]: text in a fixed buffer, for the one line that says what went wrong;
//! * [`lines`], [`maps`], [`locks`], [`proc`](mod@proc): readers of `/proc`;
//! * [`inode`]: the path of a file of which only the inode is known;
//! * [`messages`]: who uses queues of System V messages;
//! * [`pseudo_terminal`]: what is on its way in one;
//! * [`semaphores`]: who uses those of System V, and what is to be undone;
//! * [`SocketObstacle`], [`is_repairable`], [`tcp`]: why a socket cannot be restored, and what of TCP can;
//! * [`system_v`]: what is told of all kinds of System V objects;
//! * [`timer`]: how a timer is set so that it goes on where it was;
//! * [`UnixSocket`]: what the kernel tells of one.
#![cfg_attr(not(test), no_std)]

pub mod call;
pub mod descriptor;
mod errno;
pub mod inode;
mod line;
pub mod lines;
pub mod locks;
pub mod maps;
pub mod messages;
pub mod proc;
pub mod pseudo_terminal;
pub mod semaphores;
mod socket;
pub mod system_v;
pub mod timer;
mod unix_socket;
pub mod watch;

pub use call::Fd;
pub use errno::Errno;
pub use line::{Escaped, Line, signal_from_name, signal_name};
pub use socket::{SocketObstacle, is_repairable, tcp};
pub use unix_socket::UnixSocket;
