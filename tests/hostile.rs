//! Images that lie: their checksums are right and what they say is not. `restart-static` refuses them in
//! one line, or the program runs on; what it never does is die of what it believed.

mod common;

use std::mem::offset_of;

use ckpt_image::files::{Descriptor, Extent, FileContents};
use ckpt_image::record::{Attributes, Layout, Mapping, Pending, Range, Thread, Timer};
use ckpt_image::record::{kind, mapping};
use common::{Liar, Outcome, Place, User, cases, kernel, not_run, random, repetitions};
use rand::Rng;

/// A program that has something for every note. Signals are blocked, so that one that is pending does
/// not matter.
const TEXT: &str = r#"
    #define _GNU_SOURCE
    #include <fcntl.h>
    #include <signal.h>
    #include <stdio.h>
    #include <sys/mman.h>
    #include <sys/time.h>
    #include <time.h>
    #include <unistd.h>
    int main(void) {
        sigset_t set;
        sigfillset(&set);
        sigdelset(&set, SIGUSR2);
        sigprocmask(SIG_BLOCK, &set, 0);
        struct sigevent event = { .sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGRTMIN + 5 };
        struct itimerspec time = { { 1000, 0 }, { 1000, 0 } };
        struct itimerval interval = { { 1000, 0 }, { 1000, 0 } };
        timer_t timer;
        timer_create(CLOCK_MONOTONIC, &event, &timer);
        timer_settime(timer, 0, &time, 0);
        setitimer(ITIMER_REAL, &interval, 0);
        sigqueue(getpid(), SIGRTMIN + 1, (union sigval) { 7 });
        dup2(open("data", O_RDONLY), 4);
        int memory = memfd_create("memory", 0);
        dup2(memory, 6);
        pwrite(memory, "memory", 6, 1 << 20);
        puts("ready");
        fflush(stdout);
        getchar();
        puts("done");
        return 0;
    }"#;

/// All notes that hold something, but the checksums.
fn notes() -> Vec<u32> {
    let mut notes = vec![
        kind::PROCESS,
        kind::MAPPINGS,
        kind::LAYOUT,
        kind::THREADS,
        kind::DISPOSITIONS,
        kind::PENDING,
        kind::INTERVAL_TIMERS,
        kind::TIMERS,
        kind::DESCRIPTORS,
        kind::FILE_CONTENTS,
        kind::ATTRIBUTES,
        kind::CPU,
    ];
    if kernel::has_guard_pages() {
        notes.push(kind::GUARDS);
    }
    notes
}

/// The image of such a program.
fn liar(place: &Place) -> Liar<'_> {
    place.file("data", "data\n");
    Liar::of(place.c("gcc", &["-O1"], "liar", TEXT))
}

/// Where in a structure of `length` bytes its parts of `size` bytes begin.
fn fields(length: usize, size: usize) -> Vec<usize> {
    (0..length).step_by(size).collect()
}

/// Addresses where no program has anything: none, low, in a hole, not canonical, the kernel's, the last.
const NOWHERE: [u64; 5] = [8, 0x10000, 1 << 46, 1 << 63, u64::MAX];

/// A thread that would go on where nothing is.
#[test]
fn a_thread_that_is_nowhere() {
    let place = Place::new(User::Ordinary);
    let liar = liar(&place);
    for field in [
        offset_of!(Thread, resume),
        offset_of!(Thread, context),
        offset_of!(Thread, frame),
        offset_of!(Thread, tid_address),
        offset_of!(Thread, tid_cache),
        offset_of!(Thread, held_mutexes),
    ] {
        for address in NOWHERE {
            liar.is_refused(kind::THREADS, field, &address.to_le_bytes());
        }
    }
}

/// What the kernel is told of a thread, and only looks at later.
#[test]
fn a_thread_whose_areas_are_nowhere() {
    let place = Place::new(User::Ordinary);
    let liar = liar(&place);
    for field in [
        offset_of!(Thread, thread_pointer),
        offset_of!(Thread, second_pointer),
        offset_of!(Thread, robust_list),
        offset_of!(Thread, robust_list_length),
        offset_of!(Thread, rseq),
        offset_of!(Thread, rseq_length),
    ] {
        for address in NOWHERE {
            let lie = liar.with(kind::THREADS, field, &address.to_le_bytes());
            liar.tells(lie, &format!("{address:x} at {field} of a thread"));
        }
    }
}

/// Vectors of lengths that there are not, or with flags that there are not.
#[test]
fn vectors_of_no_length() {
    let place = Place::new(User::Ordinary);
    let liar = liar(&place);
    let vectors = offset_of!(Thread, vectors);
    for at in fields(size_of::<[u64; 2]>(), 1) {
        let lie = liar.truth.clone().note(kind::THREADS, |note| note[vectors + at] ^= 0x12);
        liar.tells(lie, &format!("byte {at} of the lengths of vectors"));
    }
}

/// A list of held mutexes that leads nowhere, or does not end, in a program said to be of musl.
#[test]
fn mutexes_that_are_none() {
    let place = Place::new(User::Ordinary);
    let liar = liar(&place);
    let musl = ckpt_image::record::libc::MUSL.to_le_bytes();
    for record in cases(&liar.mappings) {
        let held = record.start.to_le_bytes();
        let lie = liar.with(kind::THREADS, offset_of!(Thread, libc), &musl);
        let lie = lie.note(kind::THREADS, |note| {
            note[offset_of!(Thread, held_mutexes)..][..8].copy_from_slice(&held);
        });
        liar.tells(lie, &format!("mutexes at {:x}", record.start));
    }
}

/// Guard pages where the image has no memory.
#[test]
fn guards_that_are_nowhere() {
    if !kernel::has_guard_pages() {
        return not_run("guard pages of which an image lies: this kernel has none");
    }
    let place = Place::new(User::Ordinary);
    let liar = liar(&place);
    for address in NOWHERE {
        for field in [offset_of!(Range, start), offset_of!(Range, end)] {
            liar.is_refused(kind::GUARDS, field, &address.to_le_bytes());
        }
    }
}

/// Descriptors that share what is none, or are none themselves.
#[test]
fn descriptors_that_are_none() {
    let place = Place::new(User::Ordinary);
    let liar = liar(&place);
    for shares in [-5, -1, 1, i32::MIN, i32::MAX] {
        liar.is_refused(kind::DESCRIPTORS, offset_of!(Descriptor, shares), &shares.to_le_bytes());
    }
    for fd in [-5, -1, i32::MIN, i32::MAX, 3, 1 << 30] {
        let lie = liar.with(kind::DESCRIPTORS, offset_of!(Descriptor, fd), &i32::to_le_bytes(fd));
        liar.tells(lie, &format!("descriptor {fd}"));
    }
    for kind in [0_u32, 1, 2, 3, 1 << 16, u32::MAX] {
        let at = offset_of!(Descriptor, kind);
        liar.is_refused(kind::DESCRIPTORS, at, &kind.to_le_bytes());
    }
    let length = offset_of!(Descriptor, name_length);
    for value in [100_000, u32::MAX] {
        liar.is_refused(kind::DESCRIPTORS, length, &u32::to_le_bytes(value));
    }
}

/// Contents that are not in the image, or do not fit into the file.
#[test]
fn contents_that_are_none() {
    let place = Place::new(User::Ordinary);
    let liar = liar(&place);
    let behind = size_of::<FileContents>();
    for field in [
        offset_of!(FileContents, offset),
        offset_of!(FileContents, stored),
        offset_of!(FileContents, checksum),
        behind + offset_of!(Extent, start),
        behind + offset_of!(Extent, length),
    ] {
        for value in [1 << 40, 1 << 62, u64::MAX] {
            liar.is_refused(kind::FILE_CONTENTS, field, &u64::to_le_bytes(value));
        }
    }
    for field in [offset_of!(FileContents, fd), offset_of!(FileContents, extents)] {
        for value in [0, 4, 1 << 30, u32::MAX] {
            liar.is_refused(kind::FILE_CONTENTS, field, &u32::to_le_bytes(value));
        }
    }
    for field in [offset_of!(FileContents, mode), offset_of!(FileContents, seals)] {
        for value in [0, 0o777, u32::MAX] {
            let lie = liar.with(kind::FILE_CONTENTS, field, &u32::to_le_bytes(value));
            liar.tells(lie, &format!("{value} at {field} of the contents"));
        }
    }
}

/// What open(2) is told and the kernel never shows of a file that is open: it would lose its contents.
#[test]
fn a_file_to_be_emptied() {
    let place = Place::new(User::Ordinary);
    let liar = liar(&place);
    let truncate = (libc::O_RDWR | libc::O_TRUNC) as u32;
    let lie = liar.truth.clone().note(kind::DESCRIPTORS, |note| {
        let mut at = 0;
        let word =
            |note: &[u8], at: usize| u32::from_le_bytes(note[at..at + 4].try_into().unwrap());
        while word(note, at + offset_of!(Descriptor, fd)) != 3 {
            let length = word(note, at + offset_of!(Descriptor, name_length)) as usize;
            at += size_of::<Descriptor>() + length.next_multiple_of(8);
        }
        note[at + offset_of!(Descriptor, flags)..][..4].copy_from_slice(&truncate.to_le_bytes());
    });
    liar.tells(lie, "a file with O_TRUNC");
    assert_eq!(place.text("data"), "data\n");
}

/// A mapping that is no kind of mapping, or nowhere.
#[test]
fn mappings_that_are_none() {
    let place = Place::new(User::Ordinary);
    let liar = liar(&place);
    for kind in [0, mapping::KNOWN.end() + 1, u32::MAX] {
        liar.is_refused(kind::MAPPINGS, offset_of!(Mapping, kind), &u32::to_le_bytes(kind));
    }
    for kind in mapping::KNOWN {
        let lie = liar.with(kind::MAPPINGS, offset_of!(Mapping, kind), &kind.to_le_bytes());
        liar.tells(lie, &format!("kind of mapping {kind}"));
    }
    for field in [offset_of!(Mapping, start), offset_of!(Mapping, end)] {
        for address in NOWHERE {
            liar.is_refused(kind::MAPPINGS, field, &address.to_le_bytes());
        }
    }
    for field in [offset_of!(Mapping, stored), offset_of!(Mapping, name_length)] {
        liar.is_refused(kind::MAPPINGS, field, &[0xff; 4]);
    }
    for field in cases(&fields(offset_of!(Mapping, swapped), 4)) {
        for value in [[0; 4], [0xff; 4]] {
            let lie = liar.with(kind::MAPPINGS, field, &value);
            liar.tells(lie, &format!("{value:x?} at {field} of a mapping"));
        }
    }
}

/// A layout that the kernel does not take.
#[test]
fn a_layout_that_is_none() {
    let place = Place::new(User::Ordinary);
    let liar = liar(&place);
    for value in [0, 0xff, 0x55] {
        liar.is_refused(kind::LAYOUT, 0, &[value; size_of::<Layout>()]);
    }
    for field in cases(&fields(size_of::<Layout>(), 8)) {
        for address in NOWHERE {
            let lie = liar.with(kind::LAYOUT, field, &address.to_le_bytes());
            liar.tells(lie, &format!("{address:x} at {field} of the layout"));
        }
    }
}

/// Signals that no program gets to see, and that cannot be pending.
#[test]
fn pending_signals_that_are_none() {
    let place = Place::new(User::Ordinary);
    let liar = liar(&place);
    for signal in [65, u32::MAX, libc::SIGKILL as u32, libc::SIGSTOP as u32] {
        liar.is_refused(kind::PENDING, offset_of!(Pending, signal), &u32::to_le_bytes(signal));
    }
}

/// Numbers that are too large to be computed with.
#[test]
fn timers_and_attributes_without_measure() {
    let place = Place::new(User::Ordinary);
    let liar = liar(&place);
    for field in cases(&fields(size_of::<Timer>(), 4)) {
        for value in [[0xff; 4], [0x7f; 4]] {
            let lie = liar.with(kind::TIMERS, field, &value);
            liar.tells(lie, &format!("{value:x?} at {field} of a timer"));
        }
    }
    let times = offset_of!(Timer, remaining);
    let lie =
        liar.with(kind::TIMERS, times, &[0xff; size_of::<Timer>() - offset_of!(Timer, remaining)]);
    liar.tells(lie, "a timer of no end");
    let lie = liar.with(kind::INTERVAL_TIMERS, 0, &[0xff; 48]);
    liar.tells(lie, "interval timers of no end");
    for field in cases(&fields(size_of::<Attributes>(), 8)) {
        let lie = liar.with(kind::ATTRIBUTES, field, &[0xff; 8]);
        liar.tells(lie, &format!("ff at {field} of the attributes"));
    }
}

/// A note that ends before what it should hold.
#[test]
fn notes_that_are_cut_short() {
    let place = Place::new(User::Ordinary);
    let liar = liar(&place);
    for kind in notes() {
        let whole = liar.truth.length(kind);
        for length in cases(&[0, 1, 4, 7, 8, whole / 3, whole / 2, whole - 8, whole - 1]) {
            let what = format!("note {kind:x} cut to {length} of {whole} bytes");
            let outcome = liar.tells(liar.truth.clone().cut(kind, length), &what);
            assert_ne!(outcome, Outcome::Died, "{what}");
        }
    }
}

/// Bytes of every note, each changed alone. But where the program's code goes on nobody can judge: any
/// other code could do anything.
#[test]
fn notes_with_one_byte_changed() {
    let place = Place::new(User::Ordinary);
    let liar = liar(&place);
    let mut random = random();
    let code = offset_of!(Thread, resume)..offset_of!(Thread, frame);
    let mut outcomes = [0; 3];
    for kind in notes() {
        for _ in 0..repetitions(9) {
            let at = random.random_range(0..liar.truth.length(kind));
            if kind == kind::THREADS && code.contains(&at) {
                continue;
            }
            let change: u8 = random.random_range(1..=255);
            let lie = liar.truth.clone().note(kind, |note| note[at] ^= change);
            let outcome = liar.tells(lie, &format!("byte {at} of note {kind:x} ^ {change:#x}"));
            outcomes[outcome as usize] += 1;
        }
    }
    println!("refused, ended, died: {outcomes:?}");
}
