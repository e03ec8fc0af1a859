//! The mappings and the layout of memory: what there is, and how much of it the image must hold.

use core::ffi::CStr;

use bytemuck::bytes_of;
use ckpt_arch::{ADDRESS_END, BRANCH_TARGET_PROTECTION};
use ckpt_image::files::{Descriptor, NO_NAME};
use ckpt_image::record::{self, Layout, Mapping, all_with_tails, kind, mapping};
use ckpt_image::{NoteWriter, VmFlags};
use ckpt_sys::descriptor::is_segment;
use ckpt_sys::maps::{self, Details, Unescaped};
use ckpt_sys::proc::Stat;
use ckpt_sys::{Escaped, call};
use linux_raw_sys::general::{PROT_EXEC, PROT_READ, PROT_WRITE, S_IFCHR, S_IFMT};

use crate::config::{Content, PATH, config};
use crate::files::find_name;
use crate::ipc;
use crate::report::{Failure, OrReport, not_written};

/// Writes the table of mappings into `room`: what the image's note of them holds.
pub fn list<'r>(room: &'r mut [u8], text: &mut [u8]) -> Result<&'r mut [u8], Failure> {
    let mut table = NoteWriter::new(room);
    table.begin(record::NAME, kind::MAPPINGS)?;
    maps::for_each_in_detail(c"/proc/thread-self/smaps", text, |found, details| {
        // With room for the NUL that ends a path.
        let mut buffer = [0; PATH + NO_NAME.len() + 1];
        let mut length = 0;
        for byte in Unescaped(found.name).bytes() {
            if length == buffer.len() - 1 {
                return Err(not_written(format_args!(
                    "the name of the mapping at {:x} is too long",
                    found.start
                )));
            }
            buffer[length] = byte;
            length += 1;
        }
        for (start, end) in config().scratch.cut(found.start, found.end) {
            let part = maps::Mapping { start, end, ..*found };
            if let Some((record, name)) = describe(&part, details, &mut buffer, length)? {
                table.push_record(&record, name)?;
            }
        }
        Ok::<(), Failure>(())
    })
    .or_report(format_args!("reading /proc/thread-self/smaps"))?;
    let table = table.finish()?;
    store_code_whole(table);
    Ok(table)
}

/// The record and the name of a mapping, whose name is `length` bytes of `buffer`; `None` for what
/// is not the process's.
fn describe<'n>(
    found: &maps::Mapping<'_>,
    details: &Details<'_>,
    buffer: &'n mut [u8],
    length: usize,
) -> Result<Option<(Mapping, &'n [u8])>, Failure> {
    if found.name == b"[vsyscall]" {
        return Ok(None); // the kernel's, and the same in every process
    }
    if found.end > ADDRESS_END {
        return Err(not_written(format_args!(
            "the mapping at {:x} is higher than programs usually have any",
            found.start
        )));
    }
    let flags = VmFlags::from_text(details.flags);
    let bit = |set, bit| if set { bit } else { 0 };
    let mut record = Mapping {
        start: found.start,
        end: found.end,
        offset: found.offset,
        device: found.device,
        inode: found.inode,
        flags: flags.0,
        page_size: details.page_size,
        file_size: 0,
        file_mtime: 0,
        file_mtime_nsec: 0,
        protection: bit(found.read, PROT_READ)
            | bit(found.write, PROT_WRITE)
            | bit(found.execute, PROT_EXEC)
            | bit(flags.any_of(VmFlags::BRANCH_TARGETS), BRANCH_TARGET_PROTECTION),
        kind: mapping::ANONYMOUS,
        stored: mapping::STORED_NOTHING,
        name_length: 0,
        swapped: u32::from(details.swapped > 0),
    };
    refuse_by_flags(found, details, flags)?;

    let name = &buffer[..length];
    let deleted = name.strip_suffix(NO_NAME);
    let mut shown = 0..length;
    if config().scratch.contains(found.start) {
        record.kind = mapping::SCRATCH;
        shown = 0..0;
    } else if name == b"[vdso]" {
        (record.kind, record.stored) = (mapping::VDSO, mapping::STORED_WHOLE);
    } else if name.starts_with(b"[vvar") {
        record.kind = mapping::VVAR;
    } else if let Some(inner) = name.strip_prefix(b"[anon_shmem:") {
        (record.kind, record.stored) = (mapping::SHARED_ANONYMOUS, mapping::STORED_WHOLE);
        shown = length - inner.len()..length - 1;
    } else if name.is_empty() || [&b"[heap]"[..], b"[stack]"].contains(&name) {
        record.stored = stored_of_anonymous(details, flags);
    } else if let Some(inner) = name.strip_prefix(b"[anon:") {
        record.stored = stored_of_anonymous(details, flags);
        shown = length - inner.len()..length - 1;
    } else if deleted == Some(b"/anon_hugepage") || deleted == Some(b"/dev/zero") {
        record.stored = mapping::STORED_WHOLE;
        if found.shared {
            record.kind = mapping::SHARED_ANONYMOUS;
        }
        shown = 0..0;
    } else if let Some(memfd) = deleted.and_then(|name| name.strip_prefix(b"/memfd:"))
        && found.shared
        && !flags.any_of(VmFlags::HUGE_TLB)
    {
        (record.kind, record.stored) = (mapping::MEMFD, mapping::STORED_WHOLE);
        shown = b"/memfd:".len()..b"/memfd:".len() + memfd.len();
    } else if is_segment(name) && found.shared && !flags.any_of(VmFlags::HUGE_TLB) {
        (record.kind, record.stored) = (mapping::SEGMENT, mapping::STORED_WHOLE);
        shown = 0..0;
    } else if name.starts_with(b"/") && !name.starts_with(b"/[aio]") {
        let (mut end, mut deleted) = (deleted.map_or(length, <[u8]>::len), deleted.is_some());
        if found.shared
            && let Some(path) = find_name(name, found.inode)
            && let path = record::text(path.as_bytes())
            && path.len() < buffer.len()
        {
            (end, deleted) = (path.len(), false);
            buffer[..end].copy_from_slice(path);
        }
        buffer[end] = 0;
        shown = describe_file(&mut record, found, &buffer[..=end], deleted)?;
    } else {
        return Err(not_written(format_args!(
            "the mapping at {:x} is {}, which cannot be restored yet",
            found.start,
            Escaped(name)
        )));
    }
    record.name_length = shown.len() as u32;
    Ok(Some((record, &buffer[shown])))
}

/// Refuses what no flag of mmap(2) brings back.
fn refuse_by_flags(
    found: &maps::Mapping<'_>,
    details: &Details<'_>,
    flags: VmFlags,
) -> Result<(), Failure> {
    const DEVICE: VmFlags = VmFlags::DEVICE.with(VmFlags::PURE_PFN);
    const WATCHED: VmFlags =
        VmFlags::UFFD_MISSING.with(VmFlags::UFFD_WRITE).with(VmFlags::UFFD_MINOR);
    let what = if flags.any_of(DEVICE) && !found.name.starts_with(b"[v") {
        "is a device's memory"
    } else if flags.any_of(WATCHED) {
        "is watched by userfaultfd"
    } else if flags.any_of(VmFlags::SHADOW_STACK) {
        "is a shadow stack"
    } else if flags.any_of(VmFlags::TAGGED) {
        "has memory tags (MTE)"
    } else if details.protection_key != 0 {
        "has a protection key"
    } else {
        return Ok(());
    };
    Err(not_written(format_args!(
        "the mapping at {:x} ({}) {what}, which cannot be restored yet",
        found.start,
        Escaped(found.name)
    )))
}

/// What is stored of a mapping of no file: nothing if nothing is there, and nothing if the kernel
/// may drop it at any time.
fn stored_of_anonymous(details: &Details<'_>, flags: VmFlags) -> u32 {
    let there = details.resident + details.swapped > 0 || flags.any_of(VmFlags::HUGE_TLB);
    if there && !flags.any_of(VmFlags::DROPPABLE) {
        mapping::STORED_WHOLE
    } else {
        mapping::STORED_NOTHING
    }
}

/// Fills in the record of a file's mapping. `path` ends with a NUL. Returns which part of it the
/// image keeps as the name.
fn describe_file(
    record: &mut Mapping,
    found: &maps::Mapping<'_>,
    path: &[u8],
    deleted: bool,
) -> Result<core::ops::Range<usize>, Failure> {
    let name = &path[..path.len() - 1];
    let status = match CStr::from_bytes_with_nul(path) {
        Ok(path) if !deleted => call::stat(path).ok(),
        _ => None,
    };
    if name == b"/dev/zero" && !found.shared {
        record.stored = mapping::STORED_WHOLE; // as good as anonymous
        return Ok(0..0);
    }
    if status.is_some_and(|status| status.st_mode & S_IFMT == S_IFCHR) {
        return Err(not_written(format_args!(
            "the mapping at {:x} is of the device {}, which cannot be restored yet",
            found.start,
            Escaped(name)
        )));
    }
    if found.shared && deleted && VmFlags(record.flags).any_of(VmFlags::HUGE_TLB) {
        return Err(not_written(format_args!(
            "the shared mapping at {:x} ({}) is of huge pages, which cannot be restored yet",
            found.start,
            Escaped(name)
        )));
    }
    if found.shared && deleted {
        (record.kind, record.stored) = (mapping::DELETED, mapping::STORED_WHOLE);
        return Ok(0..name.len());
    }
    if found.shared && status.is_none() {
        return Err(not_written(format_args!(
            "the shared mapping at {:x} is of {}, which is no longer there under that name",
            found.start,
            Escaped(name)
        )));
    }
    record.kind = mapping::FILE;
    record.stored = match (config().content, status) {
        // Without the file nothing but the image has its contents.
        (_, None) | (Content::All, _) => mapping::STORED_WHOLE,
        // What the program has written is in the file; but by the time of the restart the file may
        // have been written again.
        _ if found.shared && found.write => mapping::STORED_WHOLE,
        _ if found.shared => mapping::STORED_NOTHING,
        _ => mapping::STORED_CHANGES,
    };
    match status {
        Some(status) => {
            record.file_size = status.st_size as u64;
            record.file_mtime = status.st_mtime as i64;
            record.file_mtime_nsec = status.st_mtime_nsec as u32;
        }
        // How long it was nobody tells; what cannot be read will be taken for the end.
        None => record.file_size = u64::MAX,
    }
    Ok(0..name.len())
}

/// Lets executables and libraries be stored whole: the files of which any part may be executed.
fn store_code_whole(table: &mut [u8]) {
    if config().content != Content::Code {
        return;
    }
    store(table, mapping::STORED_WHOLE, |record, _, table| {
        record.kind == mapping::FILE
            && record.stored == mapping::STORED_CHANGES
            && all_with_tails::<Mapping>(table).any(|(other, _)| {
                other.kind == mapping::FILE
                    && other.protection & PROT_EXEC != 0
                    && (other.device, other.inode) == (record.device, record.inode)
            })
    });
}

/// Stores nothing of shared mappings of files whose contents are in the image through a descriptor; those
/// are `descriptors`.
pub fn leave_to_descriptors(table: &mut [u8], descriptors: &[u8]) {
    store(table, mapping::STORED_NOTHING, |mapping, name, _| {
        VmFlags(mapping.flags).any_of(VmFlags::MAY_SHARE)
            && all_with_tails::<Descriptor>(descriptors).any(|(record, tail)| {
                let (path, _) = record.path_and_state(tail);
                record.has_contents() && record.is_mapped(path, mapping, name)
            })
    });
}

/// Changes how much is stored of those mappings of the table for which `condition` holds.
fn store(table: &mut [u8], stored: u32, condition: impl Fn(&Mapping, &[u8], &[u8]) -> bool) {
    let mut at = 0;
    loop {
        let next = all_with_tails::<Mapping>(&table[at..]).next();
        let Some((mut record, name)) = next else { break };
        if condition(&record, name, table) {
            record.stored = stored;
            table[at..at + size_of::<Mapping>()].copy_from_slice(bytes_of(&record));
        }
        at += size_of::<Mapping>() + (record.name_length as usize).next_multiple_of(8);
    }
}

/// Notes the mappings and what the kernel believes of the layout (`/proc/thread-self/stat`, brk(2)).
pub fn capture(notes: &mut NoteWriter<'_>, table: &[u8]) -> Result<(), Failure> {
    notes.note(record::NAME, kind::MAPPINGS, &[table])?;
    ipc::capture(notes, table)?;
    let stat = Stat::of_caller().or_report(format_args!("reading /proc/thread-self/stat"))?;
    let layout = Layout {
        start_code: stat.field(26),
        end_code: stat.field(27),
        start_stack: stat.field(28),
        start_data: stat.field(45),
        end_data: stat.field(46),
        start_brk: stat.field(47),
        arg_start: stat.field(48),
        arg_end: stat.field(49),
        env_start: stat.field(50),
        env_end: stat.field(51),
        brk: call::program_break(),
    };
    notes.note(record::NAME, kind::LAYOUT, &[bytes_of(&layout)])?;
    Ok(())
}
