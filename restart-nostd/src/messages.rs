//! System V messages: a queue that is gone is made again under its id, and each gets the messages that were
//! in it.

use ckpt_image::files::Message;
use ckpt_image::record::{MessageQueue, all_with_tails, are_whole, kind};
use ckpt_image::{Head, Invalid};
use ckpt_sys::call::{self, MESSAGE_TYPE, QueueStatus};
use ckpt_sys::messages::other_user;
use ckpt_sys::{Errno, proc};

use crate::image::Image;
use crate::report::{OrFail, fail, note};
use crate::system_v::{LeftAlone, Maker, lasting};
use crate::undo::{self, Made};

/// The queues that another process uses by now.
static LEFT_ALONE: LeftAlone<{ MessageQueue::MOST }> = LeftAlone::new();

/// What lets this process take messages out of a queue and put them in.
const OPEN: u32 = 0o600;

/// The queues of an image, each with its messages.
fn queues<'a>(head: &Head<'a>) -> impl Iterator<Item = (MessageQueue, &'a [u8])> {
    all_with_tails(head.note(kind::MESSAGES).unwrap_or(&[]))
}

/// The messages of a queue, each beginning with its type.
fn messages(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    all_with_tails::<Message>(bytes).map(|(_, message)| message)
}

/// Refuses ids and keys that another queue has, and messages that are too long here; says which queues are
/// left alone.
pub fn check(image: &Image, head: &Head<'_>) {
    let whole = are_whole::<MessageQueue>(head.note(kind::MESSAGES).unwrap_or(&[]));
    let well = |bytes| are_whole::<Message>(bytes) && messages(bytes).all(is_well);
    if !whole
        || queues(head).count() > MessageQueue::MOST
        || !queues(head).all(|(_, bytes)| well(bytes))
    {
        image.fail(&Invalid::Damaged);
    }
    let longest = proc::read_number(c"/proc/sys/kernel/msgmax", 10).unwrap_or(i64::MAX);
    for (place, (queue, bytes)) in queues(head).enumerate() {
        let MessageQueue { id, key, .. } = queue;
        let other_user = || other_user(&there(head, &queue)?, call::getpid());
        if let Some(user) = lasting(other_user) {
            note(format_args!(
                "the message queue {id} (key {key:#x}) is used by {user} meanwhile, and stays as it is"
            ));
            LEFT_ALONE.add(place);
            continue;
        }
        if messages(bytes).any(|message| text_of(message) as i64 > longest) {
            fail(format_args!(
                "a message in the queue {id} (key {key:#x}) is longer than messages may be here; \
                 raise kernel.msgmax (sysctl), which is {longest}"
            ));
        }
        if there(head, &queue).is_none() {
            check_free(&queue);
        }
    }
}

/// Whether a message has a type, and that is one.
fn is_well(message: &[u8]) -> bool {
    message.first_chunk().is_some_and(|kind| i64::from_ne_bytes(*kind) > 0)
}

/// How many bytes a message has, without its type.
fn text_of(message: &[u8]) -> usize {
    message.len() - MESSAGE_TYPE
}

/// Refuses an id or a key that another queue has.
fn check_free(queue: &MessageQueue) {
    let MessageQueue { id, key, .. } = *queue;
    let taker = || match call::msg_status(id) {
        Err(Errno::EINVAL | Errno::EIDRM) => None,
        status => Some(status),
    };
    if lasting(taker).is_some() {
        fail(format_args!(
            "another message queue has the id {id} by now; remove it (ipcrm -q {id}), and it is made again"
        ));
    }
    if key != 0 && call::msg_find(key) != Err(Errno::ENOENT) {
        fail(format_args!(
            "there is another message queue of the key {key:#x}; remove it (ipcrm -Q {key:#x}), and it \
             is made again"
        ));
    }
}

/// What the kernel tells of a queue, if it is still there.
fn there(head: &Head<'_>, queue: &MessageQueue) -> Option<QueueStatus> {
    let same_boot = head.process().0.boot_id == proc::boot_id();
    call::msg_status(queue.id).ok().filter(|status| same_boot && status.key == queue.key)
}

/// Makes the queues that are gone.
pub fn make(image: &Image) {
    let head = image.head();
    for (queue, bytes) in LEFT_ALONE.others(queues(&head)) {
        if there(&head, &queue).is_none() {
            make_one(&queue, bytes);
        }
    }
}

/// Makes a queue again, under its id, with room for what was in it.
fn make_one(queue: &MessageQueue, bytes: &[u8]) {
    let MessageQueue { id, key, .. } = *queue;
    let step = format_args!("making the message queue {id} (key {key:#x}) again");
    let maker = Maker {
        next_id: c"/proc/sys/kernel/msg_next_id",
        make: &|key| call::msg_make(key, OPEN),
        remove: call::msg_remove,
    };
    maker.make_as(id, key, step);
    undo::remember(Made::Messages(id));
    open_up(queue, bytes).or_fail(format_args!(
        "giving the message queue {id} (key {key:#x}) room for what was in it, which is more than \
         kernel.msgmnb (sysctl)"
    ));
}

/// Lets this process put messages into a queue, and as many as it had.
fn open_up(queue: &MessageQueue, bytes: &[u8]) -> Result<(), Errno> {
    let count = messages(bytes).count().max(1);
    let needed = messages(bytes).map(text_of).sum::<usize>().max(count) as u64;
    let now = call::msg_status(queue.id)?;
    if now.mode & OPEN == OPEN && now.room >= needed {
        return Ok(());
    }
    let (mode, room) = (now.mode | OPEN, now.room.max(needed));
    call::msg_set(queue.id, now.user, now.group, mode, room)
}

/// Lets each queue hold what it held.
pub fn fill(image: &Image) {
    for (queue, bytes) in LEFT_ALONE.others(queues(&image.head())) {
        let MessageQueue { id, key, .. } = queue;
        fill_one(&queue, bytes)
            .or_fail(format_args!("filling the message queue {id} (key {key:#x})"));
    }
}

fn fill_one(queue: &MessageQueue, bytes: &[u8]) -> Result<(), Errno> {
    open_up(queue, bytes)?;
    call::msg_clear(queue.id)?;
    messages(bytes).try_for_each(|message| call::msg_send(queue.id, message))?;
    if bytes.is_empty() {
        // By the last one to send, or to receive, the next checkpoint knows whose the queue is.
        call::msg_send(queue.id, &1_i64.to_ne_bytes())?;
        call::msg_clear(queue.id)?;
    }
    give_back(queue)
}

/// Gives a queue its owner, its permissions and its room, as far as that may be done here.
fn give_back(queue: &MessageQueue) -> Result<(), Errno> {
    let MessageQueue { id, key, mode, user, group, room, .. } = *queue;
    let now = call::msg_status(id)?;
    if (now.user, now.group, now.mode, now.room) == (user, group, mode, room) {
        return Ok(());
    }
    let set = |user, group, room| call::msg_set(id, user, group, mode, room);
    if set(user, group, room).or_else(|_| set(now.user, now.group, room)).is_ok() {
        return Ok(());
    }
    note(format_args!(
        "the message queue {id} (key {key:#x}) has room for {} bytes, and had for {room}, which takes \
         CAP_SYS_RESOURCE or a higher kernel.msgmnb",
        now.room
    ));
    set(now.user, now.group, now.room)
}
