//! Everything that differs by CPU, one file an architecture, the same names in each.
//!
//! Nowhere else is there assembly or a test for the architecture. A file provides
//!
//! * [`syscall`]: a raw system call;
//! * [`Context`], [`save_context_then`], [`restore_context`], [`resume`]: the stubs that leave a
//!   program and come back into it, in another process too;
//! * [`SignalFrame`]: what the kernel saved of the interrupted program, how a core file tells it, and
//!   which system call it was in;
//! * [`wait_call`]: a system call that knows, should a signal come, whose it is;
//! * [`CpuState`]: which registers this CPU has, and what a process has chosen of them;
//! * [`WeakSymbols`]: what the C library of the program says of itself, if it does;
//! * [`signal_return`], [`program_entry!`], [`write_jump`], [`synchronize_instructions`], thread
//!   pointers and small constants;
//! * [`TracedRegisters`], [`CALL_CLOBBERED`], [`SYSTEM_CALL`]: what a tracer needs to make a stopped
//!   program issue a system call;
//! * the memory functions that the compiler takes for granted (`memcpy` and its kin), *hidden*:
//!   exported from a preloaded library they would replace the program's own.
#![no_std]

use linux_raw_sys::general::{
    __NR_accept, __NR_accept4, __NR_clock_nanosleep, __NR_epoll_pwait, __NR_epoll_pwait2,
    __NR_futex, __NR_io_getevents, __NR_nanosleep, __NR_ppoll, __NR_pselect6, __NR_read,
    __NR_recvfrom, __NR_recvmmsg, __NR_recvmsg, __NR_rt_sigsuspend, __NR_rt_sigtimedwait,
    __NR_semop, __NR_semtimedop, __NR_sendmsg, __NR_sendto, __NR_write,
};

#[cfg(target_arch = "aarch64")]
mod aarch64;
#[cfg(target_arch = "aarch64")]
pub use aarch64::*;

#[cfg(target_arch = "x86_64")]
mod x86_64;
#[cfg(target_arch = "x86_64")]
pub use x86_64::*;

#[cfg(not(any(target_arch = "aarch64", target_arch = "x86_64")))]
compile_error!("there are no register stubs for this architecture: write arch/src/ARCH.rs");

/// Why [`save_context_then`] returned.
pub mod outcome {
    /// The process is the one that called.
    pub const SAVED: u64 = 0;
    /// The process is a restarted one.
    pub const RESTARTED: u64 = 1;
    /// The function on the other stack gave up half-way.
    pub const FAILED: u64 = 2;
}

/// The type of [`resume`], as `restart-static` calls it at the address the image names.
pub type Resume = unsafe extern "C" fn(*const Context, usize, usize, *mut u32) -> !;

impl CpuState {
    /// The bytes of it, as an image holds them.
    pub fn as_bytes(&self) -> &[u8; size_of::<Self>()] {
        // SAFETY: plain numbers without padding.
        unsafe { &*core::ptr::from_ref(self).cast() }
    }

    /// What an image holds, if it is as long as it must be.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let bytes = bytes.first_chunk::<{ size_of::<Self>() }>()?;
        // SAFETY: plain numbers, for which any bytes are valid.
        Some(unsafe { core::ptr::read_unaligned(bytes.as_ptr().cast()) })
    }
}

/// Symbols that the C library of the program may have; null where it does not.
pub struct WeakSymbols {
    /// `ptrdiff_t __rseq_offset`: the rseq area from the thread pointer (glibc 2.35).
    pub rseq_offset: *const isize,
    /// `__libc_stack_end`: there in every program with glibc, for whose start-up code it is, linked
    /// statically too, where `gnu_get_libc_version` is left out unless the program calls it.
    pub libc_stack_end: *const u8,
}

/// A system call of the program's.
#[derive(Clone, Copy)]
pub struct CallMade {
    /// Its number.
    pub number: u32,
    /// Its arguments.
    pub arguments: [u64; 6],
    /// Whether the first argument is known. On aarch64 the result has taken its register.
    pub first_is_known: bool,
}

impl CallMade {
    /// What it waits for, if it is a call that a handler ends even with `SA_RESTART` (signal(7)).
    pub fn waits(&self) -> Option<WaitsFor> {
        let old = OLD_WAITS.iter().map(|(number, waits)| (*number, *waits));
        let mut all = WAITS.into_iter().chain(old);
        all.find_map(|(number, waits)| (number == self.number).then_some(waits))
    }
}

/// What a call waits for, and which of its arguments says how long.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum WaitsFor {
    /// nanosleep(2): the time, where to write what is left of it.
    Time,
    /// clock_nanosleep(2): the clock, flags, and then the same.
    TimeOfClock,
    /// poll(2): descriptors, how many, milliseconds.
    Descriptors,
    /// ppoll(2): descriptors, how many, the time, the mask, its size.
    DescriptorsOrSignals,
    /// select(2): how many, three sets, the time as a timeval.
    Sets,
    /// pselect6(2): how many, three sets, the time, where the mask's address and size are.
    SetsOrSignals,
    /// epoll_pwait(2), or epoll_wait(2), which has no mask: the epoll descriptor, room for events, how
    /// many, milliseconds, the mask, its size.
    Events {
        /// Whether there is a mask.
        mask: bool,
    },
    /// epoll_pwait2(2): the same with a timespec.
    EventsForTime,
    /// pause(2): nothing.
    Handler,
    /// rt_sigsuspend(2): the mask, its size.
    HandlerOfMask,
    /// rt_sigtimedwait(2): the signals, room for the one that comes, the time, the set's size.
    Signal,
    /// futex(2): the word, the operation, its value, the time.
    Futex,
}

/// Those that there are everywhere.
const WAITS: [(u32, WaitsFor); 9] = [
    (__NR_nanosleep, WaitsFor::Time),
    (__NR_clock_nanosleep, WaitsFor::TimeOfClock),
    (__NR_ppoll, WaitsFor::DescriptorsOrSignals),
    (__NR_pselect6, WaitsFor::SetsOrSignals),
    (__NR_epoll_pwait, WaitsFor::Events { mask: true }),
    (__NR_epoll_pwait2, WaitsFor::EventsForTime),
    (__NR_rt_sigsuspend, WaitsFor::HandlerOfMask),
    (__NR_rt_sigtimedwait, WaitsFor::Signal),
    (__NR_futex, WaitsFor::Futex),
];

/// The system call that a program stands in, as `/proc/PID/syscall` tells it (proc(5)).
#[derive(Clone, Copy)]
pub struct StandingCall {
    /// Its number.
    pub number: u64,
    /// Its arguments.
    pub arguments: [u64; 6],
    /// The stack pointer.
    pub stack_pointer: u64,
    /// The address behind the instruction.
    pub instruction_pointer: u64,
}

/// How another program goes on in a system call that a stop interrupted ([`TracedRegisters`]).
#[derive(Clone, Copy)]
pub struct Interrupted<Registers> {
    /// The first argument that a call must have at whose end the next registers are set.
    pub first_argument: u64,
    /// The registers at the end of that call.
    pub at_end: Registers,
    /// The registers with which it is then let go.
    pub to_go_on: Registers,
}

/// The calls that fail with `EINTR` after a stop, sockets' when they have a time-out; apart from
/// `connect`, which cannot be made twice.
const EINTR_CALLS: [u32; 15] = [
    __NR_epoll_pwait,
    __NR_epoll_pwait2,
    __NR_semop,
    __NR_semtimedop,
    __NR_rt_sigtimedwait,
    __NR_io_getevents,
    __NR_read,
    __NR_write,
    __NR_accept,
    __NR_accept4,
    __NR_recvfrom,
    __NR_recvmsg,
    __NR_recvmmsg,
    __NR_sendto,
    __NR_sendmsg,
];
