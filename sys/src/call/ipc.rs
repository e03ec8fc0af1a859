//! System V shared memory (sysvipc(7)).

use linux_raw_sys::general as nr;
use static_assertions::const_assert_eq;

use super::{Argument, Result, filled, registers, result_of, syscall};

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
const IPC_CREAT: u32 = 0o1000;
const IPC_EXCL: u32 = 0o2000;
const IPC_RMID: u32 = 0;
const IPC_SET: u32 = 1;
const IPC_STAT: u32 = 2;

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
