//! The threads: their thread pointers, what the C library has told the kernel about them or keeps of
//! the kernel's, and what else the kernel keeps of each.

use core::{array, fmt, ptr};

use ckpt_arch::{
    Context, RSEQ_SIGNATURE, SignalFrame, THREAD_RECORD, ThreadPointers, WeakSymbols, resume,
    vector_lengths,
};
use ckpt_image::NoteWriter;
use ckpt_image::record::{self, CPUS, Thread, kind, libc};
use ckpt_sys::Errno;
use ckpt_sys::call::{self, File};
use linux_raw_sys::prctl::{PR_GET_NAME, PR_GET_TID_ADDRESS, PR_GET_TIMERSLACK};

use crate::config::config;
use crate::report::{Failure, OrReport, not_written};
use crate::threads;

/// Where in the C library's record of a thread are the things that a restart must put right, in
/// bytes from the thread pointer.
#[derive(Clone, Copy)]
pub struct LibcRecord {
    /// Which library.
    library: u32,
    /// The thread id, in musl. In glibc it is where the tid address points.
    tid: Option<isize>,
    /// The head of the list of held mutexes, in musl.
    held_mutexes: Option<isize>,
}

impl LibcRecord {
    /// Nothing known.
    pub const NONE: Self = Self { library: libc::UNKNOWN, tid: None, held_mutexes: None };

    /// Finds out, before `main`.
    ///
    /// glibc is known by a symbol that only it has. musl is known by its thread record, whose
    /// layout has changed over time, but which has always begun with a pointer to itself; then come
    /// whole words, behind them the thread's id, and then a list head that points to itself as long as
    /// the list is empty. The upper half of a word is not the id, though it may be the same number.
    pub fn find() -> Self {
        if !WeakSymbols::find().libc_stack_end.is_null() {
            return Self { library: libc::GLIBC, ..Self::NONE };
        }
        let Ok(memory) = File::open(c"/proc/thread-self/mem", 0) else { return Self::NONE };
        let pointer = ThreadPointers::current().thread_pointer;
        let address = |index: usize| {
            let offset = THREAD_RECORD.start as i64 + (index * size_of::<u64>()) as i64;
            pointer.wrapping_add_signed(offset)
        };
        // Where there is no memory nothing is found.
        let words: [u64; WORDS] = array::from_fn(|index| {
            let mut word = [0; size_of::<u64>()];
            // SAFETY: the bytes are those of `word`.
            let _ =
                unsafe { call::pread(memory.fd(), word.as_mut_ptr(), word.len(), address(index)) };
            u64::from_ne_bytes(word)
        });
        let mut to_itself = (0..WORDS).filter(|&index| words[index] == address(index));
        let (Some(begin), Some(list)) = (to_itself.next(), to_itself.next()) else {
            return Self::NONE;
        };
        let tid = call::gettid();
        let offset = |index: usize| THREAD_RECORD.start + (index * size_of::<u64>()) as isize;
        let Some(id) = (begin..list).find(|&index| words[index] as u32 == tid) else {
            return Self::NONE;
        };
        Self { library: libc::MUSL, tid: Some(offset(id)), held_mutexes: Some(offset(list)) }
    }
}

/// Words in which a thread's record is looked for.
const WORDS: usize = THREAD_RECORD.end.abs_diff(THREAD_RECORD.start) / size_of::<u64>();

/// What could not be found out of a thread.
#[derive(Clone, Copy)]
pub enum Unknown {
    /// The tid address.
    TidAddress(Errno),
    /// The robust list.
    RobustList(Errno),
    /// The rseq area, which is not the C library's.
    RseqArea,
    /// The scheduling policy, or the nice value.
    Scheduling(Errno),
}

impl fmt::Display for Unknown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TidAddress(errno) => write!(
                f,
                "asking for the tid address (the kernel needs CONFIG_CHECKPOINT_RESTORE): {errno}"
            ),
            Self::RobustList(errno) => write!(f, "asking for the robust list: {errno}"),
            Self::RseqArea => f.write_str(
                "the program has registered an rseq area of its own, which cannot be found",
            ),
            Self::Scheduling(errno) => write!(f, "asking for the scheduling policy: {errno}"),
        }
    }
}

/// Describes the calling thread, which is in the handler with `frame` and will go on by `context`.
///
/// It needs little stack: it may run on the program's.
pub fn of_caller(frame: *const SignalFrame, context: *const Context) -> Result<Thread, Unknown> {
    let pointers = ThreadPointers::current();
    let mut tid_address = 0_u64;
    // SAFETY: the kernel writes eight bytes at the address given.
    unsafe { call::prctl(PR_GET_TID_ADDRESS, &raw mut tid_address as usize) }
        .map_err(Unknown::TidAddress)?;
    let (robust_list, robust_list_length) = call::robust_list().map_err(Unknown::RobustList)?;
    let (rseq, rseq_length) = rseq_registration(pointers)?;
    let scheduling = call::scheduling().map_err(Unknown::Scheduling)?;
    let found = &config().libc;
    let in_record = |offset: Option<isize>| {
        offset.map_or(0, |offset| pointers.thread_pointer.wrapping_add_signed(offset as i64))
    };
    Ok(Thread {
        tid: call::gettid(),
        libc: found.library,
        resume: resume as *const () as u64,
        context: context as u64,
        frame: frame as u64,
        thread_pointer: pointers.thread_pointer,
        second_pointer: pointers.second,
        tid_address,
        tid_cache: if found.library == libc::GLIBC { tid_address } else { in_record(found.tid) },
        held_mutexes: in_record(found.held_mutexes),
        robust_list,
        robust_list_length,
        rseq,
        rseq_length,
        rseq_signature: RSEQ_SIGNATURE,
        vectors: vector_lengths(),
        name: name(),
        nice: call::nice().map_err(Unknown::Scheduling)?,
        io_priority: call::io_priority().unwrap_or(0),
        scheduling_policy: scheduling.policy,
        scheduling_priority: scheduling.priority,
        scheduling_flags: scheduling.flags,
        timer_slack: call::prctl_read(PR_GET_TIMERSLACK, false).unwrap_or(0).max(0) as u64,
        affinity_length: 0,
    })
}

/// The name of the calling thread (`PR_GET_NAME`).
fn name() -> [u8; 16] {
    let mut name = [0; 16];
    // SAFETY: the kernel writes sixteen bytes at the address given.
    let _ = unsafe { call::prctl(PR_GET_NAME, name.as_mut_ptr() as usize) };
    name
}

/// Describes all threads: this one, which took the request, and those that are parked.
pub fn capture(notes: &mut NoteWriter<'_>, own: &Thread) -> Result<(), Failure> {
    notes.begin(record::NAME, kind::THREADS)?;
    capture_one(notes, own)?;
    for (tid, parked) in threads::parked() {
        let thread = parked
            .thread
            .map_err(|unknown| not_written(format_args!("thread {tid}: {unknown}")))?;
        capture_one(notes, &thread)?;
    }
    notes.end()?;
    Ok(())
}

/// Appends a thread and its affinity.
fn capture_one(notes: &mut NoteWriter<'_>, thread: &Thread) -> Result<(), Failure> {
    let mut affinity = [0; CPUS / 8];
    let length = call::affinity(thread.tid, &mut affinity)
        .or_report(format_args!("asking for the CPU affinity of thread {}", thread.tid))?;
    let thread = Thread { affinity_length: length as u64, ..*thread };
    Ok(notes.push_record(&thread, &affinity[..length])?)
}

/// Address and length of the rseq area that is registered, zeros if none is.
///
/// The kernel does not tell, but it takes a registration back only if address, length and signature
/// are those of the registration. The C library says where its area is; for the length there are
/// few candidates. What was taken back is registered again at once: no critical section can be
/// under way, since the signal has ended it.
fn rseq_registration(pointers: ThreadPointers) -> Result<(u64, u32), Unknown> {
    let offset = WeakSymbols::find().rseq_offset;
    if !offset.is_null() {
        // SAFETY: glibc's `const ptrdiff_t`.
        let area = pointers.thread_pointer.wrapping_add_signed(unsafe { ptr::read(offset) } as i64);
        let features = config().rseq_features;
        for length in [32, features.next_multiple_of(32), features] {
            // SAFETY: the area stays registered, as it was; what it was registered with, it is again.
            unsafe {
                if length != 0 && call::rseq(area, length, true, RSEQ_SIGNATURE).is_ok() {
                    let _ = call::rseq(area, length, false, RSEQ_SIGNATURE);
                    return Ok((area, length));
                }
            }
        }
    }
    // Somebody else's? Then a second registration is refused.
    let mut other = RseqArea { _bytes: [0; 32] };
    let address = &raw mut other as u64;
    // SAFETY: the area is taken back before it ends.
    unsafe {
        match call::rseq(address, 32, false, RSEQ_SIGNATURE) {
            Ok(()) => {
                let _ = call::rseq(address, 32, true, RSEQ_SIGNATURE);
                Ok((0, 0))
            }
            Err(Errno::ENOSYS) => Ok((0, 0)),
            Err(_) => Err(Unknown::RseqArea),
        }
    }
}

/// An area that the kernel accepts: aligned to its length.
#[repr(align(32))]
struct RseqArea {
    _bytes: [u8; 32],
}
