//! Programs that check themselves, bit for bit: what they hold in registers, mappings, stacks,
//! signals, timers and identities is the same after a checkpoint, and after a restart, three
//! generations deep.

mod common;

use common::{Place, Program, Running, each_user, generations, killed_by, work};

/// All three generations, to the end, as each user.
fn keeps_its_state(program: impl Fn(&Place) -> Program<'_>) {
    each_user(|place| {
        let mut run = generations(&program(place), 3, &[]);
        run.quit();
        assert_eq!(run.errors(), "");
    });
}

#[test]
fn vector_and_x87_registers() {
    each_user(|place| {
        let program = place.target("vectors").args(["0"]);
        let mut run = program.start();
        run.expect("ready");
        let mut round = 0;
        for _ in 0..3 {
            round = next_round(&mut run, round);
            run.checkpoint();
            // What it had already written when it was struck, and then some more.
            for _ in 0..3 {
                round = next_round(&mut run, round);
            }
            run.kill();
            run = program.restart(&program.image);
            round = 0;
        }
        next_round(&mut run, 0);
        assert_eq!(run.errors(), "");
    });
}

/// Reads `round N ok`; `N` is the one after `last`, unless that is 0.
fn next_round(run: &mut Running, last: u64) -> u64 {
    let line = run.line();
    let words: Vec<_> = line.split(' ').collect();
    let ["round", number, "ok"] = words[..] else { run.fail(&line) };
    let number = number.parse().expect("a number");
    assert!(last == 0 || number == last + 1, "round {number} after {last}");
    number
}

#[test]
fn the_last_round_of_the_registers_comes() {
    each_user(|place| {
        let rounds = work(100).max(30).to_string();
        let program = place.target("vectors").args([rounds]).into_file("output");
        let undisturbed = program.undisturbed("");
        let file = place.path("output");
        let mut first = program.start();
        first.lines_in(&file, 10);
        let image = first.checkpoint();
        first.kill();
        program.restart(&image).ends_well();
        assert_eq!(place.text("output"), undisturbed);
    });
}

#[test]
fn every_kind_of_mapping() {
    keeps_its_state(|place| place.target("mappings").args([place.directory("files")]));
}

#[test]
fn deep_recursion_on_a_grown_stack() {
    keeps_its_state(|place| place.target("recursion"));
}

#[test]
fn inside_a_handler_on_an_alternate_stack() {
    keeps_its_state(|place| place.target("altstack"));
}

#[test]
fn inside_a_handler_on_an_alternate_stack_that_disarms_itself() {
    keeps_its_state(|place| place.target("altstack").args(["autodisarm"]));
}

#[test]
fn signals_and_timers() {
    keeps_its_state(|place| place.target("signals"));
}

#[test]
fn identity_and_descriptors() {
    keeps_its_state(|place| place.target("identity").args([place.directory("files")]));
}

#[test]
fn what_glibc_remembers_of_the_process() {
    keeps_its_state(|place| place.compiled("gcc", "libc_caches"));
}

#[test]
fn what_musl_remembers_of_the_process() {
    keeps_its_state(|place| place.compiled("musl-gcc", "libc_caches"));
}

/// `abort` sends the signal to the thread id that the C library remembers.
fn dies_of_abort(compiler: &str) {
    each_user(|place| {
        let program = place.compiled(compiler, "libc_caches").args(["abort"]);
        let mut run = generations(&program, 3, &[]);
        run.send("quit");
        let status = run.wait();
        assert!(killed_by(status, libc::SIGABRT), "{status}");
    });
}

#[test]
fn abort_with_glibc() {
    dies_of_abort("gcc");
}

#[test]
fn abort_with_musl() {
    dies_of_abort("musl-gcc");
}
