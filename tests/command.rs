//! `ckpt`, the command for people: it shows how it all goes, tells whether a program can be
//! checkpointed before anything is sent to it, and what is in an image.

mod common;

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use common::{
    PATIENCE, Place, Program, Running, User, cargo, each_user, machine, random, repetitions, work,
};
use rand::Rng;

#[test]
fn the_demo_goes_well() {
    each_user(|place| {
        let (status, output, errors) = place.ckpt(&["demo"]);
        assert_eq!((status, &*errors), (Some(0), ""), "{output}");
        for step in ["LD_PRELOAD=", "kill -USR2", "kill -KILL", "restart-static mycheckpoint"] {
            assert!(output.contains(step), "no {step} in {output}");
        }
    });
}

/// What it carries inside itself is enough to work by hand, as the README says.
#[test]
fn by_hand() {
    const SESSION: &str = "
        set -e
        LD_PRELOAD=./libckpt.so ./counting-test 1 1000000 10 > numbers & program=$!
        while [ $(wc -l < numbers) -lt 5 ]; do :; done
        kill -USR2 $program
        while [ ! -e mycheckpoint ]; do :; done
        kill -KILL $program
        seen=$(wc -l < numbers)
        ./restart-static mycheckpoint & program=$!
        while [ $(wc -l < numbers) -le $((seen + 5)) ]; do :; done
        kill -KILL $program
        seq $(wc -l < numbers) | cmp - numbers
        echo in order";
    each_user(|place| {
        place.artifact("counting-test");
        place.file("numbers", "");
        assert_eq!(place.ckpt(&["unpack"]).0, Some(0));
        let mut run = place.system("/bin/bash").args(["-c", SESSION]).start_bare();
        run.expect("in order");
        assert!(run.wait().success());
    });
}

/// `ckpt check` of `run`: its exit status and what it says.
fn check(place: &Place, run: &Running) -> (Option<i32>, String) {
    let (status, output, errors) = place.ckpt(&["check", &run.pid.to_string()]);
    assert_eq!(errors, "");
    (status, output)
}

/// Starts `program` and lets it come to where it reads.
fn reading(program: &Program) -> Running {
    let mut run = program.start();
    run.reads_stdin();
    run
}

#[test]
fn check_says_yes() {
    each_user(|place| {
        let mut run = reading(&place.system("/bin/cat"));
        let (status, said) = check(place, &run);
        assert_eq!(status, Some(0), "{said}");
        assert!(said.contains(&format!("kill -USR2 {}", run.pid)), "{said}");
        run.checkpoint();

        let run = reading(&place.system("/bin/cat").env("CKPT_SIGNAL", "RTMIN+3"));
        let (status, said) = check(place, &run);
        assert_eq!(status, Some(0), "{said}");
        assert!(said.contains("RTMIN+3"), "{said}");
    });
}

/// What has contents and no name, or is shared by one.
#[test]
fn check_says_yes_of_memory() {
    for kind in ["memfd", "mapped", "deleted", "renamed", "shared", "segments", "sets", "queues"] {
        each_user(|place| {
            let mut run = place.compiled("gcc", "holds_memory").args([kind]).start();
            run.expect("ready");
            let (status, said) = check(place, &run);
            assert_eq!(status, Some(0), "{kind}: {said}");
            run.check();
            run.quit();
        });
    }
}

#[test]
fn check_says_yes_of_a_restarted_program() {
    each_user(|place| {
        let program = place.system("/bin/cat");
        let image = reading(&program).checkpoint();
        let mut run = program.restart(&image);
        run.reads_stdin();
        let (status, said) = check(place, &run);
        assert_eq!(status, Some(0), "{said}");
        run.checkpoint();
    });
}

/// Signal 32 asks for checkpoints until the C library takes it, which the check tells: glibc to cancel a
/// thread, musl for timers that make threads.
#[test]
fn check_of_the_signal_that_c_libraries_keep() {
    const TEXT: &str = r#"
        #include <pthread.h>
        #include <signal.h>
        #include <stdio.h>
        #include <string.h>
        #include <time.h>
        #include <unistd.h>
        static void fire(union sigval value) { (void)value; }
        static void *wait(void *nothing) { for (;;) pause(); return nothing; }
        int main(int argc, char **argv) {
            struct sigevent event = { .sigev_notify = SIGEV_THREAD, .sigev_notify_function = fire };
            timer_t timer;
            pthread_t thread;
            if (argc != 2 || pthread_create(&thread, NULL, wait, NULL)) return 1;
            if (!strcmp(argv[1], "user") && setuid(getuid())) return 1;
            if (!strcmp(argv[1], "timer") && timer_create(CLOCK_MONOTONIC, &event, &timer)) return 1;
            if (!strcmp(argv[1], "cancel") && (pthread_cancel(thread) || pthread_join(thread, NULL)))
                return 1;
            return getchar() != EOF;
        }"#;
    for (compiler, kind, refusal) in [
        ("gcc", "user", None),
        ("gcc", "timer", None),
        ("gcc", "cancel", Some("own handler for signal 32")),
        ("musl-gcc", "user", None),
        ("musl-gcc", "timer", Some("nobody handles signal 32")),
        ("musl-gcc", "cancel", None),
    ] {
        println!("{compiler} {kind}");
        each_user(|place| {
            let program = place.c(compiler, &["-pthread"], "keeps", TEXT).args([kind]);
            let program = program.env("CKPT_SIGNAL", "32").signal(32);
            let mut run = reading(&program);
            if let Some(refusal) = refusal {
                return says_no(place, run, &[refusal]);
            }
            let (status, said) = check(place, &run);
            assert_eq!(status, Some(0), "{said}");
            assert!(said.contains(&format!("kill -32 {}", run.pid)), "{said}");
            let image = run.checkpoint();
            run.kill();
            let mut run = program.restart_with(&["--ids=new"], &image);
            run.reads_stdin();
            run.close_input();
            assert!(run.wait().success(), "{}", run.errors());
        });
    }
}

/// `ckpt check` says no, with `words`; and what it was asked about goes on as before.
fn says_no(place: &Place, mut run: Running, words: &[&str]) {
    let (status, said) = check(place, &run);
    assert_eq!(status, Some(1), "{said}");
    assert!(words.iter().all(|word| said.contains(word)), "no {words:?} in {said}");
    run.close_input();
    assert!(run.wait().success(), "{}", run.errors());
}

#[test]
fn check_says_no_without_the_library() {
    each_user(|place| {
        let mut run = place.system("/bin/cat").start_bare();
        run.reads_stdin();
        says_no(place, run, &["LD_PRELOAD"]);
    });
}

#[test]
fn check_says_no_of_a_static_program() {
    const PROGRAM: &str = "#include <stdio.h>\nint main(void) { getchar(); return 0; }";
    each_user(|place| {
        let run = reading(&place.c("musl-gcc", &["-static"], "static", PROGRAM));
        says_no(place, run, &["static"]);
    });
}

#[test]
fn check_knows_the_library_in_a_static_program() {
    const PROGRAM: &str = "
        #include <signal.h>
        #include <stdio.h>
        void own(int signal) { (void)signal; }
        int main(int argc, char **argv) {
            struct sigaction action = {.sa_handler = own};
            (void)argv;
            sigfillset(&action.sa_mask);
            if (argc > 1) sigaction(SIGUSR2, &action, NULL);
            getchar();
            return 0;
        }";
    each_user(|place| {
        let library = cargo::artifacts().join("libckpt.a");
        let flags = ["-static", "-Wl,-u,ckpt_constructor", library.to_str().expect("UTF-8")];
        let program = place.c("gcc", &flags, "static", PROGRAM);
        let mut run = reading(&program);
        let (status, said) = check(place, &run);
        assert_eq!(status, Some(0), "{said}");
        assert!(said.contains("libckpt.a handles it"), "{said}");
        let image = run.checkpoint();
        run.kill();
        let mut run = program.restart(&image);
        run.reads_stdin();
        let (status, said) = check(place, &run);
        assert_eq!(status, Some(0), "{said}");
        run.close_input();
        assert!(run.wait().success(), "{}", run.errors());

        says_no(place, reading(&program.args(["own"])), &["own handler for SIGUSR2"]);
    });
}

#[test]
fn check_says_no_of_a_signal_that_would_not_arrive() {
    for (setting, word) in [
        ("signal.signal(signal.SIGUSR2, signal.SIG_IGN)", "ignores SIGUSR2"),
        ("signal.signal(signal.SIGUSR2, signal.SIG_DFL)", "SIGUSR2"),
        ("signal.signal(signal.SIGUSR2, print)", "own handler for SIGUSR2"),
        ("signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR2])", "blocks SIGUSR2"),
    ] {
        each_user(|place| {
            let script = format!("import signal, sys; {setting}; sys.stdin.read()");
            let run = reading(&place.system("/usr/bin/python3").args(["-c", &script]));
            says_no(place, run, &[word]);
        });
    }
}

#[test]
fn check_says_no_of_what_a_checkpoint_would_refuse() {
    for (setting, word) in [
        (
            "import select, socket; s = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0); \
             s.send(bytes.fromhex('1400000012000103010000000000000000000000')); \
             select.select([s], [], [])",
            "netlink",
        ),
        ("import os; parent = os.pidfd_open(os.getppid())", "pidfd"),
        (
            "import os; os.mkdir('d'); f = open('f', 'w'); os.link('f', 'd/f'); os.unlink('f')",
            "no longer under its name",
        ),
        (
            "import ctypes, signal, struct; libc = ctypes.CDLL(None); \
             queue = libc.mq_open(b'/command', 0o102, 0o600, None); libc.mq_unlink(b'/command'); \
             libc.mq_notify(queue, struct.pack('qii', 0, signal.SIGURG, 0) + bytes(48))",
            "notification",
        ),
        ("import os; os.fork() or os._exit(0)", "child"),
    ] {
        each_user(|place| {
            let script = format!("import sys; {setting}; sys.stdin.read()");
            let run = reading(&place.system("/usr/bin/python3").args(["-c", &script]));
            says_no(place, run, &[word]);
        });
    }
}

/// Nothing is lost from any register.
#[test]
fn check_leaves_the_registers() {
    each_user(|place| {
        let mut run = place.target("vectors").args([work(100).max(30).to_string()]).start();
        run.expect("ready");
        while !run.has_ended() {
            check(place, &run);
        }
        run.ends_well();
    });
}

/// What a program waits for comes when it would have come.
#[test]
fn check_does_not_prolong_a_sleep() {
    const PROGRAM: &str = r#"
        #include <stdio.h>
        #include <time.h>
        int main(void) {
            struct timespec time = { 2, 0 };
            puts("ready");
            fflush(stdout);
            return nanosleep(&time, NULL);
        }"#;
    each_user(|place| {
        let mut run = place.c("gcc", &[], "sleeper", PROGRAM).start();
        run.expect("ready");
        let begun = Instant::now();
        while !run.has_ended() {
            check(place, &run);
            assert!(begun.elapsed() < PATIENCE, "each time it sleeps anew");
        }
        run.ends_well();
    });
}

/// A signal that comes meanwhile ends the wait for it.
#[test]
fn check_does_not_swallow_a_signal() {
    const PROGRAM: &str = r#"
        #include <signal.h>
        #include <stdio.h>
        static void nothing(int signal) { (void)signal; }
        int main(void) {
            sigset_t none;
            sigemptyset(&none);
            signal(SIGUSR1, nothing);
            for (;;) {
                sigsuspend(&none);
                puts("woken");
                fflush(stdout);
            }
        }"#;
    let mut random = random();
    let place = Place::new(User::Ordinary);
    let mut run = place.c("gcc", &[], "waiter", PROGRAM).start();
    let waits = format!("{} ", libc::SYS_rt_sigsuspend);
    let mut whole = Duration::ZERO;
    for _ in 0..repetitions(100) {
        run.is_in(&waits, "it does not wait for a signal");
        let begun = Instant::now();
        thread::scope(|scope| {
            let checking = scope.spawn(|| check(&place, &run));
            thread::sleep(whole.mul_f64(random.random_range(0.0..1.0)));
            run.signal(libc::SIGUSR1);
            let (status, output) = checking.join().expect("the check");
            assert_eq!(status, Some(0), "{output}");
        });
        whole = begun.elapsed();
        run.expect("woken");
    }
}

#[test]
fn check_of_nothing() {
    let place = Place::new(User::Ordinary);
    let (status, output, errors) = place.ckpt(&["check", "2147483647"]);
    assert_eq!((status, &*output), (Some(2), ""), "{errors}");
    assert_eq!(errors.lines().count(), 1, "{errors}");
    // Somebody else's, or a thread of the kernel.
    assert_eq!(place.ckpt(&["check", "1"]).0, Some(1));
}

#[test]
fn inspect_prints_what_is_in_an_image() {
    each_user(|place| {
        let mut run = reading(&place.system("/bin/cat"));
        let image = run.checkpoint();
        let image = image.to_str().expect("UTF-8");
        let (status, output, errors) = place.ckpt(&["inspect", image]);
        assert_eq!((status, &*errors), (Some(0), ""));
        for expected in [
            "/cat",
            &run.pid.to_string(),
            ckpt_arch::NAME,
            machine::REGISTERS[0],
            machine::REGISTERS[1],
            "[stack]",
            "r-xp",
            "[heap]",
            rustix::system::uname().release().to_str().expect("UTF-8"),
            rustix::system::uname().nodename().to_str().expect("UTF-8"),
        ] {
            assert!(output.contains(expected), "no {expected} in {output}");
        }
        let (status, with_flags, _) = place.ckpt(&["inspect", "--flags", image]);
        assert!(status == Some(0) && with_flags.len() > output.len(), "{with_flags}");
    });
}

/// Python with two threads more, which sleep.
fn with_threads(place: &Place) -> Running {
    const SCRIPT: &str = "
import sys, threading
begun = threading.Barrier(3)
for n in range(2):
    threading.Thread(target=lambda: (begun.wait(), threading.Event().wait()), daemon=True).start()
begun.wait()
sys.stdin.read()";
    reading(&place.system("/usr/bin/python3").args(["-c", SCRIPT]))
}

#[test]
fn check_says_yes_of_threads() {
    each_user(|place| {
        let run = with_threads(place);
        let (status, said) = check(place, &run);
        assert_eq!(status, Some(0), "{said}");
    });
}

#[test]
fn inspect_lists_all_threads() {
    each_user(|place| {
        let mut run = with_threads(place);
        let image = run.checkpoint();
        let (status, output, errors) = place.ckpt(&["inspect", image.to_str().expect("UTF-8")]);
        assert_eq!((status, &*errors), (Some(0), ""));
        let threads = common::place::names_in(format!("/proc/{}/task", run.pid).as_ref());
        assert_eq!(threads.len(), 3);
        for thread in threads {
            let line = format!("THREAD {thread}");
            assert_eq!(output.lines().filter(|l| **l == *line).count(), 1, "{line} in {output}");
        }
        assert_eq!(output.matches(&format!("{} ", machine::REGISTERS[0])).count(), 3, "{output}");
    });
}

/// What `ckpt inspect` prints of a program that holds objects of System V, and the key of one of them.
fn inspected(target: &str, holds: &str) -> (String, String) {
    let place = Place::new(User::Ordinary);
    let mut run = place.compiled("gcc", target).args([holds]).start();
    run.expect("ready");
    let image = run.checkpoint();
    let (status, output, errors) = place.ckpt(&["inspect", image.to_str().expect("UTF-8")]);
    assert_eq!((status, &*errors), (Some(0), ""));
    let key = format!("key {:#x}", 0x5eed_0000 | run.pid);
    run.quit();
    (output, key)
}

#[test]
fn inspect_lists_semaphores() {
    let (output, key) = inspected("holds_memory", "sets");
    let line = format!("{key}, mode 0640, values 3 (+2 at the end)");
    assert!(output.contains("SEMAPHORES") && output.contains(&line), "no {line} in {output}");
    assert!(output.contains("key 0x0, mode 0600, values 2\n"), "{output}");
}

#[test]
fn inspect_lists_messages() {
    let (output, key) = inspected("holds_messages", "full");
    let line = format!("{key}, mode 0640, 10 messages, 0 B of 10 B");
    assert!(output.contains("MESSAGES") && output.contains(&line), "no {line} in {output}");
    assert!(output.contains("key 0x0, mode 0600, 10 messages, 0 B of 3 B\n"), "{output}");
}

#[test]
fn inspect_finds_damage() {
    let place = Place::new(User::Ordinary);
    let image = reading(&place.system("/bin/cat")).checkpoint();
    let mut bytes = fs::read(image).expect("the image");
    let says_no = |bytes: &[u8]| {
        place.file("bad", bytes);
        let (status, _, errors) = place.ckpt(&["inspect", "bad"]);
        assert_eq!(status, Some(1), "{errors}");
        assert!(errors.lines().count() == 1 && errors.starts_with("ckpt: "), "{errors}");
        assert!(errors.contains("bad"), "{errors}");
    };
    says_no(b"no image");
    says_no(&bytes[..bytes.len() / 2]);
    let last_page = bytes.len() - 4000;
    bytes[last_page] ^= 1;
    says_no(&bytes);
}
