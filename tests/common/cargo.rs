//! Where the project and what was built of it are, as cargo tells a test that it runs.
//!
//! It is asked at run time: a test may run on another machine than it was built on, started by
//! whoever sets the same variables there.

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// The directory of the project.
pub fn project() -> PathBuf {
    variable("CARGO_MANIFEST_DIR").into()
}

/// Where the build has put the library, the restarter and the programs of `examples/`.
pub fn artifacts() -> PathBuf {
    variable("CKPT_ARTIFACTS").into()
}

/// Where the programs of `tests/targets/` are, if they have been compiled beforehand.
pub fn targets() -> Option<PathBuf> {
    env::var_os("CKPT_TARGETS").map(PathBuf::from)
}

/// The command `ckpt`.
pub fn command() -> PathBuf {
    variable("CARGO_BIN_EXE_ckpt").into()
}

/// The compiler beside cargo, if it is cargo that runs the test.
pub fn rustc() -> Option<PathBuf> {
    Some(Path::new(&env::var_os("CARGO")?).with_file_name("rustc"))
}

fn variable(name: &str) -> OsString {
    env::var_os(name).unwrap_or_else(|| panic!("{name} is not set, as cargo would have done"))
}
