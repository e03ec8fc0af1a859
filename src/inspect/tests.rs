//! Images of every machine look alike, whichever this one is.

use std::mem::offset_of;

use bytemuck::{Zeroable, bytes_of};
use ckpt_image::record::{Attributes, Checksums, Mapping, NAME, Process, kind, mapping};
use ckpt_image::{Checksum, FileHeader, NoteWriter, ProgramHeader, VERSION, layout_of_head};

/// Where the one page is that the program has.
const ADDRESS: u64 = 0x7000_0000;

/// The image of a program with one page, which was checkpointed on `machine` with `registers`.
fn image(machine: u16, page_size: u32, registers: &[u64]) -> Vec<u8> {
    let page = vec![7; page_size as usize];
    let mut buffer = vec![0; 1 << 14];
    let mut writer = NoteWriter::new(&mut buffer);
    write_notes(&mut writer, page_size, registers).expect("enough room");
    let sums = Checksums { algorithm: Checksums::XXH3, count: 1, head: 0 };
    writer.begin(NAME, kind::CHECKSUMS).expect("enough room");
    writer.push_record(&sums, &sum(&page)).expect("enough room");
    let sum_of_head = writer.open_description().len();
    writer.end().expect("enough room");
    let notes = writer.into_bytes();

    let (notes_at, page_at) = layout_of_head(2, notes.len() as u64, page_size.into());
    let (file, _) = FileHeader::new(machine, 2);
    let size = page_size.into();
    let of_page =
        ProgramHeader { offset: page_at, ..ProgramHeader::of_memory(ADDRESS, size, size, 0) };
    let mut head = [
        bytes_of(&file),
        bytes_of(&ProgramHeader::of_notes(notes_at, notes.len() as u64)),
        bytes_of(&of_page),
        notes,
    ]
    .concat();
    let at = head.len() - sum_of_head + offset_of!(Checksums, head);
    let value = sum(&head);
    head[at..at + value.len()].copy_from_slice(&value);
    head.resize(page_at as usize, 0);
    [head, page].concat()
}

/// Writes all notes but the checksums.
fn write_notes(
    notes: &mut NoteWriter,
    page_size: u32,
    registers: &[u64],
) -> Result<(), ckpt_image::Full> {
    const NT_PRSTATUS: u32 = 1;
    const THREAD_ID: usize = 32; // in struct elf_prstatus
    const REGISTERS: usize = 112;
    let process = Process { version: VERSION, page_size, pid: 7, ..Process::zeroed() };
    notes.note(NAME, kind::PROCESS, &[bytes_of(&process), b"/bin/program\0"])?;
    let mut status = [0; REGISTERS];
    status[THREAD_ID] = 7;
    let registers = registers.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>();
    notes.note("CORE", NT_PRSTATUS, &[&status, &registers, &[0; 8]])?;
    let (start, end) = (ADDRESS, ADDRESS + u64::from(page_size));
    let memory = Mapping { start, end, kind: mapping::ANONYMOUS, ..Mapping::zeroed() };
    notes.note(NAME, kind::MAPPINGS, &[bytes_of(&memory)])?;
    notes.note(NAME, kind::FILE_CONTENTS, &[])?;
    notes.note(NAME, kind::ATTRIBUTES, &[bytes_of(&Attributes::zeroed())])
}

fn sum(bytes: &[u8]) -> [u8; 8] {
    let mut sum = Checksum::new();
    sum.update(bytes);
    sum.value().to_le_bytes()
}

/// What is printed of an image with `count` registers, whose values are 0x100 and so on.
fn inspected(machine: u16, page_size: u32, count: u64) -> String {
    let registers: Vec<u64> = (0x100..0x100 + count).collect();
    let file = tempfile::NamedTempFile::new().expect("a temporary file");
    std::fs::write(&file, image(machine, page_size, &registers)).expect("writing the image");
    let mut out = Vec::new();
    super::run(&mut out, file.path(), false).expect("an image");
    String::from_utf8(out).expect("text")
}

#[test]
fn an_image_of_each_machine() {
    for (machine, page_size, count, expected) in [
        (
            62,
            4 << 10,
            27,
            [
                "format            version 3, x86_64, pages of 4 KiB",
                "checksums         right: of the head and of 1 segment, 4 KiB",
                "THREAD 7",
                "r15       0x0000000000000100    r14       0x0000000000000101    r13       0x0000000000000102",
                "orig_rax  0x000000000000010f    rip       0x0000000000000110    cs        0x0000000000000111",
                "es        0x0000000000000118    fs        0x0000000000000119    gs        0x000000000000011a",
                "000070000000-000070001000     4 KiB  ---p     4 KiB  memory",
            ],
        ),
        (
            183,
            64 << 10,
            34,
            [
                "format            version 3, aarch64, pages of 64 KiB",
                "checksums         right: of the head and of 1 segment, 64 KiB",
                "THREAD 7",
                "x0        0x0000000000000100    x1        0x0000000000000101    x2        0x0000000000000102",
                "x30       0x000000000000011e    sp        0x000000000000011f    pc        0x0000000000000120",
                "pstate    0x0000000000000121",
                "000070000000-000070010000    64 KiB  ---p    64 KiB  memory",
            ],
        ),
    ] {
        let text = inspected(machine, page_size, count);
        for line in expected {
            assert!(text.lines().any(|printed| printed == line), "no {line:?} in {text}");
        }
    }
}
