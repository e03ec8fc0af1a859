//! The command line.

use core::ffi::{CStr, c_char};

use ckpt_sys::call::{self, Fd};
use ckpt_sys::{Escaped, Line};

use crate::report::fail;

const HELP: &str = "\
Usage: restart-static IMAGE
Makes the program that was checkpointed into the file IMAGE go on in this process.

      --help     show this and exit
      --version  show the version and exit

The program goes on in the foreground: keys, signals, job control and exit status are its own.
If it cannot, one line says why and the exit status is 125.";

const VERSION: &str = concat!("restart-static ", env!("CARGO_PKG_VERSION"));

const STDOUT: Fd = Fd(1);

/// The path of the image.
///
/// # Safety
///
/// `stack` points to what the kernel leaves on the stack of a new program: the number of arguments,
/// and pointers to them.
pub unsafe fn parse(stack: *const usize) -> &'static CStr {
    // SAFETY: the caller's contract.
    let (count, arguments) = unsafe { (*stack, stack.add(1).cast::<*const c_char>()) };
    let argument = |index| {
        // SAFETY: likewise; each is a string.
        (index < count).then(|| unsafe { CStr::from_ptr(*arguments.add(index)) })
    };
    let mut image = None;
    let mut options = true;
    for argument in (1..).map_while(argument) {
        match argument.to_bytes() {
            b"--help" if options => print(HELP),
            b"--version" if options => print(VERSION),
            b"--" if options => options = false,
            [b'-', _, ..] if options => fail(format_args!(
                "there is no option {}; see restart-static --help",
                Escaped(argument.to_bytes())
            )),
            _ if image.is_some() => {
                fail(format_args!("one image at a time, not also {}", Escaped(argument.to_bytes())))
            }
            _ => image = Some(argument),
        }
    }
    image.unwrap_or_else(|| fail(format_args!("which image? See restart-static --help")))
}

/// Prints `text` and ends well.
fn print(text: &str) -> ! {
    let mut line = Line::<1024>::new();
    line.push(text.as_bytes());
    line.write_to(STDOUT);
    call::exit_group(0)
}
