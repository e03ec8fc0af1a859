//! The process that was started, where the program goes on in a child of it.
//!
//! Who started `restart-static`, a shell, a script, a batch system, knows one process, waits for it
//! and sends signals to it. It is to seem the program:
//!
//! ```text
//!   --ids=same                             --ids=namespace
//!
//!   supervisor   (was started)             supervisor
//!    |                                      |            ................................
//!    |-- program   the old id               |-- init     : pid 1: reaps, is the watcher :
//!    '-- watcher                            '-- program  : the old id                   :
//!                                                        '..............................'
//! ```
//!
//! * A signal that is sent to the supervisor is sent on to the program, with its value if it has one.
//! * When the program stops, the supervisor stops by the same signal, so that the shell sees a
//!   stopped job; SIGCONT is sent on like any other.
//! * When the program ends the supervisor ends: with the same status, or by the same signal.
//! * When the supervisor is ended by SIGKILL, which cannot be sent on, the watcher ends the program;
//!   in a namespace by ending itself, which ends all that is in there.
//! * What the program leaves behind in the background when it ends lives on, and init for its sake.
//!
//! All are in one process group, the shell's job: the terminal has one group in the foreground, and
//! the others of a pipeline are in it. So ^C or ^Z reaches the program without the supervisor, and so
//! does what is sent to the group, as by `kill %1`; sent on, it would come twice. Nothing in a signal
//! says whether others got it. Therefore the watcher, who is in the group, too, keeps a list of what
//! it has got, and the supervisor, before it sends a signal on, asks for it. The kernel goes through
//! a group from the last to join it to the first; so what the supervisor has got, the watcher has.
//!
//! A program that has a [terminal](crate::terminal) of its own is in a group of its own, and gets all signals
//! from the supervisor.
//!
//! Program and init are children of the supervisor, though they are in a namespace that it is not in:
//! a *helper*, a child, enters it, makes them as its siblings, and ends. Whatever fails meanwhile, the
//! supervisor has not changed, and can try something else.

use core::mem::size_of;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering::SeqCst};

use ckpt_sys::call::{
    self, ALL_SIGNALS, Change, Fd, Kin, SFD_CLOEXEC, SFD_NONBLOCK, STOPS, signal_bit,
};
use ckpt_sys::{Errno, proc};
use linux_raw_sys::general::{
    _NSIG, CLD_CONTINUED, CLD_EXITED, CLD_STOPPED, CLD_TRAPPED, MAP_ANONYMOUS, MAP_SHARED, POLLIN,
    PROT_READ, PROT_WRITE, SI_KERNEL, SI_TKILL, SIGCHLD, SIGCONT, SIGKILL, SIGSTOP, SIGWINCH,
    WCONTINUED, WEXITED, WNOHANG, WNOWAIT, WSTOPPED, siginfo_t,
};
use linux_raw_sys::prctl::PR_SET_DUMPABLE;

use crate::report::{self, OrFail};
use crate::signals::set_default;
use crate::terminal::Relay;
use crate::{faults, ids::Attempt, ids::Refused};

/// What the processes share in memory.
struct Board {
    /// Init's id, once there is one.
    init: AtomicU32,
    /// The program's id, as the supervisor sees it.
    program: AtomicU32,
    /// Whether the program has ended.
    has_ended: AtomicU32,
    /// Whether it has left processes behind, of which init takes care.
    has_left: AtomicU32,
    /// How often the watcher was asked.
    asked: AtomicU32,
    /// Up to which time it has answered.
    answered: AtomicU32,
    /// What it has got, a bit a signal, and the supervisor not yet.
    got: AtomicU64,
}

/// What the supervisor asks the watcher by.
const QUESTION: u32 = _NSIG;

/// How long it waits for the answer; it may be stopped.
const PATIENCE: u64 = 1_000_000_000;

/// What the processes know of each other, made before they are.
pub struct Crew {
    board: &'static Board,
    /// The supervisor: readable when it has ended.
    supervisor: Fd,
    /// Readable when there are signals.
    signals: Fd,
    /// What was blocked before.
    mask: u64,
    /// The terminal, if the program has one of its own.
    relay: Option<Relay>,
}

/// Goes on in a child, with the id `pid` if one is given: returns there.
pub fn go_on_in_child(attempt: Attempt, pid: Option<u32>) -> Result<(), Errno> {
    let mut crew = Crew::gather(attempt)?;
    let child = match pid {
        Some(pid) => call::fork_with_id(pid, Kin::Child),
        None => call::fork(Kin::Child),
    };
    match child {
        Ok(0) => {
            crew.become_program();
            Ok(())
        }
        Ok(program) => {
            crew.board.program.store(program, SeqCst);
            crew.supervise()
        }
        Err(errno) => Err(crew.dismiss(errno)),
    }
}

/// Goes on in a child whom a helper makes: returns there. `enter` is what the helper does first.
pub fn go_on_by_helper(
    attempt: Attempt,
    enter: impl FnOnce() -> Result<(), Refused>,
) -> Result<(), Refused> {
    let refuse = |errno| attempt.refuse(format_args!("making a process: {errno}"), "use --ids=new");
    let mut crew = Crew::gather(attempt).map_err(refuse)?;
    match call::fork(Kin::Child).map_err(|errno| refuse(crew.dismiss(errno)))? {
        0 => match enter().and_then(|()| crew.help(attempt)) {
            Ok(()) => {
                crew.become_program();
                Ok(())
            }
            Err(Refused) => call::exit_group(report::FAILED),
        },
        helper => {
            let end = call::wait(Some(helper), WEXITED);
            if matches!(end, Ok(Some(Change { code: CLD_EXITED, status: 0, .. }))) {
                crew.supervise()
            }
            let init = crew.board.init.load(SeqCst);
            if init != 0 {
                let _ = call::kill(init, SIGKILL);
                let _ = call::wait(Some(init), WEXITED);
            }
            crew.dismiss(Errno::ECHILD);
            Err(Refused)
        }
    }
}

impl Crew {
    /// Makes what they have in common, and blocks all signals, so that none is lost.
    fn gather(attempt: Attempt) -> Result<Self, Errno> {
        set_default(SIGCHLD)?;
        let (length, protection) = (size_of::<Board>() as u64, PROT_READ | PROT_WRITE);
        let flags = MAP_SHARED | MAP_ANONYMOUS;
        // SAFETY: new memory, of zeros, which are valid; it stays.
        let board =
            unsafe { &*(call::mmap(0, length, protection, flags, None, 0)? as *const Board) };
        let supervisor = call::pidfd_open(call::getpid(), 0)?;
        let signals = call::signalfd(ALL_SIGNALS, SFD_CLOEXEC | SFD_NONBLOCK)?;
        let relay = attempt.own_terminal.then(Relay::open).transpose()?;
        let mask = call::set_signal_mask(ALL_SIGNALS)?;
        Ok(Self { board, supervisor, signals, mask, relay })
    }

    /// Undoes it, and passes `errno` through.
    fn dismiss(&self, errno: Errno) -> Errno {
        call::close(self.supervisor);
        call::close(self.signals);
        if let Some(relay) = &self.relay {
            relay.close();
        }
        let _ = call::set_signal_mask(self.mask);
        errno
    }

    /// The helper: makes init and the program, and ends. Returns in the program.
    fn help(&self, attempt: Attempt) -> Result<(), Refused> {
        const INIT: u32 = 1;
        let pid = attempt.pid;
        let refuse = |what: &str, errno| {
            let why = format_args!("making {what} in a pid namespace: {errno}");
            attempt.refuse(why, "use --ids=new")
        };
        if pid != INIT {
            match call::fork(Kin::Sibling).map_err(|errno| refuse("init", errno))? {
                0 => self.watch(None),
                init => self.board.init.store(init, SeqCst),
            }
        }
        match call::fork_with_id(pid, Kin::Sibling) {
            Ok(0) => Ok(()),
            Ok(program) => {
                self.board.program.store(program, SeqCst);
                call::exit_group(0)
            }
            Err(errno) => Err(refuse("the program", errno)),
        }
    }

    /// The program goes on with the restart. Signals stay blocked until it is itself.
    fn become_program(&self) {
        let _ = call::set_signal_mask(ALL_SIGNALS & !faults::FAULTS);
        call::close(self.supervisor);
        call::close(self.signals);
        if let Some(relay) = &self.relay {
            relay.enter();
        }
    }

    /// The watcher, who knows the program by a descriptor; or init, who need not know it.
    fn watch(&self, program: Option<Fd>) -> ! {
        let board = self.board;
        close_all_but(&[Some(self.supervisor), Some(self.signals), program]);
        loop {
            let wanted = [self.supervisor, self.signals].map(|fd| (fd, POLLIN));
            let supervisor_has_ended =
                call::wait_until_ready(wanted).is_ok_and(|[ended, _]| ended != 0);
            // Before the list: what is asked now is answered by what has come until now.
            let asked = board.asked.load(SeqCst);
            while let Some(info) = call::take_pending(ALL_SIGNALS) {
                let signal = Signal::of(&info);
                if !signal.is_of_child() && signal.number != QUESTION {
                    board.got.fetch_or(signal_bit(signal.number), SeqCst);
                }
            }
            // In this order: what it leaves behind becomes init's before its end is known.
            let has_ended = board.has_ended.load(SeqCst) != 0;
            let has_left = reap();
            board.has_left.store(has_left.into(), SeqCst);
            board.answered.store(asked, SeqCst);
            call::futex_wake(&board.answered);
            if supervisor_has_ended && has_ended {
                while call::wait(None, WEXITED).is_ok() {}
            } else if supervisor_has_ended && let Some(program) = program {
                let _ = call::pidfd_send_signal(program, SIGKILL);
            }
            if supervisor_has_ended || has_ended && !has_left {
                call::exit_group(0)
            }
        }
    }

    /// The supervisor. Of what it has open it needs nothing: who reads from a pipe waits until nobody
    /// can write to it any more.
    fn supervise(&mut self) -> ! {
        let program = self.board.program.load(SeqCst);
        let watcher = match self.board.init.load(SeqCst) {
            0 => self.start_watcher(program),
            init => init,
        };
        match &mut self.relay {
            None => close_all_but(&[]),
            Some(relay) => {
                let [outer, master, inner] = relay.descriptors();
                close_all_but(&[Some(self.signals), outer, master, inner]);
                relay.resume();
            }
        }
        loop {
            let Some(info) = self.next_signal() else { continue };
            let signal = Signal::of(&info);
            if signal.is_of_child() {
                self.look_after(program, watcher);
            } else if !self.is_of_terminal(&signal) && self.is_for(program, &signal, watcher) {
                let _ = match signal.code {
                    SI_TKILL | 0.. => call::kill(program, signal.number),
                    _ => call::queue_to_process(program, signal.number, &info),
                };
            }
        }
    }

    /// Whether a signal is to be sent on to the program.
    fn is_for(&self, program: u32, signal: &Signal, watcher: u32) -> bool {
        !self.was_sent_to_all(signal, watcher)
            && signal.sender != program
            && !(signal.number == SIGCONT && has_stopped(program))
    }

    /// The next signal. Meanwhile what is typed and shown is carried.
    fn next_signal(&mut self) -> Option<siginfo_t> {
        let Some(relay) = &mut self.relay else { return call::wait_for_signal(ALL_SIGNALS).ok() };
        let signal = call::take_pending(ALL_SIGNALS);
        if signal.is_none() {
            relay.carry(self.signals);
        }
        signal
    }

    /// Acts on signals that have to do with the terminal, if the program has its own. Whether that is all.
    fn is_of_terminal(&mut self, signal: &Signal) -> bool {
        let Some(relay) = &mut self.relay else { return false };
        match signal.number {
            SIGWINCH => relay.resize(),
            SIGCONT => relay.resume(),
            _ => {}
        }
        signal.number == SIGWINCH
    }

    /// Whether the watcher has got a signal, too; or one to the contrary, to stop or to continue, which
    /// has come later, since it takes the first one back where that is pending.
    fn was_sent_to_all(&self, signal: &Signal, watcher: u32) -> bool {
        if self.relay.is_some() {
            return false; // The program is in a group of its own.
        }
        let answers = self.ask(watcher);
        let own = signal_bit(signal.number);
        let contrary = match signal.number {
            SIGCONT => STOPS,
            _ if own & STOPS != 0 => signal_bit(SIGCONT),
            _ => 0,
        };
        let got = self.board.got.fetch_and(!own, SeqCst);
        got & (own | contrary) != 0 || !answers && signal.code == SI_KERNEL as i32
    }

    /// Starts the watcher. Without it nobody ends the program when the supervisor is killed.
    fn start_watcher(&self, program: u32) -> u32 {
        let step = format_args!("making the process that watches this one");
        let started =
            call::pidfd_open(program, 0).and_then(|program| match call::fork(Kin::Child)? {
                0 => self.watch(Some(program)),
                watcher => Ok(watcher),
            });
        if started.is_err() {
            let _ = call::kill(program, SIGKILL);
        }
        started.or_fail(step)
    }

    /// Has the watcher bring its list up to date. Whether it has.
    fn ask(&self, watcher: u32) -> bool {
        let board = self.board;
        let question = board.asked.fetch_add(1, SeqCst).wrapping_add(1);
        if call::kill(watcher, QUESTION).is_err() {
            return false;
        }
        loop {
            let answered = board.answered.load(SeqCst);
            if answered == question {
                return true;
            }
            let woken = call::futex_wait(&board.answered, answered, Some(PATIENCE));
            if woken == Err(Errno::ETIMEDOUT) {
                return false;
            }
        }
    }

    /// Does as the program does.
    fn look_after(&mut self, program: u32, watcher: u32) {
        while let Ok(Some(change)) = call::wait(None, WEXITED | WSTOPPED | WCONTINUED | WNOHANG) {
            match change.code {
                _ if change.pid != program => {}
                CLD_STOPPED | CLD_TRAPPED => {
                    if let Some(relay) = &mut self.relay {
                        relay.pause();
                    }
                    stop_by(change.status, program);
                    if let Some(relay) = &mut self.relay {
                        relay.resume();
                    }
                    // What the watcher has got, and this one does not wait for any more.
                    let pending = call::pending_signals().unwrap_or(0);
                    self.board.got.fetch_and(!(STOPS | signal_bit(SIGCONT)) | pending, SeqCst);
                }
                CLD_CONTINUED => {}
                code => {
                    if let Some(relay) = &mut self.relay {
                        relay.finish();
                    }
                    self.board.has_ended.store(1, SeqCst);
                    if self.ask(watcher) && self.board.has_left.load(SeqCst) == 0 {
                        let _ = call::wait(Some(watcher), WEXITED);
                    }
                    match code {
                        CLD_EXITED => call::exit_group(change.status),
                        _ => die_of(change.status),
                    }
                }
            }
        }
    }
}

/// Reaps children that have ended. Whether there are others.
fn reap() -> bool {
    loop {
        match call::wait(None, WEXITED | WNOHANG) {
            Ok(Some(_)) => {}
            Ok(None) => return true,
            Err(_) => return false,
        }
    }
}

/// What matters of a signal.
struct Signal {
    number: u32,
    code: i32,
    /// The process that has sent it, if one has.
    sender: u32,
}

impl Signal {
    fn of(info: &siginfo_t) -> Self {
        // SAFETY: plain numbers all; the sender's id is where most kinds of signal have it.
        unsafe {
            let info = &info.__bindgen_anon_1.__bindgen_anon_1;
            Self {
                number: info.si_signo as u32,
                code: info.si_code,
                sender: info._sifields._kill._pid as u32,
            }
        }
    }

    /// Whether the kernel says by it that something has become of a child.
    fn is_of_child(&self) -> bool {
        self.number == SIGCHLD && self.code > 0
    }
}

/// Whether the program has stopped, and the supervisor has not yet: after what it is about to send on,
/// if that continues a process.
fn has_stopped(program: u32) -> bool {
    matches!(call::wait(Some(program), WSTOPPED | WNOHANG | WNOWAIT), Ok(Some(_)))
}

/// Stops this process by `signal`, until it is continued; unless the program has been meanwhile.
fn stop_by(signal: u32, program: u32) {
    let own = call::getpid();
    let is_continued =
        || matches!(call::wait(Some(program), WCONTINUED | WNOHANG | WNOWAIT), Ok(Some(_)));
    if signal == SIGSTOP {
        if !is_continued() {
            let _ = call::kill(own, SIGSTOP);
        }
        return;
    }
    // A SIGCONT that comes from here on takes it back.
    let _ = set_default(signal).and_then(|()| call::kill(own, signal));
    if is_continued() {
        let _ = call::take_pending(signal_bit(signal));
    }
    let _ = call::set_signal_mask(ALL_SIGNALS & !signal_bit(signal));
    let _ = call::set_signal_mask(ALL_SIGNALS);
}

/// Ends this process by `signal`, but without a core file: the program has written its own.
fn die_of(signal: u32) -> ! {
    const NOT_DUMPABLE: usize = 0;
    // SAFETY: changes no memory.
    let _ = unsafe { call::prctl(PR_SET_DUMPABLE, NOT_DUMPABLE) };
    let _ = set_default(signal).and_then(|()| call::kill(call::getpid(), signal));
    let _ = call::set_signal_mask(ALL_SIGNALS & !signal_bit(signal));
    // Only as pid 1 one survives that.
    call::exit_group(128 + signal)
}

/// Closes all descriptors but `kept`.
fn close_all_but(kept: &[Option<Fd>]) {
    let _ = proc::for_each_descriptor::<Errno>(|fd| {
        if !kept.contains(&Some(fd)) {
            call::close(fd);
        }
        Ok(())
    });
}
