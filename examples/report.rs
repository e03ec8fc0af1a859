//! What the programs of the lab share: whatever goes wrong is one line on standard error and a
//! non-zero exit status.

use std::process::ExitCode;

/// The exit status that tells `outcome`, after the line that says why.
pub fn report(outcome: anyhow::Result<()>) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("{}: {why:#}", env!("CARGO_BIN_NAME"));
            ExitCode::FAILURE
        }
    }
}
