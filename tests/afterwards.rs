//! A restarted program is a process like any other: it starts other programs, forks, waits, runs
//! threads, executes another program in its place, is traced and stopped.

mod common;

use common::{Program, Running, each_user};

/// Starts `program`, which prints `ready` and reads, and restarts it in a second life.
fn second_life(program: &Program) -> Running {
    let mut run = program.start();
    run.expect("ready");
    run.reads_stdin();
    run.checkpoint();
    run.kill();
    program.restart(&program.image)
}

/// Runs python's `script` after a restart; it must print `lines`.
fn python(script: &str, lines: &[&str]) {
    let script = format!(
        "import os, sys, signal, socket, subprocess, threading, time\n\
         print('ready', flush=True); input()\n{script}"
    );
    each_user(|place| {
        let mut run = second_life(&place.system("/usr/bin/python3").args(["-c", &script]));
        run.send("");
        for line in lines {
            run.expect(line);
        }
        run.ends_well();
    });
}

#[test]
fn it_starts_programs() {
    python(
        "print(subprocess.run(['/bin/echo', 'hello'], capture_output=True).stdout)\n\
         print(subprocess.run('exit 7', shell=True).returncode)\n\
         print(os.popen('echo word | tr a-z A-Z').read().strip())",
        &["b'hello\\n'", "7", "WORD"],
    );
}

#[test]
fn it_forks_and_waits() {
    python(
        "child = os.fork()\n\
         if child == 0: os._exit(3)\n\
         pid, status = os.wait(); print(pid == child, os.waitstatus_to_exitcode(status))",
        &["True 3"],
    );
}

#[test]
fn it_runs_threads() {
    python(
        "found = []; lock = threading.Lock()\n\
         def work(n):\n    \
             with lock: found.append(n * n)\n\
         threads = [threading.Thread(target=work, args=[n]) for n in range(20)]\n\
         for thread in threads: thread.start()\n\
         for thread in threads: thread.join()\n\
         print(sum(found), threading.active_count())",
        &["2470 1"],
    );
}

#[test]
fn it_takes_signals() {
    python(
        "rung = set(); signal.signal(signal.SIGALRM, lambda *_: rung.add('alarm'))\n\
         signal.setitimer(signal.ITIMER_REAL, 0.01, 0.01); signal.pause()\n\
         signal.setitimer(signal.ITIMER_REAL, 0); print(*rung)\n\
         print(signal.sigtimedwait([signal.SIGUSR1], 0.01))\n\
         signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])\n\
         signal.raise_signal(signal.SIGUSR1)\n\
         info = signal.sigwaitinfo([signal.SIGUSR1]); print(info.si_pid == os.getpid())",
        &["alarm", "None", "True"],
    );
}

#[test]
fn it_opens_sockets() {
    python(
        "a, b = socket.socketpair(); a.send(b'through'); print(b.recv(100).decode())",
        &["through"],
    );
}

#[test]
fn it_executes_another_program() {
    python("os.execv('/bin/echo', ['echo', 'another program'])", &["another program"]);
}

/// The one that it executes is under the library again, since the environment says so.
#[test]
fn what_it_executes_can_be_checkpointed() {
    const SCRIPT: &str = "echo ready; read line; exec /bin/cat";
    each_user(|place| {
        let program = place.system("/bin/bash").args(["-c", SCRIPT]);
        let mut run = second_life(&program);
        run.send("to bash");
        run.send("to cat");
        run.expect("to cat");
        run.reads_stdin();
        run.checkpoint();
        run.kill();
        let mut run = program.restart(&program.image);
        run.send("to cat again");
        run.expect("to cat again");
        run.close_input();
        run.ends_well();
    });
}

#[test]
fn bash_runs_commands() {
    const SCRIPT: &str = "
echo ready; read line
for word in one two three; do /bin/echo $word; done
four=$(/bin/echo four | /bin/cat); echo $four
/bin/true & wait $!; echo $?
( exit 5 ); echo $?
";
    each_user(|place| {
        let mut run = second_life(&place.system("/bin/bash").args(["-c", SCRIPT]));
        run.send("");
        for line in ["one", "two", "three", "four", "0", "5"] {
            run.expect(line);
        }
        run.ends_well();
    });
}

#[test]
fn it_can_be_debugged() {
    each_user(|place| {
        let program = place.target("identity").args([place.directory("files")]);
        let mut run = second_life(&program);
        run.reads_stdin();
        let gdb = std::process::Command::new("gdb")
            .args(["-nx", "-batch", "-iex", "set debuginfod enabled off"])
            .args(["-ex", "bt -5", "-p", &run.pid.to_string()])
            .arg(&program.command)
            .output()
            .expect("gdb is needed; see .ci/run for the packages");
        let backtrace = String::from_utf8_lossy(&gdb.stdout);
        assert!(backtrace.contains("main"), "{backtrace}");
        run.check();
        run.quit();
    });
}
