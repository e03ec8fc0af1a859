//! Sets of System V semaphores: who uses them, and what is to be undone.

use crate::Errno;
use crate::call::{self, IPC_NOWAIT, MOST_OF_SEMAPHORE, SEM_UNDO, SemaphoreOperation, sem_operate};
use crate::system_v::{Columns, User, for_each_line};

/// A set, as `/proc/sysvipc/sem` shows it (proc(5)).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Set {
    /// Its key, or 0.
    pub key: u32,
    /// Its id.
    pub id: i32,
    /// Its permissions.
    pub mode: u32,
    /// How many semaphores it has.
    pub count: u32,
    /// Its owner
    pub user: u32,
    /// and group.
    pub group: u32,
    /// The user who has made it.
    pub creator: u32,
    /// Whether semop(2) has ever been called for it.
    pub operated: bool,
}

impl Set {
    /// Parses a line; that of the headings is none.
    fn parse(line: &[u8]) -> Option<Self> {
        let mut columns = Columns::of(line);
        let key = columns.key()?;
        let mut next = |radix| columns.number(radix);
        Some(Self {
            key,
            id: next(10)? as i32,
            mode: next(8)? as u32,
            count: next(10)? as u32,
            user: next(10)? as u32,
            group: next(10)? as u32,
            creator: next(10)? as u32,
            operated: next(10).and_then(|_group| next(10))? != 0,
        })
    }

    /// The set of that id, if there is one.
    pub fn find(id: i32) -> Option<Self> {
        let mut found = None;
        for_each(|set| {
            if set.id == id {
                found = Some(set);
            }
            Ok::<(), Errno>(())
        })
        .ok()?;
        found
    }

    /// Whether this process was the last to operate on one of its semaphores.
    ///
    /// # Errors
    ///
    /// Those of semctl(2).
    pub fn is_used_by_this(&self) -> Result<bool, Errno> {
        let own = call::getpid();
        for number in 0..self.count {
            if call::sem_last_process(self.id, number)? == own {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Who else uses it, as far as the kernel tells: a process that lives and was the last to operate on
    /// one of its semaphores, or one that waits for one.
    ///
    /// # Errors
    ///
    /// Those of semctl(2).
    pub fn other_user(&self) -> Result<Option<User>, Errno> {
        let own = call::getpid();
        let mut known = own;
        for number in 0..self.count {
            let pid = call::sem_last_process(self.id, number)?;
            if pid != 0 && pid != own && pid != known {
                if let Some(user) = User::alive(pid) {
                    return Ok(Some(user));
                }
                known = pid;
            }
            if call::sem_waiting(self.id, number)? > 0 {
                return Ok(Some(User::Waiting));
            }
        }
        Ok(None)
    }
}

/// Calls `each` for every set there is.
///
/// # Errors
///
/// Those of open(2) and read(2); what `each` fails with ends the listing.
pub fn for_each<E: From<Errno>>(mut each: impl FnMut(Set) -> Result<(), E>) -> Result<(), E> {
    for_each_line(c"/proc/sysvipc/sem", |line| Set::parse(line).map_or(Ok(()), &mut each))
}

/// What the end of this process would add to a semaphore, whose value is `value`, because of `SEM_UNDO`
/// (`semadj` in semop(2)). Nothing tells it; but it has a range, and an operation that would lead out of
/// that fails with another error than one that would have to wait. So it is found by operations of which
/// none is done:
///
/// ```text
///   -value          now it is 0
///   +MOST           now it is MOST
///   -a with undo    semadj is a higher: beyond MOST it is ERANGE
///   +a              as before
///   ...             again, since the range is wider than an operation can be
///   -MOST - 1       this would have to wait: EAGAIN, and all is as it was
/// ```
///
/// # Errors
///
/// Those of semop(2).
pub fn adjustment(id: i32, number: u16, value: u16) -> Result<i16, Errno> {
    const MOST: i32 = MOST_OF_SEMAPHORE as i32;
    let operation = |change: i32, flags| SemaphoreOperation {
        number,
        change: change as i16,
        flags: flags | IPC_NOWAIT,
    };
    let is_beyond = |higher: i32| {
        let a = higher.min(MOST);
        let b = (higher - a).min(MOST);
        let c = higher - a - b;
        let result = sem_operate(
            id,
            &[
                operation(-i32::from(value), 0),
                operation(MOST, 0),
                operation(-a, SEM_UNDO),
                operation(a, 0),
                operation(-b, SEM_UNDO),
                operation(b, 0),
                operation(-c, SEM_UNDO),
                operation(-MOST - 1, 0),
            ],
        );
        match result {
            Err(Errno::ERANGE) => Ok(true),
            Err(Errno::EAGAIN) => Ok(false),
            Err(why) => Err(why),
            Ok(()) => Err(Errno::EINVAL), // There is no such value.
        }
    };
    // Mostly it is 0, which takes two questions.
    if !is_beyond(MOST)? && is_beyond(MOST + 1)? {
        return Ok(0);
    }
    let (mut within, mut beyond) = (0, 2 * MOST + 2);
    while within + 1 < beyond {
        let middle = within.midpoint(beyond);
        if is_beyond(middle)? {
            beyond = middle;
        } else {
            within = middle;
        }
    }
    Ok((MOST - within) as i16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_sets() {
        let line = b"-559038737     294912   640          3  1000   100     0     0 1700000000 1";
        let set = Set {
            key: 0xdead_beef,
            id: 294_912,
            mode: 0o640,
            count: 3,
            user: 1000,
            group: 100,
            creator: 0,
            operated: true,
        };
        assert_eq!(Set::parse(line), Some(set));
        assert_eq!(Set::parse(b"       key      semid perms      nsems   uid   gid"), None);
    }

    /// What is found is what the kernel will add; and to look changes nothing.
    #[test]
    fn adjustments() {
        let id = call::sem_make(0, 1, 0o600).unwrap();
        for undone in [0, 1, -1, 2, 100, -100, 32_766, 32_767, -32_767] {
            for rest in [0, 7, 32_767 - i32::from(undone).abs()] {
                let before = i32::from(undone).max(0)
                    + if undone < 0 { 0 } else { rest.min(32_767 - i32::from(undone)) };
                call::sem_set_value(id, 0, before as u16).unwrap();
                if undone != 0 {
                    let operation =
                        SemaphoreOperation { number: 0, change: -undone, flags: SEM_UNDO };
                    sem_operate(id, &[operation]).unwrap();
                }
                let value = call::sem_value(id, 0).unwrap();
                assert_eq!(adjustment(id, 0, value), Ok(undone));
                assert_eq!(call::sem_value(id, 0), Ok(value));
            }
        }
        assert!(Set::find(id).unwrap().is_used_by_this().unwrap());
        assert_eq!(Set::find(id).unwrap().other_user(), Ok(None));
        call::sem_remove(id).unwrap();
        assert_eq!(Set::find(id), None);
    }
}
