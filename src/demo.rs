//! `ckpt demo`: the whole of it for all to see. A program counts, is checkpointed and killed, and
//! counts on.

use std::fs::File;
use std::io::{self, PipeReader, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::inotify;
use rustix::process::{Pid, Signal, kill_process};

use crate::artifacts::{COUNTING_TEST, LIBRARY, RESTART};

const IMAGE: &str = "mycheckpoint";

/// The arguments of counting-test: from where, to where, milliseconds between two numbers.
const COUNT: [&str; 3] = ["1", "1000000", "300"];

/// How many numbers are shown in each life.
const NUMBERS: usize = 3;

/// How long to wait before giving up.
const PATIENCE: Duration = Duration::from_secs(30);

/// Shows it.
///
/// # Errors
///
/// If anything fails, or the count does not go on as it should.
pub fn run(out: &mut dyn Write) -> Result<()> {
    keep_descriptors_to_oneself();
    let directory = tempfile::Builder::new().prefix("ckpt-demo-").tempdir()?;
    let place = directory.path();
    for artifact in [LIBRARY, RESTART, COUNTING_TEST] {
        artifact.write_to(place)?;
    }
    let images = inotify::init(inotify::CreateFlags::CLOEXEC)?;
    inotify::add_watch(&images, place, inotify::WatchFlags::MOVED_TO)?;
    writeln!(out, "All of this happens in {}.", place.display())?;

    say(out, "A program that knows nothing of checkpoints is started with the library:")?;
    let mut command = program(place, COUNTING_TEST.name);
    command.env("LD_PRELOAD", format!("./{}", LIBRARY.name)).args(COUNT);
    let preload = format!("LD_PRELOAD=./{}", LIBRARY.name);
    type_in(out, &format!("{preload} ./{} {}", COUNTING_TEST.name, COUNT.join(" ")))?;
    let mut first = Life::begin(command)?;
    first.show(out, None, NUMBERS)?;

    say(out, "A signal makes it write its whole state to a file; it runs on:")?;
    type_in(out, &format!("kill -USR2 {}", first.pid()?.as_raw_nonzero()))?;
    let before_image = first.numbers.len();
    first.signal(Signal::USR2)?;
    first.show(out, Some(&images), usize::MAX)?;
    let size = File::open(place.join(IMAGE))?.metadata()?.len();
    writeln!(out, "    ({IMAGE}: {})", crate::text::Bytes(size))?;

    say(out, "Now it is killed, and nothing is left of it but the file:")?;
    type_in(out, &format!("kill -KILL {}", first.pid()?.as_raw_nonzero()))?;
    first.signal(Signal::KILL)?;
    first.drain(out)?;

    say(out, "From the file it comes back to life, in a new process:")?;
    type_in(out, &format!("./{} {IMAGE}", RESTART.name))?;
    let mut command = program(place, RESTART.name);
    command.arg(IMAGE);
    let mut second = Life::begin(command)?;
    second.show(out, None, NUMBERS)?;
    type_in(out, &format!("kill {}", second.pid()?.as_raw_nonzero()))?;
    second.signal(Signal::TERM)?;
    second.drain(out)?;

    writeln!(out)?;
    let verdict = verdict(&first.numbers, before_image, &second.numbers)?;
    writeln!(out, "{verdict}")?;
    Ok(())
}

/// Lets no program that is started here inherit more than its standard streams: whatever else this
/// one was started with might be of a kind that cannot be restored.
fn keep_descriptors_to_oneself() {
    // SAFETY: closes nothing here, only in programs to be started. Where the kernel does not know
    // the call (before 5.11), things stay as they are.
    unsafe {
        let (first, last) = (libc::STDERR_FILENO + 1, libc::c_uint::MAX);
        libc::syscall(libc::SYS_close_range, first, last, libc::CLOSE_RANGE_CLOEXEC);
    }
}

/// Writes a line of explanation.
fn say(out: &mut dyn Write, text: &str) -> io::Result<()> {
    writeln!(out, "\n{text}")
}

/// Writes a command as a person would type it.
fn type_in(out: &mut dyn Write, command: &str) -> io::Result<()> {
    writeln!(out, "$ {command}")?;
    out.flush()
}

/// A command to run `name` in `place`, uninfluenced by settings meant for others.
fn program(place: &Path, name: &str) -> Command {
    let mut command = Command::new(place.join(name));
    command.arg0(format!("./{name}")).current_dir(place).stdin(Stdio::null());
    for (variable, _) in std::env::vars_os() {
        let bytes = variable.as_encoded_bytes();
        if bytes.starts_with(b"CKPT_") || bytes == b"LD_PRELOAD" {
            command.env_remove(&variable);
        }
    }
    command
}

/// Judges the numbers of both lives, the first `before_image` of which were seen before the image
/// was asked for.
fn verdict(first: &[u64], before_image: usize, second: &[u64]) -> Result<String> {
    let consecutive = |numbers: &[u64]| numbers.windows(2).all(|pair| pair[0] + 1 == pair[1]);
    let (&[begin, .., end], &[again, .., last]) = (first, second) else {
        bail!("too few numbers were counted")
    };
    ensure!(begin == 1 && consecutive(first) && consecutive(second), "the count has a gap in it");
    ensure!(
        (before_image as u64 + 1..=end + 1).contains(&again),
        "the count did not go on where it was: it went to {end}, and on from {again}"
    );
    // What was counted behind the image is counted again: the image knows nothing of it.
    let repeated = if again <= end { " (the image was taken before the last of them)" } else { "" };
    Ok(format!(
        "The count went on without a gap: {begin} to {end} in the first life{repeated}, {again} to \
         {last} in the second."
    ))
}

/// A running program, and what it has printed.
struct Life {
    child: Child,
    output: PipeReader,
    unfinished: Vec<u8>,
    numbers: Vec<u64>,
}

impl Life {
    /// Starts it. Its complaints come the same way as its output.
    fn begin(mut command: Command) -> Result<Self> {
        let (output, input) = io::pipe()?;
        command.stdout(input.try_clone()?).stderr(input);
        let child = command.spawn().context("starting the program")?;
        Ok(Self { child, output, unfinished: Vec::new(), numbers: Vec::new() })
    }

    fn pid(&self) -> Result<Pid> {
        Pid::from_raw(self.child.id() as i32).context("a process without a number")
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        Ok(kill_process(self.pid()?, signal)?)
    }

    /// Shows what it prints until it has counted `more` numbers or the image has appeared.
    fn show(&mut self, out: &mut dyn Write, images: Option<&OwnedFd>, more: usize) -> Result<()> {
        let enough = self.numbers.len().saturating_add(more);
        let deadline = Instant::now() + PATIENCE;
        while self.numbers.len() < enough {
            let time = deadline.saturating_duration_since(Instant::now()).try_into()?;
            let mut waiting = vec![PollFd::from_borrowed_fd(self.output.as_fd(), PollFlags::IN)];
            waiting.extend(images.map(|images| PollFd::new(images, PollFlags::IN)));
            match poll(&mut waiting, Some(&time)) {
                Err(rustix::io::Errno::INTR) => continue,
                Ok(0) => bail!("not enough has happened for {} seconds", PATIENCE.as_secs()),
                result => result?,
            };
            let ready: Vec<bool> = waiting.iter().map(|fd| !fd.revents().is_empty()).collect();
            if ready[0] {
                ensure!(self.print_some(out)?, "the program has ended: {}", self.child.wait()?);
            }
            if let (Some(images), Some(true)) = (images, ready.get(1))
                && is_there(images)?
            {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Shows the rest of its output, and waits for its end.
    fn drain(&mut self, out: &mut dyn Write) -> Result<()> {
        while self.print_some(out)? {}
        self.child.wait()?;
        Ok(())
    }

    /// Reads what there is of its output and shows whole lines; false at its end.
    fn print_some(&mut self, out: &mut dyn Write) -> Result<bool> {
        let mut buffer = [0; 4096];
        let read = self.output.read(&mut buffer)?;
        self.unfinished.extend(&buffer[..read]);
        while let Some(end) = self.unfinished.iter().position(|&byte| byte == b'\n') {
            let line: Vec<u8> = self.unfinished.drain(..=end).collect();
            let line = String::from_utf8_lossy(&line[..end]);
            writeln!(out, "    {line}")?;
            self.numbers.extend(line.parse::<u64>());
            ensure!(!line.starts_with("ckpt: "), "{} has failed", LIBRARY.name);
        }
        out.flush()?;
        Ok(read > 0)
    }
}

impl Drop for Life {
    fn drop(&mut self) {
        // Only if something went wrong is it still there.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Whether the renaming that has happened was that of the image.
fn is_there(images: &OwnedFd) -> Result<bool> {
    let mut buffer = [MaybeUninit::uninit(); 4096];
    let mut events = inotify::Reader::new(images, &mut buffer);
    loop {
        let event = events.next()?;
        if event.file_name().is_some_and(|name| name.to_bytes() == IMAGE.as_bytes()) {
            return Ok(true);
        }
        if events.is_buffer_empty() {
            return Ok(false);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::verdict;

    #[test]
    fn what_counts_as_going_on() {
        assert!(verdict(&[1, 2, 3], 3, &[4, 5]).is_ok());
        assert!(verdict(&[1, 2, 3, 4], 3, &[4, 5]).is_ok());
        for (first, second) in [
            (&[1, 2, 3][..], &[5, 6][..]),
            (&[1, 2, 3], &[1, 2]),
            (&[1, 2, 3], &[3, 4]),
            (&[1, 3, 4], &[5, 6]),
            (&[1, 2, 3], &[4, 6]),
            (&[1, 2, 3], &[4]),
            (&[], &[]),
        ] {
            assert!(verdict(first, 3, second).is_err(), "{first:?} {second:?}");
        }
    }
}
