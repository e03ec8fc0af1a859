//! POSIX message queues that this process has to itself.
//!
//! A message can be read only by taking it out. All are taken, and put back in the order in which they were;
//! meanwhile all threads are stopped, and nobody else has the queue open. A queue that is to tell of its next
//! message (mq_notify(3)) would tell of one that is put back, and who is told what cannot be asked for.

use bytemuck::{Zeroable, bytes_of};
use ckpt_image::files::{Descriptor, Queue, QueueMessage, descriptor};
use ckpt_image::record::all_with_tails;
use ckpt_image::{Full, NoteWriter};
use ckpt_sys::Errno;
use ckpt_sys::call::{self, Fd, File};
use ckpt_sys::lines::number;
use linux_raw_sys::general::{O_NONBLOCK, O_RDWR};

use super::{Found, Obstacle, descriptors, holder, own};

/// Notes what is in it, if it is the first descriptor of it.
pub fn capture(
    found: &Found<'_>,
    record: &mut Descriptor,
    notes: &mut NoteWriter<'_>,
) -> Result<u32, Obstacle> {
    record.kind = descriptor::MESSAGE_QUEUE;
    let is_first =
        !descriptors(notes).any(|(other, ..)| other.fd < record.fd && other.is_same_file(record));
    if !is_first {
        return Ok(record.kind);
    }
    if let Some(holder) = holder::of(found) {
        return Err(Obstacle::new(format_args!("a message queue that {holder} has open, too")));
    }
    let path = own(format_args!("fd/{}", found.fd.0));
    let queue = File::open(path.as_path(), O_RDWR | O_NONBLOCK).map_err(|why| {
        Obstacle::new(format_args!("a message queue that cannot be read ({why})"))
    })?;
    if is_to_tell(&queue)? {
        return Err(Obstacle::new(format_args!("a message queue with a notification (mq_notify)")));
    }
    let attributes = call::mq_attributes(queue.fd())?;
    notes.push(bytes_of(&Queue {
        most: attributes.maxmsg as u64,
        longest: attributes.msgsize as u64,
        mode: found.status.st_mode,
        user: found.status.st_uid,
        group: found.status.st_gid,
        ..Queue::zeroed()
    }))?;
    let start = notes.open_description().len();
    let taken = take_all(queue.fd(), attributes.msgsize as usize, notes);
    put_back(queue.fd(), &notes.open_description()[start..])?;
    taken?;
    let status = call::fstat(queue.fd())?;
    (record.mtime, record.mtime_nsec) = (status.st_mtime as i64, status.st_mtime_nsec as u32);
    Ok(record.kind)
}

/// Whether somebody is to be told of its next message.
fn is_to_tell(queue: &File) -> Result<bool, Errno> {
    let mut text = [0; 128];
    let read = call::read(queue.fd(), &mut text)?;
    let at = text[..read].windows(KEY.len()).position(|word| word == KEY).ok_or(Errno::ENOSYS)?;
    let value = text[at + KEY.len()..read].trim_ascii();
    Ok(number(value, 10) != Some(0))
}

/// What the process that is to be told stands behind (mq_overview(7)).
const KEY: &[u8] = b"NOTIFY_PID:";

/// Takes all messages out, the first to be received first.
fn take_all(queue: Fd, longest: usize, notes: &mut NoteWriter<'_>) -> Result<(), Obstacle> {
    loop {
        // If it did not fit there would be no way back.
        if notes.room().len() < size_of::<QueueMessage>() + longest.next_multiple_of(8) {
            return Err(Full.into());
        }
        let at = notes.open_description().len();
        notes.push(bytes_of(&QueueMessage::zeroed()))?;
        match call::mq_receive(queue, &mut notes.room()[..longest]) {
            Ok((length, priority)) => {
                notes.advance(length)?;
                notes.amend(at, bytes_of(&QueueMessage { length: length as u32, priority }));
                notes.align()?;
            }
            Err(why) => {
                notes.take_back(at);
                return if why == Errno::EAGAIN { Ok(()) } else { Err(why.into()) };
            }
        }
    }
}

/// Puts messages into an empty queue.
fn put_back(queue: Fd, messages: &[u8]) -> Result<(), Errno> {
    all_with_tails::<QueueMessage>(messages)
        .try_for_each(|(message, bytes)| call::mq_send(queue, bytes, message.priority))
}
