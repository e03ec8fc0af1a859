//! A program under way: what it says, what is said to it, its checkpoints and its end.

use std::fs::{self, File};
use std::io::Write;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};
use std::time::Instant;

use rustix::process::{Pid, PidfdFlags, pidfd_open};

use super::source::Source;
use super::{PATIENCE, Program, Watch};

/// A child of the test, killed when it is dropped.
pub struct Running {
    pub pid: i32,
    command: String,
    child: Child,
    /// Becomes readable when the child ends.
    end: OwnedFd,
    status: Option<ExitStatus>,
    input: Option<File>,
    output: Source,
    errors: Source,
    image: PathBuf,
    signal: i32,
}

impl Running {
    /// Starts `child`; `user_end` is that of its terminal or socket, if it has one.
    pub fn start(mut child: Command, user_end: Option<OwnedFd>, program: &Program) -> Running {
        let command = format!("{child:?}");
        let mut child = child.spawn().unwrap_or_else(|e| panic!("starting {command}: {e}"));
        let pid = Pid::from_child(&child);
        let end = pidfd_open(pid, PidfdFlags::empty()).expect("pidfd_open");
        let user_end = || user_end.as_ref().map(|end| File::from(end.try_clone().expect("dup")));
        let input = child.stdin.take().map(|pipe| File::from(OwnedFd::from(pipe)));
        let output = child.stdout.take().map(|pipe| File::from(OwnedFd::from(pipe)));
        let errors = child.stderr.take().map(|pipe| File::from(OwnedFd::from(pipe)));
        Running {
            pid: pid.as_raw_nonzero().get(),
            command,
            child,
            end,
            status: None,
            input: input.or_else(user_end),
            output: Source::new(output.or_else(user_end)),
            errors: Source::new(errors),
            image: program.image.clone(),
            signal: program.signal,
        }
    }

    /// The next line of its output.
    pub fn line(&mut self) -> String {
        self.until("for a line", None, |run| match run.output.line() {
            None if run.output.from.is_none() => run.fail("its output ended"),
            line => line,
        })
    }

    /// Reads one line, which must be `line`.
    pub fn expect(&mut self, line: &str) {
        let got = self.line();
        if got != line {
            self.fail(&format!("expected {line:?}, got {got:?}"));
        }
    }

    /// Reads output until it contains `text` beyond what was read as lines before.
    pub fn expect_text(&mut self, text: &str) {
        self.until(&format!("for {text:?}"), None, |run| {
            let fresh = &run.output.text[run.output.seen..];
            let found = fresh.windows(text.len()).position(|w| w == text.as_bytes());
            if found.is_none() && run.output.from.is_none() {
                run.fail(&format!("its output ended without {text:?}"));
            }
            found.map(|at| run.output.seen += at + text.len())
        });
    }

    /// The next line on standard error.
    pub fn error_line(&mut self) -> String {
        self.until("for a line on standard error", None, |run| match run.errors.line() {
            None if run.errors.from.is_none() => run.fail("its standard error ended"),
            line => line,
        })
    }

    /// Waits for the file its output goes to to have at least `count` lines.
    pub fn lines_in(&mut self, file: &Path, count: usize) {
        let watch = Watch::writes(file);
        self.until(&format!("for {count} lines in {}", file.display()), Some(&watch), |run| {
            watch.names();
            let lines = fs::read(file).expect("the output").iter().filter(|b| **b == b'\n').count();
            if lines < count && run.status.is_some() {
                run.fail("it ended");
            }
            (lines >= count).then_some(())
        });
    }

    pub fn send(&mut self, line: &str) {
        self.send_all(&format!("{line}\n"));
    }

    pub fn send_all(&mut self, text: &str) {
        let input = self.input.as_mut().expect("a standard input of the test's");
        if let Err(error) = input.write_all(text.as_bytes()) {
            self.fail(&format!("sending {text:?}: {error}"));
        }
    }

    pub fn close_input(&mut self) {
        self.input = None;
    }

    /// Has a self-checking target check itself.
    pub fn check(&mut self) {
        self.send("check");
        self.expect("ok");
    }

    /// Lets a self-checking target check itself a last time and end.
    pub fn quit(&mut self) {
        self.send("quit");
        self.expect("done");
        let status = self.wait();
        if !status.success() {
            self.fail(&format!("ended with {status}"));
        }
    }

    pub fn signal(&self, signal: i32) {
        // SAFETY: a system call without pointers, on a child that has not been reaped.
        assert_eq!(unsafe { libc::kill(self.pid, signal) }, 0, "kill {} {signal}", self.pid);
    }

    /// Where its image will be.
    pub fn image(&self) -> &Path {
        &self.image
    }

    /// Says where its image will be, if that was not known before it started.
    pub fn image_is(&mut self, path: PathBuf) {
        self.image = path;
    }

    /// The signal that asks it for a checkpoint.
    pub fn request(&self) -> i32 {
        self.signal
    }

    /// Asks for a checkpoint and waits for the image.
    pub fn checkpoint(&mut self) -> PathBuf {
        match self.ask() {
            Ok(image) => image,
            Err(refusal) => self.fail(&format!("no image: {refusal}")),
        }
    }

    /// Asks for a checkpoint; returns the image, or the line in which the library says why there is
    /// none.
    pub fn ask(&mut self) -> Result<PathBuf, String> {
        let watch = Watch::renames(self.image.parent().expect("a directory"));
        self.signal(self.signal);
        self.answer(&watch)
    }

    /// The same of a program that may end first: then `None`.
    pub fn ask_in_time(&mut self) -> Option<Result<PathBuf, String>> {
        if self.has_ended() {
            return None;
        }
        let watch = Watch::renames(self.image.parent().expect("a directory"));
        self.signal(self.signal);
        self.answer_or_end(&watch)
    }

    /// Waits until `watch` reports the image or the library says that there is none.
    pub fn answer(&mut self, watch: &Watch) -> Result<PathBuf, String> {
        self.answer_or_end(watch).unwrap_or_else(|| self.fail("asked for a checkpoint, it ended"))
    }

    fn answer_or_end(&mut self, watch: &Watch) -> Option<Result<PathBuf, String>> {
        let image = self.image.clone();
        let name = image.file_name().expect("a name").to_owned();
        self.until("for the image", Some(watch), |run| {
            if watch.names().contains(&name) {
                return Some(Some(Ok(image.clone())));
            }
            if let Some(line) = run.errors.line() {
                return Some(Some(Err(line)));
            }
            run.status.is_some().then_some(None)
        })
    }

    /// Asks for a checkpoint, and returns the line that the library says though it writes the image.
    pub fn says_while_it_writes(&mut self) -> String {
        let watch = Watch::renames(self.image.parent().expect("a directory"));
        self.signal(self.signal);
        let line = self.until("for a line", None, |run| run.errors.line());
        if let Err(refusal) = self.answer(&watch) {
            self.fail(&format!("no image: {refusal}"));
        }
        line
    }

    /// Asks a program that reads its standard input for a checkpoint, which must be refused in one
    /// line that contains all of `words`, and leave nothing behind.
    pub fn refuses(&mut self, words: &[&str]) -> String {
        let directory = self.image.parent().expect("a directory").to_owned();
        let before = super::place::names_in(&directory);
        let line = match self.ask() {
            Err(line) => line,
            Ok(_) => self.fail(&format!("an image was written; expected a refusal: {words:?}")),
        };
        if !line.starts_with("ckpt: ") || !words.iter().all(|word| line.contains(word)) {
            self.fail(&format!("expected a line `ckpt: ` with {words:?}, got {line:?}"));
        }
        self.reads_stdin(); // The library has done what it had to do.
        assert_eq!(super::place::names_in(&directory), before, "something was left behind");
        line
    }

    /// Kills it as a crash would, and reads what it had written.
    pub fn kill(&mut self) {
        if self.status.is_none() {
            self.signal(libc::SIGKILL);
        }
        self.wait();
    }

    /// Waits for its end and for the end of its output.
    pub fn wait(&mut self) -> ExitStatus {
        self.until("for its end", None, |run| {
            let silent = run.output.from.is_none() && run.errors.from.is_none();
            run.status.filter(|_| silent)
        })
    }

    /// Waits for its end, which must be a success, with nothing on standard error.
    pub fn ends_well(&mut self) {
        let status = self.wait();
        if !status.success() || !self.errors.text.is_empty() {
            self.fail(&format!("ended with {status}"));
        }
    }

    /// Whether it has ended.
    pub fn has_ended(&mut self) -> bool {
        self.look_for_end();
        self.status.is_some()
    }

    /// Waits until it stands in `read` on its standard input.
    pub fn reads_stdin(&mut self) {
        self.is_in(&format!("{} 0x0 ", libc::SYS_read), "it does not read its standard input");
    }

    /// Gives its terminal another size: rows and columns.
    pub fn resize(&self, rows: u16, columns: u16) {
        let terminal = self.input.as_ref().expect("a terminal").as_raw_fd();
        let size = libc::winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        // SAFETY: the kernel reads the size.
        assert_eq!(unsafe { libc::ioctl(terminal, libc::TIOCSWINSZ, &raw const size) }, 0);
    }

    /// The modes of its terminal: those of what is typed, of what is written, of the line, of editing; and
    /// what the keys mean.
    pub fn modes(&self) -> ([libc::tcflag_t; 4], [libc::cc_t; libc::NCCS]) {
        let terminal = self.input.as_ref().expect("a terminal").as_raw_fd();
        // SAFETY: a termios is plain numbers, and tcgetattr fills it in.
        unsafe {
            let mut modes = std::mem::zeroed::<libc::termios>();
            assert_eq!(libc::tcgetattr(terminal, &mut modes), 0);
            ([modes.c_iflag, modes.c_oflag, modes.c_cflag, modes.c_lflag], modes.c_cc)
        }
    }

    /// Waits until it stands in a call in which it waits for keys. No event tells that.
    pub fn reads_keys(&mut self) {
        self.waits_for_keys(self.pid);
    }

    /// Waits until the one child that it has, the job of a shell, does so.
    pub fn job_reads_keys(&mut self) {
        self.waits_for_keys(only_child(self.pid));
    }

    fn waits_for_keys(&mut self, pid: i32) {
        self.is_so(|| waits_for_keys(pid), "it does not wait for keys");
    }

    /// Waits until it stands in a system call that `/proc` tells by `call`: its number and arguments.
    /// No event tells that.
    pub fn is_in(&mut self, call: &str, complaint: &str) {
        let pid = self.pid;
        self.is_so(|| stands_in(pid, &[call.to_owned()]), complaint);
    }

    fn is_so(&mut self, is_it: impl Fn() -> bool, complaint: &str) {
        let deadline = Instant::now() + PATIENCE;
        while !is_it() {
            if self.has_ended() || Instant::now() > deadline {
                self.fail(complaint);
            }
            std::thread::yield_now();
        }
    }

    /// Waits until it has read so much of the file that is its standard input. No event tells that.
    pub fn has_read(&mut self, bytes: u64) {
        let path = format!("/proc/{}/fdinfo/0", self.pid);
        let position = || {
            let text = fs::read_to_string(&path).ok()?;
            text.lines().find_map(|line| line.strip_prefix("pos:"))?.trim().parse::<u64>().ok()
        };
        let deadline = Instant::now() + PATIENCE;
        while position().is_none_or(|position| position < bytes) {
            if self.has_ended() || Instant::now() > deadline {
                self.fail("it has not read its standard input");
            }
            std::thread::yield_now();
        }
    }

    /// Waits until it has read all that was sent to its socket. No event tells that.
    pub fn has_read_all(&mut self) {
        let input = self.input.as_ref().expect("a socket of the test's").as_raw_fd();
        let deadline = Instant::now() + PATIENCE;
        let mut unread = 1;
        // SAFETY: the kernel writes an integer of ours.
        while unsafe { libc::ioctl(input, libc::TIOCOUTQ, &raw mut unread) } == 0 && unread > 0 {
            if self.has_ended() || Instant::now() > deadline {
                self.fail("it has not read its standard input");
            }
            std::thread::yield_now();
        }
    }

    /// Waits until it lets requests in, having returned from the last one. No event tells that.
    pub fn lets_requests_in(&mut self) {
        let path = format!("/proc/{}/status", self.pid);
        let request = 1_u64 << (self.request() - 1);
        let blocks = || {
            let text = fs::read_to_string(&path).ok()?;
            let mask = text.lines().find_map(|line| line.strip_prefix("SigBlk:"))?.trim();
            Some(u64::from_str_radix(mask, 16).ok()? & request != 0)
        };
        let deadline = Instant::now() + PATIENCE;
        while !self.has_ended() && blocks() == Some(true) {
            if Instant::now() > deadline {
                self.fail("it does not let requests in");
            }
            std::thread::yield_now();
        }
    }

    /// All that it has written to standard output.
    pub fn all_output(&self) -> String {
        String::from_utf8_lossy(&self.output.text).into_owned()
    }

    /// All that it has written to standard error.
    pub fn errors(&self) -> String {
        String::from_utf8_lossy(&self.errors.text).into_owned()
    }

    /// Closes our end of its standard error: its pipe is broken.
    pub fn break_errors(&mut self) {
        self.errors.from = None;
    }

    /// How many descriptors it has open.
    pub fn descriptors(&self) -> usize {
        fs::read_dir(format!("/proc/{}/fd", self.pid)).expect("its descriptors").count()
    }

    /// Waits until `look` finds something, taking in its output meanwhile, and what `watch` tells.
    pub fn until<T>(
        &mut self,
        what: &str,
        watch: Option<&Watch>,
        mut look: impl FnMut(&mut Self) -> Option<T>,
    ) -> T {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(found) = look(self) {
                return found;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                self.fail(&format!("waited in vain {what}"));
            }
            self.take_in(watch, left.as_millis() as i32 + 1);
        }
    }

    /// Sleeps until something happens, and takes it in.
    fn take_in(&mut self, watch: Option<&Watch>, milliseconds: i32) {
        let end = self.status.is_none().then(|| self.end.as_fd());
        let sources = [self.output.fd(), self.errors.fd(), end, watch.map(|w| w.as_fd())];
        let mut polled = sources.map(|fd| libc::pollfd {
            fd: fd.map_or(-1, |fd| fd.as_raw_fd()), // negative ones are passed over
            events: libc::POLLIN,
            revents: 0,
        });
        // SAFETY: the array is ours and its length is passed.
        unsafe { libc::poll(polled.as_mut_ptr(), polled.len() as _, milliseconds) };
        if polled[0].revents != 0 {
            self.output.take_in();
        }
        if polled[1].revents != 0 {
            self.errors.take_in();
        }
        self.look_for_end();
    }

    /// Takes in what comes without a pause worth mentioning, for the message of a failure.
    fn take_in_all(&mut self) {
        let known = |run: &Self| (run.output.text.len(), run.errors.text.len(), run.status);
        loop {
            let before = known(self);
            self.take_in(None, 200);
            if known(self) == before {
                return;
            }
        }
    }

    fn look_for_end(&mut self) {
        if self.status.is_none() {
            self.status = self.child.try_wait().expect("waiting for a child");
        }
    }

    /// Fails the test with all that is known of the program.
    pub fn fail(&mut self, why: &str) -> ! {
        self.take_in_all();
        let of = |file: &str| fs::read_to_string(format!("/proc/{}/{file}", self.pid));
        let (status, maps) = (of("status").unwrap_or_default(), of("maps").unwrap_or_default());
        panic!(
            "{why}\ncommand: {}\nended: {:?}\noutput:\n{}\nerrors:\n{}\nstatus:\n{status}\nmaps:\n{maps}",
            self.command,
            self.status,
            tail(&self.all_output()),
            tail(&self.errors()),
        );
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.status.is_none() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// Has the target check itself after its start, after each checkpoint and after each restart.
pub fn generations(program: &Program, count: usize, options: &[&str]) -> Running {
    let mut run = program.start();
    run.expect("ready");
    run.check();
    for generation in 1..=count {
        run.checkpoint();
        run.check();
        run.kill();
        assert_eq!(run.errors(), "", "generation {generation}");
        run = program.restart_with(options, &program.image);
        run.check();
    }
    run
}

/// Whether process `pid` stands in one of the system calls that `/proc` tells by `calls`: number and arguments.
fn stands_in(pid: i32, calls: &[String]) -> bool {
    let call = fs::read_to_string(format!("/proc/{pid}/syscall"));
    call.is_ok_and(|call| calls.iter().any(|wanted| call.starts_with(wanted)))
}

/// Whether process `pid` stands in a call in which it waits for keys.
pub fn waits_for_keys(pid: i32) -> bool {
    #[cfg(target_arch = "x86_64")]
    const OLDER: [libc::c_long; 2] = [libc::SYS_poll, libc::SYS_select];
    #[cfg(not(target_arch = "x86_64"))]
    const OLDER: [libc::c_long; 0] = [];
    let waits = [libc::SYS_read, libc::SYS_ppoll, libc::SYS_pselect6];
    stands_in(pid, &waits.iter().chain(&OLDER).map(|call| format!("{call} ")).collect::<Vec<_>>())
}

/// The id of the one child that process `pid` has.
pub fn only_child(pid: i32) -> i32 {
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
    children.expect("its children").trim().parse().expect("one child")
}

/// Whether `status` is the death by `signal`.
pub fn killed_by(status: ExitStatus, signal: i32) -> bool {
    status.signal() == Some(signal)
}

/// The last lines of a text that may be long.
fn tail(text: &str) -> &str {
    text.char_indices().rev().nth(5000).map_or(text, |(at, _)| &text[at..])
}
