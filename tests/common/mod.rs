//! What the whole-process tests share: a place to work in, programs to run there, and the waiting
//! for what they do.
//!
//! Nothing sleeps here in the hope that something has happened meanwhile. A test waits for a line,
//! for the end of a process, or for the rename that puts an image in its place, each with a
//! generous deadline whose expiry tells all that is known of the program.

#![allow(dead_code, unused_imports, reason = "each test file uses a part of it")]

pub mod answers;
pub mod cargo;
mod edited;
pub mod ends;
mod filter;
pub mod kernel;
mod liar;
pub mod machine;
pub mod maps;
pub mod place;
pub mod program;
mod running;
mod source;
mod terminal;
mod tmux;
mod watch;

pub use edited::Edited;
pub use filter::{forbid_copies_of_messages, forbid_files_without_name, forbid_namespaces};
pub use liar::{Liar, Outcome};
pub use place::{Place, User};
pub use program::{Program, Stream};
pub use running::{Running, generations, killed_by};
pub use terminal::{PROMPT, Terminal, killing_the_job, shell};
pub use tmux::{Tmux, Window};
pub use watch::Watch;

use std::hash::{BuildHasher, RandomState};
use std::io::{Write, stdout};
use std::time::Duration;

use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;

/// How long a test waits for anything before it gives up. Only a failure takes so long, on a slow
/// machine too.
pub const PATIENCE: Duration = Duration::from_secs(300);

/// Runs `test` once as each kind of user, in a fresh place each time; on a slow machine as one of them.
pub fn each_user(test: impl Fn(&Place)) {
    for user in cases(&User::everyone()) {
        println!("as {user:?}");
        test(&Place::new(user));
    }
}

/// Says that something is not tested here, and why, where people see it: of a test that passes, the
/// harness shows nothing that is printed.
pub fn not_run(what: &str) {
    writeln!(stdout(), "not run: {what}").expect("writing to standard output");
}

/// Whether users may make name spaces of their own, as `what` after a reboot takes.
pub fn are_spaces_to_be_had(place: &Place, what: &str) -> bool {
    let status = place.system("/bin/true").in_new_spaces("").start_bare().wait();
    if !status.success() {
        not_run(&format!("{what} after a reboot, which takes name spaces of the user's own"));
    }
    status.success()
}

/// How often a test is to do what it does often: `usual` times, or `CKPT_REPEAT` times as often, which
/// may be 100 to strike more corners, or 0.1 on a slow machine.
pub fn repetitions(usual: usize) -> usize {
    let factor = std::env::var("CKPT_REPEAT")
        .map_or(1.0, |factor| factor.parse::<f64>().expect("CKPT_REPEAT is a number"));
    ((usual as f64 * factor).round() as usize).max(1)
}

/// How much work a program is to do for a test: `usual`, or less on a slow machine.
pub fn work(usual: usize) -> usize {
    repetitions(usual).min(usual)
}

/// So many lines to read that can be sorted, and compressed, but not much.
pub fn words(lines: usize) -> String {
    let mut state = 1u64;
    let mut line = |number| {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        format!("{} {number}\n", state >> 40)
    };
    (0..lines).map(&mut line).collect()
}

/// All of `cases`, or on a slow machine some of them at random.
pub fn cases<T: Clone>(cases: &[T]) -> Vec<T> {
    let count = work(cases.len());
    if count == cases.len() {
        return cases.to_vec();
    }
    cases.choose_multiple(&mut random(), count).cloned().collect()
}

/// Random numbers from `CKPT_SEED`, else from a seed that is printed, so that a failure can be had
/// again.
pub fn random() -> StdRng {
    let seed = match std::env::var("CKPT_SEED") {
        Ok(seed) => seed.parse().expect("CKPT_SEED is a number"),
        Err(_) => RandomState::new().hash_one(()),
    };
    println!("CKPT_SEED={seed}");
    StdRng::seed_from_u64(seed)
}
