//! Who else has an object of the kernel open.

use core::fmt::Write;

use ckpt_sys::proc::{self, Holder};
use ckpt_sys::{Errno, Line, call};

use super::Found;
use crate::config::PATH;

/// A process other than this one, as far as this one may look, that has the object of a descriptor open.
pub fn of(found: &Found<'_>) -> Option<Holder> {
    let own = call::getpid();
    let mut holder = None;
    let _ = proc::for_each_process(&mut [0; 1024], |pid| {
        if pid != own && has_open(pid, found) {
            holder = Some(Holder(pid));
            return Err(Errno::EEXIST); // That is enough.
        }
        Ok(())
    });
    holder
}

fn has_open(pid: u32, object: &Found<'_>) -> bool {
    let mut directory = Line::<32>::new();
    let _ = write!(directory, "/proc/{pid}/fd\0");
    let is_it = |fd: u64| {
        let mut link = Line::<48>::new();
        let _ = write!(link, "/proc/{pid}/fd/{fd}\0");
        // The link is cheaper to look at, and mostly another one.
        call::readlink(link.as_path(), &mut [0; PATH]).is_ok_and(|target| target == object.path)
            && call::stat(link.as_path()).is_ok_and(|status| {
                (status.st_dev, status.st_ino) == (object.status.st_dev, object.status.st_ino)
            })
    };
    let found = proc::for_each_number(directory.as_path(), &mut [0; 1024], |_, fd| {
        if is_it(fd) { Err(Errno::EEXIST) } else { Ok(()) }
    });
    found == Err(Errno::EEXIST)
}
