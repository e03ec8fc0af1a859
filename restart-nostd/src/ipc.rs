//! System V shared memory: a segment that is still there is mapped again, one that is gone is made again.

use ckpt_arch::ADDRESS_END;
use ckpt_image::record::{Segment, all, kind};
use ckpt_image::{Head, Invalid};
use ckpt_sys::call::{self, SHM_DEST, SharedSegment};
use ckpt_sys::{Errno, proc};

use crate::image::Image;
use crate::report::{OrFail, fail, note};
use crate::system_v::Maker;
use crate::undo::{self, Made};

/// The segments that the program has mapped; an image without the note has none.
fn segments(head: &Head<'_>) -> impl Iterator<Item = Segment> {
    all(head.note(kind::SEGMENTS).unwrap_or(&[]))
}

/// Refuses segments that another process has by now, and keys that another segment has.
pub fn check(head: &Head<'_>) {
    for segment in segments(head) {
        let Segment { id, key, .. } = segment;
        match there(head, &segment) {
            Some(status) if status.attached > 0 => fail(format_args!(
                "the shared memory segment {id} (key {key:#x}) is attached by another process; try \
                 again when that has ended"
            )),
            None if key != 0 && call::shm_find(key) != Err(Errno::ENOENT) => fail(format_args!(
                "there is another shared memory segment of the key {key:#x}; remove it (ipcrm -M \
                 {key:#x}), and it is made again"
            )),
            _ => {}
        }
    }
}

/// What the kernel tells of a segment, if it is still there.
fn there(head: &Head<'_>, segment: &Segment) -> Option<SharedSegment> {
    let same_boot = head.process().0.boot_id == proc::boot_id();
    let status = call::shm_status(segment.id).ok().filter(|_| same_boot)?;
    ((status.key, status.size) == (segment.key, segment.size)).then_some(status)
}

/// The segment with an id.
fn segment(image: &Image, id: u64) -> Segment {
    let found = segments(&image.head()).find(|segment| segment.id as u64 == id);
    found.unwrap_or_else(|| image.fail(&Invalid::Damaged))
}

/// How much memory segment `id` takes; `least` of it is mapped.
pub fn size(image: &Image, id: u64, least: u64) -> u64 {
    let size = segment(image, id).size.min(ADDRESS_END).next_multiple_of(proc::page_size());
    if size < least {
        image.fail(&Invalid::Damaged);
    }
    size
}

/// Maps segment `id` at `address`.
pub fn attach(image: &Image, id: u64, address: u64) {
    let (head, segment) = (image.head(), segment(image, id));
    let step = format_args!("attaching the shared memory segment {id}");
    let used = match there(&head, &segment) {
        Some(_) => segment.id,
        None => make(&segment),
    };
    let at = call::shm_attach(used, address).or_fail(step);
    if at != address {
        Err::<(), _>(Errno::EEXIST).or_fail(step);
    }
    if segment.mode & SHM_DEST != 0 {
        call::shm_remove(used).or_fail(step);
    }
}

/// Makes a segment again, under its id if that is possible.
fn make(segment: &Segment) -> i32 {
    let Segment { id, key, size, mode, user, group, .. } = *segment;
    let maker = Maker {
        next_id: c"/proc/sys/kernel/shm_next_id",
        make: &|key| call::shm_make(key, size, mode),
        remove: call::shm_remove,
    };
    let made = maker
        .make(id, key)
        .or_fail(format_args!("making the shared memory segment {id} (key {key:#x}) again"));
    undo::remember(Made::Segment(made));
    let _ = call::shm_set(made, user, group, mode);
    if made != id && mode & SHM_DEST == 0 {
        note(format_args!("the shared memory segment {id} (key {key:#x}) has the id {made} now"));
    }
    made
}
