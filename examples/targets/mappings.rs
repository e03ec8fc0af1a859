//! Target: one mapping of each kind.
//!
//! ```text
//! mappings DIRECTORY
//! ```
//!
//! Maps memory in every way there is, with files in DIRECTORY, and fills it with patterns that
//! depend on the place. Converses with the test (see `protocol`): `check` compares all
//! contents (unreadable ones too), that pages which gave no access still give none, that the
//! mappings are in `/proc/self/smaps` with the permissions, names, file offsets and flags they
//! had at the start, that memory mapped twice is one, and lets the program break grow.

mod pattern;
mod protocol;

use libc::{
    MAP_ANONYMOUS, MAP_GROWSDOWN, MAP_NORESERVE, MAP_PRIVATE, MAP_SHARED, PROT_EXEC, PROT_NONE,
    PROT_READ, PROT_WRITE, c_int, c_void,
};
use pattern::mix;
use protocol::{Check, expect, finish, serve};
use std::collections::BTreeMap;
use std::fs::{File, OpenOptions, read_to_string};
use std::io::{Error, Write};
use std::ops::Range;
use std::os::fd::{AsRawFd, FromRawFd};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::ptr::{null_mut, without_provenance_mut};

const READ_WRITE: c_int = PROT_READ | PROT_WRITE;
const PRIVATE: c_int = MAP_PRIVATE | MAP_ANONYMOUS;

/// From linux/mman.h, since Linux 6.13: pages that fault like unmapped ones.
const MADV_GUARD_INSTALL: c_int = 102;

/// On aarch64, from asm/mman.h: code that indirect branches enter only where they are meant to; and
/// from asm/hwcap.h, in AT_HWCAP2: there is such a thing.
const PROT_BTI: c_int = 0x10;
const HWCAP2_BTI: libc::c_ulong = 1 << 17;

/// The data file: some pages and part of one more.
const DATA_PAGES: usize = 6;
const DATA_REST: usize = 1000;

/// Bytes in a page: on some architectures it is for the kernel to say.
fn page_size() -> usize {
    // SAFETY: asks for a number.
    unsafe { libc::sysconf(libc::_SC_PAGESIZE) as usize }
}

/// What a page must hold.
#[derive(Clone, Copy)]
enum Content {
    /// Anonymous memory never written. Unless something did, it takes no memory.
    Untouched,
    /// So many bytes of the pattern that begins at `key`, then zeros.
    Pattern { key: u64, bytes: usize },
    /// Nothing: any access fails.
    NoAccess,
}

/// A page of the pattern that begins at `key`.
fn pattern(key: u64, bytes: usize) -> Vec<u8> {
    let words = (0..page_size() as u64 / 8).flat_map(|n| mix(key + n * 8).to_ne_bytes());
    let mut page: Vec<u8> = words.collect();
    page[bytes..].fill(0);
    page
}

/// A stretch of memory under observation.
struct Area {
    name: &'static str,
    start: usize,
    pages: usize,
    /// What the pages hold that are not just `Untouched`.
    contents: BTreeMap<usize, Content>,
}

impl Area {
    fn map(name: &'static str, pages: usize, prot: c_int, flags: c_int) -> Self {
        Self::place(name, 0, pages, prot, flags, -1, 0)
    }

    /// Maps `pages` of a file whose contents are the pattern, from page `first` on.
    fn map_file(
        name: &'static str,
        file: &File,
        first: usize,
        pages: usize,
        prot: c_int,
        flags: c_int,
    ) -> Self {
        let mut area =
            Self::place(name, 0, pages, prot, flags, file.as_raw_fd(), first * page_size());
        let length = file.metadata().expect("an open file can be asked").len() as usize;
        for page in 0..pages {
            let key = (first + page) * page_size();
            let content = match length.saturating_sub(key).min(page_size()) {
                0 => Content::NoAccess,
                bytes => Content::Pattern { key: key as u64, bytes },
            };
            area.contents.insert(page, content);
        }
        area
    }

    fn place(
        name: &'static str,
        start: usize,
        pages: usize,
        prot: c_int,
        flags: c_int,
        fd: c_int,
        offset: usize,
    ) -> Self {
        let address = without_provenance_mut(start);
        // SAFETY: without MAP_FIXED, nothing that is mapped already is touched.
        let start =
            unsafe { libc::mmap(address, pages * page_size(), prot, flags, fd, offset as i64) };
        assert_ne!(start, libc::MAP_FAILED, "{name}: {}", Error::last_os_error());
        Self { name, start: start.expose_provenance(), pages, contents: BTreeMap::new() }
    }

    fn address<T>(&self, page: usize) -> *mut T {
        std::ptr::with_exposed_provenance_mut(self.start + page * page_size())
    }

    /// Writes `bytes` bytes of the pattern of their own address into a page, zeros behind.
    fn write(&mut self, page: usize, bytes: usize) {
        let key = (self.start + page * page_size()) as u64;
        // SAFETY: the page is mapped writable by this program and nothing refers to it.
        unsafe { self.address::<u8>(page).copy_from(pattern(key, bytes).as_ptr(), page_size()) };
        self.contents.insert(page, Content::Pattern { key, bytes });
    }

    fn filled(mut self) -> Self {
        (0..self.pages).for_each(|page| self.write(page, page_size()));
        self
    }

    fn protected(self, prot: c_int) -> Self {
        // SAFETY: the mapping is ours and nothing refers to it.
        assert_eq!(unsafe { libc::mprotect(self.address(0), self.pages * page_size(), prot) }, 0);
        self
    }

    /// Gives the kernel a hint. It may not know it (EINVAL): the flags will tell.
    fn advised(self, advice: c_int) -> Self {
        // SAFETY: the mapping is ours, and the advice none that takes contents away at once.
        unsafe { libc::madvise(self.address(0), self.pages * page_size(), advice) };
        self
    }

    fn range(&self) -> Range<usize> {
        self.start..self.start + self.pages * page_size()
    }

    fn verify(&self, memory: &File, pagemap: &File) -> Check {
        let mut states = vec![0; self.pages * 8];
        let place = (self.start / page_size() * 8) as u64;
        pagemap.read_exact_at(&mut states, place).map_err(|error| format!("pagemap: {error}"))?;
        let mut found = vec![0; page_size()];
        for (page, state) in states.chunks(8).enumerate() {
            let content = self.contents.get(&page).copied().unwrap_or(Content::Untouched);
            let expected = match content {
                // Neither present nor swapped out (bits 63 and 62): zeros, not looked at.
                Content::Untouched if state[7] >> 6 == 0 => continue,
                Content::Untouched => Some(vec![0; page_size()]),
                Content::Pattern { key, bytes } => Some(pattern(key, bytes)),
                Content::NoAccess => None,
            };
            let address = self.start + page * page_size();
            // By way of the kernel, which reads unreadable memory and survives bad addresses.
            let read = memory.read_exact_at(&mut found, address as u64).is_ok();
            let what = format!("{}, page {page} at {address:#x}", self.name);
            expect(format_args!("{what}, can be read"), expected.is_some(), read)?;
            let Some(expected) = expected else { continue };
            if let Some(at) = (0..page_size()).find(|&at| expected[at] != found[at]) {
                expect(format_args!("{what}, byte {at}"), expected[at], found[at])?;
            }
        }
        Ok(())
    }

    /// What `/proc/self/smaps` says of this area: stretches of pages, and their permissions,
    /// file offset (less the stretch's place), path and flags. Neighbours that differ in
    /// nothing are one stretch, however the kernel keeps them.
    fn description(&self, smaps: &[Vma]) -> Vec<(Range<usize>, String)> {
        let mut stretches: Vec<(Range<usize>, String)> = Vec::new();
        for vma in smaps {
            let start = vma.range.start.max(self.start);
            let end = vma.range.end.min(self.range().end);
            if start >= end {
                continue;
            }
            let offset = match vma.is_file {
                true => vma.offset.wrapping_sub(vma.range.start).wrapping_add(self.start),
                false => 0,
            };
            let text = format!("{} {offset:#x} {} {}", vma.permissions, vma.path, vma.flags);
            let pages = (start - self.start) / page_size()..(end - self.start) / page_size();
            match stretches.last_mut() {
                Some((last, same)) if last.end == pages.start && *same == text => {
                    last.end = pages.end;
                }
                _ => stretches.push((pages, text)),
            }
        }
        stretches
    }
}

/// A mapping as `/proc/self/smaps` has it.
struct Vma {
    range: Range<usize>,
    permissions: String,
    offset: usize,
    is_file: bool,
    path: String,
    flags: String,
}

/// Reads `/proc/self/smaps`.
fn smaps() -> Vec<Vma> {
    let text = read_to_string("/proc/self/smaps").expect("/proc is mounted");
    let number = |digits| usize::from_str_radix(digits, 16).ok();
    let mut all: Vec<Vma> = Vec::new();
    for line in text.lines() {
        let mut fields = line.split_ascii_whitespace();
        let mut next = || fields.next().unwrap_or_default();
        let first = next();
        if let Some((start, end)) = first.split_once('-') {
            let range = number(start).expect("a mapping's start")..number(end).expect("its end");
            let (permissions, offset, _device) = (next().to_owned(), next(), next());
            let (offset, is_file) = (number(offset).expect("an offset"), next() != "0");
            let path = fields.collect::<Vec<_>>().join(" ");
            all.push(Vma { range, permissions, offset, is_file, path, flags: String::new() });
        } else if let ("VmFlags:", Some(vma)) = (first, all.last_mut()) {
            // `sd`, soft-dirty, tells whether the page tables were looked at.
            vma.flags = fields.filter(|&flag| flag != "sd").collect::<Vec<_>>().join(" ");
        }
    }
    all
}

/// Anonymous memory, private and shared.
fn map_anonymous() -> Vec<Area> {
    let mut areas = vec![
        Area::map("private", 5, READ_WRITE, PRIVATE).filled(),
        Area::map("read-only", 3, READ_WRITE, PRIVATE).filled().protected(PROT_READ),
        Area::map("unreadable", 3, READ_WRITE, PRIVATE).filled().protected(PROT_NONE),
        Area::map("write-only", 3, PROT_WRITE, PRIVATE).filled(),
        Area::map("reserved", 16, PROT_NONE, PRIVATE),
        Area::map("executable", 2, READ_WRITE | PROT_EXEC, PRIVATE).filled(),
        Area::map("shared", 4, READ_WRITE, MAP_SHARED | MAP_ANONYMOUS).filled(),
    ];

    // SAFETY: reads the auxiliary vector.
    let capabilities = unsafe { libc::getauxval(libc::AT_HWCAP2) };
    if cfg!(target_arch = "aarch64") && capabilities & HWCAP2_BTI != 0 {
        let guarded = Area::map("branch targets", 2, READ_WRITE, PRIVATE).filled();
        areas.push(guarded.protected(PROT_READ | PROT_EXEC | PROT_BTI));
    }

    let mut some = Area::map("every seventh page", 100, READ_WRITE, PRIVATE);
    (0..100).step_by(7).for_each(|page| some.write(page, page_size()));
    let mut zeroed = Area::map("zeros written", 3, READ_WRITE, PRIVATE).filled();
    zeroed.write(1, 0);
    let mut parts = Area::map("three protections", 9, READ_WRITE, PRIVATE);
    [0, 4, 8].into_iter().for_each(|page| parts.write(page, page_size()));
    // SAFETY: pages of our own mapping, which nothing refers to.
    assert_eq!(unsafe { libc::mprotect(parts.address(3), 3 * page_size(), PROT_READ) }, 0);
    let mut sparse =
        Area::map("1 GiB", (1 << 30) / page_size(), READ_WRITE, PRIVATE | MAP_NORESERVE);
    (0..10).for_each(|n| sparse.write(n * n * (sparse.pages / 88) + n, page_size()));
    areas.extend([some, zeroed, parts, sparse]);

    // A mapping that grows down needs room below it: make some, and let it go.
    let room = Area::map("room", 1024, PROT_NONE, PRIVATE | MAP_NORESERVE);
    // SAFETY: the mapping is ours and was never used.
    assert_eq!(unsafe { libc::munmap(room.address(0), room.pages * page_size()) }, 0);
    let flags = PRIVATE | MAP_GROWSDOWN | libc::MAP_FIXED_NOREPLACE;
    let top = room.start + 1000 * page_size();
    let mut stack = Area::place("growing down", top, 4, READ_WRITE, flags, -1, 0);
    (stack.start, stack.pages) = (stack.start - page_size(), stack.pages + 1);
    areas.push(stack.filled());
    areas
}

/// Anonymous memory that the kernel was told something about.
fn map_advised() -> Vec<Area> {
    let mut areas: Vec<Area> = [
        ("MADV_DONTFORK", libc::MADV_DONTFORK),
        ("MADV_DONTDUMP", libc::MADV_DONTDUMP),
        ("MADV_HUGEPAGE", libc::MADV_HUGEPAGE),
        ("MADV_NOHUGEPAGE", libc::MADV_NOHUGEPAGE),
        ("MADV_SEQUENTIAL", libc::MADV_SEQUENTIAL),
        ("MADV_RANDOM", libc::MADV_RANDOM),
        ("MADV_WIPEONFORK", libc::MADV_WIPEONFORK),
        ("MADV_MERGEABLE", libc::MADV_MERGEABLE),
    ]
    .into_iter()
    .map(|(name, advice)| Area::map(name, 3, READ_WRITE, PRIVATE).filled().advised(advice))
    .collect();

    // Both may be refused: the flags and the path in smaps tell whether they were.
    let locked = Area::map("locked", 1, READ_WRITE, PRIVATE).filled();
    let named = Area::map("named", 2, READ_WRITE, PRIVATE).filled();
    // SAFETY: the mappings are ours, and the name is a C string.
    unsafe {
        libc::mlock(locked.address(0), page_size());
        let (call, what) = (libc::PR_SET_VMA, libc::PR_SET_VMA_ANON_NAME);
        libc::prctl(call, what, named.start, 2 * page_size(), c"of the lab".as_ptr());
    }

    let mut guarded = Area::map("guarded", 4, READ_WRITE, PRIVATE).filled();
    // SAFETY: pages of our own mapping, which nothing refers to.
    if unsafe { libc::madvise(guarded.address(1), 2 * page_size(), MADV_GUARD_INSTALL) } == 0 {
        guarded.contents.extend([(1, Content::NoAccess), (2, Content::NoAccess)]);
    }
    areas.extend([locked, named, guarded]);
    areas
}

/// Creates a file of `bytes` bytes of the pattern.
fn create_file(path: &Path, bytes: usize) -> File {
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .open(path)
        .expect("DIRECTORY is writable");
    let pages = (0..bytes.div_ceil(page_size()))
        .flat_map(|page| pattern((page * page_size()) as u64, page_size()));
    let content: Vec<u8> = pages.take(bytes).collect();
    file.write_all(&content).expect("there is room in DIRECTORY");
    file
}

/// Files. All of them are closed in the end, and stay mapped.
fn map_files(directory: &Path) -> Vec<Area> {
    let shared = create_file(&directory.join("mappings-shared"), 4 * page_size());
    let mut in_file = Area::map_file("shared file", &shared, 0, 4, READ_WRITE, MAP_SHARED);
    in_file.write(1, page_size());
    in_file.write(2, 100);
    let shared_view = Area::map_file("read-only shared file", &shared, 3, 1, PROT_READ, MAP_SHARED);

    let data = create_file(&directory.join("mappings-data"), DATA_PAGES * page_size() + DATA_REST);
    let map =
        |name, first, pages, prot| Area::map_file(name, &data, first, pages, prot, MAP_PRIVATE);
    let mut changed = map("private file", 0, DATA_PAGES, READ_WRITE);
    changed.write(1, page_size());
    changed.write(3, 0);
    let mut middle = map("from the middle of a file", 2, 3, READ_WRITE);
    middle.write(0, page_size());
    // Its last page is partly in the file; and one more, for which there is no file at all.
    let past_end = map("past the end of a file", 4, DATA_PAGES - 4 + 2, READ_WRITE);
    let unchanged = map("read-only private file", 0, 4, PROT_READ);
    let then_protected = map("private file, changed, then read-only", 0, 2, READ_WRITE);
    let then_protected = then_protected.filled().protected(PROT_READ);

    // SAFETY: the name is a C string, and the descriptor is new and nobody else's.
    let memory = unsafe {
        let fd = libc::memfd_create(c"of the lab".as_ptr(), libc::MFD_CLOEXEC);
        assert!(fd >= 0, "memfd_create: {}", Error::last_os_error());
        File::from_raw_fd(fd)
    };
    memory.set_len(3 * page_size() as u64).expect("a memfd has any length");
    let memory = Area::map_file("memfd", &memory, 0, 3, READ_WRITE, MAP_SHARED).filled();
    vec![in_file, shared_view, changed, middle, past_end, unchanged, then_protected, memory]
}

/// Shared memory mapped a second time.
fn map_twice() -> [Area; 2] {
    let one = Area::map("mapped twice", 3, READ_WRITE, MAP_SHARED | MAP_ANONYMOUS).filled();
    // SAFETY: with an old size of 0 the mapping stays, and its object is mapped once more.
    let start = unsafe { libc::mremap(one.address(0), 0, 3 * page_size(), libc::MREMAP_MAYMOVE) };
    assert_ne!(start, libc::MAP_FAILED, "mremap: {}", Error::last_os_error());
    let contents = one.contents.clone();
    let other = Area { name: "mapped again", start: start.expose_provenance(), pages: 3, contents };
    [one, other]
}

/// A write through one mapping is seen through the other. Leaves everything as it was.
fn verify_one_object([one, other]: &[Area; 2]) -> Check {
    for (written, seen) in [(one, other), (other, one)] {
        // SAFETY: both are mapped writable, and volatile since they are one memory.
        let (value, found) = unsafe {
            let (written, seen) = (written.address::<u64>(2), seen.address::<u64>(2));
            let value = written.read_volatile();
            written.write_volatile(!value);
            let found = seen.read_volatile();
            written.write_volatile(value);
            (value, found)
        };
        expect(format_args!("write in {}, seen in {}", written.name, seen.name), !value, found)?;
    }
    Ok(())
}

/// The heap grows by a page, on top of whatever malloc did with it meanwhile. By libc's `sbrk`
/// and not by the system call, which malloc would not know of; both must agree.
fn grow_heap(heap: &mut Vec<Area>) -> Check {
    // SAFETY: more heap is nobody's yet, and so ours.
    let (start, end, kernel) = unsafe {
        let start = libc::sbrk(page_size() as isize);
        (start, libc::sbrk(0), libc::syscall(libc::SYS_brk, null_mut::<c_void>()))
    };
    expect("program break", end.addr(), kernel as usize)?;
    expect("page added to the heap", end.addr() - page_size(), start.addr())?;
    let contents = BTreeMap::new();
    let start = start.expose_provenance();
    heap.push(Area { name: "heap", start, pages: 1, contents }.filled());
    Ok(())
}

fn main() {
    let Some(directory) = std::env::args_os().nth(1) else {
        eprintln!("usage: mappings DIRECTORY");
        std::process::exit(2);
    };
    let (mut areas, twice) = (map_anonymous(), map_twice());
    areas.extend(map_advised());
    areas.extend(map_files(directory.as_ref()));
    let mut heap = Vec::new();
    let open = |name| File::open(name).map_err(|error| format!("{name}: {error}"));

    let before = smaps();
    finish(serve(|| {
        let now = smaps();
        for area in areas.iter().chain(&twice) {
            let (expected, found) = (area.description(&before), area.description(&now));
            expect(format_args!("smaps of {}", area.name), expected, found)?;
        }
        // Opened for each check: a descriptor would go on showing the process it was made in.
        let (memory, pagemap) = (open("/proc/self/mem")?, open("/proc/self/pagemap")?);
        grow_heap(&mut heap)?;
        areas
            .iter()
            .chain(&twice)
            .chain(&heap)
            .try_for_each(|area| area.verify(&memory, &pagemap))?;
        verify_one_object(&twice)
    }));
}
