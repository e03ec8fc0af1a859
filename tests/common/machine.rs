//! What the tests look for that is not the same on every machine: the same names for each.

/// Calls of the target `calls` that cannot be made out, and so end with a checkpoint (docs/limits.md): the
/// compiler of each C library, and its calls.
pub type Ended = [(&'static str, &'static [&'static str]); 2];

/// Whether `call` is one of them.
pub fn is_ended(compiler: &str, call: &str) -> bool {
    ENDED.iter().any(|(library, calls)| *library == compiler && calls.contains(&call))
}

/// A change of the note [`CPU`](ckpt_image::record::kind::CPU) into that of a CPU whose programs
/// cannot go on here, and what of it does not fit.
pub type OtherCpu = (fn(&mut [u8]), &'static str);

#[cfg(target_arch = "aarch64")]
mod ours {
    use super::{Ended, OtherCpu};

    /// For `musl-gcc`: the compiler's own library would ask glibc which atomic instructions there are.
    pub const FLAGS_FOR_MUSL: &[&str] = &["-mno-outline-atomics"];

    /// In glibc those that do not load their first argument from a register, in musl those that need it.
    pub const ENDED: Ended = [
        ("gcc", &["epoll_pwait2", "sigsuspend", "sigtimedwait"]),
        (
            "musl-gcc",
            &[
                "nanosleep_only",
                "until_monotonic",
                "until_realtime",
                "poll",
                "ppoll",
                "select",
                "pselect",
                "epoll_wait",
                "epoll_pwait",
                "epoll_pwait2",
                "sigsuspend",
                "read",
                "readv",
                "recv",
                "recvmsg",
                "recv_all",
                "send",
                "writev",
                "sendmsg",
                "accept",
                "connect",
                "write_all",
                "writev_all",
                "send_all",
                "sendmsg_all",
            ],
        ),
    ];

    /// What poll(3) calls.
    pub const POLL: libc::c_long = libc::SYS_ppoll;

    /// Two of the general registers.
    pub const REGISTERS: [&str; 2] = ["pc", "pstate"];

    /// C that leaves something in a vector register, and in all of it if it is a longer one.
    pub const SET_VECTOR: &str = r#"
        __asm__ volatile("movi v7.2d, #0xff00ff00ff00ff00" ::: "v7");
        if (getauxval(AT_HWCAP) & 1 << 22) /* HWCAP_SVE */
            __asm__ volatile(".arch_extension sve; index z7.h, #5, #-3; ptrue p3.h, vl5" ::: "v7");
    "#;

    /// Asks gdb for the registers that every debugger knows. Not for `fpsr` and `fpcr`: gdb 13 does not
    /// look for them where the kernel puts them, behind vectors of some lengths. Nor for SSBS in `cpsr`,
    /// which the kernel sets at any time.
    pub const ASK_REGISTERS: &str = "\
info registers x0 x1 x2 x3 x4 x5 x6 x7 x8 x9 x10 x11 x12 x13 x14 x15 x16 x17 x18 x19 x20 x21 x22
info registers x23 x24 x25 x26 x27 x28 x29 x30 sp pc tpidr
p/x $cpsr & ~0x1000
p $v0
p $v7
p $v15
";

    /// Asks gdb for those that not every CPU has.
    pub const ASK_WIDE_REGISTERS: &str = "info registers vector\n";

    /// The note of a core file that is not of every machine.
    pub const NOTE: &str = "NT_ARM_TLS";

    pub const OTHER_CPUS: [OtherCpu; 3] = [
        (|cpu| cpu[SVE] ^= 8, "SVE registers"), // which are multiples of 16 bytes
        (|cpu| cpu[CAPABILITIES + 15] |= 0x80, "instructions"),
        (
            |cpu| {
                cpu[CAPABILITIES + 3] |= 1 << 6; // HWCAP_PACA
                cpu[KEYS_KNOWN] = 1;
                cpu[SIGNATURES + 6] ^= 1;
            },
            "signed pointers",
        ),
    ];

    // docs/format.md
    const CAPABILITIES: usize = 0;
    const SVE: usize = 16;
    const KEYS_KNOWN: usize = 48;
    const SIGNATURES: usize = 152;
}

#[cfg(target_arch = "x86_64")]
mod ours {
    use super::{Ended, OtherCpu};

    /// For `musl-gcc`.
    pub const FLAGS_FOR_MUSL: &[&str] = &[];

    /// What goes through musl's `syscall` does not show its number.
    pub const ENDED: Ended = [("gcc", &[]), ("musl-gcc", &["epoll_pwait2"])];

    /// What poll(3) calls.
    pub const POLL: libc::c_long = libc::SYS_poll;

    /// Two of the general registers.
    pub const REGISTERS: [&str; 2] = ["rip", "rsp"];

    /// C that leaves something in a vector register, and on the stack of the x87.
    pub const SET_VECTOR: &str = r#"
        __asm__ volatile("fldpi; pcmpeqd %%xmm7, %%xmm7; psrlq $3, %%xmm7" ::: "xmm7");
    "#;

    /// Asks gdb for the registers that every debugger knows.
    pub const ASK_REGISTERS: &str = "\
info registers rax rbx rcx rdx rsi rdi rbp rsp r8 r9 r10 r11 r12 r13 r14 r15
info registers rip eflags cs ss ds es fs gs fs_base gs_base
info registers float
info registers mxcsr
p $xmm0
p $xmm7
p $xmm15
";

    /// Asks gdb for those that not every CPU has.
    pub const ASK_WIDE_REGISTERS: &str = "info registers vector\n";

    /// The note of a core file that is not of every machine.
    pub const NOTE: &str = "NT_X86_XSTATE";

    pub const OTHER_CPUS: [OtherCpu; 3] = [
        (|cpu| cpu[FEATURES + 5] |= 1, "registers"), // feature 40 is none
        (|cpu| cpu[COMPONENTS + AVX * 8] ^= 64, "AVX registers"), // they lie 64 bytes further on
        (|cpu| cpu[SIZE + 2] |= 1, "registers"),
    ];

    // docs/format.md
    const FEATURES: usize = 0;
    const SIZE: usize = 8;
    const COMPONENTS: usize = 16;
    const AVX: usize = 2;
}

#[cfg(not(any(target_arch = "aarch64", target_arch = "x86_64")))]
compile_error!("what differs on this machine?");

pub use ours::*;
