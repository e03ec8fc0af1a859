//! A restarted program is checkpointed and restarted again, a hundred generations deep, and nothing
//! grows: not its mappings, not its descriptors, not the image.

mod common;

use std::fs;

use common::kernel::page_size;
use common::{Place, Program, Running, User, maps, repetitions};

/// What must not grow.
#[derive(Debug, PartialEq)]
struct Size {
    mappings: usize,
    descriptors: usize,
    /// Pages in the image that are not all zeros: the kernel may make one huge page of many, some of which
    /// were not there.
    image: usize,
}

impl Size {
    /// Measures `run`, which waits for input, and the image just written of it.
    fn of(run: &Running) -> Size {
        let zeros = vec![0; page_size()];
        let image = fs::read(run.image()).expect("the image");
        Size {
            mappings: maps::of(run.pid).len(),
            descriptors: run.descriptors(),
            image: image.chunks(zeros.len()).filter(|page| *page != zeros).count(),
        }
    }
}

/// Checkpoints `run` where it waits for input, and waits until it does so again.
fn checkpoint(run: &mut Running) {
    run.reads_stdin();
    run.checkpoint();
    run.reads_stdin();
}

/// `answer` has the program show that it is well; it waits for input before and after.
fn stays_the_same(program: &Program, answer: impl Fn(&mut Running)) -> Running {
    let mut run = program.start();
    run.expect("ready");
    // After that a program has all the memory that it needs for it.
    for _ in 0..50 {
        answer(&mut run);
    }
    checkpoint(&mut run);
    let mut sizes = vec![Size::of(&run)];
    for generation in 1..=repetitions(100) {
        run.kill();
        assert_eq!(run.errors(), "", "generation {generation}");
        run = program.restart(&program.image);
        answer(&mut run);
        checkpoint(&mut run);
        sizes.push(Size::of(&run));
        answer(&mut run);
    }
    // The first life still has what its start left on the stack, and its mappings as they came.
    let (first, later) = (&sizes[0], &sizes[1..]);
    let differing = later.iter().position(|size| *size != later[0]);
    assert_eq!(differing, None, "{:?}, then {:?}", later[0], later[differing.unwrap_or(0)]);
    assert!(later[0].mappings <= first.mappings, "{first:?}, then {:?}", later[0]);
    assert_eq!(later[0].descriptors, first.descriptors);
    assert!(later[0].image <= first.image + 1, "{first:?}, then {:?}", later[0]);
    run
}

#[test]
fn of_a_target_with_all_kinds_of_mappings() {
    let place = Place::new(User::Ordinary);
    let program = place.target("mappings").args([place.directory("files")]);
    // Each check makes it grow by itself, so there is but one, at the very end.
    stays_the_same(&program, |_| {}).quit();
}

#[test]
fn of_python() {
    const SCRIPT: &str = "
import sys
print('ready', flush=True)
for line in sys.stdin: print(eval(line), flush=True)
";
    let place = Place::new(User::Ordinary);
    let program = place.system("/usr/bin/python3").args(["-c", SCRIPT]);
    stays_the_same(&program, |run| {
        run.send("6 * 7");
        run.expect("42");
    });
}

#[test]
fn of_a_musl_program() {
    let place = Place::new(User::Ordinary);
    let program = place.compiled("musl-gcc", "libc_caches");
    stays_the_same(&program, Running::check);
}

#[test]
fn the_count_goes_on_through_all_of_them() {
    const COUNT: &str = "echo ready; n=0; while read line; do echo $((++n)); done";
    let place = Place::new(User::Ordinary);
    let program = place.system("/bin/bash").args(["-c", COUNT]);
    let mut run = program.start();
    run.expect("ready");
    for generation in 1..=repetitions(100) {
        run.send("");
        run.expect(&generation.to_string());
        checkpoint(&mut run);
        run.kill();
        run = program.restart(&program.image);
    }
    run.close_input();
    assert!(run.wait().success());
}
