//! What the kinds of System V objects have in common: a program knows them by their ids.
//!
//! An id can be chosen with a privilege: the next object that is made gets the one that has been asked for,
//! whoever makes it. So a restart may get an id that another one has asked for, or a program may. What has
//! got a wrong one is removed, and is asked for again. Without the privilege the kernel gives ascending ids,
//! and after a reboot comes to the one that is wanted sooner or later.

use core::ffi::CStr;
use core::fmt;
use core::sync::atomic::{AtomicBool, Ordering::Relaxed};

use ckpt_sys::{Errno, call, proc};

use crate::report::{OrFail, fail};

/// How often an object is asked for again, or looked for again.
const ATTEMPTS: usize = 100;
/// How long others have meanwhile, in nanoseconds.
const MOMENT: u64 = 1_000_000;

/// How an object is made.
pub struct Maker<'m> {
    /// The file that says which id the next one gets.
    pub next_id: &'static CStr,
    /// Makes one with a key, or with none (0); it is under no other key yet.
    pub make: &'m dyn Fn(u32) -> Result<i32, Errno>,
    /// Removes one.
    pub remove: fn(i32) -> Result<(), Errno>,
}

impl Maker<'_> {
    /// Makes one, under the id `id` if that can be chosen and is free; returns the id that it has.
    pub fn make(&self, id: i32, key: u32) -> Result<i32, Errno> {
        for _ in 0..ATTEMPTS {
            let chosen = proc::write_number(self.next_id, id.into()).is_ok();
            let made = (self.make)(key).inspect_err(|_| self.spend_choice(chosen))?;
            if made == id || !chosen {
                return Ok(made);
            }
            (self.remove)(made)?;
            call::sleep(MOMENT);
        }
        (self.make)(key)
    }

    /// Makes one under the id `id`, or ends the process with a line about `step`.
    pub fn make_as(&self, id: i32, key: u32, step: fmt::Arguments<'_>) {
        /// How many ids are tried, of those that the kernel gives.
        const PATIENCE: usize = 4096;
        for _ in 0..PATIENCE {
            let made = self.make(id, key).or_fail(step);
            if made == id {
                return;
            }
            (self.remove)(made).or_fail(step);
            if made > id {
                break;
            }
        }
        fail(format_args!(
            "{step}: its id cannot be had; that takes CAP_CHECKPOINT_RESTORE (restart it as root), and \
             that nothing else has its place in the kernel's table"
        ))
    }

    /// Sees to it that nobody gets an id that was chosen for an object which could not be made.
    fn spend_choice(&self, chosen: bool) {
        if chosen && let Ok(made) = (self.make)(0) {
            let _ = (self.remove)(made);
        }
    }
}

/// The objects of a kind that another process uses by now, by their place in the image. It cannot be told any
/// more when this process is in a pid namespace of its own.
pub struct LeftAlone<const MOST: usize>([AtomicBool; MOST]);

impl<const MOST: usize> LeftAlone<MOST> {
    /// None.
    pub const fn new() -> Self {
        Self([const { AtomicBool::new(false) }; MOST])
    }

    /// The one at `place`, too.
    pub fn add(&self, place: usize) {
        self.0[place].store(true, Relaxed);
    }

    /// All but those.
    pub fn others<T>(&self, all: impl Iterator<Item = T>) -> impl Iterator<Item = T> {
        all.zip(&self.0).filter(|(_, left)| !left.load(Relaxed)).map(|(object, _)| object)
    }
}

/// What `look` finds, if it finds something for a while. What another restart has made under an id that it
/// does not want soon goes, and so does a process that has just been killed.
pub fn lasting<T>(look: impl Fn() -> Option<T>) -> Option<T> {
    for _ in 0..ATTEMPTS {
        look()?;
        call::sleep(MOMENT);
    }
    look()
}
