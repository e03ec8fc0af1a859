//! Everything that differs by CPU, one file an architecture, the same names in each.
//!
//! Nowhere else is there assembly or a test for the architecture. A file provides
//!
//! * [`syscall`]: a raw system call;
//! * [`Context`], [`save_context_then`], [`restore_context`], [`resume`]: the stubs that leave a
//!   program and come back into it, in another process too;
//! * [`SignalFrame`]: what the kernel saved of the interrupted program, and how a core file
//!   tells it;
//! * [`CpuState`]: which registers this CPU has, and what a process has chosen of them;
//! * [`WeakSymbols`]: what the C library of the program says of itself, if it does;
//! * [`signal_return`], [`program_entry!`], [`write_jump`], [`synchronize_instructions`], thread
//!   pointers and small constants;
//! * [`TracedRegisters`], [`SYSTEM_CALL`]: what a tracer needs to make a stopped program issue a
//!   system call;
//! * the memory functions that the compiler takes for granted (`memcpy` and its kin), *hidden*:
//!   exported from a preloaded library they would replace the program's own.
#![no_std]

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
