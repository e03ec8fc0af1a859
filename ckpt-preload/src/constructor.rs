//! What happens before `main`.

use core::ffi::CStr;
use core::fmt::Write;

use ckpt_arch::{Context, outcome, save_context_then};
use ckpt_sys::call::{self, ALL_SIGNALS};
use ckpt_sys::{Errno, Line, proc, signal_name};

use linux_raw_sys::auxvec::{AT_PAGESZ, AT_RSEQ_FEATURE_SIZE};

use crate::config::{Config, Unusable, config_mut, for_each_variable};
use crate::scratch::Scratch;
use crate::thread::LibcRecord;
use crate::{handler, report, timers};

/// Makes the process ready to be checkpointed; or says in one line why it cannot be, and leaves it
/// as it was.
pub extern "C" fn construct() {
    // A signal must find the library ready or not there; and none may come of a line that it writes.
    let mask = call::set_signal_mask(ALL_SIGNALS).unwrap_or(0);
    match Scratch::map() {
        Ok(scratch) => begin(scratch),
        Err(errno) => {
            not_active(format_args!("no memory to work in: {errno}"));
        }
    }
    let _ = call::set_signal_mask(mask);
}

/// [`construct`], with memory to work in.
fn begin(scratch: Scratch) {
    let mut context = Context::default();
    // SAFETY: nobody uses the configuration and the scratch memory yet; `prepare` does not unwind.
    unsafe {
        config_mut().scratch = scratch;
        handler::set_way_out(&raw mut context);
        let outcome = save_context_then(
            &raw mut context,
            scratch.stack_top(),
            prepare,
            core::ptr::null_mut(),
        );
        if outcome == outcome::SAVED {
            scratch.release();
        } else {
            scratch.unmap();
        }
    }
}

/// [`begin`], on the private stack.
unsafe extern "C" fn prepare(_: *mut u8) -> u64 {
    // SAFETY: this is the constructor, and it calls nothing that takes another reference.
    let config = unsafe { config_mut() };
    if configure(config).is_ok() { outcome::SAVED } else { outcome::FAILED }
}

/// The lower of the signals that C libraries keep for themselves, which their `sigaction` refuses: glibc uses
/// it to cancel threads, musl and glibc for timers that make threads. So a program leaves it alone, though it
/// may handle all others.
const OF_C_LIBRARY: u32 = 32;

/// The library stays out of this process; the line that says why has been written.
struct NotActive;

/// Says in a line why the library stays out of this process.
fn not_active(why: core::fmt::Arguments<'_>) -> NotActive {
    report::line(format_args!("not active: {why}"));
    NotActive
}

/// Fills in the configuration.
fn configure(config: &mut Config) -> Result<(), NotActive> {
    // SAFETY: the constructor is the first to use them.
    let buffers = unsafe { config.scratch.buffers() };
    let [page_size, rseq_features] = proc::auxiliary([AT_PAGESZ, AT_RSEQ_FEATURE_SIZE]);
    config.page_size = page_size.unwrap_or(4096);
    config.rseq_features = rseq_features.unwrap_or(0) as u32;
    config.libc = LibcRecord::find();

    let mut result = config.set_file(b"mycheckpoint");
    let environment =
        for_each_variable(c"/proc/thread-self/environ", buffers.notes, |name, value| {
            if let Err(unusable) = config.take(name, value) {
                result = Err(unusable);
            }
        });
    environment
        .map_err(|errno| not_active(format_args!("reading /proc/thread-self/environ: {errno}")))?;
    result.map_err(|Unusable(name, usable)| not_active(format_args!("{name} must be {usable}")))?;
    let own_file = config.file().windows(2).any(|pair| pair == b"%p");
    if config.interval != 0 && !own_file && parent_is_checkpointed(buffers.notes) {
        config.interval = 0;
    }
    take_signal(config.signal)?;
    if config.interval != 0 {
        timers::start_interval(config.interval, config.signal)
            .map_err(|errno| not_active(format_args!("no timer for CKPT_INTERVAL: {errno}")))?;
    }
    Ok(())
}

/// Installs the handler. A handler that the C library already has for a signal that it keeps for itself is
/// left to it.
fn take_signal(signal: u32) -> Result<(), NotActive> {
    let name = signal_name(signal);
    let before = handler::install(signal)
        .map_err(|errno| not_active(format_args!("no handler for {name}: {errno}")))?;
    if signal == OF_C_LIBRARY && handler::address_of(&before) > handler::IGNORE {
        handler::uninstall(signal, Some(before));
        return Err(not_active(format_args!(
            "the C library uses {name} itself; CKPT_SIGNAL must be another one"
        )));
    }
    Ok(())
}

/// Whether the parent was started with the library and an interval of its own: this process has
/// inherited its environment, and would write to the same file.
fn parent_is_checkpointed(buffer: &mut [u8]) -> bool {
    let mut path = Line::<32>::new();
    let _ = write!(path, "/proc/{}/environ\0", call::getppid());
    let Ok(path) = CStr::from_bytes_with_nul(path.as_bytes()) else { return false };
    let (mut library, mut interval) = (false, false);
    let read: Result<(), Errno> = for_each_variable(path, buffer, |name, value| {
        library |= name == b"LD_PRELOAD" && value.windows(7).any(|part| part == b"libckpt");
        interval |= name == b"CKPT_INTERVAL";
    });
    read.is_ok() && library && interval
}
