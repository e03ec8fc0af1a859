//! System V shared memory (sysvipc(7)) and POSIX message queues (mq_overview(7)).

use core::ffi::CStr;
use core::ptr::{from_ref, null};

use linux_raw_sys::general as nr;
use static_assertions::const_assert_eq;

use super::{Argument, Fd, Result, filled, registers, result_of, syscall};
use crate::Errno;

/// A segment of shared memory: `struct shmid64_ds` (include/uapi/asm-generic/shmbuf.h), whose beginning is
/// a `struct ipc64_perm`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
#[allow(missing_docs, reason = "shmctl(2) documents them")]
pub struct SharedSegment {
    pub key: u32,
    pub user: u32,
    pub group: u32,
    creator: [u32; 2],
    /// Permissions and flags, [`SHM_DEST`] among them.
    pub mode: u32,
    sequence: [u16; 2],
    unused: [u64; 2],
    /// Bytes in it.
    pub size: u64,
    times: [i64; 3],
    processes: [i32; 2],
    /// How often it is mapped.
    pub attached: u64,
    unused_too: [u64; 2],
}
const_assert_eq!(size_of::<SharedSegment>(), 112);

/// It goes when nobody has it mapped any more (include/uapi/linux/shm.h).
pub const SHM_DEST: u32 = 0o1000;

// include/uapi/linux/ipc.h
pub(super) const IPC_CREAT: u32 = 0o1000;
pub(super) const IPC_EXCL: u32 = 0o2000;
pub(super) const IPC_RMID: u32 = 0;
pub(super) const IPC_SET: u32 = 1;
pub(super) const IPC_STAT: u32 = 2;

/// shmget(2): the id of the segment with that key.
pub fn shm_find(key: u32) -> Result<i32> {
    call!(__NR_shmget, key, 0_usize, 0_u32).map(|id| id as i32)
}

/// shmget(2): the id of a new one.
pub fn shm_make(key: u32, size: u64, mode: u32) -> Result<i32> {
    call!(__NR_shmget, key, size, IPC_CREAT | IPC_EXCL | mode & 0o777).map(|id| id as i32)
}

/// shmctl(2), `IPC_STAT`.
pub fn shm_status(id: i32) -> Result<SharedSegment> {
    filled(|into| call!(__NR_shmctl, id, IPC_STAT, into))
}

/// shmctl(2), `IPC_SET`: gives a segment an owner, a group and permissions.
pub fn shm_set(id: i32, user: u32, group: u32, mode: u32) -> Result<()> {
    let segment = SharedSegment { user, group, mode, ..SharedSegment::default() };
    call!(__NR_shmctl, id, IPC_SET, &raw const segment).map(drop)
}

/// shmctl(2), `IPC_RMID`.
pub fn shm_remove(id: i32) -> Result<()> {
    call!(__NR_shmctl, id, IPC_RMID, 0_usize).map(drop)
}

/// shmat(2), where nothing is.
pub fn shm_attach(id: i32, address: u64) -> Result<u64> {
    call!(__NR_shmat, id, address, 0_u32).map(|at| at as u64)
}

/// `struct mq_attr` (include/uapi/linux/mqueue.h).
#[repr(C)]
#[derive(Clone, Copy, Default)]
#[allow(missing_docs, reason = "mq_getattr(3) documents them")]
pub struct QueueAttributes {
    pub flags: i64,
    pub maxmsg: i64,
    pub msgsize: i64,
    pub curmsgs: i64,
    reserved: [i64; 4],
}
const_assert_eq!(size_of::<QueueAttributes>(), 64);

/// The file system of message queues, by fstatfs(2) (`MQUEUE_MAGIC`, ipc/mqueue.c).
pub const MQUEUE_MAGIC: u32 = 0x1980_0202;

/// mq_open(2), with how many messages a new queue may have, and how long they may be.
pub fn mq_open(name: &CStr, flags: u32, mode: u32, limits: Option<(i64, i64)>) -> Result<Fd> {
    let attributes = limits.map(|(maxmsg, msgsize)| QueueAttributes {
        maxmsg,
        msgsize,
        ..QueueAttributes::default()
    });
    let attributes = attributes.as_ref().map_or(null(), from_ref);
    call!(__NR_mq_open, name, flags, mode, attributes).map(|fd| Fd(fd as i32))
}

/// mq_unlink(2).
pub fn mq_unlink(name: &CStr) -> Result<()> {
    call!(__NR_mq_unlink, name).map(drop)
}

/// mq_getattr(3).
pub fn mq_attributes(queue: Fd) -> Result<QueueAttributes> {
    filled(|into| call!(__NR_mq_getsetattr, queue, null::<u8>(), into))
}

/// mq_receive(3): the length of the message and its priority.
pub fn mq_receive(queue: Fd, into: &mut [u8]) -> Result<(usize, u32)> {
    let mut priority = 0_u32;
    let (buffer, length) = (into.as_mut_ptr(), into.len());
    call!(__NR_mq_timedreceive, queue, buffer, length, &raw mut priority, null::<u8>())
        .map(|length| (length, priority))
}

/// mq_send(3).
pub fn mq_send(queue: Fd, message: &[u8], priority: u32) -> Result<()> {
    let (bytes, length) = (message.as_ptr(), message.len());
    call!(__NR_mq_timedsend, queue, bytes, length, priority, null::<u8>()).map(drop)
}

/// Takes all messages out of a queue that does not wait. What is received at an address that no program has
/// is lost.
pub fn mq_clear(queue: Fd) -> Result<()> {
    let (nowhere, length) = (usize::MAX, usize::MAX >> 1);
    loop {
        match call!(__NR_mq_timedreceive, queue, nowhere, length, null::<u32>(), null::<u8>()) {
            Ok(_) | Err(Errno::EFAULT) => {}
            Err(Errno::EAGAIN) => return Ok(()),
            Err(why) => return Err(why),
        }
    }
}
