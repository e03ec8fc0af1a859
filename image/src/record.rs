//! What our own notes hold. Each is a plain structure without padding, copied as it is.
//!
//! Addresses and lengths are bytes, times are nanoseconds, process ids are those of the process's
//! own pid namespace; where a structure is the kernel's, it is named.

use bytemuck::{Pod, Zeroable};
use static_assertions::const_assert_eq;

use crate::Invalid;

/// The name of our notes.
pub const NAME: &str = "CKPT";

/// The types of our notes. They begin where readelf does not take them for the standard ones.
pub mod kind {
    /// [`Process`](super::Process), then the path of the executable.
    pub const PROCESS: u32 = 0x434b_0001;
    /// [`Mapping`](super::Mapping)s, each followed by its name and padded to 8 bytes.
    pub const MAPPINGS: u32 = 0x434b_0002;
    /// [`Layout`](super::Layout).
    pub const LAYOUT: u32 = 0x434b_0003;
    /// [`Thread`](super::Thread)s, each followed by its affinity mask and padded to 8 bytes: first the
    /// one that took the checkpoint.
    pub const THREADS: u32 = 0x434b_0004;
    /// [`Disposition`](super::Disposition)s of signals 1 to 64.
    pub const DISPOSITIONS: u32 = 0x434b_0005;
    /// [`Pending`](super::Pending) signals in the order of their delivery.
    pub const PENDING: u32 = 0x434b_0006;
    /// [`IntervalTimer`](super::IntervalTimer)s `ITIMER_REAL`, `_VIRTUAL`, `_PROF`.
    pub const INTERVAL_TIMERS: u32 = 0x434b_0007;
    /// [`Timer`](super::Timer)s in any order.
    pub const TIMERS: u32 = 0x434b_0008;
    /// [`Descriptor`](crate::files::Descriptor)s, each followed by its path and its state.
    pub const DESCRIPTORS: u32 = 0x434b_0009;
    /// [`Attributes`](super::Attributes), then the path of the working directory.
    pub const ATTRIBUTES: u32 = 0x434b_000a;
    /// How the CPU lays out the registers in a signal frame: for the architecture to understand.
    pub const CPU: u32 = 0x434b_000b;
    /// [`Range`](super::Range)s of pages made inaccessible by `MADV_GUARD_INSTALL`.
    pub const GUARDS: u32 = 0x434b_000c;
    /// [`Checksums`](super::Checksums), then one 64-bit checksum a PT_LOAD segment.
    pub const CHECKSUMS: u32 = 0x434b_000d;
    /// [`Clocks`](super::Clocks).
    pub const CLOCKS: u32 = 0x434b_000e;
    /// [`FileContents`](crate::files::FileContents) of open files, each followed by its
    /// [`Extent`](crate::files::Extent)s.
    pub const FILE_CONTENTS: u32 = 0x434b_000f;
    /// [`Segment`](super::Segment)s of System V shared memory.
    pub const SEGMENTS: u32 = 0x434b_0010;
    /// [`SemaphoreSet`](super::SemaphoreSet)s of System V, each followed by its
    /// [`Semaphore`](super::Semaphore)s.
    pub const SEMAPHORES: u32 = 0x434b_0014;
    /// [`MessageQueue`](super::MessageQueue)s of System V, each followed by its messages.
    pub const MESSAGES: u32 = 0x434b_0016;
    /// [`Session`](super::Session).
    pub const SESSION: u32 = 0x434b_0012;
}

/// Who was checkpointed, when and where. Its first two fields never move, so that a reader can
/// tell an image it is too old for.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
pub struct Process {
    /// The version of the format.
    pub version: u32,
    /// Bytes in a page.
    pub page_size: u32,
    /// The process id.
    pub pid: u32,
    /// That of the parent.
    pub parent: u32,
    /// The real user id.
    pub user: u32,
    /// The real group id.
    pub group: u32,
    /// When the process started, in clock ticks since boot.
    pub start_time: u64,
    /// The boot that is meant.
    pub boot_id: [u8; 16],
    /// When the image was taken, nanoseconds since the epoch.
    pub taken_at: u64,
    /// The monotonic clock then, nanoseconds.
    pub monotonic: u64,
    /// `uname -r`, cut to 63 bytes and NUL-terminated.
    pub kernel: [u8; 64],
    /// `uname -n`, likewise.
    pub host: [u8; 64],
}
const_assert_eq!(size_of::<Process>(), 192);

/// What a mapping is.
pub mod mapping {
    /// Private memory of no file.
    pub const ANONYMOUS: u32 = 1;
    /// A file, private or shared.
    pub const FILE: u32 = 2;
    /// Shared memory of no file; the inode tells which of them are one.
    pub const SHARED_ANONYMOUS: u32 = 3;
    /// A shared mapping of a memfd; the name is the memfd's.
    pub const MEMFD: u32 = 4;
    /// The kernel's code in the process.
    pub const VDSO: u32 = 5;
    /// Its data, which is never saved. The name tells which.
    pub const VVAR: u32 = 6;
    /// The checkpointer's own scratch memory, whose contents are never saved.
    pub const SCRATCH: u32 = 7;
    /// A shared mapping of a file that has been deleted; the name is the one that it had.
    pub const DELETED: u32 = 8;
    /// System V shared memory; the inode is the id of its segment.
    pub const SEGMENT: u32 = 9;

    /// All of them.
    pub const KNOWN: core::ops::RangeInclusive<u32> = ANONYMOUS..=SEGMENT;

    /// Nothing is stored of it; a file's contents are in the file, or with those of a descriptor.
    pub const STORED_NOTHING: u32 = 0;
    /// What is not stored is zero.
    pub const STORED_WHOLE: u32 = 1;
    /// What is not stored is in the file.
    pub const STORED_CHANGES: u32 = 2;
}

/// A mapping.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable, Debug, PartialEq, Eq)]
pub struct Mapping {
    /// The first address.
    pub start: u64,
    /// The address behind the last.
    pub end: u64,
    /// Where in the file it begins.
    pub offset: u64,
    /// The device, `major << 32 | minor`.
    pub device: u64,
    /// The inode.
    pub inode: u64,
    /// [`VmFlags`](crate::VmFlags).
    pub flags: u64,
    /// Bytes in a page, more than usual for hugetlbfs.
    pub page_size: u64,
    /// The file's size.
    pub file_size: u64,
    /// The file's modification time, seconds and
    pub file_mtime: i64,
    /// nanoseconds.
    pub file_mtime_nsec: u32,
    /// `PROT_READ`, `PROT_WRITE`, `PROT_EXEC`.
    pub protection: u32,
    /// A constant of [`mapping`].
    pub kind: u32,
    /// A constant of [`mapping`].
    pub stored: u32,
    /// The length of the name behind this record.
    pub name_length: u32,
    /// Whether some of it was swapped out (1) or none (0).
    pub swapped: u32,
}
const_assert_eq!(size_of::<Mapping>(), 96);

/// A segment of System V shared memory (shmctl(2)).
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Its id.
    pub id: i32,
    /// Its key, or 0.
    pub key: u32,
    /// How many bytes it has.
    pub size: u64,
    /// Its permissions, and whether it goes with its last mapping (`SHM_DEST`).
    pub mode: u32,
    /// Its owner
    pub user: u32,
    /// and group.
    pub group: u32,
    /// Always 0.
    pub reserved: u32,
}
const_assert_eq!(size_of::<Segment>(), 32);

/// A set of System V semaphores (semctl(2)). Behind it stand its [`Semaphore`]s.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable, Debug, PartialEq, Eq)]
pub struct SemaphoreSet {
    /// Its id.
    pub id: i32,
    /// Its key, or 0.
    pub key: u32,
    /// Its permissions.
    pub mode: u32,
    /// Its owner
    pub user: u32,
    /// and group.
    pub group: u32,
    /// Whether semop(2) had been called for it (`sem_otime`): 1 or 0.
    pub operated: u32,
    /// How many semaphores it has.
    pub count: u32,
    /// Always 0.
    pub reserved: u32,
}
const_assert_eq!(size_of::<SemaphoreSet>(), 32);

impl SemaphoreSet {
    /// The most that an image has.
    pub const MOST: usize = 1024;
}

/// A semaphore of a set.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable, Debug, PartialEq, Eq)]
pub struct Semaphore {
    /// Its value.
    pub value: u16,
    /// What the end of the process adds to it, because of `SEM_UNDO` (semop(2)).
    pub adjustment: i16,
    /// Whether a process has operated on it (`GETPID`): 1 or 0.
    pub used: u32,
}
const_assert_eq!(size_of::<Semaphore>(), 8);

/// A queue of System V messages (msgctl(2)). Behind it stand its messages, each a
/// [`Message`](crate::files::Message) that begins with its type, a signed number of 8 bytes.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable, Debug, PartialEq, Eq)]
pub struct MessageQueue {
    /// Its id.
    pub id: i32,
    /// Its key, or 0.
    pub key: u32,
    /// Its permissions.
    pub mode: u32,
    /// Its owner
    pub user: u32,
    /// and group.
    pub group: u32,
    /// Always 0.
    pub reserved: u32,
    /// How many bytes it may have (`msg_qbytes`).
    pub room: u64,
    /// The length of its messages behind this record.
    pub length: u64,
}
const_assert_eq!(size_of::<MessageQueue>(), 40);

impl MessageQueue {
    /// The most that an image has.
    pub const MOST: usize = 1024;
}

/// What the kernel believes of the layout of memory: `struct prctl_mm_map` without the auxiliary
/// vector, which is in NT_AUXV.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "prctl(2), PR_SET_MM, documents them")]
pub struct Layout {
    pub start_code: u64,
    pub end_code: u64,
    pub start_data: u64,
    pub end_data: u64,
    pub start_brk: u64,
    pub brk: u64,
    pub start_stack: u64,
    pub arg_start: u64,
    pub arg_end: u64,
    pub env_start: u64,
    pub env_end: u64,
}
const_assert_eq!(size_of::<Layout>(), 88);

/// Which C library a thread's memory is laid out by.
pub mod libc {
    /// None that we know.
    pub const UNKNOWN: u32 = 0;
    /// The GNU C library.
    pub const GLIBC: u32 = 1;
    /// musl.
    pub const MUSL: u32 = 2;
}

/// A thread, apart from its registers, which are in its signal frame. Behind it stand the CPUs it may
/// run on (sched_getaffinity(2)), a bit each.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable, Debug, PartialEq, Eq)]
pub struct Thread {
    /// The thread id.
    pub tid: u32,
    /// A constant of [`libc`].
    pub libc: u32,
    /// Where to go on: the address of `resume` in the image's own `libckpt.so`,
    pub resume: u64,
    /// and that of the context to give it.
    pub context: u64,
    /// The address of the signal frame.
    pub frame: u64,
    /// The thread pointer.
    pub thread_pointer: u64,
    /// The architecture's second one, or 0.
    pub second_pointer: u64,
    /// What set_tid_address(2) was given.
    pub tid_address: u64,
    /// Where the C library keeps the thread id, or 0.
    pub tid_cache: u64,
    /// Where musl keeps the head of its list of held mutexes, or 0.
    pub held_mutexes: u64,
    /// What set_robust_list(2) was given.
    pub robust_list: u64,
    /// And the length.
    pub robust_list_length: u64,
    /// The rseq area, or 0.
    pub rseq: u64,
    /// Its length as registered.
    pub rseq_length: u32,
    /// Its signature.
    pub rseq_signature: u32,
    /// The lengths of its vectors, in the architecture's own terms.
    pub vectors: [u64; 2],
    /// The name, `PR_GET_NAME`.
    pub name: [u8; 16],
    /// The nice value.
    pub nice: i32,
    /// ioprio_get(2).
    pub io_priority: u32,
    /// The scheduling policy (sched_setattr(2)),
    pub scheduling_policy: u32,
    /// the priority of the real-time policies,
    pub scheduling_priority: u32,
    /// and flags.
    pub scheduling_flags: u64,
    /// How late its timers may be, nanoseconds (`PR_GET_TIMERSLACK`).
    pub timer_slack: u64,
    /// The length of the affinity mask behind this record.
    pub affinity_length: u64,
}
const_assert_eq!(size_of::<Thread>(), 176);

/// The disposition of a signal: the kernel's `struct sigaction`.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "sigaction(2) documents them")]
pub struct Disposition {
    pub handler: u64,
    pub flags: u64,
    pub restorer: u64,
    pub mask: u64,
}
const_assert_eq!(size_of::<Disposition>(), 32);

/// A pending signal.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
pub struct Pending {
    /// Its number.
    pub signal: u32,
    /// The thread that it is directed to, or 0 for the process.
    pub to_thread: u32,
    /// `siginfo_t`.
    pub info: [u8; 128],
}
const_assert_eq!(size_of::<Pending>(), 136);

/// An interval timer (setitimer(2)).
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable, Debug, PartialEq, Eq)]
pub struct IntervalTimer {
    /// Until it fires next; 0 if it does not.
    pub remaining: u64,
    /// From then on; 0 for once.
    pub interval: u64,
}

/// The number of the checkpointer's own timer, where numbers can be chosen: as far from those that the
/// kernel gives a program as can be.
pub const INTERVAL_TIMER: i32 = i32::MAX - 1;

/// A POSIX timer (timer_create(2)).
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable, Debug, PartialEq, Eq)]
pub struct Timer {
    /// The kernel's number of it.
    pub id: i32,
    /// The clock.
    pub clock: i32,
    /// The signal.
    pub signal: i32,
    /// `SIGEV_SIGNAL`, `SIGEV_NONE`, or `SIGEV_THREAD_ID`.
    pub notify: i32,
    /// The signal's value.
    pub value: u64,
    /// Until it fires next; 0 if it does not.
    pub remaining: u64,
    /// From then on; 0 for once.
    pub interval: u64,
    /// How often it has fired while its signal was pending; 0 if that is not pending.
    pub overdue: u64,
    /// The thread that gets the signal, with `SIGEV_THREAD_ID`; else 0.
    pub thread: u64,
}
const_assert_eq!(size_of::<Timer>(), 56);

/// Bits in an affinity mask: more CPUs than any kernel is built for.
pub const CPUS: usize = 8192;

/// What else the kernel keeps of a process.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
pub struct Attributes {
    /// `RLIMIT_*` by number, soft and hard.
    pub limits: [[u64; 2]; 16],
    /// The file mode creation mask.
    pub umask: u32,
    /// personality(2).
    pub personality: u32,
    /// The values of [`PRCTLS`], in that order; -1 where the kernel has none.
    pub prctls: [i64; PRCTLS.len()],
    /// Which mappings the kernel would write to a core file (`/proc/PID/coredump_filter`).
    pub core_dump_filter: u32,
    /// How willingly the kernel ends the process when memory is short (`/proc/PID/oom_score_adj`).
    pub oom_score_adjustment: i32,
}
const_assert_eq!(size_of::<Attributes>(), 320);

/// A prctl(2) option that reads a number, and the one that sets it.
pub struct Prctl {
    /// Reads it.
    pub get: u32,
    /// Whether through a pointer to an int, instead of as the result.
    pub through_pointer: bool,
    /// Sets it.
    pub set: u32,
}

/// Those that [`Attributes::prctls`] holds.
pub const PRCTLS: [Prctl; 6] = {
    use linux_raw_sys::prctl::*;
    const fn option(get: u32, through_pointer: bool, set: u32) -> Prctl {
        Prctl { get, through_pointer, set }
    }
    [
        option(PR_GET_PDEATHSIG, true, PR_SET_PDEATHSIG),
        option(PR_GET_DUMPABLE, false, PR_SET_DUMPABLE),
        option(PR_GET_KEEPCAPS, false, PR_SET_KEEPCAPS),
        option(PR_GET_CHILD_SUBREAPER, true, PR_SET_CHILD_SUBREAPER),
        option(PR_GET_NO_NEW_PRIVS, false, PR_SET_NO_NEW_PRIVS),
        option(PR_GET_THP_DISABLE, false, PR_SET_THP_DISABLE),
    ]
};

/// The clocks that begin anew at every boot, apart from the one that [`Process`] has. An offset is
/// that of a time namespace: how far the clock was ahead of the kernel's own (time_namespaces(7)).
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable, Debug, PartialEq, Eq)]
pub struct Clocks {
    /// `CLOCK_BOOTTIME` at the checkpoint.
    pub boottime: u64,
    /// The offset of the monotonic clock.
    pub monotonic_offset: i64,
    /// That of `CLOCK_BOOTTIME`.
    pub boottime_offset: i64,
}
const_assert_eq!(size_of::<Clocks>(), 24);

/// Which process group and session the process is in, as `/proc/PID/stat` tells it.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable, Debug, PartialEq, Eq)]
pub struct Session {
    /// The process group.
    pub group: u32,
    /// The session.
    pub session: u32,
    /// The number of the controlling terminal's device; 0 if there is none.
    pub terminal: u32,
    /// The process group in its foreground, or -1.
    pub foreground: i32,
}
const_assert_eq!(size_of::<Session>(), 16);

/// A run of memory.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable, Debug, PartialEq, Eq)]
pub struct Range {
    /// The first address.
    pub start: u64,
    /// The address behind the last.
    pub end: u64,
}

/// What the image's bytes are checked by. `head` is the checksum of the whole head with zeros in
/// that field; each segment has one of its stored bytes.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
pub struct Checksums {
    /// [`Checksums::XXH3`].
    pub algorithm: u32,
    /// How many segments have one.
    pub count: u32,
    /// That of the head.
    pub head: u64,
}

impl Checksums {
    /// XXH3, 64 bits, seed 0.
    pub const XXH3: u32 = 1;
}

/// A record that is followed by as many bytes as it says.
pub trait WithTail: Pod {
    /// How many.
    fn tail_length(&self) -> usize;
}
impl WithTail for Mapping {
    fn tail_length(&self) -> usize {
        self.name_length as usize
    }
}
impl WithTail for SemaphoreSet {
    fn tail_length(&self) -> usize {
        self.count as usize * size_of::<Semaphore>()
    }
}
impl WithTail for MessageQueue {
    fn tail_length(&self) -> usize {
        self.length as usize
    }
}
impl WithTail for Thread {
    fn tail_length(&self) -> usize {
        self.affinity_length as usize
    }
}

/// The record at the beginning of `bytes`, and what follows it.
///
/// # Errors
///
/// [`Invalid::Damaged`] if it is longer than that.
pub fn first<T: Pod>(bytes: &[u8]) -> Result<(T, &[u8]), Invalid> {
    let (record, rest) = bytes.split_at_checked(size_of::<T>()).ok_or(Invalid::Damaged)?;
    Ok((bytemuck::pod_read_unaligned(record), rest))
}

/// The records that `bytes` consist of.
pub fn all<T: Pod>(bytes: &[u8]) -> impl Iterator<Item = T> + Clone {
    bytes.chunks_exact(size_of::<T>()).map(bytemuck::pod_read_unaligned)
}

/// The records with tails that `bytes` consist of. It ends where one does not fit.
pub fn all_with_tails<T: WithTail>(mut bytes: &[u8]) -> impl Iterator<Item = (T, &[u8])> + Clone {
    core::iter::from_fn(move || {
        let (record, rest) = first::<T>(bytes).ok()?;
        let tail = rest.get(..record.tail_length())?;
        let padded = record.tail_length().next_multiple_of(8);
        bytes = rest.get(padded..).unwrap_or(&[]);
        Some((record, tail))
    })
}

/// Whether `bytes` are records with tails and nothing else.
pub fn are_whole<T: WithTail>(bytes: &[u8]) -> bool {
    let lengths = all_with_tails::<T>(bytes)
        .map(|(record, _)| size_of::<T>() + record.tail_length().next_multiple_of(8));
    lengths.sum::<usize>() == bytes.len()
}

/// The text up to the first NUL.
pub fn text(bytes: &[u8]) -> &[u8] {
    bytes.split(|&byte| byte == 0).next().unwrap_or(bytes)
}
