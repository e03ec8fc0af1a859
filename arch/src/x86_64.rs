//! x86_64.
//!
//! Two layers carry the registers of a program through a checkpoint:
//!
//! ```text
//!   the program's stack                        the private stack (scratch mapping)
//!
//!   |  frames of the program  |
//!   |-------------------------|  <- rsp when the signal came
//!   |  red zone, 128 bytes    |
//!   |-------------------------|
//!   |  XSAVE area             |  \
//!   |  siginfo                |   > the kernel's signal frame: every register the program sees;
//!   |  ucontext               |  /  rt_sigreturn puts them back
//!   |-------------------------|
//!   |  handler: Context, ...  |     the callee-saved registers of the handler
//!   |  return address of      |                        |--------------------|  <- stack_top
//!   |  save_context_then      |  <- Context.rsp        |  the capture       |
//!   |-------------------------|                        |  ...               |
//! ```
//!
//! All that is needed to go on lies on the *program's* stack, which is memory like any other and
//! goes into the image. [`save_context_then`] leaves for the private stack; the way back, be it an
//! ordinary return, a failure or the restart in another process, is always [`restore_context`].
//!
//! The stubs are naked functions rather than `global_asm!`: the offsets are then operands, checked
//! by the compiler, and the symbols are mangled, so that nothing can be exported by accident.

#[cfg(feature = "memory-functions")]
use core::arch::global_asm;
use core::arch::{asm, naked_asm};
use core::mem::{offset_of, size_of};
use linux_raw_sys::errno::EINTR;
use linux_raw_sys::general::{
    __NR_arch_prctl, __NR_clock_getres, __NR_clock_gettime, __NR_epoll_wait, __NR_exit,
    __NR_exit_group, __NR_getcpu, __NR_getrandom, __NR_gettimeofday, __NR_munmap,
    __NR_rt_sigreturn, __NR_time,
};
use linux_raw_sys::general::{__NR_pause, __NR_poll, __NR_select, ARCH_SET_FS, siginfo_t, stack_t};
use static_assertions::{const_assert, const_assert_eq};

use crate::outcome::RESTARTED;
use crate::{CallMade, EINTR_CALLS, Interrupted, StandingCall, WaitsFor, WeakSymbols};

/// This machine in ELF headers (`EM_X86_64`).
pub const ELF_MACHINE: u16 = 62;
/// This machine as people call it.
pub const NAME: &str = "x86_64";
/// The end of the addresses a program can map (47 bits, less a page).
pub const ADDRESS_END: u64 = 0x7fff_ffff_f000;
/// Where to look for a gap in an image: behind where the linker script puts `restart-static`, then at
/// low addresses.
pub const GAPS_FROM: [u64; 2] = [0x3f10_0000_0000, 0x1000_0000];

/// What a C library signs its rseq area with (`RSEQ_SIG`, glibc's sysdeps/unix/sysv/linux/x86).
pub const RSEQ_SIGNATURE: u32 = 0x5305_3053;
/// Where the C library's own record of a thread lies, from the thread pointer: its first bytes,
/// among them the thread id in every version of musl.
pub const THREAD_RECORD: core::ops::Range<isize> = 0..256;

/// How a program with a shadow stack is started without one.
pub const NO_SHADOW_STACK: &str = "GLIBC_TUNABLES=glibc.cpu.x86_shstk=off";
/// The protection of a mapping whose branch targets are marked: there is none.
pub const BRANCH_TARGET_PROTECTION: u32 = 0;

/// One raw system call. Returns what the kernel returned, errors as `-errno`.
///
/// # Safety
///
/// Whatever the call does to the process is the caller's responsibility.
#[inline]
pub unsafe fn syscall(number: u32, args: [usize; 6]) -> isize {
    let result;
    // SAFETY: the kernel preserves every register but rax, rcx and r11.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") number as usize => result,
            in("rdi") args[0],
            in("rsi") args[1],
            in("rdx") args[2],
            in("r10") args[3],
            in("r8") args[4],
            in("r9") args[5],
            lateout("rcx") _,
            lateout("r11") _,
            options(nostack),
        );
    }
    result
}

/// What a function must find again when it is returned into: the System V ABI's callee-saved
/// registers and control words.
#[repr(C)]
#[derive(Default)]
pub struct Context {
    rbx: u64,
    rbp: u64,
    r12: u64,
    r13: u64,
    r14: u64,
    r15: u64,
    /// Where the return address lies.
    rsp: u64,
    mxcsr: u32,
    x87_control: u32,
}
const_assert_eq!(size_of::<Context>(), 64);
// The unwind rules below hold the offset of rsp in one signed LEB128 byte.
const_assert!(offset_of!(Context, rsp) < 64);

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
    // rdi context, rsi stack_top, rdx function, rcx argument -> rax outcome
    naked_asm!(
        ".cfi_startproc",
        "mov [rdi + {rbx}], rbx",          // the registers a callee must preserve
        "mov [rdi + {rbp}], rbp",
        "mov [rdi + {r12}], r12",
        "mov [rdi + {r13}], r13",
        "mov [rdi + {r14}], r14",
        "mov [rdi + {r15}], r15",
        "stmxcsr [rdi + {mxcsr}]",         // rounding and exception masks of SSE
        "fnstcw [rdi + {x87_control}]",    // and of x87
        "mov [rdi + {rsp}], rsp",          // rsp points at our return address
        "mov rbx, rdi",                    // the callee preserves rbx: it keeps the context
        // From here on debuggers find our frame through rbx:
        // CFA = *(rbx + offset of rsp) + 8 (DW_CFA_def_cfa_expression: breg3, deref, plus_uconst),
        ".cfi_escape 0x0f, 5, 0x73, {rsp}, 0x06, 0x23, 8",
        // and the caller's rbx at rbx + offset of rbx (DW_CFA_expression: reg 3, breg3).
        ".cfi_escape 0x10, 3, 2, 0x73, {rbx}",
        "mov rsp, rsi",                    // over to the private stack
        "mov rdi, rcx",                    // the one argument
        "call rdx",                        // aligned: stack_top is a multiple of 16
        "mov rsi, rax",                    // what it returned is the outcome
        "mov rdi, rbx",
        "jmp {restore}",                   // an ordinary return is a restored context as well
        ".cfi_endproc",
        rbx = const offset_of!(Context, rbx),
        rbp = const offset_of!(Context, rbp),
        r12 = const offset_of!(Context, r12),
        r13 = const offset_of!(Context, r13),
        r14 = const offset_of!(Context, r14),
        r15 = const offset_of!(Context, r15),
        rsp = const offset_of!(Context, rsp),
        mxcsr = const offset_of!(Context, mxcsr),
        x87_control = const offset_of!(Context, x87_control),
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
    // rdi context, rsi outcome
    naked_asm!(
        "mov rbx, [rdi + {rbx}]",
        "mov rbp, [rdi + {rbp}]",
        "mov r12, [rdi + {r12}]",
        "mov r13, [rdi + {r13}]",
        "mov r14, [rdi + {r14}]",
        "mov r15, [rdi + {r15}]",
        "ldmxcsr [rdi + {mxcsr}]",
        "fldcw [rdi + {x87_control}]",
        "mov rsp, [rdi + {rsp}]",          // back on the program's stack,
        "mov rax, rsi",                    // whose top is the return address
        "ret",
        rbx = const offset_of!(Context, rbx),
        rbp = const offset_of!(Context, rbp),
        r12 = const offset_of!(Context, r12),
        r13 = const offset_of!(Context, r13),
        r14 = const offset_of!(Context, r14),
        r15 = const offset_of!(Context, r15),
        rsp = const offset_of!(Context, rsp),
        mxcsr = const offset_of!(Context, mxcsr),
        x87_control = const offset_of!(Context, x87_control),
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
    // rdi context, rsi loader, rdx length, rcx users
    naked_asm!(
        "mov r12, rdi",                    // the kernel preserves r12; there will be no stack
        "lock dec dword ptr [rcx]",        // the last to leave it takes the loader away
        "jnz 3f",
        "mov rdi, rsi",
        "mov rsi, rdx",
        "mov eax, {munmap}",
        "syscall",
        "test rax, rax",
        "jnz 2f",                          // half a loader left is no restart
        "3:",
        "test r12, r12",
        "jz 4f",
        "mov rdi, r12",
        "mov esi, {restarted}",
        "jmp {restore}",
        "2:",
        "mov edi, 125",
        "mov eax, {exit_group}",
        "syscall",
        "ud2",
        "4:",
        "xor edi, edi",
        "mov eax, {exit}",
        "syscall",
        "ud2",
        munmap = const __NR_munmap,
        exit_group = const __NR_exit_group,
        exit = const __NR_exit,
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
    // rdi arguments, esi number, rdx wait -> rax result
    naked_asm!(
        ".cfi_startproc",
        "test rdi, rdi",
        "jz 3f",
        "push rbx",
        ".cfi_adjust_cfa_offset 8",
        ".cfi_rel_offset rbx, 0",
        "mov rbx, rdx", // here the signal frame has it
        "mov eax, esi",
        "mov r11, rdi",
        "mov rdi, [r11]",
        "mov rsi, [r11 + 8]",
        "mov rdx, [r11 + 16]",
        "mov r10, [r11 + 24]",
        "mov r8, [r11 + 32]",
        "mov r9, [r11 + 40]",
        "syscall",
        "2:",
        "pop rbx",
        ".cfi_adjust_cfa_offset -8",
        ".cfi_restore rbx",
        "ret",
        "3:",
        "lea rax, [rip + 2b]",
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
    // rdi, rsi the call's arguments, rdx function, rcx argument, r8 number -> rax
    naked_asm!(
        "mov r9, rcx", // the call destroys rcx
        "mov eax, r8d",
        "syscall",
        "test rax, rax",
        "jz 2f",
        "ret",
        "2:",
        "xor ebp, ebp", // the child: the outermost frame
        "mov rdi, r9",
        "call rdx",
        "ud2",
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
    // rdi stack_top, rsi function, rdx argument
    naked_asm!(
        "mov rsp, rdi",
        "mov rdi, rdx",
        "xor ebp, ebp", // the outermost frame
        "call rsi",
        "ud2",
    )
}

/// The signal return trampoline (`sa_restorer`). Its bytes are those by which gdb knows one.
///
/// # Safety
///
/// Only the kernel makes a signal handler return here.
#[unsafe(naked)]
pub unsafe extern "C" fn signal_return() {
    naked_asm!(
        ".byte 0x48, 0xc7, 0xc0",          // mov rax, imm32: the long form that gdb looks for
        ".long {rt_sigreturn}",
        "syscall",
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
    // rdi frame
    naked_asm!(
        "mov rsp, rdi",                    // as if its return address had been taken off
        "mov eax, {rt_sigreturn}",
        "syscall",
        "ud2",
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
                "xor ebp, ebp",            // the outermost frame, says the ABI
                "mov rdi, rsp",
                "and rsp, -16",            // as a C function expects it
                "call {main}",
                "ud2",
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
    // SAFETY: computes an address relative to the instruction pointer.
    unsafe {
        asm!(
            ".hidden __image_start",
            "lea {}, [rip + __image_start]",
            out(reg) address,
            options(nomem, nostack, preserves_flags),
        );
    }
    address
}

/// The relocation type "base + addend" (`R_X86_64_RELATIVE`).
pub const RELATIVE_RELOCATION: u32 = 8;

/// Makes `length` bytes at `start`, which have been written, what the processor executes there: here
/// it sees to that itself.
///
/// # Safety
///
/// The bytes are readable.
pub unsafe fn synchronize_instructions(_start: *const u8, _length: usize) {}

/// The functions that the kernels have had in their vDSOs, with the system calls that do the same.
pub const VDSO_FUNCTIONS: [(&[u8], u32); 6] = [
    (b"__vdso_clock_getres", __NR_clock_getres),
    (b"__vdso_clock_gettime", __NR_clock_gettime),
    (b"__vdso_getcpu", __NR_getcpu),
    (b"__vdso_getrandom", __NR_getrandom),
    (b"__vdso_gettimeofday", __NR_gettimeofday),
    (b"__vdso_time", __NR_time),
];

/// Bytes that [`write_jump`] writes.
pub const JUMP_LENGTH: usize = 12;

/// Makes the function at `from` jump to `to`, however far. Clobbers rax, as any call may.
///
/// # Safety
///
/// [`JUMP_LENGTH`] bytes at `from` are writable and nothing is executing them.
pub unsafe fn write_jump(from: *mut u8, to: usize) {
    let mut code = [0x48, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xe0]; // movabs rax, to; jmp rax
    code[2..10].copy_from_slice(&to.to_le_bytes());
    // SAFETY: the caller's contract.
    unsafe { from.copy_from_nonoverlapping(code.as_ptr(), JUMP_LENGTH) }
}

// arch_prctl codes that linux-raw-sys lacks (arch/x86/include/uapi/asm/prctl.h).
const ARCH_SET_GS: u32 = 0x1001;
const ARCH_GET_FS: u32 = 0x1003;
const ARCH_GET_GS: u32 = 0x1004;
const ARCH_GET_XCOMP_PERM: u32 = 0x1022;
const ARCH_REQ_XCOMP_PERM: u32 = 0x1023;
const ARCH_SHSTK_STATUS: u32 = 0x5005;

/// `arch_prctl`; returns what the kernel returned.
///
/// # Safety
///
/// As for [`syscall`].
unsafe fn arch_prctl(code: u32, argument: usize) -> isize {
    // SAFETY: the caller's contract.
    unsafe { syscall(__NR_arch_prctl, [code as usize, argument, 0, 0, 0, 0]) }
}

/// `arch_prctl` of a code that writes eight bytes; `None` where the kernel does not know it.
fn arch_prctl_read(code: u32) -> Option<u64> {
    let mut value = 0_u64;
    // SAFETY: the kernel writes eight bytes at the address given.
    let result = unsafe { arch_prctl(code, &raw mut value as usize) };
    (result == 0).then_some(value)
}

/// Bytes that [`write_system_call`] writes.
pub const SYSTEM_CALL_LENGTH: usize = 8;

/// Makes the function at `from` make a system call with its own arguments, of which there are at
/// most three: further ones go into other registers than a function's.
///
/// # Safety
///
/// [`SYSTEM_CALL_LENGTH`] bytes at `from` are writable and nothing is executing them.
pub unsafe fn write_system_call(from: *mut u8, number: u32) {
    let mut code = [0xb8, 0, 0, 0, 0, 0x0f, 0x05, 0xc3]; // mov eax, number; syscall; ret
    code[1..5].copy_from_slice(&number.to_le_bytes());
    // SAFETY: the caller's contract.
    unsafe { from.copy_from_nonoverlapping(code.as_ptr(), SYSTEM_CALL_LENGTH) }
}

/// The bases that make `fs:0` and `gs:0`; the first is the thread pointer.
#[derive(Clone, Copy)]
pub struct ThreadPointers {
    /// The base of fs.
    pub thread_pointer: u64,
    /// The base of gs, which Linux programs rarely use.
    pub second: u64,
}

impl ThreadPointers {
    /// Those of the calling thread.
    pub fn current() -> Self {
        let base = |code| arch_prctl_read(code).unwrap_or(0);
        Self { thread_pointer: base(ARCH_GET_FS), second: base(ARCH_GET_GS) }
    }

    /// Gives them to the calling thread. Fails with `-errno` for addresses no program can have.
    ///
    /// # Safety
    ///
    /// Nothing that the calling thread still does relies on thread-local storage.
    pub unsafe fn set(self) -> isize {
        // SAFETY: the caller's contract.
        unsafe {
            match arch_prctl(ARCH_SET_GS, self.second as usize) {
                0 => arch_prctl(ARCH_SET_FS, self.thread_pointer as usize),
                error => error,
            }
        }
    }
}

/// Whether the calling thread has a shadow stack, which this project cannot restore yet
/// (Documentation/arch/x86/shstk.rst).
pub fn shadow_stack_active() -> bool {
    arch_prctl_read(ARCH_SHSTK_STATUS).is_some_and(|features| features != 0)
}

/// `struct sigcontext` (arch/x86/include/uapi/asm/sigcontext.h).
#[repr(C)]
struct SignalContext {
    r8_to_r15: [u64; 8],
    rdi: u64,
    rsi: u64,
    rbp: u64,
    rbx: u64,
    rdx: u64,
    rax: u64,
    rcx: u64,
    rsp: u64,
    rip: u64,
    eflags: u64,
    cs: u16,
    gs: u16,
    fs: u16,
    ss: u16,
    err: u64,
    trapno: u64,
    oldmask: u64,
    cr2: u64,
    floating_point: *const FloatingPoint,
    reserved: [u64; 8],
}
const_assert_eq!(size_of::<SignalContext>(), 256);
const_assert_eq!(offset_of!(SignalContext, floating_point), 184);

/// `struct _fpstate_64`: an FXSAVE area whose last bytes say what follows it.
#[repr(C)]
struct FloatingPoint {
    fxsave: [u8; 464],
    magic: u32,
    extended_size: u32,
    features: u64,
    state_size: u32,
    padding: [u32; 7],
}
const_assert_eq!(size_of::<FloatingPoint>(), 512);

/// `FP_XSTATE_MAGIC1`: behind the FXSAVE area comes the rest of an XSAVE area.
const EXTENDED_STATE: u32 = 0x4650_5853;

/// `struct ucontext`: what the kernel saved of the interrupted program.
#[repr(C)]
pub struct SignalFrame {
    flags: u64,
    link: u64,
    /// The alternate stack as the program had set it.
    pub alternate_stack: stack_t,
    context: SignalContext,
    /// The signals that were blocked when the signal came.
    pub mask: u64,
}
const_assert_eq!(size_of::<SignalFrame>(), 304);
const_assert_eq!(offset_of!(SignalFrame, context), 40);

/// Bytes in [`SignalFrame::registers`].
pub const REGISTERS: usize = 27;

impl SignalFrame {
    /// The general registers as `NT_PRSTATUS` has them: `struct user_regs_struct`
    /// (arch/x86/include/asm/user_64.h). The number of an interrupted system call is not known to
    /// a signal frame; -1 in `orig_rax` says so.
    pub fn registers(&self, pointers: ThreadPointers) -> [u64; REGISTERS] {
        let c = &self.context;
        let [r8, r9, r10, r11, r12, r13, r14, r15] = c.r8_to_r15;
        let orig_rax = u64::MAX;
        [
            r15,
            r14,
            r13,
            r12,
            c.rbp,
            c.rbx,
            r11,
            r10,
            r9,
            r8,
            c.rax,
            c.rcx,
            c.rdx,
            c.rsi,
            c.rdi,
            orig_rax,
            c.rip,
            c.cs.into(),
            c.eflags,
            c.rsp,
            c.ss.into(),
            pointers.thread_pointer,
            pointers.second,
            0, // ds, es: always null in a 64-bit program
            0,
            c.fs.into(),
            c.gs.into(),
        ]
    }

    /// The stack pointer of the interrupted program.
    pub fn stack_pointer(&self) -> u64 {
        self.context.rsp
    }

    /// Copies the whole frame to the free part of the stack on which the program was; returns the copy,
    /// below which the stack is free.
    ///
    /// ```text
    ///   frame:   return address | ucontext (self) | siginfo | gap | XSAVE area, aligned to 64
    /// ```
    ///
    /// # Safety
    ///
    /// That is not the stack on which it lies, and has room.
    pub unsafe fn copy_to_programs_stack(&self) -> *mut Self {
        const ALIGNMENT: u64 = 64;
        let start = core::ptr::from_ref(self) as u64 - 8;
        let floating_point = self.context.floating_point;
        // SAFETY: the kernel put an FXSAVE area there, or nothing.
        let end = match unsafe { floating_point.as_ref() } {
            Some(area) if area.magic == EXTENDED_STATE => {
                floating_point as u64 + u64::from(area.extended_size)
            }
            Some(_) => floating_point as u64 + size_of::<FloatingPoint>() as u64,
            None => start + 8 + (size_of::<Self>() + size_of::<siginfo_t>()) as u64,
        };
        let free = self.context.rsp - RED_ZONE;
        let distance = free.wrapping_sub(end) & !(ALIGNMENT - 1);
        // SAFETY: the caller's contract; the copy is as long and as aligned as the frame.
        unsafe {
            let copy = start.wrapping_add(distance) as *mut u8;
            copy.copy_from_nonoverlapping(start as *const u8, (end - start) as usize);
            let copy = copy.add(8).cast::<Self>();
            if !floating_point.is_null() {
                let area = (floating_point as u64).wrapping_add(distance);
                (*copy).context.floating_point = area as *const FloatingPoint;
            }
            copy
        }
    }

    /// What the program has just got of a system call, if that is what it has just made; errors as
    /// `-errno`. `read` reads memory of the program, and says whether there is any.
    pub fn call_result(&self, read: impl Fn(u64, &mut [u8]) -> bool) -> Option<isize> {
        let mut instruction = [0; SYSTEM_CALL.len()];
        let before = self.context.rip.wrapping_sub(instruction.len() as u64);
        (read(before, &mut instruction) && instruction == *SYSTEM_CALL)
            .then_some(self.context.rax as isize)
    }

    /// The `wait` of the [`wait_call`] that the signal has interrupted, if it was one.
    pub fn wait_under_way(&self) -> Option<usize> {
        // SAFETY: without arguments it makes no call.
        let address = unsafe { wait_call(core::ptr::null(), 0, 0) };
        (self.context.rip == address as u64 && self.context.rax == u64::from(EINTR).wrapping_neg())
            .then_some(self.context.rbx as usize)
    }

    /// The system call that has just had its [`SignalFrame::call_result`], if it can be found out.
    ///
    /// The arguments are where they were. The number is what the result now stands in place of, so it
    /// is taken from the instructions before: either they load it,
    ///
    /// ```text
    ///     mov eax, imm32               b8 ...
    ///     (moves to other registers)
    ///     syscall                      0f 05
    /// ```
    ///
    /// or they are a function of the C library that is given the number ([`STUBS`]); then its caller
    /// has loaded the argument, an immediate or from a register that both preserve.
    pub fn call_made(&self, read: impl Fn(u64, &mut [u8]) -> bool) -> Option<CallMade> {
        let (c, arguments) = (&self.context, self.arguments());
        let mut code = [0; CODE_LENGTH];
        read(c.rip.checked_sub((CODE_LENGTH + SYSTEM_CALL.len()) as u64)?, &mut code)
            .then_some(())?;
        let number = match STUBS.iter().find(|(stub, _)| code.ends_with(stub)) {
            Some((_, argument)) => {
                let mut address = [0; 8];
                read(c.rsp, &mut address).then_some(())?;
                let behind_call = u64::from_le_bytes(address).checked_sub(CODE_LENGTH as u64)?;
                read(behind_call, &mut code).then_some(())?;
                // call rel32; call [rip + disp32]
                let direct = code[CODE_LENGTH - 5] == 0xe8;
                let indirect = code[CODE_LENGTH - 6..].starts_with(&[0xff, 0x15]);
                let length = if direct { 5 } else { 6 };
                (direct || indirect).then_some(())?;
                self.loaded_register(&code[..CODE_LENGTH - length], *argument, CALLEE_SAVED)
            }
            None => self.loaded_register(&code, RAX, !0),
        };
        Some(CallMade { number: number?.try_into().ok()?, arguments, first_is_known: true })
    }

    /// The registers of a system call's arguments.
    fn arguments(&self) -> [u64; 6] {
        let SignalContext { rdi, rsi, rdx, r8_to_r15: [r8, r9, r10, ..], .. } = self.context;
        [rdi, rsi, rdx, r10, r8, r9]
    }

    /// Gives the system call another result.
    pub fn set_result(&mut self, result: isize) {
        self.context.rax = result as u64;
    }

    /// What the instructions at the end of `code` have loaded into `register`, if it is an immediate
    /// or comes from one of the registers `sources`.
    fn loaded_register(&self, code: &[u8], register: u8, sources: u16) -> Option<u64> {
        // Instructions can be read only forwards: from where, is tried, the nearest place first.
        (0..code.len()).rev().find_map(|start| {
            // A prefix would make it another instruction.
            let before = start.checked_sub(1).map(|before| code[before]);
            if before.is_some_and(|byte| byte & 0xf0 == 0x40) {
                return None;
            }
            let (first, mut at) = Move::decode(&code[start..])?;
            if first.destination != Some(register) {
                return None;
            }
            let mut written = 0_u16;
            while start + at < code.len() {
                let (next, length) = Move::decode(&code[start + at..])?;
                if next.destination == Some(register) {
                    return None;
                }
                written |= next.destination.map_or(0, |register| 1 << register);
                at += length;
            }
            match first.source {
                Source::Immediate(value) => Some(value.into()),
                Source::Register(source) if sources & !written & 1 << source != 0 => {
                    self.register(source)
                }
                _ => None,
            }
        })
    }

    /// A register by its number in instructions; `None` for those that a system call clobbers.
    fn register(&self, number: u8) -> Option<u64> {
        let c = &self.context;
        Some(match number {
            2 => c.rdx,
            3 => c.rbx,
            4 => c.rsp,
            5 => c.rbp,
            6 => c.rsi,
            7 => c.rdi,
            8..=10 | 12..=15 => c.r8_to_r15[usize::from(number) - 8],
            _ => return None,
        })
    }

    /// Calls `note(name, type, parts)` for each note of a core file that holds the other registers.
    pub fn other_registers(
        &self,
        _: &CpuState,
        _thread_pointer: u64,
        mut note: impl FnMut(&str, u32, &[&[u8]]),
    ) {
        const NT_FPREGSET: u32 = 2;
        const NT_X86_XSTATE: u32 = 0x202;
        if self.context.floating_point.is_null() {
            return;
        }
        // SAFETY: the kernel put an FXSAVE area there and no one has touched the frame.
        let floating_point = unsafe { &*self.context.floating_point };
        let address = self.context.floating_point.cast::<u8>();
        // SAFETY: any bytes may be looked at as bytes.
        let fxsave = unsafe { core::slice::from_raw_parts(address, size_of::<FloatingPoint>()) };
        note("CORE", NT_FPREGSET, &[&fxsave[..464], &[0; 48]]);
        if let Some(size) = floating_point.extended_size() {
            // SAFETY: the kernel says that the area is that long.
            let area = unsafe { core::slice::from_raw_parts(address, size) };
            // Where a frame keeps its own length, a core file has the mask of the features.
            let mut software = [0; 48];
            software[..8].copy_from_slice(&enabled_features().to_le_bytes());
            note("LINUX", NT_X86_XSTATE, &[&area[..464], &software, &area[512..]]);
        }
    }
}

/// Waiting calls that later architectures have not got.
pub(crate) const OLD_WAITS: [(u32, WaitsFor); 4] = [
    (__NR_poll, WaitsFor::Descriptors),
    (__NR_select, WaitsFor::Sets),
    (__NR_epoll_wait, WaitsFor::Events { mask: false }),
    (__NR_pause, WaitsFor::Handler),
];

/// How many bytes of code are looked at.
const CODE_LENGTH: usize = 40;

/// Numbers of registers in instructions.
const RAX: u8 = 0;
const RSP: u8 = 4;
const RSI: u8 = 6;
const RDI: u8 = 7;
/// rbx, rbp, r12 to r15.
const CALLEE_SAVED: u16 = 0b1111_0000_0010_1000;

/// The functions that make system calls whose number is an argument: how they end before the system
/// call, and the register of that argument.
const STUBS: [(&[u8], u8); 2] = [
    // musl: __syscall_cp_asm, which is for the calls that cancel a thread
    // (src/thread/x86_64/syscall_cp.s)
    (
        &[
            0x49, 0x89, 0xfb, // mov r11, rdi
            0x48, 0x89, 0xf0, // mov rax, rsi
            0x48, 0x89, 0xd7, // mov rdi, rdx
            0x48, 0x89, 0xce, // mov rsi, rcx
            0x4c, 0x89, 0xc2, // mov rdx, r8
            0x4d, 0x89, 0xca, // mov r10, r9
            0x4c, 0x8b, 0x44, 0x24, 0x08, // mov r8, [rsp + 8]
            0x4c, 0x8b, 0x4c, 0x24, 0x10, // mov r9, [rsp + 16]
            0x4c, 0x89, 0x5c, 0x24, 0x08, // mov [rsp + 8], r11
        ],
        RSI,
    ),
    // glibc: syscall (sysdeps/unix/sysv/linux/x86_64/syscall.S)
    (
        &[
            0x48, 0x89, 0xf8, // mov rax, rdi
            0x48, 0x89, 0xf7, // mov rdi, rsi
            0x48, 0x89, 0xd6, // mov rsi, rdx
            0x48, 0x89, 0xca, // mov rdx, rcx
            0x4d, 0x89, 0xc2, // mov r10, r8
            0x4d, 0x89, 0xc8, // mov r8, r9
            0x4c, 0x8b, 0x4c, 0x24, 0x08, // mov r9, [rsp + 8]
        ],
        RDI,
    ),
];

/// An instruction of those by which arguments are loaded.
struct Move {
    /// The register that it writes; `None` if it writes memory.
    destination: Option<u8>,
    source: Source,
}

/// What a [`Move`] writes.
enum Source {
    Immediate(u32),
    Register(u8),
    Other,
}

impl Move {
    /// The instruction that `code` begins with, and its length. `None` if it is none of those few.
    fn decode(code: &[u8]) -> Option<(Self, usize)> {
        let mut at = 0;
        let mut next = || {
            at += 1;
            code.get(at - 1).copied()
        };
        let first = next()?;
        let (rex, opcode) = if first & 0xf0 == 0x40 { (first, next()?) } else { (0, first) };
        let wide = rex & 8 != 0;
        // The bits of a prefix that make registers those from r8 on.
        let (high_register, high_operand) = ((rex & 4) << 1, (rex & 1) << 3);
        if let 0xb8..=0xbf = opcode {
            // mov r32, imm32
            let immediate = u32::from_le_bytes([next()?, next()?, next()?, next()?]);
            let destination = Some(opcode & 7 | high_operand);
            let instruction = Self { destination, source: Source::Immediate(immediate) };
            return (!wide).then_some((instruction, at));
        }
        if let 0x50..=0x57 | 0x6a = opcode {
            // push r; push imm8
            at += usize::from(opcode == 0x6a);
            return Some((Self { destination: Some(RSP), source: Source::Other }, at));
        }
        let form = next()?;
        let (mode, register, operand) = (form >> 6, form >> 3 & 7, form & 7);
        if mode != 3 {
            let scaled = if operand == 4 { next()? } else { 0 };
            let displacement = match (mode, operand, scaled & 7) {
                (0, 5, _) | (0, 4, 5) | (2, ..) => 4,
                (1, ..) => 1,
                _ => 0,
            };
            for _ in 0..displacement {
                next()?;
            }
        }
        let (register, in_register) = (register | high_register, mode == 3);
        let operand = operand | high_operand;
        let instruction = match opcode {
            // mov r, r/m
            0x8b if in_register => {
                Self { destination: Some(register), source: Source::Register(operand) }
            }
            0x8b => Self { destination: Some(register), source: Source::Other },
            // mov r/m, r
            0x89 if in_register => {
                Self { destination: Some(operand), source: Source::Register(register) }
            }
            0x89 => Self { destination: None, source: Source::Other },
            // xor r, r; movsxd; lea
            0x31 if in_register && register == operand => {
                Self { destination: Some(operand), source: Source::Immediate(0) }
            }
            0x31 if in_register => Self { destination: Some(operand), source: Source::Other },
            0x33 | 0x63 | 0x8d => Self { destination: Some(register), source: Source::Other },
            // mov r, imm32; xor, or, and, ... with an immediate
            0xc7 if register & 7 == 0 => {
                let immediate = u32::from_le_bytes([next()?, next()?, next()?, next()?]);
                let destination = in_register.then_some(operand);
                Self { destination, source: Source::Immediate(immediate) }
            }
            0x83 if in_register => {
                next()?;
                Self { destination: Some(operand), source: Source::Other }
            }
            _ => return None,
        };
        Some((instruction, at))
    }
}

impl FloatingPoint {
    /// The length of the XSAVE area in bytes, if it is one.
    fn extended_size(&self) -> Option<usize> {
        (self.magic == EXTENDED_STATE).then_some(self.state_size as usize)
    }
}

/// Which extended registers there are and where an XSAVE area keeps them. It differs between CPUs,
/// vendors too, and the kernel does not complain: of an area that does not fit it restores x87 and
/// SSE and drops the rest.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct CpuState {
    /// The features the area holds: bits of XCR0.
    pub features: u64,
    /// The length of the area in bytes.
    pub size: u64,
    /// For each feature its offset and length in bytes.
    pub components: [[u32; 2]; 64],
}
const_assert_eq!(size_of::<CpuState>(), 528);

/// Features that every x86_64 has, in the fixed part of the area: x87 and SSE.
const LEGACY_FEATURES: u64 = 0b11;

impl CpuState {
    /// What `frame` holds, laid out as this CPU does. The kernel's own description of the CPU, in the
    /// auxiliary vector, tells nothing of it.
    pub fn of_frame(frame: &SignalFrame, capabilities: [u64; 2]) -> Self {
        let mut state = Self::of_this_cpu(capabilities);
        // SAFETY: the kernel put an FXSAVE area there, or nothing.
        let floating_point = unsafe { frame.context.floating_point.as_ref() };
        match floating_point.and_then(|f| f.extended_size().map(|size| (f.features, size))) {
            Some((features, size)) => (state.features, state.size) = (features, size as u64),
            None => (state.features, state.size) = (LEGACY_FEATURES, 512),
        }
        state
    }

    /// Adds what the frame of another thread holds.
    pub fn include(&mut self, frame: &SignalFrame) {
        // SAFETY: the kernel put an FXSAVE area there, or nothing.
        let floating_point = unsafe { frame.context.floating_point.as_ref() };
        if let Some(floating_point) = floating_point
            && let Some(size) = floating_point.extended_size()
        {
            self.features |= floating_point.features;
            self.size = self.size.max(size as u64);
        }
    }

    /// What a signal frame can hold on this CPU and in this process.
    pub fn of_this_cpu(_: [u64; 2]) -> Self {
        let features = permitted_features();
        let mut state = Self { features, size: 576, components: [[0; 2]; 64] };
        for (feature, component) in state.components.iter_mut().enumerate().skip(2) {
            if features & 1 << feature != 0 {
                let leaf = core::arch::x86_64::__cpuid_count(0xd, feature as u32);
                *component = [leaf.ebx, leaf.eax];
                state.size = state.size.max(u64::from(leaf.ebx) + u64::from(leaf.eax));
            }
        }
        state
    }

    /// Asks the kernel for the features that a process has only if it asks: AMX's tiles. Whether it
    /// got them is for [`CpuState::of_this_cpu`] to tell. Returns what should be said of it, though all
    /// may well work: nothing here.
    pub fn adopt(&mut self) -> Option<&'static str> {
        const TILE_DATA: usize = 18;
        if self.features & 1 << TILE_DATA != 0 {
            // SAFETY: only widens what the process may use.
            unsafe { arch_prctl(ARCH_REQ_XCOMP_PERM, TILE_DATA) };
        }
        None
    }

    /// Whether a frame that holds `self` is restored whole where a frame can hold `here`; else what
    /// does not fit.
    pub fn fits(&self, here: &Self) -> Result<(), &'static str> {
        for feature in 2..64 {
            if self.features & 1 << feature != 0
                && (here.features & 1 << feature == 0
                    || here.components[feature] != self.components[feature])
            {
                return Err(feature_registers(feature));
            }
        }
        if self.size > here.size { Err("extended registers") } else { Ok(()) }
    }
}

/// The lengths of the calling thread's vectors: there is no choice.
pub fn vector_lengths() -> [u64; 2] {
    [0; 2]
}

/// Sets the lengths of the calling thread's vectors.
pub fn set_vector_lengths(_: [u64; 2]) {}

/// What people call the registers of `feature`.
fn feature_registers(feature: usize) -> &'static str {
    match feature {
        2 => "AVX registers",
        3 | 4 => "MPX registers",
        5..=7 => "AVX-512 registers",
        9 => "PKRU registers",
        17 | 18 => "AMX registers",
        19 => "APX registers",
        _ => "unknown registers",
    }
}

/// The features that the kernel has enabled: XCR0.
fn enabled_features() -> u64 {
    const OSXSAVE: u32 = 1 << 27;
    if core::arch::x86_64::__cpuid(1).ecx & OSXSAVE == 0 {
        return LEGACY_FEATURES;
    }
    let (low, high): (u32, u32);
    // SAFETY: OSXSAVE says that the instruction is there and that user code may use it.
    unsafe {
        asm!(
            "xgetbv",
            in("ecx") 0,
            out("eax") low,
            out("edx") high,
            options(nomem, nostack, preserves_flags),
        );
    }
    u64::from(high) << 32 | u64::from(low)
}

/// The features that this process may use: some, as AMX, must be asked for
/// (Documentation/arch/x86/xstate.rst; Linux 5.16).
fn permitted_features() -> u64 {
    enabled_features() & arch_prctl_read(ARCH_GET_XCOMP_PERM).unwrap_or(u64::MAX)
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
                "mov {}, [rip + __rseq_offset@GOTPCREL]",
                "mov {}, [rip + __libc_stack_end@GOTPCREL]",
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

/// The instruction that makes a system call. Any place where these bytes lie in executable memory
/// will do, be it in the middle of another instruction: nothing but them is executed.
pub const SYSTEM_CALL: &[u8] = &[0x0f, 0x05];

/// Where an instruction may begin: at multiples of this.
pub const INSTRUCTION_ALIGNMENT: u64 = 1;

/// Bytes below the stack pointer that a function may use without moving it (System V ABI, 3.2.2).
const RED_ZONE: u64 = 128;

/// The general registers of a stopped program (`PTRACE_GETREGSET` with `NT_PRSTATUS`):
/// `struct user_regs_struct` (arch/x86/include/asm/user_64.h).
///
/// What becomes of a system call that the stop interrupted is decided here as well. The kernel
/// leaves `rax` at one of its restart codes, -512 to -516, and `orig_rax` at the call's number.
/// When the program leaves a stop *on its way to deliver signals*, the kernel looks at both: with
/// no signal to deliver it takes `rip` back over the instruction, puts the number, or that of
/// `restart_syscall`, into `rax`, and the call goes on; with one it does what the signal's handler
/// asks for. `orig_rax` of -1 means "not in a system call", and everything stays as it is. So there
/// is nothing to re-arm by hand, which would do the wrong thing whenever a signal has come: it
/// takes only that [`TracedRegisters::to_go_on`] are put back in a stop of that kind, and a
/// `PTRACE_EVENT_STOP` is one.
#[repr(C)]
#[derive(Clone, Copy, Default)]
#[allow(missing_docs, reason = "the registers' own names")]
pub struct TracedRegisters {
    pub r15: u64,
    pub r14: u64,
    pub r13: u64,
    pub r12: u64,
    pub rbp: u64,
    pub rbx: u64,
    pub r11: u64,
    pub r10: u64,
    pub r9: u64,
    pub r8: u64,
    pub rax: u64,
    pub rcx: u64,
    pub rdx: u64,
    pub rsi: u64,
    pub rdi: u64,
    pub orig_rax: u64,
    pub rip: u64,
    pub cs: u64,
    pub eflags: u64,
    pub rsp: u64,
    pub ss: u64,
    pub fs_base: u64,
    pub gs_base: u64,
    pub ds: u64,
    pub es: u64,
    pub fs: u64,
    pub gs: u64,
}
const_assert_eq!(size_of::<TracedRegisters>(), REGISTERS * size_of::<u64>());

impl TracedRegisters {
    /// Those of a program that is about to execute the [`SYSTEM_CALL`] at `instruction`.
    pub fn with_call(self, instruction: u64, number: u32, arguments: [u64; 6]) -> Self {
        let [rdi, rsi, rdx, r10, r8, r9] = arguments;
        let (rax, rip) = (number.into(), instruction);
        // Whatever was interrupted, it is not this that is to be restarted.
        let orig_rax = u64::MAX;
        Self { rax, rdi, rsi, rdx, r10, r8, r9, rip, orig_rax, ..self }
    }

    /// What the system call returned that has just ended; errors as `-errno`.
    pub fn call_result(&self) -> i64 {
        self.rax as i64
    }

    /// How to go on in the call that the stop interrupted, if that takes more than
    /// [`TracedRegisters::to_go_on`]: it does not.
    pub fn interrupted(self, _: &StandingCall) -> Option<Interrupted<Self>> {
        None
    }

    /// With what the program goes on that was stopped with these.
    ///
    /// A few calls do not go on after a stop, but fail with `EINTR` (signal(7)), which a program
    /// without a handler need not expect. They have not done anything yet, so the kernel is told to
    /// restart them, unless a handler runs: then they fail as ever. Their time-outs begin anew.
    pub fn to_go_on(self) -> Self {
        const ERESTARTNOHAND: u64 = 514; // include/linux/errno.h
        let fails = |call| call == __NR_epoll_wait || EINTR_CALLS.contains(&call);
        let in_call = u32::try_from(self.orig_rax).is_ok_and(fails);
        if in_call && self.rax == u64::from(EINTR).wrapping_neg() {
            Self { rax: ERESTARTNOHAND.wrapping_neg(), ..self }
        } else {
            self
        }
    }

    /// The address of `length` bytes of the stack that are not in use.
    pub fn free_stack(&self, length: u64) -> u64 {
        self.rsp.wrapping_sub(RED_ZONE + length) & !15
    }
}

/// The sets of registers (`PTRACE_GETREGSET`) that no system call preserves.
pub const CALL_CLOBBERED: [u32; 0] = [];

/// Whether a program has something in such a set.
pub fn is_in_use(_: &[u8]) -> bool {
    false
}

// The memory functions. The string instructions are short and, on any CPU of the last ten years,
// fast on long runs, which are the ones that matter here.
#[cfg(feature = "memory-functions")]
global_asm!(
    // rdi destination, rsi source, rdx bytes -> rax destination
    ".hidden memcpy",
    ".globl memcpy",
    ".type memcpy, @function",
    "memcpy:",
    "mov rax, rdi",
    "mov rcx, rdx",
    "rep movsb",
    "ret",
    ".size memcpy, . - memcpy",
    // The same, and the two may overlap.
    ".hidden memmove",
    ".globl memmove",
    ".type memmove, @function",
    "memmove:",
    "mov rax, rdi",
    "mov rcx, rdx",
    "sub rdi, rsi", // how far the destination lies behind the source;
    "cmp rdi, rdx", // unsigned: before it, or beyond its end, forwards does no harm
    "lea rdi, [rdi + rsi]",
    "jb 2f",
    "rep movsb",
    "ret",
    "2:",
    "lea rdi, [rdi + rdx - 1]", // from the last byte down
    "lea rsi, [rsi + rdx - 1]",
    "std",
    "rep movsb",
    "cld", // the ABI wants it clear
    "ret",
    ".size memmove, . - memmove",
    // rdi destination, esi byte, rdx bytes -> rax destination
    ".hidden memset",
    ".globl memset",
    ".type memset, @function",
    "memset:",
    "mov r8, rdi",
    "mov eax, esi",
    "mov rcx, rdx",
    "rep stosb",
    "mov rax, r8",
    "ret",
    ".size memset, . - memset",
    // rdi, rsi two areas, rdx bytes -> eax the first difference, as unsigned bytes
    ".hidden memcmp",
    ".globl memcmp",
    ".type memcmp, @function",
    "memcmp:",
    ".hidden bcmp",
    ".globl bcmp",
    ".type bcmp, @function",
    "bcmp:",
    "2:",
    "cmp rdx, 8",
    "jb 3f",
    "mov rax, [rdi]", // eight bytes at a time while they are equal
    "cmp rax, [rsi]",
    "jne 3f",
    "add rdi, 8",
    "add rsi, 8",
    "sub rdx, 8",
    "jmp 2b",
    "3:",
    "test rdx, rdx",
    "jz 4f",
    "movzx eax, byte ptr [rdi]",
    "movzx ecx, byte ptr [rsi]",
    "sub eax, ecx",
    "jnz 5f",
    "inc rdi",
    "inc rsi",
    "dec rdx",
    "jmp 3b",
    "4:",
    "xor eax, eax",
    "5:",
    "ret",
    ".size memcmp, . - memcmp",
    ".size bcmp, . - bcmp",
    // rdi string -> rax bytes before its NUL
    ".hidden strlen",
    ".globl strlen",
    ".type strlen, @function",
    "strlen:",
    "mov rax, -1",
    "2:",
    "inc rax",
    "cmp byte ptr [rdi + rax], 0",
    "jne 2b",
    "ret",
    ".size strlen, . - strlen",
);
