//! `test1` to `test5` of the lab, with both targets, as somebody at a terminal sees them.
//!
//! Where a key must come while a target runs, the target is an endless one, or one that waits for
//! the test: it prints so much that it stands still until the test reads on. So no test depends on
//! how fast anything is.

mod common;

use std::fs;
use std::process::Command;
use std::time::Instant;

use common::{
    PATIENCE, PROMPT, Place, Program, Running, User, each_user, killed_by, killing_the_job,
    repetitions, shell, work,
};

const CTRL_C: &str = "\x03";
const CTRL_D: &str = "\x04";
const CTRL_Z: &str = "\x1a";
const CTRL_BACKSLASH: &str = "\x1c";

/// More than a terminal takes while nobody looks.
const LAST: &str = "100000";

/// `NAME TARGET ARGUMENTS…`, typed in a directory where all of them are.
fn typed<'p>(place: &'p Place, words: &str) -> Program<'p> {
    let mut words = words.split_whitespace();
    let name = words.next().expect("a launcher");
    for file in [&format!("lib{name}.so"), "counting-test", "primes-test"] {
        place.artifact(file);
    }
    place.target(name).args(words).on_terminal()
}

fn prompt(name: &str) -> String {
    format!("{name}: which integer? ")
}

/// Waits for the question, and answers.
fn choose(run: &mut Running, name: &str, integer: &str) {
    run.expect_text(&prompt(name));
    run.send(integer);
}

fn expect_all(run: &mut Running, lines: &[&str]) {
    lines.iter().for_each(|line| run.expect(line));
}

/// Runs a command to its end with `answers` typed beforehand; what it shows must be `screen`.
fn shows(place: &Place, words: &str, answers: &str, screen: &str, status: i32) {
    let mut run = typed(place, words).start_bare();
    run.send_all(answers);
    let ended = run.wait();
    assert_eq!((run.all_output().as_str(), ended.code()), (screen, Some(status)), "{words}");
}

/// How often `line` is among the lines it has shown.
fn times_shown(run: &Running, line: &str) -> usize {
    run.all_output().lines().filter(|shown| *shown == line).count()
}

/// Waits until `^C` has arrived and waits, as `/proc` tells. No event tells that.
fn has_pending_interrupt(run: &mut Running) {
    let path = format!("/proc/{}/status", run.pid);
    let pending = || {
        let status = fs::read_to_string(&path).ok()?;
        let mask = status.lines().find_map(|line| line.strip_prefix("ShdPnd:"))?.trim();
        Some(u64::from_str_radix(mask, 16).ok()? & 1 << (libc::SIGINT - 1) != 0)
    };
    let deadline = Instant::now() + PATIENCE;
    while pending() != Some(true) {
        if run.has_ended() || Instant::now() > deadline {
            run.fail("no SIGINT is pending");
        }
        std::thread::yield_now();
    }
}

#[test]
fn test1_announces_itself() {
    each_user(|place| {
        let screen = "test1: the constructor, before main of ./counting-test\n3\n4\n5\n";
        shows(place, "test1 ./counting-test 3 5 0", "", screen, 0);
        let screen = "test1: the constructor, before main of ./primes-test\n97\n101\n103\n";
        shows(place, "test1 ./primes-test -90 3", "", screen, 0);
    });
}

#[test]
fn test2_replaces_the_integer() {
    each_user(|place| {
        let screen = "test2: which integer? 3\n4\n5\n";
        shows(place, "test2 ./counting-test 1 5 0", "3\n", screen, 0);
        let screen = "test2: which integer? 97\n101\n103\n";
        shows(place, "test2 ./primes-test 2 3", " -90 \n", screen, 0);
        // Without an argument that it could replace, it is one all the same.
        for (words, integer, lines) in [
            ("test2 ./counting-test", "41", ["41", "42"]),
            ("test2 ./primes-test", "1000000007", ["1000000007", "1000000009"]),
        ] {
            let mut run = typed(place, words).start_bare();
            choose(&mut run, "test2", integer);
            expect_all(&mut run, &lines);
            run.send_all(CTRL_C);
            let status = run.wait();
            assert!(killed_by(status, libc::SIGINT), "{status}");
        }
    });
}

/// `exit`, and with it the status, is the target's own.
#[test]
fn test2_ends_as_main_says() {
    let place = Place::new(User::Ordinary);
    let usage = "usage: counting-test [FIRST [LAST [MILLISECONDS]]], whole numbers from 0\n";
    shows(&place, "test2 ./counting-test", "-1\n", &(prompt("test2") + usage), 2);
}

#[test]
fn test3_asks_again() {
    each_user(|place| {
        let mut run = typed(place, "test3 ./counting-test 1 5 0").start_bare();
        choose(&mut run, "test3", "4");
        expect_all(&mut run, &["4", "5"]);
        choose(&mut run, "test3", "-4");
        expect_all(
            &mut run,
            &["usage: counting-test [FIRST [LAST [MILLISECONDS]]], whole numbers from 0"],
        );
        choose(&mut run, "test3", "5");
        expect_all(&mut run, &["5"]);
        run.expect_text(&prompt("test3"));
        run.signal(libc::SIGTERM);
        let status = run.wait();
        assert!(killed_by(status, libc::SIGTERM), "{status}");

        let mut run = typed(place, "test3 ./primes-test 2 2").start_bare();
        for (integer, lines) in [("-90", ["97", "101"]), ("8", ["11", "13"]), ("2", ["2", "3"])] {
            choose(&mut run, "test3", integer);
            expect_all(&mut run, &lines);
        }
        run.expect_text(&prompt("test3"));
        run.send_all(CTRL_BACKSLASH);
        let status = run.wait();
        assert!(killed_by(status, libc::SIGQUIT), "{status}");
    });
}

/// A target that ends by `exit`, deep in a call; its child, which has not been asked to come back,
/// ends as well.
const EXITS: &str = r#"
    #include <stdio.h>
    #include <stdlib.h>
    #include <sys/wait.h>
    #include <unistd.h>

    static void finish(int depth) {
        if (depth > 0) finish(depth - 1);
        exit(7);
    }

    int main(int argc, char **argv) {
        int status = 0;
        if (fork() == 0) exit(6);
        wait(&status);
        printf("%d arguments, %s, child %d\n", argc - 1, argv[1], WEXITSTATUS(status));
        fflush(stdout);
        finish(3);
    }
"#;

#[test]
fn exit_is_redefined_in_test3_only() {
    let place = Place::new(User::Ordinary);
    place.c("gcc", &["-rdynamic"], "exits", EXITS);
    let line = "2 arguments, 11, child 6\n";
    for name in ["test2", "test4", "test5"] {
        let screen = prompt(name) + line;
        shows(&place, &format!("{name} ./exits 1 2"), "11\n", &screen, 7);
    }
    let mut run = typed(&place, "test3 ./exits 1 2").start_bare();
    for integer in 1..=repetitions(1000) {
        choose(&mut run, "test3", &integer.to_string());
        run.expect(&format!("2 arguments, {integer}, child 6"));
    }
    run.kill();
}

#[test]
fn test4_runs_once_when_nobody_interrupts() {
    each_user(|place| {
        for name in ["test4", "test5"] {
            let screen = prompt(name) + "3\n4\n5\n";
            shows(place, &format!("{name} ./counting-test 1 5 0"), "3\n", &screen, 0);
            let screen = prompt(name) + "97\n101\n103\n";
            shows(place, &format!("{name} ./primes-test 2 3"), "-90\n", &screen, 0);
        }
    });
}

/// The flaw: the second `^C` waits for the end of the run that the first one began.
#[test]
fn test4_keeps_a_second_interrupt_waiting() {
    each_user(|place| {
        let mut run = typed(place, &format!("test4 ./counting-test 1 {LAST} 0")).start_bare();
        choose(&mut run, "test4", "1");
        expect_all(&mut run, &["1", "2"]);
        run.send_all(CTRL_C);
        choose(&mut run, "test4", "60000");
        expect_all(&mut run, &["60000", "60001"]);

        run.send_all(CTRL_C);
        has_pending_interrupt(&mut run);
        assert_eq!(times_shown(&run, LAST), 0);
        run.expect_text(&prompt("test4"));
        assert_eq!(times_shown(&run, LAST), 1, "it asked before the run had ended");

        // With the handler at its end, the very first run goes on from where it was.
        run.send("99999");
        expect_all(&mut run, &["99999", LAST]);
        assert!(run.wait().success());
        assert_eq!(times_shown(&run, LAST), 3);
        assert!(times_shown(&run, "80000") >= 1);
    });
}

#[test]
fn test4_with_an_endless_target() {
    each_user(|place| {
        for (target, integer, lines) in [
            ("./counting-test", "41", ["41", "42"]),
            ("./primes-test", "1000000007", ["1000000007", "1000000009"]),
        ] {
            let mut run = typed(place, &format!("test4 {target}")).start_bare();
            choose(&mut run, "test4", "2");
            expect_all(&mut run, &["2", "3"]);
            run.send_all(CTRL_C);
            choose(&mut run, "test4", integer);
            expect_all(&mut run, &lines);
            run.send_all(CTRL_C);
            has_pending_interrupt(&mut run);
            run.line(); // It runs on,
            run.send_all(CTRL_BACKSLASH); // and other keys work.
            let status = run.wait();
            assert!(killed_by(status, libc::SIGQUIT), "{status}");
        }
    });
}

#[test]
fn test5_takes_every_interrupt_at_once() {
    each_user(|place| {
        let mut run = typed(place, &format!("test5 ./counting-test 1 {LAST} 0")).start_bare();
        for first in (1..=work(100)).map(|n| n * 500) {
            choose(&mut run, "test5", &first.to_string());
            expect_all(&mut run, &[&first.to_string(), &(first + 1).to_string()]);
            run.send_all(CTRL_C);
        }
        run.expect_text(&prompt("test5"));
        run.send_all(CTRL_C); // The question can be interrupted as well.
        run.expect_text(&prompt("test5"));
        assert_eq!(times_shown(&run, LAST), 0);
        run.send("99999");
        expect_all(&mut run, &["99999", LAST]);
        assert!(run.wait().success());
        assert_eq!(times_shown(&run, LAST), 1, "an abandoned run went on");
    });
}

#[test]
fn test5_with_an_endless_target() {
    each_user(|place| {
        for (target, integers) in
            [("./counting-test", ["1", "41", "7"]), ("./primes-test", ["2", "1000000007", "97"])]
        {
            let mut run = typed(place, &format!("test5 {target}")).start_bare();
            for integer in integers {
                choose(&mut run, "test5", integer);
                run.expect(integer);
                run.send_all(CTRL_C);
            }
            choose(&mut run, "test5", "11");
            run.expect("11");
            run.send_all(CTRL_BACKSLASH);
            let status = run.wait();
            assert!(killed_by(status, libc::SIGQUIT), "{status}");
        }
    });
}

/// `^Z` and `fg`, at the question and in the run; and `kill`.
#[test]
fn a_job_of_the_shell() {
    each_user(|place| {
        for (name, target, lines) in [
            ("test2", "counting-test", ["5", "6"]),
            ("test3", "primes-test", ["5", "7"]),
            ("test4", "primes-test", ["5", "7"]),
            ("test5", "counting-test", ["5", "6"]),
        ] {
            let words = format!("{name} ./{target}");
            typed(place, &words); // Puts all of it in place.
            let command = format!("./{words}");
            let mut shell = shell(place);
            let stop_and_continue = |shell: &mut Running| {
                shell.send_all(CTRL_Z);
                shell.expect_text("Stopped");
                shell.expect_text(PROMPT);
                shell.send("fg");
                shell.expect_text(&format!("{command}\n"));
            };
            shell.send(&command);
            shell.expect_text(&prompt(name));
            stop_and_continue(&mut shell);
            shell.send("5");
            expect_all(&mut shell, &lines);
            stop_and_continue(&mut shell);
            shell.line();
            shell.send_all(CTRL_Z);
            shell.expect_text(PROMPT);
            shell.send(&killing_the_job("TERM"));
            shell.expect_text("Terminated");
        }
    });
}

/// Our library is not inherited; another one that was preloaded is.
#[test]
fn what_the_target_starts_is_left_alone() {
    let place = Place::new(User::Ordinary);
    let program = typed(&place, "test1 /bin/sh -c").args(["echo \"<$LD_PRELOAD>\"; exit 3"]);
    let checkpointer = place.artifact("libckpt.so");
    let with_checkpointer = format!("<{}>", checkpointer.display());
    for (mut run, preloaded) in
        [(program.start_bare(), "<>"), (program.start(), with_checkpointer.as_str())]
    {
        run.expect("test1: the constructor, before main of /bin/sh");
        run.expect(preloaded);
        assert_eq!(run.wait().code(), Some(3));
    }
}

/// The real thing in between: the constructor's own stack, its handler and the way back are in the
/// image like all else.
#[test]
fn test5_goes_on_after_a_restart() {
    each_user(|place| {
        let program = typed(place, "test5 ./counting-test 1 1000000 10");
        let mut run = program.start();
        choose(&mut run, "test5", "10");
        expect_all(&mut run, &["10", "11"]);
        run.send_all(CTRL_C);
        choose(&mut run, "test5", "70");
        expect_all(&mut run, &["70", "71"]);
        let image = run.checkpoint();
        run.kill();

        let mut run = program.restart(&image);
        let number = |line: String| line.parse::<u64>().expect("a number");
        let first = number(run.line());
        assert!(first > 71, "{first}");
        assert_eq!(number(run.line()), first + 1);
        for integer in ["30", "500"] {
            run.send_all(CTRL_C);
            choose(&mut run, "test5", integer);
            run.expect(integer);
        }
        run.kill();
    });
}

/// One clear line, and a status that is not 0.
#[test]
fn wrong_uses() {
    let place = Place::new(User::Ordinary);
    place.file("text", "no program\n");
    for name in ["test1", "test2", "test3", "test4", "test5"] {
        for (words, complaint) in [
            (name.to_owned(), format!("no target: {name} TARGET [ARGUMENTS]")),
            (
                format!("{name} ./nothing"),
                "./nothing: No such file or directory (os error 2)".into(),
            ),
            (format!("{name} ./text"), "./text: Permission denied (os error 13)".into()),
        ] {
            shows(&place, &words, "", &format!("{name}: {complaint}\n"), 2);
        }
    }
    for name in ["test2", "test3", "test4", "test5"] {
        let no_main = "the target does not export `main` (is it linked with -rdynamic?)";
        shows(&place, &format!("{name} /bin/true"), "", &format!("{name}: {no_main}\n"), 2);
        for (target, answer, complaint) in [
            ("./counting-test", "seven\n", "`seven` is not an integer"),
            ("./primes-test", "\n", "`` is not an integer"),
            ("./counting-test", "1 2\n", "`1 2` is not an integer"),
            ("./primes-test", "1.5\n", "`1.5` is not an integer"),
            ("./counting-test", "\x1b[A\n", r"`\x1b[A` is not an integer"),
        ] {
            let screen = format!("{}{name}: {complaint}\n", prompt(name));
            shows(&place, &format!("{name} {target}"), answer, &screen, 2);
        }
        let far_too_long = "1".repeat(1000) + "\n";
        let mut run = typed(&place, &format!("{name} ./counting-test")).start_bare();
        choose(&mut run, name, &far_too_long);
        assert!(run.line().ends_with("1` is not an integer"));
        assert_eq!(run.wait().code(), Some(2));

        let ended = format!("{0}\n{name}: no integer: the input has ended\n", prompt(name));
        shows(&place, &format!("{name} ./primes-test"), CTRL_D, &ended, 2);
    }
}

#[test]
fn a_library_that_cannot_be_preloaded() {
    let place = Place::new(User::Ordinary);
    let alone = place.target("test1").args(["/bin/true"]);
    let mut run = alone.start_bare();
    assert!(run.error_line().ends_with("/libtest1.so is missing"));
    assert_eq!(run.wait().code(), Some(2));

    let directory = place.directory("a directory");
    for file in ["test1", "libtest1.so"] {
        common::place::run(Command::new("cp").arg(place.artifact(file)).arg(&directory));
    }
    let mut run = Program::new(&place, "/bin/sh".into())
        .args(["-c", "'./a directory/test1' /bin/true"])
        .start_bare();
    let line = run.error_line();
    assert!(line.starts_with("test1: LD_PRELOAD cannot name /"), "{line}");
    assert_eq!(run.wait().code(), Some(2));
}
