//! System V semaphores (sysvipc(7)).

use linux_raw_sys::general as nr;

use super::ipc::{IPC_CREAT, IPC_EXCL, IPC_RMID, IPC_SET};
use super::{Argument, Result, registers, result_of, syscall};

// include/uapi/linux/sem.h
const GETPID: u32 = 11;
const GETVAL: u32 = 12;
const GETNCNT: u32 = 14;
const GETZCNT: u32 = 15;
const SETVAL: u32 = 16;

/// The end of the process takes the operation back (include/uapi/linux/sem.h).
pub const SEM_UNDO: i16 = 0x1000;

/// Fails instead of waiting (include/uapi/linux/ipc.h).
pub const IPC_NOWAIT: i16 = 0o4000;

/// The highest value of a semaphore (`SEMVMX`, include/uapi/linux/sem.h).
pub const MOST_OF_SEMAPHORE: i16 = i16::MAX;

/// An operation on a semaphore: `struct sembuf` (include/uapi/linux/sem.h).
#[repr(C)]
#[derive(Clone, Copy)]
#[allow(missing_docs, reason = "semop(2) documents them")]
pub struct SemaphoreOperation {
    pub number: u16,
    pub change: i16,
    pub flags: i16,
}

/// semget(2): the id of the set with that key.
pub fn sem_find(key: u32) -> Result<i32> {
    call!(__NR_semget, key, 0_u32, 0_u32).map(|id| id as i32)
}

/// semget(2): the id of a new one.
pub fn sem_make(key: u32, count: u32, mode: u32) -> Result<i32> {
    call!(__NR_semget, key, count, IPC_CREAT | IPC_EXCL | mode & 0o777).map(|id| id as i32)
}

/// semctl(2), `IPC_SET`: gives a set an owner, a group and permissions.
pub fn sem_set(id: i32, user: u32, group: u32, mode: u32) -> Result<()> {
    /// `struct semid64_ds`, of which the kernel looks at the `struct ipc64_perm` at its beginning. How long
    /// the rest is differs by machine, and is at most that.
    #[repr(C)]
    #[derive(Default)]
    struct Set {
        key: u32,
        user: u32,
        group: u32,
        creator: [u32; 2],
        mode: u32,
        rest: [u64; 11],
    }
    let set = Set { user, group, mode, ..Set::default() };
    call!(__NR_semctl, id, 0_u32, IPC_SET, &raw const set).map(drop)
}

/// semctl(2), `IPC_RMID`.
pub fn sem_remove(id: i32) -> Result<()> {
    call!(__NR_semctl, id, 0_u32, IPC_RMID).map(drop)
}

/// semctl(2), `GETVAL`.
pub fn sem_value(id: i32, number: u32) -> Result<u16> {
    call!(__NR_semctl, id, number, GETVAL).map(|value| value as u16)
}

/// semctl(2), `SETVAL`. What SEM_UNDO was to undo of the semaphore is forgotten.
pub fn sem_set_value(id: i32, number: u32, value: u16) -> Result<()> {
    call!(__NR_semctl, id, number, SETVAL, u32::from(value)).map(drop)
}

/// semctl(2), `GETPID`: the process that has operated on a semaphore last; 0 if none has.
pub fn sem_last_process(id: i32, number: u32) -> Result<u32> {
    call!(__NR_semctl, id, number, GETPID).map(|pid| pid as u32)
}

/// semctl(2), `GETNCNT` and `GETZCNT`: how many threads wait for a semaphore.
pub fn sem_waiting(id: i32, number: u32) -> Result<usize> {
    let for_more = call!(__NR_semctl, id, number, GETNCNT)?;
    Ok(for_more + call!(__NR_semctl, id, number, GETZCNT)?)
}

/// semop(2).
pub fn sem_operate(id: i32, operations: &[SemaphoreOperation]) -> Result<()> {
    call!(__NR_semop, id, operations.as_ptr(), operations.len()).map(drop)
}
