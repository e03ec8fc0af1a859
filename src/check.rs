//! `ckpt check PID`: whether a running program can be checkpointed, told before anything is sent.
//!
//! It looks from outside at what `libckpt.so` will look at from inside when the signal comes, and
//! at what would keep the signal from ever reaching it.

mod connections;
mod descriptors;
mod disposition;
mod memory;
mod messages;
mod process;
mod signal;
mod trace;

use std::fmt::{self, Display};
use std::io::Write;
use std::process::ExitCode;

use anyhow::{Error, Result, bail};
use ckpt_arch::NO_SHADOW_STACK;
use ckpt_sys::{Errno, Escaped, call};

use self::process::Process;
use crate::text::Counted;

/// There is no process with that number.
#[derive(Debug)]
pub struct NoSuchProcess(u32);

impl Display for NoSuchProcess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "there is no process {}", self.0)
    }
}

impl std::error::Error for NoSuchProcess {}

/// What has been found out, line by line.
#[derive(Default)]
pub struct Findings {
    lines: Vec<(Verdict, String)>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Ok,
    No,
    Unknown,
}

impl Findings {
    /// Nothing is in the way.
    pub fn ok(&mut self, text: impl Into<String>) {
        self.lines.push((Verdict::Ok, text.into()));
    }

    /// This is in the way.
    pub fn no(&mut self, text: impl Into<String>) {
        self.lines.push((Verdict::No, text.into()));
    }

    /// This could not be determined.
    pub fn unknown(&mut self, text: impl Into<String>) {
        self.lines.push((Verdict::Unknown, text.into()));
    }

    fn count(&self, verdict: Verdict) -> usize {
        self.lines.iter().filter(|line| line.0 == verdict).count()
    }
}

/// Prints what speaks for and against a checkpoint of process `pid`, and the verdict.
///
/// # Errors
///
/// If there is no such process.
pub fn run(out: &mut dyn Write, pid: u32) -> Result<ExitCode> {
    let Ok(process) = Process::open(pid) else { bail!(NoSuchProcess(pid)) };
    if let Some(leader) = process.status_number("Tgid").filter(|&leader| leader != pid.into()) {
        let thread = format!("{pid} is a thread of process {leader}");
        return Err(Error::new(NoSuchProcess(pid)).context(thread));
    }
    let mut found = Findings::default();
    let signal = check(&process, &mut found);

    let name = process.status("Name").unwrap_or_default();
    writeln!(out, "process {pid}, {}", Escaped(name))?;
    for (verdict, text) in &found.lines {
        let mark = match verdict {
            Verdict::Ok => "ok",
            Verdict::No => "no",
            Verdict::Unknown => "??",
        };
        writeln!(out, "{mark}  {text}")?;
    }
    let command = signal.map_or_else(String::new, |signal| signal::kill_command(signal, pid));
    match (found.count(Verdict::No), found.count(Verdict::Unknown)) {
        (0, 0) => writeln!(out, "It can be checkpointed: {command}")?,
        (0, _) => writeln!(out, "It can be checkpointed, if the ?? above holds: {command}")?,
        (_, _) => {
            writeln!(out, "It cannot be checkpointed now, for what is marked \"no\".")?;
            return Ok(ExitCode::FAILURE);
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// All checks, in the order of what is most likely to be in the way. Returns the signal.
fn check(process: &Process, found: &mut Findings) -> Option<u32> {
    match process.status("State").and_then(<[u8]>::first) {
        Some(b'Z' | b'X') => {
            found.no("it has ended already, and waits for its parent to notice");
            return None;
        }
        Some(b'T') => found.no(format!(
            "it is stopped, and a signal waits until it goes on: kill -CONT {}",
            process.pid
        )),
        _ => {}
    }
    let memory = match process.memory() {
        Ok(memory) if !memory.is_empty() => memory,
        Ok(_) => {
            found.no("it is a thread of the kernel");
            return None;
        }
        Err(Errno::EACCES | Errno::EPERM) => {
            found.no("it is another user's, or protects itself: try as that user or as root");
            return None;
        }
        Err(errno) => {
            found.no(format!("its memory map cannot be read: {errno}"));
            return None;
        }
    };
    let signal = signal::check(process, &memory, found);
    check_family(process, found);
    memory::check(&memory, found);
    descriptors::check(process, found);
    messages::check(process, found);
    connections::check(process, found);
    signal
}

/// Threads, children and the parent.
fn check_family(process: &Process, found: &mut Findings) {
    let threads = process.status_number("Threads").unwrap_or(0) as usize;
    found.ok(format!("it has {}", Counted(threads, "thread", "threads")));
    match process.children() {
        Ok(children) if children.is_empty() => found.ok("it has no child processes"),
        Ok(children) => {
            let list: Vec<String> = children.iter().map(u32::to_string).collect();
            let whom = if children.len() == 1 { "it has" } else { "they have" };
            found.no(format!(
                "it has {} ({}): wait until {whom} ended and been waited for",
                Counted(children.len(), "child process", "child processes"),
                list.join(", ")
            ));
        }
        Err(error) => {
            found.unknown(format!("whether it has children could not be determined: {error:#}"));
        }
    }
    let parent = process.status_number("PPid").unwrap_or(0) as u32;
    if parent != 0 && call::same_memory(process.pid, parent) == Ok(true) {
        found.no("it shares its memory with its parent (vfork): try again in a moment");
    }
    let features = process.status("x86_Thread_features").unwrap_or_default();
    if features.split(|&byte| byte == b' ').any(|feature| feature == b"shstk") {
        found.no(format!("it has a shadow stack: start it with {NO_SHADOW_STACK}"));
    }
}
