//! The address space of a process, as `/proc/PID/smaps` tells it.

use std::fs;

/// A stretch of addresses with the same attributes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mapping {
    pub start: u64,
    pub end: u64,
    /// As in `rw-p`.
    pub permissions: String,
    pub offset: u64,
    pub device: String,
    pub inode: u64,
    /// The file, or a name in brackets, or nothing.
    pub name: String,
    /// The line `VmFlags`.
    pub flags: String,
}

impl Mapping {
    /// Whether there is a file behind it.
    pub fn is_of_file(&self) -> bool {
        self.inode != 0
    }

    /// Whether `next` begins where this ends and goes on in the same way.
    fn goes_on_in(&self, next: &Mapping) -> bool {
        let offset = self.offset + if self.is_of_file() { self.end - self.start } else { 0 };
        let alike =
            Mapping { start: next.start, end: next.end, offset: next.offset, ..self.clone() };
        self.end == next.start && offset == next.offset && alike == *next
    }
}

/// All mappings of process `pid`.
pub fn of(pid: i32) -> Vec<Mapping> {
    parse(&fs::read_to_string(format!("/proc/{pid}/smaps")).expect("reading smaps"))
}

/// The same address space in as few mappings as possible: neighbours that differ in nothing are
/// one, as the kernel may or may not have merged them. Two address spaces are the same page by page
/// if this is.
pub fn merged(mappings: Vec<Mapping>) -> Vec<Mapping> {
    let mut merged: Vec<Mapping> = Vec::new();
    for mapping in mappings {
        match merged.last_mut() {
            Some(last) if last.goes_on_in(&mapping) => last.end = mapping.end,
            _ => merged.push(mapping),
        }
    }
    merged
}

fn parse(smaps: &str) -> Vec<Mapping> {
    let mut mappings: Vec<Mapping> = Vec::new();
    for line in smaps.lines() {
        if let Some(flags) = line.strip_prefix("VmFlags:") {
            mappings.last_mut().expect("a mapping before its flags").flags =
                flags.trim().to_owned();
        } else if let Some(mapping) = parse_header(line) {
            mappings.push(mapping);
        }
    }
    mappings
}

/// Reads a line like `7f0-7f1 r--p 00002000 fe:00 247030   /usr/bin/cat`; other lines are not one.
fn parse_header(line: &str) -> Option<Mapping> {
    let mut words = line.splitn(6, ' ');
    let (start, end) = words.next()?.split_once('-')?;
    let number = |digits| u64::from_str_radix(digits, 16).ok();
    Some(Mapping {
        start: number(start)?,
        end: number(end)?,
        permissions: words.next()?.to_owned(),
        offset: number(words.next()?)?,
        device: words.next()?.to_owned(),
        inode: words.next()?.parse().ok()?,
        name: words.next().unwrap_or("").trim_start().to_owned(),
        flags: String::new(),
    })
}
