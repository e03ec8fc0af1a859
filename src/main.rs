//! `ckpt`: the command for people around `libckpt.so` and `restart-static`.

mod artifacts;
mod check;
mod demo;
mod inspect;
mod text;

use std::io::{self, BufWriter, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

/// Checkpoints running programs and restarts them later, without root.
///
/// A program is started with `LD_PRELOAD=./libckpt.so PROGRAM`. On `kill -USR2 PID` it writes its
/// whole state to the file `mycheckpoint` and runs on. When it is gone, after a crash or a reboot,
/// `./restart-static mycheckpoint` makes it continue where it was. Neither needs this command,
/// which shows how it goes, unpacks these files, and tells what is in an image and whether a
/// program can be checkpointed.
#[derive(Parser)]
#[command(name = "ckpt", version, max_term_width = 100)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Show it all: start a program that counts, checkpoint it, kill it, and make it count on
    ///
    /// Everything happens in a temporary directory. The commands shown after `$` are those a person
    /// would type. Exits with 0 only if the count went on without a gap.
    Demo,
    /// Write libckpt.so, libckpt.a and restart-static, which this command carries inside itself,
    /// into DIR
    Unpack {
        /// The directory to write to; it is created if it does not exist
        #[arg(value_name = "DIR", default_value = ".")]
        directory: PathBuf,
    },
    /// Print what is in an image: program, registers, signals, files, memory
    ///
    /// Every byte is checked against its checksum; exits with 1 if the image is damaged.
    Inspect {
        /// The image, such as mycheckpoint
        image: PathBuf,
        /// Print the kernel's flags of each mapping, too (VmFlags in proc(5))
        #[arg(long)]
        flags: bool,
    },
    /// Tell whether a running program can be checkpointed, and by what signal
    ///
    /// The program does not notice: nothing is sent to it. It is stopped for less than a
    /// millisecond to ask it who handles the signal, which is left out if this user may not trace
    /// it. Exits with 0 if the program can be checkpointed, 1 if not, and 2 if there is no such
    /// process.
    Check {
        /// The process id
        #[arg(value_parser = clap::value_parser!(u32).range(1..=i64::from(i32::MAX)))]
        pid: u32,
    },
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let mut out = BufWriter::new(io::stdout().lock());
    let result = run(&arguments.command, &mut out).and_then(|code| {
        out.flush()?;
        Ok(code)
    });
    result.unwrap_or_else(|error| {
        let _ = out.flush();
        let broken_pipe = |e: &io::Error| e.kind() == io::ErrorKind::BrokenPipe;
        // Whoever has closed the pipe wants to hear no more.
        if !error.downcast_ref().is_some_and(broken_pipe) {
            eprintln!("ckpt: {error:#}");
        }
        ExitCode::from(if error.is::<check::NoSuchProcess>() { 2 } else { 1 })
    })
}

/// Does what `command` says.
fn run(command: &Command, out: &mut impl Write) -> Result<ExitCode> {
    match command {
        Command::Demo => demo::run(out)?,
        Command::Unpack { directory } => artifacts::unpack(out, directory)?,
        Command::Inspect { image, flags } => inspect::run(out, image, *flags)?,
        Command::Check { pid } => return check::run(out, *pid),
    }
    Ok(ExitCode::SUCCESS)
}
