//! Another program under ptrace(2).

use std::mem::MaybeUninit;
use std::time::{Duration, Instant};
use std::{io, ptr, slice};

use anyhow::{Context, Result, bail, ensure};
use ckpt_arch::{CALL_CLOBBERED, TracedRegisters};
use libc::{c_int, c_void, pid_t};

/// How long the program may take to stop. Only one in an uninterruptible call takes any time, or one that
/// others leave no time to run.
const PATIENCE: Duration = Duration::from_secs(10);

/// Signals that the kernel itself sends for what a thread does. Blocked, they would not only wait:
/// the kernel would reset their handlers.
pub const SYNCHRONOUS: u64 = {
    let mut set = 0;
    let mut index = 0;
    let signals =
        [libc::SIGSEGV, libc::SIGBUS, libc::SIGILL, libc::SIGFPE, libc::SIGTRAP, libc::SIGSYS];
    while index < signals.len() {
        set |= 1 << (signals[index] - 1);
        index += 1;
    }
    set
};

/// The set of general registers.
const GENERAL: u32 = libc::NT_PRSTATUS as u32;

/// Why the program has stopped.
pub enum Stop {
    /// On the way to deliver signals, for `PTRACE_INTERRUPT` (SIGTRAP) or with its whole group.
    Event(c_int),
    /// At the beginning or the end of a system call.
    Call,
    /// A signal is to be delivered.
    Signal(c_int),
}

/// A program that this one traces.
pub struct Tracee(pid_t);

impl Tracee {
    /// Begins to trace. The program does not notice.
    pub fn seize(pid: pid_t) -> Result<Self> {
        let tracee = Self(pid);
        let options = libc::PTRACE_O_TRACESYSGOOD as *mut c_void;
        // SAFETY: takes no memory of ours.
        match unsafe { tracee.request(libc::PTRACE_SEIZE as _, ptr::null_mut(), options) } {
            Err(error) if error.raw_os_error() == Some(libc::EPERM) => {
                bail!("this user may not trace it, or another tracer does (EPERM)")
            }
            result => result.context("it cannot be traced")?,
        };
        Ok(tracee)
    }

    /// ptrace(2).
    ///
    /// # Safety
    ///
    /// `address` and `data` are what `request` makes of them.
    unsafe fn request(
        &self,
        request: u32,
        address: *mut c_void,
        data: *mut c_void,
    ) -> io::Result<i64> {
        // SAFETY: the caller's contract.
        match unsafe { libc::ptrace(request as _, self.0, address, data) } {
            -1 => Err(io::Error::last_os_error()),
            result => Ok(result),
        }
    }

    /// The process id.
    pub fn pid(&self) -> pid_t {
        self.0
    }

    /// Makes it stop on its way to deliver signals; [`Tracee::wait`] tells when.
    pub fn interrupt(&self) -> io::Result<()> {
        let (address, data) = (ptr::null_mut(), ptr::null_mut());
        // SAFETY: takes no memory of ours.
        unsafe { self.request(libc::PTRACE_INTERRUPT as _, address, data) }.map(drop)
    }

    /// Lets it run on, having delivered `signal`, if any, in a stop for a signal.
    pub fn go_on(&self, signal: c_int) -> io::Result<()> {
        self.resume(libc::PTRACE_CONT as _, signal)
    }

    /// Lets it run on to the beginning or the end of a system call.
    pub fn go_on_to_call(&self) -> io::Result<()> {
        self.resume(libc::PTRACE_SYSCALL as _, 0)
    }

    fn resume(&self, how: u32, signal: c_int) -> io::Result<()> {
        // SAFETY: takes no memory of ours.
        unsafe { self.request(how, ptr::null_mut(), signal as usize as _) }.map(drop)
    }

    /// Ends the tracing, and delivers `signal`, if any, in a stop for a signal.
    pub fn detach(&self, signal: c_int) {
        // If the program has died meanwhile, there is nothing to detach from.
        let _ = self.resume(libc::PTRACE_DETACH as _, signal);
    }

    /// Waits for the stop that was asked for. Signals that come before it are delivered.
    pub fn wait_for_interrupt(&self) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.wait_until(Some(deadline))? {
                Stop::Event(libc::SIGTRAP) => return Ok(()),
                Stop::Event(_) => {
                    self.detach(0);
                    bail!("it is stopped");
                }
                Stop::Signal(signal) => self.go_on(signal)?,
                Stop::Call => self.go_on(0)?,
            }
        }
    }

    /// Waits for the next stop, however long that takes: the program is on its way to it, and has what is
    /// not its own in its registers.
    pub fn wait(&self) -> Result<Stop> {
        self.wait_until(None)
    }

    fn wait_until(&self, deadline: Option<Instant>) -> Result<Stop> {
        loop {
            let mut status = 0;
            // SAFETY: the status is written to a variable of that type.
            match unsafe { libc::waitpid(self.0, &raw mut status, libc::WNOHANG | libc::__WALL) } {
                0 => {}
                -1 => return Err(io::Error::last_os_error()).context("waiting for it to stop"),
                _ if !libc::WIFSTOPPED(status) => bail!("it has just ended"),
                _ => {
                    const EVENT_STOP: c_int = 128; // PTRACE_EVENT_STOP, which musl's libc lacks
                    let signal = libc::WSTOPSIG(status);
                    return Ok(match (status >> 16, signal & !0x80) {
                        (EVENT_STOP, _) => Stop::Event(signal),
                        (_, libc::SIGTRAP) if signal & 0x80 != 0 => Stop::Call,
                        _ => Stop::Signal(signal),
                    });
                }
            }
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            let is_over = left.is_some_and(|left| left.is_zero());
            ensure!(!is_over, "it does not stop: it is in a call that nothing interrupts");
            SignalsBlocked::wait_for_child(left.unwrap_or(PATIENCE));
        }
    }

    /// `signal` if it was sent, 0 if the kernel made it up for what the thread has done.
    pub fn if_sent(&self, signal: c_int) -> c_int {
        let mut info = MaybeUninit::<libc::siginfo_t>::zeroed();
        let into = info.as_mut_ptr().cast();
        // SAFETY: the kernel fills in a siginfo_t; zeros are a valid one, too.
        let info = unsafe {
            let _ = self.request(libc::PTRACE_GETSIGINFO as _, ptr::null_mut(), into);
            info.assume_init()
        };
        let synchronous = SYNCHRONOUS & 1 << (signal - 1) != 0;
        if synchronous && info.si_code > 0 { 0 } else { signal }
    }

    /// The general registers.
    pub fn registers(&self) -> Result<TracedRegisters> {
        let mut registers = TracedRegisters::default();
        let size = size_of_val(&registers);
        // SAFETY: any bytes will do, and these are as many.
        let bytes = unsafe { slice::from_raw_parts_mut((&raw mut registers).cast(), size) };
        let length = self.register_set(GENERAL, bytes).context("reading its registers")?;
        ensure!(length == size, "it is not a 64-bit program");
        Ok(registers)
    }

    /// Sets the general registers.
    pub fn set_registers(&self, registers: &TracedRegisters) -> Result<()> {
        let size = size_of_val(registers);
        // SAFETY: plain numbers without padding.
        let bytes = unsafe { slice::from_raw_parts(ptr::from_ref(registers).cast(), size) };
        self.set_register_set(GENERAL, bytes)
    }

    /// What the program has in registers that no system call preserves, set by set.
    pub fn clobbered_by_calls(&self) -> Vec<(u32, Vec<u8>)> {
        const LARGEST: usize = 64 << 10;
        let contents = |set| {
            let mut contents = vec![0; LARGEST];
            // Not every CPU has them all.
            let length = self.register_set(set, &mut contents).ok()?;
            contents.truncate(length);
            ckpt_arch::is_in_use(&contents).then_some((set, contents))
        };
        CALL_CLOBBERED.into_iter().filter_map(contents).collect()
    }

    /// Reads a set of registers, and returns how many bytes it has, of those that there is room for.
    fn register_set(&self, set: u32, into: &mut [u8]) -> io::Result<usize> {
        let mut area = libc::iovec { iov_base: into.as_mut_ptr().cast(), iov_len: into.len() };
        // SAFETY: the kernel writes at most the given length.
        unsafe {
            self.request(libc::PTRACE_GETREGSET as _, set as usize as _, (&raw mut area).cast())?;
        }
        Ok(area.iov_len)
    }

    /// Sets a set of registers.
    pub fn set_register_set(&self, set: u32, contents: &[u8]) -> Result<()> {
        let iov_base = contents.as_ptr().cast_mut().cast();
        let mut area = libc::iovec { iov_base, iov_len: contents.len() };
        // SAFETY: the kernel reads the registers.
        unsafe {
            self.request(libc::PTRACE_SETREGSET as _, set as usize as _, (&raw mut area).cast())
        }
        .context("setting its registers")?;
        Ok(())
    }

    /// The signal mask, as it is outside of calls that swap it.
    pub fn mask(&self) -> Result<u64> {
        let mut mask = 0_u64;
        let size = size_of_val(&mask) as *mut c_void;
        // SAFETY: the kernel writes as many bytes as it is told.
        unsafe { self.request(libc::PTRACE_GETSIGMASK as _, size, (&raw mut mask).cast()) }
            .context("reading its signal mask")?;
        Ok(mask)
    }

    /// Sets the signal mask.
    pub fn set_mask(&self, mut mask: u64) -> Result<()> {
        let size = size_of_val(&mask) as *mut c_void;
        // SAFETY: the kernel reads as many bytes as it is told.
        unsafe { self.request(libc::PTRACE_SETSIGMASK as _, size, (&raw mut mask).cast()) }
            .context("setting its signal mask")?;
        Ok(())
    }

    /// The address of the field `rseq_cs` of the thread's rseq area (linux/rseq.h), if there is
    /// one and the kernel tells.
    pub fn sequence_address(&self) -> Option<u64> {
        const PTRACE_GET_RSEQ_CONFIGURATION: u32 = 0x420f; // not in musl's libc
        const CRITICAL_SECTION: u64 = 8;
        let mut configuration = [0_u64; 3]; // address; size and signature; flags
        let size = size_of_val(&configuration) as *mut c_void;
        let into = (&raw mut configuration).cast();
        // SAFETY: the kernel writes as many bytes as it is told at most.
        unsafe { self.request(PTRACE_GET_RSEQ_CONFIGURATION, size, into) }.ok()?;
        (configuration[0] != 0).then_some(configuration[0] + CRITICAL_SECTION)
    }
}

/// As long as it lives, no signal interrupts this program.
pub struct SignalsBlocked(libc::sigset_t);

impl SignalsBlocked {
    /// From now on.
    pub fn new() -> Self {
        let (mut all, mut before) = (MaybeUninit::uninit(), MaybeUninit::uninit());
        // SAFETY: both sets are filled in before they are used. That SIGCHLD has its default
        // disposition, whatever we were started with, lets it be sent when the program stops.
        unsafe {
            libc::signal(libc::SIGCHLD, libc::SIG_DFL);
            libc::sigfillset(all.as_mut_ptr());
            libc::sigprocmask(libc::SIG_SETMASK, all.as_ptr(), before.as_mut_ptr());
            Self(before.assume_init())
        }
    }

    /// Waits for SIGCHLD, at most for `time`.
    fn wait_for_child(time: Duration) {
        let mut set = MaybeUninit::uninit();
        let time =
            libc::timespec { tv_sec: time.as_secs() as _, tv_nsec: time.subsec_nanos().into() };
        // SAFETY: the set is filled in before it is used; nothing is written to null.
        unsafe {
            libc::sigemptyset(set.as_mut_ptr());
            libc::sigaddset(set.as_mut_ptr(), libc::SIGCHLD);
            libc::sigtimedwait(set.as_ptr(), ptr::null_mut(), &raw const time);
        }
    }
}

impl Drop for SignalsBlocked {
    fn drop(&mut self) {
        // SAFETY: puts back the mask that was read.
        unsafe { libc::sigprocmask(libc::SIG_SETMASK, &raw const self.0, ptr::null_mut()) };
    }
}
