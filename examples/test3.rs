//! `test3 TARGET [ARGUMENTS]`: the same again and again, since `exit` is redefined.
//!
//! This program only starts the target; what happens then is in `constructors/test3`.

mod launcher;

use std::process::ExitCode;

fn main() -> ExitCode {
    launcher::launch("test3")
}
