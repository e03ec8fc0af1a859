//! Checkpoints that strike anywhere: a program is checkpointed at random instants of its life,
//! between any two of its instructions, and each image is restarted and ends with the right answer.
//!
//! `CKPT_REPEAT=10` has it done ten times as often, `CKPT_SEED` repeats a run's instants (as far as a
//! machine repeats itself). What a failure leaves, its image above all, is kept, and the message says where.

mod common;

use std::path::Path;
use std::time::{Duration, Instant};
use std::{fs, thread};

use common::{Place, Program, Running, User, Watch, random, repetitions, work};
use rand::Rng;

/// Strikes `program`, which says by a first line that its work begins, and needs no input.
fn strike(program: Program) {
    let mut random = random();
    let undisturbed = program.undisturbed("");
    let program = program.into_file("output");
    let output = program.place.path("output");
    let mut life = length_of_life(&program, &output);
    let mut struck = 0;
    while struck < repetitions(20) {
        let mut first = program.start();
        first.lines_in(&output, 1);
        let instant = life.mul_f64(random.random_range(0.0..1.0));
        thread::sleep(instant); // The point here: to strike somewhere, not to wait for something.
        if !was_struck(&mut first) {
            life = life.mul_f64(0.95); // It was a slower life that was measured.
            continue;
        }
        struck += 1;
        // Half of them go on, as if nothing had happened.
        if random.random() {
            has_the_answer(&mut first, &output, &undisturbed);
        }
        first.kill();
        println!("{struck}: struck after {instant:?}");
        // What was written after the checkpoint is cut off, then all of the rest is written.
        let mut second = program.restart(&program.image);
        has_the_answer(&mut second, &output, &undisturbed);
    }
}

/// Asks `run` for a checkpoint. Says whether the image was written before the program's end.
fn was_struck(run: &mut Running) -> bool {
    let image = run.image().to_owned();
    let watch = Watch::renames(image.parent().expect("a directory"));
    run.signal(run.request());
    run.until("for the image", Some(&watch), |run| {
        let ended = run.has_ended();
        let written = watch.names().iter().any(|name| image.ends_with(name));
        (written || ended).then_some(written)
    })
}

/// Waits for the end of `run`, which must have left the right answer.
fn has_the_answer(run: &mut Running, output: &Path, answer: &str) {
    run.ends_well();
    assert_eq!(fs::read_to_string(output).expect("the output"), answer);
}

/// How long it takes from the first line to the end.
fn length_of_life(program: &Program, output: &Path) -> Duration {
    let mut run = program.start();
    run.lines_in(output, 1);
    let start = Instant::now();
    run.wait();
    start.elapsed()
}

#[test]
fn of_a_program_that_uses_its_heap() {
    let place = Place::new(User::Ordinary);
    let seed = random().random_range(0..1_000_000).to_string();
    strike(place.target("heap").args([seed, work(200_000).to_string()]));
}

#[test]
fn of_a_glibc_program() {
    let place = Place::new(User::Ordinary);
    strike(place.compiled("gcc", "twin").args([work(1000).to_string()]));
}

#[test]
fn of_a_musl_program() {
    let place = Place::new(User::Ordinary);
    strike(place.compiled("musl-gcc", "twin").args([work(1000).to_string()]));
}

#[test]
fn of_a_glibc_program_that_makes_threads() {
    let place = Place::new(User::Ordinary);
    strike(place.compiled("gcc", "thread_churn").args([work(1000).to_string()]));
}

#[test]
fn of_a_musl_program_that_makes_threads() {
    let place = Place::new(User::Ordinary);
    strike(place.compiled("musl-gcc", "thread_churn").args([work(1000).to_string()]));
}

/// No signal that one thread sends to another is lost.
#[test]
fn of_a_glibc_program_that_signals_its_threads() {
    let place = Place::new(User::Ordinary);
    strike(place.compiled("gcc", "thread_ring").args([work(50_000).to_string()]));
}

#[test]
fn of_a_musl_program_that_signals_its_threads() {
    let place = Place::new(User::Ordinary);
    strike(place.compiled("musl-gcc", "thread_ring").args([work(50_000).to_string()]));
}

/// No byte that is in a pipe is lost or doubled.
#[test]
fn of_a_glibc_program_with_a_pipe() {
    let place = Place::new(User::Ordinary);
    strike(place.compiled("gcc", "relay").args([work(100_000).to_string()]));
}

#[test]
fn of_a_musl_program_with_a_pipe() {
    let place = Place::new(User::Ordinary);
    strike(place.compiled("musl-gcc", "relay").args([work(100_000).to_string()]));
}

#[test]
fn of_a_rust_program_with_rayon() {
    let place = Place::new(User::Ordinary);
    strike(place.target("parallel").args([work(500).to_string()]));
}

/// No byte that is on its way in a socket is lost or comes twice.
#[test]
fn of_a_glibc_program_that_talks_to_itself() {
    let place = Place::new(User::Ordinary);
    strike(place.compiled("gcc", "socket_ring").args([work(200_000).to_string()]));
}

#[test]
fn of_a_musl_program_that_talks_to_itself() {
    let place = Place::new(User::Ordinary);
    strike(place.compiled("musl-gcc", "socket_ring").args([work(200_000).to_string()]));
}

/// One life after another of a program that writes numbered lines to a file: it is struck, killed some time
/// later, and restarted, so that what it has written since is written again. All lives together leave
/// each line once.
#[test]
fn of_a_program_that_writes_lines() {
    const TEXT: &str = r#"
        #include <poll.h>
        #include <stdio.h>
        #include <stdlib.h>
        #include <unistd.h>
        int main(void) {
            struct pollfd input = { .fd = 0, .events = POLLIN };
            char text[64];
            for (long number = 1;; number++) {
                /* In pieces, so that a checkpoint strikes in the midst of lines. */
                int length = snprintf(text, sizeof text, "%ld is a number\n", number);
                int first = number % length;
                if (write(1, text, first) != first) return 1;
                if (write(1, text + first, length - first) != length - first) return 2;
                if (poll(&input, 1, 0) == 1) {
                    fprintf(stderr, "%ld\n", number);
                    return 0;
                }
            }
        }"#;
    for (compiler, flags) in [("gcc", libc::O_WRONLY), ("musl-gcc", libc::O_APPEND)] {
        let place = Place::new(User::Ordinary);
        let mut random = random();
        let program = place.c(compiler, &["-O2"], "lines", TEXT).into_file("output");
        let output = place.path("output");
        let program = match flags {
            libc::O_APPEND => program.wrapped("/bin/sh", &["-c", r#"exec "$0" "$@" >>output"#]),
            _ => program,
        };
        let mut run = program.start();
        run.lines_in(&output, 1);
        for _ in 0..repetitions(100) {
            thread::sleep(Duration::from_micros(random.random_range(0..3000)));
            run.checkpoint();
            thread::sleep(Duration::from_micros(random.random_range(0..3000)));
            run.kill();
            assert_eq!(run.errors(), "");
            let watch = Watch::writes(&output);
            run = program.restart(&program.image);
            // Cut back, or written to.
            run.until("for it to go on", Some(&watch), |_| watch.names().pop());
        }
        run.close_input();
        let last: usize = run.error_line().parse().expect("a number");
        assert!(run.wait().success());
        let expected: String = (1..=last).map(|number| format!("{number} is a number\n")).collect();
        assert!(
            fs::read_to_string(&output).expect("the output") == expected,
            "a line is not there once"
        );
    }
}

#[test]
fn of_python() {
    const SCRIPT: &str = r#"
import sys, zlib
print("start", flush=True)
table = {}
for n in range(int(sys.argv[1])):
    table[str(n * 7919 % 10007)] = [n] * (n % 13)
    if n % 7 == 0: table.pop(str(n % 10007), None)
print(zlib.crc32(repr(sorted(table.items())).encode()))
"#;
    let place = Place::new(User::Ordinary);
    strike(place.system("/usr/bin/python3").args(["-c", SCRIPT, &work(60_000).to_string()]));
}
