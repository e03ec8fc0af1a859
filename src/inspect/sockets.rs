//! The sockets of an image.

use ckpt_image::files::{Socket, SocketMessage, SocketOption, SocketParts, phase};
use ckpt_image::record::all_with_tails;
use ckpt_sys::call::Address;

use crate::text::{Bytes, Counted};

/// A socket in words. `rest` is what stands behind it in the image.
pub fn described(socket: &Socket, rest: &[u8]) -> String {
    let SocketParts { options, messages, .. } = socket.parts(rest).unwrap_or_default();
    let words = [
        Some(kind(socket)),
        Some(done(socket)).filter(|done| !done.is_empty()),
        match socket.shutdown {
            1 => Some("shut down for reading".to_owned()),
            2 => Some("shut down for writing".to_owned()),
            3 => Some("shut down".to_owned()),
            _ => None,
        },
        counted(all_with_tails::<SocketOption>(options).count(), "option", "options"),
        queue(messages),
    ];
    words.into_iter().flatten().collect::<Vec<_>>().join(", ")
}

fn kind(socket: &Socket) -> String {
    let family = match i32::from(socket.family) {
        libc::AF_UNIX => "Unix".to_owned(),
        libc::AF_INET => "IPv4".to_owned(),
        libc::AF_INET6 => "IPv6".to_owned(),
        libc::AF_NETLINK => return format!("netlink protocol {}", socket.protocol),
        family => format!("family {family}"),
    };
    match i32::from(socket.kind) {
        libc::SOCK_STREAM => format!("{family} stream"),
        libc::SOCK_DGRAM => format!("{family} datagrams"),
        libc::SOCK_SEQPACKET => format!("{family} messages in order"),
        kind => format!("{family} type {kind}"),
    }
}

/// What has been done with it, and its addresses.
fn done(socket: &Socket) -> String {
    let address = |bytes: &[u8], length: u16| {
        let address = Address::new(&bytes[..bytes.len().min(length.into())]);
        let has_one = address.host_and_port().is_some() || !address.name().is_empty();
        has_one.then(|| address.to_string())
    };
    let local = address(&socket.local, socket.local_length);
    let remote = address(&socket.remote, socket.remote_length);
    let at = local.map_or(String::new(), |local| format!("at {local}"));
    let what = match socket.phase {
        phase::LISTENING => format!("listening {at} for {}", socket.backlog),
        phase::DIRECTED => format!("{at} to {}", remote.unwrap_or_default()),
        phase::PAIRED => format!("{at} connected to descriptor {}", socket.peer),
        phase::CLOSED => {
            let to = remote.map_or(String::new(), |remote| format!(" to {remote}"));
            format!("{at} whose connection{to} is lost")
        }
        phase::ESTABLISHED => {
            format!("{at} connected to {}, by TCP_REPAIR", remote.unwrap_or_default())
        }
        _ => at,
    };
    what.trim_start().to_owned()
}

/// What is in its queue.
fn queue(messages: &[u8]) -> Option<String> {
    let all = || all_with_tails::<SocketMessage>(messages).map(|(message, _)| message);
    let count = counted(all().count(), "message", "messages")?;
    let bytes = Bytes(all().map(|message| message.length).sum());
    let passed = all().map(|message| message.passed as usize).sum();
    let passed = counted(passed, "descriptor", "descriptors");
    let passed = passed.map_or(String::new(), |passed| format!(" and {passed}"));
    Some(format!("{bytes}{passed} in {count}"))
}

fn counted(count: usize, one: &'static str, many: &'static str) -> Option<String> {
    (count > 0).then(|| Counted(count, one, many).to_string())
}
