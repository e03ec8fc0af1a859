//! Wherever the program's memory lies: `restart-static` gets out of its way, and depends on no luck.

mod common;

use std::path::Path;
use std::process::Command;

use common::kernel::{address_end, page_size};
use common::place::run;
use common::{Place, Program, Running, User, cargo, each_user};

/// Maps memory at each address given, with a length, and fills the first and the last page; or only
/// reserves it if the length is `…!`. Answers each line with whether all is as it was.
const MAPPER: &str = r#"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#ifndef MAP_FIXED_NOREPLACE
#define MAP_FIXED_NOREPLACE 0x100000
#endif
enum { MOST = 100 };
static unsigned char *at[MOST];
static size_t length[MOST];
static int reserved[MOST];
int main(int argc, char **argv) {
    int count = 0, page = sysconf(_SC_PAGESIZE);
    for (int i = 1; i + 1 < argc; i += 2, count++) {
        char *end;
        unsigned long address = strtoul(argv[i], 0, 16);
        length[count] = strtoul(argv[i + 1], &end, 16);
        reserved[count] = *end == '!';
        int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
        if (address) flags |= MAP_FIXED_NOREPLACE;
        at[count] = mmap((void *)address, length[count],
                         reserved[count] ? PROT_NONE : PROT_READ | PROT_WRITE, flags, -1, 0);
        if (at[count] == MAP_FAILED) { perror(argv[i]); return 1; }
        if (reserved[count]) continue;
        memset(at[count], count + 1, page);
        memset(at[count] + length[count] - page, count + 1, page);
    }
    puts("ready"); fflush(stdout);
    char line[20];
    while (fgets(line, sizeof line, stdin)) {
        int same = 1;
        for (int i = 0; i < count; i++) for (int j = 0; j < page && !reserved[i]; j++)
            same &= at[i][j] == i + 1 && at[i][length[i] - 1 - j] == i + 1;
        puts(same ? "ok" : "FAIL"); fflush(stdout);
    }
    puts("done");
    return 0;
}
"#;

/// Memory for the mapper to map at `address`, wherever the kernel likes for 0.
fn memory(address: u64, length: u64) -> [String; 2] {
    [format!("{address:x}"), format!("{length:x}")]
}

/// The same, only to be reserved.
fn reserved(address: u64, length: u64) -> [String; 2] {
    [format!("{address:x}"), format!("{length:x}!")]
}

fn mapper<'p>(place: &'p Place, mappings: &[[String; 2]]) -> Program<'p> {
    place.c("gcc", &["-O1"], "mapper", MAPPER).args(mappings.as_flattened())
}

/// Checkpoints and restarts it, twice.
fn survives(program: &Program) {
    let mut run: Running = program.start();
    run.expect("ready");
    for _ in 0..2 {
        run.check();
        run.reads_stdin();
        run.checkpoint();
        run.kill();
        run = program.restart(&program.image);
    }
    run.check();
    run.close_input();
    run.expect("done");
    run.ends_well();
}

/// The lowest address that an ordinary user may map: the beginning of a page of any size.
const LOW: u64 = 0x10000;

/// Where `restart-static` is linked to: the addresses of its segments.
fn home() -> Vec<u64> {
    let headers =
        run(Command::new("readelf").arg("-lW").arg(cargo::artifacts().join("restart-static")));
    let loads = headers.lines().filter(|line| line.trim_start().starts_with("LOAD"));
    let address =
        |line: &str| line.split_whitespace().nth(2)?.strip_prefix("0x").map(str::to_owned);
    loads
        .map(|line| address(line).expect("an address"))
        .map(|digits| u64::from_str_radix(&digits, 16).expect("a number"))
        .collect()
}

#[test]
fn with_its_home() {
    each_user(|place| {
        let (first, page) = (home()[0], page_size() as u64);
        for (before, length) in [(0, page), (page, 2 * page), (0x10_0000, 0x100_0000)] {
            survives(&mapper(place, &[memory(first - before, length)]));
        }
    });
}

/// As runtimes do that reserve whatever they may come to need: hundreds of gigabytes around the
/// home of `restart-static`, and then nearly all there is.
#[test]
fn with_large_reservations() {
    each_user(|place| {
        let all = address_end();
        let around = home()[0].saturating_sub(all / 256).max(LOW) & !(LOW - 1);
        survives(&mapper(place, &[reserved(around, all / 128)]));
        survives(&mapper(place, &[reserved(LOW, all / 2)]));
        survives(&mapper(place, &[reserved(0, all / 2), reserved(0, all / 4)]));
        // There is then not a twelfth of it left in one piece.
        survives(&mapper(place, &[2, 4, 8, 16].map(|part| reserved(0, all / part))));
    });
}

/// Low addresses, and the highest that there are below the stack.
#[test]
fn at_the_ends_of_the_address_space() {
    each_user(|place| {
        let (all, page) = (address_end(), page_size() as u64);
        let below_stack = all - (1 << 36);
        let low_and_high = [(LOW, 2), (all / 4, 3), (below_stack, 2)];
        survives(&mapper(place, &low_and_high.map(|(at, pages)| memory(at, pages * page))));
    });
}

/// Without randomisation everything of `restart-static` lies exactly where the program's own is.
#[test]
fn without_randomisation() {
    each_user(|place| {
        let plain = mapper(place, &[memory(0, 0x10_0000)]);
        let program = plain.wrapped("/usr/bin/setarch", &["-R"]);
        survives(&program);
    });
}

/// With an unlimited stack the kernel lays out memory the other way round.
#[test]
fn with_an_unlimited_stack() {
    each_user(|place| {
        let plain = mapper(place, &[memory(0, 0x10_0000)]);
        let unlimited = ["-c", "ulimit -s unlimited; exec \"$0\" \"$@\""];
        survives(&plain.clone().wrapped("/bin/bash", &unlimited));
        // One made so is restarted otherwise, and the other way round.
        let (there, here) = (plain.clone().wrapped("/bin/bash", &unlimited), plain);
        for (one, other) in [(&there, &here), (&here, &there)] {
            let mut run = one.start();
            run.expect("ready");
            run.reads_stdin();
            run.checkpoint();
            run.kill();
            let mut run = other.restart(&other.image);
            run.check();
            run.close_input();
            run.expect("done");
            run.ends_well();
        }
    });
}

/// A program whose path, and whose directory, are no simple words.
#[test]
fn of_names() {
    for name in ["a b", "tab\there", "line\nbreak", "back\\slash\\012", "gone (deleted)", "ünï"] {
        println!("{name:?}");
        let place = Place::new(User::Ordinary);
        place.directory(name);
        let mut program = mapper(&place, &[memory(0, 0x2_0000)]).directory(name);
        let moved = place.path(Path::new(name).join("mapper"));
        std::fs::rename(&program.command, &moved).expect("moving the program");
        program.command = moved;
        survives(&program);
    }
}
