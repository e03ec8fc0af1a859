//! The locks that threads hold.
//!
//! A recursive or error-checking mutex that is held says by whom: by the id of the thread. A
//! restarted thread may have another, and would find that somebody else holds its own locks. So what
//! is held is handed over to the new id.
//!
//! musl keeps a list of all such mutexes that a thread holds, and one of the streams it has locked.
//! glibc keeps none, so they are looked for, in the memory that the image has stored, by what they
//! look like:
//!
//! ```text
//!   pthread_mutex_t   | lock | count | OWNER | users | kind | spins | previous    | next        |
//!   pthread_rwlock_t  | readers | writers | phase | writers' futex | 0 | 0 | WRITER | shared | 0 | 0 | 0 | 0 | flags |
//! ```
//!
//! Ten words, or thirteen, that must all fit, at an address that such a lock has: a thread id is rarely
//! a number that a program computes with, but the upper half of an address may well be one.

use core::ops::RangeInclusive;

use ckpt_image::Head;
use ckpt_image::record::{Mapping, Thread, libc, mapping};
use linux_raw_sys::general::{FUTEX_TID_MASK, PROT_READ, PROT_WRITE};

use crate::image::Image;
use crate::place::Place;
use crate::thread::replace;
use crate::threads;

/// Hands the locks that the program's threads held over to those of here.
pub fn hand_over(image: &Image, place: &Place) {
    let ids = || threads::with_ids(place);
    let mut changed = ids().filter(|(thread, tid)| thread.tid != *tid).peekable();
    let Some((any, _)) = changed.peek() else { return };
    match any.libc {
        libc::MUSL => {
            for (thread, tid) in changed {
                hand_over_list(thread, tid);
                hand_over_files(&image.head(), thread, tid);
            }
        }
        libc::GLIBC => {
            let lowest = ids().map(|(thread, _)| thread.tid).min().unwrap_or(0);
            let highest = ids().map(|(thread, _)| thread.tid).max().unwrap_or(0);
            let new = |old| threads::id_of(place, old);
            hand_over_found(&image.head(), lowest..=highest, new);
        }
        _ => {}
    }
}

/// musl: the list of the mutexes that the thread holds. It links the last members of `struct
/// { int type, lock, waiters…; void *prev, *next; }` of 40 bytes, and ends where it begins.
fn hand_over_list(thread: &Thread, tid: u32) {
    const NEXT: u64 = 32;
    const LOCK: u64 = 4;
    if thread.held_mutexes == 0 {
        return;
    }
    /// More than any program holds: a list that does not end is none.
    const MOST: usize = 1 << 20;
    // SAFETY: the program's own list, in its own memory.
    unsafe {
        let mut node = *(thread.held_mutexes as *const u64);
        for _ in 0..MOST {
            if node == thread.held_mutexes {
                break;
            }
            replace_owner(node.wrapping_sub(NEXT).wrapping_add(LOCK), thread.tid, tid);
            node = *(node as *const u64);
        }
    }
}

/// musl: the list of the standard I/O streams that flockfile(3) has locked. Its head is a member of
/// the same record as the list of mutexes (src/internal/pthread_impl.h), since musl 1.2; the locks
/// and links are members of the streams (src/internal/stdio_impl.h).
fn hand_over_files(head: &Head<'_>, thread: &Thread, tid: u32) {
    const LOCKED_FILES: u64 = 56;
    const LOCK: u64 = 140;
    const NEXT: u64 = 216;
    let stream_at = |address: u64| {
        let mut mappings = head.mappings().into_iter().flatten();
        mappings.any(|(record, _)| {
            is_searched(&record) && record.start <= address && address + NEXT + 8 <= record.end
        })
    };
    if thread.held_mutexes == 0 {
        return;
    }
    // SAFETY: the record is there, and what is not in the program's memory is not followed.
    unsafe {
        let mut stream = *((thread.held_mutexes + LOCKED_FILES) as *const u64);
        while stream.is_multiple_of(8) && stream_at(stream) {
            replace_owner(stream + LOCK, thread.tid, tid);
            stream = *((stream + NEXT) as *const u64);
        }
    }
}

/// Puts `new` for `old` into a lock word, whose highest bits say whether somebody waits.
///
/// # Safety
///
/// As [`replace`].
unsafe fn replace_owner(address: u64, old: u32, new: u32) {
    // SAFETY: the caller's contract.
    unsafe {
        let flags = (address as *const u32).read_unaligned() & !FUTEX_TID_MASK;
        replace(address, old | flags, new | flags);
    }
}

/// glibc: looks for them in the writable memory of the program's own. The threads' old ids are among
/// `old`, and `new` tells each one's new id.
fn hand_over_found(head: &Head<'_>, old: RangeInclusive<u32>, new: impl Fn(u32) -> Option<u32>) {
    /// Words that are looked at together.
    const BLOCK: usize = 64;
    let (lowest, span) = (*old.start(), old.end() - old.start());
    let may_be = |word: u32| word.wrapping_sub(lowest) <= span;
    let mut mappings = head.mappings().into_iter().flatten().map(|(record, _)| record);
    let mut current = mappings.next();
    for segment in head.segments().filter(|segment| segment.stored > 0) {
        while current.is_some_and(|record| record.end <= segment.address) {
            current = mappings.next();
        }
        let Some(record) = current.filter(is_searched) else { continue };
        let end = segment.address + segment.stored;
        for start in (segment.address..end).step_by(size_of::<[u32; BLOCK]>()) {
            // SAFETY: the program's memory, mapped for reading and writing, whole pages of it.
            let block = unsafe { (start as *const [u32; BLOCK]).read() };
            if block.iter().fold(false, |found, &word| found | may_be(word)) {
                let addresses = (start..).step_by(size_of::<u32>());
                for (address, word) in addresses.zip(block).filter(|&(_, word)| may_be(word)) {
                    if let Some(new) = new(word) {
                        hand_over_if_lock(&record, address, word, new);
                    }
                }
            }
        }
    }
}

/// Whether locks may be in a mapping.
fn is_searched(record: &Mapping) -> bool {
    let kinds = [mapping::ANONYMOUS, mapping::SHARED_ANONYMOUS, mapping::FILE, mapping::MEMFD];
    record.protection & (PROT_READ | PROT_WRITE) == PROT_READ | PROT_WRITE
        && kinds.contains(&record.kind)
}

/// Hands over what is at `address`, if it is the owner of a lock.
fn hand_over_if_lock(record: &Mapping, address: u64, old: u32, new: u32) {
    /// What C says of both.
    const ALIGNMENT: u64 = 8;
    // Where the owner is in the one and in the other.
    const OWNER: u64 = 8;
    const WRITER: u64 = 24;
    let lock = |offset: u64, length: usize| {
        let start = address.checked_sub(offset)?;
        let inside = start >= record.start && start + length as u64 <= record.end;
        (inside && start.is_multiple_of(ALIGNMENT)).then_some(start)
    };
    // SAFETY: inside of the mapping, and aligned.
    unsafe {
        if let Some(start) = lock(OWNER, size_of::<Mutex>())
            && is_mutex(&*(start as *const Mutex), old)
        {
            replace(address, old, new);
            replace_owner(start, old, new);
        } else if let Some(start) = lock(WRITER, size_of::<RwLock>())
            && is_write_locked(&*(start as *const RwLock))
        {
            replace(address, old, new);
        }
    }
}

/// The words of a glibc mutex (sysdeps/nptl/bits/struct_mutex.h).
type Mutex = [u32; 10];

/// The words of a glibc read-write lock (bits/struct_rwlock.h).
type RwLock = [u32; 13];

/// Whether the words are those of a mutex that thread `tid`, its owner, holds, and of a kind that
/// cares (nptl/pthreadP.h).
fn is_mutex(&[lock, count, _, users, kind, spins, list @ ..]: &Mutex, tid: u32) -> bool {
    const TYPE: u32 = 3;
    const RECURSIVE: u32 = 1;
    const ERROR_CHECKING: u32 = 2;
    const ROBUST: u32 = 16;
    const INHERIT: u32 = 32;
    const PROTECT: u32 = 64;
    const KNOWN: u32 = 0x3ff;
    if kind & !KNOWN != 0 || !(1..=0xffff).contains(&users) {
        return false;
    }
    let locked = match kind & (ROBUST | INHERIT | PROTECT) {
        0 => lock == 1 || lock == 2,
        PROTECT => lock & 3 != 0,
        _ => lock & FUTEX_TID_MASK == tid,
    };
    let cares = match kind & TYPE {
        RECURSIVE => count >= 1,
        ERROR_CHECKING => true,
        _ => kind & (ROBUST | INHERIT) != 0,
    };
    // The holder of a robust one has it in its list; nobody has any other.
    let listed = list != [0; 4];
    locked && cares && spins == 0 && listed == (kind & ROBUST != 0)
}

/// Whether the words are those of a read-write lock that is held for writing
/// (nptl/pthread_rwlock_common.c).
fn is_write_locked(words: &RwLock) -> bool {
    const WRITE_PHASE_AND_LOCKED: u32 = 3;
    let &[readers, _, phase_futex, writers_futex, pad3, pad4, _, shared, padding @ .., flags] =
        words;
    /// The highest that PTHREAD_RWLOCK_PREFER_… has.
    const PREFERENCES: u32 = 2;
    readers & WRITE_PHASE_AND_LOCKED == WRITE_PHASE_AND_LOCKED
        && phase_futex & 1 == 1
        && writers_futex & 1 == 1
        && [pad3, pad4] == [0, 0]
        && shared <= 1
        && padding == [0; 4]
        && flags <= PREFERENCES
}
