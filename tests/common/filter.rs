//! System calls that are forbidden to a program, as some containers or file systems forbid them.

use std::io;

const LOAD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
const JUMP_IF_EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
const JUMP_IF_SET: u16 = (libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K) as u16;
const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;

/// Where an argument of a call, the first being 0, is in a `struct seccomp_data`.
const fn argument(index: u32) -> u32 {
    16 + index * 8
}

/// A line of a filter, which jumps over `unless` lines if its condition does not hold.
fn line(code: u16, k: u32, unless: u8) -> libc::sock_filter {
    libc::sock_filter { code, jt: 0, jf: unless, k }
}

/// Makes unshare(2) fail from now on, in this process and all that it becomes.
pub fn forbid_namespaces() -> io::Result<()> {
    install(&[
        line(LOAD, 0, 0),
        line(JUMP_IF_EQUAL, libc::SYS_unshare as u32, 1),
        line(RETURN, libc::SECCOMP_RET_ERRNO | libc::EPERM as u32, 0),
        line(RETURN, libc::SECCOMP_RET_ALLOW, 0),
    ])
}

/// Likewise, open(2) with `O_TMPFILE`, which not every file system has.
pub fn forbid_files_without_name() -> io::Result<()> {
    install(&[
        line(LOAD, 0, 0),
        line(JUMP_IF_EQUAL, libc::SYS_openat as u32, 3),
        line(LOAD, argument(2), 0),
        line(JUMP_IF_SET, (libc::O_TMPFILE & !libc::O_DIRECTORY) as u32, 1),
        line(RETURN, libc::SECCOMP_RET_ERRNO | libc::EOPNOTSUPP as u32, 0),
        line(RETURN, libc::SECCOMP_RET_ALLOW, 0),
    ])
}

/// Likewise, msgrcv(2) with `MSG_COPY`, which not every kernel has.
pub fn forbid_copies_of_messages() -> io::Result<()> {
    install(&[
        line(LOAD, 0, 0),
        line(JUMP_IF_EQUAL, libc::SYS_msgrcv as u32, 3),
        line(LOAD, argument(4), 0),
        line(JUMP_IF_SET, libc::MSG_COPY as u32, 1),
        line(RETURN, libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32, 0),
        line(RETURN, libc::SECCOMP_RET_ALLOW, 0),
    ])
}

fn install(filter: &[libc::sock_filter]) -> io::Result<()> {
    let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_ptr().cast_mut() };
    // SAFETY: the kernel reads the filter.
    let failed = unsafe {
        libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0
            || libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program) != 0
    };
    if failed { Err(io::Error::last_os_error()) } else { Ok(()) }
}
