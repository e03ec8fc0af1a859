//! The scratch memory: the only mapping that the library adds to a program, apart from its own file's.
//!
//! ```text
//!   base                                                              base + SIZE
//!   | guard | stack | text | pagemap | pages | mappings | notes | headers | checksums | asked | slots |
//!             <---- grows down to the guard
//! ```
//!
//! It is reserved before `main`, costs address space only, and gives back what it has used after
//! each checkpoint. The image records that it is there, but nothing of what is in it; so it is
//! there once, at the same place and of the same size, in every generation.

use core::mem::size_of;

use crate::threads::{self, Slot};
use ckpt_image::ProgramHeader;
use ckpt_sys::{Errno, call};
use linux_raw_sys::general::{
    MADV_DONTNEED, MADV_GUARD_INSTALL, MAP_ANONYMOUS, MAP_NORESERVE, MAP_PRIVATE, MAP_STACK,
    PROT_NONE, PROT_READ, PROT_WRITE,
};

/// The largest page there is, and a multiple of all others.
const LARGEST_PAGE: usize = 64 << 10;
/// Bytes no access may reach: an overflow of the stack faults instead of spoiling a neighbour.
const GUARD: usize = LARGEST_PAGE;
const STACK: usize = 192 << 10;
/// The text of a file of `/proc`.
const TEXT: usize = 64 << 10;
/// Words of `/proc/thread-self/pagemap`.
const PAGEMAP: usize = 4096;
/// Pages on their way from memory to the file.
const PAGES: usize = 4 * LARGEST_PAGE;
/// The mappings as they stand in the image.
const MAPPINGS: usize = 8 << 20;
/// The notes: the mappings again, and all the rest.
const NOTES: usize = 24 << 20;
/// The most segments an image can have.
const SEGMENTS: usize = 128 << 10;

/// Where the slots of threads begin: behind the buffers.
const SLOTS: usize = GUARD
    + STACK
    + TEXT
    + PAGEMAP * size_of::<u64>()
    + PAGES
    + MAPPINGS
    + NOTES
    + SEGMENTS * (size_of::<ProgramHeader>() + size_of::<u64>())
    + threads::MOST * size_of::<u32>();

/// Whole pages, as all that a program has.
const SIZE: usize = (SLOTS + threads::MOST * size_of::<Slot>()).next_multiple_of(LARGEST_PAGE);

/// The scratch memory of this process.
#[derive(Clone, Copy)]
pub struct Scratch {
    base: usize,
}

/// Its parts, for the time of one checkpoint.
pub struct Buffers {
    /// The text of a file of `/proc`.
    pub text: &'static mut [u8],
    /// Words of `/proc/thread-self/pagemap`.
    pub pagemap: &'static mut [u64],
    /// Pages on their way to the file.
    pub pages: &'static mut [u8],
    /// The mappings as they stand in the image.
    pub mappings: &'static mut [u8],
    /// The notes.
    pub notes: &'static mut [u8],
    /// The program headers of the segments.
    pub headers: &'static mut [ProgramHeader],
    /// Their checksums.
    pub checksums: &'static mut [u64],
    /// The threads that have been asked to stop.
    pub asked: &'static mut [u32],
}

impl Scratch {
    /// None yet.
    pub const NONE: Self = Self { base: 0 };

    /// Maps it.
    pub fn map() -> Result<Self, Errno> {
        let flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_STACK;
        // SAFETY: a new mapping where the kernel likes.
        let base = unsafe { call::mmap(0, SIZE as u64, PROT_READ | PROT_WRITE, flags, None, 0)? };
        // Where the kernel has guard regions the mapping stays one; elsewhere it is cut in two.
        // SAFETY: nobody uses the new mapping yet.
        unsafe {
            call::madvise(base, GUARD as u64, MADV_GUARD_INSTALL)
                .or_else(|_| call::mprotect(base, GUARD as u64, PROT_NONE))?;
        }
        let _ = call::name_mapping(base, SIZE as u64, c"ckpt");
        Ok(Self { base: base as usize })
    }

    /// Whether `address` lies in it.
    pub fn contains(self, address: u64) -> bool {
        (self.base..self.base + SIZE).contains(&(address as usize))
    }

    /// What of the mapping from `start` to `end` lies before it, in it and behind it: where the kernel knows
    /// no names of mappings, it makes one of neighbours that are alike.
    pub fn cut(self, start: u64, end: u64) -> impl Iterator<Item = (u64, u64)> {
        let at = |address: usize| (address as u64).clamp(start, end);
        let (first, second) = (at(self.base), at(self.base + SIZE));
        let parts = [(start, first), (first, second), (second, end)];
        parts.into_iter().filter(|(start, end)| start < end)
    }

    /// The end of the private stack.
    pub fn stack_top(self) -> *mut u8 {
        (self.base + GUARD + STACK) as *mut u8
    }

    /// The parts other than the stack.
    ///
    /// # Safety
    ///
    /// The last ones given out are no longer used.
    pub unsafe fn buffers(self) -> Buffers {
        let mut at = self.base + GUARD + STACK;
        // SAFETY: the parts lie one behind the other in memory that is the library's alone; each
        // is aligned, since all lengths are multiples of 8, and any bytes are valid values of its
        // type.
        unsafe {
            Buffers {
                text: part(&mut at, TEXT),
                pagemap: part(&mut at, PAGEMAP),
                pages: part(&mut at, PAGES),
                mappings: part(&mut at, MAPPINGS),
                notes: part(&mut at, NOTES),
                headers: part(&mut at, SEGMENTS),
                checksums: part(&mut at, SEGMENTS),
                asked: part(&mut at, threads::MOST),
            }
        }
    }

    /// The slots of threads.
    pub fn slots(self) -> &'static [Slot] {
        // SAFETY: they lie behind the buffers, and a slot of zeros is an empty one.
        unsafe { core::slice::from_raw_parts((self.base + SLOTS) as *const Slot, threads::MOST) }
    }

    /// Unmaps it.
    ///
    /// # Safety
    ///
    /// Nobody uses it.
    pub unsafe fn unmap(self) {
        // SAFETY: the caller's contract.
        let _ = unsafe { call::munmap(self.base as u64, SIZE as u64) };
    }

    /// The pages that no access may reach.
    pub fn guard(self) -> (u64, u64) {
        (self.base as u64, (self.base + GUARD) as u64)
    }

    /// Gives the memory of the buffers back to the kernel.
    ///
    /// # Safety
    ///
    /// None of them is still used.
    pub unsafe fn release(self) {
        let start = self.base + GUARD + STACK;
        let length = self.base + SIZE - start;
        // SAFETY: the caller's contract.
        let _ = unsafe { call::madvise(start as u64, length as u64, MADV_DONTNEED) };
    }
}

/// The next `count` values of type `T`; moves `at` behind them.
///
/// # Safety
///
/// They lie in memory that is nobody else's, aligned, and any bytes are a `T`.
unsafe fn part<T>(at: &mut usize, count: usize) -> &'static mut [T] {
    let start = *at as *mut T;
    *at += count * size_of::<T>();
    // SAFETY: the caller's contract.
    unsafe { core::slice::from_raw_parts_mut(start, count) }
}
