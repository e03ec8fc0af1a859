//! Every kind of descriptor, held by a program that checks what it holds: before and after each
//! checkpoint, and after each restart, three generations deep.

mod common;

use common::{Program, Running, each_user};

/// Has the target check itself after its start, after each checkpoint and after each restart.
fn three_generations(program: &Program) -> Running {
    let mut run = program.start();
    run.expect("ready");
    run.check();
    for _ in 0..3 {
        run.checkpoint();
        run.check();
        run.kill();
        assert_eq!(run.errors(), "");
        run = program.restart(&program.image);
        run.check();
    }
    run
}

/// A kind of descriptor that `target` knows, with both C libraries.
fn survives(target: &str, kind: &str) {
    each_user(|place| {
        for compiler in ["gcc", "musl-gcc"] {
            println!("with {compiler}");
            let program = place.compiled(compiler, target).args([kind]);
            let mut run = three_generations(&program);
            run.quit();
            assert_eq!(run.errors(), "");
        }
    });
}

/// A test for each kind of a target.
macro_rules! kinds {
    ($target:literal: $($test:ident $kind:literal),* $(,)?) => {
        $(#[test]
        fn $test() {
            survives($target, $kind);
        })*
    };
}

kinds! { "holds_objects":
    a_pipe_with_bytes_in_it "pipe",
    a_full_pipe "full-pipe",
    a_pipe_of_packets "packets",
    pipes_whose_other_end_is_closed "half-pipes",
    a_fifo "fifo",
    counters "counters",
    timers "timers",
    signals_that_are_read "signals",
    epoll_sets "epoll",
    the_process_itself "process",
    the_owner_of_a_descriptor "owner",
}

kinds! { "holds_memory":
    a_memfd "memfd",
    sealed_memfds "sealed",
    a_memfd_that_is_mapped "mapped",
    a_deleted_file "deleted",
    deleted_files_whose_directory_or_descriptor_is_gone "gone",
    files_with_holes "sparse",
}
