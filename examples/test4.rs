//! `test4 TARGET [ARGUMENTS]`: `^C` lets you choose another integer, but only once at a time.
//!
//! This program only starts the target; what happens then is in `constructors/test4`.

mod launcher;

use std::process::ExitCode;

fn main() -> ExitCode {
    launcher::launch("test4")
}
