//! An image that is changed as nobody would by accident: bytes of it are others, and its checksums are
//! right all the same.

use std::fs;
use std::mem::offset_of;
use std::path::{Path, PathBuf};

use ckpt_image::record::{self, Checksums, Mapping, kind};
use ckpt_image::{Checksum, Head, ProgramHeader, Segment};

use super::{Place, Running};

/// The bytes of an image, to be changed.
#[derive(Clone)]
pub struct Edited {
    bytes: Vec<u8>,
    /// How long the head is.
    head: usize,
    /// Where the description of the checksums begins.
    checksums: usize,
    segments: Vec<Segment>,
}

impl Edited {
    /// The image that `run` has written.
    pub fn of(run: &Running) -> Edited {
        Edited::file(run.image())
    }

    /// The image `path`.
    pub fn file(path: &Path) -> Edited {
        Edited::new(fs::read(path).expect("the image"))
    }

    fn new(bytes: Vec<u8>) -> Edited {
        let length = Head::length(&bytes).expect("an image") as usize;
        let head = Head::parse(&bytes[..length], bytes.len() as u64).expect("an image");
        let checksums = place_of(&bytes, head.note(kind::CHECKSUMS).expect("the note"));
        Edited { head: length, checksums, segments: head.segments().collect(), bytes }
    }

    /// Its head, which must not have been changed beyond recognition.
    fn parsed(&self) -> Head<'_> {
        Head::parse(&self.bytes[..self.head], self.bytes.len() as u64).expect("valid")
    }

    /// The mappings of kind `kind`.
    pub fn mappings(&self, kind: u32) -> Vec<Mapping> {
        let mappings = self.parsed().mappings().expect("mappings").map(|(mapping, _)| mapping);
        mappings.filter(|mapping| mapping.kind == kind).collect()
    }

    /// What the note of type `kind` holds; nothing if there is none.
    pub fn bytes(&self, kind: u32) -> &[u8] {
        self.parsed().note(kind).unwrap_or(&[])
    }

    /// How long the note of type `kind` is.
    pub fn length(&self, kind: u32) -> usize {
        self.parsed().note(kind).expect("the note").len()
    }

    /// Changes the note of type `kind`.
    pub fn note(mut self, kind: u32, change: impl FnOnce(&mut [u8])) -> Self {
        let head = self.parsed();
        let note = head.note(kind).expect("the note");
        let (start, length) = (place_of(&self.bytes, note), note.len());
        change(&mut self.bytes[start..start + length]);
        self.with_checksum()
    }

    /// Leaves the note of type `kind` only its first `length` bytes; the notes behind it move up.
    pub fn cut(mut self, kind: u32, length: usize) -> Self {
        /// A note's header is three words, its size the second; and the name is ours, padded.
        const SIZE: usize = 8 + 8;
        let head = self.parsed();
        let note = head.note(kind).expect("the note");
        let (start, old) = (place_of(&self.bytes, note), note.len());
        let (keep, end) = (start + length.next_multiple_of(4), start + old.next_multiple_of(4));
        self.bytes[start - SIZE..][..4].copy_from_slice(&(length as u32).to_le_bytes());
        self.bytes[start + length..keep].fill(0);
        self.bytes.copy_within(end..self.head, keep);
        let removed = end - keep;
        self.head -= removed;
        self.checksums -= if self.checksums > start { removed } else { 0 };
        let at = self.program_headers() + offset_of!(ProgramHeader, file_size);
        let size = u64::from_le_bytes(self.bytes[at..][..8].try_into().expect("8 bytes"));
        self.bytes[at..][..8].copy_from_slice(&(size - removed as u64).to_le_bytes());
        self.with_checksum()
    }

    /// Where the program headers begin, the first of which is that of the notes.
    fn program_headers(&self) -> usize {
        let (file, _) = record::first::<ckpt_image::FileHeader>(&self.bytes).expect("a header");
        file.program_headers as usize
    }

    /// Changes the stored memory from `address` on, and its checksum.
    pub fn memory(mut self, address: u64, change: impl FnOnce(&mut [u8])) -> Self {
        let found = self.segments.iter().enumerate().find(|(_, s)| s.address == address);
        let (index, segment) = found.expect("a segment");
        let (start, length) = (segment.offset as usize, segment.stored as usize);
        change(&mut self.bytes[start..start + length]);
        let value = sum(&self.bytes[start..start + length]);
        let at = self.checksums + size_of::<Checksums>() + index * 8;
        self.bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
        self.with_checksum()
    }

    /// Makes the checksum of the head right.
    fn with_checksum(mut self) -> Self {
        let own = self.checksums + offset_of!(Checksums, head);
        self.bytes[own..own + 8].fill(0);
        let value = sum(&self.bytes[..self.head]);
        self.bytes[own..own + 8].copy_from_slice(&value.to_le_bytes());
        self
    }

    /// Writes it to a file of `place` that the user can read.
    pub fn write(&self, place: &Place, name: &str) -> PathBuf {
        place.file(name, &self.bytes)
    }
}

/// Where in `bytes` their part `note` begins.
fn place_of(bytes: &[u8], note: &[u8]) -> usize {
    note.as_ptr() as usize - bytes.as_ptr() as usize
}

fn sum(bytes: &[u8]) -> u64 {
    let mut sum = Checksum::new();
    sum.update(bytes);
    sum.value()
}
