//! Which System V messages of a running program could not be restored.

use ckpt_sys::Errno;
use ckpt_sys::call::{self, QueueStatus};
use ckpt_sys::lines::number;
use ckpt_sys::messages::{self, Queue};

use super::Findings;
use super::process::Process;

/// Finds the queues that stand in the way of a checkpoint.
pub fn check(process: &Process, found: &mut Findings) {
    let user = process.status("Uid").and_then(|ids| ids.split(|&byte| byte == b'\t').next());
    let user = user.and_then(|id| number(id, 10)).unwrap_or(0) as u32;
    let listed = messages::for_each::<Errno>(|queue| {
        let own = queue.if_own(process.pid, user);
        if let Some(problem) = own.and_then(|status| obstacle(&queue, &status)) {
            found.no(format!("the message queue {} (key {:#x}) {problem}", queue.id, queue.key));
        }
        Ok(())
    });
    if let Err(why) = listed {
        found.unknown(format!("its message queues could not be listed: {why}"));
    }
}

/// What is wrong with a queue, if anything is.
fn obstacle(queue: &Queue, status: &QueueStatus) -> Option<String> {
    if status.messages > Queue::MOST_MESSAGES {
        return Some(format!("has more than {} messages", Queue::MOST_MESSAGES));
    }
    let mut room = vec![0; call::MESSAGE_TYPE + status.bytes as usize];
    let mut looked = (0..status.messages as usize).map(|n| call::msg_look(queue.id, n, &mut room));
    looked.find_map(Result::err).map(|why| format!("cannot be read: {why}"))
}
