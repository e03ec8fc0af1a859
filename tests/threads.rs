//! Programs of many threads: each thread is in a state of its own when the checkpoint is taken, and
//! finds itself in it afterwards, in the same process and in the next ones.

mod common;

use common::{Place, Program, User, each_user, generations, killed_by, repetitions, work};

/// The targets, each with how many roles a thread can have in it.
const CREWS: [(&str, usize); 3] = [("thread_waits", 8), ("thread_locks", 7), ("thread_selves", 7)];

/// Without `--ids`: with the same ids, if that is possible.
const SAME_IDS: &[&str] = &[];
const NEW_IDS: &[&str] = &["--ids=new"];

/// A crew of `threads`, of which the first has role `first`, through three generations.
fn survives(program: &Program, threads: usize, first: usize, options: &[&str]) {
    let name = program.command.file_name().expect("a name").display();
    println!("{name}, {threads} threads, from role {first}");
    let program = program.clone().args([threads, first].map(|number| number.to_string()));
    let mut run = generations(&program, 3, options);
    run.quit();
    assert_eq!(run.errors(), "");
}

fn each_role_alone(compiler: &str) {
    let place = Place::new(User::Ordinary);
    for (crew, roles) in CREWS {
        let program = place.compiled(compiler, crew);
        for role in 0..roles {
            survives(&program, 1, role, SAME_IDS);
        }
    }
}

#[test]
fn each_role_alone_with_glibc() {
    each_role_alone("gcc");
}

#[test]
fn each_role_alone_with_musl() {
    each_role_alone("musl-gcc");
}

/// So many threads that each role is there several times.
fn many() -> usize {
    work(64).max(16)
}

fn crews(compiler: &str) {
    each_user(|place| {
        for (crew, _) in CREWS {
            let program = place.compiled(compiler, crew);
            survives(&program, 8, 0, SAME_IDS);
            survives(&program, many(), 0, SAME_IDS);
        }
    });
}

#[test]
fn crews_with_glibc() {
    crews("gcc");
}

#[test]
fn crews_with_musl() {
    crews("musl-gcc");
}

fn a_thousand(compiler: &str) {
    let place = Place::new(User::Ordinary);
    for (crew, _) in CREWS {
        survives(&place.compiled(compiler, crew), work(1000), 0, SAME_IDS);
    }
}

#[test]
fn a_thousand_threads_with_glibc() {
    a_thousand("gcc");
}

#[test]
fn a_thousand_threads_with_musl() {
    a_thousand("musl-gcc");
}

/// The C library is told the new ids, and the locks their owners'.
#[test]
fn with_new_ids() {
    each_user(|place| {
        for (crew, roles) in CREWS {
            survives(&place.compiled("musl-gcc", crew), many(), 0, NEW_IDS);
            let glibc = place.compiled("gcc", crew);
            if crew == "thread_locks" {
                // A thread that waits for a robust mutex takes it in the name of the id that it had
                // before (docs/limits.md): so not with one of each kind.
                for role in 0..roles {
                    survives(&glibc, 1, role, NEW_IDS);
                }
            } else {
                survives(&glibc, many(), 0, NEW_IDS);
            }
        }
    });
}

#[test]
fn a_hundred_generations() {
    let place = Place::new(User::Ordinary);
    for (crew, _) in CREWS {
        let program = place.compiled("gcc", crew).args(["8"]);
        let mut run = generations(&program, repetitions(100), SAME_IDS);
        run.quit();
        assert_eq!(run.errors(), "");
    }
}

/// One checkpoint after the other, without a restart: every request is served.
#[test]
fn a_hundred_checkpoints() {
    let place = Place::new(User::Ordinary);
    for compiler in ["gcc", "musl-gcc"] {
        for (crew, roles) in CREWS {
            let program = place.compiled(compiler, crew).args([roles.to_string()]);
            let mut run = program.start();
            run.expect("ready");
            for checkpoint in 1..=repetitions(100) {
                run.checkpoint();
                if checkpoint % 10 == 0 {
                    run.check();
                }
            }
            run.kill();
            assert_eq!(run.errors(), "");
            let mut run = program.restart(&program.image);
            run.check();
            run.quit();
        }
    }
}

/// What the C programs here begin with. `next_line` reads a line and answers with another.
const BEGINNING: &str = r#"
    #define _GNU_SOURCE
    #include <pthread.h>
    #include <signal.h>
    #include <stdatomic.h>
    #include <stdio.h>
    #include <stdlib.h>
    #include <string.h>
    #include <sys/syscall.h>
    #include <unistd.h>
    static void say(const char *text) { puts(text); fflush(stdout); }
    __attribute__((unused)) static void next_line(const char *expected, const char *answer) {
        char line[100];
        if (read(0, line, strlen(expected) + 1) <= 0 || strncmp(line, expected, strlen(expected)))
            abort();
        say(answer);
    }
"#;

/// A program of which `text` follows [`BEGINNING`].
fn program<'p>(place: &'p Place, compiler: &str, text: &str) -> Program<'p> {
    place.c(compiler, &["-O1", "-g", "-pthread"], "program", &format!("{BEGINNING}{text}"))
}

/// A thread that blocks every signal behind the C library's back cannot be stopped: that is said, and
/// nothing else happens, then or later.
#[test]
fn a_thread_that_blocks_everything() {
    for compiler in ["gcc", "musl-gcc"] {
        each_user(|place| {
            let program = program(
                place,
                compiler,
                r#"
                static atomic_int blocked, may_go, open_again;
                static void set_mask(unsigned long mask) {
                    if (syscall(SYS_rt_sigprocmask, SIG_SETMASK, &mask, 0, 8) != 0) abort();
                }
                static void *block(void *nothing) {
                    set_mask(~0ul);
                    blocked = 1;
                    while (!may_go) {}
                    set_mask(0);
                    open_again = 1;
                    for (;;) pause();
                }
                static void *idle(void *nothing) { for (;;) pause(); }
                int main(void) {
                    pthread_t thread;
                    pthread_create(&thread, 0, idle, 0);
                    pthread_create(&thread, 0, block, 0);
                    while (!blocked) {}
                    say("ready");
                    next_line("go", "going");
                    may_go = 1;
                    while (!open_again) {}
                    next_line("check", "ok");
                    next_line("check", "ok");
                    next_line("check", "ok");
                    exit(0);
                }"#,
            )
            .env("CKPT_STOP_TIMEOUT", "1");
            let mut run = program.start();
            run.expect("ready");
            run.reads_stdin();
            let threads = common::place::names_in(format!("/proc/{}/task", run.pid).as_ref());
            let line = run.refuses(&["thread ", "CKPT_STOP_TIMEOUT"]);
            let named = line.split("thread ").nth(1).and_then(|rest| rest.split(' ').next());
            assert!(threads.iter().any(|thread| Some(&**thread) == named), "{line}");
            run.refuses(&["thread "]);
            run.send("go");
            run.expect("going");
            run.check();
            run.reads_stdin();
            assert!(!run.image().exists());
            run.checkpoint();
            run.check();
            run.kill();
            let mut run = program.restart(&program.image);
            run.check();
            run.check();
            assert!(run.wait().success());
            assert_eq!(run.errors(), "");
        });
    }
}

/// The first thread of a process may end before the others; the process is then there without it.
#[test]
fn a_first_thread_that_has_ended() {
    for compiler in ["gcc", "musl-gcc"] {
        each_user(|place| {
            let program = program(
                place,
                compiler,
                r#"
                static pthread_t first;
                static void *other(void *nothing) { for (;;) pause(); }
                static void *last(void *nothing) {
                    pthread_join(first, 0);
                    say("ready");
                    for (int i = 0; i < 8; i++) next_line("check", "ok");
                    exit(7);
                }
                int main(void) {
                    pthread_t thread;
                    first = pthread_self();
                    pthread_create(&thread, 0, other, 0);
                    pthread_create(&thread, 0, last, 0);
                    pthread_exit(0);
                }"#,
            );
            for options in [SAME_IDS, NEW_IDS] {
                let mut run = program.start();
                run.expect("ready");
                for _ in 0..3 {
                    run.check();
                    run.checkpoint();
                    run.check();
                    run.kill();
                    assert_eq!(run.errors(), "");
                    run = program.restart_with(options, &program.image);
                }
                for _ in 0..5 {
                    run.check();
                }
                let status = run.wait();
                assert_eq!((status.code(), &*run.errors()), (Some(7), ""), "{status}");
            }
        });
    }
}

/// A thread's fault, and its `abort`, end the process as ever.
#[test]
fn the_end_is_the_threads() {
    for (compiler, end, signal) in [
        ("gcc", "abort()", libc::SIGABRT),
        ("musl-gcc", "abort()", libc::SIGABRT),
        ("gcc", "*(volatile int *)8 = 1", libc::SIGSEGV),
        ("musl-gcc", "pthread_kill(main_thread, SIGTERM)", libc::SIGTERM),
    ] {
        each_user(|place| {
            let text = r#"
                static pthread_t main_thread;
                static void *last(void *nothing) {
                    say("ready");
                    next_line("check", "ok");
                    END;
                    for (;;) pause();
                }
                int main(void) {
                    pthread_t thread;
                    main_thread = pthread_self();
                    pthread_create(&thread, 0, last, 0);
                    pthread_join(thread, 0);
                }"#;
            let program = program(place, compiler, &text.replace("END", end))
                .limit(libc::RLIMIT_CORE as i32, 0);
            for options in [SAME_IDS, NEW_IDS] {
                let mut run = program.start();
                run.expect("ready");
                run.checkpoint();
                run.kill();
                let mut run = program.restart_with(options, &program.image);
                run.check();
                let status = run.wait();
                assert!(killed_by(status, signal), "{end}: {status}");
            }
        });
    }
}

/// Timers that expire in threads, which the C library makes by way of one that blocks nearly all signals.
/// After a restart they go on, can be set anew, and further ones can be made; the latter with glibc only
/// where that thread has its old id (docs/limits.md).
#[test]
fn timers_that_make_threads() {
    const TEXT: &str = r#"
        #include <errno.h>
        #include <time.h>
        static atomic_int fired[4];
        static void fire(union sigval value) { fired[value.sival_int]++; }
        static timer_t make(int number) {
            struct sigevent event = { .sigev_notify = SIGEV_THREAD, .sigev_notify_function = fire };
            event.sigev_value.sival_int = number;
            timer_t timer;
            if (timer_create(CLOCK_MONOTONIC, &event, &timer) != 0) {
                printf("timer_create: %s\n", strerror(errno));
                exit(1);
            }
            return timer;
        }
        static void start(timer_t timer, long interval) {
            struct itimerspec time = { {0, interval}, {0, 1000000} };
            timer_settime(timer, 0, &time, 0);
        }
        static void await(int number) {
            int before = fired[number];
            while (fired[number] < before + 1) usleep(1000);
        }
        int main(void) {
            timer_t again = make(0), once = make(1);
            start(again, 2000000);
            say("ready");
            for (char line[100]; fgets(line, sizeof line, stdin); ) {
                await(0);
                start(once, 0);
                await(1);
                if (strcmp(line, "more\n") == 0) {
                    start(make(2), 0);
                    await(2);
                }
                say(strcmp(line, "quit\n") == 0 ? "done" : "ok");
            }
        }"#;
    for compiler in ["gcc", "musl-gcc"] {
        each_user(|place| {
            let program = program(place, compiler, TEXT);
            for options in [SAME_IDS, NEW_IDS] {
                let mut run = generations(&program, 5, options);
                for _ in 0..repetitions(20) {
                    run.checkpoint();
                }
                if compiler != "gcc" || options == SAME_IDS {
                    run.send("more");
                    run.expect("ok");
                }
                run.send("quit");
                run.expect("done");
                run.close_input();
                run.ends_well();
            }
        });
    }
}

/// A child that one thread makes while another takes the checkpoint is not overlooked: there is an
/// image only of an instant without one.
#[test]
fn threads_that_make_children() {
    let place = Place::new(User::Ordinary);
    for compiler in ["gcc", "musl-gcc"] {
        let program = place.compiled(compiler, "thread_forks").args([work(1000).to_string()]);
        for _ in 0..repetitions(5) {
            let mut run = program.start();
            run.expect("start");
            while let Err(refusal) = run.ask() {
                assert!(refusal.contains("child"), "{refusal}");
            }
            run.kill();
            let mut run = program.restart(&program.image);
            run.expect(&(3 * work(1000)).to_string());
            run.ends_well();
        }
    }
}
