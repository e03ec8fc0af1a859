//! Which pages of a mapping there are, by `/proc/thread-self/pagemap`
//! (Documentation/admin-guide/mm/pagemap.rst).

use ckpt_sys::Errno;
use ckpt_sys::call::{self, Fd, File};
use linux_raw_sys::general::page_region;

const PRESENT: u64 = 1 << 63;
const SWAPPED: u64 = 1 << 62;
/// A page of a file, or of shared memory.
const FILE: u64 = 1 << 61;
/// Made inaccessible by `MADV_GUARD_INSTALL` (Linux 6.15; before that it looks swapped).
const GUARD: u64 = 1 << 58;
/// Mapped here and nowhere else.
const EXCLUSIVE: u64 = 1 << 56;

/// What to look for.
#[derive(Clone, Copy)]
pub enum Wanted {
    /// Pages with contents.
    Any,
    /// Pages that are this process's own: not those that a private mapping has from its file.
    Own,
    /// Pages that another mapping has, too.
    Shared,
}

impl Wanted {
    fn matches(self, entry: u64) -> bool {
        let there = entry & (PRESENT | SWAPPED) != 0 && entry & GUARD == 0;
        match self {
            Self::Any => there,
            Self::Own => there && entry & FILE == 0,
            Self::Shared => entry & PRESENT != 0 && entry & EXCLUSIVE == 0,
        }
    }
}

/// A reader of the page map.
pub struct PageMap {
    file: File,
    page_size: u64,
}

impl PageMap {
    /// That of this process.
    pub fn open(page_size: u64) -> Result<Self, Errno> {
        Ok(Self { file: File::open(c"/proc/thread-self/pagemap", 0)?, page_size })
    }

    /// Calls `each(start, end)` for every run of wanted pages between two addresses.
    pub fn for_each_run<E: From<Errno>>(
        &self,
        start: u64,
        end: u64,
        wanted: Wanted,
        buffer: &mut [u64],
        mut each: impl FnMut(u64, u64) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut run: Option<u64> = None;
        let mut address = start;
        while address < end {
            let count = ((end - address) / self.page_size).min(buffer.len() as u64) as usize;
            read_entries(self.file.fd(), &mut buffer[..count], address / self.page_size)?;
            for &entry in &buffer[..count] {
                match (run, wanted.matches(entry)) {
                    (None, true) => run = Some(address),
                    (Some(from), false) => {
                        each(from, address)?;
                        run = None;
                    }
                    _ => {}
                }
                address += self.page_size;
            }
        }
        match run {
            Some(from) => each(from, end),
            None => Ok(()),
        }
    }
}

impl PageMap {
    /// Calls `each(start, end)` for every run of guard pages between two addresses. Where the kernel
    /// does not tell them (before Linux 6.15) there are none.
    pub fn for_each_guard<E>(
        &self,
        start: u64,
        end: u64,
        mut each: impl FnMut(u64, u64) -> Result<(), E>,
    ) -> Result<(), E> {
        const PAGE_IS_GUARD: u64 = 1 << 8;
        let mut runs = [page_region { start: 0, end: 0, categories: 0 }; 64];
        let mut address = start;
        while address < end {
            let scan = call::scan_pages(self.file.fd(), address, end, PAGE_IS_GUARD, &mut runs);
            let Ok((count, walked)) = scan else { break };
            for run in &runs[..count] {
                each(run.start, run.end)?;
            }
            address = walked.max(address + self.page_size);
        }
        Ok(())
    }
}

/// Calls `each(start, end)` for every run of pages between two addresses that shared memory has,
/// whether or not this process has touched them (mincore(2)).
pub fn for_each_resident_run<E: From<Errno>>(
    start: u64,
    end: u64,
    page_size: u64,
    buffer: &mut [u8],
    mut each: impl FnMut(u64, u64) -> Result<(), E>,
) -> Result<(), E> {
    let mut address = start;
    while address < end {
        let count = ((end - address) / page_size).min(buffer.len() as u64) as usize;
        call::mincore(address, count as u64 * page_size, &mut buffer[..count])?;
        for run in buffer[..count].chunk_by(|a, b| a & 1 == b & 1) {
            let behind = address + run.len() as u64 * page_size;
            if run[0] & 1 == 1 {
                each(address, behind)?;
            }
            address = behind;
        }
    }
    Ok(())
}

/// Reads the entries of pages from number `first` on.
fn read_entries(fd: Fd, entries: &mut [u64], first: u64) -> Result<(), Errno> {
    let length = size_of_val(entries);
    // SAFETY: the kernel fills in whole words, of which any value is valid.
    match unsafe { call::pread(fd, entries.as_mut_ptr().cast(), length, first * 8) }? {
        read if read == length => Ok(()),
        _ => Err(Errno::EIO),
    }
}
