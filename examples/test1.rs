//! `test1 TARGET [ARGUMENTS]`: a constructor in a preloaded library announces itself.
//!
//! This program only starts the target; what happens then is in `constructors/test1`.

mod launcher;

use std::process::ExitCode;

fn main() -> ExitCode {
    launcher::launch("test1")
}
