//! What is on its way in a pseudo-terminal: what has been written to the terminal, and what has been typed.
//!
//! Nothing tells what it is but reading it; then it is put back. Meanwhile the terminal is in *quiet* modes,
//! in which nothing is echoed, translated, or taken for a key that means something. Whether it reads lines
//! stays as it is, since the kernel forgets where lines end when that changes.

use linux_raw_sys::general::{
    ECHO, ECHONL, ICANON, IEXTEN, ISIG, IXON, OPOST, POLLIN, VMIN, VTIME, termios2,
};

use crate::Errno;
use crate::call::{self, Fd};

/// The most that the kernel has ready for the program; what is beyond that has to wait.
const READY: usize = 4095;

/// Both ends of one.
#[derive(Clone, Copy)]
pub struct Ends {
    /// The user's.
    pub master: Fd,
    /// The program's.
    pub terminal: Fd,
}

impl Ends {
    /// Calls `act` while the terminal is quiet.
    ///
    /// # Errors
    ///
    /// Those of ioctl(2); what `act` fails with.
    pub fn quietly<T, E: From<Errno>>(self, act: impl FnOnce() -> Result<T, E>) -> Result<T, E> {
        let (modes, packets) = (call::modes(self.terminal)?, call::packet_mode(self.master)?);
        let set_packets =
            |on| if packets { call::set_packet_mode(self.master, on) } else { Ok(()) };
        set_packets(false)?;
        call::set_modes(self.terminal, &quiet(modes))?;
        let result = act();
        call::set_modes(self.terminal, &modes)?;
        set_packets(true)?;
        result
    }

    /// Types `bytes`, and waits until the program could read them: as long as they are on their way, the
    /// modes have to stay.
    ///
    /// # Errors
    ///
    /// Those of write(2).
    pub fn type_in(self, bytes: &[u8]) -> Result<(), Errno> {
        write_all(self.master, bytes)?;
        while bytes.len() <= READY && call::readable_bytes(self.terminal)? < bytes.len() {
            call::yield_now();
        }
        Ok(())
    }

    /// Writes `bytes` to the terminal.
    ///
    /// # Errors
    ///
    /// Those of write(2).
    pub fn show(self, bytes: &[u8]) -> Result<(), Errno> {
        write_all(self.terminal, bytes)
    }
}

/// Whether there is something to be read from an end.
///
/// # Errors
///
/// Those of poll(2).
pub fn is_readable(end: Fd) -> Result<bool, Errno> {
    // This brings in what the kernel has not passed on yet.
    call::poll_now(end, POLLIN)?;
    Ok(call::readable_bytes(end)? > 0)
}

/// Reads all that there is to be read from an end into `buffer`; returns how much, or `None` if there is
/// more than that.
///
/// # Errors
///
/// Those of read(2).
pub fn take(end: Fd, buffer: &mut [u8]) -> Result<Option<usize>, Errno> {
    let mut length = 0;
    while is_readable(end)? {
        if length == buffer.len() {
            return Ok(None);
        }
        length += call::read(end, &mut buffer[length..])?;
    }
    Ok(Some(length))
}

fn write_all(to: Fd, mut bytes: &[u8]) -> Result<(), Errno> {
    while !bytes.is_empty() {
        bytes = &bytes[call::write(to, bytes)?..];
    }
    Ok(())
}

/// The quiet modes. Without `IXON` the kernel would let a terminal go on that has been stopped.
fn quiet(modes: termios2) -> termios2 {
    let mut quiet = modes;
    quiet.c_iflag &= IXON;
    quiet.c_oflag &= !OPOST;
    quiet.c_lflag &= !(ECHO | ECHONL | ISIG | IEXTEN);
    if modes.c_lflag & ICANON == 0 {
        quiet.c_cc.fill(0);
        (quiet.c_cc[VMIN as usize], quiet.c_cc[VTIME as usize]) = (1, 0);
    }
    quiet
}
