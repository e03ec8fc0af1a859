//! After a restart the address space is, page by page, the one of the checkpoint: protection, flags,
//! file and offset. Nothing of `restart-static` is left in it, and no descriptor is left open.

mod common;

use std::fs;

use common::maps::{self, Mapping};
use common::{Place, Program, Running, User, each_user, kernel};

/// The whole of an address space, without what is bound to differ.
fn layout(run: &Running) -> Vec<Mapping> {
    let mut mappings = maps::of(run.pid);
    for mapping in &mut mappings {
        // Shared memory without a name in a file system: made anew, it has a new inode.
        if mapping.name.starts_with("/dev/zero") || mapping.name.starts_with("/memfd:") {
            mapping.inode = 1;
        }
    }
    maps::merged(mappings)
}

/// The descriptors, and what they refer to; of pipes only that they are some.
fn descriptors(run: &Running) -> Vec<(String, String)> {
    let directory = fs::read_dir(format!("/proc/{}/fd", run.pid)).expect("its descriptors");
    let mut all: Vec<_> = directory
        .map(|entry| {
            let entry = entry.expect("an entry");
            let link = fs::read_link(entry.path()).expect("a link").display().to_string();
            let kind = link.split_once(":[").map_or(&*link, |(kind, _)| kind).to_owned();
            (entry.file_name().to_string_lossy().into_owned(), kind)
        })
        .collect();
    all.sort();
    all
}

/// What else `/proc` shows of a process, apart from what counts or numbers it.
fn appearance(run: &Running) -> Vec<String> {
    let of = |name: &str| format!("/proc/{}/{name}", run.pid);
    let files = [
        "cmdline",
        "environ",
        "comm",
        "auxv",
        "limits",
        "coredump_filter",
        "oom_score_adj",
        "personality",
    ];
    let text = |name| fs::read(of(name)).expect("a file of /proc").escape_ascii().to_string();
    let mut seen: Vec<String> = files.map(|name| format!("{name}: {}", text(name))).into();
    for link in ["cwd", "root"] {
        seen.push(fs::read_link(of(link)).expect("a link").display().to_string());
    }
    let status = fs::read_to_string(of("status")).expect("its status");
    let kept = [
        "Name:",
        "Umask:",
        "Uid:",
        "Gid:",
        "Groups:",
        "Threads:",
        "Sig",
        "Shd",
        "Cap",
        "NoNewPrivs:",
        "Seccomp:",
        "Cpus_allowed:",
        "Mems_allowed:",
        "THP_enabled:",
        "VmSize:",
        "VmData:",
        "VmStk:",
    ];
    let lines = status.lines().filter(|line| kept.iter().any(|key| line.starts_with(key)));
    seen.extend(lines.filter(|line| !line.starts_with("SigQ:")).map(str::to_owned));
    seen.extend(places_in_stat(&fs::read_to_string(of("stat")).expect("its stat")));
    seen
}

/// Of `/proc/PID/stat` (proc(5)): priority, nice value, and the places of code, stack, data,
/// program break, arguments and environment.
fn places_in_stat(stat: &str) -> Vec<String> {
    let (_, behind_name) = stat.rsplit_once(") ").expect("a name");
    let fields: Vec<_> = behind_name.split(' ').collect();
    [18, 19, 26, 27, 28, 40, 41, 45, 46, 47, 48, 49, 50, 51]
        .map(|number| format!("stat field {number}: {}", fields[number - 3]))
        .into()
}

/// Compares a first life of `program`, which prints `ready` and reads, with its second and third.
fn is_restored(program: &Program) {
    let mut run = program.start();
    run.expect("ready");
    run.reads_stdin();
    run.checkpoint();
    run.reads_stdin();
    let (before, open, seen) = (layout(&run), descriptors(&run), appearance(&run));
    for _ in 0..2 {
        run.kill();
        run = program.restart(&program.image);
        run.reads_stdin();
        compare(&before, &layout(&run));
        assert_eq!(descriptors(&run), open);
        let now = appearance(&run);
        let changes: Vec<_> = seen.iter().zip(&now).filter(|(then, now)| then != now).collect();
        assert!(changes.is_empty(), "changed from, to: {changes:#?}");
        run.checkpoint();
        run.reads_stdin();
    }
}

fn compare(before: &[Mapping], after: &[Mapping]) {
    let missing: Vec<_> = before.iter().filter(|m| !after.contains(m)).collect();
    let extra: Vec<_> = after.iter().filter(|m| !before.contains(m)).collect();
    assert!(
        missing.is_empty() && extra.is_empty(),
        "of the checkpoint's mappings there are missing {missing:#?}\ninstead of them {extra:#?}"
    );
    assert!(after.iter().all(|m| !m.name.contains("restart-static")), "{after:#?}");
}

#[test]
fn of_a_target_with_all_kinds_of_mappings() {
    each_user(|place| {
        is_restored(&place.target("mappings").args([place.directory("files")]));
    });
}

#[test]
fn of_python() {
    const SCRIPT: &str = "
import mmap, sqlite3, hashlib
shared = mmap.mmap(-1, 1 << 20); shared[5000] = 1
print('ready', flush=True); input()
";
    each_user(|place| is_restored(&place.system("/usr/bin/python3").args(["-c", SCRIPT])));
}

/// Who may lock memory has it locked after the restart.
#[test]
fn of_a_program_that_has_locked_its_memory() {
    const PROGRAM: &str = r#"
#include <stdio.h>
#include <sys/mman.h>
int main(void) {
    if (mlockall(MCL_CURRENT) < 0) perror("mlockall");
    puts("ready"); fflush(stdout);
    return getchar() == EOF;
}
"#;
    let place = Place::new(User::everyone()[0]);
    is_restored(&place.c("gcc", &[], "locked", PROGRAM));
}

/// All that a process can change of how it looks and how it is treated.
#[test]
fn of_a_program_that_is_not_as_it_was_started() {
    const SCRIPT: &str = "
import ctypes, os, resource, signal, sys
libc = ctypes.CDLL(None, use_errno=True)
def tell(name, text): open('/proc/self/' + name, 'w').write(text)
def prctl(*arguments): assert libc.prctl(*arguments, 0, 0, 0, 0) == 0, arguments
tell('comm', 'another name'); tell('oom_score_adj', '500'); tell('coredump_filter', '0x3f')
os.nice(3); os.umask(0o27); os.chdir('/usr'); os.sched_setaffinity(0, {0})
os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
resource.setrlimit(resource.RLIMIT_CORE, (0, 1 << 20))
resource.setrlimit(resource.RLIMIT_NOFILE, (50, 60))
assert libc.personality(0x0040000) >= 0
SET_DEATH_SIGNAL, SET_TIMER_SLACK, SET_SUBREAPER, SET_NO_NEW_PRIVS, SET_THP_DISABLE = 1, 29, 36, 38, 41
prctl(SET_DEATH_SIGNAL, signal.SIGUSR1); prctl(SET_TIMER_SLACK, 123456); prctl(SET_SUBREAPER, 1)
prctl(SET_NO_NEW_PRIVS, 1); prctl(SET_THP_DISABLE, 1)
IOPRIO_SET, IOPRIO_GET, IDLE = int(sys.argv[1]), int(sys.argv[2]), 3 << 13
assert libc.syscall(IOPRIO_SET, 1, 0, IDLE) == 0
print('ready', flush=True)
GET_DEATH_SIGNAL, GET_SUBREAPER, GET_TIMER_SLACK = 2, 37, 30
while True:
    input()
    number = ctypes.c_int()
    prctl(GET_DEATH_SIGNAL, ctypes.byref(number)); death = number.value
    prctl(GET_SUBREAPER, ctypes.byref(number)); subreaper = number.value
    print(death, subreaper, libc.prctl(GET_TIMER_SLACK, 0, 0, 0, 0),
          libc.syscall(IOPRIO_GET, 1, 0) == IDLE, os.sched_getscheduler(0), flush=True)
";
    const ANSWER: &str = "10 1 123456 True 3";
    each_user(|place| {
        let calls = [libc::SYS_ioprio_set, libc::SYS_ioprio_get].map(|call| call.to_string());
        let program = place.system("/usr/bin/python3").args(["-c", SCRIPT]).args(calls);
        is_restored(&program);
        let mut run = program.restart(&program.image);
        for _ in 0..2 {
            run.send("");
            run.expect(ANSWER);
        }
    });
}

#[test]
fn of_a_musl_program() {
    each_user(|place| is_restored(&place.compiled("musl-gcc", "libc_caches")));
}

/// The mappings of `cat`, which waits for input, that belong to no file. The data of a library which
/// is zero at first follows what comes from its file.
fn anonymous(mut run: Running) -> Vec<Mapping> {
    run.reads_stdin();
    let all = maps::of(run.pid);
    let follows_ours = |mapping: &Mapping| {
        all.iter().any(|m| m.end == mapping.start && m.name.ends_with("libckpt.so"))
    };
    all.iter().filter(|m| !m.is_of_file() && !follows_ours(m)).cloned().collect()
}

/// What the library needs it takes in one mapping; where there are no guard pages, what keeps its stack
/// from growing is another.
#[test]
fn the_library_adds_one_mapping() {
    each_user(|place| {
        let program = place.system("/bin/cat");
        let (with, without) = (anonymous(program.start()), anonymous(program.start_bare()));
        // Others may be one or two, or be taken for the library's data, by what lies beside them; and the
        // dynamic linker notes what it has loaded.
        let notes = 4 * rustix::param::page_size() as u64;
        let size = |mappings: &[Mapping]| mappings.iter().map(|m| m.end - m.start).sum::<u64>();
        let reserved: Vec<_> = with.iter().filter(|m| m.flags.contains(" nr")).cloned().collect();
        assert!(size(&with) <= size(&without) + size(&reserved) + notes, "{with:#?}\n{without:#?}");
        assert_eq!(reserved.len(), if kernel::has_guard_pages() { 1 } else { 2 }, "{with:#?}");
    });
}
