//! System V semaphores.
//!
//! The kernel knows who has made a set, as a user, and which process was the last to operate on each of its
//! semaphores; who uses it, it does not know. A set is the program's own if its user has made it, the
//! program was the last to operate on one of its semaphores, no other process that still lives was on any,
//! and none waits: all threads of the program's are stopped, and none of them does. Others are left alone.

use bytemuck::{Zeroable, bytes_of};
use ckpt_image::NoteWriter;
use ckpt_image::record::{self, Semaphore, SemaphoreSet, kind};
use ckpt_sys::semaphores::{self, Set, adjustment};
use ckpt_sys::{Errno, call};

use crate::report::{Failure, OrReport};

/// Notes the sets that are the program's own.
pub fn capture(notes: &mut NoteWriter<'_>) -> Result<(), Failure> {
    notes.begin(record::NAME, kind::SEMAPHORES)?;
    let (user, _) = call::user_and_group();
    let mut count = 0;
    semaphores::for_each(|set| {
        if count < SemaphoreSet::MOST && set.creator == user && is_own(&set).unwrap_or(false) {
            capture_one(notes, &set)?;
            count += 1;
        }
        Ok::<(), Failure>(())
    })
    .or_report(format_args!("reading /proc/sysvipc/sem"))?;
    notes.end()?;
    Ok(())
}

fn is_own(set: &Set) -> Result<bool, Errno> {
    Ok(set.is_used_by_this()? && set.other_user()?.is_none())
}

/// Notes one of them; unless somebody has just removed it.
fn capture_one(notes: &mut NoteWriter<'_>, set: &Set) -> Result<(), Failure> {
    let at = notes.open_description().len();
    notes.push(bytes_of(&SemaphoreSet {
        id: set.id,
        key: set.key,
        mode: set.mode,
        user: set.user,
        group: set.group,
        operated: set.operated.into(),
        count: set.count,
        ..SemaphoreSet::zeroed()
    }))?;
    for number in 0..set.count {
        match look_at(set, number) {
            Ok(semaphore) => notes.push(bytes_of(&semaphore))?,
            Err(_) => {
                notes.take_back(at);
                break;
            }
        }
    }
    Ok(())
}

fn look_at(set: &Set, number: u32) -> Result<Semaphore, Errno> {
    let value = call::sem_value(set.id, number)?;
    // To look for it is to have it: at the end of the process the set would seem to be operated on.
    let adjustment = if set.operated { adjustment(set.id, number as u16, value)? } else { 0 };
    Ok(Semaphore {
        value,
        adjustment: adjustment.max(-i16::MAX),
        used: u32::from(call::sem_last_process(set.id, number)? != 0),
    })
}
