//! Out of the way.
//!
//! What the image has in memory must go to the addresses where it was; this program is in memory,
//! too. So it looks for a gap that the image leaves, moves there as a whole, and unmaps everything
//! else:
//!
//! ```text
//!   before                                  after
//!
//!   |  [stack], [vdso], [vvar]  |           |                           |
//!   |  head of the image        |           |  ----- the place -------  |
//!   |                           |           |  rooms of the threads     |
//!   |                           |           |  [vvar], [vdso] (parked)  |
//!   |                           |   ---->   |  head of the image        |
//!   |                           |           |  this program: code,      |
//!   |                           |           |  data, its stack (.bss)   |
//!   |                           |           |  -----------------------  |
//!   |  this program, where its  |           |                           |
//!   |  linker script puts it    |           |                           |
//! ```
//!
//! The copy is relocated as a dynamic loader would do it; the program is linked so that "base +
//! addend" is all there is to do. It moves every time, whether or not the image collides: a way that
//! is seldom taken is a way that is not tested. It also lets go of its file, so that a kernel that
//! allows it can call the process by the program's name (`/proc/PID/exe`).

use core::mem::MaybeUninit;

use ckpt_arch::{
    ADDRESS_END, GAPS_FROM, RELATIVE_RELOCATION, image_start, leave_for_stack,
    synchronize_instructions,
};
use ckpt_image::{FileHeader, Head, ProgramHeader};
use ckpt_sys::{Errno, call, maps, proc};
use linux_raw_sys::elf_uapi::PT_LOAD;
use linux_raw_sys::general::{
    MAP_ANONYMOUS, MAP_FIXED_NOREPLACE, MAP_PRIVATE, PROT_EXEC, PROT_READ, PROT_WRITE,
};

use crate::image::Image;
use crate::report::{OrFail, fail};
use crate::{threads, vdso};

/// Room between the place and what the image has in memory: a stack of the image's may want to grow.
const MARGIN: u64 = 64 << 20;

/// What the place begins at a multiple of: that of any page size and, for this program's own sections,
/// of what they are linked for.
const ALIGNMENT: u64 = 2 << 20;

/// This program's stack.
const STACK: usize = 256 << 10;

#[repr(align(16))]
struct Stack {
    _bytes: [u8; STACK],
}
static mut STACK_MEMORY: Stack = Stack { _bytes: [0; STACK] };

/// The longest path of an image (`PATH_MAX`).
const PATH: usize = 4096;
static mut IMAGE_PATH: [u8; PATH] = [0; PATH];

/// What is handed over to the copy.
static mut ARRIVAL: MaybeUninit<Arrival> = MaybeUninit::uninit();

struct Arrival {
    image: Image,
    place: Place,
    go_on: fn(Image, &Place) -> !,
}

/// Where this program is.
#[derive(Clone, Copy)]
pub struct Place {
    /// The first address.
    pub start: u64,
    /// Bytes.
    pub length: u64,
    /// The vDSO of this process, parked in it.
    pub vdso: vdso::Parked,
    /// The rooms of the threads, [`threads::ROOM`] bytes each.
    pub threads: u64,
}

/// An entry of the relocation table (`Elf64_Rela`).
#[repr(C)]
struct Relocation {
    offset: u64,
    info: u64,
    addend: u64,
}

unsafe extern "C" {
    static __image_end: u8;
    static __relocations_start: Relocation;
    static __relocations_end: Relocation;
}

/// The segments of this program, by its own program headers.
fn segments() -> &'static [ProgramHeader] {
    let start = image_start() as *const u8;
    // SAFETY: by the linker script the headers are part of the first segment.
    unsafe {
        let header = &*start.cast::<FileHeader>();
        let table = start.add(header.program_headers as usize).cast();
        core::slice::from_raw_parts(table, usize::from(header.program_header_count))
    }
}

/// Adjusts a copy of this program at `start` to its address.
///
/// # Safety
///
/// There is one, and nobody uses it yet, unless it is adjusted already.
unsafe fn relocate(start: u64) {
    let linked_at = segments()[0].virtual_address;
    let mut entry = &raw const __relocations_start;
    while entry < &raw const __relocations_end {
        // SAFETY: entries of the table, which the linker has made.
        let Relocation { offset, info, addend } = unsafe { entry.read() };
        if info as u32 == RELATIVE_RELOCATION {
            let address = offset - linked_at + start;
            // SAFETY: a place in the copy.
            unsafe { (address as *mut u64).write_unaligned(addend - linked_at + start) };
        }
        // SAFETY: not beyond the end.
        entry = unsafe { entry.add(1) };
    }
}

/// Adjusts this program itself, should the kernel have placed it elsewhere than it is linked for.
pub fn relocate_in_place() {
    let start = image_start() as u64;
    if start != segments()[0].virtual_address {
        // SAFETY: the first thing that this program does.
        unsafe { relocate(start) };
    }
}

/// Moves to where neither the image nor this process has anything, unmaps all else, and calls
/// `go_on` there.
///
/// # Safety
///
/// Of what this process has in memory nothing is needed any more but the image's head.
pub unsafe fn move_away(image: Image, go_on: fn(Image, &Place) -> !) -> ! {
    let start = image_start() as u64;
    let program = &raw const __image_end as u64 - start;
    let head = (image.head_bytes.len() as u64).next_multiple_of(proc::page_size());
    let vdso = vdso::find();
    let room = program + head + vdso.length();
    let length = room + threads::count(&image) * threads::ROOM;
    let new = find_gap(&image.head(), length);

    let flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE;
    // SAFETY: nothing is there.
    unsafe { call::mmap(new, length, PROT_READ | PROT_WRITE, flags, None, 0) }
        .or_fail(format_args!("mapping {length} bytes at {new:x}"));
    let path = image.path.to_bytes_with_nul();
    if path.len() > PATH {
        image.fail(&Errno::ENAMETOOLONG);
    }
    let at = |old: u64| old - start + new;
    let head_at = new + program;
    // SAFETY: the new memory is as long as what is copied into it, and nobody else's. There is one
    // thread, and it uses the statics nowhere else.
    unsafe {
        core::ptr::copy_nonoverlapping(path.as_ptr(), (&raw mut IMAGE_PATH).cast(), path.len());
        copy(image.head_bytes.as_ptr() as u64, head_at, image.head_bytes.len() as u64);
        for segment in segments().iter().filter(|segment| segment.kind == PT_LOAD) {
            let from = segment.virtual_address - segments()[0].virtual_address + start;
            copy(from, at(from), segment.memory_size);
        }
        relocate(new);
        let path = at(&raw const IMAGE_PATH as u64) as *const core::ffi::c_char;
        let arrival = at(&raw const ARRIVAL as u64) as *mut Arrival;
        let head_bytes = core::slice::from_raw_parts(head_at as *const u8, image.head_bytes.len());
        let go_on = at(go_on as usize as u64) as usize;
        arrival.write(Arrival {
            image: image.moved_to(core::ffi::CStr::from_ptr(path), head_bytes),
            place: Place {
                start: new,
                length,
                vdso: vdso.parked_at(head_at + head),
                threads: new + room,
            },
            go_on: core::mem::transmute::<usize, fn(Image, &Place) -> !>(go_on),
        });
        let code = segments()[0].memory_size;
        synchronize_instructions(new as *const u8, code as usize);
        call::mprotect(new, code, PROT_READ | PROT_EXEC)
            .or_fail(format_args!("making a copy of this program executable"));
        let stack_top = at(&raw const STACK_MEMORY as u64) + STACK as u64;
        let arrive = at(arrive as *const () as u64) as usize;
        let arrive = core::mem::transmute::<usize, unsafe extern "C" fn(*mut u8) -> !>(arrive);
        leave_for_stack(stack_top as *mut u8, arrive, arrival.cast())
    }
}

/// Copies memory by addresses.
///
/// # Safety
///
/// As for [`core::ptr::copy_nonoverlapping`].
unsafe fn copy(from: u64, to: u64, length: u64) {
    // SAFETY: the caller's contract.
    unsafe {
        core::ptr::copy_nonoverlapping(from as *const u8, to as *mut u8, length as usize);
    }
}

/// The first function in the copy: unmaps all that lies outside.
unsafe extern "C" fn arrive(arrival: *mut u8) -> ! {
    // SAFETY: `move_away` has written it.
    let Arrival { image, place, go_on } = unsafe { &*arrival.cast::<Arrival>() };
    place.vdso.park();
    // Unmapping while the list is read could hide something: so until nothing is left.
    while let Some((start, end)) = first_mapping_outside(place) {
        // SAFETY: nothing of it is used any more.
        unsafe { call::munmap(start, end - start) }
            .or_fail(format_args!("unmapping {start:x}-{end:x}"));
    }
    go_on(*image, place)
}

/// A mapping that is neither the place nor the kernel's.
fn first_mapping_outside(place: &Place) -> Option<(u64, u64)> {
    let mut found = None;
    for_each_mapping(|start, end| {
        if !(place.start..place.start + place.length).contains(&start) {
            found = found.or(Some((start, end)));
        }
    });
    found
}

/// Calls `each` for every mapping of this process but those of the kernel's half.
fn for_each_mapping(mut each: impl FnMut(u64, u64)) {
    let mut buffer = [0; 8192];
    maps::for_each(c"/proc/self/maps", &mut buffer, |mapping| {
        if mapping.start < ADDRESS_END {
            each(mapping.start, mapping.end);
        }
        Ok::<(), Errno>(())
    })
    .or_fail(format_args!("reading /proc/self/maps"));
}

/// The address of a gap of `length` bytes, with room on both sides, in what the image and this
/// process have in memory.
pub fn find_gap(head: &Head<'_>, length: u64) -> u64 {
    for from in GAPS_FROM {
        let mut candidate = from;
        loop {
            let before = candidate;
            let mut avoid = |start: u64, end: u64| {
                if start < candidate + length + MARGIN && candidate < end.saturating_add(MARGIN) {
                    candidate = end.saturating_add(MARGIN).next_multiple_of(ALIGNMENT);
                }
            };
            // In the order of their addresses, so that one pass finds what is free of them all.
            let mappings = head.mappings().into_iter().flatten();
            mappings.for_each(|(mapping, _)| avoid(mapping.start, mapping.end));
            for_each_mapping(&mut avoid);
            if candidate.saturating_add(length + MARGIN) > ADDRESS_END {
                break;
            }
            if candidate == before {
                return candidate;
            }
        }
    }
    fail(format_args!("the image leaves no gap of {length} bytes for this program to work in"))
}
