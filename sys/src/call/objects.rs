//! Descriptors that are no files: pipes, counters, timers, sets of signals and of descriptors.

use core::ptr::null;

use linux_raw_sys::general::{self as nr, *};
use linux_raw_sys::ioctl::FIONREAD;

use super::{Argument, Fd, Result, SIGNAL_SET, again, filled, registers, result_of, syscall};

/// pipe2(2): the end to read from and the one to write to.
pub fn pipe(flags: u32) -> Result<[Fd; 2]> {
    filled::<[i32; 2]>(|into| call!(__NR_pipe2, into, flags)).map(|ends| ends.map(Fd))
}

/// tee(2), without waiting: copies what is in a pipe into another.
pub fn tee(from: Fd, to: Fd, length: usize) -> Result<usize> {
    /// `SPLICE_F_NONBLOCK` (include/linux/splice.h).
    const NONBLOCK: u32 = 2;
    call!(__NR_tee, from, to, length, NONBLOCK)
}

/// How many bytes can be read from a pipe, socket, terminal or inotify queue: `ioctl(FIONREAD)`.
pub fn readable_bytes(fd: Fd) -> Result<usize> {
    filled::<i32>(|into| call!(__NR_ioctl, fd, FIONREAD, into)).map(|bytes| bytes as usize)
}

/// What poll(2) tells of a descriptor now, `POLLHUP` and `POLLERR` apart from what is asked for.
pub fn poll_now(fd: Fd, events: u32) -> Result<u32> {
    let mut poll = pollfd { fd: fd.0, events: events as i16, revents: 0 };
    let now = timespec { tv_sec: 0, tv_nsec: 0 };
    call!(__NR_ppoll, &raw mut poll, 1_u32, &raw const now, null::<u64>(), 0_u32)?;
    Ok(poll.revents as u16 as u32)
}

/// Waits until something can be done with one of the descriptors: poll(2), each with the events that are
/// waited for. Returns those that have come.
pub fn wait_until_ready<const N: usize>(wanted: [(Fd, u32); N]) -> Result<[u32; N]> {
    let mut polls =
        wanted.map(|(fd, events)| pollfd { fd: fd.0, events: events as i16, revents: 0 });
    let (never, mask) = (null::<timespec>(), null::<u64>());
    again(|| call!(__NR_ppoll, polls.as_mut_ptr(), N, never, mask, 0_u32))?;
    Ok(polls.map(|poll| u32::from(poll.revents as u16)))
}

/// eventfd2(2) with a count of 0.
pub fn eventfd(flags: u32) -> Result<Fd> {
    call!(__NR_eventfd2, 0_u32, flags).map(|fd| Fd(fd as i32))
}

/// timerfd_create(2).
pub fn timerfd_create(clock: i32, flags: u32) -> Result<Fd> {
    call!(__NR_timerfd_create, clock, flags).map(|fd| Fd(fd as i32))
}

/// timerfd_settime(2).
pub fn timerfd_settime(fd: Fd, flags: u32, value: &itimerspec) -> Result<()> {
    let value = core::ptr::from_ref(value);
    call!(__NR_timerfd_settime, fd, flags, value, null::<u8>()).map(drop)
}

/// timerfd_gettime(2).
pub fn timerfd_gettime(fd: Fd) -> Result<itimerspec> {
    filled(|into| call!(__NR_timerfd_gettime, fd, into))
}

/// Sets how often a timerfd has fired: `ioctl(TFD_IOC_SET_TICKS)` (Linux 3.17).
pub fn timerfd_set_ticks(fd: Fd, ticks: u64) -> Result<()> {
    // _IOW('T', 0, __u64) (include/uapi/linux/timerfd.h)
    const TFD_IOC_SET_TICKS: usize = 1 << 30 | size_of::<u64>() << 16 | (b'T' as usize) << 8;
    call!(__NR_ioctl, fd, TFD_IOC_SET_TICKS, &raw const ticks).map(drop)
}

/// Flags of signalfd4(2), which are those of open(2) (include/uapi/linux/signalfd.h).
pub const SFD_CLOEXEC: u32 = O_CLOEXEC;
/// Likewise.
pub const SFD_NONBLOCK: u32 = O_NONBLOCK;

/// signalfd4(2): a new one for the signals in `mask`.
pub fn signalfd(mask: u64, flags: u32) -> Result<Fd> {
    call!(__NR_signalfd4, -1_i32, &raw const mask, SIGNAL_SET, flags).map(|fd| Fd(fd as i32))
}

/// epoll_create1(2).
pub fn epoll_create(flags: u32) -> Result<Fd> {
    call!(__NR_epoll_create1, flags).map(|fd| Fd(fd as i32))
}

/// epoll_ctl(2), `EPOLL_CTL_ADD`.
pub fn epoll_add(set: Fd, fd: Fd, events: u32, data: u64) -> Result<()> {
    let event = epoll_event { events, data };
    call!(__NR_epoll_ctl, set, EPOLL_CTL_ADD, fd, &raw const event).map(drop)
}

/// epoll_pwait(2): takes one event, if there is one, and forgets it.
pub fn epoll_take(set: Fd) -> Result<()> {
    let mut event = epoll_event { events: 0, data: 0 };
    call!(__NR_epoll_pwait, set, &raw mut event, 1_u32, 0_u32, null::<u64>(), 0_u32).map(drop)
}

/// Whether what an epoll set watches by the number `number` is the open file of descriptor `fd` of
/// thread `tid`: kcmp(2) with `KCMP_EPOLL_TFD`. Should there be several by that number, the first.
pub fn epoll_watches(tid: u32, set: Fd, number: i32, fd: Fd) -> Result<bool> {
    const KCMP_EPOLL_TFD: u32 = 7;
    // struct kcmp_epoll_slot (include/uapi/linux/kcmp.h)
    let slot = [set.0, number, 0];
    call!(__NR_kcmp, tid, tid, KCMP_EPOLL_TFD, fd, slot.as_ptr()).map(|order| order == 0)
}

/// Who gets the signals of a descriptor, by kind and id: fcntl(2), `F_GETOWN_EX`.
pub fn owner(fd: Fd) -> Result<(u32, i32)> {
    let owner = filled::<f_owner_ex>(|into| again(|| call!(__NR_fcntl, fd, F_GETOWN_EX, into)))?;
    Ok((owner.type_ as u32, owner.pid))
}

/// fcntl(2), `F_SETOWN_EX`.
pub fn set_owner(fd: Fd, kind: u32, id: i32) -> Result<()> {
    let owner = f_owner_ex { type_: kind as _, pid: id };
    call!(__NR_fcntl, fd, F_SETOWN_EX, &raw const owner).map(drop)
}
