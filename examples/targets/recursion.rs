//! Target: a deep stack.
//!
//! ```text
//! recursion [DEPTH]
//! ```
//!
//! Recurses DEPTH (60000) frames deep, about 110 bytes each, so some 6.5 of the usual 8 MiB of
//! stack. Every frame holds an array of known words, and a reference to the frame above. At
//! the bottom it converses with the test (see `protocol`): `check` verifies each frame, then
//! recurses about 100 KiB deeper than any check before (up to 1 MiB), and comes back: the stack
//! must still grow. After `quit` it returns through all frames, and each verifies itself on the
//! way.

mod pattern;
mod protocol;

use pattern::mix;
use protocol::{Check, expect, finish, serve};
use std::hint::black_box;

/// Frames that take about 100 KiB.
const SOME_FRAMES: u64 = 1000;

/// What one level of the recursion holds.
struct Frame<'a> {
    depth: u64,
    words: [u64; 6],
    above: Option<&'a Frame<'a>>,
}

impl<'a> Frame<'a> {
    fn new(depth: u64, above: Option<&'a Frame<'a>>) -> Self {
        Self { depth, words: Self::words(depth), above }
    }

    /// What the array of the frame at `depth` holds.
    fn words(depth: u64) -> [u64; 6] {
        std::array::from_fn(|n| mix(depth * 6 + n as u64))
    }

    fn verify(&self) -> Check {
        expect(format_args!("frame {}", self.depth), Self::words(self.depth), self.words)
    }

    /// Verifies this frame and all above it, down to number 0.
    fn verify_all(&self) -> Check {
        let mut frame = self;
        let mut depth = self.depth;
        loop {
            expect("depth of a frame", depth, frame.depth)?;
            frame.verify()?;
            match frame.above {
                Some(above) => (frame, depth) = (above, depth - 1),
                None => return expect("depth of the outermost frame", 0, depth),
            }
        }
    }
}

/// Recurses until `deepest`, calls `at_bottom` there, and verifies each frame on the way back.
#[inline(never)]
fn descend(
    above: Option<&Frame>,
    deepest: u64,
    at_bottom: &mut dyn FnMut(&Frame) -> Check,
) -> Check {
    let frame = Frame::new(above.map_or(0, |above| above.depth + 1), above);
    // The optimizer must believe that the frame is looked at and kept in memory.
    let frame = black_box(&frame);
    let below = if frame.depth < deepest {
        descend(Some(frame), deepest, at_bottom)
    } else {
        at_bottom(frame)
    };
    below.and_then(|()| frame.verify())
}

fn main() {
    let depth = match std::env::args().nth(1).map(|depth| depth.parse()) {
        None => 60_000,
        Some(Ok(depth)) => depth,
        Some(Err(_)) => {
            eprintln!("usage: recursion [DEPTH]");
            std::process::exit(2);
        }
    };
    let mut more = 0;
    finish(descend(None, depth, &mut |bottom| {
        serve(|| {
            bottom.verify_all()?;
            // Never so far that many checks overflow the stack.
            more = (more + SOME_FRAMES).min(10 * SOME_FRAMES);
            descend(Some(bottom), bottom.depth + more, &mut |_| Ok(()))
        })
    }));
}
