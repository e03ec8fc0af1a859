//! The techniques of the lab, one program each: right uses in every corner, and wrong ones, which
//! get one line. What they look like to a person is compared in `lab_doc.rs`.

mod common;

use std::fs;
use std::os::unix::fs::FileExt;

use common::kernel::page_size;
use common::place::tests_are_root;
use common::{Place, Program, Stream, User, each_user, maps, repetitions};

/// Runs it to its end: exit status, standard output, standard error.
fn outcome(program: &Program) -> (Option<i32>, String, String) {
    let mut run = program.start_bare();
    run.close_input();
    let status = run.wait();
    (status.code(), run.all_output(), run.errors())
}

/// What it prints, when all goes well.
fn output(program: &Program) -> String {
    let (status, output, errors) = outcome(program);
    assert_eq!((status, &*errors), (Some(0), ""), "{output}");
    output
}

/// The program must fail, with one line that begins with its name and contains `words`.
fn fails(program: &Program, words: &str) {
    let (status, output, errors) = outcome(program);
    assert!(status.is_some_and(|status| status != 0), "{status:?}: {output}{errors}");
    let name = program.command.file_name().expect("a name").to_string_lossy();
    assert!(errors.starts_with(&format!("{name}: ")) && errors.contains(words), "{errors}");
    assert_eq!(errors.lines().count(), 1, "{errors}");
}

#[test]
fn wrong_uses_get_one_line() {
    each_user(|place| {
        place.file("no-elf", "text");
        place.directory("directory");
        for (name, arguments, words) in [
            ("proc-self-maps", &["x"][..], "usage: proc-self-maps"),
            ("proc-self-maps", &["1", "2"], "usage: "),
            ("proc-self-maps", &["-1"], "usage: "),
            ("proc-self-maps", &["4294967296"], "usage: "),
            ("proc-self-maps", &["0"], "there is no process 0"),
            ("proc-self-maps", &["--json", "4294967295"], "there is no process 4294967295"),
            ("save-restore-memory", &[], "usage: save-restore-memory"),
            ("save-restore-memory", &["--same-address"], "usage: "),
            ("save-restore-memory", &["--other", "code"], "usage: "),
            ("save-restore-memory", &["a", "b"], "usage: "),
            ("save-restore-memory", &["nowhere/code"], "nowhere/code: No such file"),
            ("save-restore-memory", &["directory"], "directory: Is a directory"),
            ("save-restore-memory", &["/dev/full"], "/dev/full: No space left"),
            ("save-restore-memory", &["/dev/null"], "/dev/null: failed to fill whole buffer"),
            ("save-restore-context", &["x"], "usage: save-restore-context"),
            ("find-main", &["a", "b"], "usage: find-main"),
            ("find-main", &["--help"], "usage: "),
            ("find-main", &["4294967295"], "/proc/4294967295/exe: No such file"),
            ("find-main", &["nowhere"], "nowhere: No such file"),
            ("find-main", &["no-elf"], "no-elf: "),
            ("find-main", &["directory"], "directory: Is a directory"),
        ] {
            fails(&place.target(name).args(arguments), words);
        }
        let full = |name| place.target(name).stdout(Stream::File("/dev/full".into()));
        fails(&full("proc-self-maps"), "standard output: No space left");
        fails(&full("find-main"), "No space left");
    });
}

/// Another user's process is not to be read.
#[test]
fn a_process_of_somebody_else() {
    let place = Place::new(User::Ordinary);
    if tests_are_root() {
        let pid = std::process::id().to_string();
        fails(&place.target("proc-self-maps").args([&pid]), "EACCES");
        fails(&place.target("find-main").args([&pid]), "Permission denied");
    }
}

/// A line of the table.
type Row = (u64, u64, String, u64, String);

fn table(place: &Place, pid: i32) -> Vec<Row> {
    let text = output(&place.target("proc-self-maps").args([pid.to_string()]));
    let row = |line: &str| {
        let number = |text: &str| u64::from_str_radix(&text[2..], 16).expect("an address");
        let (columns, name) = line.split_at(line.len().min(56));
        let columns: Vec<_> = columns.split_whitespace().collect();
        let [start, end, permissions, size] = columns[..] else { panic!("{line:?}") };
        let size = size.parse::<u64>().expect("a size") * 1024;
        (number(start), number(end), permissions.to_owned(), size, name.trim_start().to_owned())
    };
    text.lines().skip(1).map(row).collect()
}

fn json(place: &Place, pid: i32) -> Vec<Row> {
    // By a reader that has nothing to do with the writer.
    const READ: &str = r#"
import json, sys
for s in json.load(sys.stdin):
    name = s["name"].encode("unicode_escape").decode()
    print(int(s["start"], 16), int(s["end"], 16), s["permissions"], s["size"], name)"#;
    let text = output(&place.target("proc-self-maps").args(["--json", &pid.to_string()]));
    let text = place.system("/usr/bin/python3").args(["-c", READ]).undisturbed(&text);
    let row = |line: &str| {
        let mut columns = line.splitn(5, ' ').map(str::to_owned);
        let mut next = || columns.next().expect("five columns");
        let [start, end, permissions, size, name] = [next(), next(), next(), next(), next()];
        let number = |text: String| text.parse::<u64>().expect("a number");
        (number(start), number(end), permissions, number(size), name)
    };
    text.lines().map(row).collect()
}

#[test]
fn segments_of_another_process() {
    each_user(|place| {
        let mut run = place.system("/bin/cat").start_bare();
        run.reads_stdin();
        let expected: Vec<Row> = maps::of(run.pid)
            .into_iter()
            .map(|m| (m.start, m.end, m.permissions, m.end - m.start, m.name))
            .collect();
        assert_eq!(table(place, run.pid), expected);
        assert_eq!(json(place, run.pid), expected);
    });
}

#[test]
fn names_of_every_kind() {
    const SCRIPT: &str = r#"
import mmap, os
def keep(name):
    with open(name, "w+b") as file:
        file.truncate(4096)
        return mmap.mmap(file.fileno(), 4096)
kept = [keep(name) for name in (b"two  words ", b"two\nlines", b"gone", b"\xff\x1b", b"back\\slash")]
os.unlink("gone")
print("ready", flush=True)
input()"#;
    each_user(|place| {
        let mut run = place.system("/usr/bin/python3").args(["-c", SCRIPT]).start_bare();
        run.expect("ready");
        let here = |rows: Vec<Row>| {
            let prefix = format!("{}/", place.path("").display());
            let names =
                rows.into_iter().filter_map(|row| row.4.strip_prefix(&prefix).map(str::to_owned));
            let mut names: Vec<_> = names.collect();
            names.sort();
            names
        };
        let names = here(table(place, run.pid));
        assert_eq!(
            names,
            ["\\xff\\u{1b}", "back\\slash", "gone (deleted)", "two  words ", "two\\nlines"]
        );
        let names = here(json(place, run.pid));
        assert_eq!(
            names,
            ["\\ufffd\\x1b", "back\\\\slash", "gone (deleted)", "two  words ", "two\\nlines"]
        );
    });
}

/// Mappings come and go; those that stay are listed each time, and none is listed twice.
#[test]
fn segments_that_change_meanwhile() {
    const PROGRAM: &str = r#"
#include <stdio.h>
#include <sys/mman.h>
int main(void) {
    puts("ready"); fflush(stdout);
    for (;;) {
        char *pages[300];
        for (int i = 0; i < 300; i++)
            pages[i] = mmap(0, 4096 << i % 5, i % 2 ? PROT_READ : PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        for (int i = 0; i < 300; i++) munmap(pages[i], 4096 << i % 5);
    }
}"#;
    let place = Place::new(User::Ordinary);
    let mut run = place.c("gcc", &["-O1"], "restless", PROGRAM).start_bare();
    run.expect("ready");
    for _ in 0..repetitions(50) {
        let rows = table(&place, run.pid);
        assert!(rows.windows(2).all(|pair| pair[0].1 <= pair[1].0), "{rows:?}");
        for name in ["/restless", "/libc.so.6", "[stack]"] {
            assert!(rows.iter().any(|row| row.4.ends_with(name)), "no {name} in {rows:?}");
        }
    }
}

/// The addresses that `save-restore-memory` tells, by what it says of them.
fn address(text: &str, what: &str) -> String {
    let line = text.lines().find(|line| line.starts_with(what));
    let line = line.unwrap_or_else(|| panic!("no {what} in {text}"));
    line.split_whitespace().nth(1).expect("an address").to_owned()
}

/// Checks what it says, and that the file holds the code: the same bytes as the program's file.
fn code_was_restored(place: &Place, text: &str, file: &str, same_address: bool) {
    assert_eq!(text.lines().filter(|line| *line == "answer    333833500").count(), 2, "{text}");
    let (original, restored) = (address(text, "original "), address(text, "restored "));
    assert_eq!(original == restored, same_address, "{text}");
    if same_address {
        assert_eq!(address(text, "unmapped "), original);
    }
    let saved = fs::read(place.path(file)).expect("the code");
    assert!(!saved.is_empty() && saved.len().is_multiple_of(page_size()), "{}", saved.len());
    let program = fs::read(place.path("save-restore-memory")).expect("the program");
    let at = program.windows(32).position(|window| window == &saved[..32]).expect("the code");
    assert_eq!(program[at..at + saved.len()], saved);
}

#[test]
fn code_runs_out_of_a_file() {
    each_user(|place| {
        let program = place.target("save-restore-memory");
        for file in ["code", "a name with spaces"] {
            let text = output(&program.clone().args([file]));
            code_was_restored(place, &text, file, false);
            let text = output(&program.clone().args(["--same-address", file]));
            code_was_restored(place, &text, file, true);
        }
    });
}

/// What libc's `read` and `write` may do at any time they do here every time: a part of it.
#[test]
fn partial_reads_and_writes() {
    const LIBRARY: &str = r#"
#define _GNU_SOURCE
#include <unistd.h>
#include <sys/syscall.h>
static size_t part(size_t n) { return n > 100 ? 100 : n; }
ssize_t read(int fd, void *p, size_t n) { return syscall(SYS_read, fd, p, part(n)); }
ssize_t write(int fd, const void *p, size_t n) { return syscall(SYS_write, fd, p, part(n)); }
"#;
    each_user(|place| {
        let library = place.c("gcc", &["-shared", "-fPIC"], "partial.so", LIBRARY).command;
        let program = place.target("save-restore-memory").env("LD_PRELOAD", library);
        for (options, same) in [(&["code"][..], false), (&["--same-address", "code"], true)] {
            let text = output(&program.clone().args(options));
            code_was_restored(place, &text, "code", same);
        }
    });
}

/// There is room for a part of it only.
#[test]
fn a_write_that_ends_half_way() {
    fn ignore_limit_signal() -> std::io::Result<()> {
        // SAFETY: sets a disposition that exec keeps.
        unsafe { libc::signal(libc::SIGXFSZ, libc::SIG_IGN) };
        Ok(())
    }
    each_user(|place| {
        let program = place.target("save-restore-memory").args(["code"]);
        let program = program.limit(libc::RLIMIT_FSIZE as i32, 1000).before(ignore_limit_signal);
        fails(&program, "code: File too large");
        assert_eq!(fs::metadata(place.path("code")).expect("the file").len(), 1000);
    });
}

#[test]
fn a_call_returns_twice() {
    each_user(|place| {
        let text = output(&place.target("save-restore-context"));
        let lines: Vec<_> = text.lines().collect();
        let steps: Vec<_> = lines.chunks(3).map(|step| (step[0], step[1].trim_start())).collect();
        assert_eq!(
            steps,
            [
                ("before the call", "on the stack 1, elsewhere 1"),
                ("the call returns SAVED", "on the stack 1, elsewhere 1"),
                ("both have been changed", "on the stack 2, elsewhere 2"),
                ("the call returns RESTARTED", "on the stack 1, elsewhere 2"),
            ]
        );
        assert!(lines.chunks(3).all(|step| step[2] == lines[2]), "{text}");
        let canary = lines[2].rsplit(' ').next().expect("a number");
        assert!(canary.ends_with("00") && canary.len() > 10, "no canary of glibc: {canary}");
    });
}

/// Prints the address of its `main`.
const TELLS_MAIN: &str = r#"
#include <stdio.h>
int main(void) { printf("%p\n", (void *)main); fflush(stdout); getchar(); return 0; }
"#;

/// What `find-main` says about a process is what the process says itself.
#[test]
fn main_is_where_it_says() {
    each_user(|place| {
        for (compiler, flags, table) in [
            ("gcc", &["-pie", "-fPIE"][..], ".symtab alone"),
            ("gcc", &["-no-pie", "-fno-PIE"], ".symtab alone"),
            ("gcc", &["-rdynamic"], ".dynsym: dlsym finds it"),
            ("gcc", &["-rdynamic", "-s"], ".dynsym: dlsym finds it"),
            ("gcc", &["-static"], ".symtab alone"),
            ("musl-gcc", &[], ".symtab alone"),
        ] {
            let program = place.c(compiler, flags, "tells", TELLS_MAIN);
            let mut run = program.start_bare();
            let told = run.line();
            let pid = run.pid.to_string();
            let text = output(&place.target("find-main").args([&pid]));
            let last = text.lines().last().expect("three lines");
            assert_eq!(last, format!("main in the process  {told}"), "{compiler} {flags:?}");
            assert!(text.contains(table), "{compiler} {flags:?}: {text}");
            let of_file = output(&place.target("find-main").args([&program.command]));
            assert_eq!(of_file, text.lines().next().expect("a line").to_owned() + "\n");
        }
    });
}

#[test]
fn no_main_to_be_found() {
    each_user(|place| {
        let stripped = place.c("gcc", &["-s"], "stripped", TELLS_MAIN);
        let mut run = stripped.start_bare();
        run.line();
        let find = |what: &str| place.target("find-main").args([what]);
        fails(&find(&run.pid.to_string()), "stripped: there is no symbol table");
        fails(&find("stripped"), "stripped: there is no symbol table");
        place.artifact("libckpt.so");
        fails(&find("libckpt.so"), "no main in it");
        // Half a file.
        let whole = fs::File::open(place.artifact("counting-test")).expect("a program");
        let mut half = vec![0; 5000];
        whole.read_exact_at(&mut half, 0).expect("so many bytes");
        place.file("half", half);
        fails(&find("half"), "half: ");
    });
}

#[test]
fn the_next_write() {
    const PROGRAM: &str = r#"
#include <errno.h>
#include <string.h>
#include <unistd.h>
int main(void) {
    errno = 0;
    if (write(1, "one\n", 4) != 4 || errno != 0) return 1;
    if (write(-1, "", 1) != -1 || errno != EBADF) return 2;
    return 0;
}"#;
    each_user(|place| {
        let library = place.artifact("libnext.so");
        let program = place.c("gcc", &[], "writes", PROGRAM).env("LD_PRELOAD", &library);
        let (status, output, errors) = outcome(&program);
        assert_eq!((status, &*output), (Some(0), "one\n"));
        assert_eq!(errors, "next: write(1, 4 bytes) = 4\nnext: write(-1, 1 bytes) = -1\n");
        // It gets on with others.
        let both = format!("{}:{}", library.display(), place.artifact("libckpt.so").display());
        let program = place.target("counting-test").args(["1", "3", "0"]).env("LD_PRELOAD", both);
        let (status, output, errors) = outcome(&program);
        assert_eq!((status, &*output), (Some(0), "1\n2\n3\n"));
        assert_eq!(errors, "next: write(1, 2 bytes) = 2\n".repeat(3));
    });
}
