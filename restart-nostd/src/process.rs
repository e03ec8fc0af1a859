//! What else the kernel keeps of a process.

use core::ffi::CStr;

use ckpt_image::Invalid;
use ckpt_image::record::{Attributes, PRCTLS, first, kind, text};
use ckpt_sys::call;
use ckpt_sys::proc::{self, CORE_DUMP_FILTER, OOM_SCORE_ADJUSTMENT};
use linux_raw_sys::general::{RLIM_NLIMITS, rlimit64};

use crate::image::Image;
use crate::paths::{Shown, with_path};
use crate::report::{OrFail, note};

/// What the image has of it, and the working directory.
fn of_image(image: &Image) -> (Attributes, &'static [u8]) {
    let parsed = image.head().note(kind::ATTRIBUTES).and_then(first::<Attributes>);
    parsed.unwrap_or_else(|why: Invalid| image.fail(&why))
}

/// Restores all but the limits. What needs a privilege that this process has not is noted, and stays
/// as it is.
pub fn restore(image: &Image) {
    let (attributes, directory) = of_image(image);
    let directory = text(directory);
    with_path(directory, call::chdir)
        .or_fail(format_args!("{}, the program's working directory", Shown(directory)));
    call::umask(attributes.umask);
    if let Err(errno) = call::personality(attributes.personality).map(drop) {
        note(format_args!("the personality is not restored: {errno}"));
    }
    for (option, &value) in PRCTLS.iter().zip(&attributes.prctls) {
        let here = call::prctl_read(option.get, option.through_pointer);
        if value >= 0 && here != Ok(value) {
            // SAFETY: these options take a number and leave memory alone.
            let result = unsafe { call::prctl(option.set, value as usize) };
            if let Err(errno) = result {
                note(format_args!("prctl option {} is not restored: {errno}", option.set));
            }
        }
    }
    restore_number("core dump filter", CORE_DUMP_FILTER, 16, attributes.core_dump_filter.into());
    let adjustment = attributes.oom_score_adjustment.into();
    restore_number("OOM score adjustment", OOM_SCORE_ADJUSTMENT, 10, adjustment);
}

/// Restores the number in a small file of `/proc`, if it is not what it was already.
fn restore_number(what: &str, path: &CStr, radix: u32, saved: i64) {
    if proc::read_number(path, radix).is_some_and(|here| here != saved)
        && let Err(errno) = proc::write_number(path, saved)
    {
        note(format_args!("the {what} is not restored: {errno}"));
    }
}

/// Restores the resource limits. Until then those of this program apply, which may be wider.
pub fn restore_limits(image: &Image) {
    let (attributes, _) = of_image(image);
    for (resource, &[soft, hard]) in (0..RLIM_NLIMITS).zip(&attributes.limits) {
        restore_limit(resource, rlimit64 { rlim_cur: soft, rlim_max: hard });
    }
}

/// The resource limits by number (getrlimit(2)).
const LIMITS: [&str; RLIM_NLIMITS as usize] = [
    "CPU",
    "FSIZE",
    "DATA",
    "STACK",
    "CORE",
    "RSS",
    "NPROC",
    "NOFILE",
    "MEMLOCK",
    "AS",
    "LOCKS",
    "SIGPENDING",
    "MSGQUEUE",
    "NICE",
    "RTPRIO",
    "RTTIME",
];

/// Restores a resource limit, as far as the hard limit here allows.
fn restore_limit(resource: u32, saved: rlimit64) {
    let Ok(here) = call::prlimit(resource, None) else { return };
    let name = LIMITS[resource as usize];
    if call::prlimit(resource, Some(&saved)).is_err() {
        let hard = saved.rlim_max.min(here.rlim_max);
        let soft = saved.rlim_cur.min(hard);
        let possible = rlimit64 { rlim_cur: soft, rlim_max: hard };
        let result = call::prlimit(resource, Some(&possible));
        if let Err(errno) = result {
            note(format_args!("RLIMIT_{name} is not restored: {errno}"));
        } else if soft != saved.rlim_cur {
            note(format_args!("RLIMIT_{name} is {soft}: here it cannot be higher; see ulimit"));
        }
    }
}
