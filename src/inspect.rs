//! `ckpt inspect IMAGE`: what is in an image, for people.

mod descriptors;
mod image;
mod memory;
mod registers;
mod sockets;
mod state;
#[cfg(test)]
mod tests;

use std::io::Write;
use std::path::Path;
use std::time::Duration;

use anyhow::{Error, Result, bail};
use ckpt_image::files::FileContents;
use ckpt_image::record::{Layout, first, kind, text};
use ckpt_image::{Head, Invalid, Segment, machine_name};
use ckpt_sys::Escaped;

use self::image::Image;
use crate::text::{Bytes, Counted, Quoted, Utc, joined, wrapped};

/// Prints what is in the image at `path`; `flags` asks for the kernel's flags of each mapping.
///
/// # Errors
///
/// If it cannot be read, is no image, or is damaged: its parts that are not are printed first.
pub fn run(out: &mut dyn Write, path: &Path, flags: bool) -> Result<()> {
    let named = |error: Error| {
        let sentence = error.to_string();
        let verb =
            if sentence.starts_with("is ") || sentence.starts_with("was ") { "" } else { ":" };
        Error::msg(format!("{}{verb} {error:#}", path.display()))
    };
    let image = Image::open(path).map_err(named)?;
    let head = image.head().map_err(named)?;
    let page = Page { image: &image, head: &head };
    page.summary(out)?;
    out.flush()?;
    let damaged = page.checksums(out)?;
    state::print(out, &head)?;
    descriptors::print(out, &head)?;
    memory::print(out, &head, flags)?;
    if damaged > 0 {
        bail!(named(Error::msg(Invalid::Checksum)));
    }
    Ok(())
}

/// Writes a line: what it is about, and what there is to say. What is too long for a line goes on
/// in the next.
fn line(out: &mut dyn Write, label: &str, value: impl ToString) -> Result<()> {
    let mut label = label;
    for part in wrapped(&value.to_string(), 82) {
        writeln!(out, "{label:<16}  {part}")?;
        label = "";
    }
    Ok(())
}

/// Writes the heading of a section.
fn heading(out: &mut dyn Write, title: &str) -> Result<()> {
    writeln!(out, "\n{title}")?;
    Ok(())
}

/// The first page, as it were.
struct Page<'a> {
    image: &'a Image,
    head: &'a Head<'a>,
}

impl Page<'_> {
    fn summary(&self, out: &mut dyn Write) -> Result<()> {
        let (process, program) = self.head.process();
        line(out, "program", Escaped(text(program)))?;
        line(out, "command line", self.command_line())?;
        line(
            out,
            "process",
            format!(
                "{}, child of {}, user {}, group {}",
                process.pid, process.parent, process.user, process.group
            ),
        )?;
        line(out, "taken", Utc(Duration::from_nanos(process.taken_at)))?;
        let host = Escaped(text(&process.host)).to_string();
        let kernel = Escaped(text(&process.kernel)).to_string();
        line(out, "on", format!("host {host}, Linux {kernel}"))?;
        let machine = machine_name(self.head.machine());
        line(
            out,
            "format",
            format!(
                "version {}, {machine}, pages of {}",
                process.version,
                Bytes(process.page_size.into())
            ),
        )?;
        let (length, on_disk) = (self.image.length, self.image.on_disk);
        let segments = self.head.segments().count();
        let segments = Counted(segments, "segment", "segments");
        let sizes = format!("{}, {} of it on the disk, {segments}", Bytes(length), Bytes(on_disk));
        line(out, "file", sizes)
    }

    /// The command line as `/proc/PID/cmdline` would show it: it is in the memory. If it is not
    /// there any more, what NT_PRPSINFO has of it.
    fn command_line(&self) -> String {
        const LIMIT: u64 = 128 << 10; // an argument is no longer than that
        let layout = self.head.note(kind::LAYOUT).and_then(first::<Layout>);
        let words = layout.ok().and_then(|(layout, _)| {
            let length = layout.arg_end.checked_sub(layout.arg_start)?.min(LIMIT);
            let bytes = self.image.memory(self.head, layout.arg_start, length as usize)?;
            let words = bytes.strip_suffix(&[0]).unwrap_or(&bytes).split(|&byte| byte == 0);
            (length > 0).then(|| joined(words.map(Quoted)))
        });
        words.unwrap_or_else(|| {
            const NT_PRPSINFO: u32 = 3;
            const ARGUMENTS: usize = 56; // in struct elf_prpsinfo
            let note = self.head.notes().find(|n| n.kind == NT_PRPSINFO && n.name == b"CORE");
            let arguments = note.and_then(|note| note.description.get(ARGUMENTS..)).unwrap_or(&[]);
            Escaped(text(arguments)).to_string()
        })
    }

    /// Checks every stored byte; returns how many parts are damaged. The head has been checked, or we
    /// would not be here.
    fn checksums(&self, out: &mut dyn Write) -> Result<usize> {
        let mut buffer = vec![0; 1 << 20];
        let mut damaged = Vec::new();
        let parts = self.parts()?;
        for part in &parts {
            let end = part.offset + part.stored;
            if self.image.checksum(part.offset..end, &mut buffer)? != part.checksum {
                damaged.push(format!("damaged: {}, at {} of the file", part.what, part.offset));
            }
        }
        let segments = Counted(self.head.segments().count(), "segment", "segments");
        let all = match parts.len() - segments.0 {
            0 => segments.to_string(),
            files => format!("{segments} and {}", Counted(files, "file", "files")),
        };
        if damaged.is_empty() {
            let stored = Bytes(parts.iter().map(|part| part.stored).sum());
            line(out, "checksums", format!("right: of the head and of {all}, {stored}"))?;
        } else {
            line(out, "checksums", format!("wrong in {} of {all}:", damaged.len()))?;
        }
        for text in &damaged {
            line(out, "", text)?;
        }
        Ok(damaged.len())
    }

    /// The parts of the image that have a checksum: memory, and the contents of files.
    fn parts(&self) -> Result<Vec<Part>> {
        let mappings = || self.head.mappings().map_err(Error::msg);
        let mut parts = Vec::new();
        for Segment { address, stored, offset, checksum, .. } in self.head.segments() {
            let mut mappings = mappings()?;
            let owner =
                mappings.find(|(mapping, _)| (mapping.start..mapping.end).contains(&address));
            let name = owner.map_or(String::new(), |(_, name)| Escaped(name).to_string());
            let what = format!("{address:x}-{:x} {name}", address + stored);
            parts.push(Part { what, offset, stored, checksum });
        }
        for (file, _) in self.head.file_contents().map_err(Error::msg)? {
            let FileContents { fd, offset, stored, checksum, .. } = file;
            parts.push(Part {
                what: format!("the file of descriptor {fd}"),
                offset,
                stored,
                checksum,
            });
        }
        Ok(parts)
    }
}

/// A part of the image that has a checksum.
struct Part {
    what: String,
    offset: u64,
    stored: u64,
    checksum: u64,
}

/// What our note `kind` holds, or nothing.
fn note<'a>(head: &Head<'a>, kind: u32) -> &'a [u8] {
    head.note(kind).unwrap_or(&[])
}
