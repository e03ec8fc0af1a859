//! `restart-static`: reads an image and becomes the process in it.
//!
//! ```text
//!   options       the command line
//!   paths         where the program's files are here
//!   image         reads the head of the image, and refuses what cannot work here
//!   ids           which process the program becomes: this one, or a child
//!     supervisor    what this one does then
//!     namespace     where no id is taken
//!     terminal      one of the program's own
//!   clock         which monotonic clock the program goes on with
//!   place         moves out of the way: into a gap that the image leaves, and unmaps all else
//!     memory        mappings, contents, layout; ipc: segments of shared memory
//!     vdso          the kernel's code, at the address where the program expects it
//!     files         descriptors
//!     process       working directory, limits
//!     semaphores    those of System V
//!     messages      likewise; system_v: objects under the ids that they had
//!     threads       all of the program's; thread: what the C library has told the kernel of each
//!     timers        interval timers, POSIX timers
//!     mutexes       the locks that threads hold
//!     signals       dispositions, pending ones
//!   and at last, in the image's own libckpt.so, `resume`: unmaps this program, and returns from the
//!   signal handler that the checkpoint was taken in.
//! ```
//!
//! What is restored in a file here was captured by the file of the same name in `ckpt-preload`, if it has
//! one: `contents`, `vdso` and `mutexes` work on memory, which is captured as a whole.
//!
//! The program goes on in the foreground of the shell that started this one. This one has no libc, no
//! heap and no thread-local storage, and it stands in one piece of memory that moves as a whole. Files are cut back and written when all that often fails has been
//! done; any failure ends it with one line and status 125, and [`undo`] removes what it has made that others
//! can see.
#![no_std]
#![no_main]

mod clock;
mod contents;
mod faults;
mod files;
mod ids;
mod image;
mod ipc;
mod memory;
mod messages;
mod mutexes;
mod namespace;
mod options;
mod paths;
mod place;
mod process;
mod report;
mod semaphores;
mod signals;
mod supervisor;
mod system_v;
mod terminal;
mod thread;
mod threads;
mod timers;
mod undo;
mod vdso;

use crate::image::Image;
use crate::place::Place;

ckpt_arch::program_entry!(start);

/// The first function. `stack` is what the kernel left there.
///
/// # Safety
///
/// Only for `_start`.
unsafe extern "C" fn start(stack: *const usize) -> ! {
    place::relocate_in_place();
    faults::catch();
    // SAFETY: the kernel's stack is as the ABI has it.
    let options = unsafe { options::parse(stack) };
    let image = Image::open(options.image);
    image.check(options.files);
    ids::choose(&image, options.ids, options.terminal);
    clock::set(&image, options.clock);
    // SAFETY: nothing that is needed later lies outside of the image's head and this program.
    unsafe { place::move_away(image, restore) }
}

/// The second: now this program and its stack are where the image has nothing, and there is nothing
/// else in memory.
fn restore(mut image: Image, place: &Place) -> ! {
    faults::catch();
    signals::block();
    files::begin(&mut image);
    files::restore_nameless(&image);
    memory::restore(&image, place);
    vdso::restore(&image, place);
    memory::restore_layout(&image);
    files::restore(&image);
    semaphores::make(&image);
    messages::make(&image);
    process::restore(&image);
    threads::make(&image, place);
    files::complete(&image, place);
    timers::make(&image, place);
    files::lock(&image);

    // What changes the world outside comes when all that often fails has been done.
    files::finish(&image);
    files::restore_owners(&image, place);
    files::close_others(&image);
    files::write_back(&image);
    memory::write_back(&image);
    semaphores::fill(&image);
    messages::fill(&image);
    files::watch(&image);

    mutexes::hand_over(&image, place);
    memory::guard(&image);
    memory::lock(&image);
    memory::seal(&image);
    process::restore_limits(&image);
    files::restore_modes(&image);
    signals::restore(&image);
    timers::start(&image);
    files::close_own(&image);
    namespace::give_up_capabilities();
    // SAFETY: memory is the image's, but for this program.
    unsafe { threads::go(&image, place) }
}

/// A panic is a defect of this program's; the process has not become the other one yet.
#[panic_handler]
fn panic(info: &core::panic::PanicInfo<'_>) -> ! {
    let (file, line) = info.location().map_or(("?", 0), |at| (at.file(), at.line()));
    report::fail(format_args!("internal error at {file}:{line}; please report it"))
}
