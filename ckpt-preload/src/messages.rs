//! System V messages.
//!
//! The kernel knows who has made a queue, as a user, and which process was the last to send, and to receive;
//! who uses it, it does not know. A queue is the program's own if its user has made it, the program was one
//! of these, and the other one was no other process that still lives. Others are left alone.

use bytemuck::{Zeroable, bytes_of};
use ckpt_image::files::Message;
use ckpt_image::record::{self, MessageQueue, kind};
use ckpt_image::{Full, NoteWriter};
use ckpt_sys::Errno;
use ckpt_sys::call::{self, QueueStatus};
use ckpt_sys::messages::{self, Queue};

use crate::report::{Failure, OrReport, not_written};

/// Notes the queues that are the program's own, and what is in them.
pub fn capture(notes: &mut NoteWriter<'_>) -> Result<(), Failure> {
    notes.begin(record::NAME, kind::MESSAGES)?;
    let (own, (user, _)) = (call::getpid(), call::user_and_group());
    let mut count = 0;
    messages::for_each(|queue| match queue.if_own(own, user) {
        Some(status) if count < MessageQueue::MOST => {
            count += 1;
            capture_one(notes, &queue, &status)
        }
        _ => Ok(()),
    })
    .or_report(format_args!("reading /proc/sysvipc/msg"))?;
    notes.end()?;
    Ok(())
}

/// Notes one of them; unless somebody has just removed it.
fn capture_one(
    notes: &mut NoteWriter<'_>,
    queue: &Queue,
    status: &QueueStatus,
) -> Result<(), Failure> {
    let Queue { id, key, .. } = *queue;
    let name = format_args!("the message queue {id} (key {key:#x})");
    if status.messages > Queue::MOST_MESSAGES {
        return Err(not_written(format_args!(
            "{name} has more than {} messages; try again when some have been received",
            Queue::MOST_MESSAGES
        )));
    }
    let mut record = MessageQueue {
        id,
        key,
        mode: status.mode,
        user: status.user,
        group: status.group,
        room: status.room,
        ..MessageQueue::zeroed()
    };
    let at = notes.open_description().len();
    notes.push(bytes_of(&record))?;
    let start = notes.open_description().len();
    for index in 0..status.messages as usize {
        match look_at(notes, id, index, status.bytes as usize)? {
            Ok(()) => {}
            Err(Errno::EIDRM | Errno::EINVAL) if call::msg_status(id).is_err() => {
                notes.take_back(at);
                return Ok(());
            }
            Err(Errno::ENOSYS) => {
                return Err(not_written(format_args!(
                    "{name} cannot be read: this kernel has no MSG_COPY (CONFIG_CHECKPOINT_RESTORE)"
                )));
            }
            Err(why) => return Err(why).or_report(format_args!("reading {name}")),
        }
    }
    record.length = (notes.open_description().len() - start) as u64;
    notes.amend(at, bytes_of(&record));
    Ok(())
}

/// Notes the message at a place in the queue. None has a text of more than `longest` bytes.
fn look_at(
    notes: &mut NoteWriter<'_>,
    id: i32,
    index: usize,
    longest: usize,
) -> Result<Result<(), Errno>, Full> {
    let at = notes.open_description().len();
    notes.push(bytes_of(&Message::zeroed()))?;
    let room = notes.room().get_mut(..call::MESSAGE_TYPE + longest).ok_or(Full)?;
    match call::msg_look(id, index, room) {
        Ok(length) => {
            notes.amend(at, bytes_of(&Message { length: length as u64 }));
            notes.advance(length)?;
            notes.align()?;
            Ok(Ok(()))
        }
        Err(why) => Ok(Err(why)),
    }
}
