//! The two ends of a TCP connection: a program that is checkpointed, and another process that is not. Both are
//! in a network namespace of their own, in which an ordinary user has the privilege for `TCP_REPAIR`, too.

use super::{Place, Program, Running, User, not_run};

/// Tells `run` to do something.
pub fn tell(run: &mut Running, command: &str) {
    run.send(command);
    run.expect("ok");
}

/// Asks `run` to do something of which it tells a number.
pub fn ask(run: &mut Running, command: &str) -> u64 {
    run.send(command);
    run.line().parse().expect("a number")
}

/// The arguments of nsenter(1) with which `command` is run in the namespaces of a process.
pub fn entering<'a>(user: User, process: &Running, command: &[&'a str]) -> Vec<&'a str> {
    let namespaces: &[&str] = match user {
        User::Root => &["-n"],
        User::Ordinary => &["-U", "-n", "--preserve-credentials"],
    };
    [namespaces, &["-t", process.pid.to_string().leak()], command].concat()
}

/// The two ends of a connection.
pub struct Ends<'p> {
    pub program: Program<'p>,
    /// The one that is checkpointed.
    pub own: Running,
    pub peer: Running,
}

impl<'p> Ends<'p> {
    /// Two ends at `host`; nothing if there is no network namespace to be had.
    pub fn of(place: &'p Place, compiler: &str, host: &str) -> Option<Self> {
        let target = place.compiled(compiler, "tcp_end").args([host]);
        let unshare = match place.user {
            User::Root => "-n",
            User::Ordinary => "-Urn",
        };
        let probe = place.system("/usr/bin/true").wrapped("/usr/bin/unshare", &[unshare]);
        if !probe.start_bare().wait().success() {
            not_run("TCP connections that stay: no network namespace is to be had here");
            return None;
        }
        let mut peer = target.clone().wrapped("/usr/bin/unshare", &[unshare]).start_bare();
        tell(&mut peer, "up");
        let program = target.wrapped("/usr/bin/nsenter", &entering(place.user, &peer, &[]));
        let own = program.start();
        Some(Self { program, own, peer })
    }

    /// Connects them; the peer waits for the connection, or else does the program.
    pub fn connect(&mut self, peer_waits: bool) {
        let (waiting, connecting) = match peer_waits {
            true => (&mut self.peer, &mut self.own),
            false => (&mut self.own, &mut self.peer),
        };
        let port = ask(waiting, "listen");
        tell(connecting, &format!("connect {port}"));
        tell(waiting, "accept");
    }

    /// Two that are connected.
    pub fn connected(place: &'p Place, compiler: &str, host: &str) -> Option<Self> {
        let mut ends = Self::of(place, compiler, host)?;
        ends.connect(true);
        Some(ends)
    }
}
