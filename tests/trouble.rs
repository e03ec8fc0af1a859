//! When no checkpoint can be written, or too many are asked for: the program is unharmed, the image
//! that was there is intact, nothing is left lying about, and one line says why.

mod common;

use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::{fs, io, thread};

use common::{Place, Program, Running, User, Watch, each_user, not_run, repetitions};

/// A program that has set itself up and checks itself when asked.
fn started(program: &Program) -> Running {
    let mut run = program.start();
    run.expect("ready");
    run
}

/// Python with much in its memory, so that writing it takes a while; `print` what is sent.
fn large(place: &Place) -> Program<'_> {
    const SCRIPT: &str = "
import os, sys
memory = os.urandom(40 << 20); copy = bytearray(memory)
print('ready', flush=True)
for line in sys.stdin:
    print('ok' if memory == copy else 'FAIL', flush=True)
    if line == 'quit\\n': break
print('done')
";
    place.system("/usr/bin/python3").args(["-c", SCRIPT])
}

/// Restarts from the image, which must be good.
fn is_good(program: &Program) {
    let mut run = program.restart(&program.image);
    run.check();
}

/// The image, and whatever else has its name in its own.
fn images_in(place: &Place) -> Vec<String> {
    place.names().into_iter().filter(|name| name.contains("mycheckpoint")).collect()
}

#[test]
fn a_storm_of_signals() {
    each_user(|place| {
        let program = place.target("mappings").args([place.directory("files")]);
        let mut run = started(&program);
        for _ in 0..1000 {
            run.signal(libc::SIGUSR2);
        }
        run.reads_stdin(); // The storm is over, and no image has half of a line in it.
        run.check();
        run.quit();
        assert_eq!(run.errors(), "");
        assert_eq!(images_in(place), ["mycheckpoint"]);
        is_good(&program);
    });
}

#[test]
fn a_storm_at_work() {
    const STEPS: [&str; 2] = ["5", "20000"];
    each_user(|place| {
        let program = place.target("heap").args(STEPS);
        let undisturbed = program.undisturbed("");
        let mut run = program.start();
        run.expect("start");
        for _ in 0..1000 {
            run.signal(libc::SIGUSR2); // Of those it has not yet seen, the kernel keeps one.
            thread::yield_now();
        }
        assert!(run.wait().success());
        assert_eq!(run.all_output(), undisturbed);
        assert_eq!(run.errors(), "");
    });
}

#[test]
fn a_signal_while_the_image_is_written() {
    each_user(|place| {
        let program = large(place);
        let mut run = started(&program);
        run.reads_stdin();
        let (begun, written) = (Watch::creations(&place.path("")), Watch::renames(&place.path("")));
        run.signal(libc::SIGUSR2);
        run.until("for the file it writes to", Some(&begun), |_| {
            (!begun.names().is_empty()).then_some(())
        });
        run.signal(libc::SIGUSR2);
        run.answer(&written).expect("the first image");
        run.reads_stdin();
        run.check();
        run.send("quit");
        run.expect("ok");
        run.expect("done");
        run.ends_well();
        is_good(&program);
    });
}

/// Signals that come while the program is being restored wait until it is there, and are its own.
#[test]
fn a_storm_of_signals_while_it_is_restarted() {
    /// From its first instruction on; later `restart-static` sees to it by itself.
    fn block_the_signal() -> io::Result<()> {
        // SAFETY: a signal set is plain numbers, and these calls fill it in and read it.
        unsafe {
            let mut set = std::mem::zeroed();
            libc::sigemptyset(&mut set);
            libc::sigaddset(&mut set, libc::SIGUSR2);
            libc::sigprocmask(libc::SIG_BLOCK, &set, std::ptr::null_mut());
        }
        Ok(())
    }
    each_user(|place| {
        let program = place.target("mappings").args([place.directory("files")]);
        let mut run = started(&program);
        run.reads_stdin();
        run.checkpoint();
        run.kill();
        for _ in 0..repetitions(10) {
            let mut run = program.clone().before(block_the_signal).restart(&program.image);
            for _ in 0..1000 {
                run.signal(libc::SIGUSR2);
                thread::yield_now();
            }
            run.reads_stdin();
            run.check();
            run.reads_stdin();
            run.checkpoint();
            run.kill();
            assert_eq!(run.errors(), "");
        }
    });
}

/// Whoever is killed in the midst of writing leaves the image before that one, whole.
#[test]
fn killed_while_the_image_is_written() {
    each_user(|place| {
        let program = large(place);
        let mut run = started(&program);
        run.reads_stdin();
        run.checkpoint();
        run.reads_stdin();
        let begun = Watch::creations(&place.path(""));
        run.signal(libc::SIGUSR2);
        run.until("for the file it writes to", Some(&begun), |_| {
            (!begun.names().is_empty()).then_some(())
        });
        run.kill();
        is_good(&program);
    });
}

/// With an image written, `spoil`s the next one, which must fail with `words`; and the one after
/// that too.
fn survives(program: &Program, spoil: impl FnOnce(&Running), words: &[&str]) {
    let mut run = started(program);
    run.checkpoint();
    let image = run.image().to_owned();
    let before = fs::read(&image).expect("the image");
    spoil(&run);
    for _ in 0..2 {
        let line = run.refuses(words);
        assert!(line.contains("mycheckpoint"), "the file is not named: {line}");
        assert!(fs::read(&image).expect("the image") == before, "the image has changed");
        run.check();
    }
    run.quit();
    is_good(program);
}

/// Limits what `run` may have of a resource from now on, in the words of prlimit(1): `fsize=1:2` is
/// a soft limit of 1 and a hard one of 2. The user does so, since even root may not be allowed to
/// do it to others.
fn limit(user: User, run: &Running, limit: &str) {
    let mut prlimit = Command::new("prlimit");
    prlimit.arg(format!("--pid={}", run.pid)).arg(format!("--{limit}"));
    if let Some(id) = user.id() {
        prlimit.uid(id).gid(id);
    }
    common::place::run(&mut prlimit);
}

#[test]
fn a_limit_on_the_size_of_files() {
    each_user(|place| {
        let spoil = |run: &Running| limit(place.user, run, "fsize=100000");
        survives(&place.target("recursion"), spoil, &["EFBIG"]);
    });
}

#[test]
fn a_read_only_directory() {
    let place = Place::new(User::Ordinary);
    place.directory("images");
    let program = place
        .target("recursion")
        .env("CKPT_FILE", "images/mycheckpoint")
        .image("images/mycheckpoint");
    survives(&program, |_| place.mode("images", 0o555), &["EACCES"]);
    place.mode("images", 0o755);
}

#[test]
fn a_directory_that_is_gone() {
    each_user(|place| {
        place.directory("images");
        let program = place
            .target("recursion")
            .env("CKPT_FILE", "nowhere/mycheckpoint")
            .image("images/mycheckpoint");
        let mut run = started(&program);
        let line = run.refuses(&["nowhere/mycheckpoint", "ENOENT"]);
        assert!(line.starts_with("ckpt: "), "{line}");
        run.check();
        run.quit();
    });
}

#[test]
fn a_full_disk() {
    // A small file system that only the program sees, in a name space of its own.
    let place = Place::new(User::everyone()[0]);
    let unshare = if place.user == User::Root { "-m" } else { "-rm" };
    let possible = Command::new("unshare").args([unshare, "true"]).status();
    if !possible.is_ok_and(|status| status.success()) {
        return not_run("a full disk: no name space of our own is to be had here");
    }
    place.directory("small");
    const SCRIPT: &str = "
        mount -t tmpfs -o size=\"$1\" none small && chmod 777 small &&
        LD_PRELOAD=\"$2\" CKPT_FILE=small/mycheckpoint exec ./recursion";
    let target = place.target("recursion");
    let size = image_size(&target) * 3 / 2;
    let program = place.system("/usr/bin/unshare").args([
        unshare,
        "sh",
        "-c",
        SCRIPT,
        "sh",
        &size.to_string(),
        place.artifact("libckpt.so").to_str().expect("UTF-8"),
    ]);

    let mut run = program.start_bare();
    run.expect("ready");
    let directory = format!("/proc/{}/root{}/small", run.pid, place.path("").display());
    run.image_is(Path::new(&directory).join("mycheckpoint"));
    // One image fits, a second beside it does not.
    let image = run.checkpoint();
    let before = fs::read(&image).expect("the image");
    for _ in 0..2 {
        run.refuses(&["small/mycheckpoint", "ENOSPC"]);
        assert!(fs::read(&image).expect("the image") == before, "the image has changed");
        run.check();
    }
    fs::write(target.image.clone(), before).expect("saving the image");
    run.quit();
}

/// How large the image of `program` is.
fn image_size(program: &Program) -> u64 {
    let image = started(program).checkpoint();
    let size = fs::metadata(&image).expect("the image").len();
    fs::remove_file(image).expect("removing the image");
    size
}

#[test]
fn nobody_reads_its_standard_error() {
    each_user(|place| {
        let program = place.target("recursion").env("CKPT_FILE", "nowhere/mycheckpoint");
        let mut run = started(&program);
        run.break_errors();
        run.signal(libc::SIGUSR2);
        run.check();
        run.quit();
    });
}

#[test]
fn it_has_no_standard_error() {
    fn close_errors() -> io::Result<()> {
        // SAFETY: closes a descriptor that nobody uses between fork and exec.
        unsafe { libc::close(2) };
        Ok(())
    }
    each_user(|place| {
        let program = place.target("recursion").before(close_errors);
        let mut run = started(&program.clone().env("CKPT_FILE", "nowhere/mycheckpoint"));
        run.signal(libc::SIGUSR2);
        run.check();
        run.quit();

        let mut run = started(&program);
        run.checkpoint();
        run.kill();
        is_good(&program);
    });
}

/// The library must not need memory when it can no longer be had.
#[test]
fn memory_is_short() {
    each_user(|place| {
        let program = place.system("/bin/cat");
        let mut run = program.start();
        run.reads_stdin();
        limit(place.user, &run, "as=0");
        run.checkpoint();
        run.send("unharmed");
        run.expect("unharmed");
        run.close_input();
        run.ends_well();
    });
}

#[test]
fn no_descriptor_is_free() {
    each_user(|place| {
        let mut run = started(&place.target("recursion"));
        run.reads_stdin();
        limit(place.user, &run, "nofile=3");
        run.refuses(&["EMFILE"]);
        run.check();
        run.quit();
    });
}

/// What the program could grant itself, it may have for a checkpoint; its limits stay as they were.
#[test]
fn soft_limits_are_not_in_the_way() {
    each_user(|place| {
        let program = place.target("recursion");
        let limits = |run: &Running| fs::read_to_string(format!("/proc/{}/limits", run.pid));
        let mut run = started(&program);
        limit(place.user, &run, "nofile=3:100");
        limit(place.user, &run, "fsize=100000:100000000");
        let before = limits(&run).expect("its limits");
        run.checkpoint();
        run.check();
        assert_eq!(limits(&run).expect("its limits"), before);
        run.kill();
        let mut run = program.restart(&program.image);
        run.check();
        assert_eq!(limits(&run).expect("its limits"), before);
        run.quit();
    });
}
