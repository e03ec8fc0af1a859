//! A terminal of the program's own.
//!
//! A program that controls jobs, such as an interactive shell, has its process group's id in memory, and
//! hands the terminal to the groups of its jobs and back to its own. In the session of the shell that
//! started this program that would be two who do so. Therefore it gets a session, whose leader it is, and
//! a *pseudo-terminal*; the [supervisor](crate::supervisor) carries what is typed and what is shown:
//!
//! ```text
//!   the terminal of the restart             the program's
//!
//!   keys   -->  supervisor  --> master  --> what it reads
//!   screen <--  (raw mode)  <--         <-- what it writes
//! ```
//!
//! Keys that send signals do so in the program's terminal, as do its modes. When the program stops or ends,
//! and when the supervisor is in the background, the terminal of the restart is as it was before.

use ckpt_image::record::{Disposition, Session, first, kind};
use ckpt_sys::Errno;
use ckpt_sys::call::{self, Fd};
use linux_raw_sys::general::{
    BRKINT, CS8, CSIZE, ECHO, ECHONL, ICANON, ICRNL, IEXTEN, IGNBRK, IGNCR, INLCR, ISIG, ISTRIP,
    IXON, O_CLOEXEC, O_NOCTTY, O_NONBLOCK, O_RDWR, OPOST, PARENB, PARMRK, POLLIN, POLLOUT, SIGTSTP,
    SIGTTIN, SIGTTOU, VMIN, VTIME, termios2,
};

use crate::image::Image;
use crate::report::OrFail;
use crate::signals;

/// Which terminal a program is on.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Terminal {
    /// A pseudo-terminal of its own.
    Own,
    /// That of the restart.
    Shared,
}

impl Terminal {
    /// All of them, by their words on the command line.
    pub const ALL: [(&[u8], Self); 2] = [(b"own", Self::Own), (b"shared", Self::Shared)];
}

/// Whether the program hands its terminal to process groups: it leads one, is not to be stopped by doing so
/// from the background, nor by `^Z`. That may have been inherited one by one: tmux ignores SIGTTOU for what
/// runs in its windows; and who may be stopped by `^Z` must be where that works, in the session of a shell.
pub fn controls_jobs(image: &Image) -> bool {
    const DEFAULT: u64 = 0;
    const IGNORE: u64 = 1;
    let head = image.head();
    let session = head.note(kind::SESSION).and_then(first::<Session>);
    let leads = session
        .is_ok_and(|(session, _)| session.terminal != 0 && session.group == head.process().0.pid);
    let handler_of = |signal: u32| {
        let mut dispositions = image.records::<Disposition>(&head, kind::DISPOSITIONS);
        dispositions.nth(signal as usize - 1).map_or(DEFAULT, |disposition| disposition.handler)
    };
    leads && handler_of(SIGTTOU) != DEFAULT && handler_of(SIGTSTP) == IGNORE
}

/// Whether another process group is in the foreground of a terminal. Of one that does not control this
/// session there is none.
pub fn is_in_background(terminal: Fd) -> bool {
    let own = call::process_group();
    call::foreground_group(terminal).is_ok_and(|foreground| Ok(foreground) != own)
}

/// The standard stream that is the terminal of the restart.
pub const STDIN: Fd = Fd(0);

/// No descriptor: poll(2) passes it over.
const NONE: Fd = Fd(-1);

/// What carries bytes from one terminal to the other.
pub struct Relay {
    /// The terminal of the restart.
    outer: Fd,
    /// Both ends of the program's. Its own end is kept open, since the master's tells of it as hung up when
    /// nobody has it open.
    master: Fd,
    inner: Fd,
    /// The modes of the outer terminal, while it is in raw mode.
    before: Option<termios2>,
    /// What has been typed,
    typed: Buffer,
    /// and what is to be shown.
    shown: Buffer,
}

impl Relay {
    /// Makes a pseudo-terminal that is like the terminal of the restart.
    pub fn open() -> Result<Self, Errno> {
        const FLAGS: u32 = O_RDWR | O_NOCTTY | O_CLOEXEC;
        let waits_not = FLAGS | O_NONBLOCK;
        // As an open file of its own, since others wait for it; unless it is another user's.
        let outer = call::openat(c"/proc/self/fd/0", waits_not, 0)
            .or_else(|_| call::openat(c"/dev/tty", waits_not, 0))?;
        let master = call::openat(c"/dev/ptmx", waits_not, 0)?;
        call::lock_pseudo_terminal(master, false)?;
        let inner = call::open_peer(master, FLAGS)?;
        call::set_modes(inner, &call::modes(outer)?)?;
        let relay =
            Self { outer, master, inner, before: None, typed: Buffer::EMPTY, shown: Buffer::EMPTY };
        relay.resize();
        Ok(relay)
    }

    /// The descriptors that the supervisor needs.
    pub fn descriptors(&self) -> [Option<Fd>; 3] {
        [self.outer, self.master, self.inner].map(Some)
    }

    /// In the program: makes it the leader of a session, on the pseudo-terminal.
    pub fn enter(&self) {
        let step = format_args!("giving the program a terminal of its own");
        call::new_session().or_fail(step);
        call::take_terminal(self.inner).or_fail(step);
        for stream in (0..=call::STDERR.0).map(Fd).filter(|&stream| call::is_terminal(stream)) {
            call::dup3(self.inner, stream, 0).or_fail(step);
        }
        self.close();
    }

    /// Gives it up.
    pub fn close(&self) {
        [self.outer, self.master, self.inner].into_iter().for_each(call::close);
    }

    /// Puts the terminal of the restart into raw mode, as soon as this process is in its foreground.
    pub fn resume(&mut self) {
        while is_in_background(self.outer) {
            if !signals::stop_by(SIGTTIN) {
                return self.hang_up();
            }
        }
        let Ok(modes) = call::modes(self.outer) else { return self.hang_up() };
        let before = *self.before.get_or_insert(modes);
        let _ = call::set_modes(self.outer, &raw(before));
        self.resize();
    }

    /// Puts it back into the modes it had.
    pub fn pause(&mut self) {
        if let Some(before) = self.before.take() {
            let _ = call::set_modes(self.outer, &before);
        }
    }

    /// Gives the program's terminal the size of the window.
    pub fn resize(&self) {
        if let Ok(size) = call::window_size(self.outer) {
            let _ = call::set_window_size(self.master, &size);
        }
    }

    /// Carries what there is, or waits until there is something, or a signal.
    pub fn carry(&mut self, signals: Fd) {
        let outer = events(&self.typed, &self.shown);
        let master = events(&self.shown, &self.typed);
        // Where nothing is to be done, nothing is asked for: not even whether the other side is gone.
        let asked = |fd, events| if events == 0 { (NONE, 0) } else { (fd, events) };
        let wanted = [(signals, POLLIN), asked(self.outer, outer), asked(self.master, master)];
        let Ok([_, outer_ready, master_ready]) = call::wait_until_ready(wanted) else { return };
        if outer_ready != 0 {
            let typed = self.typed.is_empty() && self.typed.fill(self.outer).is_err();
            let shown = self.shown.empty(self.outer).is_err();
            if typed || shown {
                self.hang_up();
            }
        }
        if master_ready != 0 {
            let shown = self.shown.is_empty() && self.shown.fill(self.master).is_err();
            let typed = self.typed.empty(self.master).is_err();
            if shown || typed {
                self.hang_up();
            }
        }
    }

    /// The program has ended: shows what it has written.
    pub fn finish(&mut self) {
        loop {
            while !self.shown.is_empty() {
                let ready = call::wait_until_ready([(self.outer, POLLOUT)]);
                if ready.is_err() || self.shown.empty(self.outer).is_err() {
                    return self.pause();
                }
            }
            if self.shown.fill(self.master).is_err() || self.shown.is_empty() {
                return self.pause();
            }
        }
    }

    /// One side is gone: the program is told by SIGHUP, if it is still there.
    fn hang_up(&mut self) {
        self.pause();
        self.close();
        (self.outer, self.master, self.inner) = (NONE, NONE, NONE);
        (self.typed, self.shown) = (Buffer::EMPTY, Buffer::EMPTY);
    }
}

/// What is to be waited for at a terminal: that it can be read from if `read` is empty, and written to if
/// `written` is not.
fn events(read: &Buffer, written: &Buffer) -> u32 {
    (if read.is_empty() { POLLIN } else { 0 }) | (if written.is_empty() { 0 } else { POLLOUT })
}

/// Bytes on their way.
struct Buffer {
    bytes: [u8; 4096],
    start: usize,
    end: usize,
}

impl Buffer {
    const EMPTY: Self = Self { bytes: [0; 4096], start: 0, end: 0 };

    fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// Takes in what there is, if it is empty. The end of it all is an error.
    fn fill(&mut self, from: Fd) -> Result<(), Errno> {
        (self.start, self.end) = (0, 0);
        self.end = match call::read(from, &mut self.bytes) {
            Ok(0) => return Err(Errno::EIO),
            Err(Errno::EAGAIN) => 0,
            read => read?,
        };
        Ok(())
    }

    /// Gives out as much as is taken.
    fn empty(&mut self, to: Fd) -> Result<(), Errno> {
        if self.is_empty() {
            return Ok(());
        }
        self.start += match call::write(to, &self.bytes[self.start..self.end]) {
            Err(Errno::EAGAIN) => 0,
            written => written?,
        };
        Ok(())
    }
}

/// The modes in which every key is passed on as it is, and everything shown as it is: cfmakeraw(3).
fn raw(modes: termios2) -> termios2 {
    let mut raw = modes;
    raw.c_iflag &= !(IGNBRK | BRKINT | PARMRK | ISTRIP | INLCR | IGNCR | ICRNL | IXON);
    raw.c_oflag &= !OPOST;
    raw.c_lflag &= !(ECHO | ECHONL | ICANON | ISIG | IEXTEN);
    raw.c_cflag = raw.c_cflag & !(CSIZE | PARENB) | CS8;
    raw.c_cc[VMIN as usize] = 1;
    raw.c_cc[VTIME as usize] = 0;
    raw
}
