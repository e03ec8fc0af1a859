//! Memory of a running program that could not be restored.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileTypeExt;

use ckpt_image::VmFlags;
use ckpt_image::files::NO_NAME;
use ckpt_sys::Escaped;
use ckpt_sys::call::shm_status;
use ckpt_sys::descriptor::is_segment;

use super::Findings;
use super::process::Region;

/// Finds the mappings that stand in the way of a checkpoint.
pub fn check(memory: &[Region], found: &mut Findings) {
    let mut all_well = true;
    for region in memory {
        let what = obstacle(region).or_else(|| {
            let shared = is_shared_with_another(memory, region) || is_attached(memory, region);
            shared.then_some("is shared with another process")
        });
        if let Some(what) = what {
            all_well = false;
            found.no(format!(
                "memory at {:x} ({}) {what}, which cannot be restored yet",
                region.start,
                Escaped(&region.name)
            ));
        }
    }
    if all_well {
        found.ok("all its memory can be restored, and none is shared with another process");
    }
}

/// What is wrong with a mapping by itself.
fn obstacle(region: &Region) -> Option<&'static str> {
    const DEVICE: VmFlags = VmFlags::DEVICE.with(VmFlags::PURE_PFN);
    const WATCHED: VmFlags =
        VmFlags::UFFD_MISSING.with(VmFlags::UFFD_WRITE).with(VmFlags::UFFD_MINOR);
    if region.flags.any_of(DEVICE) && !region.name.starts_with(b"[v") {
        Some("is a device's memory")
    } else if region.flags.any_of(WATCHED) {
        Some("is watched by userfaultfd")
    } else if region.flags.any_of(VmFlags::SHADOW_STACK) {
        Some("is a shadow stack")
    } else if region.protection_key != 0 {
        Some("has a protection key")
    } else if is_huge_without_file(region) {
        Some("is of huge pages")
    } else if region.name.starts_with(b"anon_inode:") || region.name.starts_with(b"/[aio]") {
        Some("is an object of the kernel")
    } else if has_no_file(region) || !region.name.starts_with(b"/") {
        None
    } else {
        let metadata = fs::metadata(OsStr::from_bytes(&region.name));
        let device = metadata.is_ok_and(|metadata| metadata.file_type().is_char_device());
        (device && region.name != b"/dev/zero").then_some("is of a device")
    }
}

/// Whether it is shared and of no file, but a memfd or a segment of System V shared memory.
fn is_huge_without_file(region: &Region) -> bool {
    region.flags.any_of(VmFlags::HUGE_TLB)
        && region.shared
        && region.name.ends_with(NO_NAME)
        && region.name != b"/anon_hugepage (deleted)"
}

/// Whether only a process can hold it: there is no file of that name.
fn has_no_file(region: &Region) -> bool {
    region.name.starts_with(b"[anon_shmem:") || region.name.ends_with(NO_NAME)
}

/// Whether another process has the same segment of System V shared memory attached (shmctl(2)).
fn is_attached(memory: &[Region], region: &Region) -> bool {
    let mappings = memory.iter().filter(|other| other.object == region.object).count();
    is_segment(&region.name)
        && shm_status(region.object.1 as i32).is_ok_and(|status| status.attached != mappings as u64)
}

/// Whether another process has mapped the same memory: of the pages that are in memory some are
/// mapped more than once, though this process maps the object but once.
fn is_shared_with_another(memory: &[Region], region: &Region) -> bool {
    region.shared
        && region.shared_bytes > 0
        && has_no_file(region)
        && memory.iter().filter(|other| other.object == region.object).count() == 1
}
