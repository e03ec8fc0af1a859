//! Builds what the `ckpt` command carries inside itself and what the tests run:
//!
//! * `libckpt.so` and `restart-static`, the two freestanding artifacts. They need only `core`, so
//!   they are always built for the `-gnu` target of this architecture and linked by the linker
//!   that comes with Rust, whatever the root package itself is built for. So is `libckpt.a`.
//! * the programs of `examples/`, which must be *dynamically* linked to be preloaded, hence also
//!   for `-gnu`, with the system's linker; and the libraries that the lab preloads into them or links.
//!   For another architecture than this machine's that is `ARCH-linux-gnu-gcc`, as Debian calls it.
//!
//! Each is a nested `cargo build` with a target directory of its own, since the outer build holds
//! the lock of the usual one. The results are gathered in one directory, `CKPT_ARTIFACTS`.

#[path = "build/static_library.rs"]
mod static_library;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

fn main() {
    for input in [
        "Cargo.lock",
        "Cargo.toml",
        "arch",
        "build",
        "build.rs",
        "ckpt-preload",
        "examples",
        "image",
        "linker-scripts",
        "restart-nostd",
        "sys",
    ] {
        println!("cargo:rerun-if-changed={input}");
    }
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    let arch = env::var("CARGO_CFG_TARGET_ARCH").expect("cargo sets CARGO_CFG_TARGET_ARCH");
    let target = format!("{arch}-unknown-linux-gnu");
    let artifacts = out.join("artifacts");
    fs::create_dir_all(&artifacts).expect("creating the directory of the artifacts");

    let freestanding = Nested { target: &target, directory: out.join("nested"), linker: true };
    let built = freestanding.build("freestanding", &["-p", "ckpt-preload", "-p", "restart-nostd"]);
    install(&built.join("libckpt.so"), &artifacts.join("libckpt.so"));
    install(&built.join("restart-static"), &artifacts.join("restart-static"));
    load_at_link_address(&artifacts.join("restart-static"));
    static_library::make(&built.join("libckpt.a"), &artifacts.join("libckpt.a"));

    let hosted = Nested { target: &target, directory: out.join("nested"), linker: false };
    let built = hosted.build("release", &["-p", "lab*"]);
    for entry in fs::read_dir(&built).expect("listing the programs of examples/").flatten() {
        let name = entry.file_name();
        let is_result = |n: &str| !n.contains('.') || n.ends_with(".so") || n.ends_with(".a");
        if entry.metadata().is_ok_and(|m| m.is_file()) && name.to_str().is_some_and(is_result) {
            install(&entry.path(), &artifacts.join(name));
        }
    }
    println!("cargo:rustc-env=CKPT_ARTIFACTS={}", artifacts.display());
}

/// A `cargo build` inside this one.
struct Nested<'a> {
    target: &'a str,
    directory: PathBuf,
    /// Link with rust-lld alone, without a C compiler or a libc.
    linker: bool,
}

impl Nested<'_> {
    /// Builds `what` under `profile`; returns the directory of the results.
    fn build(&self, profile: &str, what: &[&str]) -> PathBuf {
        let manifest = Path::new(&env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets it"))
            .join("Cargo.toml");
        let mut cargo = Command::new(env::var_os("CARGO").expect("cargo sets CARGO"));
        cargo.args(["build", "--profile", profile, "--target", self.target]).args(what);
        cargo.arg("--manifest-path").arg(manifest);
        cargo.arg("--target-dir").arg(&self.directory);
        // What the outer build was told about flags and tools is not meant for this one.
        for (name, _) in env::vars_os() {
            let name = name.to_string_lossy();
            let inherited = name.starts_with("CARGO_TARGET_") || name.starts_with("CARGO_PROFILE_");
            if inherited || ["CARGO_ENCODED_RUSTFLAGS", "RUSTFLAGS"].contains(&&*name) {
                cargo.env_remove(&*name);
            }
        }
        let arch = self.target.split('-').next().expect("a target begins with its architecture");
        if self.linker {
            let mut flags =
                "-Clinker=rust-lld -Clinker-flavor=ld.lld -Crelocation-model=pic".to_owned();
            if arch == "aarch64" {
                // Or the compiler's own library asks the C library which atomic instructions there are.
                flags += " -Ctarget-feature=-outline-atomics";
            }
            cargo.env("RUSTFLAGS", flags);
        } else if !env::var("HOST").expect("cargo sets HOST").starts_with(arch) {
            let variable = self.target.to_uppercase().replace('-', "_");
            let linker = format!("{arch}-linux-gnu-gcc");
            cargo.env(format!("CARGO_TARGET_{variable}_LINKER"), linker);
        }
        let status = cargo.status().expect("starting the nested cargo");
        assert!(status.success(), "the nested build of {what:?} failed: {status}");
        self.directory.join(self.target).join(profile)
    }
}

/// Copies a program into the artifacts; by way of a new file, since the old one may be running.
fn install(from: &Path, to: &Path) {
    let _ = fs::remove_file(to);
    fs::copy(from, to)
        .unwrap_or_else(|e| panic!("copying {} to {}: {e}", from.display(), to.display()));
}

/// Makes the kernel load `restart-static` where its linker script says.
///
/// It is linked as a position-independent executable, because it moves itself out of the way of
/// the image; and the kernel places those (`ET_DYN`) where it likes. As `ET_EXEC` the same file is
/// loaded at the addresses in its program headers.
fn load_at_link_address(program: &Path) {
    const E_TYPE: usize = 16;
    const ET_EXEC: u16 = 2;
    let mut bytes = fs::read(program).expect("reading restart-static");
    bytes[E_TYPE..E_TYPE + 2].copy_from_slice(&ET_EXEC.to_le_bytes());
    fs::write(program, bytes).expect("writing restart-static");
}
