//! `test5 TARGET [ARGUMENTS]`: `^C` lets you choose another integer, at once, however often.
//!
//! This program only starts the target; what happens then is in `constructors/test5`.

mod launcher;

use std::process::ExitCode;

fn main() -> ExitCode {
    launcher::launch("test5")
}
