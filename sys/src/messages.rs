//! Queues of System V messages: which there are, who uses them, and what is in them.

use crate::Errno;
use crate::call::{self, QueueStatus};
use crate::system_v::{Columns, User, for_each_line};

/// A queue, as `/proc/sysvipc/msg` shows it (proc(5)).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Queue {
    /// Its key, or 0.
    pub key: u32,
    /// Its id.
    pub id: i32,
    /// The user who has made it.
    pub creator: u32,
}

impl Queue {
    /// The most messages that are looked at: each is found by its place, from the first one on.
    pub const MOST_MESSAGES: u64 = 32_768;

    /// Parses a line; that of the headings is none.
    fn parse(line: &[u8]) -> Option<Self> {
        let mut columns = Columns::of(line);
        let (key, id) = (columns.key()?, columns.number(10)? as i32);
        let _mode = columns.number(8)?;
        let [_bytes, _messages, _sender, _receiver, _user, _group, creator] =
            [(); 7].map(|()| columns.number(10));
        Some(Self { key, id, creator: creator? as u32 })
    }

    /// What more the kernel tells of it, if it is process `pid`'s own: that has sent or received the last
    /// message, its user has made it, and no other process that lives has sent or received the last one.
    pub fn if_own(&self, pid: u32, user: u32) -> Option<QueueStatus> {
        if self.creator != user {
            return None;
        }
        let status = call::msg_status(self.id).ok()?;
        let uses = [status.sender, status.receiver].contains(&pid);
        (uses && other_user(&status, pid).is_none()).then_some(status)
    }
}

/// Who uses a queue besides process `pid`, as far as the kernel tells: a process that lives and has sent or
/// received the last message.
pub fn other_user(status: &QueueStatus, pid: u32) -> Option<User> {
    let others = [status.sender, status.receiver].into_iter().filter(|&other| other != pid);
    others.filter(|&other| other != 0).find_map(User::alive)
}

/// Calls `each` for every queue there is.
///
/// # Errors
///
/// Those of open(2) and read(2); what `each` fails with ends the listing.
pub fn for_each<E: From<Errno>>(mut each: impl FnMut(Queue) -> Result<(), E>) -> Result<(), E> {
    for_each_line(c"/proc/sysvipc/msg", |line| Queue::parse(line).map_or(Ok(()), &mut each))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_queues() {
        let line = b"-559038737     294912   640          3          1  3849     0  1000   100  1001   100 1 0 2";
        let queue = Queue { key: 0xdead_beef, id: 294_912, creator: 1001 };
        assert_eq!(Queue::parse(line), Some(queue));
        assert_eq!(Queue::parse(b"       key      msqid perms      cbytes       qnum lspid"), None);
    }

    /// Messages are looked at in their order, and stay.
    #[test]
    fn messages_stay() {
        let id = call::msg_make(0, 0o600).unwrap();
        let messages: [&[u8]; 3] = [b"\x07\0\0\0\0\0\0\0seven", b"\x01\0\0\0\0\0\0\0", &[1; 100]];
        messages.iter().for_each(|message| call::msg_send(id, message).unwrap());
        let before = call::msg_status(id).unwrap();
        for (index, message) in messages.iter().enumerate() {
            let mut buffer = [0; 200];
            assert_eq!(call::msg_look(id, index, &mut buffer), Ok(message.len()));
            assert_eq!(&buffer[..message.len()], *message);
            assert_eq!(call::msg_look(id, index, &mut buffer[..7]), Err(Errno::EINVAL));
        }
        assert_eq!(call::msg_look(id, 3, &mut [0; 200]), Err(Errno::ENOMSG));
        let after = call::msg_status(id).unwrap();
        assert_eq!((after.bytes, after.messages, after.receiver), (97, 3, 0));
        assert_eq!(before.sender, std::process::id());
        let own = Queue { key: 0, id, creator: call::user_and_group().0 };
        assert!(own.if_own(before.sender, own.creator).is_some());
        assert!(own.if_own(before.sender + 1, own.creator).is_none());
        call::msg_clear(id).unwrap();
        assert_eq!(call::msg_status(id).unwrap().messages, 0);
        call::msg_remove(id).unwrap();
        assert!(call::msg_status(id).is_err());
    }
}
