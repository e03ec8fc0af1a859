//! Programs that are linked statically, and the checkpointer with them: nothing can be preloaded
//! into these, and they are checkpointed and restarted like any other.

mod common;

use std::path::{Path, PathBuf};
use std::process::Command;

use common::place::{interpreter, run};
use common::{Place, Program, Running, cargo, each_user, not_run, work};

/// The compilers, each with what makes it link statically.
const COMPILERS: [(&str, &str); 3] =
    [("gcc", "-static"), ("gcc", "-static-pie"), ("musl-gcc", "-static")];

const TWIN: &str = include_str!("targets/twin.c");
const LIBC_CACHES: &str = include_str!("targets/libc_caches.c");

fn library() -> PathBuf {
    cargo::artifacts().join("libckpt.a")
}

/// A C program, linked statically without the library.
fn plain<'p>(place: &'p Place, (compiler, link): (&str, &str), source: &str) -> Program<'p> {
    let program = place.c(compiler, &[link, "-O2", "-g"], "plain", source);
    assert_eq!(interpreter(&program.command), None, "{compiler} {link}");
    program
}

/// The same, with the library linked in.
fn linked<'p>(place: &'p Place, (compiler, link): (&str, &str), source: &str) -> Program<'p> {
    let library = library();
    let library = library.to_str().expect("UTF-8");
    let flags = [link, "-O2", "-g", "-Wl,-u,ckpt_constructor", library];
    let program = place.c(compiler, &flags, "linked", source);
    assert_eq!(interpreter(&program.command), None, "{compiler} {link}");
    program
}

/// For each way to link, as each kind of user.
fn each_kind(test: impl Fn(&Place, (&str, &str))) {
    for kind in COMPILERS {
        println!("{kind:?}");
        each_user(|place| test(place, kind));
    }
}

/// The global symbols that `program` defines, with their kinds.
fn globals(program: &Path) -> Vec<String> {
    let table = run(Command::new("nm").args(["--extern-only", "--defined-only"]).arg(program));
    let mut globals: Vec<String> =
        table.lines().map(|line| line.split_once(' ').expect("an address").1.to_owned()).collect();
    globals.sort();
    globals
}

#[test]
fn the_library_has_one_name() {
    assert_eq!(
        run(Command::new("nm").args(["-j", "--extern-only", "--defined-only"]).arg(library()))
            .lines()
            .filter(|line| !line.is_empty() && !line.ends_with(':'))
            .collect::<Vec<_>>(),
        ["ckpt_constructor"]
    );
    let undefined = run(Command::new("nm").arg("--undefined-only").arg(library()));
    let symbols = || undefined.lines().filter(|line| line.starts_with(' '));
    assert!(symbols().count() > 0, "{undefined}");
    assert!(symbols().all(|line| line.trim_start().starts_with("w ")), "{undefined}");
}

/// What the program and its C library call by a name is what they would call without us.
#[test]
fn the_program_keeps_its_own_functions() {
    let place = &Place::new(common::User::Ordinary);
    for kind in COMPILERS {
        let mut with = globals(&linked(place, kind, TWIN).command);
        with.retain(|symbol| !symbol.ends_with(" ckpt_constructor"));
        assert!(with.iter().any(|symbol| symbol.ends_with(" memcpy")), "{with:?}");
        assert_eq!(with, globals(&plain(place, kind, TWIN).command));
    }
}

/// Nothing of an archive is taken unless it is asked for.
#[test]
fn it_must_be_asked_for() {
    let place = &Place::new(common::User::Ordinary);
    let library = library();
    let library = library.to_str().expect("UTF-8");
    let program = place.c("gcc", &["-static", library], "forgotten", TWIN);
    assert_eq!(globals(&program.command), globals(&plain(place, COMPILERS[0], TWIN).command));
}

/// A computation says the same, whether it is interrupted or not.
#[test]
fn twins() {
    let steps = work(6000).to_string();
    each_kind(|place, kind| {
        let expected = plain(place, kind, TWIN).args([&steps]).undisturbed("");
        let program = linked(place, kind, TWIN).args([&steps]).into_file("output");
        let output = place.path("output");
        let mut first = program.start_bare();
        first.lines_in(&output, 5);
        let image = first.checkpoint();
        first.kill();
        let mut second = program.restart(&image);
        second.ends_well();
        assert_eq!(place.text("output"), expected);
    });
}

/// The C library in the program is told that it is in another process.
#[test]
fn what_the_libc_keeps() {
    each_kind(|place, kind| {
        let program = linked(place, kind, LIBC_CACHES);
        let mut run = program.start_bare();
        run.expect("ready");
        run.check();
        for _ in 0..3 {
            let image = run.checkpoint();
            run.check();
            run.kill();
            assert_eq!(run.errors(), "");
            run = program.restart(&image);
            run.check();
        }
        run.quit();
        run.ends_well();
    });
}

#[test]
fn the_environment_counts() {
    each_kind(|place, kind| {
        let program = linked(place, kind, LIBC_CACHES)
            .env("CKPT_FILE", "image-of-%n")
            .env("CKPT_SIGNAL", "RTMIN+3")
            .env("CKPT_VERBOSE", "1")
            .signal(37) // RTMIN is 34, as in glibc; musl says 35
            .image("image-of-linked");
        let mut run = program.start_bare();
        run.expect("ready");
        run.signal(program.signal);
        let line = run.error_line();
        assert!(line.contains("image-of-linked"), "{line}");
        run.kill();
        let mut run = program.restart(&program.image);
        run.check();
        run.quit();
    });
}

/// A Rust program for musl, which cargo links statically: it has names in common with the library.
#[test]
fn in_rust() {
    const PROGRAM: &str = r#"
fn main() {
    println!("ready");
    for line in std::io::stdin().lines() {
        let words = line.unwrap().split(' ').map(String::from).collect::<Vec<_>>();
        println!("{words:?}");
    }
}
"#;
    let Some(rustc) = cargo::rustc() else {
        return not_run("a static program in Rust: there is no compiler to make it");
    };
    let place = Place::new(common::User::Ordinary);
    let source = place.file("program.rs", PROGRAM);
    let program = place.path("program");
    let target = format!("{}-unknown-linux-musl", std::env::consts::ARCH);
    run(Command::new(rustc)
        .args(["-O", "--target", &target, "-C", "link-arg=-Wl,-u,ckpt_constructor", "-C"])
        .arg(format!("link-arg={}", library().display()))
        .arg("-o")
        .args([&program, &source]));
    let program = Program::new(&place, program);
    let mut run: Running = program.start_bare();
    run.expect("ready");
    run.send("one two");
    run.expect(r#"["one", "two"]"#);
    let image = run.checkpoint();
    run.kill();
    let mut run = program.restart(&image);
    run.send("three");
    run.expect(r#"["three"]"#);
    run.close_input();
    run.ends_well();
}
