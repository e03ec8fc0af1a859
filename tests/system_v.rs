//! What programs know by ids that the kernel chooses for the whole machine: System V shared memory,
//! semaphores and messages.

mod common;

use std::process::Command;

use common::place::run;
use common::{Place, Program, User, cases, not_run};

/// Has eight of each, and tells which. Restarted, it tells what is in them, and at last removes them.
const HOLDER: &str = "
import ctypes
libc = ctypes.CDLL(None); libc.shmat.restype = ctypes.c_void_p; numbers = range(8)
sets = [libc.semget(0, 1, 0o3600) for n in numbers]
segments = [libc.shmget(0, 4096, 0o3600) for n in numbers]
memory = [ctypes.c_void_p(libc.shmat(segment, None, 0)) for segment in segments]
for n in numbers: libc.semctl(sets[n], 0, 16, segments[n] & 0x7fff); ctypes.memmove(memory[n], b'%15d' % sets[n], 16)
for n in numbers: print('-s', sets[n], '-m', segments[n], end=' ')
print(flush=True); input()
print([libc.semctl(sets[n], 0, 12) == segments[n] & 0x7fff and ctypes.string_at(memory[n]) == b'%15d' % sets[n]
       for n in numbers].count(True), flush=True); input()
for n in numbers: libc.semctl(sets[n], 0, 0); libc.shmctl(segments[n], 0, None)
";

/// Which id the next one of a kind gets is chosen for the whole machine, so that a restart may get the one
/// that another has asked for. All end up with their own; a line would tell of another id of a segment.
#[test]
fn many_restarts_at_the_same_time_get_their_ids() {
    if !User::everyone().contains(&User::Root) {
        return not_run("restarts that choose ids at the same time, which takes root");
    }
    let places: Vec<_> = (0..12).map(|_| Place::new(User::Root)).collect();
    let holder =
        |place| -> Program { Place::system(place, "/usr/bin/python3").args(["-c", HOLDER]) };
    let programs: Vec<_> = places.iter().map(holder).collect();
    let mut lives: Vec<_> = programs.iter().map(Program::start).collect();
    let objects: Vec<_> = lives.iter_mut().map(|life| life.line()).collect();
    for life in &mut lives {
        life.reads_stdin();
        life.checkpoint();
    }
    for _ in cases(&[(); 6]) {
        lives.iter_mut().for_each(|life| life.kill());
        for ids in &objects {
            run(Command::new("ipcrm").args(ids.split_whitespace()));
        }
        lives = programs.iter().map(|program| program.restart(&program.image)).collect();
        for life in &mut lives {
            life.send("");
            life.expect("8");
        }
    }
    for life in &mut lives {
        life.send("");
        life.ends_well();
    }
}
