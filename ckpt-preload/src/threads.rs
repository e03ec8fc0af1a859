//! The other threads: stopped while the checkpoint is taken, and let go.
//!
//! The thread that gets the request leads. It sends every other thread of the process a signal, whose
//! handler is the same, and which is told from a request by what it carries. There each thread notes
//! what only it can know of itself, in a slot of the scratch memory, and waits at the gate:
//!
//! ```text
//!   the leader                              every other thread
//!
//!   ROUND = n
//!   lists /proc/self/task, sends signals -> handler
//!                                             a slot: tid, context, what else is its own
//!                     <-- PARKED + 1 ------   waits while ROUND is n
//!   lists again, until all are parked           .
//!   captures                                    .
//!   ROUND = 0, wakes all  ----------------->  returns into the program
//! ```
//!
//! A thread that is parked makes no others. So when a list is made in which all are parked, of which
//! none parked while it was made, and which is as long as the kernel says, nobody is missing.
//!
//! A parked thread needs little of its own stack, of which nothing is known but that the signal frame
//! fitted. In the image its context leads into the handler, as the leader's does.
//!
//! The signal is one that C libraries keep for themselves, and never let a program block or wait for; it
//! is borrowed for as long. A thread that is not stopped by it gets another that it does not block and
//! the program does not use. What blocks all of them, or is in a call that
//! nothing interrupts, is waited for, until `CKPT_STOP_TIMEOUT` is over: then there is no image, and the
//! program runs on.

use core::cell::UnsafeCell;
use core::fmt::Write;
use core::mem::MaybeUninit;
use core::ptr;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering::SeqCst};

use ckpt_arch::{Context, SignalFrame, outcome, save_context_then};
use ckpt_image::record::{Pending, Thread};
use ckpt_sys::call::{self, signal_bit};
use ckpt_sys::lines::number;
use ckpt_sys::timer::BILLION;
use ckpt_sys::{Errno, Line, proc};
use linux_raw_sys::general::{CLOCK_MONOTONIC, SI_QUEUE, kernel_sigaction, siginfo_t};

use crate::config::config;
use crate::handler;
use crate::report::{Failure, OrReport, not_written};
use crate::{signals, thread};

/// The most threads that a process can have to be checkpointed.
pub const MOST: usize = 16 << 10;

/// The number of the round under way, or 0: what the gate opens by.
static ROUND: AtomicU32 = AtomicU32::new(0);
/// The number of the last round.
static LAST: AtomicU32 = AtomicU32::new(0);
/// How many slots have been given out,
static TAKEN: AtomicU32 = AtomicU32::new(0);
/// and how many threads are parked in one.
static PARKED: AtomicU32 = AtomicU32::new(0);
/// The signals that have been borrowed from a program that does not use them, as a mask.
static BORROWED: AtomicU64 = AtomicU64::new(0);

/// What marks the signals of a round: the address of this, as their value.
static MARK: u8 = 0;

/// A parked thread.
pub struct Slot {
    /// The round that it is parked in.
    round: AtomicU32,
    /// 1 when it is the thread's turn to do the [`JOB`], 0 when that has been done.
    turn: AtomicU32,
    tid: AtomicU32,
    parked: UnsafeCell<Parked>,
}

/// What a thread notes of itself.
#[derive(Clone, Copy)]
pub struct Parked {
    /// The signal frame.
    pub frame: *const SignalFrame,
    /// What was found out; an error if something could not be.
    pub thread: Result<Thread, thread::Unknown>,
}

/// What only a thread itself can do.
enum Job {
    /// Take a pending signal of this set out of its queues.
    Take(u64),
    /// Queue this signal, for itself or, if it is the process's first thread, for the process: by the
    /// kernel's rules nobody else may say by whom it was sent.
    Queue(Pending),
    /// It has been done.
    Done(Result<Option<Pending>, Errno>),
}

/// The job of the thread whose turn it is.
struct JobOfTurn(UnsafeCell<Job>);
// SAFETY: used by that thread, and before and afterwards by the leader.
unsafe impl Sync for JobOfTurn {}

static JOB: JobOfTurn = JobOfTurn(UnsafeCell::new(Job::Done(Ok(None))));

// SAFETY: a slot is written by its thread, before it is parked or at its turn, and read by the leader
// afterwards.
unsafe impl Sync for Slot {}

/// The slots of this round, of threads that are parked or on the way.
fn slots() -> &'static [Slot] {
    &config().scratch.slots()[..(TAKEN.load(SeqCst) as usize).min(MOST)]
}

/// The threads that are parked.
pub fn parked() -> impl Iterator<Item = (u32, &'static Parked)> {
    parked_slots().map(|slot| {
        // SAFETY: it is parked.
        (slot.tid.load(SeqCst), unsafe { &*slot.parked.get() })
    })
}

/// The number of the round that is under way, if any.
pub fn round() -> Option<u32> {
    Some(ROUND.load(SeqCst)).filter(|&round| round != 0)
}

/// Whether a signal was sent to stop a thread, in whichever round.
pub fn is_to_stop(info: &siginfo_t) -> bool {
    // SAFETY: these members are there in any siginfo of this code.
    unsafe {
        let info = info.__bindgen_anon_1.__bindgen_anon_1;
        info.si_code == SI_QUEUE && info._sifields._rt._sigval.sival_ptr == mark()
    }
}

fn mark() -> *mut core::ffi::c_void {
    (&raw const MARK).cast_mut().cast()
}

/// Stops all other threads. If not all of them stop, a line says which did not.
pub fn stop(text: &mut [u8], asked: &mut [u32]) -> Result<(), Failure> {
    let own = call::gettid();
    TAKEN.store(0, SeqCst);
    PARKED.store(0, SeqCst);
    let round = LAST.fetch_add(1, SeqCst) + 1;
    ROUND.store(round, SeqCst);
    let deadline = now() + config().stop_timeout;
    let mut asked = Asked { tids: asked, count: 0 };
    let mut late = false;
    loop {
        let before = PARKED.load(SeqCst);
        let (mut count, mut missing) = (0, None);
        proc::for_each_thread(text, |tid| {
            count += 1;
            if tid != own && !is_parked(tid) && !has_ended(tid) {
                missing = Some(tid);
                asked.ask(tid, late)?;
            }
            Ok::<(), Failure>(())
        })
        .or_report(format_args!("listing the threads"))?;
        if missing.is_none() && PARKED.load(SeqCst) == before && thread_count(text) == Some(count) {
            return Ok(());
        }
        if let Some(tid) = missing
            && now() > deadline
        {
            return Err(not_written(format_args!(
                "thread {tid} does not stop within {} seconds: it blocks every signal, or is in a \
                 call that nothing interrupts; try again, or set CKPT_STOP_TIMEOUT",
                config().stop_timeout / BILLION
            )));
        }
        if missing.is_some() {
            let seen = PARKED.load(SeqCst);
            let patience = 20_000_000;
            let _ = call::futex_wait(&PARKED, seen, Some(patience));
            late = PARKED.load(SeqCst) == seen;
        }
    }
}

fn now() -> u64 {
    call::clock(CLOCK_MONOTONIC as i32)
}

/// Whether thread `tid` is parked in this round.
fn is_parked(tid: u32) -> bool {
    parked().any(|(parked, _)| parked == tid)
}

/// How many threads the kernel counts.
fn thread_count(text: &mut [u8]) -> Option<usize> {
    let status = proc::read_file(c"/proc/thread-self/status", text).ok()?;
    proc::value_of(status, b"Threads")
        .and_then(|value| number(value, 10))
        .map(|count| count as usize)
}

/// Whether thread `tid` has ended, and is there only because others of the process are not: the first
/// one, that is.
fn has_ended(tid: u32) -> bool {
    tid == call::getpid()
        && status_of(tid, b"State", |state| matches!(state[0], b'Z' | b'X')) == Some(true)
}

/// What `read` makes of a line of `/proc/self/task/TID/status`.
fn status_of<R>(tid: u32, key: &[u8], read: impl FnOnce(&[u8]) -> R) -> Option<R> {
    let mut path = Line::<48>::new();
    let _ = write!(path, "/proc/self/task/{tid}/status\0");
    let path = core::ffi::CStr::from_bytes_with_nul(path.as_bytes()).ok()?;
    let mut buffer = [0; 4096];
    let status = proc::read_file(path, &mut buffer).ok()?;
    proc::value_of(status, key).filter(|value| !value.is_empty()).map(read)
}

/// A set of signals, as `/proc/self/task/TID/status` tells it.
fn signal_set(tid: u32, key: &[u8]) -> Option<u64> {
    status_of(tid, key, |value| number(value, 16))?
}

/// The threads that have been sent a signal.
struct Asked<'a> {
    tids: &'a mut [u32],
    count: usize,
}

impl Asked<'_> {
    /// Sends thread `tid` a signal, once; if that has not helped yet, another.
    fn ask(&mut self, tid: u32, late: bool) -> Result<(), Failure> {
        let known = self.tids[..self.count].iter().position(|&asked| asked & !AGAIN == tid);
        let signal = match known {
            None => {
                let slot = self.tids.get_mut(self.count).ok_or_else(|| {
                    not_written(format_args!("the program has more than {MOST} threads"))
                })?;
                *slot = tid;
                self.count += 1;
                Some(borrow(&[STOP], 0).unwrap_or(config().signal))
            }
            Some(index) if late && self.tids[index] & AGAIN == 0 => {
                let other = unblocked_signal(tid);
                self.tids[index] |= if other.is_some() { AGAIN } else { 0 };
                other
            }
            Some(_) => None,
        };
        match signal.map_or(Ok(()), |signal| send(tid, signal)) {
            // It has ended meanwhile.
            Ok(()) | Err(Errno::ESRCH) => Ok(()),
            result => result.or_report(format_args!("sending thread {tid} a signal")),
        }
    }
}

/// What marks a thread that has been sent a second signal.
const AGAIN: u32 = 1 << 31;

/// The signal that threads are stopped by: one of those that C libraries keep for themselves (SIGSETXID
/// in glibc, SIGCANCEL in musl), so that no program blocks it or waits for it. While it is borrowed
/// their handler is kept, and called when the signal is meant for it.
pub const STOP: u32 = 33;

/// A signal that thread `tid` does not block: a real-time signal that the program does not use, or that of
/// requests.
fn unblocked_signal(tid: u32) -> Option<u32> {
    const REAL_TIME: [u32; 32] = {
        let mut signals = [32; 32];
        let mut index = 0;
        while index < 31 {
            signals[index] = 64 - index as u32;
            index += 1;
        }
        signals
    };
    let blocked = signal_set(tid, b"SigBlk")?;
    if blocked & signal_bit(STOP) == 0 && handler::is_installed(STOP) {
        return None; // It will come to it; and another one it may take itself, by `sigwait`.
    }
    let request = Some(config().signal).filter(|&signal| blocked & signal_bit(signal) == 0);
    borrow(&REAL_TIME, blocked).or(request)
}

/// Borrows the first of some signals that is not among `blocked` and that the program does not use, or
/// that is [`STOP`], until the end of the round.
fn borrow(signals: &[u32], blocked: u64) -> Option<u32> {
    let is_free = |signal: &u32| {
        let unused = is_borrowed(*signal) || *signal == STOP || signals::is_default(*signal);
        blocked & signal_bit(*signal) == 0 && unused
    };
    let signal = signals.iter().copied().find(is_free)?;
    if !is_borrowed(signal) {
        let before = handler::install(signal).ok()?;
        if signal == STOP {
            // SAFETY: only the leader comes here, and nobody has read it yet.
            unsafe { *KEPT.0.get() = Some(before) };
        }
        BORROWED.fetch_or(signal_bit(signal), SeqCst);
    }
    Some(signal)
}

/// The disposition of [`STOP`] before it was borrowed.
struct Kept(UnsafeCell<Option<kernel_sigaction>>);
// SAFETY: written by the leader before it is borrowed, and read as long as it is.
unsafe impl Sync for Kept {}

static KEPT: Kept = Kept(UnsafeCell::new(None));

/// The disposition that a borrowed signal has in the program.
pub fn kept(signal: u32) -> Option<kernel_sigaction> {
    // SAFETY: nobody writes to it now.
    if signal == STOP { unsafe { *KEPT.0.get() } } else { None }
}

/// Whether `signal` has our handler for the time of this round only.
pub fn is_borrowed(signal: u32) -> bool {
    BORROWED.load(SeqCst) & signal_bit(signal) != 0
}

/// Sends thread `tid` the signal that stops it.
fn send(tid: u32, signal: u32) -> Result<(), Errno> {
    // SAFETY: siginfo_t is plain numbers, for which zeros are valid.
    let mut info = unsafe { core::mem::zeroed::<siginfo_t>() };
    info.__bindgen_anon_1.__bindgen_anon_1.si_signo = signal as i32;
    info.__bindgen_anon_1.__bindgen_anon_1.si_code = SI_QUEUE;
    info.__bindgen_anon_1.__bindgen_anon_1._sifields._rt._sigval.sival_ptr = mark();
    call::queue_to_thread(call::getpid(), tid, signal, &raw const info)
}

/// Lets the threads go that are parked, in this process or in the one that was checkpointed.
pub fn release() {
    let borrowed = BORROWED.swap(0, SeqCst);
    for signal in (1..=64).filter(|&signal| borrowed & signal_bit(signal) != 0) {
        handler::uninstall(signal, kept(signal));
    }
    if ROUND.swap(0, SeqCst) != 0 {
        call::futex_wake(&ROUND);
    }
}

/// Bytes of the program's stack that a parked thread needs.
const STACK: usize = 2048;

/// A thread on its way to be parked.
struct Arrival {
    round: u32,
    frame: *const SignalFrame,
    context: *const Context,
}

/// Parks the calling thread, in the signal handler, until the round is over. The same in the process
/// that is restarted, where it is over at once. Returns why it returned.
#[inline(never)] // its stack is not for the leader to carry
pub fn park(round: u32, frame: *const SignalFrame) -> u64 {
    #[repr(align(16))]
    struct Stack(MaybeUninit<[u8; STACK]>);
    let mut stack = Stack(MaybeUninit::uninit());
    let mut context = Context::default();
    let mut arrival = Arrival { round, frame, context: &raw const context };
    // SAFETY: the stack is this function's own, and it waits here until the other has returned.
    unsafe {
        let top = (&raw mut stack.0).cast::<u8>().add(STACK);
        save_context_then(&raw mut context, top, wait, (&raw mut arrival).cast())
    }
}

/// [`park`], on its small stack.
unsafe extern "C" fn wait(arrival: *mut u8) -> u64 {
    // SAFETY: `park` passes one that it keeps.
    let &Arrival { round, frame, context } = unsafe { &*arrival.cast::<Arrival>() };
    let index = TAKEN.fetch_add(1, SeqCst) as usize;
    let Some(slot) = config().scratch.slots().get(index) else { return outcome::SAVED };
    slot.tid.store(call::gettid(), SeqCst);
    slot.turn.store(0, SeqCst);
    let parked = Parked { frame, thread: thread::of_caller(frame, context) };
    // SAFETY: nobody else looks at it before the thread is parked.
    unsafe { ptr::write(slot.parked.get(), parked) };
    slot.round.store(round, SeqCst);
    PARKED.fetch_add(1, SeqCst);
    call::futex_wake(&PARKED);
    while ROUND.load(SeqCst) == round {
        if slot.turn.load(SeqCst) == 0 {
            let _ = call::futex_wait(&ROUND, round, None);
            continue;
        }
        // SAFETY: it is this thread's turn.
        let job = unsafe { &mut *JOB.0.get() };
        *job = match job {
            Job::Take(set) => Job::Done(Ok(signals::take_one(*set, call::gettid()))),
            Job::Queue(pending) => Job::Done(signals::queue(pending).map(|()| None)),
            Job::Done(_) => Job::Done(Ok(None)),
        };
        slot.turn.store(0, SeqCst);
        call::futex_wake(&slot.turn);
    }
    outcome::SAVED
}

/// The slots of the threads that are parked.
fn parked_slots() -> impl Iterator<Item = &'static Slot> {
    let round = ROUND.load(SeqCst);
    slots().iter().filter(move |slot| slot.round.load(SeqCst) == round)
}

impl Slot {
    /// Has the thread do a job.
    fn turn(&self, job: Job) -> Result<Option<Pending>, Errno> {
        // SAFETY: it is no thread's turn.
        unsafe { *JOB.0.get() = job };
        self.turn.store(1, SeqCst);
        while self.turn.load(SeqCst) != 0 {
            // More than once: it may just have been about to sleep.
            call::futex_wake(&ROUND);
            let _ = call::futex_wait(&self.turn, 1, Some(1_000_000));
        }
        // SAFETY: its turn is over.
        match unsafe { &*JOB.0.get() } {
            Job::Done(result) => *result,
            Job::Take(_) | Job::Queue(_) => Ok(None),
        }
    }
}

/// Has the parked threads take the signals out of their queues that are pending for them alone, one by
/// one into `room`; returns how many.
pub fn take_pending(room: &mut [Pending]) -> usize {
    let mut count = 0;
    for slot in parked_slots() {
        let tid = slot.tid.load(SeqCst);
        while let Some(set) = signal_set(tid, b"SigPnd").filter(|&set| set != 0)
            && let Some(free) = room.get_mut(count)
            && let Ok(Some(taken)) = slot.turn(Job::Take(set))
        {
            *free = taken;
            count += 1;
        }
    }
    count
}

/// Has the parked thread `tid` queue a signal; `None` if there is no such thread.
pub fn queue(tid: u32, pending: &Pending) -> Option<Result<(), Errno>> {
    let slot = parked_slots().find(|slot| slot.tid.load(SeqCst) == tid)?;
    Some(slot.turn(Job::Queue(*pending)).map(drop))
}
