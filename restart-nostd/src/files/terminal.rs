//! Terminals: that of the restart, in the modes that the program had given its own.

use core::sync::atomic::{AtomicI32, Ordering::Relaxed};

use ckpt_image::files::{Terminal, descriptor};
use ckpt_image::record::first;
use ckpt_sys::call::{self, Fd};
use ckpt_sys::{Errno, Escaped};
use linux_raw_sys::general::{
    ICANON, O_NOCTTY, O_NONBLOCK, O_PATH, O_RDWR, SIGTTOU, SIGWINCH, termios2, winsize,
};

use super::{Restored, descriptors, duplicate_beyond, inherit, move_beyond, reopen, take_nothing};
use crate::image::Image;
use crate::report::note;
use crate::signals;
use crate::terminal::is_in_background;

/// The terminal of the restart: that of its standard streams, else its controlling one; -1 if there is
/// none.
static HERE: AtomicI32 = AtomicI32::new(-1);

/// Keeps the terminal of the restart, beyond all of the program's descriptors.
pub fn keep_one() {
    let stream = (0..=2).map(Fd).find(|&fd| call::is_terminal(fd));
    let kept = match stream {
        Some(fd) => duplicate_beyond(fd),
        None => call::openat(c"/dev/tty", O_RDWR | O_NOCTTY | O_NONBLOCK, 0).and_then(move_beyond),
    };
    if let Ok(kept) = kept {
        HERE.store(kept.0, Relaxed);
    }
}

/// A standard stream is what it is here; any other descriptor is opened.
pub fn restore(restored: &Restored<'_>) {
    if restored.record.fd <= call::STDERR.0 {
        return inherit(restored.record);
    }
    match open(restored.path, restored.record.flags) {
        Ok(opened) => restored.take(opened),
        Err(errno) => {
            let (fd, path) = (restored.record.fd, Escaped(restored.path));
            note(format_args!(
                "there is no terminal for descriptor {fd}, which was {path}, and it fails: {errno}"
            ));
            take_nothing(restored);
        }
    }
}

/// Opens the terminal, or, where it is another user's, duplicates it.
fn open(path: &[u8], flags: u32) -> Result<Fd, Errno> {
    let flags = flags | O_NOCTTY;
    let here = Fd(HERE.load(Relaxed));
    let controlling = || call::openat(c"/dev/tty", flags, 0);
    let is_controlling = path == b"/dev/tty" || here.0 < 0;
    let opened = if is_controlling { controlling() } else { Err(Errno::ENXIO) };
    opened
        .or_else(|_| reopen(here, flags))
        .or_else(|errno| if flags & O_PATH == 0 { duplicate_beyond(here) } else { Err(errno) })
        .or_else(|_| controlling())
}

/// What the image has of the program's terminal, and the first descriptor that is one here.
fn of_program(image: &Image) -> Option<(Terminal, Fd)> {
    let head = image.head();
    let all =
        || descriptors(image, &head).filter(|(record, ..)| record.kind == descriptor::TERMINAL);
    let saved = all().find_map(|(.., state)| first::<Terminal>(state).ok())?.0;
    let here = all().map(|(record, ..)| Fd(record.fd)).find(|&fd| call::is_terminal(fd))?;
    Some((saved, here))
}

/// Puts the terminal into the modes that the program had put its own into, and tells the program that
/// what it has drawn is not there, or that the window is another one.
///
/// In the background the modes are the foreground's business. A program that reads single keys, and so
/// needs its own, stops until it is in the foreground, as it would by setting them itself.
pub fn restore_modes(image: &Image) {
    let Some((saved, terminal)) = of_program(image) else { return };
    let draws = saved.local & ICANON == 0;
    if is_in_background(terminal) {
        if !draws {
            return;
        }
        while is_in_background(terminal) && signals::stop_by(SIGTTOU) {}
    }
    if let Err(errno) = call::set_modes(terminal, &modes_of(&saved)) {
        note(format_args!("the modes of the terminal are not restored: {errno}"));
    }
    let size = |size: winsize| (size.ws_row, size.ws_col);
    let same_size = call::window_size(terminal).map(size) == Ok((saved.rows, saved.columns));
    if draws || !same_size {
        let _ = call::kill(call::getpid(), SIGWINCH);
    }
}

/// The modes of a terminal.
pub fn modes_of(terminal: &Terminal) -> termios2 {
    termios2 {
        c_iflag: terminal.input,
        c_oflag: terminal.output,
        c_cflag: terminal.control,
        c_lflag: terminal.local,
        c_line: terminal.discipline,
        c_cc: terminal.keys,
        c_ispeed: terminal.input_speed,
        c_ospeed: terminal.output_speed,
    }
}
