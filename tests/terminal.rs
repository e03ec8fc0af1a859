//! A program blocked in `read` goes on waiting, after the checkpoint and after the restart; and a
//! restarted program is a job of the shell like any other: ^C, ^Z, its exit status and the signal
//! it dies of are its own.

mod common;

use common::{PROMPT, Program, Running, each_user, killed_by, killing_the_job, shell};

const CTRL_C: &str = "\x03";
const CTRL_D: &str = "\x04";
const CTRL_Z: &str = "\x1a";
const CTRL_BACKSLASH: &str = "\x1c";

/// `cat`, which has answered once and now waits for more.
fn waiting(program: &Program) -> Running {
    let mut run = program.start();
    echoes(&mut run, "first line");
    run.reads_stdin();
    run
}

fn echoes(run: &mut Running, line: &str) {
    run.send(line);
    run.expect(line);
}

/// Checkpoints `cat` where it waits; it goes on waiting, then as now.
fn goes_on_waiting(program: &Program, end_of_file: impl Fn(&mut Running)) {
    let mut run = waiting(program);
    let image = run.checkpoint();
    run.reads_stdin();
    echoes(&mut run, "after the checkpoint");
    run.kill();

    let mut run = program.restart(&image);
    run.reads_stdin();
    echoes(&mut run, "after the restart");
    end_of_file(&mut run);
    run.ends_well();
}

#[test]
fn a_read_from_a_pipe_goes_on() {
    each_user(|place| goes_on_waiting(&place.system("/bin/cat"), Running::close_input));
}

#[test]
fn a_read_from_a_terminal_goes_on() {
    each_user(|place| {
        let program = place.system("/bin/cat").on_terminal();
        goes_on_waiting(&program, |run| run.send_all(CTRL_D));
    });
}

#[test]
fn from_a_pipe_to_a_terminal_and_back() {
    each_user(|place| {
        let on_pipe = place.system("/bin/cat");
        let on_terminal = on_pipe.clone().on_terminal();
        let image = waiting(&on_pipe).checkpoint();
        let mut run = on_terminal.restart(&image);
        echoes(&mut run, "on a terminal");
        run.reads_stdin();
        run.checkpoint();
        run.kill();
        let mut run = on_pipe.restart(&image);
        echoes(&mut run, "on a pipe");
        run.close_input();
        run.ends_well();
    });
}

/// Restarts `cat` on a terminal and types `key`.
fn key_kills(key: &str, signal: i32) {
    each_user(|place| {
        let program = place.system("/bin/cat").on_terminal();
        let image = waiting(&program).checkpoint();
        let mut run = program.restart(&image);
        echoes(&mut run, "it is back");
        run.send_all(key);
        let status = run.wait();
        assert!(killed_by(status, signal), "{status}");
    });
}

#[test]
fn control_c_kills() {
    key_kills(CTRL_C, libc::SIGINT);
}

#[test]
fn control_backslash_kills() {
    key_kills(CTRL_BACKSLASH, libc::SIGQUIT);
}

#[test]
fn job_control_of_a_shell() {
    each_user(|place| {
        let program = place.system("/bin/cat").on_terminal();
        waiting(&program).checkpoint();
        place.artifact("restart-static");
        let mut shell = shell(place);

        shell.send("./restart-static mycheckpoint");
        echoes(&mut shell, "in the foreground");
        shell.send_all(CTRL_Z);
        shell.expect_text("Stopped");
        shell.expect_text(PROMPT);
        shell.send("fg");
        shell.expect_text("./restart-static mycheckpoint\n");
        echoes(&mut shell, "in the foreground again");
        shell.send_all(CTRL_C);
        shell.expect_text(PROMPT);
        shell.send("echo status=$?");
        shell.expect("status=130");

        // In the background it may not read: it stops, as any job does.
        shell.expect_text(PROMPT);
        shell.send("./restart-static mycheckpoint & wait -n");
        shell.expect_text("Stopped");
        shell.expect_text(PROMPT);
        shell.send(&killing_the_job("KILL"));
        shell.expect_text("Killed");
    });
}

#[test]
fn its_exit_status_is_its_own() {
    each_user(|place| {
        let program = place.system("/bin/bash").args(["-c", "read status; exit $status"]);
        let mut run = program.start();
        run.reads_stdin();
        let image = run.checkpoint();
        for status in [0, 1, 42, 125, 255] {
            let mut run = program.restart(&image);
            run.send(&status.to_string());
            assert_eq!(run.wait().code(), Some(status));
        }
    });
}

#[test]
fn the_signal_it_dies_of_is_its_own() {
    const SCRIPT: &str = "import os; signal = int(input()); os.kill(os.getpid(), signal)";
    each_user(|place| {
        let program = place
            .system("/usr/bin/python3")
            .args(["-c", SCRIPT])
            .limit(libc::RLIMIT_CORE as i32, 0);
        let mut run = program.start();
        run.reads_stdin();
        let image = run.checkpoint();
        for signal in [libc::SIGTERM, libc::SIGKILL, libc::SIGSEGV, libc::SIGHUP, 40] {
            let mut run = program.restart(&image);
            run.send(&signal.to_string());
            let status = run.wait();
            assert!(killed_by(status, signal), "{status}, not {signal}");
        }
    });
}

#[test]
fn without_any_input() {
    each_user(|place| {
        let program = place
            .target("counting-test")
            .args(["1", "200", "10"])
            .stdin(common::Stream::Null)
            .into_file("output");
        let mut first = program.start();
        first.lines_in(&place.path("output"), 3);
        let image = first.checkpoint();
        first.kill();
        program.restart(&image).ends_well();
        assert_eq!(place.text("output").lines().count(), 200);
    });
}
