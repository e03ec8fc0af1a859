//! Resource limits that would get in the way while the image is written.

use ckpt_sys::{Errno, call};
use linux_raw_sys::general::{RLIMIT_FSIZE, RLIMIT_NOFILE, rlimit64};

/// The limits that are raised: how long a file may be, and how many may be open.
const RAISED: [u32; 2] = [RLIMIT_FSIZE, RLIMIT_NOFILE];

/// The soft limits raised as far as the hard ones allow, until this is dropped.
pub struct RaisedLimits {
    of_program: [Option<rlimit64>; RAISED.len()],
}

impl RaisedLimits {
    /// Raises them.
    pub fn raise() -> Self {
        let of_program = RAISED.map(|resource| {
            let limit = call::prlimit(resource, None).ok()?;
            let raised = rlimit64 { rlim_cur: limit.rlim_max, ..limit };
            call::prlimit(resource, Some(&raised)).ok()
        });
        Self { of_program }
    }

    /// The limit of `resource` as the program has it.
    pub fn of_program(&self, resource: u32) -> Result<rlimit64, Errno> {
        let position = RAISED.iter().position(|&raised| raised == resource);
        match position.and_then(|position| self.of_program[position]) {
            Some(limit) => Ok(limit),
            None => call::prlimit(resource, None),
        }
    }
}

impl Drop for RaisedLimits {
    fn drop(&mut self) {
        for (resource, limit) in RAISED.iter().zip(&self.of_program) {
            if let Some(limit) = limit {
                let _ = call::prlimit(*resource, Some(limit));
            }
        }
    }
}
