//! How a test talks with a target.
//!
//! A target sets something up and prints `ready`. Then it reads lines from its stdin:
//!
//! | line            | answer                                                          |
//! |-----------------|-----------------------------------------------------------------|
//! | `check`         | verifies all it set up: `ok`, or `FAIL: ` and what is not so     |
//! | `quit`, or EOF  | verifies a last time: `done` and exit status 0 if all checks, this one and the earlier ones, passed; else `FAIL: ` and exit status 1 |
//!
//! The target does not know that it is being checkpointed. In particular a `read` that was
//! interrupted by a checkpoint must not say so: `EINTR` is a failure like any other.

use std::fmt::{Debug, Display};
use std::io;
use std::process::exit;

/// What a verification finds: nothing, or what is wrong.
pub type Check = Result<(), String>;

/// Verifies that `found` is what was `expected`.
pub fn expect<T: PartialEq + Debug>(what: impl Display, expected: T, found: T) -> Check {
    if expected == found {
        Ok(())
    } else {
        Err(format!("{what}: expected {expected:?}, found {found:?}"))
    }
}

/// Says `ready` and answers what stdin asks, until `quit`; then verifies a last time.
/// Returns the first thing that was wrong, if anything ever was.
pub fn serve(mut verify: impl FnMut() -> Check) -> Check {
    println!("ready");
    let mut outcome = Ok(());
    loop {
        match read_line()?.as_deref() {
            Some("check") => {
                let found = verify();
                match &found {
                    Ok(()) => println!("ok"),
                    Err(why) => println!("FAIL: {why}"),
                }
                outcome = outcome.and(found);
            }
            Some("quit") | None => return outcome.and(verify()),
            Some(other) => return Err(format!("what does {other:?} ask for?")),
        }
    }
}

/// Ends the target with what its checks came to.
pub fn finish(outcome: Check) -> ! {
    match outcome {
        Ok(()) => {
            println!("done");
            exit(0)
        }
        Err(why) => {
            println!("FAIL: {why}");
            exit(1)
        }
    }
}

/// Reads a line from stdin, `None` at its end. A byte at a time, so that nothing is read
/// ahead: what the test has not yet been answered is in the pipe and nowhere else.
fn read_line() -> Result<Option<String>, String> {
    let mut line = Vec::new();
    loop {
        let mut byte = 0_u8;
        // SAFETY: `byte` is one writable byte.
        match unsafe { libc::read(libc::STDIN_FILENO, (&raw mut byte).cast(), 1) } {
            1 if byte == b'\n' => break,
            1 => line.push(byte),
            0 if line.is_empty() => return Ok(None),
            0 => break,
            _ => return Err(format!("read of stdin: {}", io::Error::last_os_error())),
        }
    }
    String::from_utf8(line).map(Some).map_err(|error| format!("stdin: {error}"))
}
