//! What `test1` to `test5` share: starting a program with a library of one's own in it.

use std::convert::Infallible;
use std::env;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

/// Becomes the program that the command line names, with `libNAME.so`, which lies beside this
/// launcher, preloaded.
pub fn launch(name: &str) -> ExitCode {
    let Err(problem) = try_to_launch(name);
    eprintln!("{name}: {problem}");
    ExitCode::from(2)
}

fn try_to_launch(name: &str) -> Result<Infallible, String> {
    let mut arguments = env::args_os().skip(1);
    let target = arguments.next().ok_or(format!("no target: {name} TARGET [ARGUMENTS]"))?;

    let library = env::current_exe()
        .map_err(|error| format!("where is this program? {error}"))?
        .with_file_name(format!("lib{name}.so"));
    if !library.exists() {
        return Err(format!("{} is missing", library.display()));
    }
    // The dynamic loader takes both for the end of a name, and passes over a library that it does
    // not find.
    let library = library.to_str().filter(|path| !path.contains([' ', ':'])).ok_or_else(|| {
        format!("LD_PRELOAD cannot name {}: a space, a colon or no text", library.display())
    })?;
    let preload = match env::var("LD_PRELOAD") {
        Ok(others) if !others.is_empty() => format!("{library}:{others}"),
        _ => library.to_owned(),
    };

    let error = Command::new(&target).args(arguments).env("LD_PRELOAD", preload).exec();
    Err(format!("{}: {error}", target.display()))
}
