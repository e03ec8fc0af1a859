//! The system calls, each a typed line on top of the raw one. Their manual is section 2 of the man
//! pages; what the kernel answers with `-errno` comes back as [`Errno`].

use core::ffi::CStr;
use core::mem::MaybeUninit;
use core::sync::atomic::AtomicU32;

use ckpt_arch::{syscall, wait_call};
use linux_raw_sys::general::{self as nr, *};
use linux_raw_sys::prctl::prctl_mm_map;
use linux_raw_sys::system::new_utsname;

use crate::Errno;
use crate::timer::{nanoseconds_of, timespec_of};

/// A result of the kernel's.
type Result<T> = core::result::Result<T, Errno>;

/// A descriptor.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Fd(pub i32);

/// The standard error stream.
pub const STDERR: Fd = Fd(2);

/// The signal mask with every signal in it.
pub const ALL_SIGNALS: u64 = u64::MAX;

/// The bit of a signal in a mask.
pub const fn signal_bit(signal: u32) -> u64 {
    1 << (signal - 1)
}

/// The signals by which the terminal stops a process.
pub const STOPS: u64 = signal_bit(SIGTSTP) | signal_bit(SIGTTIN) | signal_bit(SIGTTOU);

/// Bytes in the kernel's signal set.
const SIGNAL_SET: usize = size_of::<u64>();

/// What goes into an argument register.
trait Argument {
    fn argument(self) -> usize;
}

macro_rules! integer_arguments {
    ($($type:ty),*) => { $(impl Argument for $type {
        fn argument(self) -> usize { self as usize }
    })* };
}
integer_arguments!(i32, u32, i64, u64, usize, isize);

impl Argument for Fd {
    fn argument(self) -> usize {
        self.0 as usize
    }
}
impl Argument for &CStr {
    fn argument(self) -> usize {
        self.as_ptr() as usize
    }
}
impl<T> Argument for *const T {
    fn argument(self) -> usize {
        self as usize
    }
}
impl<T> Argument for *mut T {
    fn argument(self) -> usize {
        self as usize
    }
}

/// One call: its name and arguments. The macro is where `unsafe` is; every use of it is a function
/// that passes only what its own arguments entitle it to, or is `unsafe` itself.
macro_rules! call {
    ($name:ident $(, $argument:expr)*) => {
        // SAFETY: see above.
        result_of(unsafe { syscall(nr::$name, registers([$(Argument::argument($argument)),*])) })
    };
}

/// Likewise, but the call is known to be made for the sake of a wait: see [`wait_call`].
macro_rules! wait {
    ($wait:expr, $name:ident $(, $argument:expr)*) => {{
        let registers = registers([$(Argument::argument($argument)),*]);
        // SAFETY: see above; the arguments are on the stack.
        result_of(unsafe { wait_call(&registers, nr::$name, $wait) })
    }};
}

/// The six argument registers, the unused ones zero.
fn registers<const N: usize>(arguments: [usize; N]) -> [usize; 6] {
    let mut registers = [0; 6];
    registers[..N].copy_from_slice(&arguments);
    registers
}

/// Tells results from errors, which are the last 4095 values.
fn result_of(result: isize) -> Result<usize> {
    if (-4095..0).contains(&result) { Err(Errno(-result as u32)) } else { Ok(result as usize) }
}

/// A structure that the kernel fills in on success.
fn filled<T>(call: impl FnOnce(*mut T) -> Result<usize>) -> Result<T> {
    let mut value = MaybeUninit::<T>::zeroed();
    call(value.as_mut_ptr())?;
    // SAFETY: the kernel filled it in; all such structures are plain numbers, valid as zeros too.
    Ok(unsafe { value.assume_init() })
}

/// An open descriptor that is closed when dropped.
pub struct File(Fd);

impl File {
    /// Opens `path` with `flags` (`O_RDONLY` is 0) and close-on-exec.
    ///
    /// # Errors
    ///
    /// Those of open(2).
    pub fn open(path: &CStr, flags: u32) -> Result<Self> {
        openat(path, flags | O_CLOEXEC, 0).map(Self)
    }

    /// Takes over a descriptor.
    pub fn from_fd(fd: Fd) -> Self {
        Self(fd)
    }

    /// Gives the descriptor up: it stays open.
    pub fn into_fd(self) -> Fd {
        core::mem::ManuallyDrop::new(self).0
    }

    /// The descriptor.
    pub fn fd(&self) -> Fd {
        self.0
    }
}

impl Drop for File {
    fn drop(&mut self) {
        close(self.0);
    }
}

mod contents;
mod ipc;
mod locks;
mod messages;
mod objects;
mod repair;
mod semaphores;
mod sockets;
mod terminal;
mod watch;
pub use contents::*;
pub use ipc::*;
pub use locks::*;
pub use messages::*;
pub use objects::*;
pub use repair::*;
pub use semaphores::*;
pub use sockets::*;
pub use terminal::*;
pub use watch::*;

// Files.

/// openat(2), from the working directory.
pub fn openat(path: &CStr, flags: u32, mode: u32) -> Result<Fd> {
    call!(__NR_openat, AT_FDCWD, path, flags | O_LARGEFILE, mode).map(|fd| Fd(fd as i32))
}

/// close(2). There is nothing to be done about its errors.
pub fn close(fd: Fd) {
    let _ = call!(__NR_close, fd);
}

/// read(2), begun again when a signal interrupts it.
pub fn read(fd: Fd, buffer: &mut [u8]) -> Result<usize> {
    again(|| call!(__NR_read, fd, buffer.as_mut_ptr(), buffer.len()))
}

/// write(2), begun again when a signal interrupts it.
pub fn write(fd: Fd, bytes: &[u8]) -> Result<usize> {
    again(|| call!(__NR_write, fd, bytes.as_ptr(), bytes.len()))
}

/// pread(2) into memory that the compiler need not know of.
///
/// # Safety
///
/// `length` bytes at `into` may be overwritten.
pub unsafe fn pread(fd: Fd, into: *mut u8, length: usize, offset: u64) -> Result<usize> {
    again(|| call!(__NR_pread64, fd, into, length, offset))
}

/// pwrite(2). The memory may be any: what is not readable gives `EFAULT`.
pub fn pwrite(fd: Fd, from: *const u8, length: usize, offset: u64) -> Result<usize> {
    again(|| call!(__NR_pwrite64, fd, from, length, offset))
}

/// write(2) from memory of the program's, of which nothing is known.
pub fn write_from(fd: Fd, from: u64, length: usize) -> Result<usize> {
    again(|| call!(__NR_write, fd, from, length))
}

/// Begins a call again that a signal interrupted.
fn again(mut call: impl FnMut() -> Result<usize>) -> Result<usize> {
    loop {
        match call() {
            Err(Errno::EINTR) => {}
            result => return result,
        }
    }
}

/// lseek(2). The new offset is returned.
pub fn lseek(fd: Fd, offset: i64, whence: u32) -> Result<u64> {
    call!(__NR_lseek, fd, offset, whence).map(|offset| offset as u64)
}

/// fstat(2).
pub fn fstat(fd: Fd) -> Result<stat> {
    filled(|into| call!(__NR_fstat, fd, into))
}

/// stat(2).
pub fn stat(path: &CStr) -> Result<stat> {
    status_at(path, 0)
}

/// fstatat(2) with `flags`, from the working directory.
pub fn status_at(path: &CStr, flags: u32) -> Result<stat> {
    filled(|into| call!(__NR_newfstatat, AT_FDCWD, path, into, flags))
}

/// Whether the user may write to what is at `path`: access(2).
pub fn may_write(path: &CStr) -> bool {
    call!(__NR_faccessat, AT_FDCWD, path, W_OK).is_ok()
}

/// readlink(2). A link that fills the buffer may have been longer: `ENAMETOOLONG`.
pub fn readlink<'b>(path: &CStr, buffer: &'b mut [u8]) -> Result<&'b [u8]> {
    match call!(__NR_readlinkat, AT_FDCWD, path, buffer.as_mut_ptr(), buffer.len())? {
        length if length == buffer.len() => Err(Errno::ENAMETOOLONG),
        length => Ok(&buffer[..length]),
    }
}

/// getdents64(2).
pub fn getdents64(fd: Fd, buffer: &mut [u8]) -> Result<usize> {
    call!(__NR_getdents64, fd, buffer.as_mut_ptr(), buffer.len())
}

/// chmod(2).
pub fn chmod(path: &CStr, mode: u32) -> Result<()> {
    call!(__NR_fchmodat, AT_FDCWD, path, mode).map(drop)
}

/// unlink(2).
pub fn unlink(path: &CStr) -> Result<()> {
    call!(__NR_unlinkat, AT_FDCWD, path, 0_u32).map(drop)
}

/// rename(2).
pub fn rename(from: &CStr, to: &CStr) -> Result<()> {
    call!(__NR_renameat2, AT_FDCWD, from, AT_FDCWD, to, 0_u32).map(drop)
}

/// fsync(2).
pub fn fsync(fd: Fd) -> Result<()> {
    call!(__NR_fsync, fd).map(drop)
}

/// ftruncate(2).
pub fn ftruncate(fd: Fd, length: u64) -> Result<()> {
    call!(__NR_ftruncate, fd, length).map(drop)
}

/// fcntl(2).
pub fn fcntl(fd: Fd, command: u32, argument: u32) -> Result<u32> {
    call!(__NR_fcntl, fd, command, argument).map(|result| result as u32)
}

/// dup3(2).
pub fn dup3(from: Fd, to: Fd, flags: u32) -> Result<()> {
    call!(__NR_dup3, from, to, flags).map(drop)
}

/// Whether `fd` is a terminal: `ioctl(TCGETS)` succeeds.
pub fn is_terminal(fd: Fd) -> bool {
    filled::<termios>(|into| call!(__NR_ioctl, fd, linux_raw_sys::ioctl::TCGETS, into)).is_ok()
}

/// Finds runs of pages that have all of `categories`, from `start` on: `ioctl(PAGEMAP_SCAN)` on a
/// `/proc/PID/pagemap` (Documentation/admin-guide/mm/pagemap.rst; Linux 6.7). Returns how many, and
/// the address behind the last page that was looked at.
pub fn scan_pages(
    pagemap: Fd,
    start: u64,
    end: u64,
    categories: u64,
    runs: &mut [page_region],
) -> Result<(usize, u64)> {
    // _IOWR('f', 16, struct pm_scan_arg) (include/uapi/linux/fs.h)
    const PAGEMAP_SCAN: usize =
        3 << 30 | size_of::<pm_scan_arg>() << 16 | (b'f' as usize) << 8 | 16;
    let mut argument = pm_scan_arg {
        size: size_of::<pm_scan_arg>() as u64,
        flags: 0,
        start,
        end,
        walk_end: 0,
        vec: runs.as_mut_ptr() as u64,
        vec_len: runs.len() as u64,
        max_pages: 0,
        category_inverted: 0,
        category_mask: categories,
        category_anyof_mask: 0,
        return_mask: categories,
    };
    let count = call!(__NR_ioctl, pagemap, PAGEMAP_SCAN, &raw mut argument)?;
    Ok((count, argument.walk_end))
}

/// Whether two descriptors of thread `tid` share one open file: kcmp(2) with `KCMP_FILE`.
pub fn same_open_file(tid: u32, a: Fd, b: Fd) -> Result<bool> {
    const KCMP_FILE: u32 = 0;
    call!(__NR_kcmp, tid, tid, KCMP_FILE, a, b).map(|order| order == 0)
}

/// Whether two processes share their memory: kcmp(2) with `KCMP_VM`.
pub fn same_memory(a: u32, b: u32) -> Result<bool> {
    const KCMP_VM: u32 = 1;
    call!(__NR_kcmp, a, b, KCMP_VM, 0_u32, 0_u32).map(|order| order == 0)
}

// The process.

/// getpid(2).
pub fn getpid() -> u32 {
    call!(__NR_getpid).unwrap_or(0) as u32
}

/// getppid(2).
pub fn getppid() -> u32 {
    call!(__NR_getppid).unwrap_or(0) as u32
}

/// gettid(2).
pub fn gettid() -> u32 {
    call!(__NR_gettid).unwrap_or(0) as u32
}

/// fork(2), by clone(2): returns 0 in the child and the child's id in the parent, or the parent's
/// sibling's with `CLONE_PARENT`.
pub fn fork(kin: Kin) -> Result<u32> {
    call!(__NR_clone, kin.flag() | kin.end_signal()).map(|pid| pid as u32)
}

/// fork(2) to a process of the id `pid` in the pid namespace of the children, by clone3(2).
pub fn fork_with_id(pid: u32, kin: Kin) -> Result<u32> {
    let arguments = clone_args {
        flags: kin.flag().into(),
        pidfd: 0,
        child_tid: 0,
        parent_tid: 0,
        exit_signal: kin.end_signal().into(),
        stack: 0,
        stack_size: 0,
        tls: 0,
        set_tid: &raw const pid as u64,
        set_tid_size: 1,
        cgroup: 0,
    };
    call!(__NR_clone3, &raw const arguments, size_of::<clone_args>()).map(|pid| pid as u32)
}

/// Whose child a new process is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Kin {
    /// The caller's.
    Child,
    /// The caller's, who gets no signal when it ends.
    Quiet,
    /// That of the caller's parent.
    Sibling,
}

impl Kin {
    fn flag(self) -> u32 {
        if self == Self::Sibling { CLONE_PARENT } else { 0 }
    }

    /// What the parent is sent when it ends; for a sibling it is as the caller's.
    fn end_signal(self) -> u32 {
        if self == Self::Child { SIGCHLD } else { 0 }
    }
}

/// unshare(2).
pub fn unshare(flags: u32) -> Result<()> {
    call!(__NR_unshare, flags).map(drop)
}

/// setns(2).
pub fn setns(namespace: Fd, kind: u32) -> Result<()> {
    call!(__NR_setns, namespace, kind).map(drop)
}

/// mount(2) of a file system without options of its own.
pub fn mount(source: &CStr, target: &CStr, kind: &CStr, flags: u32) -> Result<()> {
    let options = core::ptr::null::<u8>();
    call!(__NR_mount, source, target, kind, flags, options).map(drop)
}

/// The capabilities of a thread: in each half effective, permitted and inheritable ones.
pub type Capabilities = [__user_cap_data_struct; 2];

/// Which version of the structure it is, and of which thread: this one.
fn capability_header() -> __user_cap_header_struct {
    __user_cap_header_struct { version: _LINUX_CAPABILITY_VERSION_3, pid: 0 }
}

/// capget(2) of this thread.
pub fn capabilities() -> Result<Capabilities> {
    let mut header = capability_header();
    filled(|into| call!(__NR_capget, &raw mut header, into))
}

/// capset(2) of this thread.
pub fn set_capabilities(capabilities: &Capabilities) -> Result<()> {
    let mut header = capability_header();
    call!(__NR_capset, &raw mut header, core::ptr::from_ref(capabilities)).map(drop)
}

/// pidfd_open(2).
pub fn pidfd_open(pid: u32, flags: u32) -> Result<Fd> {
    call!(__NR_pidfd_open, pid, flags).map(|fd| Fd(fd as i32))
}

/// Sends a signal to a process that has been named by a descriptor: pidfd_send_signal(2).
pub fn pidfd_send_signal(process: Fd, signal: u32) -> Result<()> {
    let info = core::ptr::null::<siginfo_t>();
    call!(__NR_pidfd_send_signal, process, signal, info, 0_u32).map(drop)
}

/// What has become of a child.
pub struct Change {
    /// Which child.
    pub pid: u32,
    /// `CLD_EXITED` and so on (sigaction(2)).
    pub code: u32,
    /// Its exit status, or the signal.
    pub status: u32,
}

/// waitid(2): waits for what `flags` say of child `pid`, or of any child. `None` if there is nothing
/// yet (`WNOHANG`).
pub fn wait(pid: Option<u32>, flags: u32) -> Result<Option<Change>> {
    let (which, id) = pid.map_or((P_ALL, 0), |pid| (P_PID, pid));
    let null = core::ptr::null::<u8>();
    let info = filled::<siginfo_t>(|into| {
        again(|| call!(__NR_waitid, which, id, into, flags | __WALL, null))
    })?;
    // SAFETY: for waitid the kernel fills in these members; it leaves zeros if there is nothing.
    let (code, child) = unsafe {
        let info = &info.__bindgen_anon_1.__bindgen_anon_1;
        (info.si_code, info._sifields._sigchld)
    };
    let change = Change { pid: child._pid as u32, code: code as u32, status: child._status as u32 };
    Ok((change.pid != 0).then_some(change))
}

/// Whether the process has such a thread: tgkill(2) with no signal.
pub fn thread_exists(pid: u32, tid: u32) -> bool {
    send_to_thread(pid, tid, 0) != Err(Errno::ESRCH)
}

/// tgkill(2).
pub fn send_to_thread(pid: u32, tid: u32, signal: u32) -> Result<()> {
    call!(__NR_tgkill, pid, tid, signal).map(drop)
}

/// The real ids of user and group: getuid(2), getgid(2).
pub fn user_and_group() -> (u32, u32) {
    (call!(__NR_getuid).unwrap_or(0) as u32, call!(__NR_getgid).unwrap_or(0) as u32)
}

/// sched_yield(2).
pub fn yield_now() {
    let _ = call!(__NR_sched_yield);
}

/// nanosleep(2); a signal ends it.
pub fn sleep(nanoseconds: u64) {
    let time = timespec_of(nanoseconds);
    let _ = call!(__NR_nanosleep, &raw const time, 0_usize);
}

/// exit_group(2).
pub fn exit_group(status: u32) -> ! {
    loop {
        let _ = call!(__NR_exit_group, status);
    }
}

/// getcwd(2), with the NUL that ends it.
pub fn getcwd(buffer: &mut [u8]) -> Result<&[u8]> {
    let length = call!(__NR_getcwd, buffer.as_mut_ptr(), buffer.len())?;
    Ok(&buffer[..length])
}

/// chdir(2).
pub fn chdir(path: &CStr) -> Result<()> {
    call!(__NR_chdir, path).map(drop)
}

/// umask(2): sets it and returns the old one.
pub fn umask(mask: u32) -> u32 {
    call!(__NR_umask, mask).unwrap_or(0) as u32
}

/// personality(2): sets it, unless it is 0xffffffff, and returns the old one.
pub fn personality(persona: u32) -> Result<u32> {
    call!(__NR_personality, persona).map(|old| old as u32)
}

/// prlimit(2) of this process: sets `new` if it is given, and returns the old limit.
pub fn prlimit(resource: u32, new: Option<&rlimit64>) -> Result<rlimit64> {
    let new = new.map_or(core::ptr::null(), core::ptr::from_ref);
    filled(|old| call!(__NR_prlimit64, 0_u32, resource, new, old))
}

/// getpriority(2) of this thread: the nice value, -20 to 19.
pub fn nice() -> Result<i32> {
    // The kernel returns 20 - nice, so that no result looks like an error.
    call!(__NR_getpriority, PRIO_PROCESS, 0_u32).map(|raw| 20 - raw as i32)
}

/// setpriority(2) of this thread.
pub fn set_nice(nice: i32) -> Result<()> {
    call!(__NR_setpriority, PRIO_PROCESS, 0_u32, nice).map(drop)
}

/// ioprio_get(2) of this thread.
pub fn io_priority() -> Result<u32> {
    call!(__NR_ioprio_get, IOPRIO_WHO_PROCESS, 0_u32).map(|priority| priority as u32)
}

/// ioprio_set(2) of this thread.
pub fn set_io_priority(priority: u32) -> Result<()> {
    call!(__NR_ioprio_set, IOPRIO_WHO_PROCESS, 0_u32, priority).map(drop)
}

/// include/uapi/linux/ioprio.h; linux-raw-sys does not have it.
const IOPRIO_WHO_PROCESS: u32 = 1;

/// `struct sched_attr` in its first version (sched_setattr(2)).
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub struct SchedulingAttributes {
    /// Bytes in this structure.
    pub size: u32,
    /// `SCHED_OTHER` and so on.
    pub policy: u32,
    /// `SCHED_FLAG_…`.
    pub flags: u64,
    /// For the ordinary policies.
    pub nice: i32,
    /// For the real-time policies.
    pub priority: u32,
    /// For the deadline policy, nanoseconds; for the ordinary ones the runtime is the slice.
    pub runtime: u64,
    /// Nanoseconds.
    pub deadline: u64,
    /// Nanoseconds.
    pub period: u64,
}
const _: () = assert!(size_of::<SchedulingAttributes>() == 48);

/// sched_getattr(2) of this thread.
pub fn scheduling() -> Result<SchedulingAttributes> {
    let size = size_of::<SchedulingAttributes>();
    filled(|into| call!(__NR_sched_getattr, 0_u32, into, size, 0_u32))
}

/// sched_setattr(2) of this thread.
pub fn set_scheduling(attributes: &SchedulingAttributes) -> Result<()> {
    call!(__NR_sched_setattr, 0_u32, core::ptr::from_ref(attributes), 0_u32).map(drop)
}

/// sched_getaffinity(2) of thread `tid`, of this one for 0: how many bytes of `mask` the kernel filled.
pub fn affinity(tid: u32, mask: &mut [u8]) -> Result<usize> {
    call!(__NR_sched_getaffinity, tid, mask.len(), mask.as_mut_ptr())
}

/// sched_setaffinity(2) of this thread.
pub fn set_affinity(mask: &[u8]) -> Result<()> {
    call!(__NR_sched_setaffinity, 0_u32, mask.len(), mask.as_ptr()).map(drop)
}

/// prctl(2) with one argument.
///
/// # Safety
///
/// Some options change the memory of the process or write to the argument's address.
pub unsafe fn prctl(option: u32, argument: usize) -> Result<usize> {
    call!(__NR_prctl, option, argument, 0_u32, 0_u32, 0_u32)
}

/// prctl(2) with an option that reads a number, as its result or through a pointer to an int.
pub fn prctl_read(option: u32, through_pointer: bool) -> Result<i64> {
    let mut number = 0_i32;
    let argument = if through_pointer { &raw mut number as usize } else { 0 };
    let result = call!(__NR_prctl, option, argument, 0_u32, 0_u32, 0_u32)?;
    Ok(if through_pointer { number.into() } else { result as i64 })
}

/// `prctl(PR_SET_MM, PR_SET_MM_MAP)`: what the kernel believes of the memory's layout.
///
/// # Safety
///
/// From here on the kernel, brk(2) above all, acts on it.
pub unsafe fn set_memory_layout(layout: &prctl_mm_map) -> Result<()> {
    use linux_raw_sys::prctl::{PR_SET_MM, PR_SET_MM_MAP};
    let size = size_of::<prctl_mm_map>();
    call!(__NR_prctl, PR_SET_MM, PR_SET_MM_MAP, core::ptr::from_ref(layout), size).map(drop)
}

/// Names an anonymous mapping; `EINVAL` where the kernel keeps no names.
pub fn name_mapping(start: u64, length: u64, name: &CStr) -> Result<()> {
    use linux_raw_sys::prctl::{PR_SET_VMA, PR_SET_VMA_ANON_NAME};
    call!(__NR_prctl, PR_SET_VMA, PR_SET_VMA_ANON_NAME, start, length, name).map(drop)
}

/// uname(2).
pub fn uname() -> Result<new_utsname> {
    filled(|into| call!(__NR_uname, into))
}

/// Whether there is a child, living or dead: waitid(2) without waiting and without reaping.
/// `None` if there is none, else whether one of them waits to be reaped, and its pid.
pub fn child() -> Option<Option<u32>> {
    let ended = wait(None, WEXITED | WNOHANG | WNOWAIT).ok()?;
    Some(ended.map(|change| change.pid))
}

// Memory.

/// mmap(2).
///
/// # Safety
///
/// With `MAP_FIXED` it replaces what is there.
pub unsafe fn mmap(
    address: u64,
    length: u64,
    protection: u32,
    flags: u32,
    fd: Option<Fd>,
    offset: u64,
) -> Result<u64> {
    let fd = fd.unwrap_or(Fd(-1));
    call!(__NR_mmap, address, length, protection, flags, fd, offset).map(|address| address as u64)
}

/// munmap(2).
///
/// # Safety
///
/// Nobody uses the memory any more.
pub unsafe fn munmap(address: u64, length: u64) -> Result<()> {
    call!(__NR_munmap, address, length).map(drop)
}

/// mremap(2) to a given address. An old length of 0 makes a second mapping of shared memory.
///
/// # Safety
///
/// Nobody uses the memory at the old address, nor what was at the new one.
pub unsafe fn mremap_to(old: u64, old_length: u64, new_length: u64, new: u64) -> Result<()> {
    let flags = MREMAP_MAYMOVE | MREMAP_FIXED;
    call!(__NR_mremap, old, old_length, new_length, flags, new).map(drop)
}

/// mprotect(2).
///
/// # Safety
///
/// Nobody relies on the old protection.
pub unsafe fn mprotect(address: u64, length: u64, protection: u32) -> Result<()> {
    call!(__NR_mprotect, address, length, protection).map(drop)
}

/// madvise(2).
///
/// # Safety
///
/// Some advice throws contents away.
pub unsafe fn madvise(address: u64, length: u64, advice: u32) -> Result<()> {
    call!(__NR_madvise, address, length, advice).map(drop)
}

/// mincore(2): one byte a page, its lowest bit set where there is one.
pub fn mincore(address: u64, length: u64, pages: &mut [u8]) -> Result<()> {
    call!(__NR_mincore, address, length, pages.as_mut_ptr()).map(drop)
}

/// mlock2(2).
pub fn mlock(address: u64, length: u64, flags: u32) -> Result<()> {
    call!(__NR_mlock2, address, length, flags).map(drop)
}

/// mseal(2).
pub fn mseal(address: u64, length: u64) -> Result<()> {
    call!(__NR_mseal, address, length, 0_u32).map(drop)
}

/// brk(2) with an impossible address: where the heap ends.
pub fn program_break() -> u64 {
    call!(__NR_brk, 0_u32).unwrap_or(0) as u64
}

// Signals. The kernel's structures, not a libc's.

/// rt_sigaction(2): sets `new` if it is given, and returns the old disposition.
///
/// # Safety
///
/// A handler must be one.
pub unsafe fn sigaction(signal: u32, new: Option<&kernel_sigaction>) -> Result<kernel_sigaction> {
    let new = new.map_or(core::ptr::null(), core::ptr::from_ref);
    filled(|old| call!(__NR_rt_sigaction, signal, new, old, SIGNAL_SET))
}

/// rt_sigprocmask(2): sets the signals that are blocked, and returns the old mask.
pub fn set_signal_mask(mask: u64) -> Result<u64> {
    filled(|old| call!(__NR_rt_sigprocmask, SIG_SETMASK, &raw const mask, old, SIGNAL_SET))
}

/// rt_sigpending(2): the signals that are pending, of the thread or the process.
pub fn pending_signals() -> Result<u64> {
    filled(|set| call!(__NR_rt_sigpending, set, SIGNAL_SET))
}

/// Takes the next pending signal of `set`, if there is one.
pub fn take_pending(set: u64) -> Option<siginfo_t> {
    take_signal(set, Some(&timespec { tv_sec: 0, tv_nsec: 0 })).ok()
}

/// The number of the signal that `info` tells of.
pub fn signal_of(info: &siginfo_t) -> u32 {
    // SAFETY: a siginfo_t begins with its number whatever else it holds.
    unsafe { info.__bindgen_anon_1.__bindgen_anon_1.si_signo as u32 }
}

/// Takes the next signal of `set`, which are all blocked, for which it waits: rt_sigtimedwait(2).
pub fn take_signal(set: u64, timeout: Option<&timespec>) -> Result<siginfo_t> {
    let timeout = timeout.map_or(core::ptr::null(), core::ptr::from_ref);
    filled(|info| call!(__NR_rt_sigtimedwait, &raw const set, info, timeout, SIGNAL_SET))
}

/// Waits for a signal of `set`, which are blocked, and takes it: rt_sigtimedwait(2) without end.
pub fn wait_for_signal(set: u64) -> Result<siginfo_t> {
    let never = core::ptr::null::<timespec>();
    filled(|info| again(|| call!(__NR_rt_sigtimedwait, &raw const set, info, never, SIGNAL_SET)))
}

/// kill(2) of a process. With signal 0 it tells whether there is one.
pub fn kill(pid: u32, signal: u32) -> Result<()> {
    call!(__NR_kill, pid, signal).map(drop)
}

/// Queues a signal for a process: rt_sigqueueinfo(2). To oneself any `info` may be sent.
pub fn queue_to_process(pid: u32, signal: u32, info: *const siginfo_t) -> Result<()> {
    call!(__NR_rt_sigqueueinfo, pid, signal, info).map(drop)
}

/// Queues a signal for the calling thread: rt_tgsigqueueinfo(2).
pub fn queue_to_thread(pid: u32, tid: u32, signal: u32, info: *const siginfo_t) -> Result<()> {
    call!(__NR_rt_tgsigqueueinfo, pid, tid, signal, info).map(drop)
}

// Waiting, with the signals open that are not in a mask, and only during the call. What is waited for is
// the program's, and so are the addresses, which may lead nowhere: `EFAULT`. A signal's handler that
// ends the wait gives `EINTR`; a further request for a checkpoint what its handler makes of it, for
// `wait` (see [`wait_call`]).

/// A signal mask of the program's, at an address.
#[derive(Clone, Copy)]
pub struct MaskAt(pub u64);

impl Argument for MaskAt {
    fn argument(self) -> usize {
        self.0 as usize
    }
}

/// ppoll(2) of `count` descriptors at `polled`; as long as it takes if there is no time-out.
///
/// # Safety
///
/// The program expects the kernel to write there.
pub unsafe fn wait_poll(
    wait: usize,
    polled: u64,
    count: u64,
    timeout: Option<&mut timespec>,
    mask: MaskAt,
) -> Result<usize> {
    wait!(wait, __NR_ppoll, polled, count, address_of(timeout), mask, SIGNAL_SET)
}

/// pselect(2) of the `count` lowest descriptors, with the addresses of three sets.
///
/// # Safety
///
/// The program expects the kernel to write there.
pub unsafe fn wait_select(
    wait: usize,
    count: u64,
    sets: [u64; 3],
    timeout: Option<&mut timespec>,
    mask: MaskAt,
) -> Result<usize> {
    let mask = [mask.argument(), SIGNAL_SET];
    let [read, write, except] = sets;
    let timeout = address_of(timeout);
    wait!(wait, __NR_pselect6, count, read, write, except, timeout, mask.as_ptr())
}

/// epoll_pwait(2), with the address of room for `count` events. The time-out is in milliseconds;
/// negative, there is none.
///
/// # Safety
///
/// The program expects the kernel to write there.
pub unsafe fn wait_epoll(
    wait: usize,
    epoll: u64,
    events: u64,
    count: u64,
    timeout: i32,
    mask: MaskAt,
) -> Result<usize> {
    wait!(wait, __NR_epoll_pwait, epoll, events, count, timeout, mask, SIGNAL_SET)
}

/// rt_sigsuspend(2): always an error.
pub fn wait_signal(wait: usize, mask: MaskAt) -> Result<usize> {
    wait!(wait, __NR_rt_sigsuspend, mask, SIGNAL_SET)
}

/// A call of the program's, made in its stead.
///
/// # Safety
///
/// The program expects what it does.
pub unsafe fn make(number: u32, arguments: [u64; 6]) -> Result<usize> {
    let registers = arguments.map(Argument::argument);
    // SAFETY: the caller's contract.
    again(|| result_of(unsafe { syscall(number, registers) }))
}

/// The address of what may be left out.
fn address_of<T>(value: Option<&mut T>) -> *mut T {
    value.map_or(core::ptr::null_mut(), core::ptr::from_mut)
}

/// Reads `buffer.len()` bytes of this process's memory, of which nothing is known:
/// process_vm_readv(2). Says whether there are so many.
pub fn peek(address: u64, buffer: &mut [u8]) -> bool {
    let local = iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() as u64 };
    let remote = iovec { iov_base: address as *mut _, iov_len: buffer.len() as u64 };
    let (local, remote) = (&raw const local, &raw const remote);
    call!(__NR_process_vm_readv, getpid(), local, 1_u32, remote, 1_u32, 0_u32) == Ok(buffer.len())
}

/// Writes to this process's memory where it is writable, if it is: process_vm_writev(2).
///
/// # Safety
///
/// The program expects it.
pub unsafe fn poke(address: u64, bytes: &[u8]) {
    let local = iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() as u64 };
    let remote = iovec { iov_base: address as *mut _, iov_len: bytes.len() as u64 };
    let (local, remote) = (&raw const local, &raw const remote);
    let _ = call!(__NR_process_vm_writev, getpid(), local, 1_u32, remote, 1_u32, 0_u32);
}

// Timers.

/// clock_gettime(2), nanoseconds.
pub fn clock(clock: i32) -> u64 {
    let time = filled::<timespec>(|into| call!(__NR_clock_gettime, clock, into));
    time.map_or(0, nanoseconds_of)
}

/// getitimer(2).
pub fn interval_timer(which: u32) -> Result<itimerval> {
    filled(|into| call!(__NR_getitimer, which, into))
}

/// setitimer(2).
pub fn set_interval_timer(which: u32, value: &itimerval) -> Result<()> {
    let null = core::ptr::null::<u8>();
    call!(__NR_setitimer, which, core::ptr::from_ref(value), null).map(drop)
}

/// timer_create(2): `id` is the kernel's number of the timer, in and out (see
/// `PR_TIMER_CREATE_RESTORE_IDS`).
pub fn timer_create(clock: i32, event: &sigevent, id: &mut i32) -> Result<()> {
    call!(__NR_timer_create, clock, core::ptr::from_ref(event), &raw mut *id).map(drop)
}

/// timer_delete(2).
pub fn timer_delete(id: i32) {
    let _ = call!(__NR_timer_delete, id);
}

/// timer_gettime(2).
pub fn timer_gettime(id: i32) -> Result<itimerspec> {
    filled(|into| call!(__NR_timer_gettime, id, into))
}

/// timer_settime(2), relative or with `TIMER_ABSTIME`.
pub fn timer_settime(id: i32, flags: u32, value: &itimerspec) -> Result<()> {
    let null = core::ptr::null::<u8>();
    call!(__NR_timer_settime, id, flags, core::ptr::from_ref(value), null).map(drop)
}

// Between processes and threads.

/// futex(2): waits while `word` is `value`, until somebody wakes it or, at most, so many nanoseconds. It
/// may return early.
pub fn futex_wait(word: &AtomicU32, value: u32, nanoseconds: Option<u64>) -> Result<()> {
    let time = nanoseconds.map(timespec_of);
    let time = time.as_ref().map_or(core::ptr::null(), core::ptr::from_ref);
    call!(__NR_futex, word.as_ptr(), FUTEX_WAIT, value, time).map(drop)
}

/// futex(2): wakes all that wait for a change of `word`.
pub fn futex_wake(word: &AtomicU32) {
    let _ = call!(__NR_futex, word.as_ptr(), FUTEX_WAKE, i32::MAX);
}

// What the C library has registered with the kernel.

/// set_tid_address(2).
///
/// # Safety
///
/// The kernel writes a zero there when the thread ends.
pub unsafe fn set_tid_address(address: u64) {
    let _ = call!(__NR_set_tid_address, address);
}

/// get_robust_list(2): the head's address and length.
pub fn robust_list() -> Result<(u64, u64)> {
    let mut head = 0_u64;
    let mut length = 0_u64;
    call!(__NR_get_robust_list, 0_u32, &raw mut head, &raw mut length)?;
    Ok((head, length))
}

/// set_robust_list(2).
///
/// # Safety
///
/// The kernel walks the list when the thread ends.
pub unsafe fn set_robust_list(head: u64, length: u64) -> Result<()> {
    call!(__NR_set_robust_list, head, length).map(drop)
}

/// rseq(2): registers the area at `address`, or takes it back.
///
/// # Safety
///
/// The kernel writes to the area whenever it likes.
pub unsafe fn rseq(address: u64, length: u32, unregister: bool, signature: u32) -> Result<()> {
    const RSEQ_FLAG_UNREGISTER: u32 = 1;
    let flags = if unregister { RSEQ_FLAG_UNREGISTER } else { 0 };
    call!(__NR_rseq, address, length, flags, signature).map(drop)
}
