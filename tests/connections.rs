//! TCP connections to other processes, which those that have the privilege get back as they were. The other
//! end is a process that is not checkpointed: see `common::ends`.

mod common;

use std::fs;
use std::os::fd::{AsRawFd, OwnedFd};
use std::process::Command;
use std::time::Instant;

use common::ends::{Ends, ask, entering, tell};
use common::place::run;
use common::{PATIENCE, Running, cargo, each_user, repetitions};
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, Signal, pidfd_getfd, pidfd_open};

impl Ends<'_> {
    /// Ends the program as if its machine had been lost: the peer hears nothing of it, nor that there is
    /// another one without such a connection now.
    fn vanish(&mut self) {
        tell(&mut self.peer, "shield");
        self.cut_off();
    }

    /// Ends the program without anything being sent by that.
    fn cut_off(&mut self) {
        let sockets = self.stop();
        self.own.kill();
        drop(sockets);
        // Children of other tests may have them until they become other programs.
        let tables = ["tcp", "tcp6"].map(|name| format!("/proc/{}/net/{name}", self.peer.pid));
        let deadline = Instant::now() + PATIENCE;
        while tables.iter().map(|table| established_in(table)).sum::<usize>() > 1 {
            assert!(Instant::now() < deadline, "the program's end is still there");
            std::thread::yield_now();
        }
    }

    /// Stops the program, and lets nothing be sent when its sockets are closed: `TCP_REPAIR`.
    fn stop(&self) -> Vec<OwnedFd> {
        let pid = Pid::from_raw(self.own.pid).expect("an id");
        let process = pidfd_open(pid, PidfdFlags::empty()).expect("pidfd_open");
        rustix::process::kill_process(pid, Signal::STOP).expect("kill");
        let numbers = fs::read_dir(format!("/proc/{}/fd", self.own.pid)).expect("its descriptors");
        let numbers = numbers.map(|entry| entry.expect("one").file_name());
        let mut sockets = Vec::new();
        for number in numbers {
            let number = number.to_string_lossy().parse().expect("a number");
            let socket = pidfd_getfd(&process, number, PidfdGetfdFlags::empty()).expect("getfd");
            let (on, size) = (1_i32, size_of::<i32>() as libc::socklen_t);
            // SAFETY: the kernel reads an integer.
            let result = unsafe {
                libc::setsockopt(
                    socket.as_raw_fd(),
                    libc::IPPROTO_TCP,
                    19,
                    (&raw const on).cast(),
                    size,
                )
            };
            if result == 0 {
                sockets.push(socket);
            }
        }
        sockets
    }

    /// Restarts the program from its image.
    fn restart(&mut self) {
        self.own = self.program.restart(&self.program.image);
    }

    /// What is sent from either end gets to the other one.
    fn exchange(&mut self) {
        for count in [1, 70_000] {
            let command = format!("{count}");
            tell(&mut self.own, &format!("send {command}"));
            tell(&mut self.peer, &format!("receive {command}"));
            tell(&mut self.peer, &format!("send {command}"));
            tell(&mut self.own, &format!("receive {command}"));
        }
        tell(&mut self.own, "nothing");
        tell(&mut self.peer, "nothing");
    }

    /// Lets both ends send and receive as fast as they can.
    fn relay(&mut self) {
        for run in [&mut self.peer, &mut self.own] {
            run.send("relay");
            run.expect("begins");
        }
    }

    /// Lets them finish; returns what became of it at the program's end and at its peer's.
    fn finish_relay(&mut self) -> [String; 2] {
        let mut ends = [&mut self.own, &mut self.peer];
        for run in &mut ends {
            run.send("finish");
        }
        ends.map(|run| run.line())
    }

    /// Restarts the program from its image after it has gone on, or its peer has gone: it is told that the
    /// connection has been reset when it has received `unread` bytes that it had not read.
    fn restart_to_be_reset(&mut self, unread: u64) {
        self.own = self.program.restart(&self.program.image);
        tell(&mut self.own, &format!("receive {unread}"));
        tell(&mut self.own, "reset");
    }

    /// The program has said why the connection is lost.
    fn has_said(&mut self, why: &str) {
        let line = self.own.error_line();
        let is_note = line.starts_with("restart-static: note: the connection of descriptor ");
        assert!(is_note && line.contains(why), "{line}");
    }

    /// The program has had nothing to say.
    fn is_silent(&mut self) {
        assert_eq!(self.own.errors(), "");
    }
}

/// How many ends of established connections a table of the kernel's has.
fn established_in(table: &str) -> usize {
    let text = fs::read_to_string(table).expect("the table");
    let states = text.lines().skip(1).filter_map(|line| line.split_whitespace().nth(3));
    states.filter(|state| ["01", "05", "08"].contains(state)).count() // or half-closed
}

/// What `ckpt check` says of a program.
fn checked(program: &Running) -> String {
    run(Command::new(cargo::command()).args(["check", &program.pid.to_string()]))
}

#[test]
fn connections_go_on() {
    each_user(|place| {
        for (compiler, host, peer_waits) in [
            ("gcc", "127.0.0.1", true),
            ("musl-gcc", "::1", true),
            ("gcc", "::ffff:127.0.0.1", false),
            ("musl-gcc", "127.0.0.1", false),
        ] {
            println!("{compiler}, {host}, {peer_waits}");
            let Some(mut ends) = Ends::of(place, compiler, host) else { return };
            ends.connect(peer_waits);
            ends.exchange();
            for _ in 0..3 {
                tell(&mut ends.own, "deliver 5000");
                tell(&mut ends.peer, "deliver 7000");
                let found = checked(&ends.own);
                assert!(found.contains("1 TCP connection to other processes can go on"), "{found}");
                ends.own.checkpoint();
                ends.is_silent();
                ends.vanish();
                ends.restart();
                tell(&mut ends.peer, "receive 5000");
                tell(&mut ends.own, "receive 7000");
                ends.exchange();
                ends.is_silent();
            }
        }
    });
}

/// What is on its way in both directions, with and without what the ends can agree on.
#[test]
fn full_queues() {
    each_user(|place| {
        for (setting, value, generations) in [
            ("tcp_timestamps", "1", 2),
            ("tcp_timestamps", "0", 1),
            ("tcp_sack", "0", 1),
            ("tcp_window_scaling", "0", 1),
        ] {
            println!("{setting} {value}");
            let Some(mut ends) = Ends::of(place, "gcc", "127.0.0.1") else { return };
            tell(&mut ends.peer, &format!("set {setting} {value}"));
            // An ordinary user may not have larger buffers than these.
            tell(&mut ends.peer, "set tcp_wmem 4096 16384 300000");
            ends.connect(true);
            for _ in 0..generations {
                let out = ask(&mut ends.own, "fill");
                let in_ = ask(&mut ends.peer, "fill");
                // What is sent is lost from here on, so that nothing gets there after the checkpoint.
                tell(&mut ends.peer, "down");
                ends.own.checkpoint();
                ends.vanish();
                tell(&mut ends.peer, "up");
                ends.restart();
                tell(&mut ends.peer, &format!("receive {out}"));
                tell(&mut ends.own, &format!("receive {in_}"));
                ends.exchange();
                ends.is_silent();
            }
        }
    });
}

/// One end has sent all; the other one still sends.
#[test]
fn a_peer_that_has_finished() {
    each_user(|place| {
        let Some(mut ends) = Ends::connected(place, "gcc", "127.0.0.1") else { return };
        tell(&mut ends.peer, "deliver 7000");
        tell(&mut ends.peer, "finish");
        for _ in 0..2 {
            tell(&mut ends.own, "deliver 5000");
            ends.own.checkpoint();
            ends.vanish();
            ends.restart();
            tell(&mut ends.peer, "receive 5000");
        }
        tell(&mut ends.own, "receive 7000");
        tell(&mut ends.own, "end");
        tell(&mut ends.own, "send 70000");
        tell(&mut ends.own, "finish");
        tell(&mut ends.peer, "receive 70000");
        tell(&mut ends.peer, "end");
        ends.is_silent();
    });
}

/// The program that runs on does not notice, and neither does its peer.
#[test]
fn checkpoints_while_bytes_flow() {
    each_user(|place| {
        let Some(mut ends) = Ends::connected(place, "gcc", "127.0.0.1") else { return };
        ends.relay();
        for _ in 0..repetitions(20) {
            ends.own.checkpoint();
        }
        assert_eq!(ends.finish_relay(), ["ok", "ok"]);
        ends.is_silent();
    });
}

/// A checkpoint at any instant: the connection goes on, or it is reset, and no byte is another one.
#[test]
fn machines_that_are_lost_while_bytes_flow() {
    each_user(|place| {
        let mut outcomes = [0; 2];
        for _ in 0..repetitions(5) {
            let Some(mut ends) = Ends::connected(place, "gcc", "127.0.0.1") else { return };
            ends.relay();
            ends.own.checkpoint();
            ends.cut_off();
            ends.restart();
            let outcome = ends.finish_relay();
            assert!(
                [["ok", "ok"], ["reset", "reset"]].contains(&outcome.each_ref().map(|s| &s[..])),
                "{outcome:?}"
            );
            outcomes[usize::from(outcome[0] == "ok")] += 1;
        }
        println!("{} reset, {} not", outcomes[0], outcomes[1]);
    });
}

#[test]
fn a_program_that_has_gone_on() {
    each_user(|place| {
        for commands in [["own send 10", "peer receive 10"], ["peer send 10", "own receive 10"]] {
            println!("{commands:?}");
            let Some(mut ends) = Ends::connected(place, "gcc", "127.0.0.1") else { return };
            tell(&mut ends.peer, "deliver 7000");
            // It has a packet filter that would keep from it that the connection is lost.
            tell(&mut ends.own, "shield");
            ends.own.checkpoint();
            if commands[0] == "peer send 10" {
                tell(&mut ends.own, "receive 7000");
            }
            for command in commands {
                match command.split_once(' ').expect("who and what") {
                    ("own", what) => tell(&mut ends.own, what),
                    (_, what) => tell(&mut ends.peer, what),
                }
            }
            ends.cut_off();
            ends.restart_to_be_reset(7000);
            // It may not have been told; what it sends is answered by that.
            ends.peer.send("poke");
            ends.peer.expect("reset");
            ends.has_said("since the checkpoint");
        }
    });
}

#[test]
fn a_peer_that_is_gone() {
    each_user(|place| {
        let Some(mut ends) = Ends::connected(place, "gcc", "127.0.0.1") else { return };
        tell(&mut ends.peer, "deliver 7000");
        ends.own.checkpoint();
        ends.cut_off();
        tell(&mut ends.peer, "close");
        ends.restart_to_be_reset(7000);
        ends.is_silent();
    });
}

/// A program that is killed, and not its machine: the kernel has told the peer.
#[test]
fn a_program_that_is_killed() {
    each_user(|place| {
        let Some(mut ends) = Ends::connected(place, "gcc", "127.0.0.1") else { return };
        ends.own.checkpoint();
        ends.own.kill();
        tell(&mut ends.peer, "end");
        ends.restart_to_be_reset(0);
        ends.has_said("is lost: "); // Its addresses are still taken, or the peer has been told.
    });
}

#[test]
fn a_restart_without_the_privilege() {
    each_user(|place| {
        let Some(mut ends) = Ends::connected(place, "gcc", "127.0.0.1") else { return };
        tell(&mut ends.peer, "deliver 7000");
        ends.own.checkpoint();
        ends.vanish();
        let without = entering(place.user, &ends.peer, &["/usr/bin/unshare", "-Ur"]);
        ends.program = ends.program.wrapped("/usr/bin/nsenter", &without);
        ends.restart_to_be_reset(7000);
        ends.has_said("it takes CAP_NET_ADMIN");
    });
}
