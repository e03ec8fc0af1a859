//! What is no image of ours, or a damaged one: `restart-static` says so in one line, exits with 125
//! and runs nothing.

mod common;

use std::fs;
use std::os::unix::process::CommandExt;
use std::process::Command;

use ckpt_image::machine_name;
use common::{PATIENCE, Place, User, random, repetitions, work};
use rand::Rng;

/// A place with `restart-static` in it.
struct Restarter(Place);

impl Restarter {
    fn new(user: User) -> Restarter {
        Restarter(Place::new(user))
    }

    /// Runs it with `arguments`, but not for ever: exit status, standard output, standard error.
    fn run(&self, arguments: &[&str]) -> (Option<i32>, String, String) {
        let mut command = Command::new("timeout");
        command.args(["--signal=KILL", &PATIENCE.as_secs().to_string()]);
        command.arg(self.0.artifact("restart-static"));
        command.args(arguments).current_dir(self.0.path(""));
        if let Some(id) = self.0.user.id() {
            command.uid(id).gid(id);
        }
        let done = command.output().expect("running restart-static");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (done.status.code(), text(&done.stdout), text(&done.stderr))
    }

    /// Runs it with `arguments`, which it must refuse; returns its line.
    fn refuses(&self, arguments: &[&str], what: &str) -> String {
        let (status, output, errors) = self.run(arguments);
        let one_line = errors.lines().count() == 1 && errors.ends_with('\n');
        let refused = status == Some(125) && output.is_empty();
        assert!(
            refused && one_line && errors.starts_with("restart-static: "),
            "{what}: status {status:?}, output {output:?}, errors {errors:?}"
        );
        errors
    }

    /// Writes `bytes` to a file, which it must refuse.
    fn refuses_bytes(&self, bytes: &[u8], what: &str) -> String {
        self.0.file("bad", bytes);
        let line = self.refuses(&["bad"], what);
        assert!(line.contains("bad"), "{what}: the file is not named in {line:?}");
        line
    }

    /// The bytes of a good image.
    fn image(&self) -> Vec<u8> {
        let program = self.0.target("counting-test").args(["1", "300", "10"]);
        let mut run = program.start();
        run.expect("1");
        fs::read(run.checkpoint()).expect("the image")
    }
}

#[test]
fn no_image_at_all() {
    for user in User::everyone() {
        let restarter = Restarter::new(user);
        let line = restarter.refuses(&["nowhere/image"], "no file");
        assert!(line.contains("nowhere/image") && line.contains("ENOENT"), "{line}");
        restarter.refuses(&[], "no argument");
        restarter.refuses(&["--nonsense"], "an unknown option");
        restarter.refuses(&["one", "two"], "two arguments");
        restarter.refuses(&["/"], "a directory");
        restarter.refuses(&["/dev/null"], "a device");
        restarter.refuses_bytes(b"", "an empty file");
        restarter.refuses_bytes(b"\n", "a line");
        restarter.refuses_bytes("a text of some length\n".repeat(1000).as_bytes(), "a text");
        restarter.refuses_bytes(&[0; 1 << 20], "zeros");
        restarter.refuses_bytes(&fs::read("/bin/cat").expect("cat"), "a program");
    }
}

#[test]
fn an_unreadable_image() {
    let restarter = Restarter::new(User::Ordinary);
    restarter.0.file("image", restarter.image());
    restarter.0.mode("image", 0o000);
    let line = restarter.refuses(&["image"], "an unreadable file");
    assert!(line.contains("EACCES"), "{line}");
}

#[test]
fn a_fifo_does_not_hang_it() {
    let restarter = Restarter::new(User::Ordinary);
    let made = Command::new("mkfifo").args(["-m", "666"]).arg(restarter.0.path("fifo")).status();
    assert!(made.expect("mkfifo").success());
    restarter.refuses(&["fifo"], "a fifo");
}

#[test]
fn a_truncated_image() {
    let restarter = Restarter::new(User::Ordinary);
    let image = restarter.image();
    let count = work(64);
    let parts = (0..count).map(|part| image.len() * part / count);
    let beginnings = (0..4096).step_by(4096 / work(42));
    let ends = [1, 2, 8, 64, 4095, 4096].map(|short| image.len() - short);
    for length in parts.chain(beginnings).chain(ends) {
        restarter.refuses_bytes(&image[..length], &format!("cut to {length} of {}", image.len()));
    }
}

#[test]
fn an_image_with_one_flipped_bit() {
    let restarter = Restarter::new(User::Ordinary);
    let mut image = restarter.image();
    let mut random = random();
    // All over the file, and more densely where it says what it contains.
    let all_over = (0..repetitions(100)).map(|_| random.random_range(0..image.len()));
    let mut places: Vec<usize> = all_over.collect();
    // And the last byte before the first page, which belongs to neither.
    const OFFSET_OF_FIRST_PAGE: usize = 64 + 56 + 8; // p_offset of the second program header
    let first_page = image[OFFSET_OF_FIRST_PAGE..][..8].try_into().expect("8 bytes");
    places.push(u64::from_le_bytes(first_page) as usize - 1);
    places.extend((0..repetitions(100)).map(|_| random.random_range(0..8192)));
    for place in places {
        let bit = 1 << random.random_range(0..8);
        image[place] ^= bit;
        restarter.refuses_bytes(&image, &format!("bit {bit:#x} flipped in byte {place}"));
        image[place] ^= bit;
    }
}

#[test]
fn an_image_of_another_machine() {
    const E_MACHINE: usize = 18;
    const KNOWN: [u16; 2] = [62, 183];
    let restarter = Restarter::new(User::Ordinary);
    let mut image = restarter.image();
    for other in KNOWN.into_iter().filter(|&machine| machine != ckpt_arch::ELF_MACHINE) {
        image[E_MACHINE..][..2].copy_from_slice(&other.to_le_bytes());
        let line = restarter.refuses_bytes(&image, "an image of another machine");
        assert!(line.contains(&format!("was taken on {}", machine_name(other))), "{line}");
    }
}

/// docs/format.md: the first note is that of the process, and begins with the version.
#[test]
fn an_image_of_a_later_version() {
    const NOTE_HEADER_AND_NAME: usize = 12 + 8;
    const OFFSET_OF_NOTES: usize = 64 + 8; // p_offset of the first program header
    let restarter = Restarter::new(User::Ordinary);
    let mut image = restarter.image();
    let notes = image[OFFSET_OF_NOTES..][..8].try_into().expect("8 bytes");
    let version = u64::from_le_bytes(notes) as usize + NOTE_HEADER_AND_NAME;
    assert_eq!(image[version..][..4], ckpt_image::VERSION.to_le_bytes());
    image[version] = 77;
    let line = restarter.refuses_bytes(&image, "an image of a later version");
    assert!(line.contains("version 77"), "{line}");
}

#[test]
fn help_and_version() {
    let restarter = Restarter::new(User::Ordinary);
    let (status, output, errors) = restarter.run(&["--help"]);
    assert_eq!((status, &*errors), (Some(0), ""));
    assert!(output.contains("restart-static") && output.contains("IMAGE"), "{output}");
    let (status, output, errors) = restarter.run(&["--version"]);
    assert_eq!((status, &*errors), (Some(0), ""));
    assert!(output.contains(env!("CARGO_PKG_VERSION")), "{output}");
    assert_eq!(output.lines().count(), 1);
}
