//! System V shared memory. The kernel shows a segment as a deleted file whose inode is its id; it can be
//! mapped, and has no descriptor.

use bytemuck::{Zeroable, bytes_of};
use ckpt_image::NoteWriter;
use ckpt_image::record::{self, Mapping, Segment, all_with_tails, kind, mapping};
use ckpt_sys::call;

use crate::report::{Failure, OrReport, not_written};

/// Notes the segments that the program has mapped. It must be alone in that.
pub fn capture(notes: &mut NoteWriter<'_>, mappings: &[u8]) -> Result<(), Failure> {
    notes.begin(record::NAME, kind::SEGMENTS)?;
    let all = || {
        let records = all_with_tails::<Mapping>(mappings).map(|(record, _)| record);
        records.filter(|record| record.kind == mapping::SEGMENT)
    };
    for record in all() {
        let same = || all().filter(|other| other.inode == record.inode);
        if same().next().is_some_and(|first| first.start != record.start) {
            continue;
        }
        let id = record.inode as i32;
        let status = call::shm_status(id)
            .or_report(format_args!("asking about the shared memory segment {id}"))?;
        if status.attached != same().count() as u64 {
            return Err(not_written(format_args!(
                "the shared memory segment {id} (key {:#x}) is attached by another process, too, which \
                 cannot be restored yet",
                status.key
            )));
        }
        notes.push(bytes_of(&Segment {
            id,
            key: status.key,
            size: status.size,
            mode: status.mode,
            user: status.user,
            group: status.group,
            ..Segment::zeroed()
        }))?;
    }
    notes.end()?;
    Ok(())
}
