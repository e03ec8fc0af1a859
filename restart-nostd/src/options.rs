//! The command line.

use core::ffi::{CStr, c_char};

use ckpt_sys::call::{self, Fd};
use ckpt_sys::{Escaped, Line};

use crate::clock::Clock;
use crate::files::Changed;
use crate::ids::Ids;
use crate::paths;
use crate::report::{self, fail};
use crate::terminal::Terminal;

const HELP: &str = "\
Usage: restart-static [OPTION]... IMAGE
Makes the program that was checkpointed into the file IMAGE go on in this process, or in a child.

      --ids=same       with the process id it had; takes CAP_CHECKPOINT_RESTORE, and that it is free
      --ids=namespace  with the process id it had, in user and pid namespaces of its own
      --ids=new        with the process id of this process
                       default: new for one thread, for several the first of these that is possible
      --clock=continue the monotonic clock goes on where it stood, by a time namespace
      --clock=host     the monotonic clock is that of this machine
                       default: continue, if that is possible; on the same boot it runs on
      --files=truncate cut a file that has grown back, if the program writes to it: the default
      --files=keep     leave it; the program goes on writing where it was, or appending
      --files=check    fail if any file that the program has open has changed
      --map-path OLD=NEW  take what was under the path OLD, a file or directory, from NEW
      --fd N=PATH      open PATH as descriptor N, with the flags that it had
                       both as often as you like; of several OLD the longest counts
      --terminal=own   on a pseudo-terminal of its own, as the leader of its session
      --terminal=shared on the terminal of this process, as a job of its shell
                       default: own for a program that controls jobs, such as a shell
      --verbose        say what was chosen
      --help           show this and exit
      --version        show the version and exit

The program goes on in the foreground: keys, signals, job control and exit status are its own.
If it cannot, one line says why and the exit status is 125.";

const VERSION: &str = concat!("restart-static ", env!("CARGO_PKG_VERSION"));

const STDOUT: Fd = Fd(1);

/// What is asked for.
pub struct Options {
    /// The path of the image.
    pub image: &'static CStr,
    /// Which way to the ids the program had, if one is forced.
    pub ids: Option<Ids>,
    /// Which monotonic clock, likewise.
    pub clock: Option<Clock>,
    /// What becomes of files that have changed.
    pub files: Changed,
    /// Which terminal, likewise.
    pub terminal: Option<Terminal>,
}

/// Reads the command line.
///
/// # Safety
///
/// `stack` points to what the kernel leaves on the stack of a new program: the number of arguments,
/// and pointers to them.
pub unsafe fn parse(stack: *const usize) -> Options {
    // SAFETY: the caller's contract.
    let (count, arguments) = unsafe { (*stack, stack.add(1).cast::<*const c_char>()) };
    let argument = |index| {
        // SAFETY: likewise; each is a string.
        (index < count).then(|| unsafe { CStr::from_ptr(*arguments.add(index)) })
    };
    let (mut image, mut ids, mut clock, mut terminal) = (None, None, None, None);
    let mut files = Changed::Truncate;
    let mut options = true;
    let mut arguments = (1..).map_while(argument);
    while let Some(argument) = arguments.next() {
        let mut value = |words: &'static [u8]| match words {
            [b'=', value @ ..] => value,
            _ => arguments.next().map_or(&[][..], CStr::to_bytes),
        };
        match argument.to_bytes() {
            b"--help" if options => print(HELP),
            b"--version" if options => print(VERSION),
            b"--verbose" if options => report::be_verbose(),
            b"--" if options => options = false,
            [b'-', b'-', b'i', b'd', b's', b'=', word @ ..] if options => {
                ids = Some(choice("--ids", word, &Ids::ALL));
            }
            [b'-', b'-', b'c', b'l', b'o', b'c', b'k', b'=', word @ ..] if options => {
                clock = Some(choice("--clock", word, &Clock::ALL));
            }
            [b'-', b'-', b'f', b'i', b'l', b'e', b's', b'=', word @ ..] if options => {
                files = choice("--files", word, &Changed::ALL);
            }
            b"--map-path"
            | [b'-', b'-', b'm', b'a', b'p', b'-', b'p', b'a', b't', b'h', b'=', ..]
                if options =>
            {
                paths::move_path(value(&argument.to_bytes()[b"--map-path".len()..]));
            }
            b"--fd" | [b'-', b'-', b'f', b'd', b'=', ..] if options => {
                paths::give(value(&argument.to_bytes()[b"--fd".len()..]));
            }
            [b'-', b'-', b't', b'e', b'r', b'm', b'i', b'n', b'a', b'l', b'=', word @ ..]
                if options =>
            {
                terminal = Some(choice("--terminal", word, &Terminal::ALL));
            }
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
    let image =
        image.unwrap_or_else(|| fail(format_args!("which image? See restart-static --help")));
    Options { image, ids, clock, files, terminal }
}

/// The value of `option` that is called `word`.
fn choice<T: Copy>(option: &str, word: &[u8], values: &[(&[u8], T)]) -> T {
    if let Some((_, value)) = values.iter().find(|(name, _)| *name == word) {
        return *value;
    }
    let mut possible = Line::<256>::new();
    for (name, _) in values {
        possible.push(if possible.as_bytes().is_empty() { b"" } else { b", " });
        possible.push(name);
    }
    fail(format_args!("{option}={}: it is one of {possible}", Escaped(word)))
}

/// Prints `text` and ends well.
fn print(text: &str) -> ! {
    let mut line = Line::<2048>::new();
    line.push(text.as_bytes());
    line.write_to(STDOUT);
    call::exit_group(0)
}
