//! Prints the memory segments of a process: its own, or that of PID.
//!
//! ```text
//! proc-self-maps [--json] [PID]
//! ```
//!
//! The parser is `ckpt_sys::maps`, the one that `libckpt.so` uses inside the program it saves. It
//! reads with raw system calls into a buffer of ours and allocates nothing: a parser that did might
//! make or enlarge a mapping while it lists them, and then list what is no longer so.

mod report;

use std::ffi::CString;
use std::io::{self, Write};
use std::process::ExitCode;

use anyhow::{Context, Result, anyhow, bail};
use ckpt_sys::maps::{self, Unescaped};
use ckpt_sys::{Errno, Escaped};
use serde::Serialize;

const USAGE: &str = "usage: proc-self-maps [--json] [PID]";

/// A line of the table, and an object of the JSON array.
#[derive(Serialize)]
struct Segment {
    /// Text, since the numbers of many a reader of JSON have 53 bits, and `[vsyscall]` lies higher.
    start: String,
    end: String,
    size: u64,
    permissions: &'static str,
    #[serde(serialize_with = "as_text")]
    name: Vec<u8>,
}

/// JSON knows no bytes, and a name need not be text: what is none becomes U+FFFD.
fn as_text<S: serde::Serializer>(name: &[u8], to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(&String::from_utf8_lossy(name))
}

/// All segments of the process, in the order of their addresses.
fn segments(process: &str) -> Result<Vec<Segment>> {
    let path = format!("/proc/{process}/maps");
    let mut segments = Vec::with_capacity(1024); // so as not to grow among what is being listed
    let mut buffer = [0; 8192];
    maps::for_each::<Errno>(&CString::new(&*path)?, &mut buffer, |mapping| {
        segments.push(Segment {
            start: format!("{:#x}", mapping.start),
            end: format!("{:#x}", mapping.end),
            size: mapping.length(),
            permissions: mapping.permissions(),
            name: Unescaped(mapping.name).bytes().collect(),
        });
        Ok(())
    })
    .map_err(|error| match error {
        Errno::ENOENT => anyhow!("there is no process {process}"),
        error => anyhow!("{path}: {error}"),
    })?;
    Ok(segments)
}

fn print(segments: &[Segment], json: bool) -> io::Result<()> {
    let mut out = io::BufWriter::new(io::stdout().lock());
    if json {
        serde_json::to_writer_pretty(&mut out, segments)?;
        writeln!(out)?;
    } else {
        writeln!(out, "{:>18} {:>18}  perm {:>10}  name", "start", "end", "KiB")?;
        for Segment { start, end, size, permissions, name } in segments {
            // A newline in a name must not look like the end of the line.
            let name = Escaped(name);
            writeln!(out, "{start:>18} {end:>18}  {permissions} {:>10}  {name}", size / 1024)?;
        }
    }
    out.flush()
}

fn run() -> Result<()> {
    let (mut json, mut process) = (false, None);
    for argument in std::env::args_os().skip(1) {
        match argument.to_str() {
            Some("--json") => json = true,
            Some(pid) if process.is_none() && pid.parse::<u32>().is_ok() => {
                process = Some(pid.to_owned());
            }
            _ => bail!(USAGE),
        }
    }
    let segments = segments(process.as_deref().unwrap_or("self"))?;
    print(&segments, json).context("standard output")
}

fn main() -> ExitCode {
    report::report(run())
}
