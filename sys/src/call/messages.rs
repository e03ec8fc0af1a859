//! System V message queues (sysvipc(7)).

use linux_raw_sys::general as nr;
use static_assertions::const_assert_eq;

use super::ipc::{IPC_CREAT, IPC_EXCL, IPC_RMID, IPC_SET, IPC_STAT};
use super::{Argument, Result, filled, registers, result_of, syscall};
use crate::Errno;

// include/uapi/linux/ipc.h and include/uapi/linux/msg.h
const IPC_NOWAIT: u32 = 0o4000;
const MSG_NOERROR: u32 = 0o10000;
const MSG_COPY: u32 = 0o40000;

/// Bytes of a message before its text: its type (`struct msgbuf`, include/uapi/linux/msg.h).
pub const MESSAGE_TYPE: usize = size_of::<i64>();

/// A queue: `struct msqid64_ds` (include/uapi/asm-generic/msgbuf.h), whose beginning is a
/// `struct ipc64_perm`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub struct QueueStatus {
    /// Its key, or 0.
    pub key: u32,
    /// Its owner
    pub user: u32,
    /// and group.
    pub group: u32,
    creator: [u32; 2],
    /// Its permissions.
    pub mode: u32,
    sequence: [u16; 2],
    unused: [u64; 2],
    times: [i64; 3],
    /// Bytes in it, without the types of messages.
    pub bytes: u64,
    /// Messages in it.
    pub messages: u64,
    /// How many bytes it may have, and how many messages.
    pub room: u64,
    /// The process that has sent the last one, or 0.
    pub sender: u32,
    /// The process that has received the last one, or 0.
    pub receiver: u32,
    unused_too: [u64; 2],
}
const_assert_eq!(size_of::<QueueStatus>(), 120);

/// msgget(2): the id of the queue with that key.
pub fn msg_find(key: u32) -> Result<i32> {
    call!(__NR_msgget, key, 0_u32).map(|id| id as i32)
}

/// msgget(2): the id of a new one.
pub fn msg_make(key: u32, mode: u32) -> Result<i32> {
    call!(__NR_msgget, key, IPC_CREAT | IPC_EXCL | mode & 0o777).map(|id| id as i32)
}

/// msgctl(2), `IPC_STAT`.
pub fn msg_status(id: i32) -> Result<QueueStatus> {
    filled(|into| call!(__NR_msgctl, id, IPC_STAT, into))
}

/// msgctl(2), `IPC_SET`: gives a queue an owner, a group, permissions and room.
pub fn msg_set(id: i32, user: u32, group: u32, mode: u32, room: u64) -> Result<()> {
    let queue = QueueStatus { user, group, mode, room, ..QueueStatus::default() };
    call!(__NR_msgctl, id, IPC_SET, &raw const queue).map(drop)
}

/// msgctl(2), `IPC_RMID`.
pub fn msg_remove(id: i32) -> Result<()> {
    call!(__NR_msgctl, id, IPC_RMID, 0_usize).map(drop)
}

/// msgsnd(2) without waiting. The message begins with its type.
pub fn msg_send(id: i32, message: &[u8]) -> Result<()> {
    let text = message.len().checked_sub(MESSAGE_TYPE).ok_or(Errno::EINVAL)?;
    call!(__NR_msgsnd, id, message.as_ptr(), text, IPC_NOWAIT).map(drop)
}

/// msgrcv(2), `MSG_COPY`: the message at a place in the queue, which stays there; returns its length, that of
/// its type included. `EINVAL` if it is longer than the buffer.
pub fn msg_look(id: i32, index: usize, into: &mut [u8]) -> Result<usize> {
    let text = into.len().checked_sub(MESSAGE_TYPE).ok_or(Errno::EINVAL)?;
    call!(__NR_msgrcv, id, into.as_mut_ptr(), text, index, MSG_COPY | IPC_NOWAIT | MSG_NOERROR)
        .map(|length| length + MESSAGE_TYPE)
}

/// Takes all messages out of a queue.
pub fn msg_clear(id: i32) -> Result<()> {
    let mut kind = 0_i64;
    loop {
        let into = &raw mut kind;
        match call!(__NR_msgrcv, id, into, 0_usize, 0_u64, IPC_NOWAIT | MSG_NOERROR) {
            Ok(_) => {}
            Err(Errno::ENOMSG) => return Ok(()),
            Err(why) => return Err(why),
        }
    }
}
