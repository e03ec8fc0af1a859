//! Finds a path of a file of which only the inode is known, where a program is likely to have it from.
//!
//! That is, in this order: among the files that it has open, its working directory, the arguments of its
//! command line, and the directories that these are in; in those directories; and below the working
//! directory.

use core::ffi::CStr;

use linux_raw_sys::general::{
    AT_SYMLINK_NOFOLLOW, IN_DELETE_SELF, IN_DONT_FOLLOW, O_CLOEXEC, O_NOFOLLOW, O_PATH,
    OVERLAYFS_SUPER_MAGIC,
};

use crate::call::{self, File};
use crate::lines::Lines;
use crate::proc;
use crate::watch::Watched;
use crate::{Errno, Line};

/// A path, with the NUL that ends it.
pub type Path = Line<4097>;

/// How deep below the working directory is looked,
const DEPTH: u32 = 16;
/// and at how many names there.
const MOST: u32 = 100_000;

/// A file, as the kernel tells it of a watch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Inode {
    /// The device, in the numbers of stat(2).
    pub device: u64,
    /// The number.
    pub number: u64,
}

/// A path of `file`, by what `process` (`/proc/PID`) tells.
pub fn path_of(process: &str, file: Inode) -> Option<Path> {
    first_of(process, |start| among_ancestors(start, file))
        .or_else(|| first_of(process, |start| in_directory_of(start, file)))
        .or_else(|| {
            let mut path = canonical(joined(process.as_bytes(), b"cwd").as_path())?;
            in_directory(&mut path, file, DEPTH, &mut { MOST }).then_some(path)
        })
}

impl Inode {
    /// Whether a path leads to it, without following a link at its end.
    fn is_at(self, path: &CStr) -> bool {
        call::status_at(path, AT_SYMLINK_NOFOLLOW).is_ok_and(|there| {
            there.st_ino == self.number
                && (there.st_dev == self.device || watched_at(path) == Ok(Some(self)))
        })
    }
}

/// What the kernel tells of a watch at `path`: in btrfs, and in an overlayfs of several file systems,
/// stat(2) tells another device.
fn watched_at(path: &CStr) -> Result<Option<Inode>, Errno> {
    let queue = File::from_fd(call::inotify(O_CLOEXEC)?);
    call::inotify_add_watch(queue.fd(), path, IN_DELETE_SELF | IN_DONT_FOLLOW)?;
    let info = Line::<48>::of(format_args!("/proc/thread-self/fdinfo/{}\0", queue.fd().0));
    let info = File::open(info.as_path(), 0)?;
    let mut buffer = [0; 512];
    let mut lines = Lines::new(info.fd(), &mut buffer);
    while let Some(line) = lines.next_line()? {
        if let Some(watched) = Watched::parse(line) {
            return Ok(Some(watched.inode));
        }
    }
    Ok(None)
}

/// The first that `look` finds by the path of an open file, the working directory, or an argument.
fn first_of(process: &str, mut look: impl FnMut(&[u8]) -> Option<Path>) -> Option<Path> {
    let mut found = None;
    let mut begin = |start: &Path| {
        if let Some(path) = canonical(start.as_path()) {
            found = look(bytes_of(&path));
        }
        if found.is_some() { Err(Errno::EEXIST) } else { Ok(()) }
    };
    let directory = joined(process.as_bytes(), b"cwd");
    let _ = begin(&directory)
        .and_then(|()| {
            let descriptors = joined(process.as_bytes(), b"fd");
            proc::for_each_number(descriptors.as_path(), &mut [0; 1024], |_, fd| {
                begin(&Path::of(format_args!("{process}/fd/{fd}\0")))
            })
        })
        .and_then(|()| {
            let file = File::open(joined(process.as_bytes(), b"cmdline").as_path(), 0)?;
            let mut buffer = [0; 4096];
            let mut arguments = Lines::new(file.fd(), &mut buffer);
            while let Some(argument) = arguments.next_ended_by(0)? {
                begin(&joined(bytes_of(&directory), argument))?;
            }
            Ok(())
        });
    found
}

/// The bytes of a path without the NUL.
fn bytes_of(path: &Path) -> &[u8] {
    path.as_path().to_bytes()
}

/// `name` in `directory`, or by itself if it is absolute.
fn joined(directory: &[u8], name: &[u8]) -> Path {
    let mut path = Path::new();
    if !name.starts_with(b"/") {
        path.push(directory);
        path.push(b"/");
    }
    path.push(name);
    path.push(b"\0");
    path
}

/// An absolute path; the empty one is the root's.
fn absolute(path: &[u8]) -> Path {
    joined(b"", if path.is_empty() { b"/" } else { path })
}

/// The absolute path that `path` leads to, without links in it; none for what has no name.
fn canonical(path: &CStr) -> Option<Path> {
    let file = File::open(path, O_PATH).or_else(|_| File::open(path, O_PATH | O_NOFOLLOW)).ok()?;
    let mut buffer = [0; 4096];
    let link = Line::<48>::of(format_args!("/proc/thread-self/fd/{}\0", file.fd().0));
    let target = call::readlink(link.as_path(), &mut buffer).ok()?;
    target.starts_with(b"/").then(|| absolute(target))
}

/// Whether `file` is at `start`, which is absolute, or a directory that this is in.
fn among_ancestors(start: &[u8], file: Inode) -> Option<Path> {
    let mut rest = start;
    loop {
        let path = absolute(rest);
        if file.is_at(path.as_path()) {
            return Some(path);
        }
        rest = parent_of(rest)?;
    }
}

/// The directory that an absolute path is in; empty for the root.
fn parent_of(path: &[u8]) -> Option<&[u8]> {
    path.iter().rposition(|&byte| byte == b'/').map(|end| &path[..end])
}

/// Whether `file` is in the directory at `start`, or in the one that `start` is in.
fn in_directory_of(start: &[u8], file: Inode) -> Option<Path> {
    let look = |directory: &[u8]| {
        let mut path = absolute(directory);
        in_directory(&mut path, file, 0, &mut { u32::MAX }).then_some(path)
    };
    look(start).or_else(|| look(parent_of(start)?))
}

/// Whether `file` is in the directory `path`, or so deep below it, among so many names as are left;
/// `path` then becomes that of the file.
fn in_directory(path: &mut Path, file: Inode, depth: u32, left: &mut u32) -> bool {
    /// A directory (getdents(2)).
    const DT_DIR: u8 = 4;
    let start = bytes_of(path).strip_suffix(b"/").unwrap_or(bytes_of(path)).len();
    let Ok(directory) = proc::open_directory(path.as_path()) else { return false };
    // There the numbers in a directory may be those of other layers.
    let is_overlay = call::file_system(directory.fd()) == Ok(OVERLAYFS_SUPER_MAGIC);
    let mut found = false;
    let _ = proc::for_each_entry(&directory, &mut [0; 1024], |entry| {
        *left = left.checked_sub(1).ok_or(Errno::E2BIG)?;
        let sought = is_overlay || entry.inode == file.number;
        let further = depth > 0 && entry.kind == DT_DIR;
        if !(sought || further) || [&b"."[..], b".."].contains(&entry.name) {
            return Ok(());
        }
        path.truncate(start);
        [b"/", entry.name, b"\0"].into_iter().for_each(|part| path.push(part));
        found = sought && file.is_at(path.as_path())
            || further && in_directory(path, file, depth - 1, left);
        if found { Err(Errno::EEXIST) } else { Ok(()) }
    });
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::ffi::OsStrExt;
    use std::os::unix::fs::MetadataExt;
    use std::path::{Path, PathBuf};

    fn found(path: &Path) -> Option<PathBuf> {
        let status = path.symlink_metadata().unwrap();
        let inode = Inode { device: status.dev(), number: status.ino() };
        let found = path_of("/proc/self", inode)?;
        Some(std::ffi::OsStr::from_bytes(bytes_of(&found)).into())
    }

    #[test]
    fn files_are_found() {
        let here = std::env::current_dir().unwrap();
        for path in [here.join("src/call/locks.rs"), here.join("Cargo.toml"), here.clone()] {
            assert_eq!(found(&path), Some(path));
        }
        assert_eq!(found(Path::new("/")), Some("/".into()));
        let beside = here.parent().unwrap().join("Cargo.toml");
        let file = std::fs::File::open(&beside).unwrap();
        assert_eq!(found(&beside), Some(beside));
        drop(file);
        assert_eq!(found(Path::new("/proc/version")), None);
    }
}
