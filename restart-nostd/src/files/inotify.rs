//! Inotify queues.

use ckpt_image::files::{Watch, WatchQueue};
use ckpt_image::record::all_with_tails;
use ckpt_sys::Errno;
use ckpt_sys::call::{self, Fd};
use linux_raw_sys::general::{
    AT_SYMLINK_NOFOLLOW, IN_DONT_FOLLOW, IN_MASK_ADD, IN_MASK_CREATE, O_CLOEXEC, O_NONBLOCK,
};

use super::Restored;
use crate::paths::{Shown, with_path};
use crate::report::{OrFail, fail, note};

/// The watches of a queue, with their paths.
fn watches(state: &[u8]) -> impl Iterator<Item = (Watch, &[u8])> {
    all_with_tails::<Watch>(state.get(size_of::<WatchQueue>()..).unwrap_or(&[]))
}

/// Refuses what cannot be watched here.
pub fn check(state: &[u8]) {
    for (_, path) in watches(state) {
        with_path(path, |path| call::status_at(path, AT_SYMLINK_NOFOLLOW))
            .or_fail(format_args!("{}, which the program watches", Shown(path)));
    }
}

/// One that watches nothing yet.
pub fn restore(restored: &Restored<'_>) {
    let step = format_args!("making the inotify queue {}", restored.record.fd);
    let made = call::inotify(restored.record.flags & (O_CLOEXEC | O_NONBLOCK));
    restored.take(made.or_fail(step));
    let WatchQueue { unread } = restored.state();
    if unread != 0 {
        note(format_args!(
            "the inotify queue {} had {unread} bytes of events that are lost",
            restored.record.fd
        ));
    }
}

/// Watches what it watched, by the same numbers.
pub fn watch(restored: &Restored<'_>) {
    let queue = Fd(restored.record.fd);
    for (watch, path) in watches(restored.state) {
        let step = format_args!("watching {} by the inotify queue {}", Shown(path), queue.0);
        // A path without links, but perhaps of a link.
        let mask = watch.mask & !(IN_MASK_ADD | IN_MASK_CREATE) | IN_DONT_FOLLOW;
        call::inotify_set_next(queue, watch.number).or_fail(step);
        let number =
            with_path(path, |path| call::inotify_add_watch(queue, path, mask)).or_fail(step);
        if number != watch.number {
            fail(format_args!("{step}: {}", Errno::EEXIST));
        }
    }
    if let Some(last) = watches(restored.state).map(|(watch, _)| watch.number).max() {
        // Numbers are not used again.
        let _ = call::inotify_set_next(queue, last.saturating_add(1));
    }
}
