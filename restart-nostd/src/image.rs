//! The image file, and what can be said of it before anything is touched.

use core::ffi::CStr;
use core::fmt;

use ckpt_arch::{CpuState, ELF_MACHINE, NAME};
use ckpt_image::record::{self, kind};
use ckpt_image::{Head, Invalid, PREFIX};
use ckpt_sys::call::{self, Fd};
use ckpt_sys::{Errno, Escaped, proc};
use linux_raw_sys::general::{
    F_DUPFD_CLOEXEC, MAP_ANONYMOUS, MAP_PRIVATE, O_CLOEXEC, O_NONBLOCK, PROT_READ, PROT_WRITE,
    S_IFMT, S_IFREG,
};

use crate::files::{self, Changed};
use crate::report::{fail, note};
use crate::{memory, messages, semaphores, signals, threads};

/// An image whose head is in memory.
#[derive(Clone, Copy)]
pub struct Image {
    /// The path, for messages.
    pub path: &'static CStr,
    /// The file.
    pub fd: Fd,
    /// The bytes of the head.
    pub head_bytes: &'static [u8],
    /// The length of the file.
    pub length: u64,
    /// What the bytes of the head say.
    head: Head<'static>,
}

impl Image {
    /// Reads the head of the file at `path`.
    pub fn open(path: &'static CStr) -> Self {
        let failed = |why: &dyn fmt::Display| -> ! {
            fail(format_args!("{}: {why}", Escaped(path.to_bytes())))
        };
        // A FIFO, which is no image, must not keep us waiting.
        let flags = O_CLOEXEC | O_NONBLOCK;
        let fd = call::openat(path, flags, 0)
            .and_then(beyond_standard_streams)
            .unwrap_or_else(|errno| failed(&errno));
        let length = match call::fstat(fd) {
            Ok(status) if status.st_mode & S_IFMT == S_IFREG => status.st_size as u64,
            Ok(_) => failed(&"is not a regular file, and so no checkpoint image"),
            Err(errno) => failed(&errno),
        };
        let mut prefix = [0; PREFIX];
        let read = read_at(fd, &mut prefix, 0).unwrap_or_else(|errno| failed(&errno));
        let head_length = Head::length(&prefix[..read]).unwrap_or_else(|why| failed(&why));
        match Head::machine_of(&prefix[..read]) {
            Ok(ELF_MACHINE) => {}
            Ok(other) => failed(&format_args!("{}, and this is {NAME}", Invalid::Foreign(other))),
            Err(why) => failed(&why),
        }
        if head_length > length {
            failed(&Invalid::Truncated(head_length));
        }
        let flags = MAP_PRIVATE | MAP_ANONYMOUS;
        // SAFETY: a new mapping where the kernel likes.
        let room = unsafe { call::mmap(0, head_length, PROT_READ | PROT_WRITE, flags, None, 0) }
            .unwrap_or_else(|errno| failed(&errno));
        // SAFETY: it is that long and nobody else's.
        let head_bytes =
            unsafe { core::slice::from_raw_parts_mut(room as *mut u8, head_length as usize) };
        match read_at(fd, head_bytes, 0) {
            Ok(read) if read == head_bytes.len() => {}
            Ok(_) => failed(&Invalid::Truncated(head_length)),
            Err(errno) => failed(&errno),
        }
        match Head::parse(head_bytes, length) {
            Ok(head) => {
                let image = Self { path, fd, head_bytes, length, head };
                image.check_padding(&head);
                image
            }
            Err(why) => failed(&why),
        }
    }

    /// The same image, whose path and the bytes of whose head are now elsewhere in memory.
    pub fn moved_to(&self, path: &'static CStr, head_bytes: &'static [u8]) -> Self {
        let head = Head::parse(head_bytes, self.length).unwrap_or_else(|why| self.fail(&why));
        Self { path, head_bytes, head, ..*self }
    }

    /// Refuses anything but zeros between the head and the pages.
    fn check_padding(&self, head: &Head<'_>) {
        let mut padding = head.padding();
        while !padding.is_empty() {
            let mut buffer = [0; 512];
            let some = &mut buffer[..(padding.end - padding.start).min(512) as usize];
            self.read(some, padding.start);
            if some.iter().any(|&byte| byte != 0) {
                self.fail(&Invalid::Checksum);
            }
            padding.start += some.len() as u64;
        }
    }

    /// The head.
    pub fn head(&self) -> Head<'static> {
        self.head
    }

    /// Ends the process with a line that names the image.
    pub fn fail(&self, why: &dyn fmt::Display) -> ! {
        fail(format_args!("{}: {why}", Escaped(self.path.to_bytes())))
    }

    /// Refuses an image that cannot be restarted here: another page size, CPU, other files.
    pub fn check(&self, changed: Changed) {
        let head = self.head();
        let page_size = proc::page_size();
        let (process, _) = head.process();
        if u64::from(process.page_size) != page_size {
            self.fail(&format_args!(
                "was taken with pages of {} bytes, and here they have {page_size}: restart it on a \
                 kernel like the first",
                process.page_size
            ));
        }
        let (user, _) = call::user_and_group();
        if process.user != user {
            note(format_args!(
                "the program ran as user {}, and goes on as user {user}",
                process.user
            ));
        }
        self.check_registers(&head);
        memory::check(self, &head);
        semaphores::check(self, &head);
        messages::check(self, &head);
        threads::check(self);
        signals::check(self);
        files::check(self, &head, changed);
    }

    /// Refuses registers that this CPU does not have, or keeps otherwise: the kernel would restore none
    /// or but some of them.
    fn check_registers(&self, head: &Head<'_>) {
        let saved = head.note(kind::CPU).ok().and_then(CpuState::from_bytes);
        let mut saved = saved.unwrap_or_else(|| self.fail(&Invalid::Damaged));
        let doubt = saved.adopt();
        if let Err(what) = saved.fits(&CpuState::of_this_cpu(proc::capabilities())) {
            self.fail(&format_args!(
                "its {what} do not fit this CPU: restart it on one like the first"
            ));
        }
        if let Some(doubt) = doubt {
            note(format_args!("{doubt}"));
        }
    }

    /// The records of our note of type `kind`.
    pub fn records<T: bytemuck::Pod>(
        &self,
        head: &Head<'static>,
        kind: u32,
    ) -> impl Iterator<Item = T> + Clone + use<T> {
        let note = head.note(kind).unwrap_or_else(|why| self.fail(&why));
        if !note.len().is_multiple_of(size_of::<T>()) {
            self.fail(&Invalid::Damaged);
        }
        record::all(note)
    }

    /// Whether a mapping of the image holds `length` bytes at `address`.
    pub fn has_memory(&self, address: u64, length: u64) -> bool {
        let mut mappings = self.head.mappings().into_iter().flatten();
        mappings.any(|(mapping, _)| {
            mapping.start <= address && address.saturating_add(length) <= mapping.end
        })
    }

    /// Reads stored bytes; the end of the file is an error.
    pub fn read(&self, buffer: &mut [u8], offset: u64) {
        match read_at(self.fd, buffer, offset) {
            Ok(read) if read == buffer.len() => {}
            Ok(_) => self.fail(&Invalid::Truncated(self.length)),
            Err(errno) => self.fail(&errno),
        }
    }
}

/// Moves a descriptor out of the way of the standard streams: one of them may be closed, and must
/// stay so.
fn beyond_standard_streams(fd: Fd) -> Result<Fd, Errno> {
    const FIRST: u32 = 3;
    let moved = call::fcntl(fd, F_DUPFD_CLOEXEC, FIRST).map(|moved| Fd(moved as i32));
    call::close(fd);
    moved
}

/// Reads until the buffer is full or the file ends; returns how much.
pub fn read_at(fd: Fd, buffer: &mut [u8], offset: u64) -> Result<usize, Errno> {
    let mut done = 0;
    while done < buffer.len() {
        let rest = &mut buffer[done..];
        // SAFETY: the bytes are those of `rest`.
        match unsafe { call::pread(fd, rest.as_mut_ptr(), rest.len(), offset + done as u64)? } {
            0 => break,
            read => done += read,
        }
    }
    Ok(done)
}
