//! Files of `/proc` and `/sys`. Those of the process itself and its threads are opened as those of what it
//! is now.

use ckpt_image::Head;
use ckpt_image::files::Descriptor;
use ckpt_sys::Line;
use ckpt_sys::call::{self, Fd};
use ckpt_sys::lines::number;
use linux_raw_sys::general::{AT_SYMLINK_NOFOLLOW, O_PATH, S_IFDIR, S_IFMT, S_IFREG, SEEK_SET};

use super::Restored;
use crate::image::Image;
use crate::paths::{Shown, with_path};
use crate::place::Place;
use crate::report::{OrFail, fail};
use crate::threads;

/// A path of `/proc/PID`: the id, and the rest behind it.
fn process_of(path: &[u8]) -> Option<(u32, &[u8])> {
    numbered(path.strip_prefix(b"/proc/")?)
}

/// The number that a path begins with, and what comes behind it.
fn numbered(path: &[u8]) -> Option<(u32, &[u8])> {
    let end = path.iter().position(|&byte| byte == b'/').unwrap_or(path.len());
    let (id, rest) = path.split_at(end);
    Some((u32::try_from(number(id, 10)?).ok()?, rest))
}

/// Refuses what is not here. What is of the process itself will be.
pub fn check(image: &Image, head: &Head<'_>, record: &Descriptor, path: &[u8], same_boot: bool) {
    let own = head.process().0.pid;
    if let Some((id, _)) = process_of(path) {
        if id == own || threads::of_image(image).any(|(thread, _)| thread.tid == id) {
            return;
        }
        if !same_boot {
            fail(format_args!(
                "{}, which the program has open, was of a process before this boot; use --fd {}=PATH",
                Shown(path),
                record.fd
            ));
        }
    }
    let step = format_args!("{}, which the program has open", Shown(path));
    let status = with_path(path, |path| call::status_at(path, AT_SYMLINK_NOFOLLOW)).or_fail(step);
    if ![S_IFREG, S_IFDIR].contains(&(status.st_mode & S_IFMT)) {
        fail(format_args!("{step}, is now something else"));
    }
}

/// Opens it again, where it was.
pub fn open(restored: &Restored<'_>, place: &Place) {
    let Restored { record, path, .. } = *restored;
    let step = format_args!("opening {} as descriptor {}", Shown(path), record.fd);
    let here = here(path, restored.head.process().0.pid, place);
    let opened = with_path(here.as_bytes(), |path| call::openat(path, record.flags, 0));
    restored.take(opened.or_fail(step));
    if record.flags & O_PATH == 0 && record.offset != 0 {
        call::lseek(Fd(record.fd), record.offset as i64, SEEK_SET).or_fail(step);
    }
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
