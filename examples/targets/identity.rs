//! Target: what makes a process this process: names, limits, priorities, places, open files.
//!
//! ```text
//! identity DIRECTORY
//! ```
//!
//! Changes the working directory (to DIRECTORY), umask, nice value, limits, name, timer slack,
//! processor and scheduling policy, and opens files in DIRECTORY in several ways. Converses
//! with the test (see `protocol`): `check` observes all of it again and compares, and verifies
//! that shared offsets are shared, that the process can signal itself, and that clocks run.

mod protocol;

use protocol::{Check, expect, finish, serve};
use std::ffi::CStr;
use std::fs::{read, read_link, write};
use std::io::Error;
use std::mem::zeroed;
use std::ptr::null_mut;
use std::sync::atomic::{AtomicU32, Ordering};

/// A file's name in DIRECTORY, and what is in it.
const FILE: &CStr = c"identity-file";
const CONTENT: &[u8] = b"0123456789abcdefghijklmnopqrstuvwxyz";

/// How often SIGURG came.
static URGENT: AtomicU32 = AtomicU32::new(0);

extern "C" fn on_urgent(_: libc::c_int) {
    URGENT.fetch_add(1, Ordering::Relaxed);
}

/// Panics with what the last system call complained of, if `result` is negative.
#[track_caller]
fn done<T: PartialOrd + Default>(result: T) -> T {
    assert!(result >= T::default(), "{}", Error::last_os_error());
    result
}

fn open(name: &CStr, flags: libc::c_int) -> libc::c_int {
    // SAFETY: `name` is a C string.
    done(unsafe { libc::open(name.as_ptr(), flags, 0o644) })
}

fn seek(fd: libc::c_int, offset: i64, whence: libc::c_int) -> i64 {
    // SAFETY: a plain system call.
    unsafe { libc::lseek(fd, offset, whence) }
}

/// The open files that the checks do something with.
struct Files {
    read: libc::c_int,
    duplicate: libc::c_int,
    independent: libc::c_int,
    zero: libc::c_int,
    all: Vec<libc::c_int>,
}

fn open_files() -> Files {
    let (read, independent) = (open(FILE, libc::O_RDONLY), open(FILE, libc::O_RDONLY));
    // SAFETY: a plain system call.
    let duplicate = done(unsafe { libc::dup(read) });
    seek(read, 5, libc::SEEK_SET);
    seek(independent, 17, libc::SEEK_SET);
    let append = libc::O_WRONLY | libc::O_CREAT | libc::O_APPEND | libc::O_CLOEXEC;
    let log = open(c"identity-log", append);
    let directory = open(c".", libc::O_RDONLY | libc::O_DIRECTORY);
    let null = open(c"/dev/null", libc::O_RDWR | libc::O_NONBLOCK);
    let zero = open(c"/dev/zero", libc::O_RDONLY);
    let all = vec![read, duplicate, independent, log, directory, null, zero];
    Files { read, duplicate, independent, zero, all }
}

/// Makes this process different from its parent in all that can be changed unprivileged.
fn change_attributes() {
    // SAFETY: plain calls; each structure is valid and outlives its call; the handler only
    // counts.
    unsafe {
        libc::umask(0o027);
        done(libc::setpriority(libc::PRIO_PROCESS, 0, 3));
        for (limit, soft) in [(libc::RLIMIT_CORE, 0), (libc::RLIMIT_NOFILE, 200)] {
            let mut value: libc::rlimit = zeroed();
            done(libc::getrlimit(limit, &raw mut value));
            value.rlim_cur = value.rlim_max.min(soft);
            done(libc::setrlimit(limit, &raw const value));
        }
        done(libc::prctl(libc::PR_SET_NAME, c"renamed".as_ptr()));
        done(libc::prctl(libc::PR_SET_TIMERSLACK, 77_777_u64));

        let mut allowed: libc::cpu_set_t = zeroed();
        done(libc::sched_getaffinity(0, size_of_val(&allowed), &raw mut allowed));
        let cpu = (0..libc::CPU_SETSIZE as usize).rfind(|&cpu| libc::CPU_ISSET(cpu, &allowed));
        libc::CPU_ZERO(&mut allowed);
        libc::CPU_SET(cpu.expect("we run on some processor"), &mut allowed);
        done(libc::sched_setaffinity(0, size_of_val(&allowed), &raw const allowed));
        let parameter = libc::sched_param { sched_priority: 0 };
        done(libc::sched_setscheduler(0, libc::SCHED_BATCH, &raw const parameter));

        let mut action: libc::sigaction = zeroed();
        action.sa_sigaction = on_urgent as *const () as usize;
        action.sa_flags = libc::SA_RESTART;
        done(libc::sigaction(libc::SIGURG, &raw const action, null_mut()));
    }
}

/// All that must not change, with its name, as text.
fn observe(files: &Files) -> Vec<(String, String)> {
    let mut all = Vec::new();
    let mut note = |what: &str, value: String| all.push((what.to_owned(), value));

    note("working directory", format!("{:?}", std::env::current_dir()));
    for name in ["comm", "cmdline", "environ"] {
        let value = read(format!("/proc/self/{name}"));
        note(name, format!("{:?}", value.map(|bytes| bytes.escape_ascii().to_string())));
    }
    // SAFETY: plain calls; each structure is valid and outlives its call. There is no
    // reading the umask without setting it.
    unsafe {
        let umask = libc::umask(0);
        libc::umask(umask);
        note("umask", format!("{umask:o}"));
        note("nice", libc::getpriority(libc::PRIO_PROCESS, 0).to_string());
        for limit in 0..=libc::RLIMIT_RTTIME {
            let mut value: libc::rlimit = zeroed();
            done(libc::getrlimit(limit, &raw mut value));
            note(&format!("limit {limit}"), format!("{}/{}", value.rlim_cur, value.rlim_max));
        }
        note("timer slack", libc::prctl(libc::PR_GET_TIMERSLACK).to_string());
        note("dumpable", libc::prctl(libc::PR_GET_DUMPABLE).to_string());
        let mut signal = -1;
        done(libc::prctl(libc::PR_GET_PDEATHSIG, &raw mut signal));
        note("signal at the parent's death", signal.to_string());
        let mut cpus: libc::cpu_set_t = zeroed();
        done(libc::sched_getaffinity(0, size_of_val(&cpus), &raw mut cpus));
        let cpus = (0..libc::CPU_SETSIZE as usize).filter(|&cpu| libc::CPU_ISSET(cpu, &cpus));
        note("processors", format!("{:?}", cpus.collect::<Vec<_>>()));
        note("scheduling policy", libc::sched_getscheduler(0).to_string());
        for &fd in &files.all {
            note(&format!("flags of {fd}"), format!("{:o}", libc::fcntl(fd, libc::F_GETFL)));
            note(&format!("FD_CLOEXEC of {fd}"), libc::fcntl(fd, libc::F_GETFD).to_string());
            note(&format!("offset of {fd}"), seek(fd, 0, libc::SEEK_CUR).to_string());
            note(
                &format!("path of {fd}"),
                format!("{:?}", read_link(format!("/proc/self/fd/{fd}"))),
            );
        }
    }
    all
}

/// Reads a byte.
fn read_byte(fd: libc::c_int) -> Option<u8> {
    let mut byte = 0xff_u8;
    // SAFETY: `byte` is one writable byte.
    (unsafe { libc::read(fd, (&raw mut byte).cast(), 1) } == 1).then_some(byte)
}

/// A file and its duplicate share one offset, another opening of the file has its own.
fn verify_files(files: &Files) -> Check {
    expect("byte at 5", Some(CONTENT[5]), read_byte(files.read))?;
    expect("shared offset", 6, seek(files.duplicate, 0, libc::SEEK_CUR))?;
    expect("own offset", 17, seek(files.independent, 0, libc::SEEK_CUR))?;
    seek(files.duplicate, 5, libc::SEEK_SET);
    expect("shared offset moved back", 5, seek(files.read, 0, libc::SEEK_CUR))?;
    expect("byte at 17", Some(CONTENT[17]), read_byte(files.independent))?;
    seek(files.independent, 17, libc::SEEK_SET);
    expect("/dev/zero", Some(0), read_byte(files.zero))
}

/// The process knows its own number, and its signals reach it.
fn verify_self() -> Check {
    // SAFETY: plain calls; the handler of SIGURG only counts.
    unsafe {
        let pid = libc::getpid();
        expect("getpid", libc::syscall(libc::SYS_getpid), pid.into())?;
        expect("kill of oneself with 0", 0, libc::kill(pid, 0))?;
        let before = URGENT.load(Ordering::Relaxed);
        expect("raise", 0, libc::raise(libc::SIGURG))?;
        expect("signals raised", before + 1, URGENT.load(Ordering::Relaxed))
    }
}

/// Clocks run forward, and libc's (in the vdso) are the kernel's.
fn verify_clocks() -> Check {
    let ns = |time: libc::timespec| time.tv_sec * 1_000_000_000 + time.tv_nsec;
    for clock in [libc::CLOCK_MONOTONIC, libc::CLOCK_REALTIME] {
        // SAFETY: all-zero bytes are a valid `timespec`; all three outlive the calls.
        let [first, kernel, last] = unsafe {
            let mut times: [libc::timespec; 3] = zeroed();
            done(libc::clock_gettime(clock, &raw mut times[0]));
            done(libc::syscall(libc::SYS_clock_gettime, clock, &raw mut times[1]));
            // A clock may take its time; that it moves is all that is asked.
            while ns(times[2]) <= ns(times[0]) {
                done(libc::clock_gettime(clock, &raw mut times[2]));
            }
            times.map(ns)
        };
        expect(format_args!("clock {clock} is the kernel's within a second"), true, {
            (kernel - first).abs() < 1_000_000_000 && (last - kernel).abs() < 1_000_000_000
        })?;
    }
    Ok(())
}

fn main() {
    let Some(directory) = std::env::args_os().nth(1) else {
        eprintln!("usage: identity DIRECTORY");
        std::process::exit(2);
    };
    std::env::set_current_dir(&directory).expect("DIRECTORY is a directory we may enter");
    write(FILE.to_str().expect("ASCII"), CONTENT).expect("DIRECTORY is writable");
    let files = open_files();
    change_attributes();
    let before = observe(&files);
    finish(serve(|| {
        for ((what, expected), (_, found)) in before.iter().zip(observe(&files)) {
            expect(what, expected, &found)?;
        }
        verify_files(&files)?;
        verify_self()?;
        verify_clocks()
    }));
}
