//! What `/proc` tells of a running program (proc(5)).

use std::ffi::CString;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

use anyhow::{Context, Result};
use ckpt_image::VmFlags;
use ckpt_sys::Errno;
use ckpt_sys::lines::number;
use ckpt_sys::maps::{self, Details, Mapping};
use ckpt_sys::proc::value_of;

/// A running program.
pub struct Process {
    /// The process id.
    pub pid: u32,
    status: Vec<u8>,
}

/// A part of its memory.
pub struct Region {
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
    /// Bytes that another mapping has in memory too.
    pub shared_bytes: u64,
    /// The kernel's flags.
    pub flags: VmFlags,
    /// The protection key.
    pub protection_key: u64,
    /// Device and inode of the file.
    pub object: (u64, u64),
    /// The file, `[stack]` and the like, or nothing.
    pub name: Vec<u8>,
}

impl Process {
    /// The process with that id.
    ///
    /// # Errors
    ///
    /// If there is none.
    pub fn open(pid: u32) -> io::Result<Self> {
        Ok(Self { pid, status: fs::read(format!("/proc/{pid}/status"))? })
    }

    fn path(&self, name: &str) -> PathBuf {
        format!("/proc/{}/{name}", self.pid).into()
    }

    /// The file `/proc/PID/NAME`, whole.
    ///
    /// # Errors
    ///
    /// Those of reading it.
    pub fn read(&self, name: &str) -> io::Result<Vec<u8>> {
        fs::read(self.path(name))
    }

    /// The value of `key` in `/proc/PID/status`, as text.
    pub fn status(&self, key: &str) -> Option<&[u8]> {
        value_of(&self.status, key.as_bytes())
    }

    /// The same, as a number.
    pub fn status_number(&self, key: &str) -> Option<u64> {
        number(self.status(key)?, 10)
    }

    /// Whether `signal` is in the set `key` of `/proc/PID/status`.
    pub fn has_signal(&self, key: &str, signal: u32) -> bool {
        let set = self.status(key).and_then(|value| number(value, 16)).unwrap_or(0);
        set & 1 << (signal - 1) != 0
    }

    /// The value of variable `name` in the environment that it was started with.
    pub fn variable(&self, name: &str) -> Option<Vec<u8>> {
        let environment = self.read("environ").ok()?;
        environment.split(|&byte| byte == 0).find_map(|variable| {
            let value = variable.strip_prefix(name.as_bytes())?.strip_prefix(b"=")?;
            Some(value.to_vec())
        })
    }

    /// Its memory.
    ///
    /// # Errors
    ///
    /// Those of reading `/proc/PID/smaps`.
    pub fn memory(&self) -> Result<Vec<Region>, Errno> {
        let path = CString::new(format!("/proc/{}/smaps", self.pid)).unwrap_or_default();
        let mut buffer = vec![0; 64 << 10];
        let mut regions = Vec::new();
        maps::for_each_in_detail::<Errno>(&path, &mut buffer, |mapping, details| {
            regions.push(Region::new(mapping, details));
            Ok(())
        })?;
        Ok(regions)
    }

    /// Its child processes.
    ///
    /// # Errors
    ///
    /// If the kernel does not tell.
    pub fn children(&self) -> Result<Vec<u32>> {
        let mut children = Vec::new();
        for task in fs::read_dir(self.path("task"))? {
            let list = fs::read_to_string(task?.path().join("children"))?;
            children
                .extend(list.split_ascii_whitespace().filter_map(|pid| pid.parse::<u32>().ok()));
        }
        Ok(children)
    }

    /// Its descriptors, ascending, with what they refer to.
    ///
    /// # Errors
    ///
    /// Those of listing `/proc/PID/fd`.
    pub fn descriptors(&self) -> Result<Vec<(i32, Vec<u8>)>> {
        let mut descriptors = Vec::new();
        for entry in fs::read_dir(self.path("fd"))? {
            let path = entry?.path();
            let number = path.file_name().and_then(|name| name.to_str()?.parse().ok());
            // One that has been closed meanwhile is none.
            if let (Some(number), Ok(target)) = (number, fs::read_link(&path)) {
                descriptors.push((number, target.into_os_string().into_vec()));
            }
        }
        descriptors.sort();
        Ok(descriptors)
    }

    /// Whether it was restarted from an image: its executable is then `restart-static`.
    pub fn is_restarted(&self) -> bool {
        let executable = fs::read_link(self.path("exe")).unwrap_or_default();
        executable.file_name().is_some_and(|name| name == "restart-static")
    }

    /// Whether the program was linked statically, so that no dynamic loader has a part in it.
    ///
    /// # Errors
    ///
    /// If the executable cannot be read.
    pub fn is_static(&self) -> Result<bool> {
        use ckpt_image::{FileHeader, ProgramHeader, record};
        const PT_INTERP: u32 = 3;
        let executable = self.read("exe").context("reading its executable")?;
        let invalid = || anyhow::anyhow!("its executable makes no sense");
        let (header, _) = record::first::<FileHeader>(&executable).map_err(|_| invalid())?;
        let table = executable.get(header.program_headers as usize..).ok_or_else(invalid)?;
        let mut headers = record::all::<ProgramHeader>(table);
        let mut headers = headers.by_ref().take(header.program_header_count.into());
        Ok(!headers.any(|header| header.kind == PT_INTERP))
    }

    /// Whether `libckpt.a` has been linked into the program.
    ///
    /// # Errors
    ///
    /// If the executable cannot be read.
    pub fn has_library_linked_in(&self) -> Result<bool> {
        Ok(self.is_static()? && contains_mark(&self.read("exe")?))
    }
}

/// Whether the library is in these bytes of a program: they then hold the name of a variable that
/// nobody else has.
pub fn contains_mark(bytes: &[u8]) -> bool {
    const MARK: &[u8] = b"CKPT_SIGNAL";
    bytes.windows(MARK.len()).any(|window| window == MARK)
}

impl Region {
    fn new(mapping: &Mapping<'_>, details: &Details<'_>) -> Self {
        Self {
            start: mapping.start,
            end: mapping.end,
            read: mapping.read,
            write: mapping.write,
            execute: mapping.execute,
            shared: mapping.shared,
            shared_bytes: details.shared,
            flags: VmFlags::from_text(details.flags),
            protection_key: details.protection_key,
            object: (mapping.device, mapping.inode),
            name: mapping.name.to_vec(),
        }
    }

    /// Whether it belongs to `libckpt.so`, by its name.
    pub fn is_library(&self) -> bool {
        let file = self.name.rsplit(|&byte| byte == b'/').next();
        file.is_some_and(|file| file.starts_with(b"libckpt.so"))
    }

    /// Whether it is the scratch memory that `libckpt.so` maps, by its name.
    pub fn is_scratch(&self) -> bool {
        self.name == b"[anon:ckpt]"
    }
}
