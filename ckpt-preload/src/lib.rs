//! `libckpt.so`: captures the process it is preloaded into.
//!
//! ```text
//!   constructor   before main: reads the configuration, maps the scratch memory, installs the
//!                 handler. That is all that happens until a signal comes.
//!   handler       leaves the interrupted stack for a private one, calls
//!   checkpoint    which takes everything in turn:
//!     refuse        what would make an image that does not work
//!     threads       stops all the others
//!     signals       pending ones, dispositions
//!     memory        mappings, pages, layout
//!     thread        thread pointers and what the C library has told the kernel
//!     files         descriptors
//!     semaphores    those of System V
//!     messages      likewise
//!     timers        interval timers, POSIX timers
//!     process       identity, limits, names, the standard notes of a core file
//!   writer        and writes it, complete and checked, under the name of the image.
//!   calls         finishes the call that the signal has interrupted.
//! ```
//!
//! What is captured in a file here is restored by the file of the same name in `restart-nostd`, if it has
//! one. `pages` tells which pages there are, `segments` which of them are stored.
//!
//! The library runs inside programs about which it knows nothing. It links no libc, allocates
//! nothing, takes no lock, has no thread-local storage, exports no symbol, and reads the program's
//! pages only through the kernel, so that none of them can make it fault; but for the signal frame,
//! which the kernel has just written, and what the C library says of itself. Its own memory is a few
//! pages of its data segment and the scratch mapping.
#![no_std]

mod calls;
mod checkpoint;
mod config;
mod constructor;
mod files;
mod handler;
mod ipc;
mod limits;
mod memory;
mod messages;
mod pages;
mod process;
mod refuse;
mod report;
mod scratch;
mod segments;
mod semaphores;
mod signals;
mod thread;
mod threads;
mod timers;
mod transfers;
mod writer;

/// Makes the dynamic loader call the constructor before `main`. The arguments that glibc passes
/// are not relied on, since musl passes none.
///
/// In a program that is linked statically, the linker has nothing to call it for; there this entry
/// has a name, `ckpt_constructor`, by which the linker is asked for it (build/static_library.rs).
#[used]
#[unsafe(link_section = ".init_array")]
static CONSTRUCTOR: extern "C" fn() = constructor::construct;

/// A panic is a defect of the library's, and must not become one of the program's.
#[panic_handler]
fn panic(info: &core::panic::PanicInfo<'_>) -> ! {
    let (file, line) = info.location().map_or(("?", 0), |at| (at.file(), at.line()));
    report::line(format_args!("internal error at {file}:{line}; please report it"));
    handler::give_up()
}
