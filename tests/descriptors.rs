//! Every kind of descriptor, held by a program that checks what it holds: before and after each
//! checkpoint, and after each restart, three generations deep.

mod common;

use std::ffi::CString;
use std::fs;
use std::ops::Range;
use std::path::Path;
use std::process::Command;

use common::place::{names_in, run};
use common::{Place, User, are_spaces_to_be_had, each_user, generations, not_run};

/// Restarts after all that the kernel kept of the program's outside of it has been removed, as after a
/// reboot.
fn survives_the_loss(kind: &str, remove: impl Fn(i32)) {
    each_user(|place| {
        let program = place.compiled("gcc", "holds_memory").args([kind]);
        let mut run = program.start();
        run.expect("ready");
        let pid = run.pid;
        for _ in 0..2 {
            run.check();
            run.checkpoint();
            run.check();
            run.kill();
            remove(pid);
            run = program.restart(&program.image);
            // It takes a privilege to make a segment under its id.
            if kind == "segments" && place.user == User::Ordinary {
                let line = run.error_line();
                assert!(line.contains("has the id"), "{line}");
            }
            run.check();
        }
        run.quit();
    });
}

/// Removes the files in `/dev/shm` that the target of that id has made.
fn remove_shared_memory(pid: i32) {
    for name in names_in(Path::new("/dev/shm")) {
        if name.contains(&format!("holds-memory-{pid}-")) {
            fs::remove_file(Path::new("/dev/shm").join(name)).expect("removing it");
        }
    }
}

#[test]
fn memory_shared_by_name_that_is_gone() {
    survives_the_loss("shared", remove_shared_memory);
}

#[test]
fn semaphores_that_are_gone() {
    survives_the_loss("semaphores", remove_shared_memory);
}

#[test]
fn segments_that_are_gone() {
    survives_the_loss("segments", |pid| {
        let key = format!("{:#x}", 0x5eed_0000 | pid);
        run(Command::new("ipcrm").args(["-M", &key]));
    });
}

#[test]
fn sets_of_semaphores_that_are_gone() {
    each_user(|place| {
        if !are_spaces_to_be_had(place, "semaphores") {
            return;
        }
        let program = place.compiled("gcc", "holds_memory").args(["sets"]);
        generations(&program.in_new_spaces(""), 3, &[]).quit();
        let image = &program.image;
        let taken = program.in_new_spaces("ipcmk -S 1 >/dev/null; ipcmk -S 1 >/dev/null;");
        taken.refuses_to_restart(image, &["another set of semaphores has the id 1", "ipcrm -s 1"]);
        let passed =
            program.in_new_spaces("ipcmk -S 1 >/dev/null; ipcmk -S 1 >/dev/null; ipcrm -a;");
        passed.restarts_where_ids_have_passed(image);
    });
}

/// What the end of a process undoes of semaphores is undone in every life.
#[test]
fn semaphores_that_are_given_back() {
    each_user(|place| {
        let program = place.compiled("gcc", "holds_memory").args(["sets"]);
        let mut run = program.start();
        run.expect("ready");
        let key = 0x5eed_0000 | run.pid;
        // SAFETY: system calls without pointers.
        let value = || unsafe { libc::semctl(libc::semget(key, 0, 0), 0, libc::GETVAL) };
        run.checkpoint();
        for _ in 0..2 {
            assert_eq!(value(), 3);
            run.kill();
            assert_eq!(value(), 5);
            run = program.restart(&program.image);
            run.reads_stdin();
        }
        run.check();
        if are_spaces_to_be_had(place, "semaphores") {
            run.kill();
            run = program.restart_with(&["--ids=namespace"], &program.image);
            run.check();
        }
        run.quit();
    });
}

/// What several threads have taken is given back when the last of them ends.
#[test]
fn semaphores_that_threads_give_back() {
    const SCRIPT: &str = "
import ctypes, os, struct, threading
libc = ctypes.CDLL(None); set = libc.semget(0x5eed0000 | os.getpid(), 1, 0o3600); libc.semctl(set, 0, 16, 5)
taken = threading.Barrier(3)
def take():
    assert libc.semop(set, struct.pack('HhH', 0, -2, 0o14000), 1) == 0
    taken.wait(); threading.Event().wait()
for n in range(2): threading.Thread(target=take, daemon=True).start()
taken.wait(); print('ready', flush=True)
input(); print(libc.semctl(set, 0, 12), flush=True); input()
";
    each_user(|place| {
        let program = place.system("/usr/bin/python3").args(["-c", SCRIPT]);
        let mut run = program.start();
        run.expect("ready");
        run.reads_stdin();
        // SAFETY: system calls without pointers.
        let set = unsafe { libc::semget(0x5eed_0000 | run.pid, 0, 0) };
        // SAFETY: likewise.
        let value = || unsafe { libc::semctl(set, 0, libc::GETVAL) };
        run.checkpoint();
        run.kill();
        for _ in 0..2 {
            assert_eq!(value(), 5);
            let mut run = program.restart_with(&["--ids=new"], &program.image);
            run.send("");
            run.expect("1");
            run.kill();
        }
        assert_eq!(value(), 5);
        common::place::run(Command::new("ipcrm").args(["-s", &set.to_string()]));
    });
}

/// Semaphores that another process has used since the checkpoint stay as they are, and a line says so.
#[test]
fn semaphores_that_another_process_uses() {
    each_user(|place| {
        let program = place.compiled("gcc", "holds_memory").args(["sets"]);
        let mut run = program.start();
        run.expect("ready");
        let key = 0x5eed_0000 | run.pid;
        run.checkpoint();
        run.kill();
        let user = place.compiled("gcc", "holds_memory").args(["user-of-set", &key.to_string()]);
        let mut user = user.start_bare();
        user.expect("ready");
        let mut run = program.restart(&program.image);
        let line = run.error_line();
        assert!(line.contains(&format!("is used by process {} meanwhile", user.pid)), "{line}");
        run.send("check");
        assert!(run.line().starts_with("FAIL"));
        run.kill();
        user.quit();
        let mut run = program.restart(&program.image);
        run.check();
        run.quit();
    });
}

#[test]
fn message_queues_that_are_gone() {
    survives_the_loss("queues", |pid| {
        let name = CString::new(format!("/holds-memory-{pid}-0")).expect("a name");
        // SAFETY: it is a string.
        assert_eq!(unsafe { libc::mq_unlink(name.as_ptr()) }, 0);
    });
}

/// To look at descriptors on their way takes numbers for them. Where there may be but few, the image has all
/// that are on their way, or there is none. An ordinary user may not have more on their way than numbers, in
/// all processes together.
fn has_all_or_refuses(kind: &str, limits: Range<u64>) {
    if !User::everyone().contains(&User::Root) {
        return not_run("descriptors on their way at the limit of open files, which takes root");
    }
    let place = Place::new(User::Root);
    let program = place.compiled("gcc", "holds_sockets").args([kind]);
    let mut refused = 0;
    for limit in limits.clone() {
        println!("at most {limit}");
        let mut run = program.clone().limit(libc::RLIMIT_NOFILE as i32, limit).start();
        run.expect("ready");
        run.check();
        let asked = run.ask();
        run.check();
        run.kill();
        match asked {
            Ok(image) => {
                let mut run = program.restart(&image);
                run.check();
                run.quit();
            }
            Err(line) => {
                assert!(line.contains("too many open files"), "{line}");
                refused += 1;
            }
        }
    }
    assert!((1..limits.end - limits.start).contains(&refused), "{refused} are refused");
}

#[test]
fn descriptors_on_their_way_at_the_limit_of_open_files() {
    has_all_or_refuses("passed", 13..24);
}

#[test]
fn many_descriptors_on_their_way_at_the_limit_of_open_files() {
    has_all_or_refuses("crowd", 7..35);
}

/// A kind of descriptor that `target` knows, with both C libraries.
fn survives(target: &str, kind: &str) {
    each_user(|place| {
        for compiler in ["gcc", "musl-gcc"] {
            println!("with {compiler}");
            let program = place.compiled(compiler, target).args([kind]);
            let mut run = generations(&program, 3, &[]);
            run.quit();
            assert_eq!(run.errors(), "");
        }
    });
}

/// A test for each kind of a target.
macro_rules! kinds {
    ($target:literal: $($test:ident $kind:literal),* $(,)?) => {
        $(#[test]
        fn $test() {
            survives($target, $kind);
        })*
    };
}

kinds! { "holds_objects":
    a_pipe_with_bytes_in_it "pipe",
    a_full_pipe "full-pipe",
    a_pipe_of_packets "packets",
    pipes_whose_other_end_is_closed "half-pipes",
    a_fifo "fifo",
    counters "counters",
    timers "timers",
    signals_that_are_read "signals",
    epoll_sets "epoll",
    the_process_itself "process",
    the_owner_of_a_descriptor "owner",
}

kinds! { "holds_memory":
    a_memfd "memfd",
    sealed_memfds "sealed",
    a_memfd_that_is_mapped "mapped",
    a_deleted_file "deleted",
    deleted_files_whose_directory_or_descriptor_is_gone "gone",
    files_with_holes "sparse",
    files_under_other_names "renamed",
    memory_shared_by_name "shared",
    semaphores "semaphores",
    segments_of_shared_memory "segments",
    sets_of_semaphores "sets",
    message_queues "queues",
}

kinds! { "holds_messages":
    messages "types",
    queues_that_are_full "full",
    queues_that_are_empty "empty",
    many_messages "many",
    a_queue_that_nobody_may_send_to "read-only",
}

kinds! { "holds_sockets":
    a_stream_with_bytes_in_it "stream",
    messages_in_order "packets",
    datagrams "datagrams",
    a_message_without_bytes "empty",
    descriptors_on_their_way "passed",
    many_descriptors_on_their_way "crowd",
    files_on_their_way "passed-files",
    who_has_sent_a_message "credentials",
    an_end_that_is_shut_down "half-closed",
    ends_whose_peer_is_gone "alone",
    tcp_that_listens "listening",
    names_of_unix_sockets "names",
    datagrams_to_a_name "addressed",
    udp "udp",
    a_packet_filter "filtered",
    both_ends_of_tcp "tcp",
    netlink "netlink",
}

kinds! { "holds_files":
    record_locks_of_the_process "record-locks",
    record_locks_of_open_files "own-locks",
    locks_of_whole_files "whole-locks",
    leases "leases",
    watches_of_files "watches",
    reading_positions_of_directories "directories",
    places_of_the_file_system "places",
    ways_to_write "writing",
    a_file_that_never_had_a_name "nameless",
    files_of_the_kernel "kernel",
    files_of_threads "threads",
}

/// In an overlayfs of several file systems the device that stat(2) tells of a file is not the one that the
/// kernel tells of a watch; and with each mount it is another one.
#[test]
fn watches_of_files_on_an_overlay() {
    // One more mount in each life moves the numbers on.
    let mount = "mkdir -p lower upper work merged spare && echo life >> lives && \
                 for life in $(cat lives); do mount -t tmpfs spare spare; done && \
                 mount -t tmpfs lower lower && \
                 mount -t overlay overlay -o lowerdir=lower,upperdir=upper,workdir=work merged && \
                 cd merged";
    let unshare =
        |script: &str| Command::new("unshare").args(["-Urm", "sh", "-c", script]).status();
    let probe = format!("mount -t tmpfs t /mnt && cd /mnt && {mount}");
    if !unshare(&probe).is_ok_and(|status| status.success()) {
        return not_run("watches on an overlayfs, which users may not mount here");
    }
    each_user(|place| {
        let script = format!("{mount} && exec \"$0\" \"$@\"");
        let program = place
            .compiled("gcc", "holds_files")
            .args(["watches"])
            .env("CKPT_FILE", place.path("mycheckpoint"))
            .wrapped("unshare", &["-Urm", "sh", "-c", &script]);
        generations(&program, 3, &[]).quit();
    });
}

kinds! { "holds_terminals":
    a_pseudo_terminal_that_reads_lines "lines",
    a_pseudo_terminal_with_bytes_on_their_way "keys",
    a_pseudo_terminal_in_packet_mode "packets",
    pseudo_terminals_with_one_end_open "masters",
}
