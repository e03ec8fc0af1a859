//! The process: who it is, what else the kernel keeps of it, and the notes of any core file.

use bytemuck::{Pod, Zeroable, bytes_of};
use ckpt_arch::{CpuState, REGISTERS, SignalFrame, ThreadPointers};
use ckpt_image::record::{
    self, Attributes, Clocks, Mapping, PRCTLS, Process, Session, Thread, all_with_tails, kind,
    mapping,
};
use ckpt_image::{NoteWriter, VERSION};
use ckpt_sys::lines::number;
use ckpt_sys::proc::{CORE_DUMP_FILTER, OOM_SCORE_ADJUSTMENT, Stat};
use ckpt_sys::{Errno, call, proc};
use linux_raw_sys::auxvec::AT_ENTRY;
use linux_raw_sys::elf_uapi::{NT_AUXV, NT_FILE, NT_PRPSINFO, NT_PRSTATUS, NT_SIGINFO};
use linux_raw_sys::general::{
    CLOCK_BOOTTIME, CLOCK_MONOTONIC, CLOCK_REALTIME, RLIM_NLIMITS, rlimit64, siginfo_t,
};

use crate::config::{PATH, config};
use crate::handler::Request;
use crate::report::{Failure, OrReport, not_written};
use crate::{limits, threads};

/// The name of the standard notes.
const CORE: &str = "CORE";

/// `struct elf_prstatus` (include/linux/elfcore.h) up to the registers.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct ThreadStatus {
    signal: i32,
    code: i32,
    errno: i32,
    current_signal: u32,
    pending: u64,
    blocked: u64,
    pid: u32,
    parent: u32,
    group: u32,
    session: u32,
    times: [u64; 8],
}
const _: () = assert!(size_of::<ThreadStatus>() == 112);

/// `struct elf_prpsinfo` (include/linux/elfcore.h).
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct ProcessInfo {
    state: u8,
    state_letter: u8,
    zombie: u8,
    nice: i8,
    padding: [u8; 4],
    flags: u64,
    user: u32,
    group: u32,
    pid: u32,
    parent: u32,
    process_group: u32,
    session: u32,
    name: [u8; 16],
    arguments: [u8; 80],
}
const _: () = assert!(size_of::<ProcessInfo>() == 136);

/// Notes the registers of the threads and all that a debugger expects of a core file. The first
/// thread, which is the one that a debugger shows, is this one: `own`.
pub fn capture_core(
    notes: &mut NoteWriter<'_>,
    request: &Request,
    own: &Thread,
    mappings: &[u8],
    text: &mut [u8],
) -> Result<(), Failure> {
    // SAFETY: the kernel has put it on the program's stack, and nobody changes it.
    let info = unsafe { &*request.info.cast::<[u8; size_of::<siginfo_t>()]>() };
    let stat = Stat::own().or_report(format_args!("reading /proc/self/stat"))?;
    let id = |field| stat.field(field) as u32;
    let (parent, group, session) = (id(4), id(5), id(6));
    let status = ThreadStatus {
        signal: config().signal as i32,
        current_signal: config().signal,
        parent,
        group,
        session,
        ..Zeroable::zeroed()
    };
    // SAFETY: the kernel has put them on the program's stacks, and nobody changes them.
    let frame_of = |thread: &Thread| unsafe { &*(thread.frame as *const SignalFrame) };
    let mut cpu = CpuState::of_frame(frame_of(own), proc::capabilities());

    capture_status(notes, own, frame_of(own), &status)?;
    let (user, user_group) = call::user_and_group();
    let mut process = ProcessInfo {
        state_letter: b'R',
        nice: own.nice as i8,
        user,
        group: user_group,
        pid: call::getpid(),
        parent,
        process_group: group,
        session,
        name: own.name,
        ..Zeroable::zeroed()
    };
    copy_arguments(&mut process.arguments, text);
    notes.note(CORE, NT_PRPSINFO, &[bytes_of(&process)])?;

    notes.note(CORE, NT_SIGINFO, &[info])?;
    let vector = proc::read_file(c"/proc/thread-self/auxv", text)
        .or_report(format_args!("reading /proc/thread-self/auxv"))?;
    notes.note(CORE, NT_AUXV, &[vector])?;
    capture_file_note(notes, mappings)?;
    capture_registers(notes, own, frame_of(own), &cpu)?;
    for thread in threads::parked().filter_map(|(_, parked)| parked.thread.as_ref().ok()) {
        cpu.include(frame_of(thread));
        capture_status(notes, thread, frame_of(thread), &status)?;
        capture_registers(notes, thread, frame_of(thread), &cpu)?;
    }
    notes.note(record::NAME, kind::CPU, &[cpu.as_bytes()])?;
    Ok(())
}

/// NT_PRSTATUS of a thread; `common` is what it has in common with the others.
fn capture_status(
    notes: &mut NoteWriter<'_>,
    thread: &Thread,
    frame: &SignalFrame,
    common: &ThreadStatus,
) -> Result<(), Failure> {
    let status = ThreadStatus { blocked: frame.mask, pid: thread.tid, ..*common };
    let pointers =
        ThreadPointers { thread_pointer: thread.thread_pointer, second: thread.second_pointer };
    let registers: [u64; REGISTERS] = frame.registers(pointers);
    let floating_point_valid = [1_u32, 0];
    notes.note(
        CORE,
        NT_PRSTATUS,
        &[bytes_of(&status), bytes_of(&registers), bytes_of(&floating_point_valid)],
    )?;
    Ok(())
}

/// The other registers of a thread, which belong to the NT_PRSTATUS before them.
fn capture_registers(
    notes: &mut NoteWriter<'_>,
    thread: &Thread,
    frame: &SignalFrame,
    cpu: &CpuState,
) -> Result<(), Failure> {
    let mut result = Ok(());
    frame.other_registers(cpu, thread.thread_pointer, |name, kind, parts| {
        if result.is_ok() {
            result = notes.note(name, kind, parts);
        }
    });
    Ok(result?)
}

/// NT_FILE: which file is mapped where. Counts and offsets are 64-bit words, the latter in pages;
/// then come the names, each ended by a NUL.
fn capture_file_note(notes: &mut NoteWriter<'_>, mappings: &[u8]) -> Result<(), Failure> {
    let page_size = config().page_size;
    let files =
        || all_with_tails::<Mapping>(mappings).filter(|(record, _)| record.kind == mapping::FILE);
    notes.begin(CORE, NT_FILE)?;
    notes.push(bytes_of(&[files().count() as u64, page_size]))?;
    for (record, _) in files() {
        notes.push(bytes_of(&[record.start, record.end, record.offset / page_size]))?;
    }
    for (_, name) in files() {
        notes.push(name)?;
        notes.push(&[0])?;
    }
    notes.end()?;
    Ok(())
}

/// Copies the beginning of the command line, blanks between the arguments.
fn copy_arguments(into: &mut [u8; 80], text: &mut [u8]) {
    let Ok(file) = call::File::open(c"/proc/thread-self/cmdline", 0) else { return };
    let read = call::read(file.fd(), text).unwrap_or(0);
    // The last byte stays a NUL, and so does the one that ends the command line.
    let length = read.saturating_sub(1).min(into.len() - 1);
    for (to, &from) in into.iter_mut().zip(&text[..length]) {
        *to = if from == 0 { b' ' } else { from };
    }
}

/// Notes who is checkpointed, when and where. It must be the first note.
pub fn capture_identity(notes: &mut NoteWriter<'_>, mappings: &[u8]) -> Result<(), Failure> {
    let stat = Stat::own().or_report(format_args!("reading /proc/self/stat"))?;
    let (user, group) = call::user_and_group();
    let mut process = Process {
        version: VERSION,
        page_size: config().page_size as u32,
        pid: call::getpid(),
        parent: call::getppid(),
        user,
        group,
        start_time: stat.field(Stat::START_TIME),
        boot_id: proc::boot_id(),
        taken_at: call::clock(CLOCK_REALTIME as i32),
        monotonic: call::clock(CLOCK_MONOTONIC as i32),
        ..Zeroable::zeroed()
    };
    if let Ok(names) = call::uname() {
        copy_name(&mut process.kernel, &names.release);
        copy_name(&mut process.host, &names.nodename);
    }
    notes.begin(record::NAME, kind::PROCESS)?;
    notes.push(bytes_of(&process))?;
    let mut buffer = [0; PATH];
    match program_file(mappings) {
        Some(path) => notes.push(path)?,
        None => notes.push(call::readlink(c"/proc/thread-self/exe", &mut buffer).unwrap_or(&[]))?,
    }
    notes.end()?;
    Ok(())
}

/// Notes the clocks that are not in the identity, and how far they are moved.
pub fn capture_clocks(notes: &mut NoteWriter<'_>) -> Result<(), Failure> {
    let offsets = proc::clock_offsets();
    let clocks = Clocks {
        boottime: call::clock(CLOCK_BOOTTIME as i32),
        monotonic_offset: offsets.monotonic,
        boottime_offset: offsets.boottime,
    };
    notes.note(record::NAME, kind::CLOCKS, &[bytes_of(&clocks)])?;
    Ok(())
}

/// Notes which process group and session it is in.
pub fn capture_session(notes: &mut NoteWriter<'_>) -> Result<(), Failure> {
    let stat = Stat::own().or_report(format_args!("reading /proc/self/stat"))?;
    let [group, session, terminal] = [5, 6, 7].map(|field| stat.field(field) as u32);
    let session = Session { group, session, terminal, foreground: stat.field(8) as i32 };
    notes.note(record::NAME, kind::SESSION, &[bytes_of(&session)])?;
    Ok(())
}

/// The file that is mapped where the program begins. `/proc/thread-self/exe` is another one after a
/// restart.
fn program_file(mappings: &[u8]) -> Option<&[u8]> {
    let entry = proc::auxiliary([AT_ENTRY])[0]?;
    all_with_tails::<Mapping>(mappings)
        .find(|(record, _)| {
            record.kind == mapping::FILE && (record.start..record.end).contains(&entry)
        })
        .map(|(_, name)| name)
}

/// Copies a name, cut so that a NUL remains.
fn copy_name(into: &mut [u8; 64], name: &[core::ffi::c_char; 65]) {
    for (to, &from) in into[..63].iter_mut().zip(name).take_while(|(_, from)| **from != 0) {
        *to = from as u8;
    }
}

/// Notes limits and the rest.
pub fn capture_attributes(notes: &mut NoteWriter<'_>, text: &mut [u8]) -> Result<(), Failure> {
    let status = proc::read_file(c"/proc/thread-self/status", text)
        .or_report(format_args!("reading /proc/thread-self/status"))?;
    let umask = proc::value_of(status, b"Umask").and_then(|value| number(value, 8));
    let mut attributes = Attributes {
        umask: umask.map_or_else(current_umask, |umask| umask as u32),
        personality: call::personality(u32::MAX).unwrap_or(0),
        core_dump_filter: proc::read_number(CORE_DUMP_FILTER, 16).unwrap_or(0) as u32,
        oom_score_adjustment: proc::read_number(OOM_SCORE_ADJUSTMENT, 10).unwrap_or(0) as i32,
        ..Zeroable::zeroed()
    };
    for (resource, limit) in (0..RLIM_NLIMITS).zip(&mut attributes.limits) {
        let rlimit64 { rlim_cur, rlim_max } = limits::of_program(resource)
            .or_report(format_args!("asking for resource limit {resource}"))?;
        *limit = [rlim_cur, rlim_max];
    }
    for (option, value) in PRCTLS.iter().zip(&mut attributes.prctls) {
        *value = call::prctl_read(option.get, option.through_pointer).unwrap_or(-1);
    }
    let mut buffer = [0; PATH];
    let directory = match call::getcwd(&mut buffer) {
        Err(Errno::ENOENT) => {
            return Err(not_written(format_args!(
                "the program's working directory has been removed, which cannot be restored"
            )));
        }
        directory => directory.or_report(format_args!("asking for the working directory"))?,
    };
    notes.begin(record::NAME, kind::ATTRIBUTES)?;
    notes.push(bytes_of(&attributes))?;
    notes.push(directory)?;
    notes.end()?;
    Ok(())
}

/// The umask, where `/proc` does not tell it (before Linux 4.7): it can only be asked for by setting
/// it.
fn current_umask() -> u32 {
    let umask = call::umask(0o077);
    call::umask(umask);
    umask
}
