//! What becomes of the TCP connections of a running program to other processes.

use std::fs::{self, File};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;

use ckpt_sys::call::{self, Fd};
use ckpt_sys::lines::number;
use ckpt_sys::{is_repairable, tcp};

use super::Findings;
use super::descriptors::socket_of;
use super::process::Process;
use crate::text::Counted;

/// A TCP socket that has a peer.
struct Connected {
    ends: [String; 2],
    is_repairable: bool,
}

/// Says how many there are, and whether they stay.
pub fn check(process: &Process, found: &mut Findings) {
    let descriptors = process.descriptors().unwrap_or_default();
    let all: Vec<_> = descriptors.iter().filter_map(|(fd, _)| connected(process, *fd)).collect();
    let is_own = |one: &Connected| {
        let [local, remote] = &one.ends;
        all.iter().any(|other| other.ends == [remote.clone(), local.clone()])
    };
    let mut to_others: Vec<_> = all.iter().filter(|one| !is_own(one)).collect();
    to_others.sort_by_key(|one| &one.ends);
    to_others.dedup_by_key(|one| &one.ends); // Each once, under whatever numbers.
    let is_permitted = has_privilege(process);
    let stay = to_others.iter().filter(|one| is_permitted && one.is_repairable).count();
    let lost = to_others.len() - stay;
    let counted = |count| Counted(count, "TCP connection", "TCP connections");
    if stay > 0 {
        found.ok(format!(
            "{} to other processes can go on, if the restart has CAP_NET_ADMIN and the addresses",
            counted(stay)
        ));
    }
    if lost > 0 {
        found.ok(format!("{} to other processes will be reset after a restart", counted(lost)));
    }
}

/// Descriptor `fd`, if it is of a TCP socket that is connected.
fn connected(process: &Process, fd: i32) -> Option<Connected> {
    let socket = socket_of(process, fd)?;
    let fd = Fd(socket.as_raw_fd());
    let ends = [call::local_address(fd).ok()?, call::remote_address(fd).ok()?];
    ends[0].host_and_port()?;
    let state = call::tcp_information(fd).ok()?.tcpi_state;
    let is_standing = ![tcp::SYN_SENT, tcp::CLOSE, tcp::LISTEN].contains(&state);
    is_standing.then(|| Connected {
        ends: ends.map(|end| end.to_string().replace("[::ffff:", "[").replace(['[', ']'], "")),
        is_repairable: is_repairable(fd).unwrap_or(false),
    })
}

/// Whether the process has `CAP_NET_ADMIN` in the user namespace that its network belongs to.
fn has_privilege(process: &Process) -> bool {
    const CAP_NET_ADMIN: u64 = 12;
    let capabilities = process.status("CapEff").and_then(|text| number(text, 16)).unwrap_or(0);
    let own = fs::metadata(format!("/proc/{}/ns/user", process.pid));
    let owner = owner_of_network(process).and_then(|owner| owner.metadata().ok());
    capabilities >> CAP_NET_ADMIN & 1 != 0
        && own.is_ok_and(|own| owner.is_some_and(|owner| owner.ino() == own.ino()))
}

/// The user namespace that the network namespace of a process belongs to.
fn owner_of_network(process: &Process) -> Option<File> {
    /// `_IO(0xb7, 1)` (include/uapi/linux/nsfs.h).
    const NS_GET_USERNS: u64 = 0xb701;
    let network = File::open(format!("/proc/{}/ns/net", process.pid)).ok()?;
    // SAFETY: a call without pointers; what it returns is a new descriptor.
    unsafe {
        let owner = libc::ioctl(network.as_raw_fd(), NS_GET_USERNS as _);
        (owner >= 0).then(|| File::from(OwnedFd::from_raw_fd(owner)))
    }
}
