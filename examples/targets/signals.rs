//! Target: everything there is to a process's signals, and the timers that send them.
//!
//! Blocks some signals, gives many a disposition, leaves some pending (sent to the process and
//! to the thread, with and without a payload), and starts POSIX and interval timers that fire
//! long after the test. Converses with the test (see `protocol`): `check` compares what the
//! kernel says of all that with what it said at the start. After `quit` the pending signals
//! are fetched, with payloads, codes, number and order, and the POSIX timers are made to fire.
//! Takes no arguments.

mod protocol;

use protocol::{Check, expect, finish, serve};
use std::fs::read_to_string;
use std::io::Error;
use std::mem::{offset_of, zeroed};
use std::ptr::{null, null_mut};

/// An hour in seconds.
const HOUR: i64 = 3600;

/// The POSIX timers that are left: number, clock, payload, hours to run, hours of interval.
const TIMERS: [(libc::c_int, libc::clockid_t, usize, i64, i64); 2] =
    [(0, libc::CLOCK_MONOTONIC, 0x00ab_cdef, 1, 1), (2, libc::CLOCK_REALTIME, 0x00fe_dcba, 2, 0)];

/// The interval timers, and by how much (ns) one may lawfully gain when it is set to what it
/// read: those that count processor time are rounded up to the next tick of the kernel.
const INTERVAL_TIMERS: [(libc::c_int, i64); 3] =
    [(libc::ITIMER_REAL, 0), (libc::ITIMER_VIRTUAL, 10_000_000), (libc::ITIMER_PROF, 10_000_000)];

/// A disposition as the kernel has it: handler, flags, restorer, mask.
type Disposition = [u64; 4];

extern "C" fn on_signal(_: libc::c_int) {}

extern "C" fn on_detailed_signal(_: libc::c_int, _: *mut libc::siginfo_t, _: *mut libc::c_void) {}

/// Fails with what the last system call complained of, if `result` is negative.
fn done<T: PartialOrd + Default>(what: &str, result: T) -> Result<T, String> {
    if result < T::default() {
        Err(format!("{what}: {}", Error::last_os_error()))
    } else {
        Ok(result)
    }
}

fn set_of(signals: &[libc::c_int]) -> libc::sigset_t {
    // SAFETY: all-zero bytes are the empty set on Linux.
    let mut set = unsafe { zeroed() };
    for &signal in signals {
        // SAFETY: `set` is a valid set.
        unsafe { libc::sigaddset(&raw mut set, signal) };
    }
    set
}

fn set_dispositions() -> Check {
    let plain = on_signal as *const () as usize;
    let detailed = on_detailed_signal as *const () as usize;
    let info = libc::SA_SIGINFO;
    let rt = libc::SIGRTMIN();
    let dispositions = [
        (libc::SIGHUP, libc::SIG_IGN, 0, vec![]),
        (libc::SIGQUIT, libc::SIG_DFL, 0, vec![]),
        (libc::SIGALRM, plain, 0, vec![libc::SIGINT]),
        (libc::SIGVTALRM, plain, libc::SA_RESTART, vec![libc::SIGQUIT, rt + 9]),
        (libc::SIGPROF, plain, libc::SA_NODEFER, vec![]),
        (libc::SIGUSR1, detailed, info | libc::SA_RESTART, vec![libc::SIGUSR2]),
        (libc::SIGCHLD, plain, libc::SA_NOCLDSTOP | libc::SA_NOCLDWAIT, vec![]),
        (libc::SIGTTIN, libc::SIG_IGN, libc::SA_RESTART, vec![]),
        (libc::SIGURG, detailed, info | libc::SA_RESETHAND, vec![libc::SIGHUP]),
        (libc::SIGWINCH, plain, libc::SA_ONSTACK, vec![libc::SIGALRM, libc::SIGSEGV]),
        (rt + 1, detailed, info, vec![rt + 1, rt + 2]),
        (rt + 4, detailed, info | libc::SA_ONSTACK | libc::SA_NODEFER, (1..=rt + 30).collect()),
        (libc::SIGRTMAX(), plain, 0, vec![]),
    ];
    for (signal, handler, flags, mask) in dispositions {
        // SAFETY: all-zero bytes are a valid `sigaction`.
        let mut action: libc::sigaction = unsafe { zeroed() };
        action.sa_sigaction = handler;
        action.sa_flags = flags;
        action.sa_mask = set_of(&mask);
        // SAFETY: the handlers do nothing and have the signature that their flags ask for.
        done("sigaction", unsafe { libc::sigaction(signal, &raw const action, null_mut()) })?;
    }
    Ok(())
}

/// All dispositions, without the checkpointer's own.
fn dispositions() -> Result<Vec<(libc::c_int, Disposition)>, String> {
    let mut all = Vec::new();
    for signal in (1..=64).filter(|&signal| signal != libc::SIGUSR2) {
        let mut disposition = Disposition::default();
        // SAFETY: the kernel's `struct sigaction` is four words; 8 is the size of its mask.
        let result = unsafe {
            let (new, old) = (null::<Disposition>(), &raw mut disposition);
            libc::syscall(libc::SYS_rt_sigaction, signal, new, old, 8_usize)
        };
        done("rt_sigaction", result)?;
        all.push((signal, disposition));
    }
    Ok(all)
}

/// Blocks signals, and sends some of them.
fn make_pending() -> Check {
    let rt = libc::SIGRTMIN();
    let set = set_of(&[libc::SIGUSR1, libc::SIGTERM, rt + 1, rt + 2, rt + 3]);
    // SAFETY: plain calls with valid arguments; every signal sent is blocked.
    unsafe {
        let (me, thread) = (libc::getpid(), libc::gettid());
        done("sigprocmask", libc::sigprocmask(libc::SIG_BLOCK, &raw const set, null_mut()))?;
        done("kill", libc::kill(me, libc::SIGUSR1))?;
        for payload in [11_usize, 22, 33] {
            let value = libc::sigval { sival_ptr: payload as *mut _ };
            done("sigqueue", libc::sigqueue(me, rt + 1, value))?;
        }
        // What `sigqueue` would fill in, but to be sent to the thread.
        let mut info: libc::siginfo_t = zeroed();
        info.si_signo = rt + 2;
        info.si_code = libc::SI_QUEUE;
        let fields = (&raw mut info).cast::<SentInfo>();
        (*fields).pid = me;
        (*fields).uid = libc::getuid();
        (*fields).value = 44;
        let call = libc::SYS_rt_tgsigqueueinfo;
        let result = libc::syscall(call, me, thread, rt + 2, &raw const info);
        done("rt_tgsigqueueinfo", result).map(|_| ())
    }
}

/// A `siginfo_t` of a signal that somebody sent.
#[repr(C)]
struct SentInfo {
    number_error_code: [libc::c_int; 4],
    pid: libc::pid_t,
    uid: libc::uid_t,
    value: usize,
}

// The payload is where libc's `si_value` will look for it.
const _: () = assert!(offset_of!(SentInfo, value) == 24);

fn timespec_hours(hours: i64) -> libc::timespec {
    libc::timespec { tv_sec: hours * HOUR, tv_nsec: 0 }
}

fn create_timer(clock: libc::clockid_t, payload: usize) -> Result<libc::c_int, String> {
    // SAFETY: all-zero bytes are a valid `sigevent`, which with `timer` outlives the call. By
    // system call, since a libc's timer may have a thread of its own and hides the number.
    unsafe {
        let mut event: libc::sigevent = zeroed();
        event.sigev_notify = libc::SIGEV_SIGNAL;
        event.sigev_signo = libc::SIGRTMIN() + 3;
        event.sigev_value.sival_ptr = payload as *mut _;
        let mut timer = -1;
        let call = libc::SYS_timer_create;
        done("timer_create", libc::syscall(call, clock, &raw const event, &raw mut timer))?;
        Ok(timer)
    }
}

fn set_timer(timer: libc::c_int, value: libc::timespec, interval: libc::timespec) -> Check {
    let setting = libc::itimerspec { it_interval: interval, it_value: value };
    let old = null_mut::<libc::itimerspec>();
    // SAFETY: `setting` outlives the call, and null is allowed for the old one.
    let result =
        unsafe { libc::syscall(libc::SYS_timer_settime, timer, 0, &raw const setting, old) };
    done("timer_settime", result).map(|_| ())
}

/// Starts the POSIX timers; one between is deleted again, so their numbers are 0 and 2.
fn start_timers() -> Check {
    let mut created = Vec::new();
    for (number, clock, payload, value, interval) in TIMERS {
        while !created.contains(&number) {
            created.push(create_timer(clock, payload)?);
        }
        set_timer(number, timespec_hours(value), timespec_hours(interval))?;
    }
    expect("numbers of the timers", vec![0, 1, 2], created)?;
    // SAFETY: a plain system call.
    done("timer_delete", unsafe { libc::syscall(libc::SYS_timer_delete, 1) })?;
    for (which, _) in INTERVAL_TIMERS {
        let hours = libc::timeval { tv_sec: 3 * HOUR, tv_usec: 0 };
        let setting = libc::itimerval { it_interval: hours, it_value: hours };
        // SAFETY: `setting` outlives the call, and null is allowed for the old one.
        done("setitimer", unsafe { libc::setitimer(which, &raw const setting, null_mut()) })?;
    }
    Ok(())
}

/// What is left and what is the interval, in ns, of each timer: POSIX ones, then interval ones.
fn timers() -> Result<Vec<(i64, i64)>, String> {
    let mut all = Vec::new();
    for (number, ..) in TIMERS {
        // SAFETY: all-zero bytes are a valid `itimerspec`, and it outlives the call.
        let setting = unsafe {
            let mut setting: libc::itimerspec = zeroed();
            let result = libc::syscall(libc::SYS_timer_gettime, number, &raw mut setting);
            done("timer_gettime", result)?;
            setting
        };
        let ns = |time: libc::timespec| time.tv_sec * 1_000_000_000 + time.tv_nsec;
        all.push((ns(setting.it_value), ns(setting.it_interval)));
    }
    for (which, _) in INTERVAL_TIMERS {
        // SAFETY: all-zero bytes are a valid `itimerval`, and it outlives the call.
        let setting = unsafe {
            let mut setting: libc::itimerval = zeroed();
            done("getitimer", libc::getitimer(which, &raw mut setting))?;
            setting
        };
        let ns = |time: libc::timeval| (time.tv_sec * 1_000_000 + time.tv_usec) * 1000;
        all.push((ns(setting.it_value), ns(setting.it_interval)));
    }
    Ok(all)
}

/// The timers go on, at their interval, and never gain.
fn verify_timers(before: &mut Vec<(i64, i64)>) -> Check {
    let now = timers()?;
    let gains = TIMERS.map(|_| 0).into_iter().chain(INTERVAL_TIMERS.map(|(_, gain)| gain));
    for (n, (((left, interval), (left_before, interval_before)), gain)) in
        now.iter().zip(before.iter()).zip(gains).enumerate()
    {
        expect(format_args!("interval (ns) of timer {n}"), interval_before, interval)?;
        if !(1..=left_before + gain).contains(left) {
            return Err(format!(
                "timer {n}: expected up to {left_before} ns to be left, found {left}"
            ));
        }
    }
    *before = now;
    Ok(())
}

/// What `/proc/self/status` says of the thread's pending, the process's pending and the
/// blocked signals.
fn pending_and_blocked() -> Result<Vec<String>, String> {
    let status = read_to_string("/proc/self/status").map_err(|error| error.to_string())?;
    let wanted = ["SigPnd:", "ShdPnd:", "SigBlk:"];
    let lines = status.lines().filter(|line| wanted.iter().any(|start| line.starts_with(start)));
    Ok(lines.map(str::to_owned).collect())
}

/// What `/proc/self/timers`, which not every kernel has, says of each timer, in the order of
/// their numbers. Without the process's number, with which the line of its notification ends.
fn timer_list() -> Option<Vec<String>> {
    let list = read_to_string("/proc/self/timers").ok()?;
    let lines = list.lines().map(|line| line.split("pid.").next().unwrap_or(line));
    let lines: Vec<&str> = lines.collect();
    let mut timers: Vec<String> = lines.chunks(4).map(|timer| timer.join(" ")).collect();
    timers.sort();
    Some(timers)
}

/// Fetches one pending `signal`: its code, sender and payload; `None` if it is not pending
/// within `patience` ms.
fn fetch(signal: libc::c_int, patience: i64) -> Option<(libc::c_int, libc::pid_t, usize)> {
    let set = set_of(&[signal]);
    let patience = libc::timespec { tv_sec: 0, tv_nsec: patience * 1_000_000 };
    // SAFETY: all-zero bytes are a valid `siginfo_t`; all three outlive the call; the fields
    // read may mean something else for this signal, but are plain numbers.
    unsafe {
        let mut info: libc::siginfo_t = zeroed();
        let found = libc::sigtimedwait(&raw const set, &raw mut info, &raw const patience);
        (found == signal).then(|| (info.si_code, info.si_pid(), info.si_value().sival_ptr.addr()))
    }
}

/// Fetches all that is pending, then lets the POSIX timers fire.
fn deliver(sender: libc::pid_t) -> Check {
    let rt = libc::SIGRTMIN();
    let codes = |found: Option<(libc::c_int, libc::pid_t, usize)>| found.map(|f| (f.0, f.1));
    expect("SIGUSR1", Some((libc::SI_USER, sender)), codes(fetch(libc::SIGUSR1, 0)))?;
    expect("second SIGUSR1", None, fetch(libc::SIGUSR1, 0))?;
    for payload in [11, 22, 33] {
        expect("SIGRTMIN+1", Some((libc::SI_QUEUE, sender, payload)), fetch(rt + 1, 0))?;
    }
    expect("fourth SIGRTMIN+1", None, fetch(rt + 1, 0))?;
    expect("SIGRTMIN+2", Some((libc::SI_QUEUE, sender, 44)), fetch(rt + 2, 0))?;
    expect("second SIGRTMIN+2", None, fetch(rt + 2, 0))?;
    for (number, _, payload, ..) in TIMERS {
        let soon = libc::timespec { tv_sec: 0, tv_nsec: 1 };
        set_timer(number, soon, timespec_hours(0))?;
        let found = fetch(rt + 3, 999).map(|(code, _, payload)| (code, payload));
        expect(format_args!("signal of timer {number}"), Some((libc::SI_TIMER, payload)), found)?;
    }
    Ok(())
}

fn run() -> Check {
    set_dispositions()?;
    make_pending()?;
    start_timers()?;
    // SAFETY: a plain system call.
    let sender = unsafe { libc::getpid() };
    let dispositions_before = dispositions()?;
    let pending_before = pending_and_blocked()?;
    let list_before = timer_list();
    let mut timers_before = timers()?;
    serve(|| {
        for (before, now) in dispositions_before.iter().zip(dispositions()?) {
            expect("disposition [handler, flags, restorer, mask]", *before, now)?;
        }
        expect("pending and blocked", &pending_before, &pending_and_blocked()?)?;
        expect("list of timers", &list_before, &timer_list())?;
        verify_timers(&mut timers_before)
    })?;
    deliver(sender)
}

fn main() {
    finish(run());
}
