//! `test2 TARGET [ARGUMENTS]`: a constructor calls the target's `main` itself, with an integer of your choice.
//!
//! This program only starts the target; what happens then is in `constructors/test2`.

mod launcher;

use std::process::ExitCode;

fn main() -> ExitCode {
    launcher::launch("test2")
}
