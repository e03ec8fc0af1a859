//! An image on the disk.

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::ops::Range;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;

use anyhow::{Context, Error, Result, bail, ensure};
use ckpt_image::{Checksum, Head, Invalid, PREFIX};

/// No head is longer; a file that says so is no image.
const LONGEST_HEAD: u64 = 1 << 30;

/// An image file whose head has been read.
pub struct Image {
    file: File,
    head: Vec<u8>,
    /// Bytes in the file.
    pub length: u64,
    /// Bytes that it takes up on the disk.
    pub on_disk: u64,
}

impl Image {
    /// Reads the head of the image at `path`.
    ///
    /// # Errors
    ///
    /// If it cannot be read or is no image.
    pub fn open(path: &Path) -> Result<Self> {
        let file = File::open(path)?;
        let metadata = file.metadata()?;
        ensure!(metadata.is_file(), "not a regular file");
        let mut prefix = Vec::new();
        (&file).take(PREFIX as u64).read_to_end(&mut prefix)?;
        let length = Head::length(&prefix).map_err(Error::msg)?;
        if length > metadata.len() {
            bail!(Invalid::Truncated(length));
        }
        ensure!(length <= LONGEST_HEAD, "{}", Invalid::Damaged);
        let mut head = vec![0; length as usize];
        file.read_exact_at(&mut head, 0)?;
        let image = Self { file, head, length: metadata.len(), on_disk: metadata.blocks() * 512 };
        let padding = image.head()?.padding();
        ensure!(padding.end - padding.start <= LONGEST_HEAD, "{}", Invalid::Damaged);
        let mut between = vec![0; (padding.end - padding.start) as usize];
        image.file.read_exact_at(&mut between, padding.start)?;
        ensure!(between.iter().all(|&byte| byte == 0), "{}", Invalid::Checksum);
        Ok(image)
    }

    /// The head.
    ///
    /// # Errors
    ///
    /// If there is something wrong with it.
    pub fn head(&self) -> Result<Head<'_>> {
        Head::parse(&self.head, self.length).map_err(Error::msg)
    }

    /// The checksum of a part of the file.
    ///
    /// # Errors
    ///
    /// If it cannot be read.
    pub fn checksum(&self, part: Range<u64>, buffer: &mut [u8]) -> Result<u64> {
        let mut checksum = Checksum::new();
        let Range { start: mut offset, end } = part;
        while offset < end {
            let length = buffer.len().min((end - offset) as usize);
            match self.file.read_at(&mut buffer[..length], offset) {
                Ok(0) => bail!("the file has become shorter"),
                Ok(read) => {
                    checksum.update(&buffer[..read]);
                    offset += read as u64;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error).context("reading it"),
            }
        }
        Ok(checksum.value())
    }

    /// The memory at `address`, as the program had it; `None` where the image does not store it.
    pub fn memory(&self, head: &Head<'_>, address: u64, length: usize) -> Option<Vec<u8>> {
        let mut bytes = vec![0; length];
        let end = address.checked_add(length as u64)?;
        let mut at = address;
        for segment in head.segments() {
            let segment_end = segment.address + segment.memory_size;
            if at >= end || segment.address > at {
                break;
            }
            if segment_end <= at {
                continue;
            }
            // Behind the stored part come zeros.
            let stored_end = (segment.address + segment.stored).min(end);
            if at < stored_end {
                let into = &mut bytes[(at - address) as usize..(stored_end - address) as usize];
                self.file.read_exact_at(into, segment.offset + (at - segment.address)).ok()?;
            }
            at = segment_end.min(end);
        }
        (at >= end).then_some(bytes)
    }
}
