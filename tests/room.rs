//! What takes room in an image, and what does not: pages never touched and pages of zeros take
//! none; and there may be any number of stretches of pages between them.

mod common;

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::process::Command;

use common::kernel::{free_memory, page_size};
use common::{Place, Program, Running, User, not_run};

/// Python after `setting`; it prints what it is sent as an expression.
fn python<'p>(place: &'p Place, setting: &str) -> Program<'p> {
    let script = format!(
        "import mmap, sys\n{setting}\nprint('ready', flush=True)\n\
         for line in sys.stdin: print(eval(line), flush=True)"
    );
    place.system("/usr/bin/python3").args(["-c", &script])
}

/// Checkpoints it where it waits, kills and restarts it. Returns the new life, and what room the
/// image takes in memory and on the disk, in MiB.
fn restarted(program: &Program) -> (Running, u64, u64) {
    let mut run = program.start();
    run.expect("ready");
    run.reads_stdin();
    let image = fs::metadata(run.checkpoint()).expect("the image");
    run.kill();
    (program.restart(&program.image), image.len() >> 20, (image.blocks() * 512) >> 20)
}

fn says(run: &mut Running, expression: &str, answer: &str) {
    run.send(expression);
    run.expect(answer);
}

/// How much memory it takes, in MiB, apart from files.
fn in_memory(run: &Running) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", run.pid)).expect("its status");
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"));
    let kilobytes = line.and_then(|line| line.trim().strip_suffix(" kB")).expect("so much");
    kilobytes.parse::<u64>().expect("a number") >> 10
}

/// An image of python with nothing in it takes some 15 MiB, most of it code.
const BARE: u64 = 32;

#[test]
fn pages_never_touched() {
    let place = Place::new(User::Ordinary);
    let program = python(
        &place,
        "NORESERVE = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x4000\n\
         big = mmap.mmap(-1, 64 << 30, NORESERVE)\n\
         big.madvise(mmap.MADV_NOHUGEPAGE)\n\
         for gigabyte in range(64): big[gigabyte << 30] = gigabyte",
    );
    let (mut run, length, _) = restarted(&program);
    assert!(length < BARE, "{length} MiB");
    says(&mut run, "all(big[n << 30] == n for n in range(64))", "True");
    assert!(in_memory(&run) < BARE, "{} MiB", in_memory(&run));
    says(&mut run, "any(big[(n << 30) + mmap.PAGESIZE] for n in range(64))", "False");
}

#[test]
fn pages_of_zeros() {
    let place = Place::new(User::Ordinary);
    let program = python(
        &place,
        "zeros = mmap.mmap(-1, 256 << 20, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)\n\
         for page in range(0, 256 << 20, mmap.PAGESIZE): zeros[page] = 0\n\
         zeros[100 << 20] = 7",
    );
    let (mut run, _, on_disk) = restarted(&program);
    assert!(on_disk < BARE, "{on_disk} MiB");
    says(&mut run, "zeros[100 << 20], sum(zeros[::mmap.PAGESIZE])", "(7, 7)");
}

/// More segments than the 16 bits of an ELF header can count (`PN_XNUM`): few pages, far apart.
#[test]
fn very_many_segments() {
    const PAGES: usize = 66_000;
    let page = page_size();
    let apart = 16 * page;
    // They are there twice, in memory and in the image.
    if free_memory() < (3 * PAGES * page) as u64 {
        return not_run("very many segments: pages are so large that they do not fit into memory");
    }
    let place = Place::new(User::Ordinary);
    let program = python(
        &place,
        &format!(
            "NORESERVE = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x4000\n\
             sparse = mmap.mmap(-1, {PAGES} * {apart}, NORESERVE)\n\
             sparse.madvise(mmap.MADV_NOHUGEPAGE)\n\
             for n in range({PAGES}): sparse[n * {apart} + n % {page}] = n % 251 + 1"
        ),
    );
    let (mut run, ..) = restarted(&program);
    let all =
        format!("all(sparse[n * {apart} + n % {page}] == n % 251 + 1 for n in range({PAGES}))");
    says(&mut run, &all, "True");
    says(&mut run, &format!("sum(sparse[{page}::{apart}])"), "0");
    let readelf = Command::new("readelf").arg("-hW").arg(&program.image).output().expect("readelf");
    let header = String::from_utf8_lossy(&readelf.stdout);
    let count = header.lines().find(|line| line.contains("Number of program headers"));
    assert!(count.is_some_and(|line| line.contains("65535 (")), "{header}");
    assert!(readelf.stderr.is_empty());
}

/// Tens of thousands of mappings, as many as the kernel allows a process, some with something in them.
#[test]
fn very_many_mappings() {
    let place = Place::new(User::Ordinary);
    let most = fs::read_to_string("/proc/sys/vm/max_map_count").expect("/proc");
    let count = most.trim().parse::<usize>().expect("a number").min(65530) - 1000;
    let page = page_size();
    let program = python(
        &place,
        &format!(
            "import ctypes\n\
             libc = ctypes.CDLL(None, use_errno=True)\n\
             many = mmap.mmap(-1, {count} * {page}, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)\n\
             start = ctypes.addressof(ctypes.c_char.from_buffer(many))\n\
             for n in range(0, {count}, 16): many[n * {page}] = n % 251\n\
             for n in range(0, {count}, 2):\n    \
                 assert libc.mprotect(ctypes.c_void_p(start + n * {page}), {page}, 1) == 0"
        ),
    );
    let (mut run, ..) = restarted(&program);
    says(
        &mut run,
        &format!("all(many[n * {page}] == n % 251 for n in range(0, {count}, 16))"),
        "True",
    );
}
