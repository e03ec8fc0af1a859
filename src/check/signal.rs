//! The library, and the way of the signal to it.

use anyhow::{Result, bail};
use ckpt_image::record::Disposition;
use ckpt_sys::{Escaped, signal_from_name, signal_name};

use super::process::{Process, Region};
use super::{Findings, Verdict, disposition};

/// Finds out whether the library is there and would get the signal. Returns the signal.
pub fn check(process: &Process, memory: &[Region], found: &mut Findings) -> Option<u32> {
    let setting = process.variable("CKPT_SIGNAL");
    let signal = match &setting {
        None => libc::SIGUSR2 as u32,
        Some(name) => match signal_from_name(name) {
            Some(signal) => signal,
            None => {
                found.no(format!(
                    "CKPT_SIGNAL is {:?}, which is no signal: libckpt.so is not active",
                    Escaped(name).to_string()
                ));
                return None;
            }
        },
    };
    let name = signal_name(signal);
    let caught = process.has_signal("SigCgt", signal);
    let handler = caught.then(|| ask(process, memory, signal));
    // After a restart the library may be memory like any other, and it may be a part of the program.
    let ours = |asked: &Disposition| disposition::is_library(process.pid, memory, asked);
    let handled = handler.as_ref().and_then(|asked| asked.as_ref().ok()).map(ours);
    let linked_in = !process.is_restarted() && process.has_library_linked_in().unwrap_or(false);
    let loaded = linked_in || memory.iter().any(|r| r.is_library() || r.is_scratch());
    if handled != Some(true) && !loaded {
        match (process.is_restarted(), process.is_static()) {
            (true, _) if handled.is_none() => {
                found.unknown("whether libckpt.so is loaded could not be determined");
                return Some(signal);
            }
            (false, Ok(true)) => {
                found.no("it is linked statically, and libckpt.a is not linked into it")
            }
            _ => found.no(
                "libckpt.so is not loaded: start it with LD_PRELOAD=/PATH/TO/libckpt.so PROGRAM",
            ),
        }
        return None;
    }
    let library = if linked_in { "libckpt.a" } else { "libckpt.so" };
    found.ok(format!("{library} is {}", if linked_in { "linked into it" } else { "loaded" }));

    let chosen = if setting.is_some() { "as CKPT_SIGNAL says" } else { "the default" };
    let other = "start it with CKPT_SIGNAL set to another signal, one that it leaves alone, as RTMIN+3 or RTMIN+7";
    let before = found.count(Verdict::No);
    if process.has_signal("SigIgn", signal) {
        found.no(format!("the program ignores {name}: {other}"));
    } else if !caught {
        found.no(format!(
            "nobody handles {name}, which would end the program: if the library has said at the start \
             why it is not active, mend that, or else {other}"
        ));
    }
    let blocked = |signal| process.has_signal("SigBlk", signal);
    let mut blockable = (1..=31).filter(|&n| n != libc::SIGKILL && n != libc::SIGSTOP);
    if blockable.all(|signal| blocked(signal as u32)) {
        found.no("it blocks all signals, as while a checkpoint is written: try again");
    } else if blocked(signal) {
        found.no(format!("the program blocks {name}, at least now: wait, or {other}"));
    }
    match (handler, handled) {
        (_, Some(false)) => {
            found.no(format!("the program has its own handler for {name}: {other}"));
        }
        (Some(Err(error)), _) => found.unknown(format!(
            "whether it is {library} that handles {name} could not be determined: {error:#}"
        )),
        _ if found.count(Verdict::No) == before => {
            found.ok(format!("the signal is {name}, {chosen}, and {library} handles it"));
        }
        _ => {}
    }
    Some(signal)
}

/// The program's handler for `signal`.
fn ask(process: &Process, memory: &[Region], signal: u32) -> Result<Disposition> {
    // A filter of system calls might take offence, and kill it.
    if process.status_number("Seccomp").is_some_and(|mode| mode != 0) {
        bail!("it runs under a seccomp filter");
    }
    let mut code: Vec<&Region> =
        memory.iter().filter(|region| region.read && region.execute).collect();
    code.sort_by_key(|region| !(region.is_library() || region.name == b"[vdso]"));
    let code = code.into_iter().map(|region| (region.start, region.end));
    disposition::disposition(process.pid, signal, code)
}

/// What a person types to send `signal`.
pub fn kill_command(signal: u32, pid: u32) -> String {
    let name = signal_name(signal).to_string();
    match name.strip_prefix("SIG") {
        Some(name) if name.contains('+') => format!("kill -s {name} {pid}"),
        Some(name) => format!("kill -{name} {pid}"),
        None => format!("kill -{signal} {pid}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands() {
        assert_eq!(kill_command(12, 7), "kill -USR2 7");
        assert_eq!(kill_command(34, 7), "kill -RTMIN 7");
        assert_eq!(kill_command(37, 7), "kill -s RTMIN+3 7");
        assert_eq!(kill_command(33, 7), "kill -33 7");
    }
}
