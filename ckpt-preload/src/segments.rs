//! Which pages are stored: the table of segments, one for each run of stored pages.
//!
//! ```text
//!   mapping    |------------------------------------------------------|
//!   pages        x x x . . . . . . . x x . x . . . . . . . . . . . . .
//!   segments   |=======|-------------|=========|----------------------|
//!               stored   only memory    stored         only memory
//!               '------ first ------''------------ second -------------'
//! ```
//!
//! A segment reaches to where the next begins, and of it the beginning is stored. Runs that lie
//! close together become one: a few pages of zeros between them cost less than a segment.

use ckpt_image::record::{self, Mapping, all_with_tails, mapping};
use ckpt_image::{NoteWriter, ProgramHeader, VmFlags};
use ckpt_sys::descriptor::is_shared_memory;
use ckpt_sys::{Errno, Escaped};
use linux_raw_sys::general::{PROT_EXEC, PROT_READ, PROT_WRITE};

use crate::config::config;
use crate::pages::{PageMap, Wanted, for_each_resident_run};
use crate::report::{Failure, OrReport, not_written};

/// Runs of anonymous memory with at most as many pages between them become one segment.
const CLOSE: u64 = 8;

/// A table of segments in the making.
struct Segments<'t> {
    table: &'t mut [ProgramHeader],
    count: usize,
    /// At most so many bytes between two runs make them one.
    gap: u64,
}

/// There are more runs than the table has room for.
enum Trouble {
    TooMany,
    Failure(Failure),
}

impl From<Errno> for Trouble {
    fn from(errno: Errno) -> Self {
        Self::Failure(errno.into())
    }
}

/// Fills `table` with the segments of all mappings, and returns how many they are. If there are
/// more runs than it has room for, runs that lie further and further apart are joined.
pub fn find(
    mappings: &[u8],
    table: &mut [ProgramHeader],
    pagemap: &PageMap,
    buffer: &mut [u64],
) -> Result<usize, Failure> {
    let mut apart = 0;
    loop {
        let mut segments = Segments { table, count: 0, gap: 0 };
        match segments.add_all(mappings, apart, pagemap, buffer) {
            Ok(()) => return Ok(segments.count),
            Err(Trouble::Failure(failure)) => {
                return Err(failure).or_report(format_args!("asking which pages there are"));
            }
            Err(Trouble::TooMany) if apart > u64::MAX / 64 => {
                return Err(not_written(format_args!("there are too many mappings")));
            }
            Err(Trouble::TooMany) => apart = (apart * 16).max(CLOSE * 16),
        }
    }
}

impl Segments<'_> {
    fn add_all(
        &mut self,
        mappings: &[u8],
        apart: u64,
        pagemap: &PageMap,
        buffer: &mut [u64],
    ) -> Result<(), Trouble> {
        for (record, name) in all_with_tails::<Mapping>(mappings) {
            if [mapping::SCRATCH, mapping::VVAR].contains(&record.kind) {
                continue;
            }
            // What cannot be read could be a guard page, in between.
            let readable = record.protection & PROT_READ != 0;
            let exact = record.stored == mapping::STORED_CHANGES || !readable;
            let close = if exact { 0 } else { CLOSE };
            self.gap = close.max(apart).saturating_mul(config().page_size);
            self.begin(&record)?;
            if is_written_by_restart(&record) {
                refuse_shared(mappings, &record, name, pagemap, buffer)
                    .map_err(Trouble::Failure)?;
            }
            match (record.stored, record.kind) {
                (mapping::STORED_NOTHING, _) => {}
                (mapping::STORED_CHANGES, _) => {
                    let (start, end) = (record.start, record.end);
                    pagemap.for_each_run(start, end, Wanted::Own, buffer, |start, end| {
                        self.add(start, end)
                    })?;
                }
                (_, mapping::ANONYMOUS) => {
                    let (start, end) = (record.start, record.end);
                    pagemap.for_each_run(start, end, Wanted::Any, buffer, |start, end| {
                        self.add(start, end)
                    })?;
                }
                (_, kind) if is_in_memory_only(kind, name) => {
                    // What is swapped out looks to mincore() as if it were not there.
                    if record.swapped != 0 {
                        self.add(record.start, record.end)?;
                        continue;
                    }
                    let bytes = bytemuck::cast_slice_mut(buffer);
                    let page = config().page_size;
                    for_each_resident_run(record.start, record.end, page, bytes, |start, end| {
                        self.add(start, end)
                    })?;
                }
                (_, mapping::FILE) => {
                    let in_file = record.file_size.saturating_sub(record.offset);
                    let pages = in_file.div_ceil(config().page_size);
                    let length = pages.saturating_mul(config().page_size);
                    let end = record.start.saturating_add(length).min(record.end);
                    if end > record.start {
                        self.add(record.start, end)?;
                    }
                }
                (_, _) => self.add(record.start, record.end)?,
            }
        }
        Ok(())
    }

    /// Begins a mapping: a segment of which nothing is stored yet.
    fn begin(&mut self, record: &Mapping) -> Result<(), Trouble> {
        const FLAGS: [(u32, u32); 3] = [(PROT_READ, 4), (PROT_WRITE, 2), (PROT_EXEC, 1)];
        let set = FLAGS.iter().filter(|(protection, _)| record.protection & protection != 0);
        let flags = set.map(|(_, flag)| flag).sum();
        let length = record.end - record.start;
        self.push(ProgramHeader::of_memory(record.start, length, 0, flags))
    }

    /// Adds a run of stored pages of the mapping that was begun.
    fn add(&mut self, start: u64, end: u64) -> Result<(), Trouble> {
        let last = &mut self.table[self.count - 1];
        let stored_end = last.virtual_address + last.file_size;
        let memory_end = last.virtual_address + last.memory_size;
        let gap = if last.file_size == 0 { 0 } else { self.gap };
        if start <= stored_end.saturating_add(gap) {
            last.file_size = end - last.virtual_address;
            return Ok(());
        }
        last.memory_size = start - last.virtual_address;
        let flags = last.flags;
        self.push(ProgramHeader::of_memory(start, memory_end - start, end - start, flags))
    }

    fn push(&mut self, header: ProgramHeader) -> Result<(), Trouble> {
        *self.table.get_mut(self.count).ok_or(Trouble::TooMany)? = header;
        self.count += 1;
        Ok(())
    }
}

/// Whether a mapping is of shared memory that no disk has.
fn is_in_memory_only(kind: u32, name: &[u8]) -> bool {
    [mapping::SHARED_ANONYMOUS, mapping::MEMFD, mapping::SEGMENT].contains(&kind)
        || kind == mapping::DELETED && is_shared_memory(name)
}

/// Whether a restart would write to what others may share.
fn is_written_by_restart(record: &Mapping) -> bool {
    let flags = VmFlags(record.flags);
    match record.kind {
        mapping::SHARED_ANONYMOUS | mapping::MEMFD | mapping::DELETED | mapping::SEGMENT => true,
        mapping::FILE => flags.any_of(VmFlags::MAY_SHARE) && flags.any_of(VmFlags::MAY_WRITE),
        _ => false,
    }
}

/// Refuses memory that another process has mapped, too, and that a restart would write to: of the
/// pages that are in memory one is mapped more than once, though this process maps the object but
/// once.
fn refuse_shared(
    mappings: &[u8],
    record: &Mapping,
    name: &[u8],
    pagemap: &PageMap,
    buffer: &mut [u64],
) -> Result<(), Failure> {
    let same = |other: &Mapping| {
        other.kind == record.kind && (other.device, other.inode) == (record.device, record.inode)
    };
    if all_with_tails::<Mapping>(mappings).filter(|(other, _)| same(other)).count() > 1 {
        return Ok(());
    }
    pagemap.for_each_run(record.start, record.end, Wanted::Shared, buffer, |start, _| {
        Err(not_written(format_args!(
            "the memory at {start:x} ({}) is shared with another process, which cannot be restored yet",
            Escaped(if name.is_empty() { b"of no file" } else { name })
        )))
    })
}

/// Notes the guard pages.
pub fn capture_guards(
    notes: &mut NoteWriter<'_>,
    mappings: &[u8],
    pagemap: &PageMap,
) -> Result<(), Failure> {
    notes.begin(record::NAME, record::kind::GUARDS)?;
    // The scratch memory's own is known, also where the kernel does not tell.
    let (start, end) = config().scratch.guard();
    notes.push(bytemuck::bytes_of(&record::Range { start, end }))?;
    let others = all_with_tails::<Mapping>(mappings).map(|(mapping, _)| mapping);
    for mapping in others.filter(|mapping| mapping.kind != mapping::SCRATCH) {
        pagemap.for_each_guard(mapping.start, mapping.end, |start, end| {
            notes.push(bytemuck::bytes_of(&record::Range { start, end }))
        })?;
    }
    notes.end()?;
    Ok(())
}
