//! aarch64.
//!
//! Two layers carry the registers of a program through a checkpoint:
//!
//! ```text
//!   the program's stack                        the private stack (scratch mapping)
//!
//!   |  frames of the program  |
//!   |-------------------------|  <- sp when the signal came
//!   |  siginfo                |  \
//!   |  ucontext: x0-x30, sp,  |   |
//!   |    pc, pstate, mask     |   > the kernel's signal frame: every register the program sees;
//!   |  records: FPSIMD, SVE,  |   |  rt_sigreturn puts them back
//!   |    ZA, ..., terminator  |  /
//!   |-------------------------|
//!   |  handler: Context, ...  |     the callee-saved registers of the handler, its sp and x30
//!   |-------------------------|  <- Context.sp         |--------------------|  <- stack_top
//!                                                      |  the capture       |
//!                                                      |  ...               |
//! ```
//!
//! All that is needed to go on lies on the *program's* stack, which is memory like any other and
//! goes into the image. [`save_context_then`] leaves for the private stack; the way back, be it an
//! ordinary return, a failure or the restart in another process, is always [`restore_context`].
//!
//! What no signal frame carries, and yet must be what it was when one is returned through: the
//! vector lengths of SVE and SME, without which the kernel refuses the frame's records, and the
//! keys of pointer authentication, by which the program's own return addresses are signed. They
//! are in [`CpuState`].
//!
//! The stubs are naked functions rather than `global_asm!`: the offsets are then operands, checked
//! by the compiler, and the symbols are mangled, so that nothing can be exported by accident.

#[cfg(feature = "memory-functions")]
use core::arch::global_asm;
use core::arch::{asm, naked_asm};
use core::mem::{offset_of, size_of};
use core::ptr;
use core::sync::atomic::{AtomicBool, AtomicI32, Ordering::SeqCst};
use linux_raw_sys::elf_uapi::{
    NT_ARM_PAC_MASK, NT_ARM_PACA_KEYS, NT_ARM_PACG_KEYS, NT_ARM_SSVE, NT_ARM_SVE, NT_ARM_TLS,
    NT_ARM_ZA, NT_ARM_ZT,
};
use linux_raw_sys::errno::{EINTR, EPERM};
use linux_raw_sys::general::{
    __NR_clock_getres, __NR_clock_gettime, __NR_clone, __NR_exit, __NR_exit_group, __NR_getrandom,
    __NR_gettid, __NR_gettimeofday, __NR_munmap, __NR_prctl, __NR_ptrace, __NR_rt_sigreturn,
    __NR_sched_yield, __NR_wait4, __WALL, CLONE_UNTRACED, CLONE_VM, iovec, siginfo_t, stack_t,
};
use linux_raw_sys::general::{
    __NR_clock_nanosleep, __NR_futex, __NR_msgrcv, __NR_msgsnd, __NR_nanosleep, __NR_ppoll,
    __NR_pselect6, __NR_restart_syscall, __NR_rt_sigsuspend, FUTEX_CMD_MASK, FUTEX_WAIT,
    FUTEX_WAIT_BITSET, TIMER_ABSTIME,
};
use linux_raw_sys::prctl::{
    PR_GET_SHADOW_STACK_STATUS, PR_GET_TAGGED_ADDR_CTRL, PR_PAC_GET_ENABLED_KEYS,
    PR_PAC_SET_ENABLED_KEYS, PR_SET_PTRACER, PR_SET_TAGGED_ADDR_CTRL, PR_SME_GET_VL, PR_SME_SET_VL,
    PR_SVE_GET_VL, PR_SVE_SET_VL,
};
use linux_raw_sys::ptrace::{
    HWCAP_CPUID, HWCAP_EVTSTRM, HWCAP_PACA, HWCAP_PACG, PTRACE_DETACH, PTRACE_GETREGSET,
    PTRACE_INTERRUPT, PTRACE_SEIZE, PTRACE_SETREGSET, user_pt_regs, user_sve_header,
};
use static_assertions::{assert_eq_size, const_assert, const_assert_eq};

use crate::outcome::RESTARTED;
use crate::{CallMade, EINTR_CALLS, Interrupted, StandingCall, WaitsFor, WeakSymbols};

/// This machine in ELF headers (`EM_AARCH64`).
pub const ELF_MACHINE: u16 = 183;
/// This machine as people call it.
pub const NAME: &str = "aarch64";
/// The end of the addresses a program can map: 52 bits with the large virtual address extension,
/// 48, or fewer, as the kernel was built; none of it is the kernel's.
pub const ADDRESS_END: u64 = 1 << 52;
/// Where to look for a gap in an image: above what programs usually have at low addresses, then at
/// low addresses. A kernel may have as little as 39 bits of addresses.
pub const GAPS_FROM: [u64; 2] = [0x0f_1000_0000, 0x1000_0000];

/// What a C library signs its rseq area with (`RSEQ_SIG`, glibc's sysdeps/unix/sysv/linux/aarch64).
pub const RSEQ_SIGNATURE: u32 = 0xd428_bc00;
/// Where the C library's own record of a thread lies, from the thread pointer: its last bytes, among
/// them the thread id in every version of musl. It ends at the thread pointer.
pub const THREAD_RECORD: core::ops::Range<isize> = -256..0;

/// How a program with a shadow stack (a guarded control stack) is started without one.
pub const NO_SHADOW_STACK: &str = "GLIBC_TUNABLES=glibc.cpu.aarch64_gcs=0";
/// The protection of a mapping whose branch targets are marked: `PROT_BTI`.
pub const BRANCH_TARGET_PROTECTION: u32 = linux_raw_sys::general::PROT_BTI;

/// One raw system call. Returns what the kernel returned, errors as `-errno`.
///
/// # Safety
///
/// Whatever the call does to the process is the caller's responsibility.
#[inline]
pub unsafe fn syscall(number: u32, args: [usize; 6]) -> isize {
    let result;
    // SAFETY: the kernel preserves every register but x0.
    unsafe {
        asm!(
            "svc #0",
            in("x8") number as usize,
            inlateout("x0") args[0] => result,
            in("x1") args[1],
            in("x2") args[2],
            in("x3") args[3],
            in("x4") args[4],
            in("x5") args[5],
            options(nostack),
        );
    }
    result
}

/// What a function must find again when it is returned into: the callee-saved registers of the
/// AAPCS64, and the control register of floating point.
#[repr(C)]
#[derive(Default)]
pub struct Context {
    /// The stack pointer.
    sp: u64,
    x19: u64,
    /// The frame pointer and the return address.
    x29_x30: [u64; 2],
    x20_x21: [u64; 2],
    x22_x23: [u64; 2],
    x24_x25: [u64; 2],
    x26_x27: [u64; 2],
    x28: u64,
    fpcr: u64,
    /// Of v8 to v15 a callee preserves the lower half.
    d8_to_d15: [u64; 8],
}
const_assert_eq!(size_of::<Context>(), 176);
// The unwind rules below hold these offsets in one signed LEB128 byte each.
const_assert!(offset_of!(Context, x29_x30) + 8 < 64);

/// Saves the context in `context`, calls `function(argument)` on the stack that ends at
/// `stack_top`, and returns what it returned. In a process restarted from an image that was written
/// meanwhile, it returns once more, with [`RESTARTED`].
///
/// To the compiler it is a call that returns once, in whichever process: all that follows reads
/// memory that the image holds.
///
/// # Safety
///
/// `context` is writable and stays where it is; `stack_top` is 16-byte aligned and ends a stack
/// nobody uses; `function` does not unwind.
#[unsafe(naked)]
pub unsafe extern "C" fn save_context_then(
    context: *mut Context,
    stack_top: *mut u8,
    function: unsafe extern "C" fn(*mut u8) -> u64,
    argument: *mut u8,
) -> u64 {
    // x0 context, x1 stack_top, x2 function, x3 argument -> x0 outcome
    naked_asm!(
        ".cfi_startproc",
        "str x19, [x0, #{x19}]",           // the registers a callee must preserve
        "stp x20, x21, [x0, #{x20}]",
        "stp x22, x23, [x0, #{x22}]",
        "stp x24, x25, [x0, #{x24}]",
        "stp x26, x27, [x0, #{x26}]",
        "str x28, [x0, #{x28}]",
        "stp x29, x30, [x0, #{x29}]",      // x30 is our return address
        "stp d8, d9, [x0, #{d8}]",
        "stp d10, d11, [x0, #{d8} + 16]",
        "stp d12, d13, [x0, #{d8} + 32]",
        "stp d14, d15, [x0, #{d8} + 48]",
        "mrs x9, fpcr",                    // the rounding mode, and which exceptions trap
        "str x9, [x0, #{fpcr}]",
        "mov x9, sp",
        "str x9, [x0, #{sp}]",
        "mov x19, x0",                     // the callee preserves x19: it keeps the context
        // From here on debuggers find our frame through x19:
        // CFA = *(x19 + offset of sp) (DW_CFA_def_cfa_expression: breg19, deref),
        ".cfi_escape 0x0f, 3, 0x83, {sp}, 0x06",
        // and the caller's x19 and x30 in the context (DW_CFA_expression: reg, breg19).
        ".cfi_escape 0x10, 19, 2, 0x83, {x19}",
        ".cfi_escape 0x10, 30, 2, 0x83, {x29} + 8",
        "mov sp, x1",                      // over to the private stack
        "mov x0, x3",                      // the one argument
        "blr x2",
        "mov x1, x0",                      // what it returned is the outcome
        "mov x0, x19",
        "b {restore}",                     // an ordinary return is a restored context as well
        ".cfi_endproc",
        sp = const offset_of!(Context, sp),
        x19 = const offset_of!(Context, x19),
        x29 = const offset_of!(Context, x29_x30),
        x20 = const offset_of!(Context, x20_x21),
        x22 = const offset_of!(Context, x22_x23),
        x24 = const offset_of!(Context, x24_x25),
        x26 = const offset_of!(Context, x26_x27),
        x28 = const offset_of!(Context, x28),
        fpcr = const offset_of!(Context, fpcr),
        d8 = const offset_of!(Context, d8_to_d15),
        restore = sym restore_context,
    )
}

/// Returns from the [`save_context_then`] that saved `context`, with `outcome`.
///
/// # Safety
///
/// The frame that called `save_context_then` has not returned since.
#[unsafe(naked)]
pub unsafe extern "C" fn restore_context(context: *const Context, outcome: u64) -> ! {
    // x0 context, x1 outcome
    naked_asm!(
        "ldr x19, [x0, #{x19}]",
        "ldp x20, x21, [x0, #{x20}]",
        "ldp x22, x23, [x0, #{x22}]",
        "ldp x24, x25, [x0, #{x24}]",
        "ldp x26, x27, [x0, #{x26}]",
        "ldr x28, [x0, #{x28}]",
        "ldp x29, x30, [x0, #{x29}]",
        "ldp d8, d9, [x0, #{d8}]",
        "ldp d10, d11, [x0, #{d8} + 16]",
        "ldp d12, d13, [x0, #{d8} + 32]",
        "ldp d14, d15, [x0, #{d8} + 48]",
        "ldr x9, [x0, #{fpcr}]",
        "msr fpcr, x9",
        "ldr x9, [x0, #{sp}]",
        "mov sp, x9",                      // back on the program's stack
        "mov x0, x1",
        "ret",                             // to x30
        sp = const offset_of!(Context, sp),
        x19 = const offset_of!(Context, x19),
        x29 = const offset_of!(Context, x29_x30),
        x20 = const offset_of!(Context, x20_x21),
        x22 = const offset_of!(Context, x22_x23),
        x24 = const offset_of!(Context, x24_x25),
        x26 = const offset_of!(Context, x26_x27),
        x28 = const offset_of!(Context, x28),
        fpcr = const offset_of!(Context, fpcr),
        d8 = const offset_of!(Context, d8_to_d15),
    )
}

/// The way from `restart-static` into the restarted program, in the image's own `libckpt.so`:
/// restores `context`; or, if that is null, ends the thread. Each thread comes this way. The last of
/// them, by the count in `users`, unmaps `length` bytes at `loader`, which is all that is left of
/// `restart-static`, the stacks they stand on and `users` itself included.
///
/// # Safety
///
/// To be called only in a process whose memory is otherwise as the image has it.
#[unsafe(naked)]
pub unsafe extern "C" fn resume(
    context: *const Context,
    loader: usize,
    length: usize,
    users: *mut u32,
) -> ! {
    // x0 context, x1 loader, x2 length, x3 users
    naked_asm!(
        "mov x19, x0",                     // the kernel preserves x19; there will be no stack
        "2:",
        "ldaxr w4, [x3]",                  // the last to leave it takes the loader away
        "sub w4, w4, #1",
        "stlxr w5, w4, [x3]",
        "cbnz w5, 2b",
        "cbnz w4, 3f",
        "mov x0, x1",
        "mov x1, x2",
        "mov x8, #{munmap}",
        "svc #0",
        "cbnz x0, 4f",                     // half a loader left is no restart
        "3:",
        "cbz x19, 5f",
        "mov x0, x19",
        "mov x1, #{restarted}",
        "b {restore}",
        "4:",
        "mov x0, #125",
        "mov x8, #{exit_group}",
        "svc #0",
        "brk #1",
        "5:",
        "mov x0, #0",
        "mov x8, #{exit}",
        "svc #0",
        "brk #1",
        exit = const __NR_exit,
        munmap = const __NR_munmap,
        exit_group = const __NR_exit_group,
        restarted = const RESTARTED,
        restore = sym restore_context,
    )
}

/// Makes the system call `number` with the six `arguments`, which returns what the kernel returned,
/// for the sake of `wait`: if a signal interrupts it, [`SignalFrame::wait_under_way`] tells which it
/// is. Without arguments it returns the address at which the signal finds it.
///
/// # Safety
///
/// As for [`syscall`]; `arguments` are readable or null.
#[unsafe(naked)]
pub unsafe extern "C" fn wait_call(
    arguments: *const [usize; 6],
    number: u32,
    wait: usize,
) -> isize {
    // x0 arguments, w1 number, x2 wait -> x0 result
    naked_asm!(
        ".cfi_startproc",
        "cbz x0, 3f",
        "stp x19, x30, [sp, #-16]!",
        ".cfi_adjust_cfa_offset 16",
        ".cfi_rel_offset x19, 0",
        ".cfi_rel_offset x30, 8",
        "mov x19, x2", // here the signal frame has it
        "mov w8, w1",
        "mov x9, x0",
        "ldp x0, x1, [x9]",
        "ldp x2, x3, [x9, #16]",
        "ldp x4, x5, [x9, #32]",
        "svc #0",
        "2:",
        "ldp x19, x30, [sp], #16",
        ".cfi_adjust_cfa_offset -16",
        ".cfi_restore x19",
        ".cfi_restore x30",
        "ret",
        "3:",
        "adr x0, 2b",
        "ret",
        ".cfi_endproc",
    )
}

/// clone(2), `number` and all, or clone3(2): calls `function(argument)` in the child, which has a stack
/// of its own. Returns the child's id, or `-errno`.
///
/// # Safety
///
/// `first` and `second` are the call's arguments and make a child with a stack; what further ones it
/// has are not asked for. The stack's end is 16-byte aligned.
#[unsafe(naked)]
pub unsafe extern "C" fn spawn(
    first: usize,
    second: usize,
    function: unsafe extern "C" fn(*mut u8) -> !,
    argument: *mut u8,
    number: u32,
) -> isize {
    // x0, x1 the call's arguments, x2 function, x3 argument, x4 number -> x0
    naked_asm!(
        "mov x8, x4",
        "svc #0",
        "cbz x0, 2f",
        "ret",
        "2:",
        "mov x29, xzr", // the child: the outermost frame
        "mov x30, xzr",
        "mov x0, x3",
        "blr x2",
        "brk #1",
    )
}

/// Calls `function(argument)` on the stack that ends at `stack_top`, never to return.
///
/// # Safety
///
/// `stack_top` is 16-byte aligned and ends a stack nobody uses.
#[unsafe(naked)]
pub unsafe extern "C" fn leave_for_stack(
    stack_top: *mut u8,
    function: unsafe extern "C" fn(*mut u8) -> !,
    argument: *mut u8,
) -> ! {
    // x0 stack_top, x1 function, x2 argument
    naked_asm!(
        "mov sp, x0",
        "mov x0, x2",
        "mov x29, xzr", // the outermost frame
        "mov x30, xzr",
        "blr x1",
        "brk #1",
    )
}

/// The signal return trampoline (`sa_restorer`). Its instructions are those by which gdb knows one.
///
/// # Safety
///
/// Only the kernel makes a signal handler return here.
#[unsafe(naked)]
pub unsafe extern "C" fn signal_return() {
    naked_asm!(
        "mov x8, #{rt_sigreturn}",
        "svc #0",
        rt_sigreturn = const __NR_rt_sigreturn,
    )
}

/// Returns from a signal handler through `frame`, wherever it lies.
///
/// # Safety
///
/// It is a whole frame, as the kernel makes them.
#[unsafe(naked)]
pub unsafe extern "C" fn return_through(frame: *const SignalFrame) -> ! {
    // x0 frame
    naked_asm!(
        "sub sp, x0, #{siginfo}",          // with which a frame begins
        "mov x8, #{rt_sigreturn}",
        "svc #0",
        "brk #1",
        siginfo = const size_of::<siginfo_t>(),
        rt_sigreturn = const __NR_rt_sigreturn,
    )
}

/// Defines `_start`, which calls the given `unsafe extern "C" fn(*mut usize) -> !` with the initial
/// stack pointer: there lie argc, argv, the environment and the auxiliary vector.
#[macro_export]
macro_rules! program_entry {
    ($main:path) => {
        /// Where the kernel starts the program.
        ///
        /// # Safety
        ///
        /// Only the kernel calls it.
        #[unsafe(naked)]
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn _start() -> ! {
            ::core::arch::naked_asm!(
                "mov x29, xzr",            // the outermost frame, says the ABI
                "mov x30, xzr",
                "mov x0, sp",              // which the kernel has aligned
                "bl {main}",
                "brk #1",
                main = sym $main,
            )
        }
    };
}

/// Where the linker script's symbol `__image_start` is now; it is linked for another address once a
/// program has moved.
#[inline(never)]
pub fn image_start() -> usize {
    let address: usize;
    // SAFETY: computes an address relative to the program counter.
    unsafe {
        asm!(
            ".hidden __image_start",
            "adrp {0}, __image_start",
            "add {0}, {0}, :lo12:__image_start",
            out(reg) address,
            options(nomem, nostack, preserves_flags),
        );
    }
    address
}

/// The relocation type "base + addend" (`R_AARCH64_RELATIVE`).
pub const RELATIVE_RELOCATION: u32 = 1027;

/// Makes `length` bytes at `start`, which have been written, what the processor executes there: its
/// caches of data and instructions do not agree by themselves (Arm ARM, B2.4.4).
///
/// # Safety
///
/// The bytes are readable.
pub unsafe fn synchronize_instructions(start: *const u8, length: usize) {
    let cache_type: usize;
    // SAFETY: the register is readable by programs.
    unsafe {
        asm!("mrs {}, ctr_el0", out(reg) cache_type, options(nomem, nostack, preserves_flags));
    }
    // The shortest lines, as powers of two of 4-byte words.
    let data_line = 4_usize << (cache_type >> 16 & 15);
    let instruction_line = 4_usize << (cache_type & 15);
    let end = start as usize + length;
    // SAFETY: cleans and invalidates caches, which changes no contents.
    unsafe {
        for line in (start as usize & !(data_line - 1)..end).step_by(data_line) {
            asm!("dc cvau, {}", in(reg) line, options(nostack, preserves_flags));
        }
        asm!("dsb ish", options(nostack, preserves_flags));
        for line in (start as usize & !(instruction_line - 1)..end).step_by(instruction_line) {
            asm!("ic ivau, {}", in(reg) line, options(nostack, preserves_flags));
        }
        asm!("dsb ish", "isb", options(nostack, preserves_flags));
    }
}

/// The functions that the kernels have had in their vDSOs, with the system calls that do the same.
pub const VDSO_FUNCTIONS: [(&[u8], u32); 5] = [
    (b"__kernel_clock_getres", __NR_clock_getres),
    (b"__kernel_clock_gettime", __NR_clock_gettime),
    (b"__kernel_getrandom", __NR_getrandom),
    (b"__kernel_gettimeofday", __NR_gettimeofday),
    // Where signal handlers return that have no trampoline of their own.
    (b"__kernel_rt_sigreturn", __NR_rt_sigreturn),
];

/// Bytes that [`write_jump`] writes.
pub const JUMP_LENGTH: usize = 16;

/// Makes the function at `from` jump to `to`, however far. Clobbers x16, as any call may.
///
/// # Safety
///
/// [`JUMP_LENGTH`] bytes at `from` are writable and nothing is executing them.
pub unsafe fn write_jump(from: *mut u8, to: usize) {
    let mut code = [0; JUMP_LENGTH];
    code[..4].copy_from_slice(&0x5800_0050_u32.to_le_bytes()); // ldr x16, [pc, #8]
    code[4..8].copy_from_slice(&0xd61f_0200_u32.to_le_bytes()); // br x16: a landing pad's "call"
    code[8..].copy_from_slice(&to.to_le_bytes());
    // SAFETY: the caller's contract.
    unsafe { from.copy_from_nonoverlapping(code.as_ptr(), JUMP_LENGTH) }
}

/// Bytes that [`write_system_call`] writes.
pub const SYSTEM_CALL_LENGTH: usize = 12;

/// Makes the function at `from` make a system call with its own arguments, which are in the
/// registers where the call wants them.
///
/// # Safety
///
/// [`SYSTEM_CALL_LENGTH`] bytes at `from` are writable and nothing is executing them.
pub unsafe fn write_system_call(from: *mut u8, number: u32) {
    let mut code = [0; SYSTEM_CALL_LENGTH];
    code[..4].copy_from_slice(&(0xd280_0008 | number << 5).to_le_bytes()); // mov x8, #number
    code[4..8].copy_from_slice(&0xd400_0001_u32.to_le_bytes()); // svc #0
    code[8..].copy_from_slice(&0xd65f_03c0_u32.to_le_bytes()); // ret
    // SAFETY: the caller's contract.
    unsafe { from.copy_from_nonoverlapping(code.as_ptr(), SYSTEM_CALL_LENGTH) }
}

/// prctl(2), the arguments behind the first zero; returns what the kernel returned.
///
/// # Safety
///
/// As for [`syscall`].
unsafe fn prctl(option: u32, argument: usize) -> isize {
    // SAFETY: the caller's contract.
    unsafe { syscall(__NR_prctl, [option as usize, argument, 0, 0, 0, 0]) }
}

/// prctl(2) with an option that returns a number of the thread's: 0 where there is none.
fn prctl_read(option: u32) -> u64 {
    // SAFETY: these options take no argument and change nothing.
    unsafe { prctl(option, 0) }.max(0) as u64
}

/// The bases of a thread's own memory.
#[derive(Clone, Copy)]
pub struct ThreadPointers {
    /// `tpidr_el0`.
    pub thread_pointer: u64,
    /// There is one only; SME's `tpidr2_el0` is in the signal frame.
    pub second: u64,
}

impl ThreadPointers {
    /// Those of the calling thread.
    pub fn current() -> Self {
        let thread_pointer;
        // SAFETY: the register is the program's.
        unsafe {
            asm!(
                "mrs {}, tpidr_el0",
                out(reg) thread_pointer,
                options(nomem, nostack, preserves_flags),
            );
        }
        Self { thread_pointer, second: 0 }
    }

    /// Gives them to the calling thread; no address is refused.
    ///
    /// # Safety
    ///
    /// Nothing that the calling thread still does relies on thread-local storage.
    pub unsafe fn set(self) -> isize {
        // SAFETY: the caller's contract.
        unsafe {
            asm!("msr tpidr_el0, {}", in(reg) self.thread_pointer, options(nostack));
        }
        0
    }
}

/// Whether the calling thread has a shadow stack, which this project cannot restore yet
/// (Documentation/arch/arm64/gcs.rst; Linux 6.13).
pub fn shadow_stack_active() -> bool {
    let mut status = 0_u64;
    // SAFETY: the kernel writes eight bytes at the address given.
    let result = unsafe { prctl(PR_GET_SHADOW_STACK_STATUS, &raw mut status as usize) };
    result == 0 && status != 0
}

/// `struct sigcontext` (arch/arm64/include/uapi/asm/sigcontext.h).
#[repr(C, align(16))]
struct SignalContext {
    fault_address: u64,
    registers: user_pt_regs,
    /// Records, each with a header; the last is a header of zeros.
    records: Records,
}
const_assert_eq!(size_of::<SignalContext>(), 4384);

#[repr(C, align(16))]
struct Records([u8; 4096]);

/// `struct ucontext`: what the kernel saved of the interrupted program.
#[repr(C)]
pub struct SignalFrame {
    flags: u64,
    link: u64,
    /// The alternate stack as the program had set it.
    pub alternate_stack: stack_t,
    /// The signals that were blocked when the signal came.
    pub mask: u64,
    room_for_signals: [u8; 120],
    context: SignalContext,
}
const_assert_eq!(offset_of!(SignalFrame, mask), 40);
const_assert_eq!(offset_of!(SignalFrame, context), 176);
const_assert_eq!(offset_of!(SignalFrame, context.records), 464);

/// `struct _aarch64_ctx`: the header of a record of the signal frame.
#[repr(C)]
#[derive(Clone, Copy)]
struct RecordHeader {
    magic: u32,
    /// Bytes, the header included.
    size: u32,
}

/// `struct fpsimd_context`: `fpsr`, `fpcr`, `v0` to `v31`.
const FPSIMD_MAGIC: u32 = 0x4650_8001;
/// `struct sve_context`: the vector length, flags, and the registers if they are in use.
const SVE_MAGIC: u32 = 0x5356_4501;
/// `struct za_context`: likewise.
const ZA_MAGIC: u32 = 0x5436_6345;
/// `struct zt_context`: the number of registers, and they.
const ZT_MAGIC: u32 = 0x5a54_4e01;
/// `struct extra_context`: address and size of memory in which the records go on.
const EXTRA_MAGIC: u32 = 0x4558_5401;

/// Bytes in `struct sve_context`, `za_context` and `zt_context`, behind which the registers come.
const REGISTERS_OFFSET: usize = 16;

/// Waiting calls that only older architectures have: there are none.
pub(crate) const OLD_WAITS: [(u32, WaitsFor); 0] = [];

/// x19 to x28.
const CALLEE_SAVED: u32 = 0x1ff8_0000;

/// The functions that make system calls whose number is an argument: how they end before the system
/// call, and the register of the call's own first argument.
const STUBS: [(&[u32], usize); 2] = [
    // musl: __syscall_cp_asm, which is for the calls that cancel a thread
    // (src/thread/aarch64/syscall_cp.s)
    (
        &[
            0xaa01_03e8, // mov x8, x1: the number
            0xaa02_03e0, // mov x0, x2
            0xaa03_03e1, // mov x1, x3
            0xaa04_03e2, // mov x2, x4
            0xaa05_03e3, // mov x3, x5
            0xaa06_03e4, // mov x4, x6
            0xaa07_03e5, // mov x5, x7
        ],
        2,
    ),
    // glibc: syscall (sysdeps/unix/sysv/linux/aarch64/syscall.S)
    (
        &[
            0xaa01_03e0, // mov x0, x1
            0xaa02_03e1, // mov x1, x2
            0xaa03_03e2, // mov x2, x3
            0xaa04_03e3, // mov x3, x4
            0xaa05_03e4, // mov x4, x5
            0xaa06_03e5, // mov x5, x6
            0xaa07_03e6, // mov x6, x7
        ],
        1,
    ),
];

/// The registers that an instruction writes of those by which arguments are loaded; `None` if it is
/// none of those. Bit 31 is the stack pointer or none at all.
fn destinations(code: u32) -> Option<u32> {
    let first = 1 << (code & 31);
    let second = 1 << (code >> 10 & 31);
    match code {
        // add, sub, and, orr, mov, sxtw, ... with an immediate; mov, orr of a register
        _ if code & 0x1f00_0000 == 0x1100_0000 => Some(first),
        _ if code & 0x1f80_0000 == 0x1200_0000 => Some(first),
        _ if code & 0x1f80_0000 == 0x1280_0000 => Some(first),
        _ if code & 0x1f80_0000 == 0x1300_0000 => Some(first),
        _ if code & 0x1f20_0000 == 0x0a00_0000 => Some(first),
        // adrp
        _ if code & 0x9f00_0000 == 0x9000_0000 => Some(first),
        // ldp, stp; ldr, str with an offset
        _ if code & 0x7fc0_0000 == 0x2940_0000 => Some(first | second),
        _ if code & 0x7fc0_0000 == 0x2900_0000 => Some(0),
        _ if code & 0xbfc0_0000 == 0xb940_0000 => Some(first),
        _ if code & 0xbfc0_0000 == 0xb900_0000 => Some(0),
        _ => None,
    }
}

/// Bytes in [`SignalFrame::registers`].
pub const REGISTERS: usize = 34;
const_assert_eq!(size_of::<user_pt_regs>(), REGISTERS * size_of::<u64>());

/// What says that an SVE record is of streaming mode (`SVE_SIG_FLAG_SM`).
const STREAMING: u64 = 1;

impl SignalFrame {
    /// The general registers as `NT_PRSTATUS` has them: `struct user_pt_regs`.
    pub fn registers(&self, _: ThreadPointers) -> [u64; REGISTERS] {
        let user_pt_regs { regs, sp, pc, pstate } = self.context.registers;
        let mut registers = [0; REGISTERS];
        registers[..31].copy_from_slice(&regs);
        registers[31..].copy_from_slice(&[sp, pc, pstate]);
        registers
    }

    /// The stack pointer of the interrupted program.
    pub fn stack_pointer(&self) -> u64 {
        self.context.registers.sp
    }

    /// Copies the whole frame to the free part of the stack on which the program was; returns the copy,
    /// below which, but for what comes before it of the frame, the stack is free.
    ///
    /// ```text
    ///   frame:   siginfo | ucontext (self) ... records, terminator | further records
    /// ```
    ///
    /// # Safety
    ///
    /// That is not the stack on which it lies, and has room.
    pub unsafe fn copy_to_programs_stack(&self) -> *mut Self {
        const ALIGNMENT: u64 = 16;
        const TERMINATOR: u64 = 16;
        let start = ptr::from_ref(self) as u64 - size_of::<siginfo_t>() as u64;
        let mut end = self.context.records.0.as_ptr() as u64;
        let mut elsewhere = None;
        self.for_each_record(|magic, record| {
            end = end.max(record.as_ptr_range().end as u64);
            if magic == EXTRA_MAGIC {
                elsewhere = Some(record.as_ptr() as u64 + size_of::<RecordHeader>() as u64);
            }
        });
        end += TERMINATOR;
        let distance = self.context.registers.sp.wrapping_sub(end) & !(ALIGNMENT - 1);
        // SAFETY: the caller's contract; the copy is as long and as aligned as the frame.
        unsafe {
            let copy = start.wrapping_add(distance) as *mut u8;
            copy.copy_from_nonoverlapping(start as *const u8, (end - start) as usize);
            if let Some(address) = elsewhere {
                let address = address.wrapping_add(distance) as *mut u64;
                *address = (*address).wrapping_add(distance);
            }
            copy.add(size_of::<siginfo_t>()).cast()
        }
    }

    /// What the program has just got of a system call, if that is what it has just made; errors as
    /// `-errno`. `read` reads memory of the program, and says whether there is any.
    pub fn call_result(&self, read: impl Fn(u64, &mut [u8]) -> bool) -> Option<isize> {
        let registers = &self.context.registers;
        let mut instruction = [0; SYSTEM_CALL.len()];
        let before = registers.pc.wrapping_sub(instruction.len() as u64);
        (read(before, &mut instruction) && instruction == *SYSTEM_CALL)
            .then_some(registers.regs[0] as isize)
    }

    /// The `wait` of the [`wait_call`] that the signal has interrupted, if it was one.
    pub fn wait_under_way(&self) -> Option<usize> {
        let registers = &self.context.registers;
        // SAFETY: without arguments it makes no call.
        let address = unsafe { wait_call(ptr::null(), 0, 0) };
        let interrupted = registers.regs[0] == u64::from(EINTR).wrapping_neg();
        (registers.pc == address as u64 && interrupted).then_some(registers.regs[19] as usize)
    }

    /// The system call that has just had its [`SignalFrame::call_result`], if it can be found out.
    ///
    /// The number and the arguments are where they were; but for the first one, which the result now
    /// stands in place of. It is taken from the instructions before: either they load it,
    ///
    /// ```text
    ///     mov x0, x20                  or an immediate, or from the stack
    ///     (moves to other registers)
    ///     svc #0
    /// ```
    ///
    /// or they are a function of the C library that is given the number ([`STUBS`]); then its caller
    /// has loaded the argument, an immediate or from a register that both preserve.
    pub fn call_made(&self, read: impl Fn(u64, &mut [u8]) -> bool) -> Option<CallMade> {
        let user_pt_regs { regs, pc, .. } = &self.context.registers;
        let stub = STUBS.iter().find(|(stub, _)| {
            let mut code = [0; 7 * 4];
            let code = &mut code[..stub.len() * 4];
            read(pc.wrapping_sub(code.len() as u64 + 4), code)
                && stub.iter().map(|code| code.to_le_bytes()).eq(code.as_chunks().0.iter().copied())
        });
        let first = match stub {
            Some((_, argument)) => {
                self.loaded_register(&read, regs[30].wrapping_sub(4), *argument, CALLEE_SAVED)
            }
            None => self.loaded_register(&read, pc.wrapping_sub(4), 0, !1),
        };
        let arguments = [first.unwrap_or(0), regs[1], regs[2], regs[3], regs[4], regs[5]];
        let first_is_known = first.is_some();
        Some(CallMade { number: regs[8].try_into().ok()?, arguments, first_is_known })
    }

    /// Gives the system call another result.
    pub fn set_result(&mut self, result: isize) {
        self.context.registers.regs[0] = result as u64;
    }

    /// What the instructions before the one at `end` have loaded into `register`, if it is an
    /// immediate or comes from the stack or from one of the registers `sources`.
    fn loaded_register(
        &self,
        read: impl Fn(u64, &mut [u8]) -> bool,
        end: u64,
        register: usize,
        sources: u32,
    ) -> Option<u64> {
        const LOOKED_AT: u64 = 16;
        let user_pt_regs { regs, sp, .. } = &self.context.registers;
        let mut written = 0_u32;
        for index in 1..=LOOKED_AT {
            let mut bytes = [0; 4];
            read(end.wrapping_sub(4 * index), &mut bytes).then_some(())?;
            let code = u32::from_le_bytes(bytes);
            let destinations = destinations(code)?;
            if destinations & 1 << register == 0 {
                written |= destinations;
                continue;
            }
            let from = |number: u32| {
                let usable = sources & !written & !(1 << 31) & 1 << number != 0;
                usable.then(|| regs[number as usize])
            };
            let immediate = u64::from(code >> 5 & 0xffff);
            return match code {
                // mov x0, xzr; mov x0, x20; mov w0, w20
                _ if code & 0xffff_ffe0 == 0xaa1f_03e0 => Some(0),
                _ if code & 0xffe0_ffe0 == 0xaa00_03e0 => from(code >> 16 & 31),
                _ if code & 0xffe0_ffe0 == 0x2a00_03e0 => {
                    from(code >> 16 & 31).map(|value| u64::from(value as u32))
                }
                // mov x0, #imm; mov w0, #imm; mov w0, #-imm
                _ if code & 0x7fe0_0000 == 0x5280_0000 => Some(immediate),
                _ if code & 0xffe0_0000 == 0x1280_0000 => Some(u64::from(!immediate as u32)),
                // sxtw x0, w20
                _ if code & 0xffff_fc00 == 0x9340_7c00 => {
                    from(code >> 5 & 31).map(|value| value as i32 as u64)
                }
                // ldr x0, [sp, #imm]
                _ if code & 0xffc0_03e0 == 0xf940_03e0 && sources & 1 << 31 != 0 => {
                    let mut value = [0; 8];
                    read(sp + u64::from(code >> 10 & 0xfff) * 8, &mut value).then_some(())?;
                    Some(u64::from_le_bytes(value))
                }
                _ => None,
            };
        }
        None
    }

    /// Calls `each(magic, bytes)` for every record, its header included. Which there are differs by
    /// CPU, and by what the program uses of it.
    fn for_each_record(&self, mut each: impl FnMut(u32, &[u8])) {
        let mut rest = &self.context.records.0[..];
        let mut elsewhere = None;
        loop {
            let header = rest.first_chunk::<8>().map(|bytes| {
                // SAFETY: plain numbers, for which any bytes are valid.
                unsafe { ptr::read_unaligned(bytes.as_ptr().cast::<RecordHeader>()) }
            });
            match header {
                Some(RecordHeader { magic, size })
                    if magic != 0 && (8..=rest.len()).contains(&(size as usize)) =>
                {
                    let (record, behind) = rest.split_at(size as usize);
                    if magic == EXTRA_MAGIC {
                        let (at, length) = (number::<8>(record, 8), number::<4>(record, 16));
                        // SAFETY: the kernel says that there are so many bytes of records.
                        elsewhere = Some(unsafe {
                            core::slice::from_raw_parts(at as *const u8, length as usize)
                        });
                    }
                    each(magic, record);
                    rest = behind;
                }
                _ => match elsewhere.take() {
                    Some(records) => rest = records,
                    None => return,
                },
            }
        }
    }

    /// Calls `note(name, type, parts)` for each note of a core file that holds the other registers.
    pub fn other_registers(
        &self,
        cpu: &CpuState,
        thread_pointer: u64,
        mut note: impl FnMut(&str, u32, &[&[u8]]),
    ) {
        const NT_FPREGSET: u32 = 2;
        let mut status = [0; 8]; // fpsr and fpcr, which an SVE note has once more
        self.for_each_record(|magic, record| match magic {
            FPSIMD_MAGIC => {
                status.copy_from_slice(&record[8..16]);
                note("CORE", NT_FPREGSET, &[&record[16..], &status, &[0; 8]]);
            }
            // Without registers they are not in use, and the kernel has kept none.
            SVE_MAGIC | ZA_MAGIC | ZT_MAGIC if record.len() <= REGISTERS_OFFSET => {}
            SVE_MAGIC => {
                let length = number::<2>(record, 8) as usize;
                let streaming = number::<2>(record, 10) & STREAMING != 0;
                let kind = if streaming { NT_ARM_SSVE } else { NT_ARM_SVE };
                // z0 to z31, p0 to p15 and ffr, a bit of the latter for each byte of the former
                let used = 32 * length + 17 * length / 8;
                let registers = &record[REGISTERS_OFFSET..][..used.next_multiple_of(16)];
                let parts: [&[u8]; 3] = [registers, &status, &[0; 8]];
                let header = ScalableHeader::new(length, 1, &parts);
                note("LINUX", kind, &[header.as_bytes(), parts[0], parts[1], parts[2]]);
            }
            ZA_MAGIC => {
                let length = number::<2>(record, 8) as usize;
                let registers = &record[REGISTERS_OFFSET..][..length * length];
                let header = ScalableHeader::new(length, 0, &[registers]);
                note("LINUX", NT_ARM_ZA, &[header.as_bytes(), registers]);
            }
            ZT_MAGIC => note("LINUX", NT_ARM_ZT, &[&record[REGISTERS_OFFSET..]]),
            _ => {}
        });
        note("LINUX", NT_ARM_TLS, &[&thread_pointer.to_le_bytes()]);
        if cpu.keys_known != 0 {
            // By the mask a debugger tells addresses from their signatures.
            note("LINUX", NT_ARM_PAC_MASK, &[bytes_of(&cpu.keys.masks)]);
            note("LINUX", NT_ARM_PACA_KEYS, &[bytes_of(&cpu.keys.address)]);
            note("LINUX", NT_ARM_PACG_KEYS, &[bytes_of(&cpu.keys.generic)]);
        }
    }
}

/// The little-endian number of `N` bytes at `at`.
fn number<const N: usize>(bytes: &[u8], at: usize) -> u64 {
    bytes[at..at + N].iter().rev().fold(0, |number, &byte| number << 8 | u64::from(byte))
}

/// The bytes of plain numbers without padding.
fn bytes_of<T: Copy>(numbers: &T) -> &[u8] {
    // SAFETY: any such bytes may be looked at.
    unsafe { core::slice::from_raw_parts(ptr::from_ref(numbers).cast(), size_of::<T>()) }
}

/// `struct user_sve_header` and `user_za_header`, which are alike: what a note begins with whose
/// registers have the length that the program has chosen.
struct ScalableHeader(user_sve_header);

impl ScalableHeader {
    fn new(vector_length: usize, flags: u16, parts: &[&[u8]]) -> Self {
        let registers: usize = parts.iter().map(|part| part.len()).sum();
        let size = (size_of::<user_sve_header>() + registers) as u32;
        let vl = vector_length as u16;
        Self(user_sve_header { size, max_size: size, vl, max_vl: vl, flags, __reserved: 0 })
    }

    fn as_bytes(&self) -> &[u8] {
        bytes_of(&self.0)
    }
}
const_assert_eq!(size_of::<user_sve_header>(), REGISTERS_OFFSET);

/// Which registers and instructions this CPU has, and what the process has chosen of them. The
/// kernel refuses a signal frame with registers that there are not, or of another length.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct CpuState {
    /// `AT_HWCAP` and `AT_HWCAP2`: a program may have chosen its code by them.
    pub capabilities: [u64; 2],
    /// Bytes in an SVE vector, and how exec treats that: `PR_SVE_GET_VL`. 0 without SVE.
    pub sve: u64,
    /// The same of SME: `PR_SME_GET_VL`.
    pub sme: u64,
    /// `PR_GET_TAGGED_ADDR_CTRL`.
    pub tagged_addresses: u64,
    /// `PR_PAC_GET_ENABLED_KEYS`.
    pub enabled_keys: u64,
    /// Whether [`CpuState::keys`] is known (1) or not (0).
    pub keys_known: u64,
    /// The keys of pointer authentication.
    pub keys: Keys,
    /// A pointer signed by each of the keys A and B: with the same keys another CPU may sign
    /// otherwise.
    pub signatures: [u64; 2],
}
const_assert_eq!(size_of::<CpuState>(), 168);

/// The keys by which a process signs its pointers (Documentation/arch/arm64/pointer-authentication.rst).
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub struct Keys {
    /// `struct user_pac_address_keys`: of instructions, A and B, and of data, A and B.
    pub address: [[u64; 2]; 4],
    /// `struct user_pac_generic_keys`.
    pub generic: [u64; 2],
    /// `struct user_pac_mask`: the bits of a pointer, to data or to instructions, that hold the
    /// signature.
    pub masks: [u64; 2],
}

impl CpuState {
    /// That of the thread whose signal frame `frame` is. `capabilities` are the values of
    /// `AT_HWCAP` and `AT_HWCAP2` in the auxiliary vector.
    pub fn of_frame(_: &SignalFrame, capabilities: [u64; 2]) -> Self {
        let mut state = Self::of_this_cpu(capabilities);
        if state.has_keys() && exchange_keys(&mut state.keys, PTRACE_GETREGSET) {
            state.keys_known = 1;
        }
        state
    }

    /// What a signal frame can hold on this CPU and in this process. The keys, which it takes another
    /// process to read, are left out.
    pub fn of_this_cpu(capabilities: [u64; 2]) -> Self {
        Self {
            capabilities,
            sve: prctl_read(PR_SVE_GET_VL),
            sme: prctl_read(PR_SME_GET_VL),
            tagged_addresses: prctl_read(PR_GET_TAGGED_ADDR_CTRL),
            enabled_keys: prctl_read(PR_PAC_GET_ENABLED_KEYS),
            keys_known: 0,
            keys: Keys::default(),
            signatures: signatures(),
        }
    }

    /// Adds what the frame of another thread holds. Only the lengths of vectors are a thread's own.
    pub fn include(&mut self, _: &SignalFrame) {}

    /// Asks the kernel for what the process has chosen: lengths of vectors, keys. Whether it got them is
    /// for [`CpuState::of_this_cpu`] to tell. Returns what should be said of it, though all may well
    /// work.
    pub fn adopt(&mut self) -> Option<&'static str> {
        const ALL_KEYS: usize = 0b1111;
        // SAFETY: what is changed is this thread's, and this program uses none of it: neither the
        // registers whose contents are lost nor signed pointers.
        unsafe {
            set_vector_lengths([self.sve, self.sme]);
            if self.tagged_addresses != 0 {
                prctl(PR_SET_TAGGED_ADDR_CTRL, self.tagged_addresses as usize);
            }
            if self.has_keys() {
                let (option, enabled) = (PR_PAC_SET_ENABLED_KEYS, self.enabled_keys as usize);
                syscall(__NR_prctl, [option as usize, ALL_KEYS, enabled, 0, 0, 0]);
            }
        }
        if !self.has_keys() {
            return None;
        }
        if self.keys_known == 0 {
            return Some(
                "the keys by which the program signs pointers could not be read at the checkpoint, \
                 since ptrace(2) was refused: if it signs any, it will not go on",
            );
        }
        if !exchange_keys(&mut self.keys, PTRACE_SETREGSET) {
            self.keys_known = 0;
            return Some(
                "the keys by which the program signs pointers cannot be set, since ptrace(2) is \
                 refused: if it signs any, it will not go on",
            );
        }
        None
    }

    /// Whether a frame that holds `self` is restored whole where a frame can hold `here`; else what
    /// does not fit.
    pub fn fits(&self, here: &Self) -> Result<(), &'static str> {
        const IRRELEVANT: u64 = (HWCAP_EVTSTRM | HWCAP_CPUID) as u64;
        let [missing, missing2] =
            core::array::from_fn(|word| self.capabilities[word] & !here.capabilities[word]);
        if self.sve != here.sve {
            return Err("SVE registers");
        }
        if self.sme != here.sme {
            return Err("SME registers");
        }
        if missing & u64::from(HWCAP_PACA | HWCAP_PACG) != 0 {
            return Err("signed pointers");
        }
        if missing & !IRRELEVANT != 0 || missing2 != 0 {
            return Err("instructions");
        }
        if self.keys_known != 0 && self.signatures != here.signatures {
            return Err("signed pointers");
        }
        Ok(())
    }

    /// Whether pointers are signed.
    fn has_keys(&self) -> bool {
        self.capabilities[0] & u64::from(HWCAP_PACA) != 0
    }
}

/// The lengths of the calling thread's vectors: `PR_SVE_GET_VL` and `PR_SME_GET_VL`, 0 where there are
/// none.
pub fn vector_lengths() -> [u64; 2] {
    [prctl_read(PR_SVE_GET_VL), prctl_read(PR_SME_GET_VL)]
}

/// Sets the lengths of the calling thread's vectors, as far as there are such vectors.
pub fn set_vector_lengths([sve, sme]: [u64; 2]) {
    let set = |option, length| {
        // SAFETY: the contents of registers that are lost are nobody's.
        length != 0 && unsafe { prctl(option, length as usize) } >= 0
    };
    set(PR_SVE_SET_VL, sve);
    if set(PR_SME_SET_VL, sme) {
        // Until a thread has executed an SME instruction, the kernel does not load its state by the length
        // that is set here.
        // SAFETY: ends a streaming mode and a ZA that are not on.
        unsafe { asm!(".inst 0xd503467f", options(nomem, nostack)) }; // smstop
    }
}

/// A pointer, signed by the keys A and B. On a CPU without authentication, and with a key that is
/// not enabled, it stays what it is.
fn signatures() -> [u64; 2] {
    const POINTER: u64 = 0x5555_5555_5550;
    const MODIFIER: u64 = 0x1234;
    let (a, b): (u64, u64);
    // SAFETY: signs the number in x17 with x16; these forms do nothing where there are no keys.
    unsafe {
        asm!(
            "hint #8", // pacia1716
            inlateout("x17") POINTER => a,
            in("x16") MODIFIER,
            options(nomem, nostack, preserves_flags),
        );
        asm!(
            "hint #10", // pacib1716
            inlateout("x17") POINTER => b,
            in("x16") MODIFIER,
            options(nomem, nostack, preserves_flags),
        );
    }
    [a, b]
}

// No instruction and no system call tells a process its own keys; ptrace(2) does. So for a moment the
// calling thread is traced, by a child that shares its memory and has but that to do:
//
//   this thread                               the child
//   clone(CLONE_VM)  ---------------------->  waits for `go`
//   PR_SET_PTRACER, if Yama wants it; go -->  PTRACE_SEIZE, PTRACE_INTERRUPT, wait4
//   wait4: stopped                            PTRACE_GETREGSET or PTRACE_SETREGSET
//          goes on  <-----------------------  PTRACE_DETACH
//          returns  <-----------------------  exit
//
// It is this way round because a tracer is told of stops by SIGCHLD: the child is, whom it does not
// disturb. And without an exit signal its end is no SIGCHLD for the program either.

/// What the child is to do, and how it went.
struct Exchange<'k> {
    thread: usize,
    /// `PTRACE_GETREGSET` or `PTRACE_SETREGSET`.
    request: u32,
    keys: &'k mut Keys,
    go: AtomicBool,
    /// 0, or `-errno`.
    result: AtomicI32,
}

/// Reads the calling thread's keys into `keys` or sets them from there; returns whether it could.
fn exchange_keys(keys: &mut Keys, request: u32) -> bool {
    // SAFETY: takes no arguments.
    let thread = unsafe { syscall(__NR_gettid, [0; 6]) } as usize;
    let (go, result) = (AtomicBool::new(false), AtomicI32::new(0));
    let mut exchange = Exchange { thread, request, keys, go, result };
    // Yama may allow it to no child unless it is asked; but nobody can put back what the program has asked
    // of it, so not to ask comes first.
    [false, true].into_iter().any(|ask| exchange_by_child(&mut exchange, ask))
}

/// Has a child do it, which Yama is asked to allow if need be.
fn exchange_by_child(exchange: &mut Exchange<'_>, ask_yama: bool) -> bool {
    let mut stack = [0_u128; 256];
    exchange.go.store(false, SeqCst);
    exchange.result.store(-(EPERM as i32), SeqCst);
    let flags = (CLONE_VM | CLONE_UNTRACED) as usize;
    // SAFETY: the child has a stack of its own, and both live until it has ended. What it writes it
    // writes through the exchange, which the compiler knows to be shared.
    unsafe {
        let top = stack.as_mut_ptr_range().end as usize;
        let shared = ptr::from_mut(exchange).cast();
        let child = spawn(flags, top, trace_parent, shared, __NR_clone);
        if child < 0 {
            return false;
        }
        if ask_yama {
            prctl(PR_SET_PTRACER, child as usize);
        }
        exchange.go.store(true, SeqCst);
        while syscall(__NR_wait4, [child as usize, 0, __WALL as usize, 0, 0, 0]) != child {}
        if ask_yama {
            prctl(PR_SET_PTRACER, 0);
        }
    }
    exchange.result.load(SeqCst) == 0
}

/// The child: traces the thread for a moment.
unsafe extern "C" fn trace_parent(exchange: *mut u8) -> ! {
    // SAFETY: the parent waits, and uses but the atomic fields meanwhile.
    let exchange = unsafe { &mut *exchange.cast::<Exchange<'_>>() };
    while !exchange.go.load(SeqCst) {
        // SAFETY: takes no arguments.
        unsafe { syscall(__NR_sched_yield, [0; 6]) };
    }
    let thread = exchange.thread;
    // SAFETY: what is read and set are the keys, which the parent does not use meanwhile.
    let ptrace = |request: u32, kind: u32, data: usize| unsafe {
        syscall(__NR_ptrace, [request as usize, thread, kind as usize, data, 0, 0])
    };
    let mut result = ptrace(PTRACE_SEIZE, 0, 0);
    if result == 0 {
        ptrace(PTRACE_INTERRUPT, 0, 0);
        // SAFETY: waits for the thread, and asks for no status.
        while unsafe { syscall(__NR_wait4, [thread, 0, __WALL as usize, 0, 0, 0]) }
            != thread as isize
        {}
        let Keys { address, generic, masks } = &mut *exchange.keys;
        let sets: [(u32, u32, *mut u8, usize); 3] = [
            (exchange.request, NT_ARM_PACA_KEYS, address.as_mut_ptr().cast(), size_of_val(address)),
            (exchange.request, NT_ARM_PACG_KEYS, generic.as_mut_ptr().cast(), size_of_val(generic)),
            (PTRACE_GETREGSET, NT_ARM_PAC_MASK, masks.as_mut_ptr().cast(), size_of_val(masks)),
        ];
        for (request, kind, base, length) in sets {
            let mut area = iovec { iov_base: base.cast(), iov_len: length as u64 };
            let outcome = ptrace(request, kind, &raw mut area as usize);
            // There may be no generic key.
            if kind != NT_ARM_PACG_KEYS {
                result = result.min(outcome);
            }
        }
        ptrace(PTRACE_DETACH, 0, 0);
    }
    exchange.result.store(result as i32, SeqCst);
    loop {
        // SAFETY: ends this child.
        unsafe { syscall(__NR_exit, [0; 6]) };
    }
}

impl WeakSymbols {
    /// Looks them up, by way of the global offset table, which the dynamic loader has filled or,
    /// in a static program, the linker.
    pub fn find() -> Self {
        let (rseq_offset, libc_stack_end);
        // SAFETY: reads two entries of the global offset table; the linker may put the addresses into
        // the instructions instead.
        unsafe {
            asm!(
                ".weak __rseq_offset",
                ".weak __libc_stack_end",
                "adrp {0}, :got:__rseq_offset",
                "ldr {0}, [{0}, :got_lo12:__rseq_offset]",
                "adrp {1}, :got:__libc_stack_end",
                "ldr {1}, [{1}, :got_lo12:__libc_stack_end]",
                out(reg) rseq_offset,
                out(reg) libc_stack_end,
                options(nostack, preserves_flags, readonly),
            );
        }
        Self { rseq_offset, libc_stack_end }
    }
}

// Another program's registers, as ptrace(2) shows them to a tracer: what it takes to make a stopped
// program issue one system call and never know of it.

/// The instruction that makes a system call: `svc #0`.
pub const SYSTEM_CALL: &[u8] = &[0x01, 0x00, 0x00, 0xd4];

/// The bits of the processor's state that say that an indirect branch led here: an instruction that is
/// no landing pad would then be refused.
const BRANCH_TYPE: u64 = 0b11 << 10;

/// Where an instruction may begin: at multiples of this.
pub const INSTRUCTION_ALIGNMENT: u64 = 4;

/// The general registers of a stopped program (`PTRACE_GETREGSET` with `NT_PRSTATUS`):
/// `struct user_pt_regs`.
///
/// What becomes of a system call that the stop interrupted the kernel has half decided before the
/// tracer sees them (`do_signal` in arch/arm64/kernel/signal.c): the program counter is back at the
/// instruction, and in x0 is the first argument again, in place of the restart code. Once the program
/// has made another call, the kernel has forgotten the other half: that a sleep is to be gone on with
/// instead of begun anew, and that a signal's handler may end the call. So it is put where it was
/// before: at the end of a system call, with a restart code in x0, and what the kernel alone has, the
/// first argument of that call, as it was. [`TracedRegisters::interrupted`] tells how; the next stop
/// on the way to deliver signals finds all as this one did.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub struct TracedRegisters {
    /// x0 to x30.
    pub x: [u64; 31],
    /// The stack pointer.
    pub sp: u64,
    /// The program counter.
    pub pc: u64,
    /// The processor's state.
    pub pstate: u64,
}
assert_eq_size!(TracedRegisters, user_pt_regs);

impl TracedRegisters {
    /// Those of a program that is about to execute the [`SYSTEM_CALL`] at `instruction`.
    pub fn with_call(mut self, instruction: u64, number: u32, arguments: [u64; 6]) -> Self {
        self.x[..6].copy_from_slice(&arguments);
        self.x[8] = number.into();
        self.pc = instruction;
        self.pstate &= !BRANCH_TYPE;
        self
    }

    /// What the system call returned that has just ended; errors as `-errno`.
    pub fn call_result(&self) -> i64 {
        self.x[0] as i64
    }

    /// How to go on in the call that the stop interrupted, if there is one. `standing` is that which
    /// the program stood in before.
    pub fn interrupted(self, standing: &StandingCall) -> Option<Interrupted<Self>> {
        let [first_argument, others @ ..] = standing.arguments;
        let behind = standing.instruction_pointer;
        let same = self.x[8] == standing.number
            && self.sp == standing.stack_pointer
            && self.x[1..6] == others;
        let at = behind.wrapping_sub(SYSTEM_CALL.len() as u64);
        let taken_back = self.pc == at && self.x[0] == first_argument;
        let failed = self.pc == behind && self.x[0] == u64::from(EINTR).wrapping_neg();
        let number = u32::try_from(standing.number).ok()?;
        let code = match (same, taken_back, failed && EINTR_CALLS.contains(&number)) {
            (true, true, _) => restart_code(number, standing.arguments),
            // It has not done anything yet.
            (true, _, true) => ERESTARTNOHAND,
            _ => return None,
        };
        let with = |pc, result| {
            let mut registers = Self { pc, ..self };
            registers.x[0] = result;
            registers
        };
        let at_end = with(behind, code.wrapping_neg());
        Some(Interrupted { first_argument, at_end, to_go_on: with(at, first_argument) })
    }

    /// With what the program goes on that was stopped with these, and stood in no call.
    pub fn to_go_on(self) -> Self {
        self
    }

    /// The address of `length` bytes of the stack that are not in use: all below the stack pointer is
    /// free (AAPCS64, 6.4.5).
    pub fn free_stack(&self, length: u64) -> u64 {
        self.sp.wrapping_sub(length) & !15
    }
}

// include/linux/errno.h: a call is made again unless a handler without SA_RESTART runs; in any case;
// unless a handler runs; likewise, by way of restart_syscall(2).
const ERESTARTSYS: u64 = 512;
const ERESTARTNOINTR: u64 = 513;
const ERESTARTNOHAND: u64 = 514;
const ERESTART_RESTARTBLOCK: u64 = 516;

/// With which of these codes a system call ends that a stop interrupts.
#[allow(non_upper_case_globals, reason = "the kernel's names")]
fn restart_code(number: u32, arguments: [u64; 6]) -> u64 {
    const COMMAND: u64 = FUTEX_CMD_MASK as u32 as u64;
    let [_, second, _, fourth, ..] = arguments;
    let command = (second & COMMAND) as u32;
    match number {
        __NR_nanosleep | __NR_restart_syscall => ERESTART_RESTARTBLOCK,
        __NR_clock_nanosleep if second & u64::from(TIMER_ABSTIME) == 0 => ERESTART_RESTARTBLOCK,
        __NR_futex if ![FUTEX_WAIT, FUTEX_WAIT_BITSET].contains(&command) => ERESTARTNOINTR,
        __NR_futex if fourth != 0 => ERESTART_RESTARTBLOCK,
        __NR_clock_nanosleep | __NR_msgrcv | __NR_msgsnd | __NR_ppoll | __NR_pselect6
        | __NR_rt_sigsuspend => ERESTARTNOHAND,
        _ => ERESTARTSYS,
    }
}

/// The sets of registers (`PTRACE_GETREGSET`) that no system call preserves.
pub const CALL_CLOBBERED: [u32; 2] = [NT_ARM_SVE, NT_ARM_SSVE];

/// Whether a program has something in such a set: it has not if it is in a system call, nor if the
/// other one is in use.
pub fn is_in_use(set: &[u8]) -> bool {
    const SVE_PT_REGS_SVE: u64 = 1; // asm/ptrace.h
    number::<2>(set, offset_of!(user_sve_header, flags)) & SVE_PT_REGS_SVE != 0
}

// The memory functions. Pairs of vector registers carry what is long, 64 bytes a round; an access
// need not be aligned.
#[cfg(feature = "memory-functions")]
global_asm!(
    // x0 destination, x1 source, x2 bytes -> x0 destination
    ".hidden memcpy",
    ".globl memcpy",
    ".type memcpy, @function",
    "memcpy:",
    "mov x3, x0",
    "2:",
    "subs x2, x2, #64",
    "b.lo 3f",
    "ldp q0, q1, [x1], #32",
    "ldp q2, q3, [x1], #32",
    "stp q0, q1, [x3], #32",
    "stp q2, q3, [x3], #32",
    "b 2b",
    "3:",
    "add x2, x2, #64", // what is left: fewer than 64
    "4:",
    "subs x2, x2, #8",
    "b.lo 5f",
    "ldr x4, [x1], #8",
    "str x4, [x3], #8",
    "b 4b",
    "5:",
    "adds x2, x2, #8", // fewer than 8
    "b.eq 7f",
    "6:",
    "ldrb w4, [x1], #1",
    "strb w4, [x3], #1",
    "subs x2, x2, #1",
    "b.ne 6b",
    "7:",
    "ret",
    ".size memcpy, . - memcpy",
    // The same, and the two may overlap.
    ".hidden memmove",
    ".globl memmove",
    ".type memmove, @function",
    "memmove:",
    "sub x3, x0, x1", // how far the destination lies behind the source;
    "cmp x3, x2",     // unsigned: before it, or beyond its end, forwards does no harm:
    "b.hs memcpy",    // a round of it has read all that it writes over
    "add x1, x1, x2", // else from the last byte down
    "add x3, x0, x2",
    "2:",
    "subs x2, x2, #64",
    "b.lo 3f",
    "ldp q0, q1, [x1, #-32]!",
    "ldp q2, q3, [x1, #-32]!",
    "stp q0, q1, [x3, #-32]!",
    "stp q2, q3, [x3, #-32]!",
    "b 2b",
    "3:",
    "adds x2, x2, #64",
    "b.eq 5f",
    "4:",
    "ldrb w4, [x1, #-1]!",
    "strb w4, [x3, #-1]!",
    "subs x2, x2, #1",
    "b.ne 4b",
    "5:",
    "ret",
    ".size memmove, . - memmove",
    // x0 destination, w1 byte, x2 bytes -> x0 destination
    ".hidden memset",
    ".globl memset",
    ".type memset, @function",
    "memset:",
    "mov x3, x0",
    "dup v0.16b, w1",
    "2:",
    "subs x2, x2, #64",
    "b.lo 3f",
    "stp q0, q0, [x3], #32",
    "stp q0, q0, [x3], #32",
    "b 2b",
    "3:",
    "adds x2, x2, #64",
    "b.eq 5f",
    "4:",
    "strb w1, [x3], #1",
    "subs x2, x2, #1",
    "b.ne 4b",
    "5:",
    "ret",
    ".size memset, . - memset",
    // x0, x1 two areas, x2 bytes -> w0 the first difference, as unsigned bytes
    ".hidden memcmp",
    ".globl memcmp",
    ".type memcmp, @function",
    "memcmp:",
    ".hidden bcmp",
    ".globl bcmp",
    ".type bcmp, @function",
    "bcmp:",
    "2:",
    "cmp x2, #8",
    "b.lo 3f",
    "ldr x3, [x0]", // eight bytes at a time while they are equal
    "ldr x4, [x1]",
    "cmp x3, x4",
    "b.ne 3f",
    "add x0, x0, #8",
    "add x1, x1, #8",
    "sub x2, x2, #8",
    "b 2b",
    "3:",
    "cbz x2, 4f",
    "ldrb w3, [x0], #1",
    "ldrb w4, [x1], #1",
    "sub x2, x2, #1",
    "cmp w3, w4",
    "b.eq 3b",
    "sub w0, w3, w4",
    "ret",
    "4:",
    "mov w0, #0",
    "ret",
    ".size memcmp, . - memcmp",
    ".size bcmp, . - bcmp",
    // x0 string -> x0 bytes before its NUL
    ".hidden strlen",
    ".globl strlen",
    ".type strlen, @function",
    "strlen:",
    "mov x1, x0",
    "2:",
    "ldrb w2, [x1], #1",
    "cbnz w2, 2b",
    "sub x0, x1, x0", // the NUL included
    "sub x0, x0, #1",
    "ret",
    ".size strlen, . - strlen",
);
