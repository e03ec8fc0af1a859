//! Inotify queues.

use bytemuck::{Zeroable, bytes_of};
use ckpt_image::NoteWriter;
use ckpt_image::files::{Watch, WatchQueue, descriptor};
use ckpt_sys::Errno;
use ckpt_sys::call::{self, File};
use ckpt_sys::inode::path_of;
use ckpt_sys::lines::Lines;
use ckpt_sys::watch::Watched;

use super::{Found, Obstacle, own};

/// An inotify queue: what it watches, by the lines of its `fdinfo`. What is in it stays there.
pub fn capture(found: &Found<'_>, notes: &mut NoteWriter<'_>) -> Result<u32, Obstacle> {
    let unread = call::readable_bytes(found.fd)? as u64;
    notes.push(bytes_of(&WatchQueue { unread }))?;
    let file = File::open(own(format_args!("fdinfo/{}", found.fd.0)).as_path(), 0)?;
    let mut buffer = [0; 1024];
    let mut lines = Lines::new(file.fd(), &mut buffer);
    while let Some(line) = lines.next_line()? {
        if !line.starts_with(b"inotify ") {
            continue;
        }
        let Watched { number, mask, inode } = Watched::parse(line).ok_or(Errno::ENOSYS)?;
        let path = path_of("/proc/thread-self", inode).ok_or_else(|| {
            Obstacle::new(format_args!(
                "an inotify queue whose watch {number} is of a file not found, inode {}",
                inode.number
            ))
        })?;
        let path = path.as_path().to_bytes();
        let name_length = path.len() as u32;
        notes.push_record(&Watch { number, mask, name_length, ..Watch::zeroed() }, path)?;
    }
    Ok(descriptor::INOTIFY)
}
