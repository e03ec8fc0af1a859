//! Pseudo-terminals of which the program has both ends. One is made with the end to type at, together with
//! all descriptors of its terminal; its number may be another.

use ckpt_image::Invalid;
use ckpt_image::files::{Message, PseudoTerminal, Terminal, descriptor};
use ckpt_image::record::{all_with_tails, first};
use ckpt_sys::Errno;
use ckpt_sys::call::{self, Fd, File};
use ckpt_sys::pseudo_terminal::Ends;
use linux_raw_sys::general::{F_SETFL, ICANON, O_CLOEXEC, O_NOCTTY, O_NONBLOCK, O_RDWR, winsize};

use super::terminal::modes_of;
use super::{Restored, descriptors, move_beyond};
use crate::report::OrFail;

/// Makes it again, and all descriptors of its terminal.
pub fn restore(restored: &Restored<'_>) {
    let Restored { record, state, .. } = *restored;
    let step = format_args!("making the pseudo-terminal {}", record.fd);
    let terminal: Terminal = restored.state();
    let Ok((more, messages)) = first::<PseudoTerminal>(&state[size_of::<Terminal>()..]) else {
        restored.image.fail(&Invalid::Damaged)
    };
    // More than it has room for is an error, and does not wait.
    let flags = record.flags | O_NOCTTY | O_NONBLOCK;
    restored.take(call::openat(c"/dev/ptmx", flags, 0).or_fail(step));
    let master = Fd(record.fd);
    call::lock_pseudo_terminal(master, false).or_fail(step);
    open_terminals(restored, &terminal);
    set(master, &terminal, &more, messages).or_fail(step);
    call::fcntl(master, F_SETFL, record.flags).or_fail(step);
}

/// Whether the program has the other end of the terminal that a descriptor is.
pub fn has_other_end(restored: &Restored<'_>) -> bool {
    let device = |state| first::<Terminal>(state).map(|(terminal, _)| terminal.device);
    let own = device(restored.state);
    descriptors(restored.image, restored.head).any(|(record, _, state)| {
        record.kind == descriptor::PSEUDO_TERMINAL && own.is_ok() && device(state) == own
    })
}

/// Opens the descriptors of its terminal.
fn open_terminals(restored: &Restored<'_>, terminal: &Terminal) {
    let Restored { image, head, record: master, .. } = *restored;
    for (record, path, state) in descriptors(image, head) {
        let is_its = record.kind == descriptor::OWN_TERMINAL
            && record.shares == record.fd
            && first::<Terminal>(state).is_ok_and(|(other, _)| other.device == terminal.device);
        if is_its {
            let step = format_args!("opening the terminal {}", record.fd);
            let flags = record.flags & !O_CLOEXEC | O_NOCTTY;
            let opened = call::open_peer(Fd(master.fd), flags).and_then(move_beyond).or_fail(step);
            Restored { record: &record, path, state, ..*restored }.take(opened);
        }
    }
}

/// Gives it the state that it had, and what was on its way in it.
fn set(
    master: Fd,
    terminal: &Terminal,
    more: &PseudoTerminal,
    messages: &[u8],
) -> Result<(), Errno> {
    call::set_modes(master, &modes_of(terminal))?;
    call::set_window_size(
        master,
        &winsize {
            ws_row: terminal.rows,
            ws_col: terminal.columns,
            ws_xpixel: terminal.width,
            ws_ypixel: terminal.height,
        },
    )?;
    let mut messages = all_with_tails::<Message>(messages).map(|(_, bytes)| bytes);
    let on_its_way = messages.next().zip(messages.next());
    if terminal.local & ICANON != 0 && on_its_way.is_some_and(|(_, typed)| !typed.is_empty()) {
        return Err(Errno::EILSEQ); // Where its lines end is not known.
    }
    if more.closed != 0 || more.exclusive != 0 || on_its_way.is_some() {
        let own =
            File::from_fd(move_beyond(call::open_peer(master, O_RDWR | O_NOCTTY | O_NONBLOCK)?)?);
        let ends = Ends { master, terminal: own.fd() };
        if let Some((shown, typed)) = on_its_way {
            ends.quietly(|| ends.show(shown).and_then(|()| ends.type_in(typed)))?;
        }
        if more.exclusive != 0 {
            call::be_exclusive(own.fd())?;
        }
    }
    call::set_packet_mode(master, more.packets != 0)?;
    call::lock_pseudo_terminal(master, more.locked != 0)
}
