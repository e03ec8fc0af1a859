//! A pseudo-terminal: the test is its user, a program runs on it.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::ptr;

use super::{Place, Running};

/// Both ends of a new pseudo-terminal that neither echoes nor translates line ends.
pub struct Terminal {
    /// The user's end: what is written to it has been typed.
    pub user: OwnedFd,
    /// The program's end.
    pub program: OwnedFd,
}

impl Terminal {
    pub fn open((rows, columns): (u16, u16)) -> Terminal {
        let (mut user, mut program) = (-1, -1);
        let size = libc::winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        // SAFETY: both results are written to integers of ours; the name and the modes may be null.
        let failed = unsafe {
            libc::openpty(&mut user, &mut program, ptr::null_mut(), ptr::null_mut(), &size)
        };
        assert_eq!(failed, 0, "openpty: {}", io::Error::last_os_error());
        // SAFETY: openpty gave us these two, and nobody else knows them.
        let [user, program] = [user, program].map(|fd| unsafe { OwnedFd::from_raw_fd(fd) });
        for end in [&user, &program] {
            // SAFETY: sets a flag of a descriptor of ours.
            unsafe { libc::fcntl(end.as_raw_fd(), libc::F_SETFD, libc::FD_CLOEXEC) };
        }
        let terminal = Terminal { user, program };
        terminal.be_plain();
        terminal
    }

    fn be_plain(&self) {
        let program = self.program.as_raw_fd();
        // SAFETY: a termios is plain numbers, and tcgetattr fills it in.
        unsafe {
            let mut settings = std::mem::zeroed();
            assert_eq!(libc::tcgetattr(program, &mut settings), 0);
            settings.c_lflag &= !libc::ECHO;
            // Nor does a key that sends a signal throw away what has been written: a writer that was
            // waiting for room might not be woken by that.
            settings.c_lflag |= libc::NOFLSH;
            settings.c_oflag &= !libc::OPOST;
            assert_eq!(libc::tcsetattr(program, libc::TCSANOW, &settings), 0);
        }
    }
}

/// Makes the terminal on standard input the controlling one of a new session. To be called between
/// fork and exec.
pub fn take_terminal() -> io::Result<()> {
    // SAFETY: two system calls without pointers.
    let failed = unsafe { libc::setsid() < 0 || libc::ioctl(0, libc::TIOCSCTTY, 0) < 0 };
    if failed { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// What is typed to a bash that has stopped its only job: it kills that, and before its next prompt it
/// knows, and says, what became of it.
pub fn killing_the_job(signal: &str) -> String {
    format!("kill -{signal} %1; while jobs | grep -q 'Running\\|Stopped'; do :; done")
}

/// An interactive shell on a terminal. It prints its prompt when it is done with a command.
pub fn shell(place: &Place) -> Running {
    let mut shell = place
        .system("/bin/bash")
        .args(["--norc", "--noediting", "-i"])
        .env("PS1", PROMPT)
        .env("HISTFILE", "")
        .on_terminal()
        .start_bare();
    shell.expect_text(PROMPT);
    shell
}

/// What it prints when it is ready.
pub const PROMPT: &str = "what next> ";
