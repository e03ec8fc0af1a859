//! Counts: the smallest program worth a checkpoint.
//!
//! ```text
//! counting-test [FIRST [LAST [MILLISECONDS]]]
//! ```
//!
//! Prints the whole numbers from FIRST (1) to LAST (no end), one a line, with a pause of
//! MILLISECONDS (1000) after each; 0 is no pause at all. All its state is one number, so it
//! shows at a glance whether a restart continued (`…, 17, 18`) or began anew (`…, 17, 1`):
//!
//! ```text
//! $ LD_PRELOAD=./libckpt.so counting-test &     # 1, 2, 3, …
//! $ kill -USR2 %1                               # writes mycheckpoint
//! $ kill -KILL %1
//! $ ./restart-static mycheckpoint               # …, 4, 5, 6
//! ```

use std::io::{self, Write};
use std::process::ExitCode;
use std::thread::sleep;
use std::time::Duration;

const USAGE: &str = "usage: counting-test [FIRST [LAST [MILLISECONDS]]], whole numbers from 0";

/// What the command line asks for.
struct Request {
    first: u64,
    last: u64,
    pause: Duration,
}

impl Request {
    /// Reads the arguments; `None` when one is no number or there are too many.
    fn parse(arguments: impl Iterator<Item = String>) -> Option<Self> {
        let numbers: Vec<u64> =
            arguments.map(|argument| argument.parse().ok()).collect::<Option<_>>()?;
        let (first, last, milliseconds) = match numbers[..] {
            [] => (1, u64::MAX, 1000),
            [first] => (first, u64::MAX, 1000),
            [first, last] => (first, last, 1000),
            [first, last, milliseconds] => (first, last, milliseconds),
            _ => return None,
        };
        Some(Self { first, last, pause: Duration::from_millis(milliseconds) })
    }
}

fn count(request: &Request) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    for number in request.first..=request.last {
        writeln!(stdout, "{number}")?;
        // Nothing may linger in a buffer: a line that was counted is a line that is seen.
        stdout.flush()?;
        if !request.pause.is_zero() {
            sleep(request.pause);
        }
    }
    Ok(())
}

fn main() -> ExitCode {
    let Some(request) = Request::parse(std::env::args().skip(1)) else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    match count(&request) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("counting-test: cannot write: {error}");
            ExitCode::FAILURE
        }
    }
}
