//! Asks a running program how it disposes of a signal.
//!
//! `/proc/PID/status` tells that a signal is caught, but not by whom; only the program itself can
//! be asked, through `rt_sigaction(SIGNAL, NULL, &answer)`. So it is stopped by ptrace(2) and made
//! to issue that one call, which changes nothing, and to go on as if nothing had happened:
//!
//! ```text
//!   PTRACE_SEIZE, PTRACE_INTERRUPT    it stops on its way to deliver signals
//!   save                              registers, signal mask, rseq_cs, a few bytes of stack
//!   block its signals                 what comes now stays pending
//!   PTRACE_SYSCALL, twice             over a system call instruction somewhere in its memory
//!   (and once more, on aarch64)       see TracedRegisters::interrupted
//!   PTRACE_INTERRUPT                  it stops on its way to deliver signals, once more:
//!   put back                          only there does the kernel resume an interrupted call
//!   PTRACE_DETACH
//! ```
//!
//! A call that was interrupted (`nanosleep`, `poll`, `read`…) goes on by the kernel's own rules,
//! since it finds in the last stop what it had left in the first; for the few calls that it does
//! not resume, see [`TracedRegisters`].
//!
//! `rseq_cs` is saved because the kernel clears it when it finds the program outside the restartable
//! sequence that it names, which is where the call makes it be; with it put back, a sequence that
//! was interrupted is aborted as it must be.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;

use anyhow::{Context, Result, bail, ensure};
use ckpt_arch::{INSTRUCTION_ALIGNMENT, Interrupted, SYSTEM_CALL, StandingCall, TracedRegisters};
use ckpt_image::record::Disposition;
use libc::c_int;

use super::process::{Region, contains_mark};
use super::trace::{SYNCHRONOUS, SignalsBlocked, Stop, Tracee};

/// How process `pid` disposes of `signal`. `code` are the executable parts of its memory, where a
/// system call instruction is looked for, the most likely ones first.
///
/// # Errors
///
/// If it cannot be asked; it then runs on undisturbed.
pub fn disposition(
    pid: u32,
    signal: u32,
    code: impl IntoIterator<Item = (u64, u64)>,
) -> Result<Disposition> {
    // Were this program ended half-way, the other would go on with the wrong registers.
    let _until_done = SignalsBlocked::new();
    let standing = standing_call(pid);
    let tracee = Tracee::seize(pid as _)?;
    tracee.interrupt()?;
    tracee.wait_for_interrupt()?;
    let prepared = Saved::of(&tracee, standing)
        .and_then(|saved| find_call(&saved.memory, code).map(|instruction| (saved, instruction)));
    match prepared {
        Ok((saved, instruction)) => {
            let (answer, deliver) = ask(&tracee, &saved, instruction, signal);
            let restored = saved.restore(&tracee);
            tracee.detach(deliver);
            match (answer, restored) {
                (Ok(_), Err(error)) => Err(error.context("its registers could not be put back")),
                (answer, _) => answer,
            }
        }
        Err(error) => {
            tracee.detach(0);
            Err(error)
        }
    }
}

/// Makes the program issue the call. Returns what it answered, and the signal to be delivered when
/// it is let go: it is then stopped where its registers can be put back.
fn ask(
    tracee: &Tracee,
    saved: &Saved,
    instruction: u64,
    signal: u32,
) -> (Result<Disposition>, c_int) {
    let mut deliver = 0;
    let mut answer = || {
        let mut call = |number: libc::c_long, arguments: [u64; 6]| {
            let registers = saved.registers.with_call(instruction, number as u32, arguments);
            tracee.set_registers(&registers)?;
            for _ in ["into the call", "out of it"] {
                tracee.go_on_to_call()?;
                loop {
                    match tracee.wait()? {
                        Stop::Call => break,
                        Stop::Event(_) => tracee.go_on_to_call()?,
                        Stop::Signal(signal) => {
                            deliver = tracee.if_sent(signal);
                            bail!("it was interrupted by a signal: try again");
                        }
                    }
                }
            }
            Ok(tracee.registers()?.call_result())
        };
        tracee.set_mask(!SYNCHRONOUS)?;
        let arguments = [signal.into(), 0, saved.stack_address, size_of::<u64>() as u64, 0, 0];
        let result = call(libc::SYS_rt_sigaction, arguments)?;
        let mut bytes = [0; size_of::<Disposition>()];
        let read = saved.memory.read_exact_at(&mut bytes, saved.stack_address);
        if let Some(Interrupted { first_argument, at_end, .. }) = saved.interrupted {
            call(libc::SYS_getpid, [first_argument, 0, 0, 0, 0, 0])?;
            tracee.set_registers(&at_end)?;
        }
        tracee.interrupt()?;
        tracee.go_on(0)?;
        if let Stop::Signal(signal) = tracee.wait()? {
            deliver = tracee.if_sent(signal);
        }
        ensure!(result == 0, "it was answered with error {}", -result);
        read.context("reading its stack")?;
        let [handler, flags, restorer, mask] = words(&bytes);
        Ok(Disposition { handler, flags, restorer, mask })
    };
    (answer(), deliver)
}

/// All that asking changes in a program.
struct Saved {
    registers: TracedRegisters,
    interrupted: Option<Interrupted<TracedRegisters>>,
    /// Registers that the call does not preserve: sets and what is in them.
    clobbered: Vec<(u32, Vec<u8>)>,
    mask: u64,
    memory: File,
    stack_address: u64,
    stack: [u8; size_of::<Disposition>()],
    /// The address of `rseq_cs` and what is there, if the program has registered an rseq area.
    sequence: Option<(u64, [u8; 8])>,
}

impl Saved {
    fn of(tracee: &Tracee, standing: Option<StandingCall>) -> Result<Self> {
        let memory =
            File::options().read(true).write(true).open(format!("/proc/{}/mem", tracee.pid()));
        let memory = memory.context("opening its memory")?;
        let registers = tracee.registers()?;
        let interrupted = standing.and_then(|standing| registers.interrupted(&standing));
        let clobbered = tracee.clobbered_by_calls();
        let mask = tracee.mask()?;
        let mut stack = [0; _];
        let stack_address = registers.free_stack(size_of_val(&stack) as u64);
        memory.read_exact_at(&mut stack, stack_address).context("reading its stack")?;
        let mut sequence = None;
        if let Some(address) = tracee.sequence_address() {
            let mut value = [0; 8];
            memory.read_exact_at(&mut value, address).context("reading its rseq area")?;
            sequence = Some((address, value));
        }
        Ok(Self { registers, interrupted, clobbered, mask, memory, stack_address, stack, sequence })
    }

    fn restore(&self, tracee: &Tracee) -> Result<()> {
        self.memory.write_all_at(&self.stack, self.stack_address)?;
        if let Some((address, value)) = &self.sequence {
            self.memory.write_all_at(value, *address)?;
        }
        tracee.set_mask(self.mask)?;
        for (set, contents) in &self.clobbered {
            tracee.set_register_set(*set, contents)?;
        }
        let to_go_on = self.interrupted.map(|call| call.to_go_on);
        tracee.set_registers(&to_go_on.unwrap_or_else(|| self.registers.to_go_on()))
    }
}

/// The system call that process `pid` stands in, if it stands in one.
fn standing_call(pid: u32) -> Option<StandingCall> {
    let text = fs::read_to_string(format!("/proc/{pid}/syscall")).ok()?;
    let (number, others) = text.trim_end().split_once(' ')?;
    let mut others =
        others.split(' ').map(|word| u64::from_str_radix(word.strip_prefix("0x")?, 16).ok());
    let mut next = || others.next().flatten();
    let number = number.parse().ok()?;
    let arguments = [next()?, next()?, next()?, next()?, next()?, next()?];
    let (stack_pointer, instruction_pointer) = (next()?, next()?);
    Some(StandingCall { number, arguments, stack_pointer, instruction_pointer })
}

/// The address of a system call instruction.
fn find_call(memory: &File, code: impl IntoIterator<Item = (u64, u64)>) -> Result<u64> {
    let mut buffer = vec![0; 64 << 10];
    for (start, end) in code {
        let mut at = start;
        while at < end {
            let length = buffer.len().min((end - at) as usize);
            let Ok(read) = memory.read_at(&mut buffer[..length], at) else { break };
            let mut addresses = (at..).zip(buffer[..read].windows(SYSTEM_CALL.len()));
            let is_call = |&(address, bytes): &(u64, &[u8])| {
                bytes == SYSTEM_CALL && address.is_multiple_of(INSTRUCTION_ALIGNMENT)
            };
            if let Some((address, _)) = addresses.find(is_call) {
                return Ok(address);
            }
            // The next piece overlaps this one, lest an instruction across the two be missed.
            match read {
                0..=8 => break,
                _ => at += (read - SYSTEM_CALL.len() + 1) as u64,
            }
        }
    }
    bail!("there is no system call instruction in its memory")
}

/// The little-endian words that `bytes` consist of.
fn words<const N: usize>(bytes: &[u8]) -> [u64; N] {
    let mut words = [0; N];
    for (word, bytes) in words.iter_mut().zip(bytes.as_chunks().0) {
        *word = u64::from_ne_bytes(*bytes);
    }
    words
}

/// Whether the handler is that of `libckpt.so`, or of `libckpt.a` in the program itself. After a
/// restart it may be in memory of no name; so the ELF file that it lies in is searched for the
/// library's mark. Other handlers in the same file do not block all signals: a C library keeps two
/// for itself, and does not let a program block them.
pub fn is_library(pid: u32, memory: &[Region], disposition: &Disposition) -> bool {
    const LIMIT: u64 = 256 << 20; // the most that is read at a time
    const OF_LIBC: u64 = 0b11 << 31; // signals 32 and 33
    let address = disposition.handler;
    let Some(here) = memory.iter().position(|r| (r.start..r.end).contains(&address)) else {
        return false;
    };
    if disposition.mask & OF_LIBC != OF_LIBC {
        return false;
    }
    if memory[here].is_library() {
        return true;
    }
    let Ok(file) = File::open(format!("/proc/{pid}/mem")) else { return false };
    let begins_file = |region: &Region| {
        let mut magic = [0; 4];
        file.read_exact_at(&mut magic, region.start).is_ok() && magic == *b"\x7fELF"
    };
    let Some(first) = (0..=here).rev().find(|&index| begins_file(&memory[index])) else {
        return false;
    };
    let mut end = memory[first].start;
    for part in &memory[first..] {
        if part.start != end || (end != memory[first].start && begins_file(part)) {
            return false;
        }
        end = part.end;
        // What is writable may hold a copy of the environment.
        if part.read && !part.write && end - part.start <= LIMIT {
            let mut bytes = vec![0; (end - part.start) as usize];
            let read = file.read_at(&mut bytes, part.start).unwrap_or(0);
            if contains_mark(&bytes[..read]) {
                return true;
            }
        }
    }
    false
}
