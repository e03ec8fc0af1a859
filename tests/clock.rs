//! The monotonic clock goes on where it stood when a program is restarted on another boot. There is
//! but one boot here, so the image is made to look as if it came from another.

mod common;

use std::mem::offset_of;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Instant;

use ckpt_image::record::{Clocks, Process, kind};
use common::answers::{answer, python};
use common::{Edited, Place, Program, Running, User, each_user, forbid_namespaces};

const HOST: &str = "--clock=host";
const CONTINUE: &str = "--clock=continue";

/// Seconds, in nanoseconds.
const fn seconds(count: u64) -> u64 {
    count * 1_000_000_000
}

const WHO: &str = "os.getuid(), os.getgid(), status('CapEff'), status('CapPrm'), status('CapInh')";
const MONOTONIC: &str = "time.monotonic_ns()";
const BOOTTIME: &str = "time.clock_gettime_ns(time.CLOCK_BOOTTIME)";

fn clock(run: &mut Running, question: &str) -> u64 {
    answer(run, question).parse().expect("a number")
}

/// This machine's monotonic clock.
fn here() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the kernel fills in the structure.
    assert_eq!(unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut time) }, 0);
    time.tv_sec as u64 * seconds(1) + time.tv_nsec as u64
}

/// The image of `run`, as if taken on another boot when the clocks stood at these.
fn of_another_boot(run: &Running, monotonic: u64, boottime: u64) -> Edited {
    let put = |at: usize, value: u64| {
        move |note: &mut [u8]| note[at..at + 8].copy_from_slice(&value.to_le_bytes())
    };
    Edited::of(run)
        .note(kind::PROCESS, |note| note[offset_of!(Process, boot_id)] ^= 1)
        .note(kind::PROCESS, put(offset_of!(Process, monotonic), monotonic))
        .note(kind::CLOCKS, put(offset_of!(Clocks, boottime), boottime))
}

/// A program under way that has been checkpointed.
fn checkpointed(program: &Program) -> Running {
    let mut run = program.start();
    run.expect("ready");
    run.checkpoint();
    run
}

/// What the program's clock can show that goes on from `then` at `since`.
fn from(then: u64, since: Instant) -> RangeInclusive<u64> {
    then..=then + since.elapsed().as_nanos() as u64
}

/// Restarts `image` and returns how the clock stands, which must go on from `then`.
fn goes_on(program: &Program, options: &[&str], image: &Path, then: [u64; 2]) -> Running {
    let since = Instant::now();
    let mut run = program.restart_with(options, image);
    for (question, then) in [MONOTONIC, BOOTTIME].into_iter().zip(then) {
        let now = clock(&mut run, question);
        assert!(from(then, since).contains(&now), "{question}: {now}, then {then}");
    }
    assert_eq!(run.errors(), "");
    run
}

#[test]
fn on_another_boot_it_goes_on() {
    each_user(|place| {
        let program = python(place);
        let mut run = checkpointed(&program);
        let who = answer(&mut run, WHO);
        run.kill();
        for (monotonic, boottime) in [(5, 7), (50_000_000, 60_000_000)] {
            let then = [seconds(monotonic), seconds(boottime)];
            let image = of_another_boot(&run, then[0], then[1]).write(place, "other");
            for option in [&[][..], &[CONTINUE]] {
                let mut run = goes_on(&program, option, &image, then);
                assert_eq!(answer(&mut run, WHO), who);
                run.close_input();
                run.ends_well();
            }
        }
    });
}

/// From then on it runs on, however often the program is restarted on that boot.
#[test]
fn in_later_generations() {
    each_user(|place| {
        let program = python(place);
        let mut run = checkpointed(&program);
        run.kill();
        let then = [seconds(5), seconds(7)];
        let image = of_another_boot(&run, then[0], then[1]).write(place, "other");
        let since = Instant::now();
        let mut run = program.restart(&image);
        let mut last = clock(&mut run, MONOTONIC);
        for _ in 0..3 {
            run.checkpoint();
            run.kill();
            run = program.restart(run.image());
            let now = clock(&mut run, MONOTONIC);
            assert!(last <= now && from(then[0], since).contains(&now), "{last}, then {now}");
            last = now;
        }
    });
}

#[test]
fn on_the_same_boot_it_runs_on() {
    each_user(|place| {
        let program = python(place);
        checkpointed(&program).kill();
        for options in [&[][..], &[CONTINUE], &[HOST]] {
            let before = here();
            let mut run = program.restart_with(options, &program.image);
            let now = clock(&mut run, MONOTONIC);
            assert!((before..=here()).contains(&now));
            let namespace = "os.readlink('/proc/self/ns/time')";
            let own = std::fs::read_link("/proc/self/ns/time").expect("the namespace");
            assert_eq!(answer(&mut run, namespace), own.to_string_lossy());
            run.close_input();
            run.ends_well();
        }
    });
}

/// Restarts `image`, which goes on with this machine's clock. Returns what is said of it.
fn goes_on_with_ours(program: &Program, options: &[&str], image: &Path) -> String {
    let before = here();
    let mut run = program.restart_with(options, image);
    let now = clock(&mut run, MONOTONIC);
    assert!((before..=here()).contains(&now));
    run.close_input();
    assert!(run.wait().success());
    run.errors()
}

/// An image of another boot and its program.
fn other(place: &Place) -> (Program<'_>, PathBuf) {
    let program = python(place);
    let mut run = checkpointed(&program);
    run.kill();
    let image = of_another_boot(&run, seconds(5), seconds(7)).write(place, "other");
    (program, image)
}

#[test]
fn the_clock_of_this_machine() {
    each_user(|place| {
        let (program, image) = other(place);
        assert_eq!(goes_on_with_ours(&program, &[HOST], &image), "");
    });
    let place = Place::new(User::Ordinary);
    let words = ["--clock=guest", "continue, host"];
    let (program, image) = other(&place);
    program.refuses_to_restart_with(&["--clock=guest"], &image, &words);
}

#[test]
fn where_namespaces_are_forbidden() {
    each_user(|place| {
        let (program, image) = other(place);
        let program = program.before(forbid_namespaces);
        let said = goes_on_with_ours(&program, &[], &image);
        let line = said.lines().next().unwrap_or_default();
        assert!(line.contains("monotonic clock") && line.contains("unshare: EPERM"), "{said}");
        program.refuses_to_restart_with(&[CONTINUE], &image, &["unshare: EPERM", HOST]);
    });
}

#[test]
fn a_clock_that_cannot_be() {
    each_user(|place| {
        let program = python(place);
        let mut run = checkpointed(&program);
        run.kill();
        for time in [1 << 63, (1 << 63) - 1] {
            let image = of_another_boot(&run, time, time).write(place, "other");
            let said = goes_on_with_ours(&program, &[], &image);
            assert!(said.contains("monotonic clock") && said.lines().count() == 1, "{said}");
        }
    });
}

#[test]
fn with_the_process_id_it_had() {
    for (user, ids) in [
        (User::Root, "--ids=same"),
        (User::Root, "--ids=namespace"),
        (User::Ordinary, "--ids=namespace"),
    ] {
        if !User::everyone().contains(&user) {
            continue;
        }
        let place = Place::new(user);
        let program = python(&place);
        let mut run = checkpointed(&program);
        let question = "os.getpid(), os.readlink('/proc/self')";
        let pid = answer(&mut run, question);
        run.kill();
        let then = [seconds(5), seconds(7)];
        let image = of_another_boot(&run, then[0], then[1]).write(&place, "other");
        let mut run = goes_on(&program, &[ids], &image, then);
        assert_eq!(answer(&mut run, question), pid);
        run.close_input();
        run.ends_well();
    }
}

/// A program that sleeps until a point in time wakes when its own clock is there.
#[test]
fn a_deadline() {
    const PROGRAM: &str = r#"
#include <errno.h>
#include <stdio.h>
#include <time.h>
int main(void) {
    struct timespec deadline;
    clock_gettime(CLOCK_MONOTONIC, &deadline);
    deadline.tv_sec += 3600;
    puts("ready");
    fflush(stdout);
    while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &deadline, 0) == EINTR) {}
    puts("awake");
    return 0;
}
"#;
    for compiler in ["gcc", "musl-gcc"] {
        each_user(|place| {
            let program = place.c(compiler, &["-O1"], compiler, PROGRAM);
            let mut run = checkpointed(&program);
            run.kill();
            let later = here() + seconds(3601);
            let image = of_another_boot(&run, later, later).write(place, "other");
            let mut run = program.restart(&image);
            run.expect("awake");
            run.ends_well();
        });
    }
}
