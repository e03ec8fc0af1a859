//! A restarted program has the ids that it had, if that is asked for: in a child of the process that
//! was started, which seems the program to whoever started it.

mod common;

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::mem::offset_of;
use std::path::PathBuf;
use std::process::Command;

use ckpt_image::record::{Process, kind};
use common::answers::{answer, python};
use common::{
    Edited, PROMPT, Place, Program, Running, User, each_user, forbid_namespaces, killed_by, shell,
};

const SAME: &str = "--ids=same";
const NAMESPACE: &str = "--ids=namespace";
const NEW: &str = "--ids=new";

/// The ways to the same ids that `user` has.
fn ways(user: User) -> &'static [&'static str] {
    match user {
        User::Root => &[SAME, NAMESPACE],
        User::Ordinary => &[NAMESPACE],
    }
}

/// Runs `test` as each user in each way.
fn each_way(test: impl Fn(&Place, &str)) {
    for user in User::everyone() {
        for way in ways(user) {
            println!("as {user:?}, {way}");
            test(&Place::new(user), way);
        }
    }
}

/// Echoes lines, and says at once which signals have come.
const LISTENER: &str = r#"
#include <signal.h>
#include <stdio.h>
#include <unistd.h>
void handle(int number) {
    char text[] = "signal 00\n";
    text[7] += number / 10;
    text[8] += number % 10;
    write(1, text, sizeof text - 1);
}
int main(void) {
    struct sigaction action = { .sa_handler = handle, .sa_flags = SA_RESTART };
    int signals[] = { SIGUSR1, SIGTERM, SIGINT, SIGCONT, 40, 41 };
    for (int i = 0; i < 6; i++) sigaction(signals[i], &action, 0);
    puts("ready");
    fflush(stdout);
    char line[100];
    while (fgets(line, sizeof line, stdin)) {
        fputs(line, stdout);
        fflush(stdout);
    }
    return 0;
}
"#;

/// Restarts a [`LISTENER`], which has echoed a line, and so is there.
fn listening(program: &Program, way: &str) -> Running {
    let mut run = started(program);
    run.reads_stdin();
    let image = run.checkpoint();
    run.kill();
    let mut run = program.restart_with(&[way], &image);
    run.send("here");
    run.expect("here");
    run
}

fn started(program: &Program) -> Running {
    let mut run = program.start();
    run.expect("ready");
    run
}

/// What a program knows of who it is.
const WHO: &str = "first, os.getpid(), os.readlink('/proc/self'), os.readlink('/proc/thread-self'), \
                   status('Pid'), os.getuid(), os.getgid(), status('CapEff'), status('CapPrm'), \
                   status('CapInh'), os.path.realpath('/proc/self/exe')";

/// Checkpoints the program of [`SCRIPT`] and ends it. Returns the image and who it was.
fn image(program: &Program) -> (PathBuf, String) {
    let mut run = started(program);
    let who = answer(&mut run, WHO);
    let image = run.checkpoint();
    run.kill();
    (image, who)
}

#[test]
fn it_is_who_it_was() {
    each_way(|place, way| {
        let program = python(place);
        let (image, who) = image(&program);
        for _ in 0..3 {
            let mut run = program.restart_with(&[way], &image);
            assert_eq!(answer(&mut run, WHO), who);
            // It is checkpointed by way of the process that was started.
            run.checkpoint();
            assert_eq!(answer(&mut run, WHO), who);
            run.close_input();
            run.ends_well();
        }
        let mut run = program.restart_with(&[NEW], &image);
        assert_ne!(answer(&mut run, WHO), who);
        run.close_input();
        run.ends_well();
    });
}

#[test]
fn a_shell_has_its_number() {
    each_way(|place, way| {
        let script = "echo $$ $BASHPID; read line; (exit 3); echo $$ $BASHPID $?; kill -TERM $$";
        let program = place.system("/bin/bash").args(["-c", script]);
        let mut run = program.start();
        let before = run.line();
        let image = run.checkpoint();
        run.kill();
        let mut run = program.restart_with(&[way], &image);
        run.send("");
        run.expect(&format!("{before} 3"));
        let status = run.wait();
        assert!(killed_by(status, libc::SIGTERM), "{status}");
    });
}

#[test]
fn its_end_is_that_of_the_process_that_was_started() {
    each_way(|place, way| {
        let (program, end) = (python(place), |run: &mut Running, how: &str| {
            run.send(how);
            run.wait()
        });
        let (image, _) = image(&program);
        for code in [0, 1, 125, 255] {
            let mut run = program.restart_with(&[way], &image);
            assert_eq!(end(&mut run, &format!("os._exit({code})")).code(), Some(code));
        }
        for signal in [libc::SIGKILL, libc::SIGSEGV, libc::SIGHUP, 42] {
            let mut run = program.restart_with(&[way], &image);
            // An _exit in case that the signal does not end it.
            let how = format!("os.kill(os.getpid(), {signal}), os._exit(1)");
            let status = end(&mut run, &how);
            assert!(killed_by(status, signal), "{status}, not {signal}");
        }
    });
}

#[test]
fn signals_reach_it() {
    each_way(|place, way| {
        let mut run = listening(&place.c("gcc", &["-O1"], "listener", LISTENER), way);
        for signal in [libc::SIGUSR1, libc::SIGTERM, libc::SIGINT, libc::SIGCONT, 40, 40, 41] {
            run.signal(signal);
            run.expect(&format!("signal {signal:02}"));
        }
        run.signal(libc::SIGHUP);
        let status = run.wait();
        assert!(killed_by(status, libc::SIGHUP), "{status}");
    });
}

/// A queued signal comes with its value.
#[test]
fn the_value_of_a_signal() {
    const PROGRAM: &str = r#"
#include <signal.h>
#include <stdio.h>
int main(void) {
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, 40);
    sigprocmask(SIG_BLOCK, &set, 0);
    puts("ready");
    fflush(stdout);
    getchar();
    puts("waiting");
    fflush(stdout);
    siginfo_t info;
    while (sigwaitinfo(&set, &info) < 0) {}
    printf("%d %d\n", info.si_code == SI_QUEUE, info.si_value.sival_int);
    return 0;
}
"#;
    each_way(|place, way| {
        let program = place.c("gcc", &["-O1"], "waits", PROGRAM);
        let mut run = started(&program);
        run.reads_stdin();
        let image = run.checkpoint();
        run.kill();
        let mut run = program.restart_with(&[way], &image);
        run.send("");
        run.expect("waiting");
        let value = libc::sigval { sival_ptr: 4711 as *mut libc::c_void };
        // SAFETY: a system call; the value is a number.
        assert_eq!(unsafe { libc::sigqueue(run.pid, 40, value) }, 0);
        run.expect("1 4711");
        run.ends_well();
    });
}

/// What is sent to all of the process group, by the terminal or by `kill`, comes once.
#[test]
fn nothing_comes_twice() {
    each_way(|place, way| {
        let program = place.c("gcc", &["-O1"], "listener", LISTENER).on_terminal();
        let mut run = listening(&program, way);
        // Signals that are pending together are taken in the order of their numbers.
        let then = |run: &mut Running, signal: i32| {
            run.expect(&format!("signal {signal:02}"));
            run.signal(41);
            run.expect("signal 41");
        };
        for _ in 0..20 {
            run.send_all("\x03");
            then(&mut run, libc::SIGINT);
            // SAFETY: a system call without pointers; the group is that of the child, its leader.
            assert_eq!(unsafe { libc::kill(-run.pid, 40) }, 0);
            then(&mut run, 40);
        }
    });
}

#[test]
fn job_control_of_a_shell() {
    each_way(|place, way| {
        let program = place.system("/bin/cat").on_terminal();
        let mut run = program.start();
        run.reads_stdin();
        run.checkpoint();
        run.kill();
        place.artifact("restart-static");
        let mut shell = shell(place);
        let echoes = |shell: &mut Running, line: &str| {
            shell.send(line);
            shell.expect(line);
        };
        let command = format!("./restart-static {way} mycheckpoint");
        shell.send(&command);
        echoes(&mut shell, "in the foreground");
        for _ in 0..3 {
            shell.send_all("\x1a");
            shell.expect_text("Stopped");
            shell.expect_text(PROMPT);
            shell.send("fg");
            shell.expect_text(&format!("{command}\n"));
            echoes(&mut shell, "in the foreground again");
        }
        shell.send_all("\x03");
        shell.expect_text(PROMPT);
        shell.send("echo status=$?");
        shell.expect("status=130");

        // In the background it may not read: it stops, as any job does.
        shell.expect_text(PROMPT);
        shell.send(&format!("{command} & wait -n"));
        shell.expect_text("Stopped");
        shell.expect_text(PROMPT);
        shell.send("kill -TERM %1; while kill -0 %1 2>/dev/null; do :; done; echo it is gone");
        shell.expect_text("it is gone\n");
    });
}

/// Nobody can send SIGKILL on; the program ends all the same.
#[test]
fn it_does_not_outlive_the_process_that_was_started() {
    each_way(|place, way| {
        let program = python(place);
        let (image, _) = image(&program);
        let mut run = program.restart_with(&[way], &image);
        run.send("'here'");
        run.expect("here");
        run.signal(libc::SIGKILL);
        // Its output ends only when nobody has it open any more.
        let status = run.wait();
        assert!(killed_by(status, libc::SIGKILL), "{status}");
    });
}

/// What it leaves in the background lives on.
#[test]
fn what_it_leaves_behind() {
    each_way(|place, way| {
        let script = "echo ready; read line
            { read line <fifo; echo $line >made; mv made result; } <&- >&- 2>&- & exit 3";
        let program = place.system("/bin/bash").args(["-c", script]);
        let made = Command::new("mkfifo").args(["-m", "666"]).arg(place.path("fifo")).status();
        assert!(made.expect("mkfifo").success());
        let mut run = started(&program);
        let image = run.checkpoint();
        run.kill();
        let mut run = program.restart_with(&[way], &image);
        run.send("");
        assert_eq!(run.wait().code(), Some(3));
        let results = common::Watch::renames(&place.path(""));
        let mut fifo = OpenOptions::new().write(true).open(place.path("fifo")).expect("a reader");
        fifo.write_all(b"still here\n").expect("writing");
        let mut other = place.system("/bin/cat").start_bare();
        other.until("for the result", Some(&results), |_| {
            results.names().contains(&"result".into()).then_some(())
        });
        assert_eq!(fs::read_to_string(place.path("result")).expect("the result"), "still here\n");
    });
}

#[test]
fn an_id_that_is_in_use() {
    each_user(|place| {
        let program = python(place);
        let mut first = started(&program);
        let who = answer(&mut first, WHO);
        let image = first.checkpoint();
        let id = first.pid.to_string();
        program.refuses_to_restart_with(&[SAME], &image, &[&id, "in use", NAMESPACE]);
        let mut run = program.restart_with(&[NAMESPACE], &image);
        assert_eq!(answer(&mut run, WHO), who);
        run.close_input();
        run.ends_well();
    });
}

#[test]
fn an_ordinary_user_may_not_choose_ids_here() {
    let place = Place::new(User::Ordinary);
    let program = python(&place);
    let (image, _) = image(&program);
    let words = ["CAP_CHECKPOINT_RESTORE", NAMESPACE];
    program.refuses_to_restart_with(&[SAME], &image, &words);
}

#[test]
fn where_namespaces_are_forbidden() {
    each_user(|place| {
        let program = python(place);
        let (image, _) = image(&program);
        let program = program.before(forbid_namespaces);
        program.refuses_to_restart_with(&[NAMESPACE], &image, &["unshare: EPERM", NEW]);
        let mut run = program.restart(&image);
        run.send("'here'");
        run.expect("here");
        run.close_input();
        assert!(run.wait().success());
    });
}

/// Where threads have no way to their old ids they go on with new ones, and each way that was tried is
/// told.
#[test]
fn threads_where_namespaces_are_forbidden() {
    each_user(|place| {
        for compiler in ["gcc", "musl-gcc"] {
            let program = place.compiled(compiler, "thread_selves").args(["8"]);
            let mut first = started(&program);
            let image = first.checkpoint();
            // The first process is there yet, and has its ids.
            let program = program.before(forbid_namespaces);
            let mut second = program.restart_with(&["--verbose"], &image);
            second.check();
            for begins in [
                format!("restart-static: the id {}, which the program had, is in use", first.pid),
                "restart-static: a pid namespace cannot be had, unshare: EPERM".to_owned(),
                format!("restart-static: the program is process {}", second.pid),
                // The filter is why new privileges cannot be allowed again (PR_SET_NO_NEW_PRIVS).
                "restart-static: note: prctl option 38 is not restored".to_owned(),
            ] {
                let line = second.error_line();
                assert!(line.starts_with(&begins), "{line}");
            }
            first.check();
            first.quit();
            second.checkpoint();
            second.check();
            second.quit();
        }
    });
}

#[test]
fn what_was_chosen_is_told() {
    each_user(|place| {
        let program = python(place);
        let (image, _) = image(&program);
        for way in ways(place.user).iter().chain([&NEW]) {
            let mut run = program.restart_with(&["--verbose", way], &image);
            let pid = answer(&mut run, "os.getpid()");
            let line = run.errors();
            assert!(line.contains(&format!("process {pid}")), "{line}");
            assert_eq!(line.contains("namespace"), *way == NAMESPACE, "{line}");
            run.close_input();
            run.wait();
        }
        let words = ["--ids=old", "same, namespace, new"];
        program.refuses_to_restart_with(&["--ids=old"], &image, &words);
    });
}

/// An image may say anything.
#[test]
fn an_id_that_cannot_be() {
    each_way(|place, way| {
        let program = python(place);
        let mut run = started(&program);
        run.checkpoint();
        run.kill();
        let with_id = |id: u32| {
            let change = |note: &mut [u8]| {
                note[offset_of!(Process, pid)..][..4].copy_from_slice(&id.to_le_bytes());
            };
            Edited::of(&run).note(kind::PROCESS, change).write(place, "other")
        };
        for (id, words) in [
            (0, "damaged"),
            (1 << 31, "damaged"),
            (u32::MAX, "damaged"),
            (i32::MAX as u32, "EINVAL"),
        ] {
            program.refuses_to_restart_with(&[way], &with_id(id), &[words]);
        }
    });
}

/// A program that was the first process of its namespace, as in a container, is so again.
#[test]
fn the_first_process() {
    each_user(|place| {
        let program = python(place);
        let mut run = started(&program);
        run.checkpoint();
        run.kill();
        let first = |note: &mut [u8]| {
            note[offset_of!(Process, pid)..][..4].copy_from_slice(&1_u32.to_le_bytes());
        };
        let image = Edited::of(&run).note(kind::PROCESS, first).write(place, "first");
        let mut run = program.restart_with(&[NAMESPACE], &image);
        assert_eq!(answer(&mut run, "os.getpid(), os.readlink('/proc/self')"), "(1, '1')");
        run.send("os._exit(9)");
        assert_eq!(run.wait().code(), Some(9));
        let mut run = program.restart_with(&[NAMESPACE], &image);
        assert_eq!(answer(&mut run, "os.getpid()"), "1");
        run.signal(libc::SIGKILL);
        assert!(killed_by(run.wait(), libc::SIGKILL));
    });
}

/// musl's record of a thread is searched for the id, which may also be the upper half of an address there.
#[test]
fn an_id_that_is_half_an_address() {
    const PROGRAM: &str = r#"
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
int main(int argc, char **argv) {
    if (argc > 1) raise(SIGUSR2);
    errno = 0;
    printf("%d\n", (int)((uintptr_t)pthread_self() >> 32));
    return errno;
}
"#;
    each_user(|place| {
        let program = place.c("musl-gcc", &["-O1"], "program", PROGRAM);
        let upper_half = program.clone().wrapped("/usr/bin/setarch", &["-R"]).undisturbed("");
        // The next process of a namespace of its own has that id.
        let last = upper_half.trim().parse::<i32>().expect("a number") - 1;
        let script =
            format!("echo {last} >/proc/sys/kernel/ns_last_pid && \"$@\" checkpoint; exit $?");
        let namespace = ["--user", "--map-root-user", "--pid", "--fork", "--mount-proc"];
        let rest = ["/bin/sh", "-c", &script, "sh", "/usr/bin/setarch", "-R"];
        let namespaced =
            program.clone().wrapped("/usr/bin/unshare", &[&namespace[..], &rest].concat());
        let mut first = namespaced.start();
        first.expect(upper_half.trim());
        assert!(first.wait().success());
        let mut second = program.restart_with(&[NEW], &program.image);
        second.expect(upper_half.trim());
        assert!(second.wait().success());
    });
}
