//! Target: data parallelism with rayon, whose workers steal jobs from each other and sleep in between.
//!
//!     parallel [ROUNDS]
//!
//! Prints a line a round, the same in every run, of what parallel iterators, a parallel sort, a
//! recursive `join`, a `scope` and a `broadcast` have made of some numbers; and sleeps for `PACE`
//! milliseconds after each.

use std::sync::mpsc;
use std::time::Duration;
use std::{env, thread};

use rayon::prelude::*;

fn mix(number: u64) -> u64 {
    let mixed = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed ^ mixed >> 29
}

/// The same again and again, which takes a while.
fn mixed(number: u64) -> u64 {
    (0..100).fold(number, |number, _| mix(number + 1))
}

/// The sum by halves, each of which may be stolen.
fn sum(numbers: &[u64]) -> u64 {
    match numbers {
        [number] => *number,
        _ => {
            let (left, right) = numbers.split_at(numbers.len() / 2);
            let (left, right) = rayon::join(|| sum(left), || sum(right));
            left.wrapping_add(mix(right))
        }
    }
}

/// The sum of what jobs send to the thread that has spawned them.
fn received(numbers: &[u64]) -> u64 {
    let (sender, receiver) = mpsc::channel();
    rayon::in_place_scope(|scope| {
        for chunk in numbers.chunks(64) {
            let sender = sender.clone();
            scope
                .spawn(move |_| sender.send(chunk.iter().fold(0, |a, b| a ^ b)).expect("receiver"));
        }
        drop(sender);
        receiver.iter().fold(0, |a, b| a ^ b)
    })
}

fn main() {
    let rounds = env::args().nth(1).map_or(100, |rounds| rounds.parse().expect("a number"));
    let pace = env::var("PACE").map_or(0, |pace| pace.parse().expect("a number"));
    rayon::ThreadPoolBuilder::new().num_threads(4).build_global().expect("threads");
    for round in 0..rounds {
        let mut numbers: Vec<u64> =
            (0..4096).into_par_iter().map(|number| mixed(round * 4096 + number)).collect();
        let (sum, received) = (sum(&numbers), received(&numbers));
        numbers.par_sort_unstable();
        let even = numbers.par_iter().filter(|number| **number % 2 == 0).count();
        let workers = rayon::broadcast(|worker| worker.index());
        println!("{round} {sum:x} {received:x} {:x} {even} {workers:?}", numbers[2048]);
        thread::sleep(Duration::from_millis(pace));
    }
}
