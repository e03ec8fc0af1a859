//! Pipes and FIFOs that this process has to itself: both ends, or one whose other end nobody has.
//!
//! What is in a pipe is copied by tee(2) into another pipe, and read from there: so the pipe itself is
//! not touched, and nothing is lost whatever happens.

use bytemuck::bytes_of;
use ckpt_image::NoteWriter;
use ckpt_image::files::{Descriptor, Message, Pipe, descriptor};
use ckpt_sys::call::{self, Fd, File};
use ckpt_sys::descriptor::Kind;
use ckpt_sys::{Errno, proc};
use linux_raw_sys::general::{
    F_GETFL, F_GETPIPE_SZ, F_SETPIPE_SZ, O_ACCMODE, O_CLOEXEC, O_DIRECT, O_NONBLOCK, O_PATH,
    O_RDONLY, O_WRONLY, POLLERR, POLLHUP,
};

use super::{Found, Obstacle, descriptors, holder};

/// Notes what is in it, if it is the first descriptor of it.
pub fn capture(
    found: &Found<'_>,
    record: &Descriptor,
    notes: &mut NoteWriter<'_>,
) -> Result<u32, Obstacle> {
    let is_first = !descriptors(notes).any(|(other, ..)| {
        other.fd < record.fd
            && other.flags & O_PATH == 0
            && (other.device, other.inode) == (record.device, record.inode)
    });
    let kind = match found.kind {
        // Without a name it is as good as a pipe.
        Kind::Fifo if found.status.st_nlink > 0 => descriptor::FIFO,
        _ => descriptor::PIPE,
    };
    if record.flags & O_PATH != 0 {
        return Ok(kind);
    }
    let ends = Ends::of(found)?;
    if !ends.are_own(found)? {
        let kind = found.kind.name();
        return Err(match holder::of(found) {
            Some(holder) => Obstacle::new(format_args!("{kind} to {holder}")),
            None => Obstacle::new(format_args!("{kind} to another process")),
        });
    }
    if is_first {
        let capacity = call::fcntl(found.fd, F_GETPIPE_SZ, 0)?;
        notes.push(bytes_of(&Pipe { capacity, packets: ends.packets.into() }))?;
        if let Some(end) = ends.to_read {
            copy(end, capacity, notes)?;
        }
    }
    Ok(kind)
}

/// A descriptor of each end that this process has.
struct Ends {
    to_read: Option<Fd>,
    to_write: Option<Fd>,
    packets: bool,
}

impl Ends {
    fn of(found: &Found<'_>) -> Result<Self, Obstacle> {
        let mut ends = Self { to_read: None, to_write: None, packets: false };
        let is_it = (found.status.st_dev, found.status.st_ino);
        proc::for_each_descriptor(|fd| {
            let status = call::fstat(fd)?;
            let flags = call::fcntl(fd, F_GETFL, 0)?;
            if (status.st_dev, status.st_ino) == is_it && flags & O_PATH == 0 {
                let mode = flags & O_ACCMODE;
                if mode != O_WRONLY {
                    ends.to_read.get_or_insert(fd);
                }
                if mode != O_RDONLY {
                    ends.to_write.get_or_insert(fd);
                    ends.packets |= flags & O_DIRECT != 0;
                }
            }
            Ok::<(), Errno>(())
        })?;
        Ok(ends)
    }

    /// Whether the other end is here, too, or nowhere: the kernel tells of one that nobody has.
    fn are_own(&self, found: &Found<'_>) -> Result<bool, Errno> {
        match self {
            Self { to_read: Some(_), to_write: Some(_), .. } => Ok(true),
            Self { to_read: None, .. } => Ok(call::poll_now(found.fd, 0)? & POLLERR != 0),
            Self { to_write: None, .. } => Ok(call::poll_now(found.fd, 0)? & POLLHUP != 0),
        }
    }
}

/// Notes what is in the pipe.
fn copy(from: Fd, capacity: u32, notes: &mut NoteWriter<'_>) -> Result<(), Obstacle> {
    let all = call::readable_bytes(from)?;
    if all == 0 {
        return Ok(());
    }
    let [to_read, to_write] = call::pipe(O_CLOEXEC | O_NONBLOCK)?.map(File::from_fd);
    let _ = call::fcntl(to_write.fd(), F_SETPIPE_SZ, capacity);
    if call::tee(from, to_write.fd(), capacity as usize)? != all {
        return Err(Obstacle::new(format_args!(
            "a pipe with more in it than the user may have in pipes (fs.pipe-user-pages-soft)"
        )));
    }
    let mut left = all;
    while left > 0 {
        // In packet mode read(2) returns one packet; else all there is.
        let at = notes.open_description().len();
        notes.push(bytes_of(&Message { length: 0 }))?;
        let length = call::read(to_read.fd(), notes.room())?;
        notes.advance(length)?;
        notes.amend(at, bytes_of(&Message { length: length as u64 }));
        notes.align()?;
        left = left.checked_sub(length).filter(|_| length > 0).ok_or(Errno::EIO)?;
    }
    Ok(())
}
