//! Namespaces of the program's own.
//!
//! A namespace takes `CAP_SYS_ADMIN`; without it one may be made inside a *user namespace* of one's
//! own, which anybody may make where that is not forbidden, and in which one has all capabilities.
//! There the ids of user and group are mapped to themselves. What changes with it: other users' ids
//! are seen as those of nobody, and nothing that a capability allows outside is allowed any more. The
//! capabilities inside serve the restart, and are given up before the program goes on: it shall have
//! those that this process was started with.
//!
//! In a pid namespace `/proc` must be mounted anew, or it shows the processes outside, by their
//! outer ids; so it comes with a mount namespace.

use core::ffi::CStr;
use core::fmt::Write;
use core::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};

use ckpt_sys::call::{self, Capabilities, File};
use ckpt_sys::{Errno, Line};
use linux_raw_sys::general::{
    __user_cap_data_struct, CLONE_NEWNS, CLONE_NEWPID, CLONE_NEWUSER, MS_NODEV, MS_NOEXEC,
    MS_NOSUID, MS_REC, MS_SLAVE, O_WRONLY,
};

use crate::ids::{Attempt, Refused};
use crate::report::{OrFail, note};
use crate::supervisor;

/// The capabilities from before a user namespace was entered: effective, permitted and inheritable,
/// the lower half first.
static BEFORE: [AtomicU32; 6] = [const { AtomicU32::new(0) }; 6];

/// Whether one was entered.
static ENTERED: AtomicBool = AtomicBool::new(false);

/// Goes on in a pid namespace, with the id that the program had: returns there.
pub fn go_on_inside(attempt: Attempt) -> Result<(), Refused> {
    supervisor::go_on_by_helper(attempt, || {
        enter(CLONE_NEWPID | CLONE_NEWNS)
            .and_then(|()| {
                // What is mounted outside later appears inside, and not the other way round.
                call::mount(c"none", c"/", c"none", MS_REC | MS_SLAVE)
                    .map_err(|errno| Failure { step: "making mounts private", errno })
            })
            .map_err(|Failure { step, errno }| {
                let why = format_args!("a pid namespace cannot be had, {step}: {errno}");
                attempt.refuse(why, "use --ids=new")
            })
    })?;
    if let Err(errno) = mount_proc() {
        note(format_args!("/proc shows the processes outside, by their ids there: {errno}"));
    }
    Ok(())
}

/// Mounts a `/proc` of the pid namespace that this process is in.
fn mount_proc() -> Result<(), Errno> {
    call::mount(c"proc", c"/proc", c"proc", MS_NOSUID | MS_NODEV | MS_NOEXEC)
}

/// What could not be done, and why.
pub struct Failure {
    pub step: &'static str,
    pub errno: Errno,
}

/// Makes and enters the namespaces `kinds`, inside a user namespace if there is no other way.
pub fn enter(kinds: u32) -> Result<(), Failure> {
    let failed = |step| move |errno| Failure { step, errno };
    if call::unshare(kinds).is_ok() {
        return Ok(());
    }
    let (user, group) = call::user_and_group();
    let before = call::capabilities().map_err(failed("capget"))?;
    call::unshare(kinds | CLONE_NEWUSER).map_err(failed("unshare"))?;
    // Who may leave groups could get at what is withheld from a group; so without a privilege the map
    // of groups may be written only when that has been renounced.
    write(c"/proc/self/setgroups", format_args!("deny"))
        .map_err(failed("writing /proc/self/setgroups"))?;
    write(c"/proc/self/uid_map", format_args!("{user} {user} 1"))
        .map_err(failed("writing /proc/self/uid_map"))?;
    write(c"/proc/self/gid_map", format_args!("{group} {group} 1"))
        .map_err(failed("writing /proc/self/gid_map"))?;
    let words = before.iter().flat_map(|half| [half.effective, half.permitted, half.inheritable]);
    BEFORE.iter().zip(words).for_each(|(to, word)| to.store(word, Relaxed));
    ENTERED.store(true, Relaxed);
    Ok(())
}

/// Gives the calling thread the capabilities from before, if a user namespace was entered.
pub fn give_up_capabilities() {
    if !ENTERED.load(Relaxed) {
        return;
    }
    let half = |at: usize| {
        let [effective, permitted, inheritable] =
            [0, 1, 2].map(|word| BEFORE[at + word].load(Relaxed));
        __user_cap_data_struct { effective, permitted, inheritable }
    };
    let before: Capabilities = [half(0), half(3)];
    call::set_capabilities(&before).or_fail(format_args!("giving up capabilities"));
}

/// Writes a short text to a file of `/proc`.
pub fn write(path: &CStr, text: core::fmt::Arguments<'_>) -> Result<(), Errno> {
    let mut line = Line::<128>::new();
    let _ = line.write_fmt(text);
    let file = File::open(path, O_WRONLY)?;
    call::write(file.fd(), line.as_bytes()).map(drop)
}
