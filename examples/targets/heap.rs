//! Target: a long computation on the heap, to be checkpointed at any instant.
//!
//! ```text
//! heap SEED STEPS
//! ```
//!
//! Prints `start`, works for STEPS steps, and prints one line with a checksum. The steps
//! allocate, grow, shrink and free blocks, fill and empty a tree of strings, and do floating
//! point arithmetic, as a generator started from SEED decides. The answer depends on SEED
//! and STEPS alone: whatever happened between, an undisturbed run says what it must be.

mod pattern;

use pattern::mix;
use std::collections::BTreeMap;
use std::process::ExitCode;

/// No more than this many blocks, and entries in the tree.
const MANY: usize = 1000;

/// The longest block, in words.
const LONGEST: u64 = 4096;

/// All that the computation works on.
struct World {
    state: u64,
    blocks: Vec<Vec<u64>>,
    names: BTreeMap<u64, String>,
    real: f64,
    checksum: u64,
}

impl World {
    fn new(seed: u64) -> Self {
        Self {
            state: mix(seed),
            blocks: Vec::new(),
            names: BTreeMap::new(),
            real: 1.0,
            checksum: 0,
        }
    }

    /// The next random number below `limit`.
    fn random(&mut self, limit: u64) -> u64 {
        self.state = mix(self.state);
        self.state % limit
    }

    /// Folds `word` into the checksum.
    fn note(&mut self, word: u64) {
        self.checksum = mix(self.checksum ^ word);
    }

    /// A random block, taken out of the others.
    fn take_block(&mut self) -> Vec<u64> {
        if self.blocks.is_empty() {
            return Vec::new();
        }
        let index = self.random(self.blocks.len() as u64) as usize;
        self.blocks.swap_remove(index)
    }

    fn step(&mut self) {
        match self.random(6) {
            // A new block.
            0 if self.blocks.len() < MANY => {
                let (length, first) = (self.random(LONGEST), self.state);
                self.blocks.push((0..length).map(|n| first.wrapping_add(n)).collect());
            }
            // Grow a block, without spare room, so that it moves as it must.
            1 => {
                let mut block = self.take_block();
                let more = self.random(1 + LONGEST - block.len() as u64) as usize;
                block.reserve_exact(more);
                let (length, filler) = (block.len() + more, self.state);
                block.resize(length, filler);
                self.blocks.push(block);
            }
            // Shrink a block, and remember what was in the part given up.
            2 => {
                let mut block = self.take_block();
                let length = self.random(1 + block.len() as u64) as usize;
                for word in block.split_off(length) {
                    self.note(word);
                }
                block.shrink_to_fit();
                self.blocks.push(block);
            }
            // A new name in the tree.
            3 if self.names.len() < MANY => {
                let key = self.random(u64::MAX);
                let length = self.random(200) as usize;
                self.names.insert(key, format!("{key:0length$}"));
            }
            // Free a block, and take the first name out of the tree.
            4 => {
                self.take_block().into_iter().for_each(|word| self.note(word));
                if let Some((key, name)) = self.names.pop_first() {
                    self.note(key);
                    name.bytes().for_each(|byte| self.note(byte.into()));
                }
            }
            // Arithmetic that rounds, with nothing but what IEEE 754 defines to the last bit.
            _ => {
                for _ in 0..100 {
                    let x = self.random(1 << 20) as f64;
                    self.real = (self.real * 1.000_1 + x / 3.0).sqrt() + 0.1;
                }
                self.note(self.real.to_bits());
            }
        }
    }

    /// The checksum of all that was and still is.
    fn answer(mut self) -> u64 {
        while let Some(block) = self.blocks.pop() {
            block.into_iter().for_each(|word| self.note(word));
        }
        while let Some((key, name)) = self.names.pop_first() {
            self.note(key ^ name.len() as u64);
        }
        self.checksum
    }
}

fn main() -> ExitCode {
    let numbers: Option<Vec<u64>> =
        std::env::args().skip(1).map(|argument| argument.parse().ok()).collect();
    let Some([seed, steps]) = numbers.as_deref() else {
        eprintln!("usage: heap SEED STEPS");
        return ExitCode::from(2);
    };
    println!("start");
    let mut world = World::new(*seed);
    for _ in 0..*steps {
        world.step();
    }
    println!("{:016x}", world.answer());
    ExitCode::SUCCESS
}
