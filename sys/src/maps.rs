//! The reader of `/proc/PID/maps` and `/proc/PID/smaps` (proc(5)).
//!
//! ```text
//! 7f1c2e1d3000-7f1c2e1f9000 r-xp 00026000 fe:00 131211      /usr/lib/libc.so.6    <- both
//! Size:                152 kB                                                     \
//! KernelPageSize:        4 kB                                                      |  smaps
//! ...                                                                              |  alone
//! VmFlags: rd ex mr mw me sd                                                      /
//! ```
//!
//! The kernel writes whole lines, in the order of addresses, and never the same address twice, even
//! if mappings come and go between two reads of the file.

use core::ffi::CStr;

use crate::Errno;
use crate::call;
use crate::lines::{Lines, number, split_once};

/// One mapping. Numbers are bytes unless they say otherwise.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mapping<'a> {
    /// The first address.
    pub start: u64,
    /// The address behind the last.
    pub end: u64,
    /// May be read.
    pub read: bool,
    /// May be written.
    pub write: bool,
    /// May be executed.
    pub execute: bool,
    /// `MAP_SHARED`.
    pub shared: bool,
    /// Where in the file it begins.
    pub offset: u64,
    /// The device of the file, `major << 32 | minor`.
    pub device: u64,
    /// The file's inode; 0 if there is no file.
    pub inode: u64,
    /// The file's path, `[stack]` and the like, or nothing. Newlines stand as `\012`.
    pub name: &'a [u8],
}

/// What `smaps` adds. Bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Details<'a> {
    /// Bytes in a page: more than usual for hugetlbfs.
    pub page_size: u64,
    /// What is in memory.
    pub resident: u64,
    /// What is swapped out.
    pub swapped: u64,
    /// What some other mapping, of this or another process, has in memory too.
    pub shared: u64,
    /// The protection key.
    pub protection_key: u64,
    /// Two letters a flag, separated by spaces.
    pub flags: &'a [u8],
}

/// A name as it was before the kernel put `\012` for a newline.
pub struct Unescaped<'a>(pub &'a [u8]);

impl<'a> Unescaped<'a> {
    /// The bytes of the name.
    pub fn bytes(&self) -> impl Iterator<Item = u8> + use<'a> {
        let mut rest = self.0;
        core::iter::from_fn(move || {
            if let Some(behind) = rest.strip_prefix(b"\\012") {
                rest = behind;
                return Some(b'\n');
            }
            let (&first, behind) = rest.split_first()?;
            rest = behind;
            Some(first)
        })
    }
}

impl<'a> Mapping<'a> {
    /// Parses a line of `maps`; `None` if it is none.
    pub fn parse(line: &'a [u8]) -> Option<Self> {
        let (range, rest) = split_once(line, b' ')?;
        let (permissions, rest) = split_once(rest, b' ')?;
        let (offset, rest) = split_once(rest, b' ')?;
        let (device, rest) = split_once(rest, b' ')?;
        // The inode is followed by blanks and the name, or by one blank at the most.
        let (inode, name) = split_once(rest, b' ').unwrap_or((rest, b""));
        let (start, end) = split_once(range, b'-')?;
        let (major, minor) = split_once(device, b':')?;
        let &[read, write, execute, shared] = permissions else { return None };
        Some(Self {
            start: number(start, 16)?,
            end: number(end, 16)?,
            read: read == b'r',
            write: write == b'w',
            execute: execute == b'x',
            shared: shared == b's',
            offset: number(offset, 16)?,
            device: number(major, 16)? << 32 | number(minor, 16)?,
            inode: number(inode, 10)?,
            name: name.trim_ascii_start(),
        })
    }

    /// The bytes it covers.
    pub fn length(&self) -> u64 {
        self.end - self.start
    }

    /// What may be done with it, as the kernel shows it: `rw-p`.
    pub fn permissions(&self) -> &'static str {
        const ALL: [&str; 16] = [
            "---p", "---s", "--xp", "--xs", "-w-p", "-w-s", "-wxp", "-wxs", "r--p", "r--s", "r-xp",
            "r-xs", "rw-p", "rw-s", "rwxp", "rwxs",
        ];
        let bits = [self.read, self.write, self.execute, self.shared];
        ALL[bits.iter().fold(0, |index, &bit| index << 1 | usize::from(bit))]
    }
}

impl Details<'_> {
    /// Takes in a line of `smaps` that holds one of the numbers.
    fn take(&mut self, line: &[u8]) {
        let Some((key, value)) = split_once(line, b':') else { return };
        let value = value.trim_ascii();
        let kilobytes = || {
            let figure = value.strip_suffix(b" kB").unwrap_or(value);
            number(figure, 10).unwrap_or(0) * 1024
        };
        match key {
            b"KernelPageSize" => self.page_size = kilobytes(),
            b"Rss" => self.resident = kilobytes(),
            b"Swap" => self.swapped = kilobytes(),
            b"Shared_Clean" | b"Shared_Dirty" => self.shared += kilobytes(),
            b"ProtectionKey" => self.protection_key = number(value, 10).unwrap_or(0),
            _ => {}
        }
    }
}

/// Calls `each` for every mapping that the file at `path` (`/proc/PID/maps`) lists.
///
/// `buffer` must hold the longest line: 8 KiB do.
///
/// # Errors
///
/// What open(2) or read(2) say; `EINVAL` for a line that is none of such a file; what `each` fails
/// with ends the reading.
pub fn for_each<E: From<Errno>>(
    path: &CStr,
    buffer: &mut [u8],
    mut each: impl FnMut(&Mapping<'_>) -> Result<(), E>,
) -> Result<(), E> {
    let file = call::File::open(path, 0)?;
    let mut lines = Lines::new(file.fd(), buffer);
    while let Some(line) = lines.next_line()? {
        each(&Mapping::parse(line).ok_or(Errno::EINVAL)?)?;
    }
    Ok(())
}

/// Calls `each` for every mapping that the file at `path` (`/proc/PID/smaps`) lists.
///
/// `buffer` must hold the longest line: 8 KiB do.
///
/// # Errors
///
/// As [`for_each`].
pub fn for_each_in_detail<E: From<Errno>>(
    path: &CStr,
    buffer: &mut [u8],
    mut each: impl FnMut(&Mapping<'_>, &Details<'_>) -> Result<(), E>,
) -> Result<(), E> {
    let file = call::File::open(path, 0)?;
    // A mapping is complete with its last line, VmFlags; until then its first must be kept.
    let (head, buffer) = buffer.split_at_mut(buffer.len() / 2);
    let mut head_length = 0;
    let mut lines = Lines::new(file.fd(), buffer);
    let mut numbers = Details::<'static>::default();
    while let Some(line) = lines.next_line()? {
        if Mapping::parse(line).is_some() {
            head.get_mut(..line.len()).ok_or(Errno::EOVERFLOW)?.copy_from_slice(line);
            head_length = line.len();
            numbers = Details::default();
        } else if let Some(flags) = line.strip_prefix(b"VmFlags:") {
            let mapping = Mapping::parse(&head[..head_length]).ok_or(Errno::EINVAL)?;
            each(&mapping, &Details { flags: flags.trim_ascii(), ..numbers })?;
        } else {
            numbers.take(line);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_every_kind() {
        let parsed = Mapping::parse(b"7f1c2e1d3000-7f1c2e1f9000 r-xp 00026000 fe:10 131211                     /usr/lib/a b (deleted)").unwrap();
        assert_eq!(
            parsed,
            Mapping {
                start: 0x7f1c_2e1d_3000,
                end: 0x7f1c_2e1f_9000,
                read: true,
                write: false,
                execute: true,
                shared: false,
                offset: 0x26000,
                device: 0xfe_0000_0010,
                inode: 131_211,
                name: b"/usr/lib/a b (deleted)",
            }
        );
        assert_eq!(parsed.permissions(), "r-xp");
        let anonymous = Mapping::parse(b"1000-2000 rw-s 00000000 00:00 0 ").unwrap();
        assert_eq!(anonymous.permissions(), "rw-s");
        assert_eq!((anonymous.name, anonymous.shared, anonymous.length()), (&b""[..], true, 4096));
        for wrong in ["", "1000-2000", "1000 rw-p 0 0:0 0", "x-y rw-p 0 0:0 0", "1-2 rwp 0 0:0 0"] {
            assert_eq!(Mapping::parse(wrong.as_bytes()), None, "{wrong}");
        }
    }

    #[test]
    fn newlines_in_names() {
        let name = Unescaped(b"/tmp/a\\012b\\01").bytes().collect::<Vec<_>>();
        assert_eq!(name, b"/tmp/a\nb\\01");
    }

    #[test]
    fn this_process_has_mappings_with_details() {
        let mut buffer = vec![0; 16384];
        let mut plain = Vec::new();
        for_each::<Errno>(c"/proc/self/maps", &mut buffer, |m| {
            plain.push((m.start, m.end));
            Ok(())
        })
        .unwrap();
        assert!(plain.windows(2).all(|pair| pair[0].1 <= pair[1].0));
        let here = &raw const plain as u64;
        let mut found = false;
        for_each_in_detail::<Errno>(c"/proc/self/smaps", &mut buffer, |m, details| {
            if (m.start..m.end).contains(&here) {
                found = true;
                assert!(m.read && m.write && details.resident > 0);
                assert_eq!(details.page_size, crate::proc::page_size());
                assert!(details.flags.starts_with(b"rd wr"));
            }
            Ok(())
        })
        .unwrap();
        assert!(found);
    }
}
