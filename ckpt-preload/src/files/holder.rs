//! Who else has an object of the kernel open.

use core::fmt::Write;

use ckpt_sys::{Errno, Line, call, proc};

/// A process other than this one, as far as this one may look, that has open what `/proc/PID/fd/N`
/// shows as `target`: its id.
pub fn of(target: &[u8]) -> Option<u32> {
    let own = call::getpid();
    let mut holder = None;
    let _ = proc::for_each_process(&mut [0; 1024], |pid| {
        if pid != own && has_open(pid, target) {
            holder = Some(pid);
            return Err(Errno::EEXIST); // That is enough.
        }
        Ok(())
    });
    holder
}

fn has_open(pid: u32, target: &[u8]) -> bool {
    let mut directory = Line::<32>::new();
    let _ = write!(directory, "/proc/{pid}/fd\0");
    let is_it = |fd: u64| {
        let mut link = Line::<48>::new();
        let _ = write!(link, "/proc/{pid}/fd/{fd}\0");
        call::readlink(link.as_path(), &mut [0; 64]).is_ok_and(|found| found == target)
    };
    let found = proc::for_each_number(directory.as_path(), &mut [0; 1024], |_, fd| {
        if is_it(fd) { Err(Errno::EEXIST) } else { Ok(()) }
    });
    found == Err(Errno::EEXIST)
}
