//! Target: every register of the processor holds a known value while a checkpoint comes.
//!
//! ```text
//! vectors ROUNDS
//! ```
//!
//! Prints `ready`, then ROUNDS (0: without end) times `round N ok`, then `done`. In each round
//! all registers are loaded, a loop spins for 20 ms or more, without a system call, and all
//! registers are stored and compared. A signal will nearly always arrive within the loop. Anything
//! else than expected ends the program with `FAIL: ` and exit status 1.
//!
//! Which registers there are is in one file an architecture, with the same names in each:
//!
//! * `Processor`: what this processor has. `detect` looks; `wanted` makes ready for a round, and
//!   says what is to be in the registers, different values for each; `hold` loads them, spins, and
//!   stores them.
//! * `Registers`: the contents of them all, and what else belongs to the thread and needs no
//!   loop, such as the thread pointer. `compare` tells what differs.

mod pattern;

#[cfg(target_arch = "aarch64")]
#[path = "vectors/aarch64.rs"]
mod registers;
#[cfg(target_arch = "x86_64")]
#[path = "vectors/x86_64.rs"]
mod registers;

#[cfg(not(any(target_arch = "aarch64", target_arch = "x86_64")))]
compile_error!("which registers does this architecture have? write targets/vectors/ARCH.rs");

use registers::{Processor, Registers};
use std::fmt::Debug;
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// The shortest round.
const ROUND: Duration = Duration::from_millis(20);

/// What a comparison finds: nothing, or what is wrong.
type Check = Result<(), String>;

fn expect<T: PartialEq + Debug>(what: &str, expected: T, found: T) -> Check {
    if expected == found {
        Ok(())
    } else {
        Err(format!("{what}: expected {expected:x?}, found {found:x?}"))
    }
}

fn run(rounds: u64) -> Check {
    let processor = Processor::detect();
    println!("ready");
    let (mut round, mut spins) = (1, 1_u64 << 20);
    while rounds == 0 || round <= rounds {
        let (wanted, mut found) = (processor.wanted(round), Registers::default());
        let start = Instant::now();
        processor.hold(&wanted, &mut found, spins);
        let elapsed = start.elapsed();
        wanted.compare(&found)?;
        if elapsed < ROUND {
            // Too short to count: find out how long this machine has to spin.
            spins *= 2;
        } else {
            println!("round {round} ok");
            round += 1;
        }
    }
    Ok(())
}

fn main() -> ExitCode {
    let Some(rounds) = std::env::args().nth(1).and_then(|rounds| rounds.parse().ok()) else {
        eprintln!("usage: vectors ROUNDS");
        return ExitCode::from(2);
    };
    match run(rounds) {
        Ok(()) => {
            println!("done");
            ExitCode::SUCCESS
        }
        Err(why) => {
            println!("FAIL: {why}");
            ExitCode::FAILURE
        }
    }
}
