//! The registers of x86_64: the general ones, CF and DF, x87 (`st0`-`st7` and the control word),
//! `mxcsr`, and `xmm`, `ymm` or `zmm` with `k0`-`k7`, the widest that this processor has; and the
//! bases of fs and gs.

use crate::pattern::mix;
use crate::{Check, expect};
use std::arch::{is_x86_feature_detected, naked_asm};
use std::mem::offset_of;

/// CF and DF in rflags. The loop's `dec` leaves both alone.
const FLAGS: u64 = 1 | 1 << 10;

/// The base we give to gs. It needs to be canonical, not to be mapped.
const GS_BASE: u64 = 0x1234_5678_9000;

/// What to ask `arch_prctl` for; from asm/prctl.h.
const ARCH_SET_GS: libc::c_int = 0x1001;
const ARCH_GET_FS: libc::c_int = 0x1003;
const ARCH_GET_GS: libc::c_int = 0x1004;

/// The vector registers that there are.
#[derive(Clone, Copy)]
#[repr(u64)]
enum Level {
    /// `xmm0`-`xmm15`
    Sse = 0,
    /// `ymm0`-`ymm15`
    Avx = 1,
    /// `zmm0`-`zmm31`, `k0`-`k7`
    Avx512 = 2,
}

/// What this processor has.
pub struct Processor {
    level: Level,
    fs_base: u64,
}

impl Processor {
    /// Looks, and gives gs a base.
    pub fn detect() -> Self {
        let level = if is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512bw") {
            Level::Avx512
        } else if is_x86_feature_detected!("avx") {
            Level::Avx
        } else {
            Level::Sse
        };
        // SAFETY: nothing in a 64-bit Linux program lives by gs.
        assert_eq!(unsafe { libc::syscall(libc::SYS_arch_prctl, ARCH_SET_GS, GS_BASE) }, 0);
        Self { level, fs_base: segment_base(ARCH_GET_FS) }
    }

    /// Different values for each `round`.
    pub fn wanted(&self, round: u64) -> Registers {
        let value = |n: usize| mix((round << 16) + n as u64);
        let (vectors, words, masks) = match self.level {
            Level::Sse => (16, 2, 0),
            Level::Avx => (16, 4, 0),
            Level::Avx512 => (32, 8, 8),
        };
        let mut registers = Registers::default();
        for (n, vector) in registers.vector.iter_mut().take(vectors).enumerate() {
            for (word, place) in vector.iter_mut().take(words).enumerate() {
                *place = value(n * 8 + word);
            }
        }
        for (n, mask) in registers.mask.iter_mut().take(masks).enumerate() {
            *mask = value(1000 + n);
        }
        registers.general = std::array::from_fn(|n| value(2000 + n));
        registers.flags = FLAGS;
        // A normal number has the top bit of its significand set; its exponent is near 1's.
        registers.x87 = std::array::from_fn(|n| [value(3000 + n) | 1 << 63, 0x3ff0 + n as u64]);
        // All exceptions masked and, in mxcsr, seen; the rounding differs by round.
        let rounding = (round % 4) as u32;
        registers.mxcsr = 0x1fbf | rounding << 13;
        registers.x87_control = 0x037f | rounding << 10;
        (registers.fs_base, registers.gs_base) = (self.fs_base, GS_BASE);
        registers
    }

    /// Loads all registers from `wanted`, spins, and stores them all into `found`.
    pub fn hold(&self, wanted: &Registers, found: &mut Registers, spins: u64) {
        // SAFETY: the level was detected.
        unsafe { hold(wanted, found, spins, self.level) };
        found.fs_base = segment_base(ARCH_GET_FS);
        found.gs_base = segment_base(ARCH_GET_GS);
    }
}

/// The contents of all registers but rsp, which the loop itself lives by.
#[repr(C, align(64))]
#[derive(Default)]
pub struct Registers {
    vector: [[u64; 8]; 32],
    mask: [u64; 8],
    /// rax, rbx, rcx, rdx, rsi, rdi, rbp, then r8 to r15.
    general: [u64; 15],
    flags: u64,
    /// 80 bits of each are used.
    x87: [[u64; 2]; 8],
    mxcsr: u32,
    x87_control: u32,
    fs_base: u64,
    gs_base: u64,
}

impl Registers {
    /// Compares all of `self` with what was `found`.
    pub fn compare(&self, found: &Self) -> Check {
        const GENERAL: [&str; 15] = [
            "rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rbp", "r8", "r9", "r10", "r11", "r12",
            "r13", "r14", "r15",
        ];
        for (n, name) in GENERAL.iter().enumerate() {
            expect(name, self.general[n], found.general[n])?;
        }
        expect("rflags", self.flags, found.flags & FLAGS)?;
        for n in 0..8 {
            expect(&format!("st{n}"), self.x87[n], found.x87[n])?;
            expect(&format!("k{n}"), self.mask[n], found.mask[n])?;
        }
        expect("x87 control word", self.x87_control, found.x87_control)?;
        expect("mxcsr", self.mxcsr, found.mxcsr)?;
        for n in 0..32 {
            expect(&format!("vector register {n}"), self.vector[n], found.vector[n])?;
        }
        expect("fs base", self.fs_base, found.fs_base)?;
        expect("gs base", self.gs_base, found.gs_base)
    }
}

/// [`Processor::hold`]. The stack while it spins, from low to high:
///
/// ```text
/// rsp ->  0  spins left        24  mxcsr, and at 28 the x87 control word, of the caller
///         8  level             32  rdi, while its register points to `found`
///        16  found             40  r15, r14, r13, r12, rbp, rbx, return address
/// ```
///
/// # Safety
///
/// `level` must be one that the processor has.
#[unsafe(naked)]
unsafe extern "C" fn hold(wanted: &Registers, found: &mut Registers, spins: u64, level: Level) {
    naked_asm!(
        // In: rdi = wanted, rsi = found, rdx = spins, rcx = level.
        "push rbx",
        "push rbp",
        "push r12",
        "push r13",
        "push r14",
        "push r15",
        "sub rsp, 40",
        "mov [rsp], rdx",
        "mov [rsp + 8], rcx",
        "mov [rsp + 16], rsi",
        "stmxcsr [rsp + 24]",
        "fnstcw [rsp + 28]",

        // Load. The x87 registers are a stack: the last one pushed is st0.
        "ldmxcsr [rdi + {mxcsr}]",
        "fldcw [rdi + {x87_control}]",
        ".irp n, 7, 6, 5, 4, 3, 2, 1, 0",
        "fld tbyte ptr [rdi + {x87} + \\n * 16]",
        ".endr",
        "cmp rcx, 1",
        "jb 2f",
        "je 3f",
        ".irp n, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31",
        "vmovdqa64 zmm\\n, [rdi + {vector} + \\n * 64]",
        ".endr",
        ".irp n, 0, 1, 2, 3, 4, 5, 6, 7",
        "kmovq k\\n, [rdi + {mask} + \\n * 8]",
        ".endr",
        "jmp 4f",
        "3:",
        ".irp n, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15",
        "vmovdqa ymm\\n, [rdi + {vector} + \\n * 64]",
        ".endr",
        "jmp 4f",
        "2:",
        ".irp n, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15",
        "movdqa xmm\\n, [rdi + {vector} + \\n * 64]",
        ".endr",
        "4:",
        "mov rax, [rdi + {general}]",
        "mov rbx, [rdi + {general} + 8]",
        "mov rcx, [rdi + {general} + 16]",
        "mov rdx, [rdi + {general} + 24]",
        "mov rsi, [rdi + {general} + 32]",
        "mov rbp, [rdi + {general} + 48]",
        ".irp n, 8, 9, 10, 11, 12, 13, 14, 15",
        "mov r\\n, [rdi + {general} + (\\n - 1) * 8]",
        ".endr",
        "mov rdi, [rdi + {general} + 40]",
        "stc",
        "std",

        // Spin: every register is taken, so the counter is in memory.
        "5:",
        "dec qword ptr [rsp]",
        "jnz 5b",

        // Store. The moves leave the flags alone until they are taken.
        "mov [rsp + 32], rdi",
        "mov rdi, [rsp + 16]",
        "mov [rdi + {general}], rax",
        "pushfq",
        "pop rax",
        "cld",
        "mov [rdi + {flags}], rax",
        "mov rax, [rsp + 32]",
        "mov [rdi + {general} + 40], rax",
        "mov [rdi + {general} + 8], rbx",
        "mov [rdi + {general} + 16], rcx",
        "mov [rdi + {general} + 24], rdx",
        "mov [rdi + {general} + 32], rsi",
        "mov [rdi + {general} + 48], rbp",
        ".irp n, 8, 9, 10, 11, 12, 13, 14, 15",
        "mov [rdi + {general} + (\\n - 1) * 8], r\\n",
        ".endr",
        "stmxcsr [rdi + {mxcsr}]",
        "fnstcw [rdi + {x87_control}]",
        ".irp n, 0, 1, 2, 3, 4, 5, 6, 7",
        "fstp tbyte ptr [rdi + {x87} + \\n * 16]",
        ".endr",
        "cmp qword ptr [rsp + 8], 1",
        "jb 2f",
        "je 3f",
        ".irp n, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31",
        "vmovdqa64 [rdi + {vector} + \\n * 64], zmm\\n",
        ".endr",
        ".irp n, 0, 1, 2, 3, 4, 5, 6, 7",
        "kmovq [rdi + {mask} + \\n * 8], k\\n",
        ".endr",
        "vzeroupper",
        "jmp 4f",
        "3:",
        ".irp n, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15",
        "vmovdqa [rdi + {vector} + \\n * 64], ymm\\n",
        ".endr",
        "vzeroupper",
        "jmp 4f",
        "2:",
        ".irp n, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15",
        "movdqa [rdi + {vector} + \\n * 64], xmm\\n",
        ".endr",
        "4:",

        // Back to the caller's control words and registers.
        "ldmxcsr [rsp + 24]",
        "fldcw [rsp + 28]",
        "add rsp, 40",
        "pop r15",
        "pop r14",
        "pop r13",
        "pop r12",
        "pop rbp",
        "pop rbx",
        "ret",
        vector = const offset_of!(Registers, vector),
        mask = const offset_of!(Registers, mask),
        general = const offset_of!(Registers, general),
        flags = const offset_of!(Registers, flags),
        x87 = const offset_of!(Registers, x87),
        mxcsr = const offset_of!(Registers, mxcsr),
        x87_control = const offset_of!(Registers, x87_control),
    )
}

/// The base of a segment register: `which` is one of `ARCH_GET_*`.
fn segment_base(which: libc::c_int) -> u64 {
    let mut base = 0_u64;
    // SAFETY: the kernel writes one word to `base`.
    assert_eq!(unsafe { libc::syscall(libc::SYS_arch_prctl, which, &raw mut base) }, 0);
    base
}
