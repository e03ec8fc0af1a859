//! Saves the machine code of a function to a file, maps it back, and calls it there.
//!
//! ```text
//! save-restore-memory [--same-address] FILE
//! ```
//!
//! Memory is bytes at an address with a protection. Whoever writes down these three can make it
//! again: somewhere else, if what the bytes mean does not depend on where they are; else where they
//! were, which is what a restart does. With `--same-address` the original is unmapped first.

mod report;

#[cfg(not(any(target_arch = "aarch64", target_arch = "x86_64")))]
compile_error!("the function that is saved is machine code: write it for this architecture");

use std::arch::naked_asm;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{Read, Write};
use std::process::ExitCode;

use anyhow::{Context, Result, anyhow, bail, ensure};
use ckpt_arch::synchronize_instructions;
use ckpt_sys::{Errno, call, maps};
use libc::{MAP_ANONYMOUS, MAP_FIXED_NOREPLACE, MAP_PRIVATE, PROT_EXEC, PROT_READ, PROT_WRITE};

const USAGE: &str = "usage: save-restore-memory [--same-address] FILE";

type Function = extern "C" fn(u64) -> u64;

/// The sum of the squares from 1 to `n`. What will be saved.
///
/// It must work wherever its bytes are: all it uses is two registers and jumps that are relative. A
/// function that the compiler made would not do. It may call others (of `core`, or to report an
/// overflow), or read constants, at a fixed *distance* from itself; and where it ends is not known.
///
/// It has a section of its own, of whole pages: a page is the least that can be unmapped, and no
/// other code may go with it. The linker defines `__start_` and `__stop_` symbols for every
/// section whose name could be one of C's.
#[cfg(target_arch = "x86_64")]
#[unsafe(naked)]
#[unsafe(link_section = "saved_code")]
extern "C" fn sum_of_squares(n: u64) -> u64 {
    // rdi n -> rax sum
    naked_asm!(
        "xor eax, eax",
        "2:",
        "test rdi, rdi",
        "jz 3f",
        "mov rdx, rdi",
        "imul rdx, rdi",
        "add rax, rdx",
        "dec rdi",
        "jmp 2b",
        "3:",
        "ret",
        ".balign 4096, 0xcc", // to the end of the page; the section begins on one by that, too
    )
}

/// The same for aarch64, where the kernel may have been built for pages of 4, 16 or 64 KiB: 64 are
/// whole pages in any case.
#[cfg(target_arch = "aarch64")]
#[unsafe(naked)]
#[unsafe(link_section = "saved_code")]
extern "C" fn sum_of_squares(n: u64) -> u64 {
    // x0 n -> x0 sum
    naked_asm!(
        "mov x1, xzr",
        "2:",
        "cbz x0, 3f",
        "madd x1, x0, x0, x1",
        "sub x0, x0, 1",
        "b 2b",
        "3:",
        "mov x0, x1",
        "ret",
        ".balign 65536, 0",
    )
}

unsafe extern "C" {
    static __start_saved_code: u8;
    static __stop_saved_code: u8;
}

/// Where the function is: address and length.
fn original() -> (u64, u64) {
    let (start, stop) = (&raw const __start_saved_code as u64, &raw const __stop_saved_code as u64);
    (start, stop - start)
}

/// Writes `length` bytes of memory at `address` to the file.
///
/// # Safety
///
/// They can be read.
unsafe fn save(path: &OsStr, address: u64, length: u64) -> Result<()> {
    // SAFETY: the caller's contract; nobody changes code.
    let bytes = unsafe { std::slice::from_raw_parts(address as *const u8, length as usize) };
    // One write(2) may take less than it is given: the disk is nearly full, a signal came. What is
    // left must be offered again, from where it stopped; write_all is that loop.
    File::create(path)?.write_all(bytes)?;
    Ok(())
}

/// Maps memory at `address`, wherever the kernel likes for 0, and fills it with what the file holds.
fn restore(path: &OsStr, address: u64, length: u64) -> Result<u64> {
    let fixed = if address == 0 { 0 } else { MAP_FIXED_NOREPLACE };
    let flags = (MAP_PRIVATE | MAP_ANONYMOUS | fixed) as u32;
    // Never writable and executable at once: first filled, then made code.
    let (data, code) = ((PROT_READ | PROT_WRITE) as u32, (PROT_READ | PROT_EXEC) as u32);
    // SAFETY: the new mapping replaces none, by NOREPLACE.
    let address = unsafe { call::mmap(address, length, data, flags, None, 0) }
        .map_err(|error| anyhow!("mmap: {error}"))?;
    // SAFETY: so many bytes have just been mapped there, and nobody else knows of them.
    let bytes = unsafe { std::slice::from_raw_parts_mut(address as *mut u8, length as usize) };
    // read(2), too, may give less than there is; read_exact asks again, until the file ends.
    File::open(path)?.read_exact(bytes)?;
    // SAFETY: `bytes` is not used any more.
    unsafe { call::mprotect(address, length, code) }
        .map_err(|error| anyhow!("mprotect: {error}"))?;
    // What has been written may still be in the cache of data only. On some processors, aarch64's
    // among them, instructions are fetched through another one, which does not look there.
    // SAFETY: so many bytes can be read there.
    unsafe { synchronize_instructions(address as *const u8, length as usize) };
    Ok(address)
}

/// Prints what is mapped at `address`.
fn show(what: &str, address: u64) -> Result<()> {
    let mut found = "nothing is mapped there".to_owned();
    maps::for_each::<Errno>(c"/proc/self/maps", &mut [0; 8192], |mapping| {
        if (mapping.start..mapping.end).contains(&address) {
            let kind = if mapping.inode == 0 { "memory of no file" } else { "of the program" };
            found = format!("{} {kind}", mapping.permissions());
        }
        Ok(())
    })
    .map_err(|error| anyhow!("/proc/self/maps: {error}"))?;
    println!("{what:9} {address:#x}: {found}");
    Ok(())
}

fn run() -> Result<()> {
    let arguments: Vec<_> = std::env::args_os().skip(1).collect();
    let (same_address, path) = match &arguments[..] {
        [path] if !path.as_encoded_bytes().starts_with(b"-") => (false, path),
        [option, path] if option == "--same-address" => (true, path),
        _ => bail!(USAGE),
    };
    let (address, length) = original();
    show("original", address)?;
    let before = sum_of_squares(1000);
    println!("answer    {before}");

    let named = || path.display().to_string();
    // SAFETY: it is a section of this program.
    unsafe { save(path, address, length) }.with_context(named)?;
    println!("saved     {length} bytes to {}", named());

    let restored = if same_address {
        // SAFETY: only the function is there, and it is not running.
        unsafe { call::munmap(address, length) }.map_err(|error| anyhow!("munmap: {error}"))?;
        show("unmapped", address)?;
        restore(path, address, length)
    } else {
        restore(path, 0, length)
    }
    .with_context(named)?;
    show("restored", restored)?;

    // SAFETY: the bytes of a function that works at any address are mapped there, as code.
    let function = unsafe { std::mem::transmute::<*const u8, Function>(restored as *const u8) };
    let after = function(1000);
    println!("answer    {after}");
    ensure!(before == after, "the answers differ");
    Ok(())
}

fn main() -> ExitCode {
    report::report(run())
}
