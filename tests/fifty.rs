//! One image is restarted fifty times, with address randomisation on, as an ordinary user: each
//! time `restart-static` and its own stack, vdso and heap lie elsewhere, and each time the program
//! must go on.

mod common;

use std::fs;

use common::{Place, Program, User, repetitions};

/// Checkpoints `program`, which prints `ready` and then answers its input until it ends, and
/// restarts it over and over.
fn restarts_every_time(program: &Program, input: &str, answer: &str) {
    let randomised = fs::read_to_string("/proc/sys/kernel/randomize_va_space").expect("/proc");
    assert_ne!(randomised.trim(), "0", "addresses are not randomised here");

    let mut first = program.start();
    first.expect("ready");
    first.reads_stdin();
    let image = first.checkpoint();
    first.kill();
    for restart in 1..=repetitions(50) {
        let mut run = program.restart(&image);
        run.send_all(input);
        run.close_input();
        run.ends_well();
        assert_eq!(run.all_output(), answer, "restart {restart}");
    }
}

#[test]
fn a_rust_program() {
    let place = Place::new(User::Ordinary);
    let program = place.target("mappings").args([place.directory("files")]);
    restarts_every_time(&program, "check\nquit\n", "ok\ndone\n");
}

#[test]
fn python() {
    let place = Place::new(User::Ordinary);
    let script = "print('ready', flush=True); print(sum(map(int, input().split())))";
    let program = place.system("/usr/bin/python3").args(["-c", script]);
    restarts_every_time(&program, "1 2 39\n", "42\n");
}

#[test]
fn bash() {
    let place = Place::new(User::Ordinary);
    let program = place.system("/bin/bash").args(["-c", "echo ready; read a b; echo $((a + b))"]);
    restarts_every_time(&program, "2 40\n", "42\n");
}

#[test]
fn a_musl_program() {
    let place = Place::new(User::Ordinary);
    let program = place.compiled("musl-gcc", "libc_caches");
    restarts_every_time(&program, "check\nquit\n", "ok\ndone\n");
}
