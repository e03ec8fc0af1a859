//! An image may say anything, also that there is memory where there is none. Whoever believes it gets a
//! SIGSEGV or SIGBUS; here that is one more line that says what is wrong.

use ckpt_arch::signal_return;
use ckpt_sys::call::{self, ALL_SIGNALS, signal_bit};
use linux_raw_sys::general::{SA_RESTORER, SIGBUS, SIGSEGV, kernel_sigaction, kernel_sigset_t};

use crate::report::{OrFail, fail};

/// The signals of a wrong address, as a mask.
pub const FAULTS: u64 = signal_bit(SIGSEGV) | signal_bit(SIGBUS);

/// Lets a wrong address end the process with a line. To be called again where this program has moved.
pub fn catch() {
    let action = kernel_sigaction {
        sa_handler_kernel: Some(handle),
        sa_flags: SA_RESTORER.into(),
        sa_restorer: Some(signal_return),
        sa_mask: kernel_sigset_t { sig: [ALL_SIGNALS] },
    };
    for signal in [SIGSEGV, SIGBUS] {
        // SAFETY: it is a handler, and does not return.
        unsafe { call::sigaction(signal, Some(&action)) }.or_fail(format_args!("sigaction"));
    }
}

unsafe extern "C" fn handle(_: i32) {
    fail(format_args!(
        "the image is damaged, or memory is not as it says; copy it again or use an older one"
    ))
}
