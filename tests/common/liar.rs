//! Images that are made to lie, and what becomes of them.

use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Command, Stdio};

use ckpt_image::record::{Mapping, mapping};

use super::{Edited, Program, Running, cargo, place};

/// What became of an image.
#[derive(Debug, PartialEq)]
pub enum Outcome {
    /// One line and status 125.
    Refused,
    /// The program ran to its end.
    Ended,
    /// The program got what the image said of it, and died of that by itself.
    Died,
}

/// A true image of an ordinary user's program, to be made to lie.
pub struct Liar<'p> {
    program: Program<'p>,
    pub truth: Edited,
    pub mappings: Vec<Mapping>,
    /// The process that it was taken of, which is gone.
    pub pid: i32,
}

/// Whatever an image says, `ckpt inspect` prints it, or why not.
fn inspect(image: &Path, what: &str) {
    let printed = Command::new(cargo::command()).arg("inspect").arg(image).output();
    let printed = printed.expect("ckpt inspect");
    let errors = String::from_utf8_lossy(&printed.stderr);
    let expected = match printed.status.code() {
        Some(0) => errors.is_empty(),
        Some(1) => errors.lines().count() == 1,
        _ => false,
    };
    assert!(expected, "{what}: ckpt inspect: {}: {errors}", printed.status);
}

impl<'p> Liar<'p> {
    /// That of `program`, which says when it is ready, and then waits for its input to end.
    pub fn of(program: Program<'p>) -> Liar<'p> {
        let mut run = program.start();
        run.expect("ready");
        Liar::of_running(program, run)
    }

    /// The same of one that has been started.
    pub fn of_running(program: Program<'p>, mut run: Running) -> Liar<'p> {
        run.reads_stdin();
        run.checkpoint();
        run.kill();
        let truth = Edited::of(&run);
        let mappings = (mapping::KNOWN).flat_map(|k| truth.mappings(k));
        Liar { program, mappings: mappings.collect(), pid: run.pid, truth }
    }

    /// What becomes of `lie`. Anything else than the outcomes there are is a failure.
    pub fn tells(&self, lie: Edited, what: &str) -> Outcome {
        let image = lie.write(self.program.place, "lie");
        let mut run = self.program.restart(&image);
        run.close_input();
        let status = run.wait();
        let (output, errors) = (run.all_output(), run.errors());
        println!("{what}: {status}: {output:?} {errors:?}");
        assert!(!errors.contains("internal error"), "{what}");
        inspect(&image, what);
        let own = |line: &str| line.starts_with("restart-static: ");
        let note = |line: &str| line.starts_with("restart-static: note: ");
        if status.code() == Some(125) {
            let refusals = errors.lines().filter(|line| !note(line)).count();
            assert!(refusals == 1 && errors.lines().all(own) && output.is_empty(), "{what}");
            return Outcome::Refused;
        }
        if status.code() == Some(0) {
            return Outcome::Ended;
        }
        let signal = status.signal().unwrap_or(libc::SIGKILL);
        assert_ne!(signal, libc::SIGKILL, "{what}");
        // All other signals are blocked until the program goes on.
        let faults =
            [libc::SIGSEGV, libc::SIGBUS, libc::SIGILL, libc::SIGTRAP, libc::SIGABRT, libc::SIGFPE];
        assert!(!(faults.contains(&signal) && self.dies_in_restarter(&image)), "{what}");
        Outcome::Died
    }

    /// Whether it is restart-static's own code that `image` kills.
    fn dies_in_restarter(&self, image: &Path) -> bool {
        let place = self.program.place;
        let mut gdb = Command::new("gdb");
        gdb.args(["--batch", "-nx", "-ex", "set startup-with-shell off", "-ex", "run"]);
        gdb.args(["-ex", "printf \"pc %lx\\n\", $pc", "-ex", "info proc mappings", "--args"]);
        gdb.arg(place.artifact("restart-static")).arg(image).current_dir(place.path(""));
        gdb.stdin(Stdio::null());
        if let Some(id) = place.user.id() {
            gdb.uid(id).gid(id);
        }
        let said = place::run(&mut gdb);
        let number = |text: &str| u64::from_str_radix(text.trim_start_matches("0x"), 16).ok();
        let pc = said.lines().find_map(|line| number(line.strip_prefix("pc ")?));
        let pc = pc.unwrap_or_else(|| panic!("it does not die under gdb: {said}"));
        let mut there = said.lines().filter_map(|line| {
            let mut words = line.split_whitespace();
            Some(number(words.next()?)?..number(words.next()?)?)
        });
        let images = self.mappings.iter().any(|record| (record.start..record.end).contains(&pc));
        there.any(|range| range.contains(&pc)) && !images
    }

    /// Writes `value` over the note of type `kind`, from byte `at` on.
    pub fn with(&self, kind: u32, at: usize, value: &[u8]) -> Edited {
        let lie = self.truth.clone();
        lie.note(kind, |note| note[at..at + value.len()].copy_from_slice(value))
    }

    /// That lie must be refused.
    pub fn is_refused(&self, kind: u32, at: usize, value: &[u8]) {
        let what = format!("{value:x?} at {at} of note {kind:x}");
        assert_eq!(self.tells(self.with(kind, at, value), &what), Outcome::Refused, "{what}");
    }
}
