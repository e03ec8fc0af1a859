//! What programs know by ids that the kernel chooses for the whole machine: System V shared memory,
//! semaphores and messages.

mod common;

use std::process::Command;

use common::place::run;
use common::{
    Place, Program, User, are_spaces_to_be_had, cargo, cases, each_user, forbid_copies_of_messages,
    generations, not_run,
};

/// Has eight of each, and tells which. Restarted, it tells what is in them, and at last removes them.
const HOLDER: &str = r"
import ctypes
libc = ctypes.CDLL(None); libc.shmat.restype = ctypes.c_void_p; numbers = range(8)
sets = [libc.semget(0, 1, 0o3600) for n in numbers]
queues = [libc.msgget(0, 0o3600) for n in numbers]
segments = [libc.shmget(0, 4096, 0o3600) for n in numbers]
memory = [ctypes.c_void_p(libc.shmat(segment, None, 0)) for segment in segments]
for n in numbers: libc.semctl(sets[n], 0, 16, segments[n] & 0x7fff); ctypes.memmove(memory[n], b'%15d' % sets[n], 16)
for n in numbers: libc.msgsnd(queues[n], b'\1\0\0\0\0\0\0\0%15d' % sets[n], 15, 0)
for n in numbers: print('-s', sets[n], '-m', segments[n], '-q', queues[n], end=' ')
print(flush=True); input()
def own(n):
    text, message = b'%15d' % sets[n], ctypes.create_string_buffer(24)
    return (libc.semctl(sets[n], 0, 12) == segments[n] & 0x7fff and ctypes.string_at(memory[n]) == text
            and libc.msgrcv(queues[n], message, 15, 0, 0) == 15 and message.raw[8:23] == text)
print([own(n) for n in numbers].count(True), flush=True); input()
for n in numbers: libc.semctl(sets[n], 0, 0); libc.shmctl(segments[n], 0, None); libc.msgctl(queues[n], 0, None)
";

/// Which id the next one of a kind gets is chosen for all processes, so that a restart may get the one that
/// another has asked for. All end up with their own; a line would tell of another id of a segment. They are in
/// a name space of their own, where nobody makes what stays, in the place of what has been removed.
#[test]
fn many_restarts_at_the_same_time_get_their_ids() {
    if !User::everyone().contains(&User::Root) {
        return not_run("restarts that choose ids at the same time, which takes root");
    }
    let places: Vec<_> = (0..12).map(|_| Place::new(User::Root)).collect();
    let keeper = places[0].system("/bin/sh").args(["-c", "echo ready; read end"]);
    let mut keeper = keeper.wrapped("unshare", &["--ipc"]).start_bare();
    keeper.expect("ready");
    let inside = format!("--ipc=/proc/{}/ns/ipc", keeper.pid);
    let holder = |place| -> Program {
        let python = Place::system(place, "/usr/bin/python3");
        python.args(["-c", HOLDER]).wrapped("nsenter", &[&inside])
    };
    let programs: Vec<_> = places.iter().map(holder).collect();
    let mut lives: Vec<_> = programs.iter().map(Program::start).collect();
    let objects: Vec<_> = lives.iter_mut().map(|life| life.line()).collect();
    for life in &mut lives {
        life.reads_stdin();
        life.checkpoint();
    }
    for _ in cases(&[(); 6]) {
        lives.iter_mut().for_each(|life| life.kill());
        for ids in &objects {
            run(Command::new("nsenter").args([&*inside, "ipcrm"]).args(ids.split_whitespace()));
        }
        lives = programs.iter().map(|program| program.restart(&program.image)).collect();
        for life in &mut lives {
            life.send("");
            life.expect("8");
        }
    }
    for life in &mut lives {
        life.send("");
        life.ends_well();
    }
}

/// The queue that the program of that id has made with a key.
fn queue_of(pid: i32) -> i32 {
    // SAFETY: a system call without pointers.
    unsafe { libc::msgget(0x5eed_0000 | pid, 0) }
}

/// A program of `holds_messages`.
fn holder<'p>(place: &'p Place, arguments: &[&str]) -> Program<'p> {
    place.compiled("gcc", "holds_messages").args(arguments)
}

#[test]
fn queues_that_are_gone() {
    each_user(|place| {
        if !are_spaces_to_be_had(place, "messages") {
            return;
        }
        for kind in ["full", "empty", "many", "read-only", "types"] {
            println!("{kind}");
            generations(&holder(place, &[kind]).in_new_spaces(""), 3, &[]).quit();
        }
        let program = holder(place, &["types"]);
        let image = &program.image;
        let taken = program.in_new_spaces("ipcmk -Q >/dev/null;");
        taken.refuses_to_restart(image, &["another message queue has the id 0", "ipcrm -q 0"]);
        let passed =
            program.in_new_spaces("ipcmk -Q >/dev/null; ipcmk -Q >/dev/null; ipcrm -q 0 -q 1;");
        passed.restarts_where_ids_have_passed(image);
    });
}

/// A queue that is there, and of which nobody else knows, gets back what was in it.
#[test]
fn queues_that_have_changed() {
    each_user(|place| {
        let program = holder(place, &["types"]);
        let mut run = program.start();
        run.expect("ready");
        let pid = run.pid;
        run.checkpoint();
        for _ in 0..2 {
            run.kill();
            let mut other = holder(place, &["user", &(0x5eed_0000 | pid).to_string()]).start_bare();
            other.expect("ready");
            other.kill();
            run = program.restart(&program.image);
            run.check();
        }
        run.quit();
    });
}

/// Whichever ids the program gets, and in whichever name spaces it is then, it is known who uses its queues.
#[test]
fn queues_under_other_process_ids() {
    each_user(|place| {
        let ways: &[_] = match place.user {
            User::Root => &["--ids=same", "--ids=namespace", "--ids=new"],
            User::Ordinary => &["--ids=namespace", "--ids=new"],
        };
        let program = holder(place, &["empty"]);
        let mut run = program.start();
        run.expect("ready");
        for ids in ways {
            println!("{ids}");
            run.checkpoint();
            run.kill();
            run = program.restart_with(&[ids], &program.image);
            run.check();
        }
        run.quit();
        assert_eq!(run.errors(), "");
    });
}

/// One that another process uses by now stays as it is, and a line says so.
#[test]
fn queues_that_another_process_uses() {
    each_user(|place| {
        let program = holder(place, &["types"]);
        let mut run = program.start();
        run.expect("ready");
        let key = 0x5eed_0000 | run.pid;
        run.checkpoint();
        run.kill();
        let mut user = holder(place, &["user", &key.to_string()]).start_bare();
        user.expect("ready");
        let mut run = program.restart(&program.image);
        let line = run.error_line();
        assert!(line.contains(&format!("is used by process {} meanwhile", user.pid)), "{line}");
        run.send("check");
        assert!(run.line().starts_with("FAIL"));
        run.kill();
        user.check();
        user.kill();
        let mut run = program.restart(&program.image);
        run.check();
        run.quit();
    });
}

/// Another queue has the key: nothing is made.
#[test]
fn a_key_that_another_queue_has() {
    each_user(|place| {
        if !are_spaces_to_be_had(place, "messages whose key is taken") {
            return;
        }
        let program = holder(place, &["types"]);
        let mut run = program.start();
        run.expect("ready");
        let key = 0x5eed_0000 | run.pid;
        run.checkpoint();
        run.quit();
        let script = format!("perl -e 'msgget($_, 01600) for 0, {key}'; ipcrm -q 0;");
        let words = [&*format!("another message queue of the key {key:#x}"), "ipcrm -Q"];
        program.in_new_spaces(&script).refuses_to_restart(&program.image, &words);
    });
}

/// A call that waits for a message ends with `EINTR`, as after any signal; the program begins it again.
#[test]
fn a_program_that_waits_for_a_message() {
    const SCRIPT: &str = r"
import ctypes, errno, os
libc = ctypes.CDLL(None, use_errno=True); queue = libc.msgget(0x5eed0000 | os.getpid(), 0o3600)
message = ctypes.create_string_buffer(64)
libc.msgsnd(queue, b'\1\0\0\0\0\0\0\0own', 3, 0); libc.msgrcv(queue, message, 56, 0, 0)
print('ready', flush=True)
while libc.msgrcv(queue, message, 56, 0, 0) < 0: print(errno.errorcode[ctypes.get_errno()], flush=True)
print(message.raw[8:13], flush=True); libc.msgctl(queue, 0, None)
";
    each_user(|place| {
        let program = place.system("/usr/bin/python3").args(["-c", SCRIPT]);
        let mut run = program.start();
        run.expect("ready");
        let queue = queue_of(run.pid);
        let waits = format!("{} {queue:#x} ", libc::SYS_msgrcv);
        run.is_in(&waits, "it does not wait for a message");
        run.checkpoint();
        run.expect("EINTR");
        run.is_in(&waits, "it does not wait again");
        run.kill();
        let mut run = program.restart(&program.image);
        run.expect("EINTR");
        run.is_in(&waits, "it does not wait after the restart");
        let message = b"\x01\0\0\0\0\0\0\0hello";
        // SAFETY: the kernel reads a type and five bytes.
        assert_eq!(unsafe { libc::msgsnd(queue, message.as_ptr().cast(), 5, 0) }, 0);
        run.expect("b'hello'");
        assert!(run.wait().success());
    });
}

/// Name spaces in which a queue has room for a mebibyte.
const ROOM: &str = "echo 1048576 > /proc/sys/kernel/msgmnb;";

/// A place for programs in such name spaces, if they are to be had.
fn place_with_room(what: &str) -> Option<Place> {
    let place = Place::new(User::Root);
    let probe = place.system("/bin/true").in_new_spaces(&ROOM.replace(';', " &&"));
    let had = User::everyone().contains(&User::Root) && probe.start_bare().wait().success();
    if !had {
        not_run(&format!("{what}, which takes root, and name spaces with limits of their own"));
    }
    had.then_some(place)
}

/// A queue with more room than it may have elsewhere gets what it may have there, if that does.
#[test]
fn more_room_than_queues_have_elsewhere() {
    let Some(place) = place_with_room("queues of messages with more room than usual") else {
        return;
    };
    let program = holder(&place, &["raised"]);
    generations(&program.in_new_spaces(ROOM), 3, &[]).quit();
    let mut run = program.in_new_spaces("").restart(&program.image);
    for _ in 0..2 {
        let line = run.error_line();
        assert!(line.contains("has room for 16384 bytes, and had for 1048576"), "{line}");
    }
    run.send("quit");
    run.expect("done");

    let program = holder(&place, &["many"]);
    generations(&program.in_new_spaces(ROOM), 3, &[]).quit();
    let words = ["room for what was in it", "kernel.msgmnb"];
    program.in_new_spaces("").refuses_to_restart(&program.image, &words);
}

/// What cannot be read in a reasonable time is refused, and `ckpt check` tells it beforehand.
#[test]
fn more_messages_than_are_read() {
    let Some(place) = place_with_room("queues of very many messages") else { return };
    let mut run = holder(&place, &["crowd"]).in_new_spaces(ROOM).start();
    run.expect("ready");
    let words = "has more than 32768 messages";
    let ipc = format!("--ipc=/proc/{}/ns/ipc", run.pid);
    let pid = run.pid.to_string();
    let check = place.copied(&cargo::command());
    let check = place.system("/usr/bin/nsenter").args([&*ipc, check.to_str().expect("UTF-8")]);
    let check = check.args(["check", &*pid]).to_command().output().expect("ckpt check");
    let output = String::from_utf8_lossy(&check.stdout);
    assert!(check.status.code() == Some(1) && output.contains(words), "{output}");
    run.refuses(&["message queue", words]);
    run.quit();
}

/// A kernel that shows no message without taking it out: nothing is taken out, and there is no image.
#[test]
fn messages_that_cannot_be_read() {
    each_user(|place| {
        let mut run = holder(place, &["types"]).before(forbid_copies_of_messages).start();
        run.expect("ready");
        run.refuses(&["message queue", "MSG_COPY", "CONFIG_CHECKPOINT_RESTORE"]);
        run.check();
        run.quit();
    });
}

/// A program that nobody has written for this test, with its own calls.
#[test]
fn messages_of_perl() {
    const SCRIPT: &str = r#"
        $| = 1; $queue = msgget(0, 01600);
        msgsnd($queue, pack("l! a*", $_, "message $_"), 0) for 3, 1, 2;
        print "ready\n"; <STDIN>;
        for (-2, 0, 0) { msgrcv($queue, $message, 64, $_, 0); print join(" ", unpack("l! a*", $message)), "\n" }
        msgctl($queue, 0, 0);
    "#;
    each_user(|place| {
        let program = place.system("/usr/bin/perl").args(["-e", SCRIPT]);
        let mut run = program.start();
        run.expect("ready");
        for _ in 0..3 {
            run.reads_stdin();
            run.checkpoint();
            run.kill();
            run = program.restart(&program.image);
        }
        run.send("");
        for line in ["1 message 1", "3 message 3", "2 message 2"] {
            run.expect(line);
        }
        run.ends_well();
    });
}
