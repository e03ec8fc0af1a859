//! What else the kernel keeps of a process.

use ckpt_image::Invalid;
use ckpt_image::record::{Attributes, PRCTLS, first, kind, text};
use ckpt_sys::call::{self, SchedulingAttributes};
use ckpt_sys::{Errno, Escaped};
use linux_raw_sys::general::{RLIM_NLIMITS, rlimit64};
use linux_raw_sys::prctl::PR_SET_NAME;

use crate::image::Image;
use crate::memory::with_path;
use crate::report::{OrFail, note};

/// Restores it. What needs a privilege that this process has not is noted, and stays as it is.
pub fn restore(image: &Image) {
    let note_of = image.head().note(kind::ATTRIBUTES);
    let parsed = note_of.and_then(first::<Attributes>);
    let (attributes, directory) = parsed.unwrap_or_else(|why: Invalid| image.fail(&why));
    let directory = text(directory);
    with_path(directory, call::chdir)
        .or_fail(format_args!("{}, the program's working directory", Escaped(directory)));
    call::umask(attributes.umask);
    for (resource, &[soft, hard]) in (0..RLIM_NLIMITS).zip(&attributes.limits) {
        restore_limit(resource, rlimit64 { rlim_cur: soft, rlim_max: hard });
    }
    restore_scheduling(&attributes);
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
    // SAFETY: the kernel reads the name, which a NUL ends.
    let _ = unsafe { call::prctl(PR_SET_NAME, attributes.name.as_ptr() as usize) };
}

/// Restores a resource limit, as far as the hard limit here allows.
fn restore_limit(resource: u32, saved: rlimit64) {
    let Ok(here) = call::prlimit(resource, None) else { return };
    if call::prlimit(resource, Some(&saved)).is_err() {
        let hard = saved.rlim_max.min(here.rlim_max);
        let soft = saved.rlim_cur.min(hard);
        let possible = rlimit64 { rlim_cur: soft, rlim_max: hard };
        let result = call::prlimit(resource, Some(&possible));
        if let Err(errno) = result {
            note(format_args!("resource limit {resource} is not restored: {errno}"));
        } else if soft != saved.rlim_cur {
            note(format_args!("resource limit {resource} is {soft}: here it cannot be higher"));
        }
    }
}

/// Restores policy, priorities and affinity.
fn restore_scheduling(attributes: &Attributes) {
    let scheduling = SchedulingAttributes {
        size: size_of::<SchedulingAttributes>() as u32,
        policy: attributes.scheduling_policy,
        flags: attributes.scheduling_flags,
        nice: attributes.nice,
        priority: attributes.scheduling_priority,
        ..SchedulingAttributes::default()
    };
    let mask = &attributes.affinity;
    let used = (attributes.affinity_length as usize / size_of::<u64>()).min(mask.len());
    let steps: [(&str, Result<(), Errno>); 4] = [
        ("nice value", call::set_nice(attributes.nice)),
        ("scheduling policy", call::set_scheduling(&scheduling)),
        ("I/O priority", call::set_io_priority(attributes.io_priority)),
        ("CPU affinity", call::set_affinity(&mask[..used])),
    ];
    for (what, result) in steps {
        if let Err(errno) = result {
            note(format_args!("the {what} is not restored: {errno}"));
        }
    }
}
