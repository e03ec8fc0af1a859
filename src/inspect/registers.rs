//! The registers in `NT_PRSTATUS`, by name. Which there are depends on the machine that the *image*
//! is of, not on the one that this program runs on.

use ckpt_image::record::{all, first};

/// `struct elf_prstatus` (linux/elfcore.h): what stands before the registers, and where they begin.
const REGISTERS: usize = 112;

/// What `NT_PRSTATUS` tells of a thread.
pub struct ThreadStatus<'a> {
    /// The blocked signals.
    pub blocked: u64,
    /// The thread id.
    pub tid: u32,
    registers: &'a [u8],
}

impl<'a> ThreadStatus<'a> {
    /// Reads the description of the note; `None` if it is too short.
    pub fn parse(note: &'a [u8]) -> Option<Self> {
        let field = |at: usize| note.get(at..);
        Some(Self {
            blocked: first(field(24)?).ok()?.0,
            tid: first(field(32)?).ok()?.0,
            registers: field(REGISTERS)?,
        })
    }

    /// The general registers of `machine`, as ELF numbers it, with their names.
    pub fn registers(&self, machine: u16) -> Vec<(String, u64)> {
        let values = all::<u64>(self.registers);
        match NAMES.iter().find(|(known, _)| *known == machine) {
            Some((_, names)) => names.iter().map(|&name| name.to_owned()).zip(values).collect(),
            None => (0..).map(|index| format!("r{index}")).zip(values).collect(),
        }
    }
}

/// The names of the registers for each `e_machine`, in the order of `struct user_regs_struct`
/// (x86_64) and `struct user_pt_regs` (aarch64).
const NAMES: [(u16, &[&str]); 2] = [
    (
        62,
        &[
            "r15", "r14", "r13", "r12", "rbp", "rbx", "r11", "r10", "r9", "r8", "rax", "rcx",
            "rdx", "rsi", "rdi", "orig_rax", "rip", "cs", "eflags", "rsp", "ss", "fs_base",
            "gs_base", "ds", "es", "fs", "gs",
        ],
    ),
    (
        183,
        &[
            "x0", "x1", "x2", "x3", "x4", "x5", "x6", "x7", "x8", "x9", "x10", "x11", "x12", "x13",
            "x14", "x15", "x16", "x17", "x18", "x19", "x20", "x21", "x22", "x23", "x24", "x25",
            "x26", "x27", "x28", "x29", "x30", "sp", "pc", "pstate",
        ],
    ),
];
