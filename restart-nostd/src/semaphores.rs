//! System V semaphores: a set that is gone is made again under its id, and each gets the values that it had.

use ckpt_image::record::{Semaphore, SemaphoreSet, all, all_with_tails, are_whole, kind};
use ckpt_image::{Head, Invalid};
use ckpt_sys::call::{self, IPC_NOWAIT, MOST_OF_SEMAPHORE, SEM_UNDO, SemaphoreOperation};
use ckpt_sys::semaphores::Set;
use ckpt_sys::{Errno, proc};

use crate::image::Image;
use crate::report::{OrFail, fail, note};
use crate::system_v::{LeftAlone, Maker, lasting};
use crate::undo::{self, Made};

/// The sets that another process uses by now.
static LEFT_ALONE: LeftAlone<{ SemaphoreSet::MOST }> = LeftAlone::new();

/// The sets of an image, each with what is known of its semaphores.
fn sets<'a>(head: &Head<'a>) -> impl Iterator<Item = (SemaphoreSet, &'a [u8])> {
    all_with_tails(head.note(kind::SEMAPHORES).unwrap_or(&[]))
}

/// Refuses keys that another set has, and says which sets are left alone.
pub fn check(image: &Image, head: &Head<'_>) {
    let is_well = |semaphore: Semaphore| {
        semaphore.value <= MOST_OF_SEMAPHORE as u16 && semaphore.adjustment > i16::MIN
    };
    let whole = are_whole::<SemaphoreSet>(head.note(kind::SEMAPHORES).unwrap_or(&[]));
    if !whole
        || sets(head).count() > SemaphoreSet::MOST
        || !sets(head).flat_map(|(_, semaphores)| all(semaphores)).all(is_well)
    {
        image.fail(&Invalid::Damaged);
    }
    for (place, (set, _)) in sets(head).enumerate() {
        let SemaphoreSet { id, key, .. } = set;
        match there(head, &set) {
            Some(found) => {
                let step = format_args!("asking about the set of semaphores {id} (key {key:#x})");
                if let Some(user) = lasting(|| found.other_user().transpose()) {
                    let user = user.or_fail(step);
                    note(format_args!(
                        "the set of semaphores {id} (key {key:#x}) is used by {user} meanwhile, and \
                         stays as it is"
                    ));
                    LEFT_ALONE.add(place);
                }
            }
            None if lasting(|| Set::find(id)).is_some() => fail(format_args!(
                "another set of semaphores has the id {id} by now; remove it (ipcrm -s {id}), and it is \
                 made again"
            )),
            None if key != 0 && call::sem_find(key) != Err(Errno::ENOENT) => fail(format_args!(
                "there is another set of semaphores of the key {key:#x}; remove it (ipcrm -S \
                 {key:#x}), and it is made again"
            )),
            None => {}
        }
    }
}

/// What the kernel tells of a set, if it is still there.
fn there(head: &Head<'_>, set: &SemaphoreSet) -> Option<Set> {
    let same_boot = head.process().0.boot_id == proc::boot_id();
    Set::find(set.id).filter(|found| same_boot && (found.key, found.count) == (set.key, set.count))
}

/// Makes the sets that are gone.
pub fn make(image: &Image) {
    let head = image.head();
    for (set, _) in LEFT_ALONE.others(sets(&head)) {
        if there(&head, &set).is_none() {
            make_one(&set);
        }
    }
}

/// Makes a set again, under its id.
fn make_one(set: &SemaphoreSet) {
    let SemaphoreSet { id, key, mode, user, group, count, .. } = *set;
    let step = format_args!("making the set of semaphores {id} (key {key:#x}) again");
    let maker = Maker {
        next_id: c"/proc/sys/kernel/sem_next_id",
        make: &|key| call::sem_make(key, count, mode),
        remove: call::sem_remove,
    };
    maker.make_as(id, key, step);
    undo::remember(Made::Semaphores(id));
    let _ = call::sem_set(id, user, group, mode);
}

/// Gives the semaphores their values.
pub fn fill(image: &Image) {
    for (set, semaphores) in LEFT_ALONE.others(sets(&image.head())) {
        let step = format_args!("setting the semaphores {} (key {:#x})", set.id, set.key);
        for (number, semaphore) in all(semaphores).enumerate() {
            fill_one(&set, number as u16, &semaphore).or_fail(step);
        }
    }
}

/// Sets a semaphore to its value, and what of that the end of the process undoes. One that nobody has
/// operated on stays so.
fn fill_one(set: &SemaphoreSet, number: u16, semaphore: &Semaphore) -> Result<(), Errno> {
    let Semaphore { value, adjustment, used } = *semaphore;
    let id = set.id;
    if used == 0 && call::sem_value(id, number.into())? == value {
        return Ok(());
    }
    if set.operated == 0 {
        return call::sem_set_value(id, number.into(), value);
    }
    let rest = value as i16 - (-adjustment).max(0);
    let operations = [(-adjustment, SEM_UNDO), (rest, 0)]
        .map(|(change, flags)| SemaphoreOperation { number, change, flags: flags | IPC_NOWAIT });
    let needed = match (adjustment, rest) {
        (_, 0) => &operations[..1],
        (0, _) => &operations[1..],
        _ => &operations[..],
    };
    call::sem_set_value(id, number.into(), adjustment.max(0) as u16)?;
    call::sem_operate(id, needed)
}
