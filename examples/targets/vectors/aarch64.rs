//! The registers of aarch64: `x0`-`x30`, NZCV, FPCR, FPSR and `v0`-`v31`; with SVE the whole of
//! `z0`-`z31`, `p0`-`p15` and FFR; with SME streaming mode, ZA and TPIDR2_EL0. Of the thread
//! TPIDR_EL0, the vector lengths, and the keys of pointer authentication.
//!
//! There is more than one way to hold them, and the kernel saves each in its own way. So the rounds
//! take turns between what the processor can do of
//!
//! | held                     | length of a vector | in a signal frame                          |
//! |--------------------------|--------------------|--------------------------------------------|
//! | `v`                      | 16 bytes           | FPSIMD record                              |
//! | `z`, `p`, FFR            | SVE's              | FPSIMD and SVE records                     |
//! | `z`, `p`, streaming      | SME's              | the same, and the SVE record is marked so  |
//! | any of these, and ZA     | and SME's for ZA   | the same, and a ZA record                  |
//!
//! Both lengths change by round, and so does whether a program that is executed inherits them.
//!
//! A system call ends streaming mode and drops of `z`, `p` and FFR all but `v`. The loop makes
//! none, so what has gone meanwhile has been lost.

#[path = "aarch64/hold.rs"]
mod hold;

use crate::pattern::mix;
use crate::{Check, expect};
use hold::hold;
use std::arch::asm;
use std::ffi::{c_int, c_ulong};
use std::fmt::Debug;
use std::ptr::null_mut;

// How the registers are held. The first two bits are those of SVCR.
/// In streaming mode.
const STREAMING: u64 = 1 << 0;
/// ZA, too.
const ZA: u64 = 1 << 1;
/// `z` and `p` rather than `v`.
const SCALABLE: u64 = 1 << 2;
/// FFR, too, which streaming mode lacks.
const FFR: u64 = 1 << 3;
/// SVCR and TPIDR2_EL0, too: the processor has SME.
const SME: u64 = 1 << 4;

/// From asm/hwcap.h, in AT_HWCAP2.
const HWCAP2_SME: c_ulong = 1 << 23;

// From linux/prctl.h.
const PR_SVE_SET_VL: c_int = 50;
const PR_SVE_GET_VL: c_int = 51;
const PR_SME_SET_VL: c_int = 63;
const PR_SME_GET_VL: c_int = 64;
/// A program that is executed inherits the vector length.
const INHERIT: c_int = 1 << 17;

/// The condition flags.
const NZCV: u64 = 0xf << 28;
/// Of FPCR: alternative half precision, default NaN, flush to zero, and the rounding mode.
const FPCR: u64 = 0x1f << 22;
/// Of FPSR: saturation, and the exceptions that have been seen.
const FPSR: u64 = 1 << 27 | 0x9f;

/// Bytes in the longest vector there can be.
const LONGEST: usize = 256;

/// What this processor has.
pub struct Processor {
    /// The ways to hold its registers.
    modes: Vec<u64>,
    sve: Lengths,
    sme: Lengths,
    /// It has pointer authentication.
    authenticates: bool,
    thread: Thread,
}

impl Processor {
    /// Looks.
    pub fn detect() -> Self {
        // SAFETY: reads the auxiliary vector.
        let capabilities = |which| unsafe { libc::getauxval(which) };
        let (first, second) = (capabilities(libc::AT_HWCAP), capabilities(libc::AT_HWCAP2));
        let has_sve = first & libc::HWCAP_SVE != 0;
        let has_sme = second & HWCAP2_SME != 0;
        let mut modes = vec![0];
        if has_sve {
            modes.push(SCALABLE | FFR);
        }
        if has_sme {
            modes.push(SCALABLE | STREAMING);
            modes = modes.iter().flat_map(|mode| [mode | SME | ZA, mode | SME]).collect();
            leave_alternate_stack();
        }
        let keys = libc::HWCAP_PACA | libc::HWCAP_PACG;
        let authenticates = first & keys == keys;
        Self {
            modes,
            sve: Lengths::find(has_sve, PR_SVE_SET_VL, PR_SVE_GET_VL),
            sme: Lengths::find(has_sme, PR_SME_SET_VL, PR_SME_GET_VL),
            authenticates,
            thread: Thread::current(authenticates),
        }
    }

    /// Sets the vector lengths. Different values for each `round`.
    pub fn wanted(&self, round: u64) -> Registers {
        let value = |n: usize| mix((round << 16) + n as u64);
        let mode = self.modes[round as usize % self.modes.len()];
        let mut wanted = Registers {
            mode,
            general: std::array::from_fn(value),
            nzcv: value(100) & NZCV,
            fpcr: value(101) & FPCR,
            fpsr: value(102) & FPSR,
            svcr: mode & (STREAMING | ZA),
            tpidr2: if mode & SME != 0 { value(103) } else { 0 },
            sve_length: self.sve.choose(value(104)),
            sme_length: self.sme.choose(value(105)),
            thread: self.thread,
            ..Registers::default()
        };
        wanted.general[0] = 0; // what the loop leaves of its counter

        let (length, za_length) = (wanted.vector_length(), wanted.za_length());
        let vectors = wanted.vector.as_flattened_mut();
        vectors[..32 * length / 8].iter_mut().zip(0x1000..).for_each(|(v, n)| *v = value(n));
        if mode & SCALABLE != 0 {
            let predicates = wanted.predicate.as_flattened_mut();
            let used = &mut predicates[..16 * length / 16];
            used.iter_mut().zip(0x2000..).for_each(|(p, n)| *p = value(n) as u16);
        }
        if mode & FFR != 0 {
            // Ones, then zeros: nothing else can be in it.
            let ones = value(106) as usize % (length + 1);
            (0..ones).for_each(|bit| wanted.ffr[bit / 16] |= 1 << (bit % 16));
        }
        if mode & ZA != 0 {
            let rows = wanted.za.as_flattened_mut().as_flattened_mut();
            let used = &mut rows[..za_length * za_length / 8];
            used.iter_mut().zip(0x4000..).for_each(|(word, n)| *word = value(n));
        }
        wanted
    }

    /// Loads all registers from `wanted`, spins, and stores them all into `found`.
    pub fn hold(&self, wanted: &Registers, found: &mut Registers, spins: u64) {
        // SAFETY: the mode is one of this processor's.
        unsafe { hold(wanted, found, spins, wanted.mode) };
        found.general[1] = found.general[1].wrapping_sub(spins);
        found.sve_length = self.sve.current();
        found.sme_length = self.sme.current();
        found.thread = Thread::current(self.authenticates);
    }
}

/// The contents of all registers but sp, which the loop itself lives by. Vectors lie side by side,
/// however long they are.
#[repr(C, align(16))]
#[derive(Default)]
pub struct Registers {
    general: [u64; 31],
    nzcv: u64,
    fpcr: u64,
    fpsr: u64,
    svcr: u64,
    tpidr2: u64,
    ffr: [u16; LONGEST / 16],
    predicate: [[u16; LONGEST / 16]; 16],
    vector: [[u64; LONGEST / 8]; 32],
    /// As many rows as a row has bytes.
    za: [[[u64; LONGEST / 8]; 16]; LONGEST / 16],
    /// How they are held.
    mode: u64,
    // As `prctl` has them.
    sve_length: c_int,
    sme_length: c_int,
    thread: Thread,
}

impl Registers {
    /// Bytes in a vector.
    fn vector_length(&self) -> usize {
        match self.mode & (SCALABLE | STREAMING) {
            0 => 16,
            SCALABLE => (self.sve_length & !INHERIT) as usize,
            _ => self.za_length(),
        }
    }

    /// Bytes in a row of ZA.
    fn za_length(&self) -> usize {
        (self.sme_length & !INHERIT) as usize
    }

    /// Compares all of `self` with what was `found`.
    pub fn compare(&self, found: &Self) -> Check {
        self.compare_all(found).map_err(|why| {
            let vectors = match self.mode & (SCALABLE | STREAMING) {
                0 => "v",
                SCALABLE => "z",
                _ => "streaming z",
            };
            let za = if self.mode & ZA != 0 { " and ZA" } else { "" };
            format!("{why} (while {vectors}{za} are held)")
        })
    }

    fn compare_all(&self, found: &Self) -> Check {
        expect("vector length of SVE", self.sve_length, found.sve_length)?;
        expect("vector length of SME", self.sme_length, found.sme_length)?;
        expect("thread", self.thread, found.thread)?;
        for (n, expected) in self.general.iter().enumerate() {
            let name = if n == 1 { "x0 or x1".into() } else { format!("x{n}") };
            expect(&name, *expected, found.general[n])?;
        }
        expect("nzcv", self.nzcv, found.nzcv)?;
        expect("fpcr", self.fpcr, found.fpcr)?;
        expect("fpsr", self.fpsr, found.fpsr)?;
        expect("svcr", self.svcr, found.svcr)?;
        expect("tpidr2_el0", self.tpidr2, found.tpidr2)?;
        expect("ffr", self.ffr, found.ffr)?;
        let length = self.vector_length();
        let (expected, stored) = (self.predicate.as_flattened(), found.predicate.as_flattened());
        compare_each("p", length / 8, expected, stored)?;
        let (expected, stored) = (self.vector.as_flattened(), found.vector.as_flattened());
        compare_each("z", length, expected, stored)?;
        let (expected, stored) = (self.za.as_flattened(), found.za.as_flattened());
        compare_each("row of za ", self.za_length(), expected.as_flattened(), stored.as_flattened())
    }
}

/// Compares registers of `length` bytes each, side by side.
fn compare_each<T>(name: &str, length: usize, expected: &[T], found: &[T]) -> Check
where
    T: Copy + PartialEq + Debug,
{
    let Some(at) = (0..expected.len()).find(|&at| expected[at] != found[at]) else { return Ok(()) };
    let (register, byte) = (at * size_of::<T>() / length, at * size_of::<T>() % length);
    expect(&format!("{name}{register}, byte {byte}"), expected[at], found[at])
}

/// What a thread has as long as it lives.
#[derive(Clone, Copy, Default, PartialEq, Debug)]
struct Thread {
    pointer: u64,
    /// An address signed with each key. If the keys sign now as they did before, then what was
    /// signed before will be authenticated now.
    signed: [u64; 5],
}

impl Thread {
    /// The calling one.
    fn current(authenticates: bool) -> Self {
        let mut thread = Self { pointer: 0, signed: [0x1234_5678_9abc; 5] };
        // SAFETY: reads a register.
        unsafe { asm!("mrs {}, tpidr_el0", out(reg) thread.pointer, options(nomem, nostack)) };
        if authenticates {
            let [ia, ib, da, db, ga] = &mut thread.signed;
            // SAFETY: computes in registers, by instructions that the processor has.
            unsafe {
                asm!(
                    ".arch_extension pauth",
                    "pacia {ia}, {modifier}",
                    "pacib {ib}, {modifier}",
                    "pacda {da}, {modifier}",
                    "pacdb {db}, {modifier}",
                    "pacga {ga}, {ga}, {modifier}",
                    ia = inout(reg) *ia,
                    ib = inout(reg) *ib,
                    da = inout(reg) *da,
                    db = inout(reg) *db,
                    ga = inout(reg) *ga,
                    modifier = in(reg) 0x0123_4567_89ab_cdef_u64,
                    options(nomem, nostack),
                );
            }
        }
        thread
    }
}

/// Has signal handlers run on the stack. The alternate one that Rust has set up is as large as the
/// kernel advises (AT_MINSIGSTKSZ), and a frame with ZA in it is larger: up to Linux 6.12 at least.
fn leave_alternate_stack() {
    let none = libc::stack_t { ss_sp: null_mut(), ss_flags: libc::SS_DISABLE, ss_size: 0 };
    // SAFETY: nobody is on it.
    unsafe { libc::sigaltstack(&raw const none, null_mut()) };
}

/// The vector lengths of SVE, or of SME, in bytes: none if the processor does not have it.
struct Lengths {
    set: c_int,
    get: c_int,
    all: Vec<c_int>,
}

impl Lengths {
    /// Tries them all.
    fn find(exist: bool, set: c_int, get: c_int) -> Self {
        let mut found = Self { set, get, all: Vec::new() };
        if exist {
            // For a length that there is not, the kernel takes the next shorter one.
            let all = (16..=LONGEST as c_int).step_by(16);
            found.all = all.filter(|&length| found.ask(set, length) == length).collect();
        }
        found
    }

    /// Sets one of them, and whether it is inherited; returns the setting.
    fn choose(&self, seed: u64) -> c_int {
        if self.all.is_empty() {
            return 0;
        }
        let inherit = if seed & 1 == 0 { 0 } else { INHERIT };
        self.ask(self.set, self.all[(seed >> 1) as usize % self.all.len()] | inherit)
    }

    /// The setting.
    fn current(&self) -> c_int {
        if self.all.is_empty() { 0 } else { self.ask(self.get, 0) }
    }

    fn ask(&self, call: c_int, setting: c_int) -> c_int {
        // SAFETY: what is lost of vectors with their length is not in use.
        let setting = unsafe { libc::prctl(call, setting as c_ulong) };
        assert!(setting > 0, "vector length: {}", std::io::Error::last_os_error());
        setting
    }
}
