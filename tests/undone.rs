//! A restart that fails late leaves nothing behind that it has made, and works when the reason is gone.

mod common;

use std::ffi::CString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use common::place::{names_in, run};
use common::{Place, User, each_user};

/// Has one of all that a restart makes again by a name or an id, and says what is in it.
const HOLDER: &str = "
import ctypes, fcntl, os, signal, socket
libc = ctypes.CDLL(None, use_errno=True)
libc.shmat.restype = libc.sem_open.restype = ctypes.c_void_p
name, key = f'undone-{os.getpid()}', 0x5eee0000 | os.getpid()
shared = os.open('/dev/shm/' + name, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
os.write(shared, b'shared')
semaphore = ctypes.c_void_p(libc.sem_open(('/' + name).encode(), os.O_CREAT | os.O_EXCL, 0o600, 5))
segment = libc.shmget(key, 4096, 0o3600)
memory = ctypes.c_void_p(libc.shmat(segment, None, 0)); ctypes.memmove(memory, b'segment', 8)
set = libc.semget(key, 1, 0o3600); libc.semctl(set, 0, 16, 7)
messages = libc.msgget(key, 0o3600); libc.msgsnd(messages, b'\\1\\0\\0\\0\\0\\0\\0\\0letter', 7, 0)
queue = libc.mq_open(('/' + name).encode(), os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600, None)
libc.mq_send(queue, b'message', 7, 0)
server = socket.socket(socket.AF_UNIX); server.bind('name'); server.listen()
locked = open('locked', 'w'); fcntl.flock(locked, fcntl.LOCK_EX)
signal.signal(signal.SIGIO, signal.SIG_IGN)
leased = open('/dev/shm/leased-' + name, 'w+'); fcntl.fcntl(leased, fcntl.F_SETLEASE, fcntl.F_WRLCK)
print('ready', flush=True); input()
client = socket.socket(socket.AF_UNIX); client.connect('name')
value, message = ctypes.c_int(), ctypes.create_string_buffer(8192)
libc.sem_getvalue(semaphore, ctypes.byref(value)); libc.mq_receive(queue, message, 8192, None)
print(os.pread(shared, 9, 0), value.value, ctypes.string_at(memory), libc.semctl(set, 0, 12),
      message.value, libc.msgrcv(messages, message, 64, 0, 0), message.raw[8:15], fcntl.fcntl(leased, fcntl.F_GETLEASE) == fcntl.F_WRLCK)
libc.shmctl(libc.shmget(key, 0, 0), 0, None); libc.semctl(set, 0, 0); libc.msgctl(messages, 0, None); libc.mq_unlink(('/' + name).encode())
libc.sem_unlink(('/' + name).encode()); os.remove('/dev/shm/' + name); os.remove(leased.name)
";

/// What the program of that id has made, by name.
struct Things<'p> {
    place: &'p Place,
    pid: i32,
}

impl Things<'_> {
    fn key(&self) -> String {
        format!("{:#x}", 0x5eee_0000 | self.pid)
    }

    fn leased(&self) -> PathBuf {
        format!("/dev/shm/leased-undone-{}", self.pid).into()
    }

    /// Removes all but what is leased. Without a privilege what has an id could not be made again.
    fn remove(&self) {
        for name in self.files() {
            fs::remove_file(Path::new("/dev/shm").join(name)).expect("removing it");
        }
        fs::remove_file(self.place.path("name")).expect("removing it");
        run(Command::new("ipcrm").args(["-M", &self.key()]));
        if self.place.user == User::Root {
            run(Command::new("ipcrm").args(["-S", &self.key(), "-Q", &self.key()]));
        }
        // SAFETY: it is a string.
        assert_eq!(unsafe { libc::mq_unlink(self.queue().as_ptr()) }, 0);
    }

    fn queue(&self) -> CString {
        CString::new(format!("/undone-{}", self.pid)).expect("a name")
    }

    /// The files in `/dev/shm`, but the one that is leased.
    fn files(&self) -> Vec<String> {
        let mut names = names_in(Path::new("/dev/shm"));
        names.retain(|name| {
            name.contains(&format!("undone-{}", self.pid)) && !name.contains("leased")
        });
        names
    }

    /// What of that there is.
    fn left(&self) -> Vec<String> {
        let mut left = self.files();
        let key = i64::from(0x5eee_0000 | self.pid).to_string();
        let tables: &[&str] =
            if self.place.user == User::Root { &["shm", "sem", "msg"] } else { &["shm"] };
        for table in tables {
            let text = fs::read_to_string(format!("/proc/sysvipc/{table}")).expect("a table");
            left.extend(text.lines().filter(|line| line.contains(&key)).map(str::to_owned));
        }
        // SAFETY: it is a string.
        let queue = unsafe { libc::mq_open(self.queue().as_ptr(), libc::O_RDONLY) };
        if queue >= 0 {
            left.push("the queue".to_owned());
        }
        left.extend(self.place.names().into_iter().filter(|name| name == "name"));
        left
    }
}

/// What `HOLDER` has is removed; while another process has the file `obstacle` open, and has done `first` with
/// it, the restart fails, with `word`.
fn leaves_nothing(word: &str, first: &str, obstacle: impl Fn(&Things) -> PathBuf) {
    let script = format!("import fcntl, sys; file = open(sys.argv[1]); {first}; print(); input()");
    each_user(|place| {
        let program = place.system("/usr/bin/python3").args(["-c", HOLDER]);
        let mut run = program.start();
        run.expect("ready");
        run.reads_stdin();
        let things = Things { place, pid: run.pid };
        run.checkpoint();
        run.kill();
        things.remove();
        let other = place.system("/usr/bin/python3").args(["-c", &script]);
        let mut other = other.args([obstacle(&things)]).start_bare();
        other.expect("");
        // A segment that has been made with another id is told of, too.
        let mut failing = program.restart(&program.image);
        failing.close_input();
        assert_eq!(failing.wait().code(), Some(125));
        let line = failing.errors().lines().last().expect("a line").to_owned();
        assert!(line.contains(word), "{line}");
        assert_eq!(things.left(), [""; 0]);
        other.kill();
        let mut run = program.restart(&program.image);
        run.send("");
        run.expect("b'shared' 5 b'segment' 7 b'message' 7 b'letter\\x00' True");
        assert!(run.wait().success(), "{}", run.errors());
    });
}

/// Another process has the lock on a file: that fails before anything else is changed.
#[test]
fn a_lock_that_another_process_has() {
    leaves_nothing("locked", "fcntl.flock(file, fcntl.LOCK_EX)", |things| {
        things.place.path("locked")
    });
}

/// Another process has a file open for which the program had a lease, which comes last of all.
#[test]
fn a_lease_that_cannot_be_had() {
    leaves_nothing("leased", "pass", |things| things.leased());
}
