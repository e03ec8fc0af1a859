//! Resource limits that would get in the way while the image is written.

use core::cell::UnsafeCell;

use ckpt_sys::{Errno, call};
use linux_raw_sys::general::{RLIMIT_FSIZE, RLIMIT_NOFILE, rlimit64};

/// The limits that are raised: how long a file may be, and how many may be open.
const RAISED: [u32; 2] = [RLIMIT_FSIZE, RLIMIT_NOFILE];

/// What the program has them at, as long as they are raised.
struct OfProgram(UnsafeCell<[Option<rlimit64>; RAISED.len()]>);
// SAFETY: used by the thread that is on the private stack alone.
unsafe impl Sync for OfProgram {}

static OF_PROGRAM: OfProgram = OfProgram(UnsafeCell::new([None; RAISED.len()]));

fn of_programs() -> &'static mut [Option<rlimit64>; RAISED.len()] {
    // SAFETY: see `OfProgram`; no function here keeps the reference while it calls another.
    unsafe { &mut *OF_PROGRAM.0.get() }
}

/// Raises the soft limits as far as the hard ones allow.
pub fn raise() {
    *of_programs() = RAISED.map(|resource| {
        let limit = call::prlimit(resource, None).ok()?;
        call::prlimit(resource, Some(&rlimit64 { rlim_cur: limit.rlim_max, ..limit })).ok()
    });
}

/// The limit of `resource` as the program has it.
pub fn of_program(resource: u32) -> Result<rlimit64, Errno> {
    let position = RAISED.iter().position(|&raised| raised == resource);
    match position.and_then(|position| of_programs()[position]) {
        Some(limit) => Ok(limit),
        None => call::prlimit(resource, None),
    }
}

/// Puts them back to what the program has.
pub fn put_back() {
    for (resource, limit) in RAISED.iter().zip(of_programs()) {
        if let Some(limit) = limit.take() {
            let _ = call::prlimit(*resource, Some(&limit));
        }
    }
}
