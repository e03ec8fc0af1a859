//! The thread: its thread pointer, and what the C library has told the kernel about it or keeps of
//! the kernel's.

use core::{array, ptr};

use ckpt_arch::{RSEQ_SIGNATURE, THREAD_RECORD, ThreadPointers, WeakSymbols, resume};
use ckpt_image::NoteWriter;
use ckpt_image::record::{self, Thread, kind, libc};
use ckpt_sys::call::{self, File};
use ckpt_sys::{Errno, proc};
use linux_raw_sys::auxvec::AT_RSEQ_FEATURE_SIZE;
use linux_raw_sys::prctl::PR_GET_TID_ADDRESS;

use crate::config::config;
use crate::handler::Request;
use crate::report::{Failure, OrReport, not_written};

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
    /// the thread's id and, behind it, a list head that points to itself as long as the list is
    /// empty.
    pub fn find() -> Self {
        if !WeakSymbols::find().libc_stack_end.is_null() {
            return Self { library: libc::GLIBC, ..Self::NONE };
        }
        let Ok(memory) = File::open(c"/proc/self/mem", 0) else { return Self::NONE };
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
        let find_tid = |index: usize| {
            let halves = [words[index] as u32, (words[index] >> 32) as u32];
            let half = halves.iter().position(|half| *half == tid)?;
            Some(offset(index) + (half * size_of::<u32>()) as isize)
        };
        match (begin..list).find_map(find_tid) {
            None => Self::NONE,
            tid => Self { library: libc::MUSL, tid, held_mutexes: Some(offset(list)) },
        }
    }
}

/// Words in which a thread's record is looked for.
const WORDS: usize = THREAD_RECORD.end.abs_diff(THREAD_RECORD.start) / size_of::<u64>();

/// Notes the thread.
pub fn capture(notes: &mut NoteWriter<'_>, request: &Request) -> Result<(), Failure> {
    let pointers = ThreadPointers::current();
    let mut tid_address = 0_u64;
    // SAFETY: the kernel writes eight bytes at the address given.
    unsafe { call::prctl(PR_GET_TID_ADDRESS, &raw mut tid_address as usize) }.or_report(
        format_args!("asking for the tid address (the kernel needs CONFIG_CHECKPOINT_RESTORE)"),
    )?;
    let (robust_list, robust_list_length) =
        call::robust_list().or_report(format_args!("asking for the robust list"))?;
    let (rseq, rseq_length) = rseq_registration(pointers)?;
    let found = config().libc;
    let in_record = |offset: Option<isize>| {
        offset.map_or(0, |offset| pointers.thread_pointer.wrapping_add_signed(offset as i64))
    };
    let thread = Thread {
        tid: call::gettid(),
        libc: found.library,
        resume: resume as *const () as u64,
        context: request.context as u64,
        frame: request.frame as u64,
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
    };
    notes.note(record::NAME, kind::THREADS, &[bytemuck::bytes_of(&thread)])?;
    Ok(())
}

/// Address and length of the rseq area that is registered, zeros if none is.
///
/// The kernel does not tell, but it takes a registration back only if address, length and signature
/// are those of the registration. The C library says where its area is; for the length there are
/// few candidates. What was taken back is registered again at once: no critical section can be
/// under way, since the signal has ended it.
fn rseq_registration(pointers: ThreadPointers) -> Result<(u64, u32), Failure> {
    let offset = WeakSymbols::find().rseq_offset;
    if !offset.is_null() {
        // SAFETY: glibc's `const ptrdiff_t`.
        let area = pointers.thread_pointer.wrapping_add_signed(unsafe { ptr::read(offset) } as i64);
        let [features] = proc::auxiliary([AT_RSEQ_FEATURE_SIZE]);
        let features = features.unwrap_or(0) as u32;
        for length in [32, features.next_multiple_of(32), features] {
            // SAFETY: the area stays registered, as it was.
            unsafe {
                if length != 0 && call::rseq(area, length, true, RSEQ_SIGNATURE).is_ok() {
                    call::rseq(area, length, false, RSEQ_SIGNATURE)
                        .or_report(format_args!("registering the rseq area again"))?;
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
            Err(_) => Err(not_written(format_args!(
                "the program has registered an rseq area of its own, which cannot be found"
            ))),
        }
    }
}

/// An area that the kernel accepts: aligned to its length.
#[repr(align(32))]
struct RseqArea {
    _bytes: [u8; 32],
}
