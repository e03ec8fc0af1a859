//! The reader of an image's head. It trusts nothing: an image may be cut off, overwritten, or no
//! image at all.

use core::fmt;

use linux_raw_sys::elf_uapi::{ET_CORE, PN_XNUM, PT_LOAD, PT_NOTE};

use crate::elf::{FileHeader, IDENT, PREFIX, ProgramHeader, SectionHeader, machine_name};
use crate::files::{Extent, FileContents};
use crate::record::{self, Checksums, Process, first, kind};
use crate::{Checksum, VERSION};

/// The versions before it were drafts: 1 knew of one thread, 2 of descriptors of files only.
const FIRST_READABLE: u32 = 3;

/// Why a file is not an image that can be used. Shown as what follows the file's name in a line.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Invalid {
    /// Not ELF.
    NotElf,
    /// ELF, but not a core file of 64-bit little-endian kind.
    NotCore,
    /// A core file without notes of ours.
    NotOurs,
    /// Written by a later version.
    Newer(u32),
    /// Written by a version before the first that is kept readable.
    Older(u32),
    /// For another machine, by its ELF number.
    Foreign(u16),
    /// Shorter than it says: the length it should have.
    Truncated(u64),
    /// Its parts contradict each other.
    Damaged,
    /// A checksum says that bytes have changed.
    Checksum,
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::NotElf => f.write_str("is not a checkpoint image (not an ELF file)"),
            Self::NotCore => f.write_str("is not a checkpoint image (not a 64-bit ELF core file)"),
            Self::NotOurs => f.write_str("is a core file, but not a checkpoint image"),
            Self::Newer(version) => write!(
                f,
                "is of format version {version}, and this program reads up to {VERSION}: \
                 use a newer one"
            ),
            Self::Older(version) => write!(
                f,
                "is of format version {version}, which is read no more: take the checkpoint again"
            ),
            Self::Foreign(machine) => {
                write!(f, "was taken on {}: restart it on such a machine", machine_name(machine))
            }
            Self::Truncated(length) => write!(
                f,
                "is truncated: it should be {length} bytes long; copy it again or use an older one"
            ),
            Self::Damaged => f.write_str("is damaged: its parts contradict each other"),
            Self::Checksum => f.write_str(
                "is damaged: its bytes do not match their checksum; copy it again or use an \
                 older one",
            ),
        }
    }
}

/// The head of an image: everything but the pages.
#[derive(Clone, Copy)]
pub struct Head<'a> {
    bytes: &'a [u8],
    file: FileHeader,
    program_headers: &'a [u8],
    notes: &'a [u8],
    process: Process,
}

/// A note.
pub struct Note<'a> {
    /// Whose it is, without the NUL.
    pub name: &'a [u8],
    /// Its type.
    pub kind: u32,
    /// What it holds.
    pub description: &'a [u8],
}

/// A run of memory of which the beginning is stored: a PT_LOAD.
#[derive(Clone, Copy, Debug)]
pub struct Segment {
    /// The first address.
    pub address: u64,
    /// Bytes of memory.
    pub memory_size: u64,
    /// Bytes of it that are stored.
    pub stored: u64,
    /// Where in the file.
    pub offset: u64,
    /// The checksum of what is stored.
    pub checksum: u64,
}

impl<'a> Head<'a> {
    /// How long the head is of the file that begins with `prefix`, which is [`PREFIX`] bytes or the
    /// whole file.
    ///
    /// # Errors
    ///
    /// If the file cannot be an image.
    pub fn length(prefix: &[u8]) -> Result<u64, Invalid> {
        if !prefix.starts_with(&IDENT[..4]) {
            return Err(Invalid::NotElf);
        }
        let truncated = |_| Invalid::Truncated(PREFIX as u64);
        let (file, _) = first::<FileHeader>(prefix).map_err(truncated)?;
        if file.ident[..7] != IDENT[..7] || u32::from(file.kind) != ET_CORE {
            return Err(Invalid::NotCore);
        }
        let at = usize::try_from(file.program_headers).map_err(|_| Invalid::Damaged)?;
        // Ours lie directly behind the file header; those of other core files need not.
        let headers = prefix.get(at..).ok_or(Invalid::NotOurs)?;
        let (notes, _) = first::<ProgramHeader>(headers).map_err(truncated)?;
        if notes.kind != PT_NOTE {
            return Err(Invalid::NotOurs);
        }
        notes.offset.checked_add(notes.file_size).ok_or(Invalid::Damaged)
    }

    /// The machine that the file that begins with `prefix` is for, as ELF numbers them.
    ///
    /// # Errors
    ///
    /// As [`Head::length`].
    pub fn machine_of(prefix: &[u8]) -> Result<u16, Invalid> {
        Self::length(prefix)?;
        first::<FileHeader>(prefix).map(|(file, _)| file.machine)
    }

    /// Where the first note lies in the file that begins with `prefix`. In an image it is that of
    /// [`Process`], so that one can be told without reading it all: see [`Head::process_in`].
    ///
    /// # Errors
    ///
    /// As [`Head::length`].
    pub fn first_note(prefix: &[u8]) -> Result<u64, Invalid> {
        Self::length(prefix)?;
        let (file, _) = first::<FileHeader>(prefix)?;
        let (notes, _) = first::<ProgramHeader>(&prefix[file.program_headers as usize..])?;
        Ok(notes.offset)
    }

    /// Who was checkpointed, by the first bytes of the first note.
    ///
    /// # Errors
    ///
    /// [`Invalid::NotOurs`] if they do not hold it.
    pub fn process_in(note: &[u8]) -> Result<Process, Invalid> {
        let ([name_size, _, kind], rest) = first::<[u32; 3]>(note).map_err(|_| Invalid::NotOurs)?;
        let (name, rest) = padded(rest, name_size).ok_or(Invalid::NotOurs)?;
        if kind != record::kind::PROCESS || record::text(name) != record::NAME.as_bytes() {
            return Err(Invalid::NotOurs);
        }
        first(rest).map(|(process, _)| process).map_err(|_| Invalid::NotOurs)
    }

    /// Understands a head: `bytes` are as many as [`Head::length`] told, of a file of `file_length`
    /// bytes.
    ///
    /// # Errors
    ///
    /// Whatever is wrong with it. For which machine it is does not matter: see [`Head::machine_of`].
    pub fn parse(bytes: &'a [u8], file_length: u64) -> Result<Self, Invalid> {
        let length = Self::length(bytes)?;
        if length > bytes.len() as u64 {
            return Err(Invalid::Truncated(length));
        }
        let (file, _) = first::<FileHeader>(bytes)?;
        let count = match u32::from(file.program_header_count) {
            PN_XNUM => {
                let at = usize::try_from(file.section_headers).map_err(|_| Invalid::Damaged)?;
                let section = bytes.get(at..).ok_or(Invalid::Damaged)?;
                first::<SectionHeader>(section)?.0.info
            }
            count => count,
        };
        let table = file.program_headers as usize;
        let table_length = count as usize * size_of::<ProgramHeader>();
        let end = table.checked_add(table_length).ok_or(Invalid::Damaged)?;
        let program_headers = bytes.get(table..end).ok_or(Invalid::Damaged)?;
        let (notes, _) = first::<ProgramHeader>(program_headers)?;
        let start = usize::try_from(notes.offset).map_err(|_| Invalid::Damaged)?;
        let notes = bytes.get(start..length as usize).ok_or(Invalid::Damaged)?;

        let process = find_in(notes, kind::PROCESS).ok_or(Invalid::NotOurs)?;
        let (version, _) = first::<u32>(process)?;
        if version > VERSION {
            return Err(Invalid::Newer(version));
        }
        if version < FIRST_READABLE {
            return Err(Invalid::Older(version));
        }
        let (process, _) = first::<Process>(process)?;
        if !process.page_size.is_power_of_two() {
            return Err(Invalid::Damaged);
        }
        let bytes = &bytes[..length as usize];
        let head = Self { bytes, file, program_headers, notes, process };
        head.check(count, file_length)?;
        Ok(head)
    }

    /// The checks that need the whole: checksum, order and extent of the segments.
    fn check(&self, count: u32, file_length: u64) -> Result<(), Invalid> {
        let (checksums, each) = self.checksums()?;
        let expected = (count as usize - 1) * size_of::<u64>();
        if checksums.algorithm != Checksums::XXH3
            || checksums.count != count - 1
            || each.len() != expected
        {
            return Err(Invalid::Damaged);
        }
        if self.checksum() != Some(checksums.head) {
            return Err(Invalid::Checksum);
        }
        let page = u64::from(self.process.page_size);
        let head_end = self.bytes.len() as u64;
        let is_in_head = |offset, stored| stored > 0 && offset < head_end;
        let (mut address, mut file_end) = (0, head_end);
        for (header, _) in self.headers_and_checksums() {
            let aligned = [header.virtual_address, header.memory_size, header.file_size]
                .iter()
                .all(|value| value % page == 0);
            let end = header.virtual_address.checked_add(header.memory_size);
            let stored = header.offset.checked_add(header.file_size);
            let (Some(end), Some(stored)) = (end, stored) else { return Err(Invalid::Damaged) };
            if header.kind != PT_LOAD
                || !aligned
                || header.virtual_address < address
                || header.file_size > header.memory_size
                || is_in_head(header.offset, header.file_size)
            {
                return Err(Invalid::Damaged);
            }
            address = end;
            file_end = file_end.max(stored);
        }
        if !record::are_whole::<FileContents>(self.note(kind::FILE_CONTENTS)?)
            || !record::are_whole::<record::Mapping>(self.note(kind::MAPPINGS)?)
        {
            return Err(Invalid::Damaged);
        }
        let mut end = 0;
        for (mapping, _) in self.mappings()? {
            if mapping.start < end || mapping.end <= mapping.start {
                return Err(Invalid::Damaged);
            }
            end = mapping.end;
        }
        for (contents, extents) in self.file_contents()? {
            let end = contents.offset.checked_add(contents.stored).ok_or(Invalid::Damaged)?;
            check_extents(extents, contents.stored)?;
            if is_in_head(contents.offset, contents.stored) {
                return Err(Invalid::Damaged);
            }
            file_end = file_end.max(end);
        }
        if file_end > file_length { Err(Invalid::Truncated(file_end)) } else { Ok(()) }
    }

    /// The checksum of the head, with zeros where it stands itself.
    fn checksum(&self) -> Option<u64> {
        let description = find_in(self.notes, kind::CHECKSUMS)?;
        let field = core::mem::offset_of!(Checksums, head);
        let at = description.as_ptr() as usize - self.bytes.as_ptr() as usize + field;
        let mut checksum = Checksum::new();
        checksum.update(&self.bytes[..at]);
        checksum.update_zeros(size_of::<u64>() as u64);
        checksum.update(&self.bytes[at + size_of::<u64>()..]);
        Some(checksum.value())
    }

    fn checksums(&self) -> Result<(Checksums, &'a [u8]), Invalid> {
        first(find_in(self.notes, kind::CHECKSUMS).ok_or(Invalid::Damaged)?)
    }

    /// The files with contents and their extents, in the order of their descriptors.
    ///
    /// # Errors
    ///
    /// [`Invalid::Damaged`] if there is no such note.
    pub fn file_contents(
        &self,
    ) -> Result<impl Iterator<Item = (FileContents, &'a [u8])> + Clone + use<'a>, Invalid> {
        Ok(record::all_with_tails(self.note(kind::FILE_CONTENTS)?))
    }

    fn headers_and_checksums(
        &self,
    ) -> impl Iterator<Item = (ProgramHeader, u64)> + Clone + use<'a> {
        let each = self.checksums().map_or(&[][..], |(_, each)| each);
        record::all(self.program_headers).skip(1).zip(record::all(each))
    }

    /// The machine that the image is for, as ELF numbers them.
    pub fn machine(&self) -> u16 {
        self.file.machine
    }

    /// Who was checkpointed, and the path of the executable.
    pub fn process(&self) -> (Process, &'a [u8]) {
        let note = find_in(self.notes, kind::PROCESS).unwrap_or(&[]);
        (self.process, note.get(size_of::<Process>()..).unwrap_or(&[]))
    }

    /// Where in the file, between the head and the pages, there are only zeros. Whether it is so is for
    /// the reader to see: no checksum covers it.
    pub fn padding(&self) -> core::ops::Range<u64> {
        let head = self.bytes.len() as u64;
        let segments = self.segments().filter(|segment| segment.stored > 0).map(|s| s.offset);
        let contents = self.file_contents().into_iter().flatten();
        let contents = contents.filter(|(file, _)| file.stored > 0).map(|(file, _)| file.offset);
        let first = segments.chain(contents).min();
        head..first.unwrap_or(head)
    }

    /// The notes, in their order.
    pub fn notes(&self) -> impl Iterator<Item = Note<'a>> + use<'a> {
        notes_in(self.notes)
    }

    /// What our note of type `kind` holds.
    ///
    /// # Errors
    ///
    /// [`Invalid::Damaged`] if there is none.
    pub fn note(&self, kind: u32) -> Result<&'a [u8], Invalid> {
        find_in(self.notes, kind).ok_or(Invalid::Damaged)
    }

    /// The segments, by ascending address.
    pub fn segments(&self) -> impl Iterator<Item = Segment> + Clone + use<'a> {
        self.headers_and_checksums().map(|(header, checksum)| Segment {
            address: header.virtual_address,
            memory_size: header.memory_size,
            stored: header.file_size,
            offset: header.offset,
            checksum,
        })
    }

    /// The mappings with their names, by ascending address.
    ///
    /// # Errors
    ///
    /// [`Invalid::Damaged`] if there are none.
    pub fn mappings(
        &self,
    ) -> Result<impl Iterator<Item = (record::Mapping, &'a [u8])> + Clone + use<'a>, Invalid> {
        Ok(record::all_with_tails(self.note(kind::MAPPINGS)?))
    }
}

/// Sees to it that extents ascend, and are `stored` bytes in all.
fn check_extents(extents: &[u8], stored: u64) -> Result<(), Invalid> {
    let (mut end, mut sum) = (0, 0_u64);
    for Extent { start, length } in record::all(extents) {
        if start < end || length == 0 {
            return Err(Invalid::Damaged);
        }
        end = start.checked_add(length).ok_or(Invalid::Damaged)?;
        sum = sum.checked_add(length).ok_or(Invalid::Damaged)?;
    }
    if sum == stored { Ok(()) } else { Err(Invalid::Damaged) }
}

/// The notes that `bytes` consist of.
fn notes_in(mut bytes: &[u8]) -> impl Iterator<Item = Note<'_>> {
    core::iter::from_fn(move || {
        let ([name_size, size, kind], rest) = first::<[u32; 3]>(bytes).ok()?;
        let (name, rest) = padded(rest, name_size)?;
        let (description, rest) = padded(rest, size)?;
        bytes = rest;
        Some(Note { name: record::text(name), kind, description })
    })
}

/// The first `length` of `bytes`, and what follows at the next multiple of 4.
fn padded(bytes: &[u8], length: u32) -> Option<(&[u8], &[u8])> {
    let length = length as usize;
    Some((bytes.get(..length)?, bytes.get(length.next_multiple_of(4)..)?))
}

/// Our note of type `kind`.
fn find_in(notes: &[u8], kind: u32) -> Option<&[u8]> {
    notes_in(notes)
        .find(|note| note.kind == kind && note.name == record::NAME.as_bytes())
        .map(|note| note.description)
}
