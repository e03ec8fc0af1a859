//! What cannot yet be checkpointed is refused by name rather than written into an image that would
//! not work; and the program runs on.

mod common;

use ckpt_sys::proc::Holder;
use common::{Place, Running, User, each_user, not_run};

/// Python after `setting`, waiting for input. What it prints last must still come.
fn python(place: &Place, setting: &str) -> Running {
    let script = format!(
        "import os, sys, time, socket, select, signal, mmap\n{setting}\n\
         print('ready', flush=True); input(); print('unharmed', flush=True); os._exit(0)"
    );
    let mut run = place.system("/usr/bin/python3").args(["-c", &script]).start();
    run.expect("ready");
    run.reads_stdin();
    run
}

fn is_unharmed(mut run: Running) {
    run.send("");
    run.expect("unharmed");
    assert!(run.wait().success());
}

/// In the state that `setting` brings about, a checkpoint is refused with all of `words`.
fn refuses(setting: &str, words: &[&str]) {
    each_user(|place| {
        let mut run = python(place, setting);
        run.refuses(words);
        is_unharmed(run);
    });
}

#[test]
fn a_living_child() {
    each_user(|place| {
        let mut run = python(
            place,
            "child = os.fork()\n\
             if child == 0: signal.signal(signal.SIGUSR2, signal.SIG_IGN); signal.pause()",
        );
        run.refuses(&["child"]);
        let children = format!("/proc/{0}/task/{0}/children", run.pid);
        let child = std::fs::read_to_string(children).expect("its children");
        // SAFETY: a system call without pointers. The child is the program's, which lives and does
        // not wait for it, so the number is still its own.
        unsafe { libc::kill(child.trim().parse().expect("one child"), libc::SIGKILL) };
        is_unharmed(run);
    });
}

#[test]
fn a_zombie_child() {
    refuses(
        "child = os.fork()\n\
         if child == 0: os._exit(7)\n\
         os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)",
        &["child"],
    );
}

#[test]
fn memory_shared_with_another_process() {
    each_user(|place| {
        // A grandchild, which is nobody's child any more.
        let mut run = python(
            place,
            "shared = mmap.mmap(-1, 4096)\n\
             if os.fork() == 0:\n    \
                 if os.fork() == 0:\n        \
                     signal.alarm(300); shared[0:8] = os.getpid().to_bytes(8, 'little')\n        \
                     signal.pause()\n    \
                 os._exit(0)\n\
             os.wait()\n\
             while shared[0:8] == bytes(8): os.sched_yield()\n\
             print(int.from_bytes(shared[0:8], 'little'), file=open('grandchild', 'w'))",
        );
        let grandchild = place.text("grandchild").trim().parse().expect("its number");
        run.refuses(&["shared"]);
        // SAFETY: a system call without pointers. The grandchild waits to be killed.
        unsafe { libc::kill(grandchild, libc::SIGKILL) };
        is_unharmed(run);
    });
}

/// A descriptor of a kind that has no place in an image yet is named, and its kind.
fn refuses_descriptor(setting: &str, kind: &str) {
    refuses(setting, &["descriptor 3", kind]);
}

#[test]
fn a_netlink_socket_with_something_unread() {
    refuses_descriptor(
        "s = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)\n\
         s.send(bytes.fromhex('14000000 1200 0103 01000000 00000000 00000000'))\n\
         select.select([s], [], [])",
        "netlink",
    );
}

/// A program of two instructions, `r0 = 0; return`, loaded by bpf(2).
#[test]
fn a_socket_with_an_ebpf_filter() {
    if !User::everyone().contains(&User::Root) {
        return not_run("refusing a socket with an eBPF filter, which takes CAP_BPF");
    }
    let place = Place::new(User::Root);
    let setting = format!(
        "import ctypes, struct\n\
         s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n\
         program = ctypes.create_string_buffer(bytes.fromhex('b700000000000000 9500000000000000'))\n\
         license = ctypes.create_string_buffer(b'GPL')\n\
         load = struct.pack('IIQQ', 1, 2, ctypes.addressof(program), ctypes.addressof(license))\n\
         bpf = ctypes.CDLL(None).syscall({}, 5, load, len(load)); assert bpf >= 0\n\
         s.setsockopt(socket.SOL_SOCKET, 50, bpf); os.close(bpf)",
        libc::SYS_bpf
    );
    let mut run = python(&place, &setting);
    run.refuses(&["descriptor 3", "an eBPF filter"]);
    is_unharmed(run);
}

#[test]
fn a_raw_socket() {
    if !User::everyone().contains(&User::Root) {
        return not_run("refusing a raw socket, which takes CAP_NET_RAW");
    }
    let place = Place::new(User::Root);
    let mut run = python(&place, "s = socket.socket(socket.AF_INET, socket.SOCK_RAW, 1)");
    run.refuses(&["descriptor 3", "raw socket"]);
    is_unharmed(run);
}

/// A ring of io_uring(7), whose system call has the same number everywhere.
const RING: &str = "import ctypes; ring = ctypes.CDLL(None).syscall(425, 4, bytes(120))";

#[test]
fn an_io_uring() {
    refuses_descriptor(RING, "io_uring");
}

/// With `CKPT_FORCE` there is an image all the same, in which the descriptor fails.
#[test]
fn an_io_uring_by_force() {
    each_user(|place| {
        let script = format!(
            "import os\n{RING}\nprint('ready', flush=True); input()\n\
             try: os.read(ring, 1)\n\
             except OSError as error: print('it fails:', error.errno, os.open('/', 0), flush=True)"
        );
        let program = place.system("/usr/bin/python3").args(["-c", &script]);
        let mut run = program.clone().env("CKPT_FORCE", "1").start();
        run.expect("ready");
        run.reads_stdin();
        let line = run.says_while_it_writes();
        assert!(line.contains("descriptor 3") && line.contains("io_uring"), "{line}");
        run.kill();
        let mut run = program.restart(&program.image);
        run.send("");
        run.expect("it fails: 9 4");
        assert!(run.wait().success());
        let errors = run.errors();
        assert!(errors.contains("descriptor 3") && errors.contains("fails"), "{errors}");
    });
}

#[test]
fn a_pipe_to_another_process() {
    refuses_what_a_grandchild_has("ends = os.pipe()", "os.close(ends[1])", "a pipe to");
}

#[test]
fn a_fifo_to_another_process() {
    refuses_what_a_grandchild_has(
        "os.mkfifo('fifo'); ends = [os.open('fifo', os.O_RDWR), os.open('fifo', os.O_WRONLY)]",
        "os.close(ends[0]); os.dup2(ends[1], 3); os.close(ends[1])",
        "a FIFO to",
    );
}

/// What `setting` opens as descriptor 3 is open in another process, too, and refused with `kind` and that
/// process, by number and name, when `then` has been done.
fn refuses_what_a_grandchild_has(setting: &str, then: &str, kind: &str) {
    each_user(|place| {
        // A grandchild, which is nobody's child any more.
        let mut run = python(
            place,
            &format!(
                "{setting}; others = os.pipe()\n\
                 if os.fork() == 0:\n    \
                     if os.fork() == 0:\n        \
                         signal.alarm(300); os.write(others[1], str(os.getpid()).encode())\n        \
                         signal.pause()\n    \
                     os._exit(0)\n\
                 os.wait(); {then}; grandchild = os.read(others[0], 100)\n\
                 print(grandchild.decode(), file=open('grandchild', 'w'))"
            ),
        );
        let grandchild = place.text("grandchild").trim().parse().expect("its number");
        let holder = format!("{kind} process {grandchild} (python3)");
        let (_, said, _) = place.ckpt(&["check", &run.pid.to_string()]);
        assert!(said.contains(&holder), "{holder} in {said}");
        run.refuses(&["descriptor 3", &holder]);
        // SAFETY: a system call without pointers. The grandchild waits to be killed.
        unsafe { libc::kill(grandchild, libc::SIGKILL) };
        is_unharmed(run);
    });
}

/// After `setting` a grandchild has what the program has; a checkpoint is refused with all of `words` until
/// it has ended.
fn refuses_beside_a_grandchild(setting: &str, words: &[&str]) {
    each_user(|place| {
        let script = format!(
            "{setting}\nends = os.pipe()\n\
             if os.fork() == 0:\n    \
                 if os.fork() == 0:\n        \
                     signal.alarm(300); os.write(ends[1], str(os.getpid()).encode())\n        \
                     signal.pause()\n    \
                 os._exit(0)\n\
             os.wait(); grandchild = os.read(ends[0], 100); os.close(ends[0]); os.close(ends[1])\n\
             print(grandchild.decode(), file=open('grandchild', 'w'))"
        );
        let mut run = python(place, &script);
        let grandchild = place.text("grandchild").trim().parse().expect("its number");
        run.refuses(words);
        // SAFETY: a system call without pointers. The grandchild waits to be killed.
        unsafe { libc::kill(grandchild, libc::SIGKILL) };
        is_unharmed(run);
    });
}

/// A message queue without a name, as descriptor `queue`.
const QUEUE: &str = "import ctypes, struct; libc = ctypes.CDLL(None, use_errno=True)\n\
    name = b'/refusals-%d' % os.getpid()\n\
    queue = libc.mq_open(name, os.O_RDWR | os.O_CREAT, 0o600, None); assert queue == 3\n\
    libc.mq_unlink(name)\n";

#[test]
fn a_message_queue_that_another_process_has() {
    refuses_beside_a_grandchild(QUEUE, &["descriptor 3", "a message queue that process"]);
}

#[test]
fn a_message_queue_that_is_to_tell() {
    let notify = "event = struct.pack('qii', 0, signal.SIGURG, 0) + bytes(48)\n\
                  assert libc.mq_notify(queue, event) == 0";
    refuses_descriptor(&format!("{QUEUE}{notify}"), "notification");
}

#[test]
fn a_segment_that_another_process_has() {
    refuses_beside_a_grandchild(
        "import ctypes; libc = ctypes.CDLL(None); libc.shmat.restype = ctypes.c_void_p\n\
         segment = libc.shmget(0, 4096, 0o600); libc.shmat(segment, None, 0)\n\
         libc.shmctl(segment, 0, None)",
        &["the shared memory segment", "attached by another process"],
    );
}

#[test]
fn a_memfd_of_huge_pages() {
    refuses_descriptor("m = os.memfd_create('m', os.MFD_HUGETLB)", "a memfd of huge pages");
}

#[test]
fn the_process_of_another() {
    let kind = format!("a pidfd of {}", Holder(std::process::id()));
    refuses_descriptor("p = os.pidfd_open(os.getppid())", &kind);
}

#[test]
fn a_name_space() {
    refuses_descriptor("n = os.open('/proc/self/ns/uts', os.O_RDONLY)", "uts:");
}

#[test]
fn a_file_of_a_thread_that_has_ended() {
    refuses_descriptor(
        "import threading\n\
         def run():\n    global f; f = open(f'/proc/self/task/{threading.get_native_id()}/stat')\n\
         thread = threading.Thread(target=run); thread.start(); thread.join()\n\
         while os.path.exists(f'/proc/self/task/{thread.native_id}'): os.sched_yield()",
        "a file of /proc or /sys that is gone",
    );
}

#[test]
fn a_deleted_working_directory() {
    refuses(
        "os.mkdir('d'); os.chdir('d'); os.rmdir('../d')",
        &["working directory has been removed"],
    );
}

#[test]
fn a_deleted_directory() {
    refuses_descriptor(
        "os.mkdir('d'); d = os.open('d', os.O_RDONLY); os.rmdir('d')",
        "a deleted directory",
    );
}

/// A lease that somebody waits for to end, by a process of the program's own that is not its child.
#[test]
fn a_lease_that_is_being_taken_back() {
    refuses_descriptor(
        "import fcntl; f = open('leased', 'w'); signal.signal(signal.SIGIO, signal.SIG_IGN)\n\
         fcntl.fcntl(f, fcntl.F_SETLEASE, fcntl.F_WRLCK)\n\
         try: os.open('leased', os.O_RDONLY | os.O_NONBLOCK)\n\
         except BlockingIOError: pass",
        "lease is being taken back",
    );
}

#[test]
fn a_lock_on_what_is_no_file() {
    refuses_descriptor("import fcntl; p = os.pipe(); fcntl.flock(p[0], fcntl.LOCK_EX)", "a lock");
}

#[test]
fn a_pseudo_terminal_on_which_another_process_is() {
    refuses_what_a_grandchild_has(
        "ends = os.openpty()",
        "os.close(ends[1])",
        "a pseudo-terminal on which",
    );
}

#[test]
fn a_pseudo_terminal_with_lines_that_have_not_been_read() {
    refuses_descriptor(
        "ends = os.openpty(); os.write(ends[0], b'a line\\n'); select.select([ends[1]], [], [])",
        "typed and not read",
    );
}

/// A checkpoint that was refused can be had when the reason is gone.
#[test]
fn not_for_ever() {
    each_user(|place| {
        let program = place.system("/usr/bin/python3").args([
            "-c",
            "import os; other = os.pidfd_open(os.getppid()); print('ready', flush=True); input(); \
             os.close(other); print('closed', flush=True); print(input())",
        ]);
        let mut run = program.start();
        run.expect("ready");
        run.refuses(&["descriptor 3", "pidfd"]);
        run.send("");
        run.expect("closed");
        run.reads_stdin();
        let image = run.checkpoint();
        run.kill();
        let mut run = program.restart(&image);
        run.send("and on it goes");
        run.expect("and on it goes");
        assert!(run.wait().success());
    });
}
