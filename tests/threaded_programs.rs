//! Programs of many threads in the languages and libraries that people write them in: each is
//! checkpointed at work, killed with SIGKILL and restarted, and its output equals that of a run nobody
//! disturbed.

mod common;

use std::fs;
use std::process::Command;

use common::place::run;
use common::{Program, Stream, cargo, each_user, not_run, words, work};

/// A program that writes lines to a file, and sleeps for `PACE` milliseconds after each, is struck twice:
/// in its first life and in the second.
fn survives(program: Program) {
    let undisturbed = program.clone().env("PACE", "0").undisturbed("");
    assert!(undisturbed.lines().count() >= 40, "{undisturbed}");
    let program = program.env("PACE", "10").into_file("output");
    let file = program.place.path("output");
    let mut first = program.start();
    first.lines_in(&file, 5);
    let image = first.checkpoint();
    first.lines_in(&file, 10);
    first.kill();
    assert_eq!(first.errors(), "");

    let mut second = program.restart(&image);
    second.lines_in(&file, 15);
    let image = second.checkpoint();
    second.kill();
    assert_eq!(second.errors(), "");

    for options in [&[][..], &["--ids=new"]] {
        let mut third = program.restart_with(options, &image);
        third.ends_well();
        assert_eq!(program.place.text("output"), undisturbed);
    }
}

fn threads_of(pid: i32) -> usize {
    fs::read_dir(format!("/proc/{pid}/task")).map_or(0, |tasks| tasks.count())
}

fn python(script: &str) {
    each_user(|place| survives(place.system("/usr/bin/python3").args(["-c", script])));
}

#[test]
fn python_threads_and_queues() {
    python(
        r#"
import hashlib, os, queue, threading, time
tasks, results, gate = queue.Queue(8), queue.PriorityQueue(), threading.Barrier(4)
local, lock, total = threading.local(), threading.RLock(), 0
def work(number):
    global total
    local.count = 0
    gate.wait()
    while (task := tasks.get(timeout=600)) is not None:
        local.count += 1
        digest = hashlib.sha256(str(task).encode() * 3000).hexdigest()
        with lock, lock: total += int(digest, 16)
        results.put((task, digest))
        time.sleep(0.001)
workers = [threading.Thread(target=work, args=[n], name="worker %d" % n) for n in range(4)]
for worker in workers: worker.start()
def feed():
    for n in range(400): tasks.put(n)
    for worker in workers: tasks.put(None)
feeder = threading.Thread(target=feed); feeder.start()
for n in range(40):
    print(n, [results.get()[1][:4] for i in range(10)] and len(workers), flush=True)
    time.sleep(int(os.environ["PACE"]) / 1000)
for worker in workers: worker.join()
feeder.join()
print(total, threading.active_count(), threading.current_thread().name)
"#,
    );
}

#[test]
fn python_futures() {
    python(
        r#"
from concurrent.futures import ThreadPoolExecutor, as_completed
import os, threading, time, zlib
event, condition, turn = threading.Event(), threading.Condition(), 0
def work(n):
    time.sleep(0.002)
    return zlib.crc32(b"%d" % n * 20000)
def in_turn(n):
    global turn
    with condition:
        condition.wait_for(lambda: turn == n, timeout=600)
        turn += 1
        condition.notify_all()
    return n
with ThreadPoolExecutor(8) as pool:
    for batch in range(40):
        futures = [pool.submit(work, batch * 100 + n) for n in range(10)]
        print(batch, sum(f.result() for f in as_completed(futures)), flush=True)
        time.sleep(int(os.environ["PACE"]) / 1000)
with ThreadPoolExecutor(8) as pool:
    print(list(pool.map(in_turn, range(8))))
"#,
    );
}

#[test]
fn python_sqlite3() {
    python(
        r#"
import os, sqlite3, threading, time
shared, lock = sqlite3.connect(":memory:", check_same_thread=False), threading.Lock()
shared.execute("create table t(n integer primary key, worker integer, square integer)")
steps = [threading.Semaphore(0) for n in range(3)]
done = threading.Semaphore(0)
def work(number):
    own = sqlite3.connect(":memory:")
    own.execute("create table mine(n integer, name text)")
    for step in range(40):
        steps[number].acquire()
        own.executemany("insert into mine values (?, ?)",
                        [(n, "%x" % (n * 7919)) for n in range(step * 500, step * 500 + 500)])
        (count, longest), = own.execute("select count(*), max(name) from mine")
        with lock, shared:
            shared.execute("insert into t values (?, ?, ?)", (step * 3 + number, number, count ** 2))
        done.release()
for n in range(3): threading.Thread(target=work, args=[n]).start()
for step in range(40):
    for s in steps: s.release()
    for s in steps: done.acquire()
    with lock: print(step, *shared.execute("select count(*), sum(square) from t").fetchone(), flush=True)
    time.sleep(int(os.environ["PACE"]) / 1000)
"#,
    );
}

#[test]
fn openmp() {
    const PROGRAM: &str = r#"
#include <omp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
static uint64_t mix(uint64_t x) { x *= 0x9e3779b97f4a7c15; return x ^ x >> 29; }
int main(void) {
    static uint64_t table[4096];
    omp_set_num_threads(4);
    for (int round = 0; round < 100; round++) {
        uint64_t sum = 0;
        #pragma omp parallel for schedule(dynamic, 64) reduction(^ : sum)
        for (int i = 0; i < 4096; i++) {
            for (int n = 0; n < 100; n++) table[i] = mix(table[i] + i + n);
            sum ^= table[i];
        }
        #pragma omp parallel sections reduction(+ : sum)
        {
            #pragma omp section
            sum += table[1];
            #pragma omp section
            sum += table[2];
        }
        printf("%d %016llx\n", round, (unsigned long long)sum);
        fflush(stdout);
        usleep(1000 * atoi(getenv("PACE")));
    }
}
"#;
    each_user(|place| {
        let program = place.c("gcc", &["-O2", "-fopenmp"], "openmp", PROGRAM);
        // Between two rounds the threads spin, or sleep.
        for policy in ["active", "passive"] {
            survives(program.clone().env("OMP_WAIT_POLICY", policy));
        }
    });
}

#[test]
fn cpp() {
    each_user(|place| {
        survives(place.compiled("g++", "tasks"));
    });
}

#[test]
fn rust() {
    const PROGRAM: &str = r#"
use std::sync::{Arc, Barrier, Condvar, Mutex, RwLock, mpsc};
use std::{cell::Cell, thread, time::Duration};
thread_local!(static OWN: Cell<u64> = const { Cell::new(0) });
fn work(seed: u64) -> u64 {
    OWN.set(seed);
    for n in 0..20_000 { OWN.set((OWN.get() ^ n).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(7)) }
    OWN.get()
}
fn main() {
    let shared = Arc::new((Mutex::new(0u64), Condvar::new(), RwLock::new(0u64), Barrier::new(3)));
    let (ask, asked) = mpsc::sync_channel::<u64>(2);
    let (answer, answers) = mpsc::channel();
    let server = thread::Builder::new().name("server".into()).spawn(move || {
        for seed in asked { answer.send(work(seed)).unwrap() }
        thread::current().name().map(String::from)
    }).unwrap();
    for round in 0..100u64 {
        let slices: Vec<u64> = thread::scope(|scope| {
            let threads: Vec<_> = (0..3).map(|n| {
                let shared = &shared;
                scope.spawn(move || {
                    let value = work(round * 10 + n);
                    shared.3.wait();
                    *shared.2.write().unwrap() ^= value;
                    let mut turn = shared.0.lock().unwrap();
                    while *turn % 3 != n {
                        turn = shared.1.wait_timeout(turn, Duration::from_secs(600)).unwrap().0;
                    }
                    *turn += 1;
                    shared.1.notify_all();
                    value
                })
            }).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        ask.send(round).unwrap();
        let caught = thread::spawn(|| { std::panic::set_hook(Box::new(|_| {})); panic!("7") }).join();
        println!("{round} {slices:?} {} {} {}", answers.recv().unwrap(),
                 shared.2.read().unwrap(), caught.unwrap_err().is::<&str>());
        thread::sleep(Duration::from_millis(std::env::var("PACE").unwrap().parse().unwrap()));
    }
    drop(ask);
    println!("{:?}", server.join().unwrap());
}
"#;
    let Some(rustc) = cargo::rustc() else {
        return not_run("threads of a program in Rust: there is no compiler to make it");
    };
    each_user(|place| {
        let source = place.file("program.rs", PROGRAM);
        let program = place.path("program");
        let target = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
        run(Command::new(&rustc)
            .args(["--edition", "2024", "-O", "--target", &target, "-o"])
            .args([&program, &source]));
        survives(Program::new(place, program));
    });
}

#[test]
fn rayon() {
    each_user(|place| survives(place.target("parallel")));
}

/// A program whose threads come when it has begun to read its input is struck when they are there.
fn survives_at_work(program: Program, threads: usize) {
    program.start_bare().ends_well();
    let output = || fs::read(program.place.path("output")).expect("the output");
    let undisturbed = output();
    let mut first = program.start();
    let pid = first.pid;
    first.has_read(1);
    while threads_of(pid) < threads {
        assert!(!first.has_ended(), "it has not made threads");
        std::thread::yield_now();
    }
    let image = first.checkpoint();
    first.kill();
    assert_eq!(first.errors(), "");
    for options in [&[][..], &["--ids=new"]] {
        program.restart_with(options, &image).ends_well();
        assert!(output() == undisturbed);
    }
}

#[test]
fn sort() {
    each_user(|place| {
        // With many fewer it makes no threads.
        let input = place.file("input", words(work(1_000_000).max(300_000)));
        let sort = place.system("/usr/bin/sort").stdin(Stream::File(input));
        survives_at_work(sort.args(["--parallel=4", "-n", "-k", "1"]).into_file("output"), 3);
    });
}

/// Its threads wake it by a pipe.
#[test]
fn xz() {
    each_user(|place| {
        let input = place.file("input", words(work(300_000).max(100_000)));
        let xz = place.system("/usr/bin/xz").stdin(Stream::File(input));
        survives_at_work(
            xz.args(["-T2", "-1", "--block-size=256KiB", "-c"]).into_file("output"),
            3,
        );
    });
}
