//! What the constructor libraries of `test1` to `test5` share: the target they are in, the question
//! for an integer, and the way back out of a target that is not done.
//!
//! A constructor runs in the target's process before the target's `main` does; nobody there expects
//! it. So it reads and writes its descriptors directly: the streams of the C library and of Rust
//! have locks, and whoever is interrupted and left for good (`test5`) would keep them.

use std::cell::Cell;
use std::ffi::{CStr, c_char, c_int, c_void};
use std::fmt;
use std::fs::File;
use std::io::{Read, Write};
use std::mem::{ManuallyDrop, transmute};
use std::os::fd::FromRawFd;
use std::ptr::null;

mod return_point;
pub use return_point::ReturnPoint;

/// Makes the dynamic loader call `$function(argc, argv)` before the program begins. That it gets
/// the arguments of `main` is a kindness of glibc's; musl passes none.
#[macro_export]
macro_rules! constructor {
    ($function:path) => {
        #[used]
        #[unsafe(link_section = ".init_array")]
        static CONSTRUCTOR: unsafe extern "C" fn(
            ::std::ffi::c_int,
            *const *const ::std::ffi::c_char,
        ) = $function;
    };
}

type Main = unsafe extern "C" fn(c_int, *const *const c_char, *const *const c_char) -> c_int;

/// The program that this library has been loaded into.
pub struct Target {
    /// The launcher's name, for what it says.
    launcher: &'static str,
    main: Main,
    /// Its arguments, with a null pointer at the end, and room for an integer at place 1.
    argv: Vec<Cell<*const c_char>>,
}

impl Target {
    /// The target whose constructor was called with these arguments.
    ///
    /// # Safety
    ///
    /// They are those of the program, and no other thread runs yet.
    pub unsafe fn new(launcher: &'static str, argc: c_int, argv: *const *const c_char) -> Self {
        // SAFETY: the caller's contract.
        let argv = unsafe {
            leave_children_alone();
            std::slice::from_raw_parts(argv, argc as usize)
        };
        // SAFETY: looks up a name.
        let main = unsafe { libc::dlsym(libc::RTLD_DEFAULT, c"main".as_ptr()) };
        if main.is_null() {
            let why = "the target does not export `main` (is it linked with -rdynamic?)";
            fail(launcher, format_args!("{why}"));
        }
        // SAFETY: in a C program `main` is a function of this type.
        let main = unsafe { transmute::<*mut c_void, Main>(main) };
        let name = argv.first().copied().unwrap_or(c"".as_ptr());
        let rest = argv.iter().skip(2).copied();
        let argv = [name, null()].into_iter().chain(rest).chain([null()]).map(Cell::new).collect();
        Self { launcher, main, argv }
    }

    /// Asks for an integer. If there is none, that is the end of the program.
    pub fn ask(&self) -> Integer {
        say(format_args!("{}: which integer? ", self.launcher));
        let mut line = Line::default();
        if !line.read() {
            say(format_args!("\n"));
            fail(self.launcher, format_args!("no integer: the input has ended"));
        }
        line.integer().unwrap_or_else(|| {
            let text = line.0.trim_ascii().escape_ascii();
            fail(self.launcher, format_args!("`{text}` is not an integer"))
        })
    }

    /// Calls `main` with `integer` in place of the first argument; returns what it returns.
    pub fn run(&self, integer: &Integer) -> c_int {
        // A run that this one interrupted (`test4`) may still look at its own.
        let before = self.argv[1].replace(integer.0.as_ptr().cast());
        let argc = self.argv.len() as c_int - 1;
        // SAFETY: `argc` strings and a null pointer, as `main` expects them.
        let status = unsafe { (self.main)(argc, self.argv.as_ptr().cast(), environ) };
        self.argv[1].set(before);
        status
    }
}

unsafe extern "C" {
    /// The C library's own pointer to the environment.
    safe static environ: *const *const c_char;
}

/// Says that the constructor is there: all that `test1` does.
///
/// # Safety
///
/// As for [`Target::new`].
pub unsafe fn announce(launcher: &str, argc: c_int, argv: *const *const c_char) {
    // SAFETY: the caller's contract.
    unsafe { leave_children_alone() };
    // SAFETY: the first of the program's arguments, if it has any.
    let target = if argc > 0 { unsafe { CStr::from_ptr(*argv) } } else { c"" };
    let target = target.to_bytes().escape_ascii();
    say(format_args!("{launcher}: the constructor, before main of {target}\n"));
}

/// Takes our library, the first of them, out of `LD_PRELOAD`, which the programs that the target
/// starts would inherit.
///
/// # Safety
///
/// No other thread runs.
unsafe fn leave_children_alone() {
    let preload = std::env::var("LD_PRELOAD").unwrap_or_default();
    // SAFETY: the caller's contract.
    unsafe {
        match preload.split_once(':') {
            Some((_, others)) => std::env::set_var("LD_PRELOAD", others),
            None => std::env::remove_var("LD_PRELOAD"),
        }
    }
}

/// An integer, as a C string.
pub struct Integer([u8; Line::LENGTH + 1]);

/// A line that has been typed.
struct Line([u8; Line::LENGTH]);

impl Default for Line {
    fn default() -> Self {
        Self([b' '; Self::LENGTH])
    }
}

impl Line {
    const LENGTH: usize = 48;

    /// Reads a line from standard input, and nothing of the next one, which may be the target's.
    /// Of a long line only the beginning is kept. False at the end of the input.
    fn read(&mut self) -> bool {
        let (mut byte, mut length) = ([0], 0);
        while stream(0).read(&mut byte).is_ok_and(|count| count == 1) {
            if byte == *b"\n" {
                return true;
            }
            if let Some(place) = self.0.get_mut(length) {
                *place = byte[0];
            }
            length += 1;
        }
        length > 0
    }

    /// The integer that stands there alone.
    fn integer(&self) -> Option<Integer> {
        let text = self.0.trim_ascii();
        // A line without a blank at its end may have been longer.
        let whole = self.0.ends_with(b" ");
        str::from_utf8(text).ok().filter(|_| whole)?.parse::<i128>().ok()?;
        let mut integer = Integer([0; Self::LENGTH + 1]);
        integer.0[..text.len()].copy_from_slice(text);
        Some(integer)
    }
}

/// Calls `handler` at each `^C`. System calls that it interrupts go on.
///
/// While it runs further `SIGINT`s wait, as the kernel has it: one is kept pending, until the
/// handler returns.
pub fn on_interrupt(handler: extern "C" fn(c_int)) {
    // SAFETY: a sigaction is plain numbers, for which zeros are "no flags, an empty mask".
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = handler as *const () as usize;
    action.sa_flags = libc::SA_RESTART;
    // SAFETY: the kernel reads the action, which names a handler.
    unsafe { libc::sigaction(libc::SIGINT, &action, std::ptr::null_mut()) };
}

/// Writes to standard error, as prompts of a shell are: standard output is the target's.
fn say(text: fmt::Arguments) {
    // Who cannot read this could not read a complaint about it either.
    let _ = stream(2).write_fmt(text);
}

/// Ends the program for a wrong use. At once: `exit` may have been redefined.
fn fail(launcher: &str, why: fmt::Arguments) -> ! {
    say(format_args!("{launcher}: {why}\n"));
    // SAFETY: ends the process.
    unsafe { libc::_exit(2) }
}

/// A standard stream, unbuffered.
fn stream(descriptor: c_int) -> ManuallyDrop<File> {
    // SAFETY: the descriptor is only read from or written to; it is not closed with this handle.
    ManuallyDrop::new(unsafe { File::from_raw_fd(descriptor) })
}
