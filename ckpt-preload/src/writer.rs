//! The image file: written under a temporary name, complete and checked, then renamed. At every
//! instant there is either the old image or the new one.

use core::cell::UnsafeCell;
use core::ffi::CStr;
use core::fmt::Write;
use core::ops::Range;

use bytemuck::bytes_of;
use ckpt_arch::ELF_MACHINE;
use ckpt_image::files::{Extent, FileContents};
use ckpt_image::record::{self, Checksums, Process, WithTail, first, kind};
use ckpt_image::{Checksum, FileHeader, Head, NoteWriter, PREFIX, ProgramHeader, layout_of_head};
use ckpt_sys::call::{self, Fd, File};
use ckpt_sys::proc::{self, Stat};
use ckpt_sys::{Errno, Line};
use linux_raw_sys::general::{
    O_CREAT, O_DIRECTORY, O_EXCL, O_NOFOLLOW, O_NONBLOCK, O_RDWR, RLIMIT_FSIZE, S_IFMT, S_IFREG,
};

use crate::config::{PATH, config};
use crate::files::Reader;
use crate::report::{Failure, OrReport, not_written};

/// A path, ended by a NUL.
type Path = Line<PATH>;

/// The path of the image that is being written, for messages.
struct Target(UnsafeCell<Path>);
// SAFETY: written and read by the handler alone, which does not run twice at a time.
unsafe impl Sync for Target {}

static TARGET: Target = Target(UnsafeCell::new(Path::new()));

/// The path of the image that is being written.
pub fn target() -> &'static [u8] {
    // SAFETY: see `Target`; `set_target` is not called while a message is written.
    let path = unsafe { &*TARGET.0.get() };
    record::text(path.as_bytes())
}

/// Finds out where the image is to be: the configured path with the pid for each `%p`.
pub fn set_target() {
    // SAFETY: as in `target`.
    let path = unsafe { &mut *TARGET.0.get() };
    *path = Path::new();
    let mut rest = config().file();
    while let Some(at) = rest.windows(2).position(|pair| pair == b"%p") {
        path.push(&rest[..at]);
        let _ = write!(path, "{}", call::getpid());
        rest = &rest[at + 2..];
    }
    path.push(rest);
    path.push(b"\0");
}

/// The target, followed by what `suffix` says, as a path.
fn path(suffix: core::fmt::Arguments<'_>) -> Path {
    let mut path = Path::new();
    path.push(target());
    let _ = write!(path, "{suffix}\0");
    path
}

/// Refuses to replace what is not ours to replace: a file that is no image, or the image of another
/// process that is alive.
pub fn check_target() -> Result<(), Failure> {
    let step = format_args!("looking at what is there");
    let target = path(format_args!(""));
    // A FIFO must not keep the program waiting.
    let file = match File::open(target.as_path(), O_NONBLOCK) {
        Err(Errno::ENOENT) => return Ok(()),
        file => file.or_report(step)?,
    };
    let status = call::fstat(file.fd()).or_report(step)?;
    let regular = status.st_mode & S_IFMT == S_IFREG;
    if regular && status.st_size == 0 {
        return Ok(());
    }
    let process = if regular { process_of_image(&file) } else { None };
    let Some(process) = process else {
        return Err(not_written(format_args!(
            "what is there is not a checkpoint image; move it away, or set CKPT_FILE"
        )));
    };
    let alive = process.pid != call::getpid()
        && process.boot_id == proc::boot_id()
        && Stat::of(process.pid).is_ok_and(|stat| {
            stat.field(Stat::START_TIME) == process.start_time
                && stat.field(Stat::ADDRESS_SPACE) > 0
        });
    if alive {
        return Err(not_written(format_args!(
            "it is the image of process {}, which is alive; set CKPT_FILE to a name with %p, which \
             stands for the process id",
            process.pid
        )));
    }
    Ok(())
}

/// Whose image a file is, if it is one.
fn process_of_image(file: &File) -> Option<Process> {
    let mut prefix = [0; PREFIX];
    let read = call::read(file.fd(), &mut prefix).ok()?;
    let at = Head::first_note(&prefix[..read]).ok()?;
    let mut note = [0; 64 + size_of::<Process>()];
    call::lseek(file.fd(), at as i64, 0).ok()?;
    let read = call::read(file.fd(), &mut note).ok()?;
    Head::process_in(&note[..read]).ok()
}

/// What the image is made of.
pub struct Contents<'c> {
    /// All notes but the checksums.
    pub notes: NoteWriter<'c>,
    /// Where among them the records of file contents are, which have no offset and no checksum yet.
    pub files: Range<usize>,
    /// The program headers of the segments, without their offsets.
    pub headers: &'c mut [ProgramHeader],
    /// Room for as many checksums.
    pub checksums: &'c mut [u64],
    /// Room for pages on their way.
    pub pages: &'c mut [u8],
}

/// Writes the image.
pub fn write(contents: Contents<'_>) -> Result<u64, Failure> {
    let temporary = path(format_args!(".{}.tmp", call::getpid()));
    let result = write_as(temporary.as_path(), contents);
    if result.is_err() {
        let _ = call::unlink(temporary.as_path());
    }
    result
}

fn write_as(temporary: &CStr, contents: Contents<'_>) -> Result<u64, Failure> {
    let step = format_args!("creating a file beside it");
    let flags = O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW;
    let fd = match call::openat(temporary, flags, 0o600) {
        // Left by a process of this number that was killed while it wrote.
        Err(Errno::EEXIST) => {
            call::unlink(temporary).or_report(step)?;
            call::openat(temporary, flags, 0o600).or_report(step)?
        }
        fd => fd.or_report(step)?,
    };
    let file = Output { file: File::from_fd(fd), limit: size_limit() };
    let length = file.write_contents(contents)?;
    call::fsync(file.file.fd()).or_report(format_args!("writing it to the disk"))?;

    let target = path(format_args!(""));
    call::rename(temporary, target.as_path()).or_report(format_args!("giving it its name"))?;
    sync_directory();
    Ok(length)
}

/// Lets the new name reach the disk, too. Some file systems cannot, and the image is there already.
fn sync_directory() {
    let end = target().iter().rposition(|&byte| byte == b'/').unwrap_or(0);
    let mut directory = Path::new();
    directory.push(&target()[..end]);
    directory.push(b"/\0");
    if let Ok(directory) = File::open(directory.as_path(), O_DIRECTORY) {
        let _ = call::fsync(directory.fd());
    }
}

/// How long a file may become. To write beyond it would not only fail, but leave a signal behind.
fn size_limit() -> u64 {
    call::prlimit(RLIMIT_FSIZE, None).map_or(u64::MAX, |limit| limit.rlim_cur)
}

/// The file that is being written.
struct Output {
    file: File,
    limit: u64,
}

impl Output {
    /// Writes everything; returns the length of the file.
    fn write_contents(&self, contents: Contents<'_>) -> Result<u64, Failure> {
        let Contents { mut notes, files, headers, checksums, pages } = contents;
        let page_size = config().page_size;
        let count = headers.len() as u32;

        // The notes end with the checksums, for which there are only zeros yet.
        let sums = Checksums { algorithm: Checksums::XXH3, count, head: 0 };
        notes.begin(record::NAME, kind::CHECKSUMS)?;
        notes.push(bytes_of(&sums))?;
        notes.push(bytemuck::cast_slice(checksums))?;
        notes.end()?;
        let notes = notes.into_bytes();

        let (notes_start, mut position) = layout_of_head(count + 1, notes.len() as u64, page_size);
        let memory =
            File::open(c"/proc/thread-self/mem", 0).or_report(format_args!("opening memory"))?;
        for (header, checksum) in headers.iter_mut().zip(&mut *checksums) {
            header.offset = position;
            header.alignment = page_size;
            *checksum = self.write_segment(&memory, header, pages)?;
            position += header.file_size;
        }
        let mut at = files.start;
        while let Ok((mut file, rest)) = first::<FileContents>(&notes[at..files.end]) {
            file.offset = position;
            file.checksum = self.write_file(&file, &rest[..file.tail_length()], pages)?;
            notes[at..at + size_of_val(&file)].copy_from_slice(bytes_of(&file));
            at += size_of_val(&file) + file.tail_length();
            position += file.stored.next_multiple_of(page_size);
        }
        // Pages of zeros at the very end leave it too short.
        self.check_limit(position)?;
        call::ftruncate(self.file.fd(), position).or_report(format_args!("writing it"))?;

        let at = notes.len() - size_of_val(checksums);
        notes[at..].copy_from_slice(bytemuck::cast_slice(checksums));
        let (file_header, section) = FileHeader::new(ELF_MACHINE, count + 1);
        let notes_header = ProgramHeader::of_notes(notes_start, notes.len() as u64);
        let start: [&[u8]; 4] = [
            bytes_of(&file_header),
            section.as_ref().map_or(&[], bytes_of),
            bytes_of(&notes_header),
            bytemuck::cast_slice(headers),
        ];
        let mut sum = Checksum::new();
        start.iter().for_each(|part| sum.update(part));
        sum.update(notes);
        notes[at - size_of::<u64>()..at].copy_from_slice(&sum.value().to_le_bytes());

        let mut offset = 0;
        for part in start.into_iter().chain([&*notes]) {
            self.write_at(part, offset)?;
            offset += part.len() as u64;
        }
        Ok(position)
    }

    /// Writes the stored pages of a segment; returns their checksum.
    fn write_segment(
        &self,
        memory: &File,
        segment: &ProgramHeader,
        buffer: &mut [u8],
    ) -> Result<u64, Failure> {
        let page_size = config().page_size as usize;
        let mut sum = Checksum::new();
        let mut done = 0;
        while done < segment.file_size {
            let length = (segment.file_size - done).min(buffer.len() as u64) as usize;
            let chunk = &mut buffer[..length];
            let address = segment.virtual_address + done;
            let readable = segment.flags & READABLE != 0;
            read_memory(memory.fd(), address, chunk, page_size, readable)?;
            sum.update(chunk);
            self.write_sparsely(chunk, segment.offset + done)?;
            done += length as u64;
        }
        Ok(sum.value())
    }

    /// Writes the extents of an open file; returns their checksum.
    fn write_file(
        &self,
        file: &FileContents,
        extents: &[u8],
        buffer: &mut [u8],
    ) -> Result<u64, Failure> {
        let step = format_args!("reading the file of descriptor {}", file.fd);
        let from = Reader::of(Fd(file.fd)).or_report(step)?;
        let mut sum = Checksum::new();
        let mut position = file.offset;
        for Extent { start, length } in record::all(extents) {
            let mut done = 0;
            while done < length {
                let wanted = (length - done).min(buffer.len() as u64) as usize;
                // SAFETY: the bytes are those of the buffer.
                let read =
                    unsafe { call::pread(from.fd(), buffer.as_mut_ptr(), wanted, start + done) };
                let chunk = match read.or_report(step)? {
                    0 => return Err(Errno::EIO).or_report(step),
                    read => &buffer[..read],
                };
                sum.update(chunk);
                self.write_sparsely(chunk, position)?;
                done += chunk.len() as u64;
                position += chunk.len() as u64;
            }
        }
        Ok(sum.value())
    }

    /// Writes `chunk`, but its pages of zeros, which become holes.
    fn write_sparsely(&self, chunk: &[u8], offset: u64) -> Result<(), Failure> {
        let page_size = config().page_size as usize;
        let mut at = 0;
        let end_of_page = |at: usize| (at + page_size).min(chunk.len());
        while at < chunk.len() {
            let is_zero = |at: usize| is_zero(&chunk[at..end_of_page(at)]);
            let zero = is_zero(at);
            let mut end = end_of_page(at);
            while end < chunk.len() && is_zero(end) == zero {
                end = end_of_page(end);
            }
            if !zero {
                self.write_at(&chunk[at..end], offset + at as u64)?;
            }
            at = end;
        }
        Ok(())
    }

    /// Refuses to let the file become longer than it may.
    fn check_limit(&self, length: u64) -> Result<(), Failure> {
        if length <= self.limit {
            return Ok(());
        }
        Err(Errno::EFBIG).or_report(format_args!(
            "writing it (the limit on the size of a file is {} bytes)",
            self.limit
        ))
    }

    /// Writes all of `bytes`.
    fn write_at(&self, bytes: &[u8], offset: u64) -> Result<(), Failure> {
        self.check_limit(offset + bytes.len() as u64)?;
        let mut written = 0;
        while written < bytes.len() {
            let rest = &bytes[written..];
            let offset = offset + written as u64;
            written += call::pwrite(self.file.fd(), rest.as_ptr(), rest.len(), offset)
                .or_report(format_args!("writing it"))?;
        }
        Ok(())
    }
}

/// Whether a page holds nothing but zeros. Looks at 64 bytes at a time, without a branch for each.
fn is_zero(page: &[u8]) -> bool {
    page.chunks(64).all(|block| block.iter().fold(0, |all, byte| all | byte) == 0)
}

/// The flag of a segment whose memory the program may read (`PF_R`).
const READABLE: u32 = 4;

/// Reads memory of this process, whatever its protection. Pages that nobody can read although the
/// program may, such as those behind the end of a file, read as zeros.
fn read_memory(
    memory: Fd,
    address: u64,
    buffer: &mut [u8],
    page_size: usize,
    readable: bool,
) -> Result<(), Failure> {
    let mut done = 0;
    while done < buffer.len() {
        let rest = &mut buffer[done..];
        // SAFETY: the bytes are those of `rest`.
        let read =
            unsafe { call::pread(memory, rest.as_mut_ptr(), rest.len(), address + done as u64) };
        match read {
            Ok(read) if read > 0 => done += read,
            Ok(_) | Err(Errno::EIO | Errno::EFAULT) if readable => {
                rest[..page_size].fill(0);
                done += page_size;
            }
            result => {
                let at = address + done as u64;
                return Err(result.err().unwrap_or(Errno::EIO))
                    .or_report(format_args!("reading the memory at {at:x}"));
            }
        }
    }
    Ok(())
}
