//! What the build makes: a library that asks for nothing and offers nothing, and a static program
//! that lies where its linker script says.

mod common;

use std::path::{Path, PathBuf};
use std::process::Command;

use common::cargo;
use common::place::{interpreter, run};

fn library() -> PathBuf {
    cargo::artifacts().join("libckpt.so")
}

fn restarter() -> PathBuf {
    cargo::artifacts().join("restart-static")
}

fn readelf(flags: &str, file: &Path) -> String {
    run(Command::new("readelf").arg(flags).arg(file))
}

/// An exported `memcpy` in a preloaded library would replace the program's own.
#[test]
fn the_library_exports_nothing() {
    assert_eq!(run(Command::new("nm").args(["-D", "--defined-only"]).arg(library())), "");
}

#[test]
fn the_library_needs_nothing() {
    let dynamic = readelf("-dW", &library());
    assert!(!dynamic.contains("(NEEDED)") && !dynamic.contains("TEXTREL"), "{dynamic}");
    // What it would like to know of the C library, it can do without.
    let undefined = run(Command::new("nm").args(["-D", "--undefined-only"]).arg(library()));
    let weak = |line: &str| line.split_whitespace().next() == Some("w");
    assert!(undefined.lines().all(weak), "{undefined}");
}

#[test]
fn the_library_has_no_thread_local_storage() {
    let headers = readelf("-lW", &library());
    assert!(!headers.lines().any(|line| line.trim_start().starts_with("TLS ")), "{headers}");
}

#[test]
fn nothing_is_writable_and_executable() {
    for file in [library(), restarter()] {
        let headers = readelf("-lW", &file);
        assert!(!headers.contains(" RWE "), "{headers}");
        assert!(headers.contains("GNU_STACK"), "its stack would be executable: {headers}");
    }
}

#[test]
fn restart_static_is_static() {
    assert_eq!(interpreter(&restarter()), None);
    let dynamic = readelf("-dW", &restarter());
    assert!(!dynamic.contains("(NEEDED)"), "{dynamic}");
}

/// Far from where the kernel puts programs, libraries and stacks.
#[test]
fn restart_static_lies_where_its_linker_script_says() {
    let header = readelf("-hW", &restarter());
    assert!(header.contains("EXEC (Executable file)"), "{header}");
    let script = format!("linker-scripts/restart-{}.ld", std::env::consts::ARCH);
    let script = std::fs::read_to_string(cargo::project().join(script)).expect("the linker script");
    let headers = readelf("-lW", &restarter());
    let first = headers
        .lines()
        .find_map(|line| line.trim_start().strip_prefix("LOAD"))
        .and_then(|line| line.split_whitespace().nth(1))
        .expect("a LOAD segment");
    let address = u64::from_str_radix(&first[2..], 16).expect("an address");
    let digits = |text: &str| text.replace('_', "").to_lowercase();
    assert!(digits(&script).contains(&format!("{address:x}")), "{first} is not in the script");
}
