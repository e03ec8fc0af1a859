//! All threads of the program: this one becomes its first, the others are made.
//!
//! ```text
//!   this thread                              every other
//!
//!   makes the others  ------------------->   tells the kernel what the C library had told it,
//!   waits until all are ready  <----------   restores what else is its own, is ready
//!   restores all else                        waits
//!   lets them go  ----------------------->   by `resume` into the signal handler that it was
//!   goes the same way                        checkpointed in
//! ```
//!
//! So all are there again before any of them runs the program's code. Each stands on a small stack of its
//! own in the place, and the last to leave unmaps it, which is why they are counted.

use core::sync::atomic::{AtomicU32, Ordering::SeqCst};

use ckpt_arch::spawn;
use ckpt_image::Invalid;
use ckpt_image::record::{Thread, all_with_tails, are_whole, kind};
use ckpt_sys::Errno;
use ckpt_sys::call::{self, ALL_SIGNALS};
use linux_raw_sys::general::{
    __NR_clone, __NR_clone3, CLOCK_MONOTONIC, CLONE_FILES, CLONE_FS, CLONE_SIGHAND, CLONE_SYSVSEM,
    CLONE_THREAD, CLONE_VM, clone_args,
};

use crate::ids::{self, Ids};
use crate::image::Image;
use crate::place::Place;
use crate::report::{OrFail, fail};
use crate::{namespace, signals, thread};

/// Bytes of the place that each thread has: a stack, and at its end what it is to become.
pub const ROOM: u64 = 16 << 10;

/// A thread of the program's.
struct Newborn {
    thread: Thread,
    affinity: &'static [u8],
    /// Its id here.
    tid: AtomicU32,
    image: Image,
    place: Place,
}

/// Bytes of its room that are its stack.
const STACK: u64 = ROOM - (size_of::<Newborn>() as u64).next_multiple_of(16);

/// How many threads are ready,
static READY: AtomicU32 = AtomicU32::new(0);
/// whether they may go,
static GO: AtomicU32 = AtomicU32::new(0);
/// and how many are still in the place.
static USERS: AtomicU32 = AtomicU32::new(0);

/// The threads that the image has, with the CPUs that each may run on.
pub fn of_image(image: &Image) -> impl Iterator<Item = (Thread, &'static [u8])> + Clone + use<> {
    all_with_tails::<Thread>(image.head().note(kind::THREADS).unwrap_or(&[]))
}

/// How many threads the image has.
pub fn count(image: &Image) -> u64 {
    of_image(image).count() as u64
}

/// Refuses threads that are in no memory of the image's.
pub fn check(image: &Image) {
    let whole = image.head().note(kind::THREADS).is_ok_and(are_whole::<Thread>);
    if !whole || count(image) == 0 {
        image.fail(&Invalid::Damaged);
    }
    for (record, _) in of_image(image) {
        thread::check(image, &record);
    }
}

/// What each thread is to become, in the order of the image.
fn newborns(place: &Place) -> impl Iterator<Item = *mut Newborn> + use<> {
    let threads = place.threads;
    let rooms = (place.start + place.length - threads) / ROOM;
    (0..rooms).map(move |index| (threads + index * ROOM + STACK) as *mut Newborn)
}

/// Makes the other threads, which wait, and registers all.
pub fn make(image: &Image, place: &Place) {
    let pid = image.head().process().0.pid;
    let mut made = 0;
    for (newborn, (thread, affinity)) in newborns(place).zip(of_image(image)) {
        let tid = AtomicU32::new(call::gettid());
        // SAFETY: its room in the place is nobody else's.
        unsafe { newborn.write(Newborn { thread, affinity, tid, image: *image, place: *place }) };
        if thread.tid == pid {
            thread::register(&thread, affinity);
            continue;
        }
        make_one(newborn, thread.tid);
        made += 1;
    }
    USERS.store(made + 1, SeqCst);
    loop {
        let ready = READY.load(SeqCst);
        if ready == made {
            return;
        }
        let _ = call::futex_wait(&READY, ready, None);
    }
}

/// Makes a thread that is to become `newborn`, with the id `tid` where ids can be chosen. All were free when
/// that was decided, but another process may have got one since then: most do not live long.
fn make_one(newborn: *mut Newborn, tid: u32) {
    const PATIENCE: u64 = 10_000_000_000;
    const PAUSE: u64 = 1_000_000;
    let now = || call::clock(CLOCK_MONOTONIC as i32);
    let end = now() + PATIENCE;
    loop {
        match try_to_make(newborn, tid) {
            Ok(()) => return,
            Err(Errno::EEXIST) if now() < end => {
                let _ = call::futex_wait(&AtomicU32::new(0), 0, Some(PAUSE));
            }
            Err(Errno::EEXIST) => fail(format_args!(
                "the id {tid}, which a thread had, is in use; end what has it, or use --ids=namespace"
            )),
            Err(errno) => fail(format_args!("making thread {tid} again: {errno}; see ulimit -u")),
        }
    }
}

/// Makes it, if that is possible now.
fn try_to_make(newborn: *mut Newborn, tid: u32) -> Result<(), Errno> {
    const FLAGS: u32 =
        CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD | CLONE_SYSVSEM;
    let argument = newborn.cast();
    // SAFETY: the child has the stack that ends where what it is to become lies.
    let child = unsafe {
        if ids::chosen() == Ids::New {
            spawn(FLAGS as usize, newborn as usize, begin, argument, __NR_clone)
        } else {
            let arguments = clone_args {
                flags: FLAGS.into(),
                stack: newborn as u64 - STACK,
                stack_size: STACK,
                set_tid: &raw const tid as u64,
                set_tid_size: 1,
                ..core::mem::zeroed()
            };
            let size = size_of::<clone_args>();
            spawn(&raw const arguments as usize, size, begin, argument, __NR_clone3)
        }
    };
    if child < 0 { Err(Errno(-child as u32)) } else { Ok(()) }
}

/// A thread that has been made.
unsafe extern "C" fn begin(newborn: *mut u8) -> ! {
    // SAFETY: `make` has written it, and nobody changes it but this thread.
    let newborn = unsafe { &*newborn.cast::<Newborn>() };
    call::set_signal_mask(ALL_SIGNALS).or_fail(format_args!("blocking signals"));
    newborn.tid.store(call::gettid(), SeqCst);
    thread::register(&newborn.thread, newborn.affinity);
    // The last one; the first thread of them all is none of these.
    if READY.fetch_add(1, SeqCst) + 2 == USERS.load(SeqCst) {
        call::futex_wake(&READY);
    }
    while GO.load(SeqCst) == 0 {
        let _ = call::futex_wait(&GO, 0, None);
    }
    signals::queue(&newborn.image, newborn.thread.tid);
    namespace::give_up_capabilities();
    // SAFETY: everything has been restored.
    unsafe { thread::resume(Some(&newborn.thread), newborn.thread.resume, &newborn.place, &USERS) }
}

/// The threads, each with its id here.
pub fn with_ids(place: &Place) -> impl Iterator<Item = (&'static Thread, u32)> {
    newborns(place).map(|newborn| {
        // SAFETY: they have been made.
        let newborn: &'static Newborn = unsafe { &*newborn };
        (&newborn.thread, newborn.tid.load(SeqCst))
    })
}

/// The id here of the thread that had the id `old`.
pub fn id_of(place: &Place, old: u32) -> Option<u32> {
    with_ids(place).find_map(|(thread, tid)| (thread.tid == old).then_some(tid))
}

/// Becomes the program: lets the other threads go, and goes.
///
/// # Safety
///
/// Everything else has been restored.
pub unsafe fn go(image: &Image, place: &Place) -> ! {
    let pid = image.head().process().0.pid;
    let threads = || with_ids(place).map(|(thread, _)| thread);
    let first = threads().find(|thread| thread.tid == pid);
    let Some(any) = threads().next() else { image.fail(&Invalid::Damaged) };
    GO.store(1, SeqCst);
    call::futex_wake(&GO);
    // SAFETY: the caller's contract. If the program's first thread had ended, so does this one.
    unsafe { thread::resume(first, any.resume, place, &USERS) }
}
