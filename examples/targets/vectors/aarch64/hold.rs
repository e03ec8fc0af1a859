//! The loop that holds all registers of aarch64.

use super::{FFR, Registers, SCALABLE, SME, STREAMING, ZA};
use std::arch::naked_asm;
use std::mem::offset_of;

/// Loads all registers from `wanted`, spins, and stores them all into `found`.
///
/// The stack while it spins, from low to high:
///
/// ```text
/// sp ->  0  spins, then x0 and x1      48  x19 to x30
///       16  found                     144  d8 to d15
///       24  mode                      208
///       32  FPCR of the caller
/// ```
///
/// A loop needs a register. This one takes two, whose values are known all the same: by as much as
/// x0 counts down, x1 counts up.
///
/// # Safety
///
/// `mode` must be one that the processor has.
#[unsafe(naked)]
pub unsafe extern "C" fn hold(wanted: &Registers, found: &mut Registers, spins: u64, mode: u64) {
    naked_asm!(
        // In: x0 = wanted, x1 = found, x2 = spins, x3 = mode.
        ".arch_extension sve",
        ".arch_extension sme",
        // The return address is signed while all this happens, if there is such a thing.
        "paciasp",
        "sub sp, sp, 208",
        "stp x2, xzr, [sp]",
        "stp x1, x3, [sp, 16]",
        "mrs x4, fpcr",
        "str x4, [sp, 32]",
        ".irp n, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30",
        "str x\\n, [sp, 48 + (\\n - 19) * 8]",
        ".endr",
        ".irp n, 8, 9, 10, 11, 12, 13, 14, 15",
        "str d\\n, [sp, 144 + (\\n - 8) * 8]",
        ".endr",

        // Load. What SME has first: to change modes clears the vectors and FPSR.
        "tbz x3, {sme}, 3f",
        "ldr x4, [x0, {tpidr2}]",
        "msr S3_3_C13_C0_5, x4",       // TPIDR2_EL0
        "tbz x3, {za_on}, 3f",
        "smstart za",
        "mov x4, {za}",
        "add x4, x0, x4",
        "rdsvl x5, 1",                 // bytes in a row, and rows
        "mov w12, 0",
        "2:",
        "ldr za[w12, 0], [x4]",
        "add x4, x4, x5",
        "add w12, w12, 1",
        "cmp w12, w5",
        "b.lo 2b",
        "3:",
        "tbz x3, {streaming}, 2f",
        "smstart sm",
        "2:",
        "add x4, x0, {vector}",
        "tbz x3, {scalable}, 3f",
        ".irp n, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31",
        "ldr z\\n, [x4, \\n, mul vl]",
        ".endr",
        "tbz x3, {has_ffr}, 2f",
        "add x4, x0, {ffr}",
        "ldr p0, [x4]",
        "wrffr p0.b",
        "2:",
        "add x4, x0, {predicate}",
        ".irp n, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15",
        "ldr p\\n, [x4, \\n, mul vl]",
        ".endr",
        "b 4f",
        "3:",
        ".irp n, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31",
        "ldr q\\n, [x4, \\n * 16]",
        ".endr",
        "4:",
        "ldr x4, [x0, {nzcv}]",
        "msr nzcv, x4",
        "ldr x4, [x0, {fpcr}]",
        "msr fpcr, x4",
        "ldr x4, [x0, {fpsr}]",
        "msr fpsr, x4",
        ".irp n, 1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30",
        "ldr x\\n, [x0, {general} + \\n * 8]",
        ".endr",
        "ldr x0, [sp]",

        // Spin, and leave the flags alone.
        "5:",
        "sub x0, x0, 1",
        "add x1, x1, 1",
        "cbnz x0, 5b",

        // Store.
        "stp x0, x1, [sp]",
        "ldr x0, [sp, 16]",
        ".irp n, 2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30",
        "str x\\n, [x0, {general} + \\n * 8]",
        ".endr",
        "ldp x1, x2, [sp]",
        "stp x1, x2, [x0, {general}]",
        "mrs x4, nzcv",
        "str x4, [x0, {nzcv}]",
        "mrs x4, fpcr",
        "str x4, [x0, {fpcr}]",
        "mrs x4, fpsr",
        "str x4, [x0, {fpsr}]",
        "ldr x3, [sp, 24]",
        "add x4, x0, {vector}",
        "tbz x3, {scalable}, 3f",
        ".irp n, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31",
        "str z\\n, [x4, \\n, mul vl]",
        ".endr",
        "add x4, x0, {predicate}",
        ".irp n, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15",
        "str p\\n, [x4, \\n, mul vl]",
        ".endr",
        "tbz x3, {has_ffr}, 4f",
        "rdffr p0.b",
        "add x4, x0, {ffr}",
        "str p0, [x4]",
        "b 4f",
        "3:",
        ".irp n, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31",
        "str q\\n, [x4, \\n * 16]",
        ".endr",
        "4:",
        "tbz x3, {sme}, 4f",
        "mrs x4, S3_3_C13_C0_5",       // TPIDR2_EL0
        "str x4, [x0, {tpidr2}]",
        "msr S3_3_C13_C0_5, xzr",      // no one has left anything in ZA
        "mrs x4, S3_3_C4_C2_2",        // SVCR
        "str x4, [x0, {svcr}]",
        "tbz x4, {za_on}, 3f",       // if ZA is off and should not be, SVCR tells
        "mov x4, {za}",
        "add x4, x0, x4",
        "rdsvl x5, 1",
        "mov w12, 0",
        "2:",
        "str za[w12, 0], [x4]",
        "add x4, x4, x5",
        "add w12, w12, 1",
        "cmp w12, w5",
        "b.lo 2b",
        "3:",
        "smstop",
        "4:",

        // Back to the caller's FPCR and registers.
        "ldr x4, [sp, 32]",
        "msr fpcr, x4",
        ".irp n, 8, 9, 10, 11, 12, 13, 14, 15",
        "ldr d\\n, [sp, 144 + (\\n - 8) * 8]",
        ".endr",
        ".irp n, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30",
        "ldr x\\n, [sp, 48 + (\\n - 19) * 8]",
        ".endr",
        "add sp, sp, 208",
        "autiasp",
        "ret",
        streaming = const STREAMING.trailing_zeros(),
        za_on = const ZA.trailing_zeros(),
        scalable = const SCALABLE.trailing_zeros(),
        has_ffr = const FFR.trailing_zeros(),
        sme = const SME.trailing_zeros(),
        general = const offset_of!(Registers, general),
        nzcv = const offset_of!(Registers, nzcv),
        fpcr = const offset_of!(Registers, fpcr),
        fpsr = const offset_of!(Registers, fpsr),
        svcr = const offset_of!(Registers, svcr),
        tpidr2 = const offset_of!(Registers, tpidr2),
        ffr = const offset_of!(Registers, ffr),
        predicate = const offset_of!(Registers, predicate),
        vector = const offset_of!(Registers, vector),
        za = const offset_of!(Registers, za),
    )
}
