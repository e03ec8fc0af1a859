//! Where the program's files are here: under the names that they had, or where the command line says.

use core::cell::UnsafeCell;
use core::ffi::CStr;
use core::fmt;

use ckpt_sys::call;
use ckpt_sys::lines::{number, split_once};
use ckpt_sys::{Errno, Escaped, Line};

use crate::report::{OrFail, fail};

/// The longest path and its NUL (`PATH_MAX`).
const PATH: usize = 4096;
/// The most options that name files,
const MOST: usize = 64;
/// and the bytes of all these names together.
const ROOM: usize = 32 << 10;

/// What an option says.
#[derive(Clone, Copy)]
enum Place {
    /// What is under a path with so many bytes is elsewhere.
    Moved(usize),
    /// A descriptor is to be what is there.
    Given(i32),
}

/// An option: what it says, and where among all names its own begin and end.
#[derive(Clone, Copy)]
struct Entry {
    place: Place,
    start: usize,
    end: usize,
}

/// All of them. Nothing in here is a pointer, since this program moves.
struct Table {
    names: Line<ROOM>,
    entries: [Entry; MOST],
    count: usize,
}

struct Shared(UnsafeCell<Table>);
// SAFETY: it is written while there is but one thread.
unsafe impl Sync for Shared {}

static TABLE: Shared = Shared(UnsafeCell::new(Table {
    names: Line::new(),
    entries: [Entry { place: Place::Moved(0), start: 0, end: 0 }; MOST],
    count: 0,
}));

fn table() -> &'static Table {
    // SAFETY: it is no longer written when it is read.
    unsafe { &*TABLE.0.get() }
}

impl Table {
    /// What each option says, and its names.
    fn entries(&self) -> impl Iterator<Item = (Place, &[u8])> {
        let entries = self.entries[..self.count].iter();
        entries.map(|entry| (entry.place, &self.names.as_bytes()[entry.start..entry.end]))
    }

    fn add(&mut self, place: Place, old: &[u8], new: &[u8]) {
        let start = self.names.as_bytes().len();
        self.names.push(old);
        if !new.starts_with(b"/") {
            let mut buffer = [0; PATH];
            let here = call::getcwd(&mut buffer).or_fail(format_args!("the working directory"));
            self.names.push(here.strip_suffix(b"\0").unwrap_or(here));
            self.names.push(b"/");
        }
        self.names.push(new);
        if self.count == MOST || self.names.is_full() {
            fail(format_args!(
                "too many --map-path and --fd, of which there may be {MOST} with {ROOM} bytes in all"
            ));
        }
        self.entries[self.count] = Entry { place, start, end: self.names.as_bytes().len() };
        self.count += 1;
    }
}

/// Takes in `--map-path=OLD=NEW`.
pub fn move_path(words: &[u8]) {
    match split_once(words, b'=') {
        Some((old, new)) if old.starts_with(b"/") && !new.is_empty() => {
            let old = path_without_slash(old);
            add(Place::Moved(old.len()), old, path_without_slash(new));
        }
        _ => fail(format_args!(
            "--map-path {}: it is OLD=NEW, and OLD an absolute path",
            Escaped(words)
        )),
    }
}

fn path_without_slash(path: &[u8]) -> &[u8] {
    path.strip_suffix(b"/").unwrap_or(path)
}

/// Takes in `--fd=N=PATH`.
pub fn give(words: &[u8]) {
    let parsed = split_once(words, b'=')
        .and_then(|(fd, path)| Some((i32::try_from(number(fd, 10)?).ok()?, path)));
    match parsed {
        Some((fd, _)) if given(fd).is_some() => {
            fail(format_args!("--fd {}: descriptor {fd} is given twice", Escaped(words)))
        }
        Some((fd, path)) if !path.is_empty() => add(Place::Given(fd), b"", path),
        _ => fail(format_args!("--fd {}: it is N=PATH", Escaped(words))),
    }
}

fn add(place: Place, old: &[u8], new: &[u8]) {
    // SAFETY: there is but one thread, and nobody reads meanwhile.
    unsafe { &mut *TABLE.0.get() }.add(place, old, new);
}

/// The descriptors that are given by the command line.
pub fn all_given() -> impl Iterator<Item = (i32, &'static [u8])> {
    table().entries().filter_map(|(place, names)| match place {
        Place::Given(fd) => Some((fd, names)),
        Place::Moved(_) => None,
    })
}

/// What descriptor `fd` is to be, if the command line says so.
pub fn given(fd: i32) -> Option<&'static [u8]> {
    all_given().find_map(|(other, path)| (other == fd).then_some(path))
}

/// Where `path` is, if the command line says that it is elsewhere: the two parts of its path here.
fn moved(path: &[u8]) -> Option<(&'static [u8], &[u8])> {
    let candidates = table().entries().filter_map(|(place, names)| match place {
        Place::Moved(length) => {
            let (old, new) = names.split_at(length);
            let rest = path.strip_prefix(old)?;
            (rest.is_empty() || rest.starts_with(b"/")).then_some((length, (new, rest)))
        }
        Place::Given(_) => None,
    });
    candidates.max_by_key(|(length, _)| *length).map(|(_, parts)| parts)
}

/// Whether the command line says that `path` is elsewhere.
pub fn is_moved(path: &[u8]) -> bool {
    moved(path).is_some()
}

/// Calls `act` with the path that the file `name` has here.
pub fn with_path<R>(name: &[u8], act: impl FnOnce(&CStr) -> R) -> R {
    match moved(name) {
        Some((b"", b"")) => act(c"/"),
        Some((start, rest)) => joined(start, rest, act),
        None => with_name(name, act),
    }
}

/// Calls `act` with `name` as it is.
pub fn with_name<R>(name: &[u8], act: impl FnOnce(&CStr) -> R) -> R {
    joined(name, b"", act)
}

fn joined<R>(start: &[u8], rest: &[u8], act: impl FnOnce(&CStr) -> R) -> R {
    let mut path = Line::<{ PATH + 1 }>::new();
    if start.len() + rest.len() > PATH {
        fail(format_args!("{}{}: {}", Escaped(start), Escaped(rest), Errno::ENAMETOOLONG));
    }
    [start, rest, b"\0"].into_iter().for_each(|part| path.push(part));
    act(path.as_path())
}

/// The path that the file of that name has here, for a message.
pub struct Shown<'a>(pub &'a [u8]);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (start, rest) = moved(self.0).unwrap_or((b"", self.0));
        write!(f, "{}{}", Escaped(start), Escaped(rest))
    }
}
