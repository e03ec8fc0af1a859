//! The contents of memory: the stored pages, each checked against its checksum, put where they were.

use core::ops::Range;

use ckpt_arch::synchronize_instructions;
use ckpt_image::record::{Mapping, mapping};
use ckpt_image::{Checksum, Invalid, Segment};
use ckpt_sys::Errno;
use ckpt_sys::call::{self, Fd, File};
use linux_raw_sys::general::{O_RDWR, PROT_EXEC, PROT_READ, PROT_WRITE};

use crate::image::{Image, read_at};
use crate::memory::{first_protection, is_replaced};
use crate::report::{OrFail, fail};

/// Bytes that are on their way at a time; a multiple of every page size.
const CHUNK: usize = 256 << 10;

static mut BUFFER: [u8; CHUNK] = [0; CHUNK];

/// The unit in which contents are compared with what is there.
const UNIT: usize = 4096;

/// Loads the stored pages of all mappings; but those of shared files, which are only checked here,
/// and those of the vDSO.
pub fn load<'a>(image: &Image, mut mappings: impl Iterator<Item = (Mapping, &'a [u8])>) {
    let memory = File::open(c"/proc/self/mem", O_RDWR).or_fail(format_args!("/proc/self/mem"));
    let head = image.head();
    let mut data = Data { fd: image.fd, from: 0, found: 0..0 };
    let mut current = mappings.next();
    for segment in head.segments().filter(|segment| segment.stored > 0) {
        while current.is_some_and(|(record, _)| record.end <= segment.address) {
            current = mappings.next();
        }
        // Both are in the order of addresses; a segment that lies in no mapping is a lie.
        let (record, name) = match current {
            Some((record, name))
                if record.start <= segment.address
                    && segment.address + segment.stored <= record.end =>
            {
                (record, name)
            }
            _ => image.fail(&Invalid::Damaged),
        };
        let shared = ckpt_image::VmFlags(record.flags).any_of(ckpt_image::VmFlags::MAY_SHARE);
        let sum = match record.kind {
            mapping::VDSO => continue,
            mapping::FILE if shared && !is_replaced(&record, name) => check_only(image, &segment),
            mapping::FILE => load_differences(image, &segment, memory.fd()),
            _ if first_protection(&record) & (PROT_READ | PROT_WRITE) == PROT_READ | PROT_WRITE => {
                let sum = load_directly(image, &segment, &mut data);
                if record.protection & PROT_EXEC != 0 {
                    // Elsewhere the kernel does it, since it writes there itself.
                    // SAFETY: the memory has been mapped to be filled in, so it is readable.
                    unsafe {
                        let start = segment.address as *const u8;
                        synchronize_instructions(start, segment.stored as usize);
                    }
                }
                sum
            }
            _ => load_differences(image, &segment, memory.fd()),
        };
        if sum.value() != segment.checksum {
            image.fail(&Invalid::Checksum);
        }
    }
}

/// Calls `each` with `length` stored bytes from `offset` of the file on, chunk by chunk, and with how
/// far into them a chunk begins.
pub fn for_each_chunk(image: &Image, offset: u64, length: u64, mut each: impl FnMut(&[u8], u64)) {
    // SAFETY: there is one thread, and `each` does not come back here.
    let buffer = unsafe { core::slice::from_raw_parts_mut((&raw mut BUFFER).cast(), CHUNK) };
    let mut done = 0;
    while done < length {
        let chunk = &mut buffer[..(length - done).min(CHUNK as u64) as usize];
        image.read(chunk, offset + done);
        each(chunk, done);
        done += chunk.len() as u64;
    }
}

/// The checksum of a segment.
fn check_only(image: &Image, segment: &Segment) -> Checksum {
    let mut sum = Checksum::new();
    for_each_chunk(image, segment.offset, segment.stored, |chunk, _| sum.update(chunk));
    sum
}

/// Where a file has data, as it was found last: a file system that looks at each page to find the next
/// hole, as tmpfs does, is asked once for all segments up to there.
struct Data {
    fd: Fd,
    /// From here up to `found` there is none.
    from: u64,
    found: Range<u64>,
}

impl Data {
    /// The first data that lies in `part`, or nothing at its end.
    fn within(&mut self, part: Range<u64>) -> Range<u64> {
        if !(self.from..self.found.end).contains(&part.start) {
            self.from = part.start;
            self.found = call::data_in(self.fd, part.start..u64::MAX);
        }
        let clamp = |at: u64| at.clamp(part.start, part.end);
        clamp(self.found.start)..clamp(self.found.end)
    }
}

/// Loads a segment into memory that is new, and therefore zero, and can be written. Holes of the file
/// are passed over, so that pages of zeros take no memory.
fn load_directly(image: &Image, segment: &Segment, data: &mut Data) -> Checksum {
    let mut sum = Checksum::new();
    let (mut at, end) = (segment.offset, segment.offset + segment.stored);
    while at < end {
        let Range { start: data, end: hole } = data.within(at..end);
        sum.update_zeros(data - at);
        let address = segment.address + data - segment.offset;
        // SAFETY: the memory of the image's, which has been mapped to be filled in.
        let memory =
            unsafe { core::slice::from_raw_parts_mut(address as *mut u8, (hole - data) as usize) };
        for (index, part) in memory.chunks_mut(CHUNK).enumerate() {
            image.read(part, data + (index * CHUNK) as u64);
            sum.update(part);
        }
        at = hole;
    }
    sum
}

/// Writes what differs from what is in a file.
pub fn write_differences(file: Fd, bytes: &[u8], offset: u64) -> Result<(), Errno> {
    let mut there = [0; UNIT];
    for (index, part) in bytes.chunks(UNIT).enumerate() {
        let at = offset + (index * UNIT) as u64;
        let there = &mut there[..part.len()];
        if read_at(file, there, at)? == part.len() && there == part {
            continue;
        }
        if call::pwrite(file, part.as_ptr(), part.len(), at)? != part.len() {
            return Err(Errno::ENOSPC);
        }
    }
    Ok(())
}

/// Loads a segment through `/proc/self/mem`, whatever the protection of the memory, and writes but
/// what differs from what is there: pages that the file has already stay the file's.
fn load_differences(image: &Image, segment: &Segment, memory: Fd) -> Checksum {
    let mut sum = Checksum::new();
    for_each_chunk(image, segment.offset, segment.stored, |chunk, done| {
        sum.update(chunk);
        let mut there = [0; UNIT];
        for (index, part) in chunk.chunks(UNIT).enumerate() {
            let at = segment.address + done + (index * UNIT) as u64;
            let there = &mut there[..part.len()];
            let same = read_at(memory, there, at) == Ok(part.len()) && there == part;
            if !same && call::pwrite(memory, part.as_ptr(), part.len(), at) != Ok(part.len()) {
                fail(format_args!("the memory at {at:x} cannot be filled in"));
            }
        }
    });
    sum
}
