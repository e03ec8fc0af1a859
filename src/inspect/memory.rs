//! The mappings of an image.

use std::io::Write;

use anyhow::{Error, Result};
use ckpt_image::record::{Mapping, mapping};
use ckpt_image::{Head, VmFlags};
use ckpt_sys::Escaped;

use super::heading;
use crate::text::Bytes;

/// Prints a table of the mappings, and with `flags` the kernel's flags of each.
pub fn print(out: &mut dyn Write, head: &Head<'_>, flags: bool) -> Result<()> {
    heading(out, "MEMORY")?;
    writeln!(
        out,
        "{:<25} {:>9}  {:<4} {:>9}  {:<9} name and offset",
        "from-to", "size", "prot", "stored", "kind"
    )?;
    let (mut size, mut stored, mut count) = (0, 0, 0);
    for (mapping, name) in head.mappings().map_err(Error::msg)? {
        let stored_here = stored_of(head, &mapping);
        let name = match mapping.offset {
            0 => Escaped(name).to_string(),
            offset => format!("{} +{offset:#x}", Escaped(name)),
        };
        let row = format!(
            "{:<25} {:>9}  {:<4} {:>9}  {:<9} {name}",
            format!("{:012x}-{:012x}", mapping.start, mapping.end),
            Bytes(mapping.end - mapping.start).to_string(),
            protection(&mapping),
            if stored_here == 0 { "-".to_owned() } else { Bytes(stored_here).to_string() },
            kind(&mapping),
        );
        writeln!(out, "{}", row.trim_end())?;
        if flags {
            writeln!(out, "{:<25} {}", "", VmFlags(mapping.flags))?;
        }
        size += mapping.end - mapping.start;
        stored += stored_here;
        count += 1;
    }
    let (size, stored) = (Bytes(size).to_string(), Bytes(stored).to_string());
    writeln!(out, "{:<25} {size:>9}  {:<4} {stored:>9}", format!("{count} mappings"), "")?;
    Ok(())
}

/// How many bytes of a mapping the image stores.
fn stored_of(head: &Head<'_>, mapping: &Mapping) -> u64 {
    head.segments()
        .map(|segment| {
            let end = (segment.address + segment.stored).min(mapping.end);
            end.saturating_sub(segment.address.max(mapping.start))
        })
        .sum()
}

/// As in `/proc/PID/maps`.
fn protection(mapping: &Mapping) -> String {
    let bit = |bit: u32, letter| if mapping.protection & bit != 0 { letter } else { '-' };
    let shared = VmFlags(mapping.flags).any_of(VmFlags::SHARED);
    let letters = [
        bit(libc::PROT_READ as u32, 'r'),
        bit(libc::PROT_WRITE as u32, 'w'),
        bit(libc::PROT_EXEC as u32, 'x'),
        if shared { 's' } else { 'p' },
    ];
    letters.iter().collect()
}

fn kind(mapping: &Mapping) -> &'static str {
    match mapping.kind {
        mapping::ANONYMOUS => "memory",
        mapping::FILE => "file",
        mapping::SHARED_ANONYMOUS => "shared",
        mapping::MEMFD => "memfd",
        mapping::VDSO => "vdso",
        mapping::VVAR => "vvar",
        mapping::SCRATCH => "scratch",
        mapping::DELETED => "deleted",
        mapping::SEGMENT => "segment",
        _ => "?",
    }
}
