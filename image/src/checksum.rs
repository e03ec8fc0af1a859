//! The checksum of an image: XXH3, 64 bits, seed 0.

use xxhash_rust::xxh3::Xxh3;

/// A checksum in the making.
pub struct Checksum(Xxh3);

impl Checksum {
    /// That of nothing yet.
    pub fn new() -> Self {
        Self(Xxh3::new())
    }

    /// Takes in `bytes`.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// Takes in `count` zeros, such as a hole in a file stands for.
    pub fn update_zeros(&mut self, mut count: u64) {
        const ZEROS: &[u8] = &[0; 4096];
        while count > 0 {
            let some = count.min(ZEROS.len() as u64);
            self.0.update(&ZEROS[..some as usize]);
            count -= some;
        }
    }

    /// The checksum of all that was taken in.
    pub fn value(&self) -> u64 {
        self.0.digest()
    }
}

impl Default for Checksum {
    fn default() -> Self {
        Self::new()
    }
}
