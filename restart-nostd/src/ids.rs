//! Whether the program gets the process and thread ids that it had.
//!
//! A program may have made something of its process id: `$$` of a shell, the name of a lock file, a
//! number that another process was given. There are three ways, the best first:
//!
//! * `same`: a child of this process that has the old id, chosen with clone3(2); it takes a privilege
//!   over the pid namespace, and that the id is free;
//! * `namespace`: the same in a pid namespace of its own, where every id is free; by way of a user
//!   namespace it takes no privilege, where that is not forbidden;
//! * `new`: this process itself becomes the program, and what the C library keeps of its id is put
//!   right.
//!
//! In the first two this process stays as the [`supervisor`]. Two processes are more than one, so a
//! program of one thread goes on in place unless it is asked for otherwise. Several threads hold ids
//! of each other in memory where nobody finds them, and one that controls jobs that of its process group;
//! there the best is tried first.

use core::fmt;
use core::sync::atomic::{AtomicU8, Ordering::Relaxed};

use ckpt_image::Invalid;
use ckpt_image::record::Thread;
use ckpt_sys::{Errno, call};

use crate::image::Image;
use crate::report::{self, fail, note, tell};
use crate::terminal::{self, STDIN, Terminal};
use crate::{namespace, supervisor, threads};

/// Where the ids come from.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Ids {
    /// They are the same, in the pid namespace of this process.
    Same,
    /// They are the same, in a namespace of the program's own.
    Namespace,
    /// They are others.
    New,
}

impl Ids {
    /// All of them, by their words on the command line.
    pub const ALL: [(&[u8], Self); 3] =
        [(b"same", Self::Same), (b"namespace", Self::Namespace), (b"new", Self::New)];
}

/// What was chosen, as its place in [`Ids::ALL`].
static CHOSEN: AtomicU8 = AtomicU8::new(Ids::New as u8);

/// What was chosen. Unless it is `New`, threads can be given the ids that they had.
pub fn chosen() -> Ids {
    Ids::ALL[usize::from(CHOSEN.load(Relaxed))].1
}

/// That a way is not open here. A line has said why, if it was to.
pub struct Refused;

/// How a way is tried.
#[derive(Clone, Copy)]
pub struct Attempt {
    /// The process id that the program had.
    pub pid: u32,
    /// Whether it gets a terminal of its own.
    pub own_terminal: bool,
    /// Whether there is no other way, and what is said of its failure is why the restart fails.
    pub forced: bool,
}

impl Attempt {
    /// Says why it failed, and, if that is why the restart fails, what can be done.
    pub fn refuse(self, why: fmt::Arguments<'_>, remedy: &str) -> Refused {
        if self.forced {
            report::line(format_args!("{why}; {remedy}"));
        } else {
            tell(why);
        }
        Refused
    }
}

/// Chooses, `forced` and `terminal` being what the command line says, and returns in the process that is to
/// become the program.
pub fn choose(image: &Image, forced: Option<Ids>, terminal: Option<Terminal>) {
    let (process, _) = image.head().process();
    if !(1..=i32::MAX as u32).contains(&process.pid) {
        image.fail(&Invalid::Damaged);
    }
    let controls_jobs = terminal::controls_jobs(image);
    let own_terminal = wants_terminal(terminal, controls_jobs);
    let attempt = Attempt { pid: process.pid, own_terminal, forced: forced.is_some() };
    let threads = threads::of_image(image).map(|(thread, _)| thread);
    let ways: &[Ids] = match &forced {
        Some(ids) => core::slice::from_ref(ids),
        None if threads.clone().count() == 1 && !controls_jobs => &[Ids::New],
        None => &[Ids::Same, Ids::Namespace, Ids::New],
    };
    for &ids in ways {
        CHOSEN.store(ids as u8, Relaxed);
        let outcome = match ids {
            Ids::Same => keep(attempt, threads.clone()),
            Ids::Namespace => namespace::go_on_inside(attempt),
            Ids::New => change(attempt),
        };
        match outcome {
            Ok(()) => {
                if controls_jobs && ids == Ids::New {
                    note(format_args!(
                        "the program controls jobs as a process group of another id; it will fail to"
                    ));
                }
                return tell_of(chosen());
            }
            Err(Refused) if attempt.forced => call::exit_group(report::FAILED),
            Err(Refused) => {}
        }
    }
}

/// Whether the program gets a terminal of its own, `terminal` being what the command line says.
fn wants_terminal(terminal: Option<Terminal>, controls_jobs: bool) -> bool {
    let on_terminal = call::is_terminal(STDIN);
    if terminal == Some(Terminal::Own) && !on_terminal {
        fail(format_args!("--terminal=own: standard input is no terminal"));
    }
    on_terminal && terminal.map_or(controls_jobs, |terminal| terminal == Terminal::Own)
}

/// Goes on with another id: here, or, where somebody has to look after its terminal, in a child.
fn change(attempt: Attempt) -> Result<(), Refused> {
    if !attempt.own_terminal {
        return Ok(());
    }
    supervisor::go_on_in_child(attempt, None)
        .map_err(|errno| attempt.refuse(format_args!("making a process: {errno}"), "try again"))
}

/// Says what was chosen.
fn tell_of(ids: Ids) {
    let pid = call::getpid();
    match ids {
        Ids::Same => tell(format_args!("the program is process {pid} again")),
        Ids::Namespace => {
            tell(format_args!("the program is process {pid} again, in a namespace of its own"));
        }
        Ids::New => tell(format_args!("the program is process {pid}")),
    }
}

/// Goes on in a child of the id that the program had; or here, should that be this process's.
fn keep(attempt: Attempt, threads: impl Iterator<Item = Thread> + Clone) -> Result<(), Refused> {
    let is_here = attempt.pid == call::getpid() && !attempt.own_terminal;
    if is_here && threads.clone().count() == 1 {
        return Ok(());
    }
    let is_taken = |id: u32| call::kill(id, 0) != Err(Errno::ESRCH);
    let mut ids = core::iter::once(attempt.pid).chain(threads.map(|thread| thread.tid));
    if let Some(id) = ids.find(|&id| is_taken(id)) {
        return Err(refuse_id(attempt, id, Errno::EEXIST));
    }
    supervisor::go_on_in_child(attempt, Some(attempt.pid))
        .map_err(|errno| refuse_id(attempt, attempt.pid, errno))
}

/// Says why an id cannot be had.
fn refuse_id(attempt: Attempt, id: u32, errno: Errno) -> Refused {
    match errno {
        Errno::EEXIST => attempt.refuse(
            format_args!("the id {id}, which the program had, is in use"),
            "end what has it, or use --ids=namespace",
        ),
        Errno::EPERM => attempt.refuse(
            format_args!("choosing the id {id} takes CAP_CHECKPOINT_RESTORE or root"),
            "use --ids=namespace, which does not",
        ),
        _ => attempt
            .refuse(format_args!("choosing the id {id}: {errno}"), "use --ids=namespace or new"),
    }
}
