//! Calls that wait when the checkpoint comes end as if none had come: with the event, after the time
//! at least, or with `EINTR` by a signal of the program's own, and only then.
//!
//! The target checks all that a call tells (tests/targets/calls.c). Here it is disturbed.

mod common;

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use common::machine::{ENDED, is_ended};
use common::{
    PATIENCE, Place, Program, Running, Stream, Watch, cases, each_user, random, repetitions,
};
use rand::Rng;

/// A call of the target, and what can end it.
struct Call {
    name: &'static str,
    ends: &'static [End],
    /// Whether it ends so in musl.
    in_musl: bool,
    /// Whether it reads a socket.
    of_socket: bool,
}

impl Call {
    fn stdin(&self) -> Stream {
        if self.of_socket { Stream::Socket } else { Stream::Pipe }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Time,
    Event,
    Signal,
}
use End::{Event, Signal, Time};

const fn call(name: &'static str, ends: &'static [End]) -> Call {
    Call { name, ends, in_musl: true, of_socket: false }
}

/// On a socket that is the standard input.
const fn socket(name: &'static str) -> Call {
    Call { of_socket: true, ..call(name, &[Time, Event, Signal]) }
}

const CALLS: [Call; 30] = [
    call("sleep", &[Time, Signal]),
    call("nanosleep", &[Time, Signal]),
    call("nanosleep_only", &[Time, Signal]),
    call("clock_nanosleep", &[Time, Signal]),
    call("until_monotonic", &[Time, Signal]),
    call("until_realtime", &[Time, Signal]),
    call("poll", &[Time, Event, Signal]),
    call("poll_none", &[Time, Signal]),
    call("ppoll", &[Time, Event, Signal]),
    call("select", &[Time, Event, Signal]),
    call("pselect", &[Time, Event, Signal]),
    call("epoll_wait", &[Time, Event, Signal]),
    call("epoll_pwait", &[Time, Event, Signal]),
    call("epoll_pwait2", &[Time, Event, Signal]),
    call("pause", &[Signal]),
    call("sigsuspend", &[Signal]),
    call("sigtimedwait", &[Time, Event]),
    // Its own begins again after a signal.
    Call { in_musl: false, ..call("sigtimedwait", &[Signal]) },
    call("sem_timedwait", &[Time, Signal]),
    call("cond_timedwait", &[Time]),
    socket("read"),
    socket("readv"),
    socket("recv"),
    socket("recvmsg"),
    socket("recv_all"),
    call("send", &[Time, Event, Signal]),
    call("writev", &[Time, Event, Signal]),
    call("sendmsg", &[Time, Event, Signal]),
    call("accept", &[Time, Event, Signal]),
    call("connect", &[Time, Event, Signal]),
];

/// Longer than any test.
const LONG: &str = "1000000";

/// Calls `test` for every call and every end of it, all at once, with both C libraries; on a slow machine
/// for some of them. The program is yet to be given a time.
fn each_call(place: &Place, test: impl Fn(&Call, End, Program<'_>) + Sync) {
    copy_artifacts(place);
    for compiler in ["gcc", "musl-gcc"] {
        let program = place.compiled(compiler, "calls");
        let (program, test) = (&program, &test);
        let made = CALLS.iter().filter(|call| compiler == "gcc" || call.in_musl);
        let made = made.filter(|call| !is_ended(compiler, call.name));
        let ends = made.flat_map(|call| call.ends.iter().map(move |&end| (call, end)));
        thread::scope(|scope| {
            for (call, end) in cases(&ends.collect::<Vec<_>>()) {
                let arguments = [call.name, &format!("{end:?}").to_lowercase()];
                let image = format!("{}-{end:?}-{compiler}", call.name);
                let program = program.clone().args(arguments).stdin(call.stdin());
                let program = program.env("CKPT_FILE", &image).image(&image);
                scope.spawn(move || test(call, end, program));
            }
        });
    }
}

/// Before many want them at once.
fn copy_artifacts(place: &Place) {
    for artifact in ["libckpt.so", "restart-static"] {
        place.artifact(artifact);
    }
}

/// Those of `names` that go on.
fn going_on<'n>(compiler: &str, names: &[&'n str]) -> Vec<&'n str> {
    names.iter().copied().filter(|name| !is_ended(compiler, name)).collect()
}

/// Starts it, up to where it waits.
fn start(program: &Program<'_>) -> Running {
    let mut run = program.start();
    run.expect("ready");
    waits(&mut run, |call| call != libc::SYS_write);
    run
}

/// Waits until it sleeps in a system call that `is` the one. No event tells that.
fn waits(run: &mut Running, is: impl Fn(libc::c_long) -> bool) {
    let path = format!("/proc/{}/syscall", run.pid);
    let deadline = Instant::now() + PATIENCE;
    loop {
        let text = fs::read_to_string(&path).unwrap_or_default();
        let number = text.split(' ').next().and_then(|number| number.parse().ok());
        if number.is_some_and(&is) || run.has_ended() {
            return;
        }
        if Instant::now() > deadline {
            run.fail("it does not wait");
        }
        thread::yield_now();
    }
}

/// Waits until it waits again after a checkpoint, or has ended.
fn waits_on(run: &mut Running) {
    const FINISHING: [libc::c_long; 6] = [
        libc::SYS_ppoll,
        libc::SYS_pselect6,
        libc::SYS_epoll_pwait,
        libc::SYS_rt_sigsuspend,
        libc::SYS_rt_sigtimedwait,
        libc::SYS_futex,
    ];
    waits(run, |call| FINISHING.contains(&call));
}

/// What `attempt` makes of a time-out. That becomes longer until this machine is fast enough.
fn in_time<T>(attempt: impl Fn(&str) -> Option<T>) -> T {
    let mut times = (0..).map(|n| (1000_u64 << n).to_string());
    times.find_map(|time| attempt(&time)).expect("there is no last one")
}

/// Starts a program that is yet to be given a time, and asks it for an image while it waits.
fn struck(how: End, program: &Program<'_>) -> Running {
    let attempt = |time: &str| {
        let mut run = start(&program.clone().args([time]));
        let answer = run.ask_in_time()?;
        answer.expect("an image");
        Some(run)
    };
    if how == Time { in_time(attempt) } else { attempt(LONG).expect("a call that waits") }
}

/// Ends the call, and sees that it ends as it should.
fn end(call: &Call, end: End, run: &mut Running) {
    match end {
        Time => {}
        Event if call.name == "sigtimedwait" => run.signal(libc::SIGURG),
        Event => run.send("event"),
        Signal => run.signal(libc::SIGUSR1),
    }
    is_done(run);
}

fn is_done(run: &mut Running) {
    run.expect("done");
    assert!(run.wait().success());
}

#[test]
fn go_on_after_checkpoints() {
    each_user(|place| {
        each_call(place, |call, how, program| {
            let mut run = struck(how, &program);
            if how != Time {
                waits_on(&mut run);
                run.checkpoint();
                waits_on(&mut run);
            }
            end(call, how, &mut run);
        });
    });
}

#[test]
fn go_on_after_restarts() {
    each_user(|place| {
        each_call(place, |call, how, program| {
            // Nobody is before it any more where it waited to be accepted: it connects at once.
            let connects = call.name == "connect";
            if connects && how != Event {
                return;
            }
            struck(how, &program).kill();
            let mut second = program.restart(&program.image);
            if how == Time || connects {
                return is_done(&mut second);
            }
            // The next image is taken where the wait is finished, and ends no other way.
            waits_on(&mut second);
            second.checkpoint();
            second.kill();
            let mut third = program.restart(&program.image);
            waits_on(&mut third);
            end(call, how, &mut third);
        });
    });
}

/// A signal of the program's own that comes at any instant of a checkpoint is not lost.
#[test]
fn end_by_signals_during_checkpoints() {
    let random = std::sync::Mutex::new(random());
    each_user(|place| {
        each_call(place, |_, how, program| {
            for _ in 0..if how == Signal { repetitions(3) } else { 0 } {
                let mut run = start(&program.clone().args([LONG]));
                let delay: Duration =
                    random.lock().unwrap().random_range(Duration::ZERO..Duration::from_millis(20));
                run.signal(run.request());
                thread::sleep(delay); // The point here: to strike somewhere in the checkpoint.
                run.signal(libc::SIGUSR1);
                is_done(&mut run);
            }
        });
    });
}

/// However many requests come during one call, the stack does not grow (the target looks), and what is
/// left is known.
#[test]
fn bear_many_requests() {
    each_user(|place| {
        for compiler in ["gcc", "musl-gcc"] {
            for name in going_on(compiler, &["nanosleep", "poll", "pause"]) {
                let program = place.compiled(compiler, "calls").args([name, "signal", LONG]);
                let mut run = start(&program);
                for _ in 0..repetitions(100) {
                    run.checkpoint();
                }
                run.signal(libc::SIGUSR1);
                is_done(&mut run);
            }
        }
    });
}

/// A small alternate stack, as there is for stack overflows, is not waited on, nor do handlers run there
/// that have not asked for it.
#[test]
fn leave_the_alternate_stack() {
    each_user(|place| {
        let names = ["nanosleep", "poll", "pause", "sigsuspend", "sem_timedwait", "sigtimedwait"];
        for name in going_on("gcc", &names) {
            let arguments = [name, "signal", LONG, "8192"];
            let program = place.compiled("gcc", "calls").args(arguments);
            let mut first = start(&program);
            for _ in 0..repetitions(20) {
                first.checkpoint();
            }
            waits_on(&mut first);
            let image = first.checkpoint();
            first.signal(libc::SIGUSR1);
            is_done(&mut first);
            let mut second = program.restart(&image);
            waits_on(&mut second);
            second.checkpoint();
            second.signal(libc::SIGUSR1);
            is_done(&mut second);
        }
    });
}

/// Nor does the call last longer: it ends in the midst of them.
#[test]
fn end_on_time_in_spite_of_requests() {
    each_user(|place| {
        let names = ["nanosleep", "poll", "select", "until_monotonic", "sigtimedwait"];
        for name in cases(&going_on("gcc", &names)) {
            let mut run = start(&place.compiled("gcc", "calls").args([name, "time", "2000"]));
            let watch = Watch::renames(&place.path(""));
            run.until("for its end", Some(&watch), |run| {
                watch.names();
                // Of requests that come before the last one is done there is no end, nor of the call.
                run.lets_requests_in();
                if !run.has_ended() {
                    run.signal(run.request());
                }
                run.has_ended().then_some(())
            });
            is_done(&mut run);
        }
    });
}

/// A handler that jumps out of the call leaves nothing behind: the next checkpoint is as the first.
#[test]
fn may_be_jumped_out_of() {
    each_user(|place| {
        for name in going_on("gcc", &["nanosleep", "poll", "select", "sigtimedwait"]) {
            let program = place.compiled("gcc", "calls").args([name, "jump"]);
            let mut first = in_time(|time| {
                let mut run = start(&program.clone().args([time]));
                run.checkpoint();
                run.signal(libc::SIGUSR1);
                run.expect("jumped");
                waits(&mut run, |call| call != libc::SYS_write);
                run.ask_in_time()?.ok().map(|_| run)
            });
            first.kill();
            is_done(&mut program.restart(&program.image));
        }
    });
}

/// What cannot be made out ends with `EINTR`, in this life and in the next.
#[test]
fn end_where_they_cannot_be_made_out() {
    each_user(|place| {
        copy_artifacts(place);
        thread::scope(|scope| {
            for (compiler, calls) in ENDED {
                let ended = CALLS.iter().filter(|call| calls.contains(&call.name));
                for call in ended.filter(|call| call.ends.contains(&Signal)) {
                    let image = format!("{}-{compiler}", call.name);
                    let program = place.compiled(compiler, "calls").stdin(call.stdin());
                    let program = program.args([call.name, "nothing"]);
                    let program = program.env("CKPT_FILE", &image).image(&image);
                    scope.spawn(move || {
                        is_done(&mut struck(Signal, &program));
                        is_done(&mut program.restart(&program.image));
                    });
                }
            }
        });
    });
}

/// The lines that it writes before `done`, which are those from some number on to the last.
fn written(run: &mut Running) -> usize {
    const LINES: usize = 16384;
    let lines: Vec<String> =
        std::iter::from_fn(|| Some(run.line()).filter(|line| line != "done")).collect();
    run.ends_well();
    // The first one may have been written in part before.
    let count = lines.len();
    let numbers = lines.iter().skip(1).map(|line| line.trim().parse::<usize>());
    assert!(numbers.eq((LINES + 1 - count..LINES).map(Ok)), "{count} lines: {}", run.all_output());
    count
}

/// What a pipe, a terminal or a socket has taken in part is written to the end, in this life and in the
/// next.
#[test]
fn write_all() {
    use Stream::{Pipe, Socket, Terminal};
    const CALLS: [(&str, libc::c_long, &[Stream]); 4] = [
        ("write_all", libc::SYS_write, &[Pipe, Terminal, Socket]),
        ("writev_all", libc::SYS_writev, &[Pipe, Terminal, Socket]),
        ("send_all", libc::SYS_sendto, &[Socket]),
        ("sendmsg_all", libc::SYS_sendmsg, &[Socket]),
    ];
    each_user(|place| {
        for compiler in ["gcc", "musl-gcc"] {
            let program = place.compiled(compiler, "calls");
            for (name, number, streams) in cases(&CALLS) {
                if is_ended(compiler, name) {
                    ends_in_part(&program, name, number);
                    continue;
                }
                for (stream, other) in streams.iter().zip(streams.iter().cycle().skip(1)) {
                    println!("{name} to a {stream:?}");
                    let program = program.clone().args([name, "time", "0"]).stdout(stream.clone());
                    let mut first = program.start();
                    first.expect("ready");
                    waits(&mut first, |call| call == number);
                    let image = first.checkpoint();
                    assert_eq!(written(&mut first), 16384);
                    for stream in [stream, other] {
                        let program = program.clone().stdout(stream.clone());
                        assert!(written(&mut program.restart(&image)) < 16384);
                    }
                }
            }
        }
    });
}

/// What cannot be made out ends with what has been written, in this life and in the next.
fn ends_in_part(program: &Program<'_>, name: &str, number: libc::c_long) {
    let program = program.clone().args([name, "nothing", "0"]).stdout(Stream::Socket);
    let mut first = program.start();
    first.expect("ready");
    waits(&mut first, |call| call == number);
    let image = first.checkpoint();
    let mut second = program.restart(&image);
    for run in [&mut first, &mut second] {
        while !run.line().ends_with("done") {}
        assert!(run.wait().success());
    }
}

/// A program that read a socket finds another kind of file after a restart.
#[test]
fn read_something_else() {
    each_user(|place| {
        let programs = [("gcc", "read"), ("musl-gcc", "readv")];
        for (compiler, name) in programs.into_iter().filter(|(c, name)| !is_ended(c, name)) {
            let program = place.compiled(compiler, "calls").args([name, "event", LONG]);
            let program = program.stdin(Stream::Socket);
            let mut first = start(&program);
            let image = first.checkpoint();
            first.kill();
            for stream in [Stream::Pipe, Stream::Terminal] {
                let mut second = program.clone().stdin(stream).restart(&image);
                waits_on(&mut second);
                second.send("event");
                is_done(&mut second);
            }
        }
    });
}

/// What has been received in part is completed, if all is asked for.
#[test]
fn receive_all() {
    each_user(|place| {
        let compilers = ["gcc", "musl-gcc"].into_iter();
        for compiler in compilers.filter(|compiler| !is_ended(compiler, "recv_all")) {
            let program = place.compiled(compiler, "calls").args(["recv_all", "event", LONG]);
            let program = program.stdin(Stream::Socket);
            let mut first = start(&program);
            first.send_all("eve");
            first.has_read_all();
            let image = first.checkpoint();
            first.send("nt");
            is_done(&mut first);
            let mut second = program.restart(&image);
            second.send("nt");
            is_done(&mut second);
        }
    });
}
