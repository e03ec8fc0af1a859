//! What programs do that is allowed and seldom done, each once found to go wrong.

mod common;

use std::io::Error;
use std::{fs, io};

use common::{Place, Program, Running, User, Watch, not_run, repetitions, work};

/// What the C programs here begin with: `wait_for_line` says that all is set up, and waits.
const BEGINNING: &str = r#"
    #define _GNU_SOURCE
    #include <errno.h>
    #include <fcntl.h>
    #include <pthread.h>
    #include <signal.h>
    #include <stddef.h>
    #include <stdio.h>
    #include <stdlib.h>
    #include <string.h>
    #include <sys/mman.h>
    #include <sys/resource.h>
    #include <sys/stat.h>
    #include <time.h>
    #include <unistd.h>
    #define CHECK(condition) do if (!(condition)) { \
        printf("%d: not so: %s (errno %d)\n", __LINE__, #condition, errno); exit(1); } while (0)
    static void say(const char *text) { puts(text); fflush(stdout); }
    static void wait_for_line(void) { say("ready"); getchar(); }
    __attribute__((unused)) static char *map(int flags, const char *name, size_t length) {
        int fd = name ? open(name, O_RDWR | O_CREAT, 0644) : -1;
        if (name) CHECK(ftruncate(fd, length) == 0);
        char *at = mmap(0, length, PROT_READ | PROT_WRITE, flags, fd, 0);
        CHECK(at != MAP_FAILED);
        if (name) close(fd);
        return at;
    }
    #line 1
"#;

/// A program of which `text` follows [`BEGINNING`].
fn program<'p>(place: &'p Place, name: &str, text: &str) -> Program<'p> {
    place.c("gcc", &["-O1", "-pthread"], name, &format!("{BEGINNING}{text}"))
}

/// Starts `program`, until it waits.
fn waiting(program: &Program) -> Running {
    let mut run = program.start();
    run.expect("ready");
    run.reads_stdin();
    run
}

/// Starts `program`, checkpoints it where it waits, and kills it.
fn checkpointed(program: &Program) {
    let mut run = waiting(program);
    run.checkpoint();
    run.kill();
    assert_eq!(run.errors(), "");
}

/// Lets `run` go on, which must say `done` and end well.
fn goes_on(mut run: Running) {
    run.send("");
    run.expect("done");
    run.ends_well();
}

/// An ordinary user's program of `text` is restarted, and ends well.
fn restarts(text: &str) {
    let place = Place::new(User::Ordinary);
    let program = program(&place, "program", text);
    checkpointed(&program);
    goes_on(program.restart(&program.image));
}

/// `restart-static` must refuse `program` in one line that contains all of `words`.
fn refuses_to_restart(program: &Program, words: &[&str]) {
    program.refuses_to_restart(&program.image, words);
}

/// What a call of the C library between fork and exec returns, as a result.
fn done(result: i64) -> io::Result<i32> {
    if result < 0 { Err(Error::last_os_error()) } else { Ok(result as i32) }
}

/// The kernel may give a signal to any of the threads, and one after the other to all of them.
#[test]
fn a_storm_on_several_threads() {
    let place = Place::new(User::Ordinary);
    let program = program(
        &place,
        "threads",
        r#"
        static void *idle(void *nothing) { for (;;) pause(); }
        int main(void) {
            pthread_t thread;
            for (int i = 0; i < 4; i++) CHECK(pthread_create(&thread, 0, idle, 0) == 0);
            wait_for_line();
            say("done");
            _exit(0);
        }"#,
    );
    let mut run = waiting(&program);
    run.checkpoint();
    run.reads_stdin();
    let threads: Vec<i32> = common::place::names_in(format!("/proc/{}/task", run.pid).as_ref())
        .iter()
        .map(|name| name.parse().expect("a thread id"))
        .collect();
    for thread in threads.iter().cycle().take(repetitions(1000)) {
        // SAFETY: a system call without pointers, on a child that has not been reaped.
        unsafe { libc::syscall(libc::SYS_tgkill, run.pid, *thread, libc::SIGUSR2) };
    }
    run.send("");
    run.expect("done");
    run.ends_well();
    // The last image may be of when it had read its line, or had said the last word.
    let mut run = program.restart(&program.image);
    run.close_input();
    run.ends_well();
    assert!(["done\n", ""].contains(&&*run.all_output()), "{}", run.all_output());
}

/// What is stored whole, and cannot be written to through the mapping, is what it was, whatever has
/// become of the file.
#[test]
fn a_shared_file_that_is_only_read() {
    let place = Place::new(User::Ordinary);
    let program = program(
        &place,
        "reader",
        r#"
        int main(void) {
            int fd = open("data", O_RDONLY);
            char *data = mmap(0, 8192, PROT_READ, MAP_SHARED, fd, 0);
            close(fd);
            wait_for_line();
            for (int i = 0; i < 8192; i++) CHECK(data[i] == 'o');
            say("done");
        }"#,
    )
    .env("CKPT_CONTENT", "all");
    place.file("data", "o".repeat(8192));
    checkpointed(&program);
    goes_on(program.restart(&program.image));
    for other in ["n".repeat(8192), "n".repeat(100)] {
        place.file("data", &other);
        goes_on(program.restart(&program.image));
        assert_eq!(place.text("data"), other);
    }
    fs::remove_file(place.path("data")).expect("removing the data");
    goes_on(program.restart(&program.image));
}

/// The signal of a periodic timer that is pending is one signal, which tells how many there would have
/// been, however often the program is checkpointed; and the timers run on.
#[test]
fn the_pending_signal_of_a_timer() {
    const TEXT: &str = r#"
        static const long long PERIOD = 50 * 1000 * 1000;
        static long long of(struct timespec t) { return t.tv_sec * 1000000000LL + t.tv_nsec; }
        static long long now(void) {
            struct timespec t;
            clock_gettime(CLOCK_MONOTONIC, &t);
            return of(t);
        }
        static timer_t timer(int signal, long long first, long long period) {
            struct sigevent event = { .sigev_notify = SIGEV_SIGNAL, .sigev_signo = signal };
            struct itimerspec time = { { 0, period }, { first / 1000000000, first % 1000000000 } };
            timer_t id;
            CHECK(timer_create(CLOCK_MONOTONIC, &event, &id) == 0);
            CHECK(timer_settime(id, 0, &time, 0) == 0);
            return id;
        }
        int main(void) {
            int often = SIGRTMIN + 5, once = SIGRTMIN + 6;
            struct timespec at_once = { 0, 0 }, patience = { 30, 0 };
            struct itimerspec left;
            sigset_t set, pending;
            siginfo_t info;
            sigemptyset(&set);
            sigaddset(&set, often);
            sigaddset(&set, once);
            sigprocmask(SIG_BLOCK, &set, 0);
            timer_t periodic = timer(often, PERIOD, PERIOD);
            long long begin = now();
            timer_t late = timer(often, 1000000000000LL, 0);
            timer(once, 40 * PERIOD, 0);
            do sigpending(&pending); while (!sigismember(&pending, once));
            long long before = now();
            wait_for_line();

            // One more would be right where the next period ends meanwhile: so not near its end.
            do timer_gettime(periodic, &left); while (of(left.it_value) < PERIOD / 2);
            long long counting = now(), end = counting + of(left.it_value), fired = 0;
            int signals[2] = { 0, 0 };
            while (sigtimedwait(&set, &info, &at_once) > 0 && now() < end) {
                CHECK(info.si_code == SI_TIMER);
                if (info.si_signo == often) fired += 1 + info.si_overrun;
                signals[info.si_signo - often]++;
            }
            CHECK(signals[0] == 1);
            CHECK(signals[1] == 1);
            // The phase may be a little later with every checkpoint.
            if (fired + 2 < (before - begin) / PERIOD || fired > (counting - begin) / PERIOD + 1) {
                printf("fired %lld, %lld to %lld periods\n", fired, (before - begin) / PERIOD,
                    (counting - begin) / PERIOD);
                return 1;
            }
            for (int i = 0; i < 3; i++) {
                CHECK(sigtimedwait(&set, &info, &patience) == often);
                CHECK(info.si_value.sival_int == 0 || info.si_code == SI_TIMER);
            }
            timer_gettime(late, &left);
            CHECK(of(left.it_value) > 0 && of(left.it_value) < 1000000000000LL);
            say("done");
        }"#;
    let place = Place::new(User::Ordinary);
    let program = program(&place, "timers", TEXT);
    let mut run = waiting(&program);
    for _ in 0..5 {
        run.checkpoint();
        run.reads_stdin();
    }
    goes_on(run);
    let mut run = program.restart(&program.image);
    for _ in 0..2 {
        run.reads_stdin();
        run.checkpoint();
    }
    run.kill();
    goes_on(program.restart(&program.image));
}

/// The line about a bad setting must not cost the program its life.
#[test]
fn nobody_reads_of_a_bad_setting() {
    fn break_errors() -> io::Result<()> {
        let mut pipe = [0; 2];
        // SAFETY: system calls between fork and exec, which fill in two numbers that are ours.
        unsafe {
            done(libc::pipe(pipe.as_mut_ptr()).into())?;
            done(libc::dup2(pipe[1], 2).into())?;
            done(libc::close(pipe[0]).into())?;
            done(libc::close(pipe[1]).into())?;
        }
        Ok(())
    }
    let place = Place::new(User::Ordinary);
    let program = place.system("/bin/cat").env("CKPT_SIGNAL", "bogus").before(break_errors);
    let mut run = program.start();
    run.send("unharmed");
    run.expect("unharmed");
    run.close_input();
    run.ends_well();
}

/// Nor must the line about a checkpoint, where the file that it goes to may not become longer.
#[test]
fn the_log_of_errors_is_full() {
    const LENGTH: u64 = 4096;
    fn fill_errors() -> io::Result<()> {
        let limit = libc::rlimit { rlim_cur: LENGTH, rlim_max: LENGTH };
        let flags = libc::O_CREAT | libc::O_RDWR | libc::O_APPEND;
        // SAFETY: system calls between fork and exec, with a constant path and a limit that is ours.
        unsafe {
            let file = done(libc::open(c"errors".as_ptr(), flags, 0o600).into())?;
            done(libc::ftruncate(file, LENGTH as i64).into())?;
            done(libc::dup2(file, 2).into())?;
            done(libc::close(file).into())?;
            done(libc::setrlimit(libc::RLIMIT_FSIZE, &limit).into())?;
        }
        Ok(())
    }
    let place = Place::new(User::Ordinary);
    for (name, value) in [("CKPT_FILE", "nowhere/image"), ("CKPT_SIGNAL", "bogus")] {
        let cat = place.system("/bin/cat").env(name, value);
        let mut run = cat.before(fill_errors).start();
        run.reads_stdin();
        if name == "CKPT_FILE" {
            run.signal(libc::SIGUSR2);
        }
        run.send("unharmed");
        run.expect("unharmed");
        run.close_input();
        run.ends_well();
        assert_eq!(fs::metadata(place.path("errors")).expect("the log").len(), LENGTH);
    }
}

/// However short the interval, there is time for the program, and for other signals. One in which no
/// program could do anything is none.
#[test]
fn hardly_any_interval() {
    const TEXT: &str =
        r#"int main(void) { for (int i = 1;; i++) printf("%d\n", i), fflush(stdout); }"#;
    let place = Place::new(User::Ordinary);
    let program = program(&place, "counter", TEXT);
    for (interval, lines) in [("0.000000001", 1), ("0.001", 0)] {
        let images = Watch::renames(&place.path(""));
        let mut run = program.clone().env("CKPT_INTERVAL", interval).start();
        if lines == 0 {
            run.answer(&images).expect("an image");
        }
        for number in 1..=work(1000) {
            run.expect(&number.to_string());
        }
        run.signal(libc::SIGTERM);
        let status = run.wait();
        assert!(common::killed_by(status, libc::SIGTERM), "{status}");
        assert_eq!(run.errors().matches("CKPT_INTERVAL").count(), lines, "{}", run.errors());
        assert_eq!(run.errors().lines().count(), lines, "{}", run.errors());
    }
}

/// The kernel shows longer paths than it takes. Such a mapping is refused, and leaves no trace.
#[test]
fn a_mapped_file_with_too_long_a_path() {
    let place = Place::new(User::Ordinary);
    let program = program(
        &place,
        "deep",
        r#"
        int main(void) {
            char name[201] = { 0 };
            memset(name, 'a', 200);
            int top = open(".", O_RDONLY | O_DIRECTORY);
            for (int i = 0; i < 25; i++) CHECK(mkdir(name, 0755) == 0 && chdir(name) == 0);
            char *deep = map(MAP_PRIVATE, "data", 65536);
            CHECK(fchdir(top) == 0 && close(top) == 0);
            wait_for_line();
            CHECK(munmap(deep, 65536) == 0);
            wait_for_line();
            say("done");
        }"#,
    )
    .before(soft_limit_of_1024);
    let mut run = waiting(&program);
    let limits = |run: &Running| fs::read_to_string(format!("/proc/{}/limits", run.pid));
    let before = (limits(&run).expect("its limits"), run.descriptors());
    for _ in 0..2 {
        run.refuses(&["name", "too long"]);
        assert_eq!((limits(&run).expect("its limits"), run.descriptors()), before);
    }
    run.send("");
    run.expect("ready");
    run.reads_stdin();
    run.checkpoint();
    run.kill();
    goes_on(program.restart(&program.image));
}

/// A soft limit on descriptors as usual, below a hard one that is as high as it is.
fn soft_limit_of_1024() -> io::Result<()> {
    // SAFETY: the kernel fills in, and reads, a limit that is ours.
    unsafe {
        let mut limit = std::mem::zeroed();
        done(libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit).into())?;
        limit.rlim_cur = 1024;
        done(libc::setrlimit(libc::RLIMIT_NOFILE, &limit).into())?;
    }
    Ok(())
}

/// It names its owner, and the file remembers the old one.
#[test]
fn a_mutex_in_a_shared_file() {
    restarts(
        r#"
        int main(void) {
            pthread_mutex_t *mutex = (void *)map(MAP_SHARED, "data", 4096);
            pthread_mutexattr_t attributes;
            pthread_mutexattr_init(&attributes);
            pthread_mutexattr_settype(&attributes, PTHREAD_MUTEX_ERRORCHECK);
            pthread_mutexattr_setpshared(&attributes, PTHREAD_PROCESS_SHARED);
            CHECK(pthread_mutex_init(mutex, &attributes) == 0);
            CHECK(pthread_mutex_lock(mutex) == 0);
            wait_for_line();
            CHECK(pthread_mutex_lock(mutex) == EDEADLK);
            CHECK(pthread_mutex_unlock(mutex) == 0);
            CHECK(pthread_mutex_unlock(mutex) == EPERM);
            say("done");
        }"#,
    );
}

/// It becomes what it was, and is long enough before anybody touches the memory.
#[test]
fn a_shared_file_that_was_truncated() {
    let place = Place::new(User::Ordinary);
    let program = program(
        &place,
        "writer",
        r#"
        int main(void) {
            char *data = map(MAP_SHARED, "data", 65536);
            memset(data, 'd', 65536);
            wait_for_line();
            for (int i = 0; i < 65536; i++) CHECK(data[i] == 'd');
            say("done");
        }"#,
    );
    checkpointed(&program);
    for rest in [0, 5000] {
        place.file("data", "x".repeat(rest));
        goes_on(program.restart(&program.image));
        assert!(place.text("data") == "d".repeat(65536), "the file is not what it was");
    }
}

/// The clocks of this thread and of this process have its id in their number.
#[test]
fn timers_of_cpu_time() {
    restarts(
        r#"
        int main(void) {
            clockid_t clocks[2];
            timer_t timers[2];
            CHECK(pthread_getcpuclockid(pthread_self(), &clocks[0]) == 0);
            CHECK(clock_getcpuclockid(getpid(), &clocks[1]) == 0);
            signal(SIGUSR1, SIG_IGN);
            sigset_t set;
            sigemptyset(&set);
            sigaddset(&set, SIGUSR1);
            sigprocmask(SIG_BLOCK, &set, 0);
            for (int i = 0; i < 2; i++) {
                struct sigevent event = { .sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGUSR1 };
                struct itimerspec time = { { 0, 0 }, { i * 1000, 1000000 } };
                CHECK(timer_create(clocks[i], &event, &timers[i]) == 0);
                if (i == 1) CHECK(timer_settime(timers[i], 0, &time, 0) == 0);
            }
            wait_for_line();
            struct itimerspec left, soon = { { 0, 0 }, { 0, 1000000 } };
            CHECK(timer_gettime(timers[0], &left) == 0 && left.it_value.tv_nsec == 0);
            CHECK(timer_gettime(timers[1], &left) == 0 && left.it_value.tv_sec > 900);
            signal(SIGUSR1, SIG_DFL);
            for (int i = 0; i < 2; i++) {
                sigset_t pending;
                int number;
                CHECK(timer_settime(timers[i], 0, &soon, 0) == 0);
                do sigpending(&pending); while (!sigismember(&pending, SIGUSR1));
                CHECK(sigwait(&set, &number) == 0);
            }
            say("done");
        }"#,
    );
}

/// The files that restart-static opens to map them do not count among the program's.
#[test]
fn hardly_any_descriptors_allowed() {
    restarts(
        r#"
        int main(void) {
            char *data = map(MAP_SHARED, "data", 65536);
            memset(data, 7, 65536);
            struct rlimit limit = { 3, 8 };
            CHECK(setrlimit(RLIMIT_NOFILE, &limit) == 0);
            wait_for_line();
            CHECK(data[65535] == 7);
            CHECK(getrlimit(RLIMIT_NOFILE, &limit) == 0);
            CHECK(limit.rlim_cur == 3 && limit.rlim_max == 8);
            say("done");
        }"#,
    );
}

/// A descriptor that the program may have, although the restart's soft limit does not allow it.
#[test]
fn a_descriptor_beyond_the_soft_limit() {
    let place = Place::new(User::Ordinary);
    let program = program(
        &place,
        "descriptors",
        r#"
        int main(void) {
            struct rlimit limit;
            getrlimit(RLIMIT_NOFILE, &limit);
            CHECK(limit.rlim_cur == 1024);
            limit.rlim_cur = 4000;
            CHECK(setrlimit(RLIMIT_NOFILE, &limit) == 0);
            int fd = open("/etc/passwd", O_RDONLY);
            CHECK(dup2(fd, 3000) == 3000);
            wait_for_line();
            CHECK(fcntl(3000, F_GETFD) == 0);
            CHECK(lseek(3000, 5, SEEK_SET) == 5 && lseek(fd, 0, SEEK_CUR) == 5);
            getrlimit(RLIMIT_NOFILE, &limit);
            CHECK(limit.rlim_cur == 4000);
            say("done");
        }"#,
    )
    .before(soft_limit_of_1024);
    checkpointed(&program);
    goes_on(program.restart(&program.image));
}

/// Shared memory of no file must be writable to be filled in, also if it became read-only later.
#[test]
fn shared_memory_that_became_read_only() {
    restarts(
        r#"
        int main(void) {
            int zero = open("/dev/zero", O_RDONLY), fd = memfd_create("memory", 0);
            CHECK(ftruncate(fd, 65536) == 0);
            char *memory[] = {
                map(MAP_SHARED | MAP_ANONYMOUS, 0, 65536),
                mmap(0, 65536, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0),
            };
            close(fd);
            for (int i = 0; i < 2; i++) {
                memset(memory[i], 7 + i, 65536);
                CHECK(mprotect(memory[i], 65536, PROT_READ) == 0);
            }
            wait_for_line();
            for (int i = 0; i < 2; i++) {
                for (int at = 0; at < 65536; at++) CHECK(memory[i][at] == 7 + i);
                CHECK(read(zero, memory[i], 1) == -1 && errno == EFAULT);
                CHECK(mprotect(memory[i], 65536, PROT_READ | PROT_WRITE) == 0);
                memory[i][0] = 1;
            }
            say("done");
        }"#,
    );
}

/// All of it is in memory again; the library's guard pages, which cannot be, are no news.
#[test]
fn memory_that_is_locked() {
    let place = Place::new(User::everyone()[0]);
    if place.user != User::Root {
        return not_run("memory that is locked: only root may lock as much as it likes");
    }
    let program = program(
        &place,
        "locked",
        r#"
        int main(void) {
            CHECK(mlockall(MCL_CURRENT | MCL_FUTURE) == 0);
            map(MAP_PRIVATE | MAP_ANONYMOUS, 0, 1 << 20);
            wait_for_line();
            say("done");
        }"#,
    );
    let locked = |run: &Running| {
        let status = fs::read_to_string(format!("/proc/{}/status", run.pid)).expect("its status");
        status.lines().find(|line| line.starts_with("VmLck:")).expect("a line").to_owned()
    };
    let mut run = waiting(&program);
    let before = locked(&run);
    assert!(!before.ends_with(" 0 kB"), "{before}");
    run.checkpoint();
    run.kill();
    let mut run = program.restart(&program.image);
    run.reads_stdin();
    assert_eq!(locked(&run), before);
    goes_on(run);
}

/// The lowest free descriptor is 0, then; the image must not become what the program reads.
#[test]
fn the_restart_has_no_standard_input() {
    let place = Place::new(User::Ordinary);
    let program = program(
        &place,
        "reader",
        r#"
        int main(void) {
            char first;
            say("ready");
            CHECK(read(0, &first, 1) == -1 && errno == EBADF);
            CHECK(fcntl(0, F_GETFD) == -1 && errno == EBADF);
            say("done");
        }"#,
    );
    checkpointed(&program);
    let without = ["-c", "exec \"$0\" \"$@\" <&-"];
    let mut run = program.clone().wrapped("/bin/sh", &without).restart(&program.image);
    run.expect("done");
    run.ends_well();
}

/// The file of that name is longer than the program's was, and none of its business.
#[test]
fn a_log_that_was_rotated() {
    let place = Place::new(User::Ordinary);
    let program = program(
        &place,
        "logger",
        r#"
        int main(void) {
            int log = open("log", O_WRONLY | O_CREAT | O_APPEND, 0644);
            CHECK(write(log, "first\n", 6) == 6);
            wait_for_line();
            CHECK(write(log, "more\n", 5) == 5);
            say("done");
        }"#,
    );
    checkpointed(&program);
    fs::rename(place.path("log"), place.path("log.1")).expect("rotating");
    place.file("log", "something else, and longer\n");
    refuses_to_restart(&program, &["log", "another file"]);
    assert_eq!(place.text("log"), "something else, and longer\n");
    assert_eq!(place.text("log.1"), "first\n");
    fs::rename(place.path("log.1"), place.path("log")).expect("putting it back");
    goes_on(program.restart(&program.image));
    assert_eq!(place.text("log"), "first\nmore\n");
}

/// Such a file still has a name, but not one that is known.
#[test]
fn an_open_file_under_another_name() {
    let place = Place::new(User::Ordinary);
    let program = program(
        &place,
        "linker",
        r#"
        int main(void) {
            CHECK(open("data", O_RDWR | O_CREAT, 0644) == 3);
            CHECK(link("data", "elsewhere/other") == 0 && unlink("data") == 0);
            wait_for_line();
            say("done");
        }"#,
    );
    place.directory("elsewhere");
    let mut run = waiting(&program);
    run.refuses(&["data", "no longer"]);
    // Another one of that name is none of the program's either.
    place.file("data", "something else");
    run.refuses(&["data", "no longer"]);
    run.send("");
    run.expect("done");
    assert!(run.wait().success());
}

/// A restart would write to what the other process has in its memory.
#[test]
fn a_file_that_two_processes_write() {
    let place = Place::new(User::Ordinary);
    let program = program(
        &place,
        "writer",
        r#"
        int main(void) {
            char *data = map(MAP_SHARED, "data", 8192);
            data[0]++;
            wait_for_line();
            say("done");
        }"#,
    );
    let mut run = waiting(&program);
    let mut other = program.start_bare();
    other.expect("ready");
    run.refuses(&["data"]);
    other.kill();
    run.checkpoint();
    run.kill();
    goes_on(program.restart(&program.image));
}

/// Where kcmp(2) may not be asked, two descriptors that are opened differently are not one.
#[test]
fn two_ways_of_opening_a_file() {
    restarts(
        r#"
        #include <linux/filter.h>
        #include <linux/seccomp.h>
        #include <sys/prctl.h>
        #include <sys/syscall.h>
        int main(void) {
            struct sock_filter filter[] = {
                BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
                BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_kcmp, 0, 1),
                BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
                BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
            };
            struct sock_fprog program = { 4, filter };
            char byte = 0;
            CHECK(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0);
            CHECK(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0);
            CHECK(syscall(SYS_kcmp, getpid(), getpid(), 0, 0, 0) == -1 && errno == EPERM);
            close(open("data", O_RDWR | O_CREAT, 0644));
            int in = open("data", O_RDONLY), out = open("data", O_WRONLY | O_APPEND);
            wait_for_line();
            CHECK(write(out, "x", 1) == 1);
            CHECK(read(in, &byte, 1) == 1 && byte == 'x');
            CHECK(write(in, "y", 1) == -1 && read(out, &byte, 1) == -1);
            CHECK(dup(in) == out + 1);
            say("done");
        }"#,
    );
}
