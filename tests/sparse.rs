//! Memory with holes: what was never touched takes no room, and more runs of pages than a core file's
//! header can count are no trouble.

mod common;

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::process::Command;

use common::{Place, User};

/// Maps `RUNS * STEP` pages and touches one page in `STEP`; then looks at all of them, as often as it
/// is told to.
const TEXT: &str = r#"
    #include <stdio.h>
    #include <stdlib.h>
    #include <sys/mman.h>
    int main(int count, char **arguments) {
        if (count != 3) return 2;
        long runs = atol(arguments[1]), step = atol(arguments[2]);
        char *memory = mmap(0, runs * step * 4096, PROT_READ | PROT_WRITE,
                            MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        for (long run = 0; run < runs; run++) memory[run * step * 4096 + run % 4096] = run % 255 + 1;
        puts("ready");
        fflush(stdout);
        while (getchar() != EOF) {
            long wrong = 0;
            for (long run = 0; run < runs; run++) {
                char *page = memory + run * step * 4096;
                wrong += page[run % 4096] != (char)(run % 255 + 1);
                wrong += page[(run + 1) % 4096] != 0;
            }
            printf("%ld wrong\n", wrong);
            fflush(stdout);
        }
        return 0;
    }"#;

/// Checkpoints a program with so many runs of pages, restarts it twice, and finds its memory right;
/// returns how many program headers the image has, by readelf, and how many bytes on the disk.
fn survives(runs: u64, step: u64) -> (u64, u64) {
    let place = Place::new(User::Ordinary);
    let program = place.c("gcc", &["-O2"], "sparse", TEXT);
    let program = program.args([runs.to_string(), step.to_string()]);
    let mut run = program.start();
    run.expect("ready");
    run.checkpoint();
    run.kill();
    let output = Command::new("readelf").arg("-hW").arg(run.image()).output().expect("readelf");
    let text = String::from_utf8_lossy(&output.stdout);
    let line = text.lines().find_map(|line| line.split("Number of program headers:").nth(1));
    // With more than the field can hold readelf prints "65535 (70038)".
    let words = line.expect("a count").replace(['(', ')'], " ");
    let count = words.split_whitespace().last().expect("a count").parse().expect("a number");
    let on_disk = fs::metadata(run.image()).expect("the image").blocks() * 512;
    for _ in 0..2 {
        let mut restarted = program.restart(run.image());
        restarted.send("");
        restarted.expect("0 wrong");
        restarted.kill();
    }
    (count, on_disk)
}

#[test]
fn what_is_not_touched_takes_no_room() {
    let (_, on_disk) = survives(64, 1 << 12);
    assert!(on_disk < 8 << 20, "1 GiB with 64 pages in it takes {on_disk} bytes");
}

#[test]
fn more_segments_than_a_header_can_count() {
    let (count, _) = survives(66_000, 10);
    assert!(count > 66_000, "{count} program headers");
}
