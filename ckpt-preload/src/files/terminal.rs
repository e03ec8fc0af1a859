//! Terminals: the modes that the program has given them; and pseudo-terminals of which it has both ends.

use bytemuck::bytes_of;
use ckpt_image::files::{Message, PseudoTerminal, Terminal, descriptor};
use ckpt_image::{Full, NoteWriter};
use ckpt_sys::call::{self, Fd};
use ckpt_sys::descriptor::Kind;
use ckpt_sys::pseudo_terminal::{self, Ends};
use ckpt_sys::{Errno, Line};
use linux_raw_sys::general::{
    F_GETFL, ICANON, O_ACCMODE, O_PATH, O_RDWR, POLLHUP, POLLIN, POLLOUT, stat,
};

use super::{Found, Obstacle, holder, lowest};

/// A terminal.
pub fn capture(found: &Found<'_>, flags: u32, notes: &mut NoteWriter<'_>) -> Result<u32, Obstacle> {
    if flags & O_PATH == 0 {
        match describe(found.fd) {
            Ok(terminal) => {
                notes.push(bytes_of(&terminal))?;
                if let Some(master) = master_of(terminal.device) {
                    is_own(master)?;
                    return Ok(descriptor::OWN_TERMINAL);
                }
            }
            // It has been hung up, and stays that.
            Err(Errno::EIO) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(descriptor::TERMINAL)
}

/// What a terminal is like; of a pseudo-terminal either end will do.
pub fn describe(fd: Fd) -> Result<Terminal, Errno> {
    let (modes, size) = (call::modes(fd)?, call::window_size(fd)?);
    Ok(Terminal {
        input: modes.c_iflag,
        output: modes.c_oflag,
        control: modes.c_cflag,
        local: modes.c_lflag,
        discipline: modes.c_line,
        keys: modes.c_cc,
        input_speed: modes.c_ispeed,
        output_speed: modes.c_ospeed,
        rows: size.ws_row,
        columns: size.ws_col,
        width: size.ws_xpixel,
        height: size.ws_ypixel,
        device: call::terminal_device(fd)?,
    })
}

/// The number of `/dev/ptmx` (the kernel's devices.txt), as stat(2) has it.
const MASTER: u64 = 5 << 8 | 2;

/// The end to type at of the pseudo-terminal that `device` is the other end of, if this process has it.
fn master_of(device: u32) -> Option<Fd> {
    find(|fd, status| status.st_rdev == MASTER && call::terminal_device(fd) == Ok(device))
}

/// A descriptor of the terminal `device` by which it can be read and written, if this process has one.
fn terminal_of(device: u32) -> Option<Fd> {
    find(|fd, status| {
        let flags = call::fcntl(fd, F_GETFL, 0).unwrap_or(O_PATH);
        status.st_rdev != MASTER
            && flags & O_ACCMODE == O_RDWR
            && call::terminal_device(fd) == Ok(device)
    })
}

/// The lowest descriptor that `is_it`.
fn find(is_it: impl Fn(Fd, &stat) -> bool) -> Option<Fd> {
    lowest(|fd| Ok(call::fstat(fd).is_ok_and(|status| is_it(fd, &status)))).ok().flatten()
}

/// Refuses a pseudo-terminal that somebody else has, too.
fn is_own(master: Fd) -> Result<(), Obstacle> {
    let number = call::pseudo_terminal_number(master)?;
    let path = Line::<32>::of(format_args!("/dev/pts/{number}\0"));
    let terminal = Found {
        fd: master,
        kind: Kind::Terminal,
        path: path.as_path().to_bytes(),
        status: call::stat(path.as_path())?,
        info: &[],
        standard: false,
    };
    match holder::of(&terminal) {
        Some(holder) => Err(Obstacle::new(format_args!("a pseudo-terminal on which {holder} is"))),
        None => Ok(()),
    }
}

/// A pseudo-terminal, by the end to type at.
pub fn capture_master(
    found: &Found<'_>,
    flags: u32,
    notes: &mut NoteWriter<'_>,
) -> Result<u32, Obstacle> {
    let master = found.fd;
    if flags & O_PATH != 0 {
        return Err(Obstacle::new(format_args!("a path to a pseudo-terminal")));
    }
    is_own(master)?;
    let terminal = describe(master)?;
    let other = terminal_of(terminal.device);
    let closed = other.is_none() && call::poll_now(master, 0)? & POLLHUP != 0;
    notes.push(bytes_of(&terminal))?;
    notes.push(bytes_of(&PseudoTerminal {
        packets: call::packet_mode(master)?.into(),
        locked: call::is_locked_pseudo_terminal(master)?.into(),
        exclusive: other.map_or(Ok(false), call::is_exclusive)?.into(),
        closed: closed.into(),
    }))?;
    let Some(other) = other else {
        if pseudo_terminal::is_readable(master)? {
            return Err(Obstacle::new(format_args!(
                "a pseudo-terminal that has been closed with something written to it"
            )));
        }
        return Ok(descriptor::PSEUDO_TERMINAL);
    };
    if terminal.local & ICANON != 0 && call::poll_now(other, POLLIN)? & POLLIN != 0 {
        return Err(Obstacle::new(format_args!(
            "a pseudo-terminal with lines that have been typed and not read"
        )));
    }
    let ends = Ends { master, terminal: other };
    if pseudo_terminal::is_readable(master)? || pseudo_terminal::is_readable(other)? {
        // What is read could not be put back.
        if call::poll_now(other, POLLOUT)? & POLLOUT == 0 {
            return Err(Obstacle::new(format_args!("a pseudo-terminal that is full or stopped")));
        }
        ends.quietly(|| {
            copy(master, |bytes| ends.show(bytes), notes)?;
            copy(other, |bytes| ends.type_in(bytes), notes)
        })?;
    }
    Ok(descriptor::PSEUDO_TERMINAL)
}

/// Notes what there is to be read from an end, and has it put back. Should the process be killed in between,
/// the terminal is gone with it, since nobody else has it.
fn copy(
    from: Fd,
    put_back: impl FnOnce(&[u8]) -> Result<(), Errno>,
    notes: &mut NoteWriter<'_>,
) -> Result<(), Obstacle> {
    /// More than the kernel holds: a page that is ready, and 64 KiB on their way.
    const MOST: usize = 128 << 10;
    let at = notes.open_description().len();
    notes.push(bytes_of(&Message { length: 0 }))?;
    let room = notes.room().get_mut(..MOST).ok_or(Full)?;
    let length = pseudo_terminal::take(from, room)?.ok_or(Errno::EIO)?;
    put_back(&room[..length])?;
    notes.advance(length)?;
    notes.amend(at, bytes_of(&Message { length: length as u64 }));
    Ok(notes.align()?)
}
