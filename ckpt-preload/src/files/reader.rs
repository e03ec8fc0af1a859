//! How a file of the program's is read without the program's losing a lock on it: a process that closes
//! any descriptor of a file loses its POSIX locks on that file, and one that opens it may break its own
//! lease.

use ckpt_sys::call::{self, Fd, File};
use ckpt_sys::{Errno, proc};
use linux_raw_sys::general::{F_GETFL, O_ACCMODE, O_DIRECT, O_NONBLOCK, O_PATH, O_RDONLY, O_RDWR};

use super::{locks, own};

/// What to read a file by.
pub struct Reader {
    fd: Fd,
    /// The descriptor, unless it is one of the program's own.
    opened: Option<File>,
}

impl Reader {
    /// The file of `fd`, opened anew, since that may be open for writing only; unless the program holds a
    /// lock on it, or it cannot be opened. Then it is read by a descriptor of the program's, if there is
    /// one; else, of a file with a lock, `EBUSY`.
    pub fn of(fd: Fd) -> Result<Self, Errno> {
        let file = call::fstat(fd)?;
        let mut readable = None;
        let mut locked = false;
        proc::for_each_descriptor(|other| {
            let Ok(status) = call::fstat(other) else { return Ok(()) };
            if (status.st_dev, status.st_ino) == (file.st_dev, file.st_ino) {
                if can_be_read(other) {
                    readable = Some(Self { fd: other, opened: None });
                }
                locked |= holds_lock(other)?;
            }
            Ok::<(), Errno>(())
        })?;
        if locked {
            return readable.ok_or(Errno::EBUSY);
        }
        match File::open(own(format_args!("fd/{}", fd.0)).as_path(), O_NONBLOCK) {
            Ok(file) => Ok(Self { fd: file.fd(), opened: Some(file) }),
            Err(why) => readable.ok_or(why),
        }
    }

    /// The descriptor.
    pub fn fd(&self) -> Fd {
        self.fd
    }

    /// Whether it has an offset of its own.
    pub fn is_seekable(&self) -> bool {
        self.opened.is_some()
    }
}

/// Whether a descriptor is good for pread(2) into any buffer.
fn can_be_read(fd: Fd) -> bool {
    call::fcntl(fd, F_GETFL, 0).is_ok_and(|flags| {
        [O_RDONLY, O_RDWR].contains(&(flags & O_ACCMODE)) && flags & (O_DIRECT | O_PATH) == 0
    })
}

fn holds_lock(fd: Fd) -> Result<bool, Errno> {
    // Locks stand near its beginning.
    let mut info = [0; 512];
    let file = File::open(own(format_args!("fdinfo/{}", fd.0)).as_path(), 0)?;
    let read = call::read(file.fd(), &mut info)?;
    Ok(locks::is_locked(&info[..read]))
}
