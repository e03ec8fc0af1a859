//! How a program is started, and how a later life of it is: with the same kinds of streams.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs::{File, OpenOptions};
use std::iter::once;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::terminal::take_terminal;
use super::{Place, Running, Terminal, User};

/// What a standard stream is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stream {
    /// A pipe whose other end the test holds.
    Pipe,
    /// A regular file.
    File(PathBuf),
    /// A pseudo-terminal; standard error is always the same one.
    Terminal,
    /// One end of a pair of stream sockets, of which the test holds the other.
    Socket,
    /// `/dev/null`.
    Null,
}

/// A program, its arguments and surroundings.
#[derive(Clone)]
pub struct Program<'p> {
    pub place: &'p Place,
    pub command: PathBuf,
    arguments: Vec<OsString>,
    /// What the command is an argument of, if anything.
    wrapper: Vec<OsString>,
    environment: BTreeMap<OsString, OsString>,
    directory: PathBuf,
    stdin: Stream,
    stdout: Stream,
    /// Where the image is to be expected.
    pub image: PathBuf,
    /// The signal that asks for it.
    pub signal: i32,
    /// Resource limits: which, and how much.
    limits: Vec<(i32, u64)>,
    /// Rows and columns of the terminal, if it is on one.
    window: (u16, u16),
    /// Runs between fork and exec, last of all.
    before: Option<fn() -> std::io::Result<()>>,
}

impl<'p> Program<'p> {
    pub fn new(place: &'p Place, command: PathBuf) -> Program<'p> {
        let environment = [("PATH", "/usr/local/bin:/usr/bin:/bin"), ("TERM", "dumb")]
            .map(|(name, value)| (name.into(), value.into()))
            .into();
        Program {
            place,
            command,
            arguments: Vec::new(),
            wrapper: Vec::new(),
            environment,
            directory: place.path(""),
            stdin: Stream::Pipe,
            stdout: Stream::Pipe,
            image: place.path("mycheckpoint"),
            signal: libc::SIGUSR2,
            limits: Vec::new(),
            window: (24, 80),
            before: None,
        }
    }

    pub fn args<A: AsRef<OsStr>>(mut self, arguments: impl IntoIterator<Item = A>) -> Self {
        self.arguments.extend(arguments.into_iter().map(|a| a.as_ref().to_owned()));
        self
    }

    pub fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.environment.insert(name.into(), value.as_ref().into());
        self
    }

    /// Runs it, and its later lives, through `wrapper`, which executes what follows `arguments`.
    pub fn wrapped(mut self, wrapper: &str, arguments: &[&str]) -> Self {
        self.wrapper = once(wrapper).chain(arguments.iter().copied()).map(OsString::from).collect();
        self
    }

    /// Runs it in name spaces of its own, as a user without privileges: in each life they are new, as after a
    /// reboot. `first` is done in them before.
    pub fn in_new_spaces(&self, first: &str) -> Self {
        let script = format!("{first} exec \"$0\" \"$@\"");
        let spaces = ["--user", "--map-current-user", "--ipc", "sh", "-c", &script];
        self.clone().wrapped("unshare", &spaces)
    }

    /// Starts in `directory` of the place instead of the place itself; the image goes there too.
    pub fn directory(mut self, directory: &str) -> Self {
        self.directory = self.place.path(directory);
        self.image(format!("{directory}/mycheckpoint"))
    }

    pub fn stdin(mut self, stream: Stream) -> Self {
        self.stdin = stream;
        self
    }

    pub fn stdout(mut self, stream: Stream) -> Self {
        self.stdout = stream;
        self
    }

    /// Standard output is the file `name` of the place.
    pub fn into_file(self, name: &str) -> Self {
        let file = self.place.file(name, "");
        self.stdout(Stream::File(file))
    }

    /// All three streams are one terminal.
    pub fn on_terminal(self) -> Self {
        self.stdin(Stream::Terminal).stdout(Stream::Terminal)
    }

    /// Says how many rows and columns its terminal has.
    pub fn window(mut self, rows: u16, columns: u16) -> Self {
        self.window = (rows, columns);
        self
    }

    /// Says where the image will appear.
    pub fn image(mut self, path: impl AsRef<Path>) -> Self {
        self.image = self.place.path(path);
        self
    }

    /// Says what signal asks for a checkpoint.
    pub fn signal(mut self, signal: i32) -> Self {
        self.signal = signal;
        self
    }

    pub fn limit(mut self, resource: i32, value: u64) -> Self {
        self.limits.push((resource, value));
        self
    }

    /// Calls `action` in the child, just before the program begins.
    pub fn before(mut self, action: fn() -> std::io::Result<()>) -> Self {
        self.before = Some(action);
        self
    }

    /// Starts it under the library.
    pub fn start(&self) -> Running {
        let library = self.place.artifact("libckpt.so");
        let program = self.clone().env("LD_PRELOAD", library);
        program.spawn(&program.command, &program.arguments)
    }

    /// Starts it without the library.
    pub fn start_bare(&self) -> Running {
        self.spawn(&self.command, &self.arguments)
    }

    /// Continues it from `image`.
    pub fn restart(&self, image: &Path) -> Running {
        self.spawn(&self.place.artifact("restart-static"), &[image.into()])
    }

    /// Continues it from `image`, with `options` for `restart-static`.
    pub fn restart_with(&self, options: &[&str], image: &Path) -> Running {
        let arguments = options.iter().map(OsString::from).chain(once(image.into()));
        self.spawn(&self.place.artifact("restart-static"), &arguments.collect::<Vec<_>>())
    }

    /// Continues it from `image`, which must be refused in one line that contains all of `words`.
    pub fn refuses_to_restart(&self, image: &Path, words: &[&str]) {
        self.refuses_to_restart_with(&[], image, words);
    }

    /// Continues it from `image` where the kernel gives only higher ids than that of an object which is gone:
    /// without the privilege to choose one, that must be refused.
    pub fn restarts_where_ids_have_passed(&self, image: &Path) {
        if self.place.user == User::Ordinary {
            return self.refuses_to_restart(image, &["its id", "CAP_CHECKPOINT_RESTORE"]);
        }
        let mut run = self.restart(image);
        run.check();
        run.quit();
    }

    /// The same with `options`.
    pub fn refuses_to_restart_with(&self, options: &[&str], image: &Path, words: &[&str]) {
        let mut run = self.restart_with(options, image);
        run.close_input();
        let status = run.wait();
        let line = run.errors();
        assert_eq!((status.code(), &*run.all_output()), (Some(125), ""), "{line}");
        assert!(line.lines().count() == 1 && line.starts_with("restart-static: "), "{line}");
        assert!(words.iter().all(|word| line.contains(word)), "{words:?} in {line:?}");
    }

    /// What it writes to standard output in a life that nobody disturbs, `input` being its whole
    /// standard input.
    pub fn undisturbed(&self, input: &str) -> String {
        let mut run = self.clone().stdout(Stream::Pipe).start_bare();
        run.send_all(input);
        run.close_input();
        let status = run.wait();
        assert!(status.success(), "undisturbed, {:?}: {status}\n{}", self.command, run.errors());
        run.all_output()
    }

    /// The command itself, as the user and with the environment that it is to have.
    pub fn to_command(&self) -> Command {
        self.command_of(&self.command, &self.arguments)
    }

    fn command_of(&self, command: &Path, arguments: &[OsString]) -> Command {
        let mut words =
            self.wrapper.iter().map(OsString::as_os_str).chain(once(command.as_os_str()));
        let mut child = Command::new(words.next().expect("the command at least"));
        child
            .args(words)
            .args(arguments)
            .env_clear()
            .envs(&self.environment)
            .current_dir(&self.directory);
        if let Some(id) = self.place.user.id() {
            child.uid(id).gid(id); // and, being root, leaves all other groups
        }
        // SAFETY: it makes a system call between fork and exec.
        unsafe { child.pre_exec(inherit_nothing) };
        child
    }

    fn spawn(&self, command: &Path, arguments: &[OsString]) -> Running {
        let mut child = self.command_of(command, arguments);
        let is_one = |stream| [&self.stdin, &self.stdout].contains(&&stream);
        let terminal = is_one(Stream::Terminal).then(|| Terminal::open(self.window));
        let program_end = || stdio(&terminal.as_ref().expect("opened above").program);
        let sockets = is_one(Stream::Socket).then(|| UnixStream::pair().expect("socketpair"));
        let socket_end = || sockets.as_ref().expect("made above").1.try_clone().expect("dup");
        child.stdin(match &self.stdin {
            Stream::Pipe => Stdio::piped(),
            Stream::File(path) => File::open(path).expect("the standard input").into(),
            Stream::Terminal => program_end(),
            Stream::Socket => OwnedFd::from(socket_end()).into(),
            Stream::Null => Stdio::null(),
        });
        child.stdout(match &self.stdout {
            Stream::Pipe => Stdio::piped(),
            // A later life opens its file by itself, and what it is started with shows nothing.
            Stream::File(_) if command != self.command => Stdio::piped(),
            Stream::File(path) => appendable(path).into(),
            Stream::Terminal => program_end(),
            Stream::Socket => OwnedFd::from(socket_end()).into(),
            Stream::Null => Stdio::null(),
        });
        child.stderr(if terminal.is_some() { program_end() } else { Stdio::piped() });
        let (limits, before, leads) =
            (self.limits.clone(), self.before, self.stdin == Stream::Terminal);
        // SAFETY: only system calls are made between fork and exec, and nothing is allocated.
        unsafe {
            child.pre_exec(move || {
                limits.iter().try_for_each(|&(resource, value)| limit(resource, value))?;
                if leads {
                    take_terminal()?;
                }
                before.map_or(Ok(()), |action| action())
            });
        }
        let user_end = terminal.map(|t| t.user).or(sockets.map(|(user, _)| user.into()));
        Running::start(child, user_end, self)
    }
}

fn stdio(end: &OwnedFd) -> Stdio {
    end.try_clone().expect("dup").into()
}

fn appendable(path: &Path) -> File {
    OpenOptions::new().create(true).write(true).truncate(true).open(path).expect("the output file")
}

/// Sees to it that a program begins with its three standard streams and nothing else, whatever the
/// test itself was started with. To be called between fork and exec.
pub fn inherit_nothing() -> std::io::Result<()> {
    const CLOSE_RANGE_CLOEXEC: u32 = 4;
    // SAFETY: a system call without pointers, whose effect comes with the exec.
    match unsafe { libc::syscall(libc::SYS_close_range, 3, u32::MAX, CLOSE_RANGE_CLOEXEC) } {
        0 => Ok(()),
        _ => Err(std::io::Error::last_os_error()),
    }
}

fn limit(resource: i32, value: u64) -> std::io::Result<()> {
    let limit = libc::rlimit { rlim_cur: value, rlim_max: value };
    // SAFETY: the kernel only reads the limit.
    match unsafe { libc::setrlimit(resource as _, &limit) } {
        0 => Ok(()),
        _ => Err(std::io::Error::last_os_error()),
    }
}
