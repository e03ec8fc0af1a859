//! Readers of the small files of `/proc` (proc(5)).
//!
//! What is a process's is read as the calling thread's, `/proc/thread-self`: there it is still to be had
//! when the process's first thread has ended before the others.

use core::ffi::CStr;
use core::fmt;

use linux_raw_sys::auxvec::{AT_HWCAP, AT_HWCAP2, AT_PAGESZ};

use crate::call::{self, Fd};
use crate::lines::number;
use crate::{Errno, Escaped, Line};

/// Reads the whole of a small file into `buffer`, as far as it goes.
///
/// # Errors
///
/// Those of open(2) and read(2); `EOVERFLOW` if the buffer is filled.
pub fn read_file<'b>(path: &CStr, buffer: &'b mut [u8]) -> Result<&'b [u8], Errno> {
    let file = call::File::open(path, 0)?;
    let mut length = 0;
    loop {
        match call::read(file.fd(), &mut buffer[length..])? {
            0 if length == buffer.len() => return Err(Errno::EOVERFLOW),
            0 => return Ok(&buffer[..length]),
            read => length += read,
        }
    }
}

/// The values of `keys` in the auxiliary vector of this process (getauxval(3)); `None` for what is not
/// in it.
pub fn auxiliary<const N: usize>(keys: [u32; N]) -> [Option<u64>; N] {
    let mut buffer = [0; 1024];
    let vector = read_file(c"/proc/thread-self/auxv", &mut buffer).unwrap_or(&[]);
    let word = |bytes: &[u8]| bytes.try_into().map_or(0, u64::from_ne_bytes);
    keys.map(|key| {
        let mut entries = vector.chunks_exact(2 * size_of::<u64>());
        let found = entries.find(|entry| word(&entry[..8]) == u64::from(key))?;
        Some(word(&found[8..]))
    })
}

/// Bytes in a page of this kernel.
pub fn page_size() -> u64 {
    let [size] = auxiliary([AT_PAGESZ]);
    size.unwrap_or(4096)
}

/// What the kernel says of the CPU: `AT_HWCAP` and `AT_HWCAP2`.
pub fn capabilities() -> [u64; 2] {
    auxiliary([AT_HWCAP, AT_HWCAP2]).map(|value| value.unwrap_or(0))
}

/// `/proc/self/coredump_filter`: which mappings the kernel would write to a core file, as a mask.
pub const CORE_DUMP_FILTER: &CStr = c"/proc/self/coredump_filter";

/// `/proc/self/oom_score_adj`: how willingly the kernel ends the process when memory is short.
pub const OOM_SCORE_ADJUSTMENT: &CStr = c"/proc/self/oom_score_adj";

/// The number, hexadecimal or decimal by `radix`, that is all of a small file.
pub fn read_number(path: &CStr, radix: u32) -> Option<i64> {
    let mut buffer = [0; 32];
    let text = read_file(path, &mut buffer).ok()?.trim_ascii();
    i64::from_str_radix(core::str::from_utf8(text).ok()?, radix).ok()
}

/// Writes a decimal number to a small file.
///
/// # Errors
///
/// Those of open(2) and write(2).
pub fn write_number(path: &CStr, number: i64) -> Result<(), Errno> {
    use core::fmt::Write;
    let file = call::File::open(path, linux_raw_sys::general::O_WRONLY)?;
    let mut text = Line::<32>::new();
    let _ = write!(text, "{number}");
    call::write(file.fd(), text.as_bytes()).map(drop)
}

/// The value of `key` in text of lines `key: value`, as `/proc/PID/status` and `fdinfo` are.
pub fn value_of<'a>(text: &'a [u8], key: &[u8]) -> Option<&'a [u8]> {
    text.split(|&byte| byte == b'\n').find_map(|line| {
        let value = line.strip_prefix(key)?.strip_prefix(b":")?;
        Some(value.trim_ascii())
    })
}

/// What `/proc/PID/stat` tells of the process; numbered as in proc(5), so from 3 on.
pub struct Stat {
    fields: [u64; Self::FIELDS],
}

impl Stat {
    const FIELDS: usize = 53;
    /// The time the process started, in clock ticks since boot.
    pub const START_TIME: usize = 22;
    /// Bytes of address space (`vsize`): none if it has ended, or is about to.
    pub const ADDRESS_SPACE: usize = 23;

    /// Parses what the file holds. Fields that are no number read as 0, negative ones as their two's
    /// complement.
    pub fn parse(text: &[u8]) -> Option<Self> {
        let mut fields = [0; Self::FIELDS];
        // The second field is the program's name in parentheses, and may hold anything.
        let name_end = text.iter().rposition(|&byte| byte == b')')?;
        let rest = text[name_end + 1..].trim_ascii().split(|&byte| byte == b' ');
        for (field, value) in fields[3..].iter_mut().zip(rest) {
            *field = match value.strip_prefix(b"-") {
                Some(magnitude) => number(magnitude, 10).unwrap_or(0).wrapping_neg(),
                None => number(value, 10).unwrap_or(0),
            };
        }
        Some(Self { fields })
    }

    /// That of process `pid`.
    ///
    /// # Errors
    ///
    /// Those of open(2) and read(2): `ENOENT` if there is no such process.
    pub fn of(pid: u32) -> Result<Self, Errno> {
        use core::fmt::Write;
        let mut path = Line::<32>::new();
        let _ = write!(path, "/proc/{pid}/stat\0");
        Self::read(CStr::from_bytes_with_nul(path.as_bytes()).map_err(|_| Errno::EINVAL)?)
    }

    /// That of this process, as the calling thread has it: of its first thread, once that has ended, the
    /// kernel tells nothing of memory.
    ///
    /// # Errors
    ///
    /// Those of open(2) and read(2).
    pub fn of_caller() -> Result<Self, Errno> {
        Self::read(c"/proc/thread-self/stat")
    }

    /// That of this process, also where `/proc` is that of another pid namespace.
    ///
    /// # Errors
    ///
    /// Those of open(2) and read(2).
    pub fn own() -> Result<Self, Errno> {
        Self::read(c"/proc/self/stat")
    }

    fn read(path: &CStr) -> Result<Self, Errno> {
        let mut buffer = [0; 1024];
        Self::parse(read_file(path, &mut buffer)?).ok_or(Errno::EINVAL)
    }

    /// Field `number` of proc(5)'s list.
    pub fn field(&self, number: usize) -> u64 {
        self.fields.get(number).copied().unwrap_or(0)
    }
}

/// The identity of the running kernel, from boot to boot: `/proc/sys/kernel/random/boot_id`, as
/// the sixteen bytes it stands for; zeros where it is not to be read.
pub fn boot_id() -> [u8; 16] {
    let mut buffer = [0; 64];
    let mut id = [0; 16];
    let Ok(text) = read_file(c"/proc/sys/kernel/random/boot_id", &mut buffer) else { return id };
    let digits = text.iter().filter_map(|&byte| char::from(byte).to_digit(16));
    for (index, digit) in digits.take(32).enumerate() {
        id[index / 2] = id[index / 2] << 4 | digit as u8;
    }
    id
}

/// How far the clocks of this process are ahead of the kernel's own, in nanoseconds
/// (time_namespaces(7)).
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct ClockOffsets {
    /// `CLOCK_MONOTONIC`.
    pub monotonic: i64,
    /// `CLOCK_BOOTTIME`.
    pub boottime: i64,
}

/// Where they are read, and written for a time namespace that nobody is in yet.
pub const CLOCK_OFFSETS: &CStr = c"/proc/self/timens_offsets";

/// Those of this process; zeros where there are no time namespaces (before Linux 5.6).
pub fn clock_offsets() -> ClockOffsets {
    let mut buffer = [0; 256];
    ClockOffsets::parse(read_file(CLOCK_OFFSETS, &mut buffer).unwrap_or(&[]))
}

impl ClockOffsets {
    /// Lines of the clock, by name or (before Linux 5.7) by number, seconds and nanoseconds.
    fn parse(text: &[u8]) -> Self {
        const BILLION: i64 = 1_000_000_000;
        let mut offsets = Self::default();
        for line in text.split(|&byte| byte == b'\n') {
            let mut words = line.split(|&byte| byte == b' ').filter(|word| !word.is_empty());
            let clock = words.next();
            let mut next = || core::str::from_utf8(words.next()?).ok()?.parse::<i64>().ok();
            let (Some(seconds), Some(nanoseconds)) = (next(), next()) else { continue };
            let offset = seconds.wrapping_mul(BILLION).wrapping_add(nanoseconds);
            match clock {
                Some(b"monotonic" | b"1") => offsets.monotonic = offset,
                Some(b"boottime" | b"7") => offsets.boottime = offset,
                _ => {}
            }
        }
        offsets
    }
}

/// Calls `each` for every open descriptor of this process, without the one this takes itself.
///
/// # Errors
///
/// Those of open(2) and getdents(2); what `each` fails with ends the listing.
pub fn for_each_descriptor<E: From<Errno>>(
    mut each: impl FnMut(Fd) -> Result<(), E>,
) -> Result<(), E> {
    for_each_number(c"/proc/thread-self/fd", &mut [0; 1024], |directory, fd| {
        let fd = Fd(fd as i32);
        if fd == directory { Ok(()) } else { each(fd) }
    })
}

/// Calls `each` for every thread of this process. Those that begin or end meanwhile may be missed.
///
/// # Errors
///
/// Those of open(2) and getdents(2); what `each` fails with ends the listing.
pub fn for_each_thread<E: From<Errno>>(
    buffer: &mut [u8],
    mut each: impl FnMut(u32) -> Result<(), E>,
) -> Result<(), E> {
    for_each_number(c"/proc/self/task", buffer, |_, tid| each(tid as u32))
}

/// Calls `each` for every process that `/proc` shows.
///
/// # Errors
///
/// Those of open(2) and getdents(2); what `each` fails with ends the listing.
pub fn for_each_process<E: From<Errno>>(
    buffer: &mut [u8],
    mut each: impl FnMut(u32) -> Result<(), E>,
) -> Result<(), E> {
    for_each_number(c"/proc", buffer, |_, pid| each(pid as u32))
}

/// A path of `/proc/PID`: the id, and the rest behind it.
pub fn process_of(path: &[u8]) -> Option<(u32, &[u8])> {
    numbered(path.strip_prefix(b"/proc/")?)
}

/// The number that a path begins with, and what comes behind it.
pub fn numbered(path: &[u8]) -> Option<(u32, &[u8])> {
    let end = path.iter().position(|byte| !byte.is_ascii_digit()).unwrap_or(path.len());
    let (id, rest) = path.split_at(end);
    Some((u32::try_from(number(id, 10)?).ok()?, rest))
}

/// A process for people: its id and, where that can be read, its name.
pub struct Holder(pub u32);

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = Line::<32>::of(format_args!("/proc/{}/comm\0", self.0));
        write!(f, "process {}", self.0)?;
        match read_file(path.as_path(), &mut [0; 256]) {
            Ok(name) => write!(f, " ({})", Escaped(name.trim_ascii_end())),
            Err(_) => Ok(()),
        }
    }
}

/// Calls `each` with the descriptor of a directory and every name in it that is a number.
///
/// # Errors
///
/// Those of open(2) and getdents(2); what `each` fails with ends the listing.
pub fn for_each_number<E: From<Errno>>(
    path: &CStr,
    buffer: &mut [u8],
    mut each: impl FnMut(Fd, u64) -> Result<(), E>,
) -> Result<(), E> {
    let directory = open_directory(path)?;
    for_each_entry(&directory, buffer, |entry| match number(entry.name, 10) {
        Some(number) => each(directory.fd(), number),
        None => Ok(()),
    })
}

/// What a directory has: `struct linux_dirent64` (getdents(2)).
pub struct Entry<'a> {
    /// The inode.
    pub inode: u64,
    /// `DT_DIR` and so on.
    pub kind: u8,
    /// The name.
    pub name: &'a [u8],
}

/// A directory to be listed.
///
/// # Errors
///
/// Those of open(2).
pub fn open_directory(path: &CStr) -> Result<call::File, Errno> {
    call::File::open(path, linux_raw_sys::general::O_DIRECTORY)
}

/// Calls `each` with every entry of a directory.
///
/// # Errors
///
/// Those of getdents(2); what `each` fails with ends the listing.
pub fn for_each_entry<E: From<Errno>>(
    directory: &call::File,
    buffer: &mut [u8],
    mut each: impl FnMut(&Entry<'_>) -> Result<(), E>,
) -> Result<(), E> {
    /// Where the name begins.
    const NAME: usize = 19;
    loop {
        let filled = call::getdents64(directory.fd(), buffer)?;
        if filled == 0 {
            return Ok(());
        }
        let mut entries = &buffer[..filled];
        while let Some((head, rest)) = entries.split_first_chunk::<NAME>() {
            let length = usize::from(u16::from_ne_bytes([head[16], head[17]]));
            let name = &rest[..length - NAME];
            let name = name.split(|&byte| byte == 0).next().unwrap_or(name);
            let inode = head.first_chunk().map_or(0, |inode| u64::from_ne_bytes(*inode));
            each(&Entry { inode, kind: head[18], name })?;
            entries = &entries[length..];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stat_of_this_process_and_of_strange_names() {
        let stat = Stat::of(std::process::id()).unwrap();
        assert!(stat.field(Stat::START_TIME) > 0);
        assert_eq!(stat.field(4), std::os::unix::process::parent_id().into());
        let text = b"7 (a) b (c) S 1 2 3 4 -1 5";
        let stat = Stat::parse(text).unwrap();
        assert_eq!((stat.field(4), stat.field(8), stat.field(9)), (1, u64::MAX, 5));
        assert!(Stat::of(u32::MAX).is_err_and(|e| e == Errno::ENOENT));
    }

    #[test]
    fn values_by_key() {
        let text = b"Name:\tx\nThreads:\t3\nThreadsX:\t4\n";
        assert_eq!(value_of(text, b"Threads"), Some(&b"3"[..]));
        assert_eq!(value_of(text, b"Thread"), None);
    }

    #[test]
    fn descriptors_are_listed() {
        use std::os::fd::AsRawFd;
        let file = std::fs::File::open("/dev/null").unwrap();
        let mut found = false;
        for_each_descriptor::<Errno>(|fd| {
            found |= fd.0 == file.as_raw_fd();
            Ok(())
        })
        .unwrap();
        assert!(found);
    }

    #[test]
    fn offsets_of_clocks() {
        let text = b"monotonic         -2 500000000\nboottime           3         0\n";
        let offsets = ClockOffsets { monotonic: -1_500_000_000, boottime: 3_000_000_000 };
        assert_eq!(ClockOffsets::parse(text), offsets);
        assert_eq!(ClockOffsets::parse(b"1 -2 500000000\n7 3 0\n"), offsets);
        assert_eq!(ClockOffsets::parse(b"monotonic 1\n"), ClockOffsets::default());
    }

    #[test]
    fn processes_for_people() {
        let own = std::process::id();
        let name = std::fs::read_to_string("/proc/self/comm").unwrap();
        assert_eq!(Holder(own).to_string(), format!("process {own} ({})", name.trim_end()));
        assert_eq!(Holder(u32::MAX).to_string(), "process 4294967295");
    }

    #[test]
    fn boot_id_is_not_empty() {
        assert_ne!(boot_id(), [0; 16]);
    }
}
