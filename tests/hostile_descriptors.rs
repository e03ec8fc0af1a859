//! Images that lie about descriptors: every field of every record of one, in turn, says what it should
//! not. `restart-static` refuses that in one line, or the program runs on with what it got.

mod common;

use std::any::type_name;
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::CString;
use std::fs::{self, File};
use std::mem::offset_of;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use bytemuck::Pod;
use ckpt_image::files::{
    Connection, Descriptor, EventCounter, Extent, FileContents, FileTimer, Lock, Message, Pipe,
    PseudoTerminal, Queue, QueueMessage, Socket, SocketMessage, SocketOption, Terminal, Watch,
    WatchQueue, Watched, descriptor,
};
use ckpt_image::record::{MessageQueue, Segment, Session, WithTail, all_with_tails, first, kind};
use common::ends::{Ends, tell};
use common::place::names_in;
use common::{
    Edited, Liar, Place, Program, User, are_spaces_to_be_had, cargo, cases, random, repetitions,
};
use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::{IndexedMutRandom, IteratorRandom};

/// A record in a note of an image: what it is called in `docs/format.md`, where it begins, and the kind of
/// the descriptor that it belongs to.
struct Record {
    note: u32,
    name: &'static str,
    at: usize,
    kind: u32,
}

/// The records of a note.
struct Records<'n> {
    note: u32,
    bytes: &'n [u8],
    kind: u32,
    found: Vec<Record>,
}

impl<'n> Records<'n> {
    /// The records of `note`, in which `find` finds them.
    fn of(truth: &'n Edited, note: u32, find: fn(&mut Self, &'n [u8])) -> Vec<Record> {
        let bytes = truth.bytes(note);
        let mut records = Records { note, bytes, kind: 0, found: Vec::new() };
        find(&mut records, bytes);
        records.found
    }

    fn add<T>(&mut self, at: *const u8) {
        let name = type_name::<T>().rsplit("::").next().expect("a name");
        let at = at as usize - self.bytes.as_ptr() as usize;
        self.found.push(Record { note: self.note, name, at, kind: self.kind });
    }

    /// One that stands alone; returns what comes behind it.
    fn one<T: Pod>(&mut self, bytes: &'n [u8]) -> &'n [u8] {
        let (_, rest) = first::<T>(bytes).expect("a record");
        self.add::<T>(bytes.as_ptr());
        rest
    }

    /// All that there are.
    fn all<T: Pod>(&mut self, bytes: &'n [u8]) {
        bytes.chunks_exact(size_of::<T>()).for_each(|record| self.add::<T>(record.as_ptr()));
    }

    /// All that there are, with what stands behind each.
    fn with_tails<T: WithTail>(&mut self, bytes: &'n [u8]) -> Vec<(T, &'n [u8])> {
        let all: Vec<_> = all_with_tails::<T>(bytes).collect();
        for (_, tail) in &all {
            self.add::<T>(tail.as_ptr().wrapping_sub(size_of::<T>()));
        }
        all
    }

    fn descriptors(&mut self, note: &'n [u8]) {
        for (record, tail) in all_with_tails::<Descriptor>(note) {
            self.kind = record.kind;
            self.add::<Descriptor>(tail.as_ptr().wrapping_sub(size_of::<Descriptor>()));
            let (_, state) = record.path_and_state(tail);
            if !state.is_empty() {
                self.state(state);
            }
        }
    }

    fn state(&mut self, state: &'n [u8]) {
        match self.kind {
            descriptor::PIPE | descriptor::FIFO => {
                let messages = self.one::<Pipe>(state);
                self.with_tails::<Message>(messages);
            }
            descriptor::EVENT_COUNTER => drop(self.one::<EventCounter>(state)),
            descriptor::TIMER => drop(self.one::<FileTimer>(state)),
            descriptor::SIGNALS => drop(self.one::<u64>(state)),
            descriptor::EPOLL => self.all::<Watched>(state),
            descriptor::SOCKET => {
                let (socket, _) = first::<Socket>(state).expect("a socket");
                let rest = self.one::<Socket>(state);
                let parts = socket.parts(rest).expect("the rest of a socket");
                self.with_tails::<SocketOption>(parts.options);
                if parts.connection.is_some() {
                    self.one::<Connection>(&rest[parts.options.len()..]);
                }
                self.with_tails::<SocketMessage>(parts.messages);
            }
            descriptor::INOTIFY => {
                let watches = self.one::<WatchQueue>(state);
                self.with_tails::<Watch>(watches);
            }
            descriptor::TERMINAL | descriptor::OWN_TERMINAL => drop(self.one::<Terminal>(state)),
            descriptor::PSEUDO_TERMINAL => {
                let more = self.one::<Terminal>(state);
                let messages = self.one::<PseudoTerminal>(more);
                self.with_tails::<Message>(messages);
            }
            descriptor::MESSAGE_QUEUE => {
                let messages = self.one::<Queue>(state);
                self.with_tails::<QueueMessage>(messages);
            }
            kind if descriptor::WITH_LOCKS.contains(&kind) => self.all::<Lock>(state),
            kind => panic!("the state of a descriptor of kind {kind} is not known here"),
        }
    }

    fn queues(&mut self, note: &'n [u8]) {
        for (_, messages) in self.with_tails::<MessageQueue>(note) {
            self.with_tails::<Message>(messages);
        }
    }

    fn contents(&mut self, note: &'n [u8]) {
        for (_, extents) in self.with_tails::<FileContents>(note) {
            self.all::<Extent>(extents);
        }
    }
}

/// All records that are about descriptors.
fn records(truth: &Edited) -> Vec<Record> {
    let mut all = Records::of(truth, kind::DESCRIPTORS, Records::descriptors);
    all.extend(Records::of(truth, kind::FILE_CONTENTS, Records::contents));
    all.extend(Records::of(truth, kind::SEGMENTS, Records::all::<Segment>));
    all.extend(Records::of(truth, kind::MESSAGES, Records::queues));
    all.extend(Records::of(truth, kind::SESSION, Records::all::<Session>));
    all
}

/// The fields of a record by its table in `docs/format.md`: name, offset and size. Another test sees to it
/// that the tables are right.
fn fields(document: &str, record: &str) -> Vec<(String, usize, usize)> {
    let title = format!("`{record}`");
    let mut lines = document.lines();
    if !lines.any(|line| line.starts_with('#') && line.ends_with(&title)) {
        return vec![("value".to_owned(), 0, 8)];
    }
    let rows = lines.skip_while(|line| !line.starts_with("| offset")).skip(2);
    rows.map_while(|row| {
        let cells: Vec<_> = row.split('|').map(str::trim).collect();
        let number = |cell: &str| cell.parse::<usize>().ok();
        Some((cells.get(3)?.trim_matches('`').to_owned(), number(cells[1])?, number(cells[2])?))
    })
    .collect()
}

/// What a field may say instead of the truth.
fn lies(truth: &[u8], random: &mut StdRng) -> Vec<Vec<u8>> {
    let mut largest_signed = vec![0xff; truth.len()];
    *largest_signed.last_mut().expect("no empty field") = 0x7f;
    let mut one = vec![0; truth.len()];
    one[0] = 1;
    let mut flipped = truth.to_vec();
    *flipped.choose_mut(random).expect("no empty field") ^= 1 << random.random_range(0..8);
    let mut lies =
        vec![vec![0; truth.len()], one, vec![0xff; truth.len()], largest_signed, flipped];
    if truth.len() <= size_of::<u64>() {
        let mut value = [0; size_of::<u64>()];
        value[..truth.len()].copy_from_slice(truth);
        let value = u64::from_le_bytes(value);
        for other in [value.wrapping_add(1), value.wrapping_sub(1)] {
            lies.push(other.to_le_bytes()[..truth.len()].to_vec());
        }
    }
    let lies: BTreeSet<_> = lies.into_iter().filter(|lie| lie != truth).collect();
    lies.into_iter().choose_multiple(random, repetitions(2))
}

/// What the program left outside of itself, to be there again for each restart: the files of its place.
struct Outside {
    files: BTreeMap<PathBuf, (Vec<u8>, SystemTime)>,
}

impl Outside {
    fn of(place: &Place) -> Outside {
        let paths = fs::read_dir(place.path("")).expect("the place").flatten().map(|e| e.path());
        let state = |path: &Path| {
            let status = path.metadata().ok().filter(|status| status.is_file())?;
            Some((fs::read(path).ok()?, status.modified().ok()?))
        };
        let files = paths.filter_map(|path| Some((path.clone(), state(&path)?))).collect();
        Outside { files }
    }

    /// Makes it what it was.
    fn put_back(&self, pid: i32) {
        for (path, (contents, modified)) in &self.files {
            let now = path.metadata().expect("the file");
            let same = now.len() == contents.len() as u64 && now.modified().ok() == Some(*modified);
            if !same {
                fs::write(path, contents).expect("writing the file");
                let file = File::options().write(true).open(path).expect("the file");
                file.set_modified(*modified).expect("its time");
            }
        }
        forget(&format!("holds-memory-{pid}-"), 0x5eed_0000 | pid);
    }
}

/// Removes what the kernel keeps of the target `holds_memory` under such names and that key.
fn forget(names: &str, key: i32) {
    for name in names_in(Path::new("/dev/shm")).iter().filter(|name| name.contains(names)) {
        fs::remove_file(Path::new("/dev/shm").join(name)).expect("removing it");
    }
    for number in 0..3 {
        let name = CString::new(format!("/{names}{number}")).expect("a name");
        // SAFETY: it is a string.
        unsafe { libc::mq_unlink(name.as_ptr()) };
    }
    // SAFETY: calls without pointers but for none.
    unsafe {
        let segment = libc::shmget(key, 0, 0);
        if segment >= 0 {
            libc::shmctl(segment, libc::IPC_RMID, std::ptr::null_mut());
        }
    }
}

/// What is told about images instead of the truth, and what becomes of it.
struct Lies {
    document: String,
    random: StdRng,
    /// Which records have been lied about.
    seen: BTreeSet<(u32, u32, &'static str, String)>,
    outcomes: [usize; 3],
}

impl Lies {
    fn new() -> Lies {
        let document = fs::read_to_string(cargo::project().join("docs/format.md"));
        let document = document.expect("the format");
        Lies { document, random: random(), seen: BTreeSet::new(), outcomes: [0; 3] }
    }

    /// Lies about each field of each kind of record in an image of `holds`.
    fn tell(&mut self, liar: &Liar<'_>, holds: &str, records: Vec<Record>, put_back: impl Fn()) {
        let mut all = Vec::new();
        for record in records {
            let of = if record.name == "Descriptor" { "" } else { holds };
            if !self.seen.insert((record.note, record.kind, record.name, of.to_owned())) {
                continue;
            }
            for (field, offset, size) in fields(&self.document, record.name) {
                let at = record.at + offset;
                let truth = &liar.truth.bytes(record.note)[at..at + size];
                for lie in lies(truth, &mut self.random) {
                    let what = format!(
                        "{holds}: {}.{field} of kind {} is {lie:x?} instead of {truth:x?}",
                        record.name, record.kind
                    );
                    all.push((record.note, at, lie, what));
                }
            }
        }
        for (note, at, lie, what) in cases(&all) {
            put_back();
            let outcome = liar.tells(liar.with(note, at, &lie), &what);
            self.outcomes[outcome as usize] += 1;
        }
        println!("refused, ended, died: {:?}", self.outcomes);
    }
}

/// Lies about what the images of `kinds` of a target have.
fn lie_about(target: &str, kinds: &[&str]) {
    lie_about_as(target, kinds, |program| program);
}

/// The same, of programs and restarts that `change` changes.
fn lie_about_as(target: &str, kinds: &[&str], change: impl Fn(Program<'_>) -> Program<'_>) {
    let mut lies = Lies::new();
    for holds in cases(kinds) {
        let place = Place::new(User::Ordinary);
        let liar = Liar::of(change(place.compiled("gcc", target).args([holds])));
        let outside = Outside::of(&place);
        lies.tell(&liar, holds, records(&liar.truth), || outside.put_back(liar.pid));
    }
}

#[test]
fn pipes_counters_and_sets() {
    lie_about(
        "holds_objects",
        &["pipe", "packets", "fifo", "counters", "timers", "signals", "epoll", "process", "owner"],
    );
}

#[test]
fn memory() {
    lie_about("holds_memory", &["memfd", "deleted", "shared", "segments", "queues"]);
}

/// In name spaces of their own, where the queues of a restart have the ids that they had.
#[test]
fn messages() {
    if are_spaces_to_be_had(&Place::new(User::Ordinary), "lies about messages") {
        let kinds = ["types", "full", "empty"];
        lie_about_as("holds_messages", &kinds, |program| program.in_new_spaces(""));
    }
}

#[test]
fn sockets() {
    lie_about(
        "holds_sockets",
        &[
            "stream",
            "passed",
            "credentials",
            "alone",
            "listening",
            "names",
            "addressed",
            "udp",
            "filtered",
            "tcp",
            "netlink",
        ],
    );
}

/// A connection with something on its way in both directions, whose peer is gone when there is the image.
#[test]
fn connections() {
    let place = Place::new(User::Ordinary);
    let Some(Ends { program, mut own, mut peer }) = Ends::connected(&place, "gcc", "127.0.0.1")
    else {
        return;
    };
    tell(&mut own, "deliver 1");
    tell(&mut peer, "deliver 3000");
    tell(&mut peer, "down");
    tell(&mut own, "send 2000");
    let liar = Liar::of_running(program, own);
    tell(&mut peer, "up");
    tell(&mut peer, "close"); // There is a byte that it has not read: this is a reset.
    let mut records = records(&liar.truth);
    records.retain(|record| record.kind == descriptor::SOCKET);
    assert!(records.iter().any(|record| record.name == "Connection"));
    Lies::new().tell(&liar, "connection", records, || {});
}

#[test]
fn files() {
    lie_about(
        "holds_files",
        &["record-locks", "leases", "watches", "directories", "places", "kernel"],
    );
}

/// A place that would be opened: of a FIFO, which would wait for ever.
#[test]
fn a_place_that_is_opened() {
    let place = Place::new(User::Ordinary);
    let script = "import os; os.mkfifo('fifo'); fd = os.open('fifo', os.O_PATH)\n\
                  print('ready', flush=True); input()";
    let liar = Liar::of(place.system("/usr/bin/python3").args(["-c", script]));
    let is_place = |record: &Record| record.kind == descriptor::PLACE;
    let record = records(&liar.truth).into_iter().find(is_place).expect("the place");
    liar.is_refused(record.note, record.at + offset_of!(Descriptor, flags), &[0; 4]);
}

#[test]
fn terminals() {
    lie_about("holds_terminals", &["keys", "masters"]);
}
