//! The vDSO: code that the kernel maps into every process, by which `clock_gettime` and its kin work
//! without a system call.
//!
//! The C library has looked its functions up before the checkpoint, and holds pointers to them. So
//! this process's vDSO, with the data of the kernel's beside it (`[vvar]`), moves to where the
//! program's was. If it is another one, because the kernel is, then the program's own is put there
//! as ordinary memory, with a jump at the beginning of each function to the one of that name in the
//! running kernel's, which gets a place of its own:
//!
//! ```text
//!   where the program's was                     in a gap
//!   | clock_gettime: jmp -----|---------------> | clock_gettime ... |
//!   | getcpu:        jmp -----|---------------> | getcpu ...        |
//! ```

use ckpt_arch::{
    JUMP_LENGTH, SYSTEM_CALL_LENGTH, VDSO_FUNCTIONS, synchronize_instructions, write_jump,
    write_system_call,
};
use ckpt_image::record::{self, Mapping, mapping};
use ckpt_image::{Checksum, FileHeader, Head, Invalid, SectionHeader};
use ckpt_sys::{Errno, call, maps};
use linux_raw_sys::general::{
    MAP_ANONYMOUS, MAP_FIXED_NOREPLACE, MAP_PRIVATE, PROT_EXEC, PROT_READ, PROT_WRITE,
};

use crate::image::Image;
use crate::place::{Place, find_gap};
use crate::report::{OrFail, fail};

/// A vDSO is code and up to three mappings of data (Linux 6.13).
const PARTS: usize = 8;

/// One of its mappings.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
struct Part {
    /// Bytes from the first of the mappings.
    offset: u64,
    /// Bytes.
    length: u64,
    /// Whether it is the code.
    is_code: bool,
}

/// The mappings of a vDSO, which refer to each other by distance.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
struct Parts {
    parts: [Part; PARTS],
    count: usize,
}

impl Parts {
    /// Adds the mapping at `address`; `first` is where the first is, once there is one.
    fn add(&mut self, first: &mut u64, address: u64, length: u64, is_code: bool) {
        if self.count == 0 {
            *first = address;
        }
        let offset = address - *first;
        *self.parts.get_mut(self.count).unwrap_or_else(|| {
            fail(format_args!("this kernel's vDSO has more than {PARTS} parts"))
        }) = Part { offset, length, is_code };
        self.count += 1;
    }

    fn iter(&self) -> impl Iterator<Item = &Part> {
        self.parts[..self.count].iter()
    }

    /// The code.
    fn code(&self) -> Option<&Part> {
        self.iter().find(|part| part.is_code)
    }

    /// Bytes from the first address to the end of the last.
    fn length(&self) -> u64 {
        self.iter().last().map_or(0, |last| last.offset + last.length)
    }

    /// Moves them, as far as they are mapped, keeping their distances.
    fn move_to(&self, from: u64, to: u64) {
        for part in self.iter() {
            let (old, new) = (from + part.offset, to + part.offset);
            // SAFETY: nobody calls it meanwhile, and what is at the new address is ours to replace.
            match unsafe { call::mremap_to(old, part.length, part.length, new) } {
                Err(Errno::EPERM) => fail(format_args!(
                    "the kernel's vDSO is sealed here and cannot be moved; start the kernel \
                     without CONFIG_MSEAL_SYSTEM_MAPPINGS"
                )),
                result => result.or_fail(format_args!("moving the vDSO to {new:x}")),
            }
        }
    }
}

/// The vDSO of this process, where the kernel has put it.
pub struct Found {
    parts: Parts,
    at: u64,
}

/// The vDSO of this process, in the place.
#[derive(Clone, Copy)]
pub struct Parked {
    parts: Parts,
    from: u64,
    at: u64,
}

/// Looks for it.
pub fn find() -> Found {
    let (mut parts, mut at) = (Parts::default(), 0);
    let mut buffer = [0; 8192];
    maps::for_each(c"/proc/self/maps", &mut buffer, |found| {
        let is_code = found.name == b"[vdso]";
        if is_code || found.name.starts_with(b"[vvar") {
            parts.add(&mut at, found.start, found.length(), is_code);
        }
        Ok::<(), Errno>(())
    })
    .or_fail(format_args!("reading /proc/self/maps"));
    Found { parts, at }
}

impl Found {
    /// How much room it needs.
    pub fn length(&self) -> u64 {
        self.parts.length()
    }

    /// It, once it will have been parked at `at`.
    pub fn parked_at(self, at: u64) -> Parked {
        Parked { parts: self.parts, from: self.at, at }
    }
}

impl Parked {
    /// Parks it.
    pub fn park(&self) {
        self.parts.move_to(self.from, self.at);
    }

    /// The bytes of its code.
    fn code(&self) -> &'static [u8] {
        match self.parts.code() {
            // SAFETY: it is mapped there, and readable.
            Some(code) => unsafe {
                let start = (self.at + code.offset) as *const u8;
                core::slice::from_raw_parts(start, code.length as usize)
            },
            None => &[],
        }
    }
}

/// Gives the program a vDSO where it had one.
pub fn restore(image: &Image, place: &Place) {
    let head = image.head();
    let (mut saved, mut saved_at) = (Parts::default(), 0);
    let mut code_at = None;
    for (record, _) in head.mappings().into_iter().flatten() {
        let is_code = record.kind == mapping::VDSO;
        if is_code || record.kind == mapping::VVAR {
            let length = record.end - record.start;
            saved.add(&mut saved_at, record.start, length, is_code);
            code_at = if is_code { Some(record) } else { code_at };
        }
    }
    let Some(record) = code_at else { return };
    let parked = &place.vdso;
    let code = map_saved(image, &head, &record);
    if saved == parked.parts && *code == *parked.code() {
        parked.parts.move_to(parked.at, saved_at);
        return;
    }
    let home = find_gap(&head, parked.parts.length());
    let new_code = home + parked.parts.code().map_or(0, |code| code.offset);
    redirect(code, parked.code(), new_code);
    // SAFETY: readable, as any memory that has been written.
    unsafe { synchronize_instructions(code.as_ptr(), code.len()) };
    parked.parts.move_to(parked.at, home);
    // SAFETY: the program's memory, which is not used yet.
    unsafe { call::mprotect(record.start, record.end - record.start, PROT_READ | PROT_EXEC) }
        .or_fail(format_args!("protecting the vDSO"));
}

/// Maps the program's own vDSO as ordinary memory.
fn map_saved(image: &Image, head: &Head<'_>, record: &Mapping) -> &'static mut [u8] {
    let length = record.end - record.start;
    let flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE;
    // SAFETY: nothing is there.
    let code = unsafe {
        call::mmap(record.start, length, PROT_READ | PROT_WRITE, flags, None, 0)
            .or_fail(format_args!("mapping the vDSO at {:x}", record.start));
        core::slice::from_raw_parts_mut(record.start as *mut u8, length as usize)
    };
    let segment = head.segments().find(|segment| segment.address == record.start);
    let Some(segment) = segment.filter(|segment| segment.stored == length) else {
        image.fail(&Invalid::Damaged)
    };
    image.read(code, segment.offset);
    let mut sum = Checksum::new();
    sum.update(code);
    if sum.value() != segment.checksum {
        image.fail(&Invalid::Checksum);
    }
    code
}

/// Lets every function of `old` jump to its namesake in `new`, which will be at `new_at`; one that
/// has none there makes the system call.
fn redirect(old: &mut [u8], new: &[u8], new_at: u64) {
    const CODE: usize =
        if JUMP_LENGTH > SYSTEM_CALL_LENGTH { JUMP_LENGTH } else { SYSTEM_CALL_LENGTH };
    for (name, number) in VDSO_FUNCTIONS {
        let Some(at) = function(old, name).filter(|at| at + CODE <= old.len()) else { continue };
        let from = old[at..].as_mut_ptr();
        // SAFETY: so many bytes are there, and nobody is executing them.
        unsafe {
            match function(new, name) {
                Some(offset) => write_jump(from, new_at as usize + offset),
                None => write_system_call(from, number),
            }
        }
    }
}

/// The offset of the function `name` in the vDSO `code`, by its table of dynamic symbols.
fn function(code: &[u8], name: &[u8]) -> Option<usize> {
    const SHT_DYNSYM: u32 = 11;
    const SYMBOL: usize = 24; // bytes in an Elf64_Sym: name, info, other, section, value, size
    let (file, _) = record::first::<FileHeader>(code).ok()?;
    let sections = code.get(file.section_headers as usize..)?;
    let section = |index: usize| {
        let sections = sections.get(index * size_of::<SectionHeader>()..)?;
        record::first::<SectionHeader>(sections).ok().map(|(section, _)| section)
    };
    let bytes = |section: SectionHeader| {
        let start = section.offset as usize;
        code.get(start..start.checked_add(section.size as usize)?)
    };
    let mut all = (0..usize::from(file.section_header_count)).map_while(section);
    let symbols = all.find(|section| section.kind == SHT_DYNSYM)?;
    let names = bytes(section(symbols.link as usize)?)?;
    bytes(symbols)?.chunks_exact(SYMBOL).find_map(|symbol| {
        let word = |at: usize| symbol[at..at + 4].try_into().map(u32::from_le_bytes);
        let (found, value) = (word(0).ok()? as usize, word(8).ok()? as usize);
        let defined = symbol[6..8] != [0, 0];
        (defined && record::text(names.get(found..)?) == name).then_some(value)
    })
}
