//! The environment variables `CKPT_FILE`, `CKPT_SIGNAL`, `CKPT_INTERVAL` and `CKPT_VERBOSE`, and how
//! little the program sees of it all.

mod common;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use common::{Place, Program, Running, User, Watch, each_user, not_run};

fn started(program: &Program) -> Running {
    let mut run = program.start();
    run.expect("ready");
    run
}

/// Checkpoints it twice, restarts it, and finds it well each time.
fn works(program: &Program) {
    let mut run = started(program);
    for _ in 0..2 {
        run.checkpoint();
        run.check();
    }
    run.kill();
    assert_eq!(run.errors(), "");
    let mut run = program.restart(&program.image);
    run.check();
    run.quit();
    assert_eq!(run.errors(), "");
}

#[test]
fn the_image_is_private() {
    each_user(|place| {
        let image = started(&place.target("recursion")).checkpoint();
        let mode = fs::metadata(image).expect("the image").permissions().mode();
        assert_eq!(mode & 0o7777, 0o600);
    });
}

#[test]
fn a_file_elsewhere() {
    each_user(|place| {
        place.directory("some/where");
        let program = place.target("recursion").image("some/where/image");
        works(&program.clone().env("CKPT_FILE", "some/where/image"));
        works(&program.clone().env("CKPT_FILE", place.path("some/where/image")));
    });
}

/// A relative name is relative to where the program was started, wherever it has gone since.
#[test]
fn a_program_that_has_changed_directory() {
    const SCRIPT: &str = "
import os, sys
os.chdir('/'); os.environ['CKPT_FILE'] = '/nowhere'; os.environ.pop('CKPT_VERBOSE', None)
print('ready', flush=True)
for line in sys.stdin:
    print('done' if line == 'quit\\n' else 'ok', flush=True)
    if line == 'quit\\n': break
";
    each_user(|place| {
        place.directory("images");
        let program = place.system("/usr/bin/python3").args(["-c", SCRIPT]);
        works(&program);
        works(&program.env("CKPT_FILE", "images/image").image("images/image"));
    });
}

#[test]
fn a_file_named_after_process_and_program() {
    each_user(|place| {
        let program = place.target("recursion").env("CKPT_FILE", "%n-%p.image");
        let mut run = started(&program);
        run.image_is(place.path(format!("recursion-{}.image", run.pid)));
        let image = run.checkpoint();
        run.kill();
        // In its next life it has another number, and so another image.
        let mut run = program.restart(&image);
        run.check();
        run.image_is(place.path(format!("recursion-{}.image", run.pid)));
        run.checkpoint();
        run.quit();
    });
}

#[test]
fn other_signals() {
    for (name, number) in [
        ("HUP", 1),
        ("SIGUSR1", 10),
        ("15", 15),
        ("USR2", 12),
        ("RTMIN+3", 37),
        ("SIGRTMIN", 34),
        ("64", 64),
        ("32", 32),
        ("WINCH", 28),
        ("TSTP", 20),
    ] {
        let place = Place::new(User::Ordinary);
        println!("CKPT_SIGNAL={name}");
        works(&place.target("recursion").env("CKPT_SIGNAL", name).signal(number));
    }
}

#[test]
fn a_signal_that_is_none() {
    each_user(|place| {
        for name in ["NONSENSE", "0", "65", "-1", "RTMIN+99", "KILL", "19", "33"] {
            let mut run = place.target("recursion").env("CKPT_SIGNAL", name).start();
            let line = run.error_line();
            assert!(line.starts_with("ckpt: ") && line.contains("CKPT_SIGNAL"), "{name:?}: {line}");
            run.expect("ready");
            run.check();
            run.quit();
            assert_eq!(run.errors().lines().count(), 1, "{}", run.errors());
        }
    });
}

/// Old C libraries take it before the library begins, and it stays theirs.
#[test]
fn a_signal_that_the_c_library_has_taken() {
    const EARLY: &str = "
        #include <signal.h>
        #include <stdlib.h>
        #include <sys/syscall.h>
        #include <unistd.h>
        static void own(int signal) { (void)signal; }
        struct { void *handler; unsigned long flags; void *restorer; unsigned long mask; } action = { own };
        __attribute__((constructor)) static void take(void) {
            if (syscall(SYS_rt_sigaction, 32, &action, (void *)0, 8)) abort();
        }
        int taken(void) {
            void *now[4] = {0};
            return syscall(SYS_rt_sigaction, 32, (void *)0, now, 8) == 0 && now[0] == own;
        }";
    const ASK: &str = "import ctypes, sys; print(ctypes.CDLL(sys.argv[1]).taken())";
    let place = Place::new(User::Ordinary);
    let early = place.c("gcc", &["-shared", "-fPIC"], "early.so", EARLY).command;
    let library = place.artifact("libckpt.so");
    let mut run = place
        .system("/usr/bin/python3")
        .args(["-c".as_ref(), ASK.as_ref(), early.as_os_str()])
        .env("CKPT_SIGNAL", "32")
        .env("LD_PRELOAD", format!("{} {}", library.display(), early.display()))
        .start_bare();
    run.expect("1");
    assert!(run.wait().success());
    assert!(run.errors().starts_with("ckpt: not active: the C library"), "{}", run.errors());
}

#[test]
fn an_interval_that_is_none() {
    each_user(|place| {
        for interval in ["soon", "-1", "1s", "99999999999999999999"] {
            let mut run = place.target("recursion").env("CKPT_INTERVAL", interval).start();
            let line = run.error_line();
            assert!(line.starts_with("ckpt: ") && line.contains("CKPT_INTERVAL"), "{line}");
            run.expect("ready");
            run.quit();
        }
    });
}

/// Every second an image, before the restart and after it.
#[test]
fn by_itself() {
    each_user(|place| {
        let program = place.target("recursion").env("CKPT_INTERVAL", "1");
        let images = Watch::renames(&place.path(""));
        let mut run = started(&program);
        for _ in 0..2 {
            run.answer(&images).expect("an image");
            run.check();
        }
        run.kill();
        assert_eq!(run.errors(), "");
        images.names();
        let mut run = program.restart(&program.image);
        run.answer(&images).expect("an image of the restarted program");
        run.check();
        run.quit();
        assert_eq!(run.errors(), "");
    });
}

/// `sh` starts a program that inherits the environment.
fn family<'p>(place: &'p Place, file: &str) -> Program<'p> {
    place.artifact("recursion");
    place
        .system("/bin/bash")
        .args(["-c", "./recursion; true"])
        .env("CKPT_INTERVAL", "1")
        .env("CKPT_FILE", file)
}

#[test]
fn a_child_has_no_interval_if_it_would_write_to_the_same_file() {
    each_user(|place| {
        let mut run = started(&family(place, "image"));
        // The parent's interval goes on, and cannot do anything about a family.
        for _ in 0..3 {
            let line = run.error_line();
            assert!(line.starts_with("ckpt: ") && line.contains("child"), "{line}");
        }
        run.check();
        assert!(!place.path("image").exists(), "the child has written an image");
        run.quit();
    });
}

#[test]
fn a_child_has_the_interval_if_it_has_a_file_of_its_own() {
    each_user(|place| {
        let images = Watch::renames(&place.path(""));
        let mut run = started(&family(place, "image-%p"));
        let own = format!("image-{}", run.pid);
        run.until("for the child's image", Some(&images), |_| {
            images.names().iter().any(|name| *name != *own).then_some(())
        });
        run.check();
        run.quit();
    });
}

#[test]
fn the_image_of_another_living_process_is_not_overwritten() {
    each_user(|place| {
        let program = place.target("recursion");
        let mut one = started(&program);
        let mut other = started(&program);
        let image = one.checkpoint();
        let before = fs::read(&image).expect("the image");
        other.refuses(&["mycheckpoint", &one.pid.to_string()]);
        assert!(fs::read(&image).expect("the image") == before);
        other.check();
        // Its own it may replace.
        one.checkpoint();
        // And the other's when that is gone.
        one.kill();
        other.checkpoint();
        // A restarted one counts as living, too, once it has an image.
        let mut restarted = program.restart(&image);
        restarted.check();
        restarted.refuses(&["mycheckpoint", &other.pid.to_string()]);
        other.kill();
        restarted.checkpoint();
        restarted.quit();
    });
}

/// Whatever else bears the name of the image, or is what `CKPT_FILE` says by mistake, stays.
#[test]
fn what_is_no_image_is_not_overwritten() {
    each_user(|place| {
        let make = |tool: &str, arguments: &[&str]| {
            let done = Command::new(tool).arg(place.path("mycheckpoint")).args(arguments).status();
            done.expect("making what is in the way").success()
        };
        let mut obstacles: Vec<(&str, &[&str])> = vec![("mkdir", &[]), ("mkfifo", &["-m", "666"])];
        if place.user == User::Root {
            obstacles.push(("mknod", &["c", "1", "3"])); // as /dev/null
        }
        let kind = || fs::symlink_metadata(place.path("mycheckpoint")).expect("it").file_type();
        for (tool, arguments) in obstacles {
            println!("{tool}");
            if !make(tool, arguments) {
                not_run(&format!("a file that {tool} would make: it is not allowed here"));
                continue;
            }
            let before = kind();
            let mut run = started(&place.target("recursion"));
            run.refuses(&["mycheckpoint"]);
            assert_eq!(kind(), before);
            run.check();
            run.quit();
            run_tool("rm", &["-r"], &place.path("mycheckpoint"));
        }
        place.file("mycheckpoint", "the only copy of a novel\n");
        let mut run = started(&place.target("recursion"));
        run.refuses(&["mycheckpoint"]);
        assert_eq!(place.text("mycheckpoint"), "the only copy of a novel\n");
        run.quit();
    });
}

fn run_tool(tool: &str, arguments: &[&str], path: &Path) {
    common::place::run(Command::new(tool).args(arguments).arg(path));
}

/// A signal that the program blocks for a while is heard when it no longer does.
#[test]
fn a_signal_that_is_blocked_for_a_while() {
    const SCRIPT: &str = "
import signal, sys
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR2]); print('ready', flush=True)
for line in sys.stdin:
    if line == 'unblock\\n': signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGUSR2])
    print('ok', flush=True)
";
    each_user(|place| {
        let program = place.system("/usr/bin/python3").args(["-c", SCRIPT]);
        let mut run = started(&program);
        let images = Watch::renames(&place.path(""));
        run.signal(libc::SIGUSR2);
        run.check();
        assert!(images.names().is_empty());
        run.send("unblock");
        run.answer(&images).expect("the image");
        run.expect("ok");
        run.kill();
        let mut run = program.restart(&program.image);
        run.expect("ok");
        run.check();
    });
}

#[test]
fn silent_unless_asked() {
    each_user(|place| {
        let mut run = started(&place.target("recursion"));
        run.checkpoint();
        run.quit();
        assert_eq!(run.errors(), "");

        let mut run = started(&place.target("recursion").env("CKPT_VERBOSE", "1"));
        run.signal(libc::SIGUSR2);
        let line = run.until("for a line about the image", None, |run| {
            run.errors().lines().find(|line| line.contains("mycheckpoint")).map(str::to_owned)
        });
        assert!(line.starts_with("ckpt: "), "{line}");
        run.check();
        run.quit();
        assert!(run.errors().lines().all(|line| line.starts_with("ckpt: ")), "{}", run.errors());
    });
}

/// `errno` and what `raise` answers are as if no signal had come; in the restarted process too.
#[test]
fn errno_is_left_alone() {
    const PROGRAM: &str = r#"
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <unistd.h>
int main(void) {
    errno = 1234;
    int failed = raise(SIGUSR2), left = errno;
    printf("raise %d errno %d\n", failed, left);
    fflush(stdout);
    char byte;
    long got = read(0, &byte, 1);
    printf("read %ld\n", got);
    return 0;
}
"#;
    each_user(|place| {
        for compiler in ["gcc", "musl-gcc"] {
            let program = place.c(compiler, &["-O1"], compiler, PROGRAM);
            let mut run = program.start();
            run.expect("raise 0 errno 1234");
            run.kill();
            let mut run = program.restart(&program.image);
            run.expect("raise 0 errno 1234");
            run.send("");
            run.expect("read 1");
            run.ends_well();
            fs::remove_file(&program.image).expect("removing the image");
        }
    });
}

/// A program that takes the signal for itself has it.
#[test]
fn a_program_that_uses_the_signal_itself() {
    each_user(|place| {
        let script = "trap 'echo mine' USR2; echo ready; while read line; do echo $line; done";
        let mut run = started(&place.system("/bin/bash").args(["-c", script]));
        run.signal(libc::SIGUSR2);
        run.send("hello");
        let mut lines = [run.line(), run.line()];
        lines.sort();
        assert_eq!(lines, ["hello", "mine"]);
        run.close_input();
        run.wait();
        assert_eq!(run.errors(), "");
        assert!(!run.image().exists());
    });
}
