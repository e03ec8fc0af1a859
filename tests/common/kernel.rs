//! What is not the same under every kernel.

use std::fs;
use std::ptr;

/// Bytes in a page.
pub fn page_size() -> usize {
    rustix::param::page_size()
}

/// Whether there are guard pages: `MADV_GUARD_INSTALL`, of Linux 6.13.
pub fn has_guard_pages() -> bool {
    const MADV_GUARD_INSTALL: i32 = 102;
    let length = page_size();
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    // SAFETY: all of it is done to a page that is mapped for it, and that nobody else knows of.
    unsafe {
        let page = libc::mmap(ptr::null_mut(), length, libc::PROT_NONE, flags, -1, 0);
        let installed = libc::madvise(page, length, MADV_GUARD_INSTALL) == 0;
        libc::munmap(page, length);
        installed
    }
}

/// The end of the addresses that a program can have: a power of two, as the stack lies right below
/// it.
pub fn address_end() -> u64 {
    let mappings = super::maps::of(std::process::id() as i32);
    let stack = mappings.iter().find(|mapping| mapping.name == "[stack]").expect("a stack");
    stack.end.next_power_of_two()
}

/// How many bytes of memory can still be had.
pub fn free_memory() -> u64 {
    let all = fs::read_to_string("/proc/meminfo").expect("/proc");
    let line = all.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
    let kilobytes = line.and_then(|line| line.trim().strip_suffix(" kB")).expect("so much");
    kilobytes.parse::<u64>().expect("a number") << 10
}
