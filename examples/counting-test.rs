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
//!
//! `main` is exported, so that `test1` to `test5` find it: see `exported_main.rs`.

#![no_main]

mod exported_main;

use std::ffi::{c_char, c_int};
use std::io;
use std::thread::sleep;
use std::time::Duration;

use exported_main::{Arguments, print_line, run};

const USAGE: &str = "usage: counting-test [FIRST [LAST [MILLISECONDS]]], whole numbers from 0";

/// What the command line asks for.
struct Request {
    first: u64,
    last: u64,
    pause: Duration,
}

impl Request {
    /// Reads the arguments; `None` when one is no number or there are too many.
    fn parse(arguments: Arguments) -> Option<Self> {
        let number = |place, default| match arguments.get(place) {
            Some(argument) => argument.parse().ok(),
            None => Some(default),
        };
        let (first, last, milliseconds) = (number(1, 1)?, number(2, u64::MAX)?, number(3, 1000)?);
        let pause = Duration::from_millis(milliseconds);
        (arguments.count() <= 3).then_some(Self { first, last, pause })
    }
}

fn count(request: &Request) -> io::Result<()> {
    for number in request.first..=request.last {
        print_line(number)?;
        if !request.pause.is_zero() {
            sleep(request.pause);
        }
    }
    Ok(())
}

/// The program.
///
/// # Safety
///
/// `argv` has `argc` strings.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn main(argc: c_int, argv: *const *const c_char) -> c_int {
    // SAFETY: the caller's contract.
    let arguments = unsafe { Arguments::new(argc, argv) };
    let Some(request) = Request::parse(arguments) else {
        eprintln!("{USAGE}");
        return 2;
    };
    run("counting-test", || count(&request))
}
