//! What makes an image that would not work: refused by name, before anything is written.

use ckpt_arch::{NO_SHADOW_STACK, shadow_stack_active};
use ckpt_sys::call;

use crate::report::{Failure, not_written};

/// Refuses what cannot be restored, apart from descriptors and mappings, which are judged as they
/// are captured.
pub fn check() -> Result<(), Failure> {
    match call::child() {
        Some(Some(zombie)) => {
            return Err(not_written(format_args!(
                "child {zombie} has ended and waits to be reaped; try again when it has been"
            )));
        }
        Some(None) => {
            return Err(not_written(format_args!(
                "the program has a living child process; try again when it has ended"
            )));
        }
        None => {}
    }
    if call::same_memory(call::gettid(), call::getppid()) == Ok(true) {
        return Err(not_written(format_args!(
            "the program shares its memory with its parent (vfork); try again in a moment"
        )));
    }
    if shadow_stack_active() {
        return Err(not_written(format_args!(
            "the program has a shadow stack; start it with {NO_SHADOW_STACK}"
        )));
    }
    Ok(())
}
