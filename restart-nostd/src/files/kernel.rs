//! Files of `/proc` and `/sys`. Those of the process itself and its threads are opened as those of what it
//! is now.

use ckpt_image::Head;
use ckpt_image::files::NO_NAME;
use ckpt_sys::call::{self, Fd, Kin};
use ckpt_sys::lines::number;
use ckpt_sys::proc::{self, numbered, process_of};
use ckpt_sys::{Errno, Line};
use linux_raw_sys::general::{
    AT_SYMLINK_NOFOLLOW, O_PATH, S_IFDIR, S_IFMT, S_IFREG, SEEK_SET, WEXITED, stat,
};

use super::{Restored, take_nothing};
use crate::image::Image;
use crate::paths::{Shown, with_path};
use crate::place::Place;
use crate::report::{OrFail, fail, note};
use crate::threads;

/// Refuses what is not here. What is of the process itself will be, and another process may have ended.
pub fn check(image: &Image, head: &Head<'_>, path: &[u8]) {
    if process_of(path).is_some_and(|(id, _)| is_own(image, head, id)) || has_ended(head, path) {
        return;
    }
    let step = format_args!("{}, which the program has open", Shown(path));
    let status = status_of(path).or_fail(step);
    if ![S_IFREG, S_IFDIR].contains(&(status.st_mode & S_IFMT)) {
        fail(format_args!("{step}, is now something else"));
    }
}

/// Whether `id` was that of the program or of a thread of it.
fn is_own(image: &Image, head: &Head<'_>, id: u32) -> bool {
    id == head.process().0.pid || threads::of_image(image).any(|(thread, _)| thread.tid == id)
}

/// Whether a file is of another process, and that is not there any more.
fn has_ended(head: &Head<'_>, path: &[u8]) -> bool {
    let same_boot = head.process().0.boot_id == proc::boot_id();
    process_of(path).is_some() && (!same_boot || status_of(path).is_err())
}

fn status_of(path: &[u8]) -> Result<stat, Errno> {
    with_path(path, |path| call::status_at(path, AT_SYMLINK_NOFOLLOW))
}

/// Opens it again, where it was.
pub fn open(image: &Image, restored: &Restored<'_>, place: &Place) {
    let Restored { record, path, head, .. } = *restored;
    if let Some((id, rest)) = process_of(path)
        && !is_own(image, head, id)
        && has_ended(head, path)
    {
        return open_of_ended(restored, rest);
    }
    let step = format_args!("opening {} as descriptor {}", Shown(path), record.fd);
    let here = here(path, head.process().0.pid, place);
    let opened = with_path(here.as_bytes(), |path| call::openat(path, record.flags, 0));
    restored.take(opened.or_fail(step));
    if record.flags & O_PATH == 0 && record.offset != 0 {
        call::lseek(Fd(record.fd), record.offset as i64, SEEK_SET).or_fail(step);
    }
}

/// Opens `rest`, a file of a process that has ended: the same one of a process that is made for that, and ends.
/// So every call on it fails as if the program had run on.
fn open_of_ended(restored: &Restored<'_>, rest: &[u8]) {
    let Restored { record, path, .. } = *restored;
    let opened = call::fork(Kin::Quiet).and_then(|child| {
        if child == 0 {
            call::exit_group(0);
        }
        let mut path = Line::<4128>::of(format_args!("/proc/{child}"));
        path.push(rest.strip_suffix(NO_NAME).unwrap_or(rest));
        path.push(b"\0");
        // It is still there as long as nobody has waited for it.
        let opened = match shows_own_ids() {
            true => call::openat(path.as_path(), record.flags, 0),
            false => Err(Errno::ESRCH),
        };
        let _ = call::wait(Some(child), WEXITED);
        opened
    });
    match opened {
        Ok(opened) => restored.take(opened),
        Err(errno) => {
            note(format_args!(
                "{}, which was descriptor {}, is of a process that has ended, and fails: {errno}",
                Shown(path),
                record.fd
            ));
            take_nothing(restored);
        }
    }
}

/// Whether `/proc` shows processes by the ids that this one knows, and not by those of another pid namespace.
fn shows_own_ids() -> bool {
    let own = Some(call::getpid().into());
    call::readlink(c"/proc/self", &mut [0; 16]).is_ok_and(|id| number(id, 10) == own)
}

/// Where a file is here that was at `path` of process `own`.
fn here(path: &[u8], own: u32, place: &Place) -> Line<4097> {
    let mut here = Line::new();
    let mut rest = path;
    if let Some((id, behind)) = process_of(path) {
        if id == own {
            here.push(b"/proc/self");
            rest = behind;
            if let Some((tid, behind)) = behind.strip_prefix(b"/task/").and_then(numbered)
                && let Some(tid) = threads::id_of(place, tid)
            {
                here.push(Line::<32>::of(format_args!("/task/{tid}")).as_bytes());
                rest = behind;
            }
        } else if let Some(tid) = threads::id_of(place, id) {
            here.push(Line::<32>::of(format_args!("/proc/{tid}")).as_bytes());
            rest = behind;
        }
    }
    here.push(rest);
    here
}
