//! The monotonic clock, which begins anew at every boot.
//!
//! A program that waits until a point of `CLOCK_MONOTONIC` would, after a reboot or on another
//! machine, wait for days, or not at all. A *time namespace* moves that clock and `CLOCK_BOOTTIME` for
//! the processes in it, by offsets from the kernel's own; and a process with one thread can go into
//! one as it is:
//!
//! * on the boot that the image was taken in, the clocks run on with the offsets that the program had:
//!   mostly none, and nothing is to be done;
//! * elsewhere they go on where they stood at the checkpoint.
//!
//! It is done early: the namespace changes what the vDSO reads the time from, and the vDSO is moved
//! later.

use ckpt_image::Head;
use ckpt_image::record::{Clocks, Process, first, kind};
use ckpt_sys::call::{self, Change, File, Kin};
use ckpt_sys::proc::{self, CLOCK_OFFSETS, ClockOffsets};
use linux_raw_sys::general::{
    CLD_EXITED, CLOCK_BOOTTIME, CLOCK_MONOTONIC, CLONE_NEWTIME, SIGCHLD, WEXITED,
};

use crate::image::Image;
use crate::namespace::{self, Failure};
use crate::report::{self, fail, note, tell};
use crate::signals;

/// Which clock the program goes on with.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Clock {
    /// Its own.
    Continue,
    /// This machine's.
    Host,
}

impl Clock {
    /// Both, by their words on the command line.
    pub const ALL: [(&[u8], Self); 2] = [(b"continue", Self::Continue), (b"host", Self::Host)];
}

/// Gives this process the clocks of the program, `forced` being what the command line says. Unless
/// they are asked for, it is not an error that they cannot be had.
pub fn set(image: &Image, forced: Option<Clock>) {
    if forced == Some(Clock::Host) {
        return;
    }
    let here = proc::clock_offsets();
    let wanted = wanted(&image.head(), here);
    if wanted == here {
        return;
    }
    let refuse = |Failure { step, errno }| {
        let why = format_args!("the monotonic clock cannot go on where it stood, {step}: {errno}");
        match forced {
            Some(_) => fail(format_args!("{why}; use --clock=host")),
            None => note(format_args!("{why}; it is that of this machine")),
        }
    };
    // First in a child: half-way there is no way back.
    let tried = signals::set_default(SIGCHLD).and_then(|()| call::fork(Kin::Child));
    match tried {
        Ok(0) => {
            let failure = enter(wanted).err();
            let status = if failure.is_some() { report::FAILED } else { 0 };
            failure.map(refuse);
            call::exit_group(status)
        }
        Ok(child) => {
            let end = call::wait(Some(child), WEXITED);
            if matches!(end, Ok(Some(Change { code: CLD_EXITED, status: 0, .. }))) {
                enter(wanted).unwrap_or_else(refuse);
                tell(format_args!("the monotonic clock goes on where it stood"));
            } else if forced.is_some() {
                call::exit_group(report::FAILED)
            }
        }
        Err(errno) => refuse(Failure { step: "fork", errno }),
    }
}

/// The offsets with which the clocks go on, `here` being those of this process.
fn wanted(head: &Head<'_>, here: ClockOffsets) -> ClockOffsets {
    let (Process { boot_id, monotonic, .. }, _) = head.process();
    let clocks = head.note(kind::CLOCKS).and_then(first::<Clocks>).ok().map(|(clocks, _)| clocks);
    let saved = clocks.map_or_else(ClockOffsets::default, |clocks| ClockOffsets {
        monotonic: clocks.monotonic_offset,
        boottime: clocks.boottime_offset,
    });
    let kernels = |clock: u32, offset| (call::clock(clock as i32) as i64).wrapping_sub(offset);
    let kernels_monotonic = kernels(CLOCK_MONOTONIC, here.monotonic);
    let was = (monotonic as i64).wrapping_sub(saved.monotonic);
    if boot_id == proc::boot_id() && was <= kernels_monotonic {
        return saved;
    }
    let boottime = clocks.map_or(here.boottime, |clocks| {
        (clocks.boottime as i64).wrapping_sub(kernels(CLOCK_BOOTTIME, here.boottime))
    });
    ClockOffsets { monotonic: (monotonic as i64).wrapping_sub(kernels_monotonic), boottime }
}

/// Goes into a time namespace with these offsets.
fn enter(offsets: ClockOffsets) -> Result<(), Failure> {
    const BILLION: i64 = 1_000_000_000;
    let failed = |step| move |errno| Failure { step, errno };
    namespace::enter(CLONE_NEWTIME)?;
    let parts = |offset: i64| (offset.div_euclid(BILLION), offset.rem_euclid(BILLION));
    let ((seconds, rest), (boot_seconds, boot_rest)) =
        (parts(offsets.monotonic), parts(offsets.boottime));
    // The numbers of the clocks: by name they are known only from Linux 5.7 on.
    let text = format_args!(
        "{CLOCK_MONOTONIC} {seconds} {rest}\n{CLOCK_BOOTTIME} {boot_seconds} {boot_rest}\n"
    );
    namespace::write(CLOCK_OFFSETS, text).map_err(failed("writing its offsets"))?;
    let file = File::open(c"/proc/self/ns/time_for_children", 0)
        .map_err(failed("opening its namespace"))?;
    call::setns(file.fd(), CLONE_NEWTIME).map_err(failed("setns"))
}
