//! The configuration: what the environment says, and what the constructor finds out once.

use core::cell::UnsafeCell;

use ckpt_sys::lines::{Lines, split_once};
use ckpt_sys::{Errno, call, signal_from_name};
use linux_raw_sys::general::{
    SIGBUS, SIGFPE, SIGILL, SIGKILL, SIGSEGV, SIGSTOP, SIGSYS, SIGTRAP, SIGUSR2,
};

use crate::scratch::Scratch;
use crate::thread::LibcRecord;
use crate::threads::STOP;

/// Bytes in the longest path (`PATH_MAX`).
pub const PATH: usize = 4096;

/// How much of file mappings goes into the image.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Content {
    /// Executables and libraries whole, of others what has changed.
    Code,
    /// Everything.
    All,
    /// What has changed.
    Changed,
}

/// The configuration.
pub struct Config {
    file: [u8; PATH],
    file_length: usize,
    /// The signal that asks for a checkpoint.
    pub signal: u32,
    /// Nanoseconds from one checkpoint to the next; 0 for none without being asked.
    pub interval: u64,
    /// Nanoseconds that the threads have to stop.
    pub stop_timeout: u64,
    /// Whether successes are reported, too.
    pub verbose: bool,
    /// Whether there is to be an image though a descriptor in it will fail.
    pub force: bool,
    /// How much of file mappings is stored.
    pub content: Content,
    /// Bytes in a page.
    pub page_size: u64,
    /// The scratch memory.
    pub scratch: Scratch,
    /// Where the C library keeps what it knows of a thread.
    pub libc: LibcRecord,
    /// `AT_RSEQ_FEATURE_SIZE`.
    pub rseq_features: u32,
}

struct Shared(UnsafeCell<Config>);
// SAFETY: written by the constructor, before there is a second thread; read afterwards.
unsafe impl Sync for Shared {}

static CONFIG: Shared = Shared(UnsafeCell::new(Config {
    file: [0; PATH],
    file_length: 0,
    signal: SIGUSR2,
    interval: 0,
    stop_timeout: 10_000_000_000,
    verbose: false,
    force: false,
    content: Content::Code,
    page_size: 0,
    scratch: Scratch::NONE,
    libc: LibcRecord::NONE,
    rseq_features: 0,
}));

/// The configuration of this process.
pub fn config() -> &'static Config {
    // SAFETY: see `Shared`.
    unsafe { &*CONFIG.0.get() }
}

/// The same, to be filled in.
///
/// # Safety
///
/// Only for the constructor, as long as it holds no other reference.
pub unsafe fn config_mut() -> &'static mut Config {
    // SAFETY: the caller's contract.
    unsafe { &mut *CONFIG.0.get() }
}

/// A variable whose value makes no sense: its name, and what would.
pub struct Unusable(pub &'static str, pub &'static str);

impl Config {
    /// The path of the image, with `%p` still in it.
    pub fn file(&self) -> &[u8] {
        &self.file[..self.file_length]
    }

    /// Takes in a variable of the environment, if it is one of ours.
    pub fn take(&mut self, name: &[u8], value: &[u8]) -> Result<(), Unusable> {
        match name {
            b"CKPT_FILE" => self.set_file(value)?,
            b"CKPT_SIGNAL" => {
                // The first two cannot be caught, the next are the program's own faults, and the last is
                // what threads are stopped by.
                const UNUSABLE: [u32; 9] =
                    [SIGKILL, SIGSTOP, SIGILL, SIGTRAP, SIGBUS, SIGFPE, SIGSEGV, SIGSYS, STOP];
                let usable = |signal: &u32| !UNUSABLE.contains(signal);
                self.signal = signal_from_name(value).filter(usable).ok_or(Unusable(
                    "CKPT_SIGNAL",
                    "a signal that programs can spare, as USR2, RTMIN+3 or 12",
                ))?;
            }
            b"CKPT_INTERVAL" => {
                self.interval = seconds(value).ok_or(Unusable(
                    "CKPT_INTERVAL",
                    "a number of seconds, at least 0.001, as 600 or 0.5",
                ))?;
            }
            b"CKPT_STOP_TIMEOUT" => {
                self.stop_timeout = seconds(value).ok_or(Unusable(
                    "CKPT_STOP_TIMEOUT",
                    "a number of seconds, at least 0.001, as 10 or 0.5",
                ))?;
            }
            b"CKPT_FORCE" => self.force = !matches!(value, b"" | b"0"),
            b"CKPT_VERBOSE" => self.verbose = !matches!(value, b"" | b"0"),
            b"CKPT_CONTENT" => {
                self.content = match value {
                    b"code" => Content::Code,
                    b"all" => Content::All,
                    b"changed" => Content::Changed,
                    _ => return Err(Unusable("CKPT_CONTENT", "code, all or changed")),
                };
            }
            _ => {}
        }
        Ok(())
    }

    /// Sets the path of the image: `%n` becomes the name of the program now, and a relative path
    /// one from the present directory.
    pub fn set_file(&mut self, pattern: &[u8]) -> Result<(), Unusable> {
        const UNUSABLE: Unusable =
            Unusable("CKPT_FILE", "the path of a file, of less than 4,000 bytes");
        if pattern.is_empty() || pattern.ends_with(b"/") {
            return Err(UNUSABLE);
        }
        let mut path = ckpt_sys::Line::<PATH>::new();
        if !pattern.starts_with(b"/") {
            let mut buffer = [0; PATH];
            let directory = call::getcwd(&mut buffer).map_err(|_| UNUSABLE)?;
            path.push(&directory[..directory.len() - 1]);
            path.push(b"/");
        }
        let mut rest = pattern;
        while let Some((before, behind)) = split_once(rest, b'%') {
            path.push(before);
            match behind.split_first() {
                Some((b'n', after)) => {
                    push_program_name(&mut path);
                    rest = after;
                }
                _ => {
                    path.push(b"%");
                    rest = behind;
                }
            }
        }
        path.push(rest);
        // Room for what %p becomes and for the suffix of the temporary file.
        if path.as_bytes().len() > PATH - 96 {
            return Err(UNUSABLE);
        }
        self.file_length = path.as_bytes().len();
        self.file[..self.file_length].copy_from_slice(path.as_bytes());
        Ok(())
    }
}

/// Appends the last component of the path of the executable.
fn push_program_name(path: &mut ckpt_sys::Line<PATH>) {
    let mut buffer = [0; PATH];
    if let Ok(executable) = call::readlink(c"/proc/thread-self/exe", &mut buffer) {
        path.push(executable.rsplit(|&byte| byte == b'/').next().unwrap_or(executable));
    }
}

/// Seconds, with at most nine digits behind the point, in nanoseconds; at least a millisecond.
fn seconds(text: &[u8]) -> Option<u64> {
    use ckpt_sys::lines::number;
    const BILLION: u64 = 1_000_000_000;
    let (whole, fraction) = split_once(text, b'.').unwrap_or((text, b"0"));
    let digits = u32::try_from(fraction.len()).ok().filter(|&digits| digits <= 9)?;
    let fraction = number(fraction, 10)? * 10_u64.pow(9 - digits);
    number(whole, 10)?
        .checked_mul(BILLION)?
        .checked_add(fraction)
        .filter(|&time| time >= BILLION / 1000)
}

/// Calls `each` with the name and value of every variable in the environment that a process was
/// started with: `path` is that of its `/proc/PID/environ`.
pub fn for_each_variable(
    path: &core::ffi::CStr,
    buffer: &mut [u8],
    mut each: impl FnMut(&[u8], &[u8]),
) -> Result<(), Errno> {
    let file = call::File::open(path, 0)?;
    let mut variables = Lines::new(file.fd(), buffer);
    while let Some(variable) = variables.next_ended_by(0)? {
        if let Some((name, value)) = split_once(variable, b'=') {
            each(name, value);
        }
    }
    Ok(())
}
