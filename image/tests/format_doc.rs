//! Compares the tables of `docs/format.md` with the structures they describe, so that neither can
//! change without the other.

use bytemuck::Zeroable;
use ckpt_image::files::{
    Connection, Descriptor, EventCounter, Extent, FileContents, FileTimer, Lock, Message, Pipe,
    PseudoTerminal, Queue, QueueMessage, Socket, SocketMessage, SocketOption, Terminal, Watch,
    WatchQueue, Watched, descriptor, lock, phase,
};
use ckpt_image::record::{
    Attributes, Checksums, Clocks, Disposition, IntervalTimer, Layout, Mapping, MessageQueue,
    PRCTLS, Pending, Process, Range, Segment, Semaphore, SemaphoreSet, Session, Thread, Timer,
    kind, mapping,
};
use ckpt_image::{FileHeader, PREFIX, ProgramHeader, SectionHeader, VERSION, VmFlags};

/// The document.
fn document() -> String {
    // Where the test runs may be another machine than where it was built.
    let package = std::env::var("CARGO_MANIFEST_DIR").expect("cargo sets CARGO_MANIFEST_DIR");
    let path = std::path::Path::new(&package).join("../docs/format.md");
    std::fs::read_to_string(path).expect("docs/format.md")
}

/// The part of the document below the heading that ends with `title`, up to the next heading.
fn section(document: &str, title: &str) -> String {
    let is_title = |line: &&str| line.starts_with('#') && line.ends_with(title);
    let mut lines = document.lines().skip_while(|line| !is_title(line));
    lines.next().unwrap_or_else(|| panic!("no heading {title:?} in docs/format.md"));
    lines.take_while(|line| !line.starts_with('#')).map(|line| format!("{line}\n")).collect()
}

/// The rows of the table whose first columns are named `columns`, without the marks of code.
fn table(text: &str, columns: &str) -> Vec<Vec<String>> {
    let mut lines = text.lines().skip_while(|line| !line.starts_with(columns));
    assert!(lines.next().is_some(), "no table {columns:?} in {text}");
    let rows = lines.skip(1).take_while(|line| line.starts_with('|'));
    let cell = |cell: &str| cell.trim().trim_matches('`').to_owned();
    rows.map(|row| row.trim_matches('|').split('|').map(cell).collect()).collect()
}

/// Checks that the table of a structure has exactly its fields, with their offsets and sizes.
macro_rules! describes {
    ($document:expr, $structure:ident [$($field:ident)*]) => {
        // Fails to compile if a field is missing here.
        let $structure { $($field: _),* } = $structure::zeroed();
        let value = $structure::zeroed();
        let fields = [$((
            std::mem::offset_of!($structure, $field).to_string(),
            size_of_val(&value.$field).to_string(),
            stringify!($field).to_owned(),
        )),*];
        let title = concat!("`", stringify!($structure), "`");
        let rows = table(&section($document, title), "| offset | size | field |");
        let described: Vec<_> =
            rows.iter().map(|row| (row[0].clone(), row[1].clone(), row[2].clone())).collect();
        assert_eq!(described, fields, "{title}");
    };
}

#[test]
fn structures() {
    let text = &document();
    describes!(text, FileHeader [
        ident kind machine version entry program_headers section_headers flags size
        program_header_size program_header_count section_header_size section_header_count
        section_names
    ]);
    describes!(text, SectionHeader [
        name kind flags address offset size link info alignment entry_size
    ]);
    describes!(text, ProgramHeader [
        kind flags offset virtual_address physical_address file_size memory_size alignment
    ]);
    describes!(text, Process [
        version page_size pid parent user group start_time boot_id taken_at monotonic kernel host
    ]);
    describes!(text, Mapping [
        start end offset device inode flags page_size file_size file_mtime file_mtime_nsec
        protection kind stored name_length swapped
    ]);
    describes!(text, Layout [
        start_code end_code start_data end_data start_brk brk start_stack arg_start arg_end
        env_start env_end
    ]);
    describes!(text, Thread [
        tid libc resume context frame thread_pointer second_pointer tid_address tid_cache
        held_mutexes robust_list robust_list_length rseq rseq_length rseq_signature vectors name nice
        io_priority scheduling_policy scheduling_priority scheduling_flags timer_slack
        affinity_length
    ]);
    describes!(text, Disposition [
        handler flags restorer mask
    ]);
    describes!(text, Pending [
        signal to_thread info
    ]);
    describes!(text, IntervalTimer [
        remaining interval
    ]);
    describes!(text, Timer [
        id clock signal notify value remaining interval overdue thread
    ]);
    describes!(text, Descriptor [
        fd kind flags shares offset size device inode name_length mtime_nsec mtime tail owner
        owner_kind signal asynchronous passed state_length
    ]);
    describes!(text, Lock [kind exclusive start length]);
    describes!(text, Pipe [capacity packets]);
    describes!(text, Message[length]);
    describes!(text, EventCounter [count semaphore]);
    describes!(text, FileTimer [clock flags next interval ticks]);
    describes!(text, Watched [fd through data events reserved]);
    describes!(text, Socket [
        family kind protocol phase peer backlog shutdown ending mode options_length local_length
        remote_length local remote
    ]);
    describes!(text, Connection [
        next_sent next_received options send_scale receive_scale segment timestamp send_window
        largest_window receive_window window_start send_buffer receive_buffer
    ]);
    describes!(text, SocketOption [level name length reserved]);
    describes!(text, SocketMessage [length pid user group passed]);
    describes!(text, WatchQueue[unread]);
    describes!(text, Watch [number mask name_length reserved]);
    describes!(text, FileContents [fd mode user group seals extents offset stored checksum]);
    describes!(text, Extent [start length]);
    describes!(text, Queue [most longest mode user group reserved]);
    describes!(text, QueueMessage [length priority]);
    describes!(text, SemaphoreSet [id key mode user group operated count reserved]);
    describes!(text, Semaphore [value adjustment used]);
    describes!(text, MessageQueue [id key mode user group reserved room length]);
    describes!(text, Segment [id key size mode user group reserved]);
    describes!(text, Terminal [
        input output control local discipline keys input_speed output_speed rows columns width height
        device
    ]);
    describes!(text, PseudoTerminal [packets locked exclusive closed]);
    describes!(text, Attributes [
        limits umask personality prctls core_dump_filter oom_score_adjustment
    ]);
    describes!(text, Clocks [
        boottime monotonic_offset boottime_offset
    ]);
    describes!(text, Session [group session terminal foreground]);
    describes!(text, Range [
        start end
    ]);
    describes!(text, Checksums [
        algorithm count head
    ]);
}

/// Checks that a table of names and numbers holds exactly the given constants of a module.
macro_rules! names {
    ($text:expr, $columns:literal, $module:ident [$($name:ident)*], $format:literal) => {
        let constants = [$((stringify!($name).to_owned(), format!($format, $module::$name))),*];
        let rows = table($text, $columns);
        let described: Vec<_> = rows.iter().map(|row| (row[0].clone(), row[1].clone())).collect();
        assert_eq!(described, constants);
    };
}

#[test]
fn numbers() {
    let text = &document();
    let notes = &section(text, "Our notes");
    names!(notes, "| type | number |", kind [
        PROCESS MAPPINGS LAYOUT THREADS DISPOSITIONS PENDING INTERVAL_TIMERS TIMERS DESCRIPTORS
        ATTRIBUTES CPU GUARDS CHECKSUMS CLOCKS FILE_CONTENTS SEGMENTS SESSION SEMAPHORES
        MESSAGES
    ], "{:#x}");
    let mappings = &section(text, "`Mapping`");
    names!(mappings, "| kind | number |", mapping [
        ANONYMOUS FILE SHARED_ANONYMOUS MEMFD VDSO VVAR SCRATCH DELETED SEGMENT
    ], "{}");
    names!(mappings, "| stored | number |", mapping [
        STORED_NOTHING STORED_WHOLE STORED_CHANGES
    ], "{}");
    names!(&section(text, "`Descriptor`"), "| kind | number |", descriptor [
        REGULAR DIRECTORY DEVICE INHERITED FAILING PIPE FIFO EVENT_COUNTER TIMER SIGNALS EPOLL PROCESS
        DELETED SOCKET TERMINAL PSEUDO_TERMINAL OWN_TERMINAL INOTIFY PLACE KERNEL MEMFD SHARED_MEMORY
        MESSAGE_QUEUE
    ], "{}");
    names!(&section(text, "`Socket`"), "| phase | number |", phase [
        OPEN LISTENING DIRECTED PAIRED CLOSED ESTABLISHED
    ], "{}");
    names!(&section(text, "`Lock`"), "| kind | number |", lock [
        POSIX OPEN_FILE WHOLE LEASE
    ], "{}");
    let prctls = table(&section(text, "`Attributes`"), "| prctls | option |");
    let described: Vec<_> = prctls.iter().map(|row| (row[0].clone(), row[1].clone())).collect();
    let known = PRCTLS.iter().enumerate().map(|(at, p)| (at.to_string(), p.get.to_string()));
    assert_eq!(described, known.collect::<Vec<_>>());
}

#[test]
fn flags() {
    let text = document();
    let rows = table(&section(&text, "`Mapping`"), "| bit | flag |");
    for (bit, row) in rows.iter().enumerate() {
        assert_eq!((&row[0], &row[1]), (&bit.to_string(), &VmFlags(1 << bit).to_string()));
    }
    let next = VmFlags(1 << rows.len());
    assert_eq!(next.to_string(), "", "a flag that docs/format.md does not have");
}

#[test]
fn what_is_said_in_words() {
    let text = document();
    assert!(text.starts_with(&format!("# The image format, version {VERSION}\n")));
    assert!(text.contains(&format!("from the first {PREFIX} bytes of the file")));
    // The title of each of our notes has its number, and the table of notes the same.
    for row in table(&section(&text, "Our notes"), "| type | number |") {
        let title = format!("### {} ({})", row[0], row[1]);
        assert!(text.lines().any(|line| line.starts_with(&title)), "no {title:?}");
    }
}
