//! What the whole-process tests share: a place to work in, programs to run there, and the waiting
//! for what they do.
//!
//! Nothing sleeps here in the hope that something has happened meanwhile. A test waits for a line,
//! for the end of a process, or for the rename that puts an image in its place, each with a
//! generous deadline whose expiry tells all that is known of the program.

#![allow(dead_code, unused_imports, reason = "each test file uses a part of it")]

mod edited;
pub mod maps;
pub mod place;
pub mod program;
mod running;
mod source;
mod terminal;
mod watch;

pub use edited::Edited;
pub use place::{Place, User};
pub use program::{Program, Stream};
pub use running::{Running, killed_by};
pub use terminal::Terminal;
pub use watch::Watch;

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

use rand::SeedableRng;
use rand::rngs::StdRng;

/// How long a test waits for anything before it gives up.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Runs `test` once as each kind of user, in a fresh place each time.
pub fn each_user(test: impl Fn(&Place)) {
    for user in User::everyone() {
        println!("as {user:?}");
        test(&Place::new(user));
    }
}

/// How often a test that strikes at random is to strike: `CKPT_REPEAT`, else `few`.
pub fn repetitions(few: usize) -> usize {
    std::env::var("CKPT_REPEAT").map_or(few, |n| n.parse().expect("CKPT_REPEAT is a number"))
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
