//! The mappings and the layout of memory.
//!
//! Each mapping is made with the flags it had, so that the kernel accounts for it as it did, and gets
//! what madvise(2) had said of it. Then the contents are loaded, in huge pages or not; then it gets its
//! final protection and what mlock(2) had said.

use ckpt_arch::ADDRESS_END;
use ckpt_image::record::{Layout, Mapping, Range, kind, mapping};
use ckpt_image::{Head, Invalid, VmFlags};
use ckpt_sys::Errno;
use ckpt_sys::call::{self, Fd, File};
use ckpt_sys::descriptor::is_shared_memory;
use linux_raw_sys::elf_uapi::NT_AUXV;
use linux_raw_sys::general::{
    MADV_DONTDUMP, MADV_DONTFORK, MADV_GUARD_INSTALL, MADV_HUGEPAGE, MADV_MERGEABLE,
    MADV_NOHUGEPAGE, MADV_RANDOM, MADV_SEQUENTIAL, MADV_WIPEONFORK, MAP_ANONYMOUS, MAP_DROPPABLE,
    MAP_FIXED_NOREPLACE, MAP_GROWSDOWN, MAP_HUGE_SHIFT, MAP_HUGETLB, MAP_NORESERVE, MAP_PRIVATE,
    MAP_SHARED, MAP_SHARED_VALIDATE, MAP_SYNC, MLOCK_ONFAULT, O_NONBLOCK, O_RDONLY, O_RDWR,
    PROT_EXEC, PROT_NONE, PROT_READ, PROT_WRITE,
};
use linux_raw_sys::prctl::prctl_mm_map;

use crate::image::Image;
use crate::paths::{Shown, with_name, with_path};
use crate::place::{Place, find_gap};
use crate::report::{OrFail, fail, note};
use crate::{contents, files, ipc};

/// The flags of a mapping.
fn flags(record: &Mapping) -> VmFlags {
    VmFlags(record.flags)
}

/// Whether changes to a mapping are changes of its file.
fn is_shared(record: &Mapping) -> bool {
    flags(record).any_of(VmFlags::MAY_SHARE.with(VmFlags::SHARED))
}

/// Refuses mappings that cannot be made here: addresses that no program has, files that are not what
/// they were.
pub fn check(image: &Image, head: &Head<'static>) {
    check_guards(image, head);
    ipc::check(head);
    for (record, name) in head.mappings().unwrap_or_else(|why| image.fail(&why)) {
        let known = mapping::KNOWN.contains(&record.kind)
            && (mapping::STORED_NOTHING..=mapping::STORED_CHANGES).contains(&record.stored);
        let page = record.page_size.max(1);
        let aligned = [record.start, record.end].iter().all(|address| address % page == 0);
        if record.end > ADDRESS_END || !aligned || !known {
            image.fail(&Invalid::Damaged);
        }
        if is_written_to(&record) && is_shared_memory(name) {
            files::check_shared_memory(head, name, record.inode);
        }
        let elsewhere = record.kind == mapping::FILE
            && record.stored != mapping::STORED_WHOLE
            && !files::has_contents_of(image, head, &record, name);
        if elsewhere && !is_unchanged(&record, name) {
            fail(format_args!(
                "{}, which the program has mapped, is not there as it was at the checkpoint: put it \
                 back, or take checkpoints with CKPT_CONTENT=all",
                Shown(name)
            ));
        }
    }
}

/// Refuses guard pages that are in no memory of the image's.
fn check_guards(image: &Image, head: &Head<'static>) {
    let mut ranges = image.records::<Range>(head, kind::GUARDS);
    if !ranges.all(|Range { start, end }| start < end && image.has_memory(start, end - start)) {
        image.fail(&Invalid::Damaged);
    }
}

/// Whether a file is there, of the size and with the modification time that it had.
fn is_unchanged(record: &Mapping, name: &[u8]) -> bool {
    with_path(name, call::stat).is_ok_and(|status| {
        status.st_size as u64 == record.file_size
            && status.st_mtime as i64 == record.file_mtime
            && status.st_mtime_nsec as u32 == record.file_mtime_nsec
    })
}

/// Makes the mappings and loads their contents; no file changes, but segments of System V shared memory do.
pub fn restore(image: &Image, place: &Place) {
    let head = image.head();
    let mappings = || head.mappings().into_iter().flatten();
    for (record, name) in mappings() {
        if is_shared(&record)
            && record.stored == mapping::STORED_NOTHING
            && let Some(file) = files::of_mapping(image, &head, &record, name, mode_of(&record))
        {
            map(&record, Some(file.fd()));
            continue;
        }
        match record.kind {
            mapping::VDSO | mapping::VVAR => {}
            mapping::FILE => map_file(&record, name),
            mapping::SHARED_ANONYMOUS | mapping::MEMFD | mapping::DELETED | mapping::SEGMENT => {
                map_shared(image, &head, &record, name, place);
            }
            mapping::ANONYMOUS | mapping::SCRATCH => map(&record, None),
            _ => image.fail(&Invalid::Damaged),
        }
    }
    let made = || mappings().filter(|(r, _)| ![mapping::VDSO, mapping::VVAR].contains(&r.kind));
    made().for_each(|(record, _)| advise(&record));
    contents::load(image, mappings());
    made().for_each(|(record, name)| finish(&record, name));
}

/// Makes guard pages of what were guard pages: from then on nobody can read there, nor this program. A
/// kernel that has no such pages (before Linux 6.13) protects them.
pub fn guard(image: &Image) {
    for Range { start, end } in image.records(&image.head(), kind::GUARDS) {
        // SAFETY: what is there can no more be reached in the program.
        unsafe {
            call::madvise(start, end - start, MADV_GUARD_INSTALL)
                .or_else(|_| call::mprotect(start, end - start, PROT_NONE))
        }
        .or_fail(format_args!("making guard pages at {start:x}"));
    }
}

/// Locks in memory what was locked (mlock2(2)). Guard pages in between cannot be, and are reported as
/// an error when all else has been locked.
pub fn lock(image: &Image) {
    let head = image.head();
    for (record, _) in head.mappings().into_iter().flatten() {
        if !flags(&record).any_of(VmFlags::LOCKED) {
            continue;
        }
        let (start, length) = (record.start, record.end - record.start);
        let on_fault = flags(&record).any_of(VmFlags::LOCK_ON_FAULT);
        let result = call::mlock(start, length, if on_fault { MLOCK_ONFAULT } else { 0 });
        let guarded = image
            .records::<Range>(&head, kind::GUARDS)
            .any(|range| record.start <= range.start && range.end <= record.end);
        // What cannot be accessed is locked, but has no pages to show for it.
        let inaccessible = record.protection & (PROT_READ | PROT_WRITE | PROT_EXEC) == 0;
        if let Err(errno) = result
            && !guarded
            && !inaccessible
        {
            note(format_args!("{length} bytes at {start:x} are not locked in memory: {errno}"));
        }
    }
}

/// The protection a mapping is made with. One that has been counted as committed memory must be
/// writable once for that, whatever it became later; and shared memory must be, to be filled in.
pub fn first_protection(record: &Mapping) -> u32 {
    let shared = [mapping::SHARED_ANONYMOUS, mapping::MEMFD, mapping::DELETED, mapping::SEGMENT]
        .contains(&record.kind)
        && record.stored != mapping::STORED_NOTHING;
    if flags(record).any_of(VmFlags::ACCOUNTED) || shared {
        record.protection | PROT_READ | PROT_WRITE
    } else {
        record.protection
    }
}

/// Makes a mapping, of `fd` if one is given.
fn map(record: &Mapping, fd: Option<Fd>) {
    let set = flags(record);
    let when = |flag, bits| if set.any_of(flag) { bits } else { 0 };
    let sharing = if is_shared(record) && set.any_of(VmFlags::SYNCHRONOUS) {
        MAP_SHARED_VALIDATE
    } else if is_shared(record) {
        MAP_SHARED
    } else if set.any_of(VmFlags::DROPPABLE) {
        MAP_DROPPABLE
    } else {
        MAP_PRIVATE
    };
    let huge = MAP_HUGETLB | record.page_size.trailing_zeros() << MAP_HUGE_SHIFT;
    let flags = MAP_FIXED_NOREPLACE
        | sharing
        | if fd.is_none() { MAP_ANONYMOUS } else { 0 }
        | when(VmFlags::GROWS_DOWN, MAP_GROWSDOWN)
        | when(VmFlags::NO_RESERVE, MAP_NORESERVE)
        | when(VmFlags::SYNCHRONOUS, MAP_SYNC)
        | when(VmFlags::HUGE_TLB, huge);
    let length = record.end - record.start;
    let offset = if fd.is_some() { record.offset } else { 0 };
    let protection = first_protection(record);
    // SAFETY: nothing is there, and where there is something the kernel refuses.
    let at = unsafe { call::mmap(record.start, length, protection, flags, fd, offset) }
        .or_fail(format_args!("mapping {length} bytes at {:x}", record.start));
    if at != record.start {
        // A kernel that takes the address for a hint has something there.
        fail(format_args!("mapping {length} bytes at {:x}: {}", record.start, Errno::EEXIST));
    }
}

/// Whether memory takes the place of a file's mapping: the image has it whole, and the file is another
/// one by now. One that the program writes to through the mapping is written again instead.
pub fn is_replaced(record: &Mapping, name: &[u8]) -> bool {
    let written = is_shared(record) && flags(record).any_of(VmFlags::MAY_WRITE);
    record.stored == mapping::STORED_WHOLE && !written && !is_unchanged(record, name)
}

/// Maps a file; or, if the image has it whole and the file is another one by now, memory in its
/// place.
fn map_file(record: &Mapping, name: &'static [u8]) {
    if is_replaced(record, name) {
        let shared = VmFlags::MAY_SHARE.with(VmFlags::SHARED);
        return map(&Mapping { flags: record.flags & !shared.0, ..*record }, None);
    }
    if is_written_to(record) && is_shared_memory(name) {
        files::make_shared_memory(name, record.file_size);
    }
    let file = with_path(name, |path| File::open(path, mode_of(record)))
        .or_fail(format_args!("opening {}, which the program has mapped", Shown(name)));
    map(record, Some(file.fd()));
}

/// How the file of a mapping was open.
fn mode_of(record: &Mapping) -> u32 {
    let writable = is_shared(record) && flags(record).any_of(VmFlags::MAY_WRITE);
    if writable { O_RDWR } else { O_RDONLY }
}

/// Makes all mappings of the shared memory of which `record` is one, if it is the first of them.
fn map_shared(image: &Image, head: &Head<'_>, record: &Mapping, name: &[u8], place: &Place) {
    let is_one = |other: &Mapping| {
        other.kind == record.kind && (other.device, other.inode) == (record.device, record.inode)
    };
    let all = || head.mappings().into_iter().flatten().map(|(other, _)| other).filter(is_one);
    if all().next().is_some_and(|first| first.start != record.start) {
        return;
    }
    let size = all().map(|other| other.offset + other.end - other.start).max().unwrap_or(0);
    if [mapping::MEMFD, mapping::DELETED].contains(&record.kind) {
        let is_memfd = record.kind == mapping::MEMFD;
        let made = if is_memfd { files::make_memfd(name) } else { files::make_deleted(name) };
        let step = format_args!("making {} again, of {size} bytes", Shown(name));
        let file = File::from_fd(made.or_fail(step));
        call::ftruncate(file.fd(), size).or_fail(step);
        all().for_each(|other| map(&other, Some(file.fd())));
        return;
    }
    if record.kind == mapping::SHARED_ANONYMOUS && record.offset == 0 && all().count() == 1 {
        return map(record, None);
    }
    // Shared memory of no file can be mapped again only from a mapping of it: mremap() with an old
    // length of 0.
    let is_segment = record.kind == mapping::SEGMENT;
    let size = if is_segment { ipc::size(image, record.inode, size) } else { size };
    let base = find_gap(head, size.max(place.length));
    if is_segment {
        ipc::attach(image, record.inode, base);
    } else {
        let protection = PROT_READ | PROT_WRITE;
        map(&Mapping { start: base, end: base + size, offset: 0, protection, ..*record }, None);
    }
    for other in all() {
        let length = other.end - other.start;
        // SAFETY: nothing is at the new address, and the old mapping stays.
        unsafe { call::mremap_to(base + other.offset, 0, length, other.start) }
            .or_fail(format_args!("mapping shared memory at {:x}", other.start));
    }
    // SAFETY: the mapping was made above, and is needed no more.
    unsafe { call::munmap(base, size) }.or_fail(format_args!("unmapping shared memory"));
}

/// What can be said of a mapping with madvise(2), by the flag that says that it was.
const ADVICE: [(VmFlags, u32); 8] = [
    (VmFlags::SEQUENTIAL, MADV_SEQUENTIAL),
    (VmFlags::RANDOM, MADV_RANDOM),
    (VmFlags::DONT_FORK, MADV_DONTFORK),
    (VmFlags::DONT_DUMP, MADV_DONTDUMP),
    (VmFlags::HUGE_PAGE, MADV_HUGEPAGE),
    (VmFlags::NO_HUGE_PAGE, MADV_NOHUGEPAGE),
    (VmFlags::MERGEABLE, MADV_MERGEABLE),
    (VmFlags::WIPE_ON_FORK, MADV_WIPEONFORK),
];

/// Gives a mapping its advice.
fn advise(record: &Mapping) {
    for (flag, advice) in ADVICE {
        if flags(record).any_of(flag) {
            // A kernel without huge pages or page merging does not know the advice, nor need it.
            // SAFETY: none of these throws contents away.
            let _ = unsafe { call::madvise(record.start, record.end - record.start, advice) };
        }
    }
}

/// Gives a mapping its final protection and name.
fn finish(record: &Mapping, name: &[u8]) {
    let (start, length) = (record.start, record.end - record.start);
    if first_protection(record) != record.protection
        || [mapping::SHARED_ANONYMOUS, mapping::SEGMENT].contains(&record.kind)
    {
        // SAFETY: the contents have been loaded.
        unsafe { call::mprotect(start, length, record.protection) }
            .or_fail(format_args!("protecting {length} bytes at {start:x}"));
    }
    let anonymous = [mapping::ANONYMOUS, mapping::SHARED_ANONYMOUS].contains(&record.kind);
    if anonymous && !name.is_empty() && !name.starts_with(b"[") {
        let _ = with_name(name, |name| call::name_mapping(start, length, name));
    }
    if record.kind == mapping::SCRATCH {
        let _ = call::name_mapping(start, length, c"ckpt");
    }
}

/// Whether a mapping is of a shared file, and written back to it.
fn is_written_to(record: &Mapping) -> bool {
    record.kind == mapping::FILE
        && record.stored == mapping::STORED_WHOLE
        && is_shared(record)
        && flags(record).any_of(VmFlags::MAY_WRITE)
}

/// Whether the contents of the file at `path` are in the image, and will be written back.
pub fn is_written_back(head: &Head<'_>, path: &[u8]) -> bool {
    let mut mappings = head.mappings().into_iter().flatten();
    mappings.any(|(record, name)| name == path && is_written_to(&record))
}

/// Writes what the image has of shared file mappings back to their files: what the program has in
/// memory, it has in the file.
pub fn write_back(image: &Image) {
    let head = image.head();
    for (record, name) in head.mappings().into_iter().flatten() {
        if !is_written_to(&record) {
            continue;
        }
        let step = format_args!("writing {}, which the program has mapped", Shown(name));
        // To close another descriptor of a file would drop the program's locks on it.
        let own =
            with_path(name, call::stat).ok().and_then(|file| files::descriptor_of(image, &file));
        let opened;
        let fd = match own {
            Some(fd) => fd,
            None => {
                opened = with_path(name, |path| File::open(path, O_RDWR)).or_fail(step);
                opened.fd()
            }
        };
        if call::fstat(fd).or_fail(step).st_size as u64 != record.file_size {
            call::ftruncate(fd, record.file_size).or_fail(step);
        }
        let range = record.start..record.end;
        for segment in head.segments().filter(|segment| range.contains(&segment.address)) {
            let start = record.offset + segment.address - record.start;
            let length = segment.stored.min(record.file_size.saturating_sub(start));
            contents::for_each_chunk(image, segment.offset, length, |chunk, at| {
                contents::write_differences(fd, chunk, start + at).or_fail(step);
            });
        }
    }
}

/// Seals what was sealed (mseal(2)).
pub fn seal(image: &Image) {
    for (record, _) in image.head().mappings().into_iter().flatten() {
        let kernels = [mapping::VDSO, mapping::VVAR].contains(&record.kind);
        if flags(&record).any_of(VmFlags::SEALED) && !kernels {
            let (start, length) = (record.start, record.end - record.start);
            call::mseal(start, length).or_fail(format_args!("sealing the memory at {start:x}"));
        }
    }
}

/// Tells the kernel the layout: where heap, arguments and environment are, and, if it allows that,
/// which file the program is.
pub fn restore_layout(image: &Image) {
    let head = image.head();
    let layout = image.records::<Layout>(&head, kind::LAYOUT).next();
    let layout = layout.unwrap_or_else(|| image.fail(&Invalid::Damaged));
    let vector = head.notes().find(|note| note.name == b"CORE" && note.kind == NT_AUXV);
    let vector = vector.map_or(&[][..], |note| note.description);
    let mut map = prctl_mm_map {
        start_code: layout.start_code,
        end_code: layout.end_code,
        start_data: layout.start_data,
        end_data: layout.end_data,
        start_brk: layout.start_brk,
        brk: layout.brk,
        start_stack: layout.start_stack,
        arg_start: layout.arg_start,
        arg_end: layout.arg_end,
        env_start: layout.env_start,
        env_end: layout.env_end,
        auxv: vector.as_ptr().cast_mut().cast(),
        auxv_size: vector.len() as u32,
        exe_fd: u32::MAX,
    };
    let (_, executable) = head.process();
    if let Ok(file) = with_path(executable, |path| File::open(path, O_NONBLOCK)) {
        map.exe_fd = file.fd().0 as u32;
        // SAFETY: memory is laid out like that.
        if unsafe { call::set_memory_layout(&map) }.is_ok() {
            return;
        }
        map.exe_fd = u32::MAX;
    }
    // SAFETY: likewise.
    unsafe { call::set_memory_layout(&map) }
        .or_fail(format_args!("telling the kernel the layout of memory (PR_SET_MM_MAP)"));
}
