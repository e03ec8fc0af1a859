//! Other names of files that are no longer under the name that the kernel shows.

use ckpt_image::files::NO_NAME;
use ckpt_sys::call;
use ckpt_sys::{Errno, Line, proc};

use crate::config::PATH;

/// A path, ended by a NUL.
pub type Path = Line<{ PATH + 1 }>;

/// The name of the file with that inode in the directory of `shown`, which the kernel shows as deleted.
/// That is where a file is found that was made under another name, linked to its own and then unlinked.
pub fn find(shown: &[u8], inode: u64) -> Option<Path> {
    let gone = shown.strip_suffix(NO_NAME)?;
    let end = gone.iter().rposition(|&byte| byte == b'/')?;
    let with_name = |name: &[u8]| {
        let mut path = Path::new();
        [&gone[..end], b"/", name, b"\0"].iter().for_each(|part| path.push(part));
        path
    };
    let mut found = None;
    let directory = proc::open_directory(with_name(b"").as_path()).ok()?;
    let _ = proc::for_each_entry(&directory, &mut [0; 1024], |entry| {
        let path = with_name(entry.name);
        if entry.inode == inode && call::stat(path.as_path()).is_ok_and(|it| it.st_ino == inode) {
            found = Some(path);
            return Err(Errno::EEXIST); // That is enough.
        }
        Ok(())
    });
    found
}
