//! Terminals and pseudo-terminals (ioctl_tty(2)), process groups and sessions.

use linux_raw_sys::general::{self as nr, *};
use linux_raw_sys::ioctl::*;

use super::{Argument, Fd, Result, filled, registers, result_of, syscall};

/// The modes of a terminal: `ioctl(TCGETS2)`.
pub fn modes(terminal: Fd) -> Result<termios2> {
    filled(|into| call!(__NR_ioctl, terminal, TCGETS2, into))
}

/// `ioctl(TCSETS2)`.
pub fn set_modes(terminal: Fd, modes: &termios2) -> Result<()> {
    call!(__NR_ioctl, terminal, TCSETS2, core::ptr::from_ref(modes)).map(drop)
}

/// How many rows and columns a terminal has: `ioctl(TIOCGWINSZ)`.
pub fn window_size(terminal: Fd) -> Result<winsize> {
    filled(|into| call!(__NR_ioctl, terminal, TIOCGWINSZ, into))
}

/// `ioctl(TIOCSWINSZ)`.
pub fn set_window_size(terminal: Fd, size: &winsize) -> Result<()> {
    call!(__NR_ioctl, terminal, TIOCSWINSZ, core::ptr::from_ref(size)).map(drop)
}

/// The process group in the foreground of a terminal, which must be the controlling one:
/// `ioctl(TIOCGPGRP)`.
pub fn foreground_group(terminal: Fd) -> Result<u32> {
    filled::<i32>(|into| call!(__NR_ioctl, terminal, TIOCGPGRP, into)).map(|group| group as u32)
}

/// The number of a terminal's device, for either end of a pseudo-terminal, and for `/dev/tty` that of
/// what it stands for: `ioctl(TIOCGDEV)`.
pub fn terminal_device(terminal: Fd) -> Result<u32> {
    filled(|into| call!(__NR_ioctl, terminal, TIOCGDEV, into))
}

/// The process group of this process: getpgid(2).
pub fn process_group() -> Result<u32> {
    call!(__NR_getpgid, 0_u32).map(|group| group as u32)
}

/// setsid(2).
pub fn new_session() -> Result<()> {
    call!(__NR_setsid).map(drop)
}

/// Makes a terminal the controlling one of the session that this process leads: `ioctl(TIOCSCTTY)`.
pub fn take_terminal(terminal: Fd) -> Result<()> {
    call!(__NR_ioctl, terminal, TIOCSCTTY, 0_u32).map(drop)
}

/// Lets the terminal's end of a new pseudo-terminal be opened, or does not: `ioctl(TIOCSPTLCK)`.
pub fn lock_pseudo_terminal(master: Fd, locked: bool) -> Result<()> {
    let locked = i32::from(locked);
    call!(__NR_ioctl, master, TIOCSPTLCK, &raw const locked).map(drop)
}

/// Whether it may not be opened: `ioctl(TIOCGPTLCK)` (Linux 3.8).
pub fn is_locked_pseudo_terminal(master: Fd) -> Result<bool> {
    filled::<i32>(|into| call!(__NR_ioctl, master, TIOCGPTLCK, into)).map(|locked| locked != 0)
}

/// The number of the terminal's end, as in `/dev/pts/N`: `ioctl(TIOCGPTN)`.
pub fn pseudo_terminal_number(master: Fd) -> Result<u32> {
    filled(|into| call!(__NR_ioctl, master, TIOCGPTN, into))
}

/// Opens the terminal's end of a pseudo-terminal: `ioctl(TIOCGPTPEER)` (Linux 4.13).
pub fn open_peer(master: Fd, flags: u32) -> Result<Fd> {
    call!(__NR_ioctl, master, TIOCGPTPEER, flags).map(|fd| Fd(fd as i32))
}

/// Whether a pseudo-terminal tells of its state, too, in what is read from it: `ioctl(TIOCGPKT)` (Linux
/// 3.8).
pub fn packet_mode(master: Fd) -> Result<bool> {
    filled::<i32>(|into| call!(__NR_ioctl, master, TIOCGPKT, into)).map(|packets| packets != 0)
}

/// `ioctl(TIOCPKT)`.
pub fn set_packet_mode(master: Fd, packets: bool) -> Result<()> {
    let packets = i32::from(packets);
    call!(__NR_ioctl, master, TIOCPKT, &raw const packets).map(drop)
}

/// Whether nobody else may open a terminal: `ioctl(TIOCGEXCL)` (Linux 3.8).
pub fn is_exclusive(terminal: Fd) -> Result<bool> {
    filled::<i32>(|into| call!(__NR_ioctl, terminal, TIOCGEXCL, into)).map(|it| it != 0)
}

/// Lets nobody else open a terminal: `ioctl(TIOCEXCL)`.
pub fn be_exclusive(terminal: Fd) -> Result<()> {
    call!(__NR_ioctl, terminal, TIOCEXCL).map(drop)
}
