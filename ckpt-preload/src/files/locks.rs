//! Locks that the program holds on its files.

use bytemuck::bytes_of;
use ckpt_image::NoteWriter;
use ckpt_image::files::{Lock, descriptor, lock};
use ckpt_sys::Errno;
use ckpt_sys::call::File;
use ckpt_sys::lines::Lines;
use ckpt_sys::locks::{self, Kind};

use super::{Found, Obstacle, own};

/// What `fdinfo` shows of a lock.
const KEY: &[u8] = b"\nlock:";

/// Whether `fdinfo` shows a lock.
pub fn is_locked(info: &[u8]) -> bool {
    info.windows(KEY.len()).any(|word| word == KEY)
}

/// Notes the locks that are held by a descriptor of kind `kind`.
pub fn capture(found: &Found<'_>, kind: u32, notes: &mut NoteWriter<'_>) -> Result<(), Obstacle> {
    if !is_locked(found.info) {
        return Ok(());
    }
    if !descriptor::WITH_LOCKS.contains(&kind) {
        let what = found.kind.name();
        return Err(Obstacle::new(format_args!("{what} on which the program holds a lock")));
    }
    let file = File::open(own(format_args!("fdinfo/{}", found.fd.0)).as_path(), 0)?;
    let mut buffer = [0; 1024];
    let mut lines = Lines::new(file.fd(), &mut buffer);
    while let Some(line) = lines.next_line()? {
        if line.starts_with(b"lock:") {
            let lock = locks::Lock::parse(line).ok_or(Errno::ENOSYS)?;
            notes.push(bytes_of(&Lock {
                kind: kind_of(lock.kind)?,
                exclusive: lock.exclusive.into(),
                start: lock.start,
                length: lock.length,
            }))?;
        }
    }
    Ok(())
}

fn kind_of(kind: Kind) -> Result<u32, Obstacle> {
    Ok(match kind {
        Kind::Posix => lock::POSIX,
        Kind::OpenFile => lock::OPEN_FILE,
        Kind::Whole => lock::WHOLE,
        Kind::Lease => lock::LEASE,
        Kind::BrokenLease => {
            return Err(Obstacle::new(format_args!("a file whose lease is being taken back")));
        }
    })
}
