//! Real programs and the files that they have open: the locks on them, what has become of them since the
//! checkpoint, and what watches them.

mod common;

use std::fs;
use std::io::Write;
use std::process::Command;

use common::place::run;
use common::{Place, Program, Running, each_user, machine};

/// What sqlite3 is to do before the checkpoint, in between, and after it.
struct Session<'a> {
    fill: &'a str,
    go_on: &'a str,
}

const TABLE: &str = "
    create table numbers(n integer primary key, name text);
    with recursive c(n) as (select 1 union all select n + 1 from c where n < 5000)
        insert into numbers select n, hex(n * 7919) from c;
";
const LOOK: &str = "select count(*), sum(n), max(name) from numbers; pragma integrity_check;";

/// sqlite3's shell, checkpointed in the midst of a transaction, commits it after the restart; meanwhile
/// nobody else may write.
fn sqlite3(place: &Place, session: &Session<'_>) {
    let program = place.system("/usr/bin/sqlite3").args(["-batch", "base.db"]);
    let fill = format!("{}\n select 'half';\n", session.fill);
    let undisturbed = program.undisturbed(&format!("{fill}{}", session.go_on));
    remove_database(place);

    let mut first = program.start();
    first.send_all(&fill);
    until(&mut first, "half");
    first.reads_stdin();
    is_locked(place);
    let image = first.checkpoint();
    first.reads_stdin();
    is_locked(place);
    first.kill();

    let mut second = program.restart(&image);
    second.reads_stdin();
    is_locked(place);
    second.checkpoint();
    second.kill();
    let mut third = program.restart(&image);
    third.send_all(session.go_on);
    third.close_input();
    third.ends_well();
    assert_eq!(first.all_output() + &third.all_output(), undisturbed);
    assert_eq!(query(place, "pragma integrity_check"), "ok\n");
}

fn until(run: &mut Running, last: &str) {
    while run.line() != last {}
}

fn remove_database(place: &Place) {
    for name in place.names().iter().filter(|name| name.starts_with("base.db")) {
        fs::remove_file(place.path(name)).expect("remove");
    }
}

/// What another sqlite3 answers.
fn query(place: &Place, query: &str) -> String {
    run(Command::new("/usr/bin/sqlite3").arg(place.path("base.db")).arg(query))
}

/// Another program is told that the database is locked.
fn is_locked(place: &Place) {
    let write = "begin immediate; rollback;";
    let said = Command::new("/usr/bin/sqlite3").arg(place.path("base.db")).arg(write).output();
    let said = String::from_utf8_lossy(&said.expect("sqlite3").stderr).into_owned();
    assert!(said.contains("database is locked"), "{said}");
}

#[test]
fn sqlite3_in_a_transaction() {
    let fill = format!("{TABLE} begin; update numbers set name = name || 'x' where n % 3 = 0;");
    let go_on = format!("insert into numbers select n + 10000, name from numbers; commit; {LOOK}");
    each_user(|place| sqlite3(place, &Session { fill: &fill, go_on: &go_on }));
}

/// Pages of the transaction have been written to the database already, with the journal to undo it.
#[test]
fn sqlite3_in_a_transaction_that_does_not_fit_its_cache() {
    let fill = format!(
        "{TABLE} pragma cache_size = 5; begin; update numbers set name = name || 'x' || name;"
    );
    let go_on = format!("commit; {LOOK}");
    each_user(|place| sqlite3(place, &Session { fill: &fill, go_on: &go_on }));
}

/// With a log of what is written, and shared memory of a file.
#[test]
fn sqlite3_with_a_write_ahead_log() {
    let fill = format!(
        "pragma journal_mode = wal; {TABLE} begin; update numbers set name = name || 'x' where n > 9;"
    );
    let go_on = format!("insert into numbers select n + 10000, name from numbers; commit; {LOOK}");
    each_user(|place| sqlite3(place, &Session { fill: &fill, go_on: &go_on }));
}

/// A lock that somebody else has by now is told, with who that is, and nothing is changed.
#[test]
fn a_lock_that_another_has() {
    const SCRIPT: &str = "
import fcntl, os, sys
log = open('log', 'a')
print('first', file=log, flush=True)
def lock():
    %
print('locked', flush=True)
for line in sys.stdin: print(line, end='', file=log, flush=True)
";
    for kind in [
        "fcntl.lockf(log, fcntl.LOCK_EX)",
        "fcntl.flock(log, fcntl.LOCK_EX)",
        "fcntl.fcntl(log, fcntl.F_OFD_SETLK, bytes([1]) + bytes(31))",
    ] {
        each_user(|place| {
            let script = SCRIPT.replace("def lock():\n    %", kind);
            let program = place.system("/usr/bin/python3").args(["-c", &script]);
            let mut run = program.start();
            run.expect("locked");
            run.reads_stdin();
            let image = run.checkpoint();
            run.send("second");
            run.lines_in(&place.path("log"), 2);
            run.kill();

            let mut other = program.start();
            other.expect("locked");
            let log = place.text("log");
            let holder = match kind.contains("OFD") {
                true => "another process".to_owned(), // the kernel does not tell
                false => format!("process {}", other.pid),
            };
            program.refuses_to_restart(&image, &["log", "descriptor 3", &holder]);
            assert_eq!(place.text("log"), log);
            other.kill();

            let mut run = program.restart(&image);
            run.send("third");
            run.close_input();
            run.ends_well();
            assert_eq!(place.text("log"), "first\nthird\n");
        });
    }
}

/// `tail` that follows a file: what is appended after the restart appears, nothing is lost or doubled.
#[test]
fn tail_follows() {
    for options in [&["-f"][..], &["-F"], &["-n", "1", "-f"]] {
        each_user(|place| {
            let log = place.file("log", "1\n");
            let append = |line: &str| {
                let mut file = fs::File::options().append(true).open(&log).expect("the log");
                file.write_all(line.as_bytes()).expect("write");
            };
            let program = place.system("/usr/bin/tail").args(options).args(["log"]);
            let mut run = program.start();
            run.expect("1");
            append("2\n");
            run.expect("2");
            for generation in 0..3 {
                waits_for_events(&mut run, false);
                run.checkpoint();
                run.kill();
                append(&format!("{generation} while it was dead\n"));
                run = program.restart(&program.image);
                waits_for_events(&mut run, true);
                append(&format!("{generation} afterwards\n"));
                run.expect(&format!("{generation} while it was dead"));
                run.expect(&format!("{generation} afterwards"));
            }
            run.signal(libc::SIGTERM);
            run.wait();
            assert_eq!(run.errors(), "");
            assert!(run.all_output().ends_with("afterwards\n"));
        });
    }
}

/// Waits until a program stands in poll(2) for want of events. After a restart that is the library's wait
/// for it.
fn waits_for_events(run: &mut Running, restarted: bool) {
    let poll = if restarted { libc::SYS_ppoll } else { machine::POLL };
    run.is_in(&format!("{poll} "), "it does not wait for events");
}

/// A program that writes what it is told to a file of its own, and reads another.
const WRITER: &str = "
import sys
log = open('data/log', sys.argv[1], buffering=1)
source = open('data/source')
print(source.readline(), end='', file=log)
print('ready', flush=True)
for line in sys.stdin:
    print(line, end='', file=log)
    print(source.readline(), end='', flush=True)
";

/// Such a program, checkpointed when it has read one line and written another; then it has written one
/// more, and was killed.
fn writer<'p>(place: &'p Place, mode: &str) -> Program<'p> {
    place.directory("data");
    place.file("data/source", "one\ntwo\nthree\n");
    let program = place.system("/usr/bin/python3").args(["-c", WRITER, mode]);
    let mut run = program.start();
    run.expect("ready");
    run.reads_stdin();
    run.checkpoint();
    run.send("twice");
    run.expect("two");
    run.kill();
    program
}

/// What such a program leaves in its file, restarted with `options` and told one line.
fn left(program: &Program, options: &[&str]) -> String {
    let mut run = program.restart_with(options, &program.image);
    run.send("more");
    run.expect("two");
    run.close_input();
    run.ends_well();
    program.place.text("data/log")
}

#[test]
fn a_file_that_has_grown() {
    for mode in ["w", "a"] {
        each_user(|place| assert_eq!(left(&writer(place, mode), &[]), "one\nmore\n"));
        each_user(|place| {
            let all = left(&writer(place, mode), &["--files=keep"]);
            // From where it was, or from the end.
            let expected = if mode == "w" { "one\nmore\n\n" } else { "one\ntwice\nmore\n" };
            assert_eq!(all, expected);
        });
        each_user(|place| {
            let program = writer(place, mode);
            let words = ["data/log", "has changed"];
            program.refuses_to_restart_with(&["--files=check"], &program.image, &words);
            assert_eq!(place.text("data/log"), "one\ntwice\n");
            let own =
                fs::metadata(place.path("data/source")).expect("it").modified().expect("a time");
            fs::write(place.path("data/log"), "one\n").expect("write");
            let words = ["data/log", "has changed"];
            program.refuses_to_restart_with(&["--files=check"], &program.image, &words);
            let before = own - std::time::Duration::from_secs(1);
            let source = fs::File::options().write(true).open(place.path("data/source"));
            source.expect("open").set_modified(before).expect("a time");
            assert_eq!(left(&program, &["--files=truncate"]), "one\nmore\n");
        });
    }
}

/// What is gone, or is not what it was, is told in a line, and nothing is changed.
#[test]
fn a_file_that_is_gone_or_another() {
    each_user(|place| {
        let program = writer(place, "w");
        let refuses = |words: &[&str]| {
            program.refuses_to_restart(&program.image, words);
            assert_eq!(place.text("data/log"), "one\ntwice\n");
        };
        let path = place.path("data/source");
        fs::rename(&path, place.path("away")).expect("rename");
        refuses(&["data/source", "no such file", "put it back"]);
        fs::write(&path, "one\ntwo\nthree\n").expect("write");
        refuses(&["data/source", "another file of that name"]);
        fs::rename(place.path("away"), &path).expect("rename");
        fs::write(&path, "one\n").expect("write");
        refuses(&["data/source", "shrunk from 14 to 4 bytes"]);
        fs::remove_file(&path).expect("remove");
        place.directory("data/source");
        refuses(&["data/source", "no longer of the kind it was"]);
    });
}

/// A program and its files, somewhere else altogether.
#[test]
fn elsewhere() {
    each_user(|place| {
        place.directory("data");
        let python = place.directory("bin").join("python3");
        fs::copy("/usr/bin/python3", &python).expect("copy");
        place.file("data/source", "one\ntwo\nthree\n");
        place.file("data/log", "");
        let program = Program::new(place, python).directory("data");
        let script = WRITER.replace("data/", "");
        let program = program.args(["-c", &script, "w"]);
        let mut run = program.start();
        run.expect("ready");
        run.reads_stdin();
        run.checkpoint();
        run.kill();
        fs::rename(place.path("data/mycheckpoint"), place.path("image")).expect("rename");
        place.directory("other/place");
        fs::rename(place.path("data"), place.path("other/place/data")).expect("rename");
        fs::rename(place.path("bin"), place.path("binaries")).expect("rename");
        fs::create_dir(place.path("data")).expect("a directory");
        let image = place.path("image");
        program.refuses_to_restart(&image, &["data/log", "--map-path"]);

        let moved = |old: &str, new: &str| {
            format!("{}={}", place.path(old).display(), place.path(new).display())
        };
        let wrong = moved("dat", "nowhere");
        let whole = moved("data", "nowhere");
        let source = moved("data/source", "other/place/data/source");
        let log = format!("--map-path={}", moved("data/log", "other/place/data/log"));
        let mut run = program.restart_with(
            &[
                "--map-path",
                &wrong,
                "--map-path",
                &source,
                &log,
                "--map-path",
                &moved("bin/", "binaries"),
            ],
            &image,
        );
        run.send("more");
        run.expect("two");
        run.kill();
        assert_eq!(place.text("other/place/data/log"), "one\nmore\n");

        let own = "--map-path=".to_owned() + &whole;
        program.refuses_to_restart_with(&[&own], &image, &["nowhere/log"]);

        // From there it is checkpointed and restarted without a word.
        let data = "--map-path=".to_owned() + &moved("data", "other/place/data");
        let binaries = "--map-path=".to_owned() + &moved("bin", "binaries");
        let mut run = program.restart_with(&[&data, &binaries], &image);
        run.send("and more");
        run.expect("two");
        run.reads_stdin();
        let cwd = fs::read_link(format!("/proc/{}/cwd", run.pid)).expect("its directory");
        assert_eq!(cwd, place.path("other/place/data"));
    });
}

/// Descriptors given by hand.
#[test]
fn given() {
    each_user(|place| {
        let program = writer(place, "w");
        place.file("source", "abc\nxyz\n");
        place.file("log", "");
        let give = |fd: &str, name: &str| format!("{fd}={}", place.path(name).display());
        let mut run = program.restart_with(
            &["--fd", &give("4", "source"), "--fd", "3=log", "--fd=1=output"],
            &program.image,
        );
        run.wait();
        assert!(run.errors().contains("output"), "{}", run.errors());

        place.file("output", "");
        let mut run = program.restart_with(
            &["--fd", &give("4", "source"), "--fd", "3=log", "--fd=1=output"],
            &program.image,
        );
        run.send("more");
        run.close_input();
        run.ends_well();
        assert_eq!(place.text("log"), "more\n");
        assert_eq!(place.text("output"), "two\n");
        assert_eq!(place.text("data/log"), "one\ntwice\n");

        let image = &program.image;
        for (options, words) in [
            (&["--fd", "77=log"][..], &["no descriptor 77"][..]),
            (&["--fd", "3=log", "--fd", "3=log"], &["given twice"]),
            (&["--fd", "x=log"], &["--fd x=log", "N=PATH"]),
            (&["--fd=3="], &["N=PATH"]),
            (&["--map-path", "data=log"], &["OLD=NEW", "absolute"]),
            (&["--map-path=/data"], &["OLD=NEW"]),
            (&["--files=some"], &["--files=some", "truncate, keep, check"]),
            (&["--map-path=/a=/b"; 65], &["too many"]),
        ] {
            program.refuses_to_restart_with(options, image, words);
        }
    });
}

/// What cannot be restored, given by hand.
#[test]
fn given_for_what_cannot_be_restored() {
    const SCRIPT: &str =
        "import os; parent = os.pidfd_open(os.getppid()); print('ready', flush=True)
input(); os.write(3, b'it works'); os.close(3)";
    each_user(|place| {
        let program = place.system("/usr/bin/python3").args(["-c", SCRIPT]);
        let mut run = program.clone().env("CKPT_FORCE", "1").start();
        run.expect("ready");
        run.reads_stdin();
        run.says_while_it_writes();
        run.kill();
        place.file("instead", "");
        let mut run = program.restart_with(&["--fd", "3=instead"], &program.image);
        run.send("");
        run.wait();
        assert_eq!(place.text("instead"), "it works");
    });
}

/// What looks at other processes has files of theirs open at times: of one that has ended meanwhile, reading
/// fails as it would have without a restart; also if that was before the checkpoint.
#[test]
fn a_file_of_a_process_that_ends() {
    const SCRIPT: &str = "import os, sys\n\
        file = os.open(f'/proc/{sys.argv[1]}/stat', os.O_RDONLY); os.read(file, 3)\n\
        directory = os.open(f'/proc/{sys.argv[1]}', os.O_RDONLY)\n\
        def ask(of):\n    \
            try: of(); print('there')\n    \
            except OSError as error: print(type(error).__name__)\n\
        print('ready', flush=True)\n\
        for line in sys.stdin:\n    \
            ask(lambda: os.read(file, 1)); ask(lambda: os.stat('stat', dir_fd=directory))\n    \
            sys.stdout.flush()";
    each_user(|place| {
        let mut other = place.system("/bin/cat").start_bare();
        let pid = other.pid.to_string();
        let program = place.system("/usr/bin/python3").args(["-c", SCRIPT, &pid]);
        let mut run = program.start();
        run.expect("ready");
        for ended in [false, true, true] {
            run.reads_stdin();
            let image = run.checkpoint();
            run.kill();
            if !ended {
                other.kill();
            }
            run = program.restart(&image);
            run.send("");
            run.expect("ProcessLookupError");
            run.expect("ProcessLookupError");
        }
        run.close_input();
        run.ends_well();
    });
}
