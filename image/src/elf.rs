//! The ELF structures of a core file (elf(5)), and where in the file they lie.

use bytemuck::{Pod, Zeroable};
use linux_raw_sys::elf_uapi::{
    EM_AARCH64, ET_CORE, PN_XNUM, PT_LOAD, PT_NOTE, elf64_hdr, elf64_phdr, elf64_shdr,
};
use static_assertions::assert_eq_size;

/// `Elf64_Ehdr`.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
#[allow(missing_docs, reason = "elf(5) documents them")]
pub struct FileHeader {
    pub ident: [u8; 16],
    pub kind: u16,
    pub machine: u16,
    pub version: u32,
    pub entry: u64,
    pub program_headers: u64,
    pub section_headers: u64,
    pub flags: u32,
    pub size: u16,
    pub program_header_size: u16,
    pub program_header_count: u16,
    pub section_header_size: u16,
    pub section_header_count: u16,
    pub section_names: u16,
}
assert_eq_size!(FileHeader, elf64_hdr);

/// `Elf64_Phdr`.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable, Debug)]
#[allow(missing_docs, reason = "elf(5) documents them")]
pub struct ProgramHeader {
    pub kind: u32,
    pub flags: u32,
    pub offset: u64,
    pub virtual_address: u64,
    pub physical_address: u64,
    pub file_size: u64,
    pub memory_size: u64,
    pub alignment: u64,
}
assert_eq_size!(ProgramHeader, elf64_phdr);

/// `Elf64_Shdr`.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
#[allow(missing_docs, reason = "elf(5) documents them")]
pub struct SectionHeader {
    pub name: u32,
    pub kind: u32,
    pub flags: u64,
    pub address: u64,
    pub offset: u64,
    pub size: u64,
    pub link: u32,
    pub info: u32,
    pub alignment: u64,
    pub entry_size: u64,
}
assert_eq_size!(SectionHeader, elf64_shdr);

/// The first bytes of a file: 64-bit, little-endian, ELF version 1, System V.
pub(crate) const IDENT: [u8; 16] = [0x7f, b'E', b'L', b'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0];

/// `EM_X86_64`, which linux-raw-sys has only under that name's header of another architecture.
const EM_X86_64: u16 = 62;

/// Enough bytes from the beginning of a file to tell how long its head is.
pub const PREFIX: usize =
    size_of::<FileHeader>() + size_of::<SectionHeader>() + size_of::<ProgramHeader>();

impl FileHeader {
    /// That of a core file of `machine` with `count` program headers; with it the section header
    /// that must follow it if there are more than its field can hold.
    pub fn new(machine: u16, count: u32) -> (Self, Option<SectionHeader>) {
        let many = count >= PN_XNUM;
        let own = size_of::<Self>() as u64;
        let sections = if many { size_of::<SectionHeader>() as u64 } else { 0 };
        let header = Self {
            ident: IDENT,
            kind: ET_CORE as u16,
            machine,
            version: 1,
            entry: 0,
            program_headers: own + sections,
            section_headers: if many { own } else { 0 },
            flags: 0,
            size: own as u16,
            program_header_size: size_of::<ProgramHeader>() as u16,
            program_header_count: count.min(PN_XNUM) as u16,
            section_header_size: if many { size_of::<SectionHeader>() as u16 } else { 0 },
            section_header_count: u16::from(many),
            section_names: 0,
        };
        let section = SectionHeader { info: count, ..SectionHeader::zeroed() };
        (header, many.then_some(section))
    }
}

impl ProgramHeader {
    /// That of `length` bytes of notes.
    pub fn of_notes(offset: u64, length: u64) -> Self {
        Self { kind: PT_NOTE, offset, file_size: length, alignment: 4, ..Self::zeroed() }
    }

    /// That of memory: `memory_size` bytes, of which the first `file_size` are stored.
    pub fn of_memory(address: u64, memory_size: u64, file_size: u64, flags: u32) -> Self {
        Self {
            kind: PT_LOAD,
            flags,
            virtual_address: address,
            memory_size,
            file_size,
            ..Self::zeroed()
        }
    }
}

/// Where the notes begin and where, at a multiple of `page_size`, the pages do, in a file with
/// `count` program headers and `notes` bytes of notes.
pub fn layout_of_head(count: u32, notes: u64, page_size: u64) -> (u64, u64) {
    let (header, _) = FileHeader::new(0, count);
    let start = header.program_headers + u64::from(count) * size_of::<ProgramHeader>() as u64;
    (start, (start + notes).next_multiple_of(page_size))
}

/// What people call the machine with this number in ELF headers.
pub fn machine_name(machine: u16) -> &'static str {
    match machine {
        EM_X86_64 => "x86_64",
        m if u32::from(m) == EM_AARCH64 => "aarch64",
        _ => "an unknown machine",
    }
}
