//! Makes `libckpt.a`: the library for programs that are linked statically.
//!
//! A static link knows one name space. If our `memcpy` were a global symbol in it, the linker would
//! take it for everybody's, hidden or not; and the Rust library of a program written in Rust has the
//! same names as ours once more. So what rustc makes of `ckpt-preload` becomes one object in which
//! every name is local but one:
//!
//! ```text
//!   rustc      libckpt.a       our object, and some hundred of the compiler's that might be needed
//!   ld -r      one object      ours, and those that are
//!   objcopy    the same        every symbol local, and CONSTRUCTOR added
//!   here       libckpt.a       an archive with that one object
//! ```
//!
//! Symbols that the program's C library may define stay undefined, and weak.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

/// The one global symbol: the entry in `.init_array` that has the constructor called. It is what the
/// linker is to be asked for (`-Wl,-u,ckpt_constructor`), since the program itself refers to nothing
/// of the library.
const CONSTRUCTOR: &str = "ckpt_constructor";

/// Makes the archive `to` of the static library `from` that rustc has made.
pub fn make(from: &Path, to: &Path) {
    let object = to.with_extension("o");
    // Asked for any symbol that only our object has, the linker takes it, and then what it needs.
    let linker = ["-flavor", "gnu", "-r", "-u", "memcpy", "-o"].map(OsStr::new);
    tool("rust-lld", linker, [&object, from]);
    let symbol = format!("--add-symbol={CONSTRUCTOR}=.init_array:0,global,hidden,object");
    let keep = format!("--keep-global-symbol={CONSTRUCTOR}");
    tool("rust-objcopy", [&keep, &symbol, "--strip-debug"].map(OsStr::new), [&object]);
    let bytes = fs::read(&object).expect("reading the object of libckpt.a");
    fs::write(to, archive(&bytes)).expect("writing libckpt.a");
    fs::remove_file(object).expect("removing the object of libckpt.a");
}

/// Runs a tool that comes with Rust.
fn tool<const N: usize, const M: usize>(name: &str, options: [&OsStr; N], files: [&Path; M]) {
    let rustc = env::var_os("RUSTC").expect("cargo sets RUSTC");
    let output = Command::new(rustc).args(["--print", "sysroot"]).output();
    let sysroot = String::from_utf8(output.expect("starting rustc").stdout).expect("a path");
    let lib = PathBuf::from(sysroot.trim_end()).join("lib");
    let host = env::var("HOST").expect("cargo sets HOST");
    let status = Command::new(lib.join("rustlib").join(host).join("bin").join(name))
        .env("LD_LIBRARY_PATH", lib) // rust-objcopy does not find LLVM's library by itself
        .args(options)
        .args(files)
        .status();
    assert!(status.unwrap_or_else(|e| panic!("starting {name}: {e}")).success(), "{name} failed");
}

/// An archive (`ar(5)`) of one object that defines one symbol.
///
/// ```text
///   !<arch>
///   /          the index: how many symbols, where the member of each begins, their names
///   ckpt.o/    the object
/// ```
fn archive(object: &[u8]) -> Vec<u8> {
    const MAGIC: &[u8] = b"!<arch>\n";
    let mut names = format!("{CONSTRUCTOR}\0").into_bytes();
    names.resize(names.len().next_multiple_of(2), 0); // members begin at even offsets
    let index_size = 2 * size_of::<u32>() + names.len();
    // Name, time, user, group, mode, size: all as text.
    let header = |name: &str, size: usize| {
        format!("{name:<16}{:<12}{:<6}{:<6}{:<8}{size:<10}`\n", 0, 0, 0, 644).into_bytes()
    };
    let index_header = header("/", index_size);
    let member = MAGIC.len() + index_header.len() + index_size;
    let member = u32::try_from(member).expect("a small index");
    [
        MAGIC,
        &index_header,
        &1_u32.to_be_bytes(),
        &member.to_be_bytes(),
        &names,
        &header("ckpt.o/", object.len()),
        object,
        if object.len().is_multiple_of(2) { b"" } else { b"\n" },
    ]
    .concat()
}
