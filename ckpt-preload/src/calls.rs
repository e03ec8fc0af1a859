//! Calls under way: what the program waited for when the request came.
//!
//! A handler ends a call that waits, and some of them fail with `EINTR` whatever the handler's flags
//! are (signal(7)). A program that has no handler never expects that. So when the checkpoint has been
//! taken, before the handler returns, it finishes the wait in the program's stead, and puts the
//! outcome where the call's result is:
//!
//! ```text
//!   the program's stack
//!
//!   |  frames of the program  |     in nanosleep, say
//!   |-------------------------|
//!   |  signal frame           |     result: EINTR   -------------->   result: 0
//!   |-------------------------|                                          ^
//!   |  handler: UnderWay      |  1. the checkpoint, on the private stack |
//!   |    Wait: until when     |  2. finish: ppoll(none, time left, the   |
//!   |-------------------------|       program's mask) ----- time is up --+
//!   |  frame of a handler of  |                         \
//!   |  the program's, or of   |     a signal            / EINTR, as without a checkpoint
//!   |  the next request       |
//! ```
//!
//! *The signals.* All are blocked in the handler, and open again only inside the call that waits,
//! which swaps in the program's mask and takes it out in one step. Whatever has come during the
//! checkpoint is delivered there, and ends the wait with `EINTR` when the program's handler has
//! returned. It may also never return (`siglongjmp`); the library holds nothing at that time.
//!
//! *A further request* is delivered in there, too. Its handler takes the checkpoint, and returns to
//! the wait it finds under way with `ERESTART`: the wait goes on, until the time it always had. So the
//! stack does not grow with the number of requests, and an image taken there goes on in the same way.
//!
//! *The time.* It is known if the call tells what is left (`nanosleep` with room for it, `select`,
//! `pselect`, `ppoll`) or was given a point of time. Of `poll`, `epoll_wait` and `nanosleep` without
//! room for it nobody tells; these wait at most their whole time again, counted from the first
//! request. After a restart what was left at the request counts from the restart on.
//!
//! *Where no mask can be swapped in.* `sigtimedwait` needs none: it waits, with all blocked, for the
//! program's other signals, too, and puts back the one that comes. A futex wait may end for no reason
//! (futex(2)); it does, with 0, and the C libraries and everybody else look at the word and the time
//! and wait on.
//!
//! *The stack* on which the handler waits is the one on which it is. If that is an alternate stack with
//! no room for a handler of the program's and a further request, as is usual where it is there for
//! stack overflows only, the signal frame is copied to the stack on which the program was, the wait
//! finished there, and the copy returned through. To leave the alternate stack and keep the frame on it
//! would not do: the kernel would put the next one in its place.
//!
//! *Input and output* that has been done in part, or that waits for a socket with a time-out, is finished
//! likewise: [`transfers`](crate::transfers).
//!
//! *When else the `EINTR` stays.* If the number of the call, its arguments or its time cannot be found out
//! ([`SignalFrame::call_made`]). And if it may not have been the request that ended the call: a
//! handler of the program's, which has returned just before the request was delivered, leaves the
//! very same frame. That is so when the request came while such a handler had it blocked, and then
//! the wake-up must not be lost.

use core::cell::Cell;
use core::ptr;

use ckpt_arch::{CallMade, SignalFrame, WaitsFor, leave_for_stack, return_through};
use ckpt_sys::call::{self, MaskAt, STOPS, signal_bit};
use ckpt_sys::timer::BILLION;
use ckpt_sys::{Errno, timer};
use linux_raw_sys::general::{
    _NSIG, CLOCK_BOOTTIME, CLOCK_MONOTONIC, CLOCK_REALTIME, CLOCK_TAI, FUTEX_CMD_MASK, FUTEX_WAIT,
    FUTEX_WAIT_BITSET, SIGCHLD, SIGCONT, SIGURG, SIGWINCH, TIMER_ABSTIME, siginfo_t, timespec,
    timeval,
};

use crate::config::config;
use crate::handler::{self, DEFAULT, IGNORE};
use crate::threads;
use crate::transfers::Transfer;

/// The call that the request has ended.
pub struct UnderWay {
    /// When the request came, by the monotonic clock.
    requested: u64,
    call: Call,
}

enum Call {
    /// None, or none that can be finished.
    None,
    /// The program's.
    Programs(CallMade, WaitsFor, Wait),
    /// One that moves data.
    Transfer(Transfer),
    /// That which finishes one of the program's, further up on the stack.
    Ours(*const Wait),
}

/// Until when it waits.
pub struct Wait {
    clock: i32,
    /// Whether the program has said how long, rather than until when.
    relative: bool,
    /// Nanoseconds of the clock; the handler of a further request may change it.
    end: Cell<u64>,
}

/// An end that never comes.
pub const NEVER: u64 = u64::MAX;

/// How long at most a wait lasts before it looks at a clock that may be set, or go on while the
/// machine sleeps; nanoseconds.
const LOOK: u64 = BILLION;

impl Wait {
    /// Until `left` nanoseconds after `now`.
    pub fn relative(now: u64, left: u64) -> Self {
        let end = Cell::new(now.saturating_add(left));
        Self { clock: CLOCK_MONOTONIC as i32, relative: true, end }
    }

    /// Nanoseconds left.
    fn left(&self) -> u64 {
        match self.end.get() {
            NEVER => NEVER,
            end => end.saturating_sub(call::clock(self.clock)),
        }
    }

    /// Lets what was left at `requested` count from now on, in a restarted process.
    fn go_on_from(&self, requested: u64) {
        let end = self.end.get();
        if self.relative && end != NEVER {
            let left = end.saturating_sub(requested);
            self.end.set(call::clock(self.clock).saturating_add(left));
        }
    }

    /// Calls `call` with the time that is left and a mask, until it has waited for so long or something
    /// else has come of it. It is called once at least, so that a signal that has come is delivered. The
    /// mask is `mask`; but when the time is over, requests wait: they could come without end.
    pub fn last(
        &self,
        mut mask: u64,
        mut call: impl FnMut(usize, Option<&mut timespec>, MaskAt) -> Result<usize, Errno>,
    ) -> Result<usize, Errno> {
        let exact = self.clock == CLOCK_MONOTONIC as i32;
        loop {
            let left = self.left();
            let mut time = timer::timespec_of(if exact { left } else { left.min(LOOK) });
            let time = (left != NEVER).then_some(&mut time);
            match call(ptr::from_ref(self) as usize, time, MaskAt(&raw const mask as u64)) {
                Err(Errno::ERESTART) if self.left() == 0 => mask |= requests(),
                Err(Errno::ERESTART) => {}
                Ok(0) if self.left() > 0 => {}
                result => return result,
            }
        }
    }
}

/// The signals that ask for a checkpoint: the program's, and that by which a thread is stopped for it.
fn requests() -> u64 {
    signal_bit(config().signal) | signal_bit(threads::STOP)
}

/// Looks what the signal of `frame` has ended.
pub fn under_way(frame: &SignalFrame) -> UnderWay {
    let requested = call::clock(CLOCK_MONOTONIC as i32);
    const EINTR: isize = -(Errno::EINTR.0 as isize);
    let made = || frame.call_made(call::peek);
    let call = if let Some(wait) = frame.wait_under_way() {
        Some(Call::Ours(wait as *const Wait))
    } else {
        match frame.call_result(call::peek) {
            Some(EINTR) => made().and_then(|call| programs(call, requested)),
            Some(count @ 1..) => made()
                .and_then(|call| Transfer::in_part(call, count as usize, requested))
                .map(Call::Transfer),
            _ => None,
        }
    };
    let call = call.unwrap_or(Call::None);
    UnderWay { requested, call }
}

/// A call of the program's as it is to be finished; `None` if that is not known.
fn programs(call: CallMade, now: u64) -> Option<Call> {
    let Some(waits) = call.waits() else {
        return Transfer::not_begun(call, now).map(Call::Transfer);
    };
    let arguments = call.arguments;
    let relative = |left| Some(Wait::relative(now, left));
    let wait = match waits {
        WaitsFor::Time => {
            let whole = if call.first_is_known { arguments[0] } else { 0 };
            relative(time_left(whole, arguments[1])?)
        }
        WaitsFor::TimeOfClock if arguments[1] & u64::from(TIMER_ABSTIME) != 0 => {
            let clock = arguments[0] as i32;
            // Of the other clocks there are those that do not go on while the program waits.
            let known = [CLOCK_REALTIME, CLOCK_MONOTONIC, CLOCK_BOOTTIME, CLOCK_TAI];
            let usable = call.first_is_known && known.contains(&(clock as u32));
            let end = Cell::new(usable.then(|| timespec_at(arguments[2]))??);
            Some(Wait { clock, relative: false, end })
        }
        WaitsFor::TimeOfClock => relative(time_left(arguments[2], arguments[3])?),
        WaitsFor::Descriptors => relative(milliseconds(arguments[2])),
        WaitsFor::DescriptorsOrSignals => relative(time_at(arguments[2])?),
        WaitsFor::Sets => relative(match arguments[4] {
            0 => NEVER,
            address => {
                let time = timespec_at(address)?; // in which the fraction counts microseconds
                (time / BILLION * BILLION).saturating_add(time % BILLION * 1000)
            }
        }),
        WaitsFor::SetsOrSignals => relative(time_at(arguments[4])?),
        WaitsFor::Events { .. } => relative(milliseconds(arguments[3])),
        WaitsFor::EventsForTime => relative(time_at(arguments[3])?),
        WaitsFor::Signal => relative(time_at(arguments[2])?),
        WaitsFor::Handler | WaitsFor::HandlerOfMask => relative(NEVER),
        WaitsFor::Futex => {
            let operation = arguments[1] as u32 & FUTEX_CMD_MASK as u32;
            [FUTEX_WAIT, FUTEX_WAIT_BITSET].contains(&operation).then(|| relative(NEVER))?
        }
    }?;
    let needs_first = match waits {
        WaitsFor::Time | WaitsFor::TimeOfClock | WaitsFor::Handler | WaitsFor::Futex => false,
        WaitsFor::Descriptors | WaitsFor::DescriptorsOrSignals => arguments[1] != 0,
        _ => true,
    };
    (call.first_is_known || !needs_first).then_some(Call::Programs(call, waits, wait))
}

/// The time at `address` in nanoseconds.
fn timespec_at(address: u64) -> Option<u64> {
    let mut time = [0_u64; 2];
    call::peek(address, bytemuck::bytes_of_mut(&mut time))
        .then(|| time[0].saturating_mul(BILLION).saturating_add(time[1]))
}

/// The time-out at `address` in nanoseconds: none is no end.
fn time_at(address: u64) -> Option<u64> {
    if address == 0 { Some(NEVER) } else { timespec_at(address) }
}

/// What the kernel says is left, if it was told where, else the whole time.
fn time_left(whole: u64, left: u64) -> Option<u64> {
    timespec_at(if left == 0 { whole } else { left })
}

/// A time-out in milliseconds as nanoseconds: a negative one is no end.
fn milliseconds(argument: u64) -> u64 {
    u64::try_from(argument as i32).map_or(NEVER, |milliseconds| milliseconds * 1_000_000)
}

impl UnderWay {
    /// Finishes the call, if one is known, and puts its result into `frame`. `restarted` is whether
    /// this is a restarted process. To be called last of all, with nothing held: it may be that it does
    /// not return.
    ///
    /// # Safety
    ///
    /// `frame` is the handler's.
    pub unsafe fn finish(self, frame: *mut SignalFrame, restarted: bool) {
        // SAFETY: the caller's contract.
        let here = unsafe { &mut *frame };
        let waits = matches!(self.call, Call::Programs(..) | Call::Transfer(..));
        if !waits || has_room(here) {
            self.finish_on_this_stack(here, restarted);
        } else if !on_alternate_stack(here, here.stack_pointer()) {
            // SAFETY: the program is on another stack; this one is left for good.
            unsafe {
                let frame = here.copy_to_programs_stack();
                let room = frame.cast::<u8>().wrapping_sub(size_of::<siginfo_t>());
                let top = room.map_addr(|address| address & !15);
                let mut moved = Moved { call: self, frame, restarted };
                leave_for_stack(top, finish_moved, (&raw mut moved).cast())
            }
        }
    }

    fn finish_on_this_stack(&self, frame: &mut SignalFrame, restarted: bool) {
        let go_on = |wait: &Wait| {
            if restarted {
                wait.go_on_from(self.requested);
            }
        };
        let finished = match &self.call {
            Call::None => None,
            Call::Ours(wait) => {
                // SAFETY: it lies in a frame of the handler's that waits for this one to return.
                go_on(unsafe { &**wait });
                Some(Err(Errno::ERESTART))
            }
            Call::Programs(call, waits, wait) => {
                go_on(wait);
                finish_wait(call, *waits, wait, frame.mask)
            }
            Call::Transfer(transfer) => {
                go_on(&transfer.wait);
                (!another_may_have_ended_it(frame.mask)).then(|| transfer.finish(frame.mask))
            }
        };
        if let Some(result) = finished {
            frame.set_result(match result {
                Ok(result) => result as isize,
                Err(errno) => -(errno.0 as isize),
            });
        }
    }
}

/// What goes over to the program's stack.
struct Moved {
    call: UnderWay,
    frame: *mut SignalFrame,
    restarted: bool,
}

/// Finishes the call on the program's stack.
unsafe extern "C" fn finish_moved(moved: *mut u8) -> ! {
    // SAFETY: it lies on the stack that was left, where nothing happens before a signal is let in.
    let Moved { call, frame, restarted } = unsafe { ptr::read(moved.cast()) };
    // SAFETY: the copy of the frame is whole, and this handler's alone.
    unsafe {
        call.finish_on_this_stack(&mut *frame, restarted);
        return_through(frame)
    }
}

/// Whether `address` is on the alternate stack.
fn on_alternate_stack(frame: &SignalFrame, address: u64) -> bool {
    let (start, length) = (frame.alternate_stack.ss_sp as u64, frame.alternate_stack.ss_size);
    address.wrapping_sub(start) < length
}

/// Whether the alternate stack, if this is one, has room for what may come during the wait: a handler of
/// the program's, and in it a further request. An ordinary stack has.
fn has_room(frame: &SignalFrame) -> bool {
    const FOR_HANDLERS: u64 = 4096;
    let here = ptr::from_ref(frame) as u64;
    let (start, length) = (frame.alternate_stack.ss_sp as u64, frame.alternate_stack.ss_size);
    // The stack goes on below the frame; what is above is the frame itself.
    !on_alternate_stack(frame, here) || here - start >= 2 * (start + length - here) + FOR_HANDLERS
}

/// Finishes a call of the program's, whose mask is `own`. `None`: it is to end as it has.
fn finish_wait(
    call: &CallMade,
    waits: WaitsFor,
    wait: &Wait,
    own: u64,
) -> Option<Result<usize, Errno>> {
    let [a, b, c, d, e, f] = call.arguments;
    let given = match waits {
        WaitsFor::DescriptorsOrSignals => d,
        WaitsFor::SetsOrSignals if f != 0 => number_at(f)?,
        WaitsFor::Events { mask: true } | WaitsFor::EventsForTime => e,
        WaitsFor::HandlerOfMask => a,
        _ => 0,
    };
    let mask = if given == 0 { own } else { number_at(given)? };
    if another_may_have_ended_it(mask) {
        return None;
    }
    let result = match waits {
        WaitsFor::Time | WaitsFor::TimeOfClock => {
            // SAFETY: there are no descriptors.
            let result = wait
                .last(mask, |wait, time, mask| unsafe { call::wait_poll(wait, 0, 0, time, mask) });
            let (whole, left) = if waits == WaitsFor::Time { (a, b) } else { (c, d) };
            // At the request the kernel has written there what was left.
            let is_whole = left == whole || waits == WaitsFor::Time && !call.first_is_known;
            let unchanged = result == Ok(0) && is_whole;
            if wait.relative && left != 0 && !unchanged {
                write_timespec(left, wait);
            }
            result
        }
        WaitsFor::Descriptors | WaitsFor::DescriptorsOrSignals => {
            // SAFETY: the program has made this very call.
            let result = wait
                .last(mask, |wait, time, mask| unsafe { call::wait_poll(wait, a, b, time, mask) });
            if waits == WaitsFor::DescriptorsOrSignals && updates_timeouts(c) {
                write_timespec(c, wait);
            }
            result
        }
        WaitsFor::Sets | WaitsFor::SetsOrSignals => {
            let result = wait.last(mask, |wait, time, mask| {
                // SAFETY: the program has made this very call.
                unsafe { call::wait_select(wait, a, [b, c, d], time, mask) }
            });
            if updates_timeouts(e) {
                match waits {
                    WaitsFor::Sets => write_timeval(e, wait),
                    _ => write_timespec(e, wait),
                }
            }
            result
        }
        WaitsFor::Events { .. } | WaitsFor::EventsForTime => wait.last(mask, |wait, time, mask| {
            // Never less than what is left, and as long as an i32 can say.
            let left = time.map_or(-1, |time| {
                let milliseconds = timer::nanoseconds_of(*time).div_ceil(1_000_000);
                milliseconds.min(i32::MAX as u64) as i32
            });
            // SAFETY: the program has made this very call.
            unsafe { call::wait_epoll(wait, a, b, c, left, mask) }
        }),
        WaitsFor::Handler | WaitsFor::HandlerOfMask => {
            wait.last(mask, |wait, _, mask| call::wait_signal(wait, mask))
        }
        WaitsFor::Signal => wait_for_signal(a, b, wait, own)?,
        WaitsFor::Futex => {
            if call::pending_signals().is_ok_and(|pending| with_handler(pending & !own) != 0) {
                return None;
            }
            Ok(0)
        }
    };
    Some(result)
}

/// The eight bytes at `address`.
fn number_at(address: u64) -> Option<u64> {
    let mut number = 0_u64;
    call::peek(address, bytemuck::bytes_of_mut(&mut number)).then_some(number)
}

/// Whether the kernel updates the time-out at `address` with what is left.
fn updates_timeouts(address: u64) -> bool {
    const STICKY_TIMEOUTS: u32 = 0x400_0000; // include/uapi/linux/personality.h
    address != 0 && call::personality(!0).is_ok_and(|persona| persona & STICKY_TIMEOUTS == 0)
}

fn write_timespec(address: u64, wait: &Wait) {
    let time = timer::timespec_of(wait.left());
    // SAFETY: there the program has put the time, or wants it.
    unsafe { call::poke(address, bytemuck::bytes_of(&[time.tv_sec, time.tv_nsec])) };
}

fn write_timeval(address: u64, wait: &Wait) {
    let time = timer::timespec_of(wait.left());
    let time = timeval { tv_sec: time.tv_sec, tv_usec: time.tv_nsec / 1000 };
    // SAFETY: there the program has put the time.
    unsafe { call::poke(address, bytemuck::bytes_of(&[time.tv_sec, time.tv_usec])) };
}

/// Those of `signals`, less those with a handler of ours, whose disposition is as `is` says, given the
/// handler, or the constant in its place, and its mask.
fn disposed(signals: u64, is: impl Fn(u32, usize, u64) -> bool) -> u64 {
    (1..=_NSIG)
        .filter(|&signal| signals & signal_bit(signal) != 0)
        .filter(|&signal| {
            // SAFETY: only asks.
            unsafe { call::sigaction(signal, None) }.is_ok_and(|action| {
                let address = handler::address_of(&action);
                !handler::is_ours(&action) && is(signal, address, action.sa_mask.sig[0])
            })
        })
        .fold(0, |all, signal| all | signal_bit(signal))
}

/// Those of `signals` that have a handler of the program's.
fn with_handler(signals: u64) -> u64 {
    disposed(signals, |_, handler, _| handler > IGNORE)
}

/// Whether, in a call with this mask, there may have been a handler in which the request was blocked.
fn another_may_have_ended_it(mask: u64) -> bool {
    let request = signal_bit(config().signal);
    disposed(!mask, |_, handler, blocked| handler > IGNORE && blocked & request != 0) != 0
}

/// Those of `signals` that do something when they are delivered.
fn effective(signals: u64) -> u64 {
    disposed(signals, |signal, handler, _| match handler {
        DEFAULT => ![SIGCHLD, SIGCONT, SIGURG, SIGWINCH].contains(&signal),
        handler => handler != IGNORE,
    })
}

/// rt_sigtimedwait(2) for the set at `set`, in a program whose mask is `mask`. What else is open there
/// is waited for, too, and put back when it comes.
fn wait_for_signal(set: u64, info_at: u64, wait: &Wait, mask: u64) -> Option<Result<usize, Errno>> {
    let set = number_at(set)?;
    let mut others = (effective(!mask) | requests() & !mask) & !set;
    loop {
        let left = wait.left();
        let time = timer::timespec_of(left);
        let info = match call::take_signal(set | others, (left != NEVER).then_some(&time)) {
            Ok(info) => info,
            Err(Errno::EAGAIN) if wait.left() == 0 => return Some(Err(Errno::EAGAIN)),
            Err(Errno::EAGAIN | Errno::EINTR) => continue,
            Err(errno) => return Some(Err(errno)),
        };
        let signal = call::signal_of(&info);
        if set & signal_bit(signal) != 0 {
            if info_at != 0 {
                // SAFETY: the program wants it there; any bytes may be looked at as bytes.
                unsafe {
                    let bytes = &*(&raw const info).cast::<[u8; size_of::<siginfo_t>()]>();
                    call::poke(info_at, bytes);
                }
            }
            return Some(Ok(signal as usize));
        }
        let _ = call::queue_to_thread(call::getpid(), call::gettid(), signal, &info);
        let is_request = signal == config().signal || threads::is_to_stop(&info);
        if !is_request && signal_bit(signal) & STOPS == 0 {
            return Some(Err(Errno::EINTR)); // and it is delivered as the handler returns
        }
        if left == 0 {
            others &= !requests(); // they could come without end
        }
        // A request, or a stop: let it come, and it alone.
        let open = !signal_bit(signal);
        let mut now = timespec { tv_sec: 0, tv_nsec: 0 };
        let at = MaskAt(&raw const open as u64);
        // SAFETY: there are no descriptors.
        let _ = unsafe { call::wait_poll(ptr::from_ref(wait) as usize, 0, 0, Some(&mut now), at) };
    }
}
