//! A directory of its own for each test, which the user the programs run as can reach and owns.

use std::collections::BTreeMap;
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::{env, fs, thread};

use tempfile::TempDir;

use super::{Program, cargo, machine};

/// Whom a program runs as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum User {
    /// With every capability.
    Root,
    /// With none, and in no group.
    Ordinary,
}

impl User {
    /// Everyone that the tests can run programs as.
    pub fn everyone() -> Vec<User> {
        if tests_are_root() { vec![User::Root, User::Ordinary] } else { vec![User::Ordinary] }
    }

    /// The user id to change to, if it is not ours already.
    pub fn id(self) -> Option<u32> {
        const NOBODY: u32 = 65534;
        (self == User::Ordinary && tests_are_root()).then_some(NOBODY)
    }
}

/// Whether the tests themselves run as root.
pub fn tests_are_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// The directory a test works in. It is removed with its contents, unless the test fails.
pub struct Place {
    directory: TempDir,
    pub user: User,
}

impl Place {
    /// A fresh directory that belongs to `user`.
    pub fn new(user: User) -> Place {
        let directory = tempfile::Builder::new()
            .prefix("ckpt-test-")
            .tempdir_in(env::temp_dir().canonicalize().expect("the directory for temporary files"))
            .expect("creating a directory");
        let place = Place { directory, user };
        place.mode("", 0o755);
        place.give_away("");
        place
    }

    /// The full path of `name` in this place; of the place itself for the empty name.
    pub fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        if name.as_ref().as_os_str().is_empty() {
            return self.directory.path().to_owned();
        }
        self.directory.path().join(name)
    }

    /// Makes a directory that the user owns.
    pub fn directory(&self, name: &str) -> PathBuf {
        fs::create_dir_all(self.path(name)).expect("creating a directory");
        self.give_away(name);
        self.path(name)
    }

    /// Writes a file that the user owns.
    pub fn file(&self, name: &str, contents: impl AsRef<[u8]>) -> PathBuf {
        fs::write(self.path(name), contents).expect("writing a file");
        self.give_away(name);
        self.path(name)
    }

    /// Sets the permissions of `name`.
    pub fn mode(&self, name: &str, mode: u32) {
        fs::set_permissions(self.path(name), fs::Permissions::from_mode(mode)).expect("chmod");
    }

    /// All of `name` as text.
    pub fn text(&self, name: impl AsRef<Path>) -> String {
        let bytes = fs::read(self.path(name)).expect("reading a file");
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// The names in this place, sorted.
    pub fn names(&self) -> Vec<String> {
        names_in(&self.path(""))
    }

    /// The path of something that the build made, copied to where the user can reach it.
    pub fn artifact(&self, name: &str) -> PathBuf {
        self.copied(&cargo::artifacts().join(name))
    }

    /// A copy of `program`, made at the first call.
    pub fn copied(&self, program: &Path) -> PathBuf {
        let copy = self.path(program.file_name().expect("a name"));
        if !copy.exists() {
            // Not by ourselves: a child that another thread forks meanwhile would hold the copy
            // open for writing, and the kernel does not run a program that is being written.
            run(Command::new("install").args(["-m", "755"]).arg(program).arg(&copy));
        }
        copy
    }

    /// One of the build's programs.
    pub fn target(&self, name: &str) -> Program<'_> {
        Program::new(self, self.artifact(name))
    }

    /// Runs `ckpt` as the user: exit status, standard output, standard error.
    pub fn ckpt(&self, arguments: &[&str]) -> (Option<i32>, String, String) {
        let command = self.copied(&cargo::command());
        let done = Program::new(self, command).args(arguments).to_command().output();
        let done = done.expect("running ckpt");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (done.status.code(), text(&done.stdout), text(&done.stderr))
    }

    /// A program of the system.
    pub fn system(&self, path: &str) -> Program<'_> {
        assert!(Path::new(path).exists(), "{path} is needed; see .ci/run for the packages");
        Program::new(self, path.into())
    }

    /// Compiles the program `tests/targets/NAME.c` with `compiler`, `gcc` or `musl-gcc`, or `NAME.cc` with
    /// `g++`, and makes sure that it came out for the C library that was asked for; unless that has been done
    /// beforehand.
    pub fn compiled(&self, compiler: &str, name: &str) -> Program<'_> {
        let key = format!("{name}-{compiler}");
        if let Some(targets) = cargo::targets() {
            return Program::new(self, self.copied(&targets.join(key)));
        }
        let program = self.path(&key);
        if program.exists() {
            return Program::new(self, program);
        }
        let ending = if compiler == "g++" { "cc" } else { "c" };
        let source = cargo::project().join(format!("tests/targets/{name}.{ending}"));
        compile(compiler, &["-O2", "-g", "-pthread"], &source, &program);
        let interpreter = interpreter(&program).expect("a dynamically linked program");
        assert_eq!(interpreter.contains("ld-musl"), compiler == "musl-gcc", "{interpreter}");
        Program::new(self, program)
    }

    /// Compiles a C program that stands in the test itself.
    pub fn c(&self, compiler: &str, flags: &[&str], name: &str, text: &str) -> Program<'_> {
        let source = self.file(&format!("{name}.c"), text);
        compile(compiler, flags, &source, &self.path(name));
        Program::new(self, self.path(name))
    }

    /// Lets the user own `name`.
    fn give_away(&self, name: &str) {
        if let Some(id) = self.user.id() {
            chown(self.path(name), Some(id), Some(id)).expect("chown");
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if thread::panicking() {
            self.directory.disable_cleanup(true);
            eprintln!("what the test left is kept in {}", self.path("").display());
        }
    }
}

/// The names in `directory`, sorted.
pub fn names_in(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).expect("listing a directory");
    let mut names: Vec<_> =
        entries.map(|e| e.expect("an entry").file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

/// Runs a tool that must succeed; returns what it wrote to standard output.
pub fn run(command: &mut Command) -> String {
    let done = command.output().unwrap_or_else(|e| panic!("{command:?}: {e}"));
    let errors = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "{command:?}: {}\n{errors}", done.status);
    String::from_utf8_lossy(&done.stdout).into_owned()
}

/// What has been compiled for other places, by the compiler, its flags and the source.
static COMPILED: Mutex<BTreeMap<String, Arc<[u8]>>> = Mutex::new(BTreeMap::new());

fn compile(compiler: &str, flags: &[&str], source: &Path, program: &Path) {
    let text = fs::read_to_string(source).expect("reading the source");
    let key = format!("{compiler} {flags:?} {text}");
    let compiled = COMPILED.lock().expect("no panic").get(&key).cloned();
    if let Some(bytes) = compiled {
        return install(&bytes, program);
    }
    let of_machine = if compiler == "musl-gcc" { machine::FLAGS_FOR_MUSL } else { &[] };
    run(Command::new(compiler).args(of_machine).args(flags).arg("-o").arg(program).arg(source));
    let bytes = fs::read(program).expect("reading the program");
    COMPILED.lock().expect("no panic").insert(key, bytes.into());
}

/// Writes a program; not by ourselves, see [`Place::copied`].
fn install(bytes: &[u8], program: &Path) {
    let mut install = Command::new("install");
    install.args(["-m", "755", "/dev/stdin"]).arg(program).stdin(Stdio::piped());
    let mut running = install.spawn().expect("install");
    running.stdin.take().expect("a pipe").write_all(bytes).expect("writing to install");
    assert!(running.wait().expect("install").success());
}

/// The dynamic linker that `program` asks for.
pub fn interpreter(program: &Path) -> Option<String> {
    let headers = run(Command::new("readelf").arg("-lW").arg(program));
    let (_, rest) = headers.split_once("[Requesting program interpreter: ")?;
    Some(rest.split(']').next()?.to_owned())
}
