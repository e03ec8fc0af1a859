//! Files that the program writes to, and that somebody has written to since the checkpoint: what would
//! be destroyed is refused, and stays as it is.

mod common;

use std::fs;
use std::os::unix::fs::MetadataExt;

use common::{Place, Program, each_user};

/// Restarts `program`, which must be refused in one line that contains all of `words`.
fn refuses(program: &Program<'_>, words: &[&str]) {
    program.refuses_to_restart(&program.image, words);
}

/// A program that counts into `output`, checkpointed and killed after a few lines.
fn counting(place: &Place) -> Program<'_> {
    let program = place.target("counting-test").args(["1", "300", "10"]).into_file("output");
    let mut run = program.start();
    run.lines_in(&place.path("output"), 20);
    run.checkpoint();
    run.kill();
    program
}

/// Even under the number of the old file, which file systems like to give to the next one.
#[test]
fn another_file_under_the_name_of_the_output() {
    each_user(|place| {
        let program = counting(place);
        let old = fs::metadata(place.path("output")).expect("the output").ino();
        fs::remove_file(place.path("output")).expect("remove");
        let mut text = "somebody else's\n".repeat(1000);
        place.file("output", &text);
        println!("inode {old}, now {}", fs::metadata(place.path("output")).expect("it").ino());
        refuses(&program, &["output"]);
        assert_eq!(place.text("output"), text);

        // The same file, overwritten in place.
        let program = counting(place);
        text.push('x');
        fs::write(place.path("output"), &text).expect("write");
        refuses(&program, &["output", "is not what it was"]);
        assert_eq!(place.text("output"), text);
    });
}

/// What the program itself has added is cut off, and written again.
#[test]
fn output_that_has_grown() {
    each_user(|place| {
        let program = counting(place);
        let before = place.text("output");
        fs::write(place.path("output"), format!("{before}added\n")).expect("write");
        program.restart(&program.image).ends_well();
        let expected: String = (1..=300).map(|number| format!("{number}\n")).collect();
        assert_eq!(place.text("output"), expected);
    });
}

/// A database that has gone on without the program's memory must not be cut, nor used.
#[test]
fn a_database_that_has_gone_on() {
    const SCRIPT: &str = "
import sqlite3, sys
base = sqlite3.connect('base.db')
base.execute('create table rows (text)')
def add():
    with base: base.execute('insert into rows values (?)', ['x' * 3000])
for _ in range(10): add()
print('ready', flush=True)
for line in sys.stdin:
    add()
    print(base.execute('select count(*) from rows').fetchone()[0], flush=True)
";
    each_user(|place| {
        let program = place.system("/usr/bin/python3").args(["-c", SCRIPT]);
        let mut run = program.start();
        run.expect("ready");
        run.reads_stdin();
        run.checkpoint();
        let copy = fs::read(place.path("base.db")).expect("the database");
        let times = fs::metadata(place.path("base.db")).expect("it").modified().expect("a time");
        run.send("");
        run.expect("11");
        run.kill();
        let gone_on = fs::read(place.path("base.db")).expect("the database");
        refuses(&program, &["base.db", "has changed since the checkpoint"]);
        assert!(fs::read(place.path("base.db")).expect("the database") == gone_on);

        // With the copy put back, times and all, it goes on.
        fs::write(place.path("base.db"), copy).expect("write");
        let file = fs::File::options().write(true).open(place.path("base.db")).expect("open");
        file.set_modified(times).expect("set the time");
        let mut run = program.restart(&program.image);
        run.send("");
        run.expect("11");
        run.kill();
    });
}
