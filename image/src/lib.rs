//! The image of a process: an ELF core file that can be turned back into the process.
//!
//! ```text
//!   0 +--------------------------+
//!     | ELF header               |  ET_CORE
//!     | section header           |  only with 65,535 segments or more: their true number
//!     | program headers          |  one PT_NOTE, then one PT_LOAD a run of stored pages
//!     | notes                    |  those of any core file, then our own, CHECKSUMS last
//!     +--------------------------+  the head ends: read, checked and understood as a whole
//!     | (up to a page boundary)  |
//!     | pages                    |  page-aligned; a hole in the file is pages of zeros
//!     | contents of files        |  of those that have no name; likewise
//!     +--------------------------+
//! ```
//!
//! `docs/format.md` describes it byte by byte. This crate is what the writer (`ckpt-preload`), the
//! reader (`restart-nostd`) and the tools (`ckpt`) agree on, and all they agree on.
//!
//! Everything in an image is little-endian, and so is every machine this runs on.
#![cfg_attr(not(test), no_std)]

mod checksum;
mod elf;
pub mod files;
mod head;
mod notes;
pub mod record;
mod vmflags;

pub use checksum::Checksum;
pub use elf::{FileHeader, PREFIX, ProgramHeader, SectionHeader, layout_of_head, machine_name};
pub use head::{Head, Invalid, Note, Segment};
pub use notes::{Full, NoteWriter};
pub use vmflags::VmFlags;

/// The version of the format that this crate writes, and the newest it reads.
pub const VERSION: u32 = 3;

#[cfg(target_endian = "big")]
compile_error!("the format is little-endian, and its records are copied as they are");
