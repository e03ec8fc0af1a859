//! Finds the function `main` of a program that does not export it.
//!
//! ```text
//! find-main [PID | FILE]
//! ```
//!
//! `dlsym` sees only dynamic symbols, and `main` is one only if the program was linked with
//! `-rdynamic`. The full symbol table, which `nm` prints, is in the file all the same, unless it was
//! stripped; it is not loaded. It tells where `main` is *in the file's own counting*. A
//! position-independent program is moved as a whole; how far, any address tells that is known in
//! both countings. Of every process one is: the kernel says in the auxiliary vector at which
//! address it entered the program (AT_ENTRY), and the ELF header at which it was to.

mod report;

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, anyhow, bail};
use object::{Object, ObjectSymbol};

const USAGE: &str = "usage: find-main [PID | FILE]";

/// Where `main` is in the file's counting, and in which of the two tables that stands.
fn find(file: &object::File<'_>) -> Result<(u64, &'static str)> {
    let address = |symbols: object::SymbolIterator<'_, '_>| {
        let mut defined = symbols.filter(|symbol| symbol.is_definition());
        defined.find(|symbol| symbol.name() == Ok("main")).map(|symbol| symbol.address())
    };
    if let Some(found) = address(file.dynamic_symbols()) {
        return Ok((found, ".dynsym: dlsym finds it, too"));
    }
    if file.symbols().next().is_none() {
        bail!("it has been stripped: there is no symbol table, and the dynamic one has no main");
    }
    let found = address(file.symbols()).context("it has a symbol table, but no main in it")?;
    Ok((found, ".symtab alone: dlsym does not find it"))
}

/// The kernel's word on where it entered the program (AT_ENTRY).
fn entry(process: &str) -> Result<u64> {
    let path = format!("/proc/{process}/auxv");
    let words = std::fs::read(&path).with_context(|| path.clone())?;
    let words: Vec<_> = words.as_chunks().0.iter().map(|&word| u64::from_ne_bytes(word)).collect();
    let entry = words.as_chunks().0.iter().find(|[key, _]| *key == libc::AT_ENTRY);
    entry.map(|&[_, value]| value).ok_or_else(|| anyhow!("{path}: there is no AT_ENTRY"))
}

fn run() -> Result<()> {
    let mut arguments = std::env::args_os().skip(1);
    let given = arguments.next().unwrap_or_else(|| "self".into());
    if arguments.next().is_some() || given.as_encoded_bytes().starts_with(b"-") {
        bail!(USAGE);
    }
    let process = given.to_str().filter(|p| *p == "self" || p.parse::<u32>().is_ok());
    let path = process.map_or_else(|| given.clone().into(), exe);
    let named = || path.display().to_string();

    let bytes = std::fs::read(&path).with_context(named)?;
    let file = object::File::parse(&*bytes).with_context(named)?;
    let (in_file, table) = find(&file).with_context(named)?;
    let mut out = io::stdout().lock();
    writeln!(out, "main in the file     {in_file:#x}  (in {table})")?;
    if let Some(process) = process {
        let moved = entry(process)?.wrapping_sub(file.entry());
        writeln!(out, "the program is moved {moved:#x}")?;
        writeln!(out, "main in the process  {:#x}", in_file.wrapping_add(moved))?;
    }
    Ok(())
}

/// The program of a process.
fn exe(process: &str) -> PathBuf {
    format!("/proc/{process}/exe").into()
}

fn main() -> ExitCode {
    report::report(run())
}
