//! Prints primes: a program whose state is in registers and on the stack, and that computes.
//!
//! ```text
//! primes-test [START [COUNT]]
//! ```
//!
//! Prints the primes from START (2) on, one a line, COUNT of them (no end), with a pause of
//! 100 ms after each. A negative START, `-1000000`, begins at 1000000 and makes no pause.
//! Any two runs with the same arguments print the same lines, so the output of a run that
//! was checkpointed, killed and restarted can be compared with that of one left in peace.
//!
//! `main` is exported, so that `test1` to `test5` find it: see `exported_main.rs`.

#![no_main]

mod exported_main;

use std::ffi::{c_char, c_int};
use std::io;
use std::thread::sleep;
use std::time::Duration;

use exported_main::{Arguments, print_line, run};

const USAGE: &str = "usage: primes-test [START [COUNT]], whole numbers; START < 0: no pauses";

/// The first twelve primes. As bases of the Miller-Rabin test they leave no composite below
/// 3.3 * 10^24 undiscovered (Sorenson and Webster, 2015), so none that fits 64 bits.
const BASES: [u64; 12] = [2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37];

/// `a * b` modulo `modulus`, through 128 bits so that nothing overflows.
fn multiply(a: u64, b: u64, modulus: u64) -> u64 {
    (u128::from(a) * u128::from(b) % u128::from(modulus)) as u64
}

/// `base` to the power of `exponent` modulo `modulus`, by repeated squaring.
fn power(mut base: u64, mut exponent: u64, modulus: u64) -> u64 {
    let mut result = 1;
    while exponent > 0 {
        if exponent & 1 == 1 {
            result = multiply(result, base, modulus);
        }
        base = multiply(base, base, modulus);
        exponent >>= 1;
    }
    result
}

/// Whether `base` proves `n` composite. With `n - 1 = odd * 2^twos`, a prime `n` has either
/// `base^odd = 1` or `-1` somewhere among `base^odd`, its square, the square of that, …
fn is_witness(base: u64, n: u64) -> bool {
    let twos = (n - 1).trailing_zeros();
    let mut x = power(base, (n - 1) >> twos, n);
    if x == 1 {
        return false;
    }
    for _ in 0..twos {
        if x == n - 1 {
            return false;
        }
        x = multiply(x, x, n);
    }
    true
}

/// The Miller-Rabin test, exact for every `u64`.
fn is_prime(n: u64) -> bool {
    match BASES.iter().find(|&&base| n.is_multiple_of(base)) {
        Some(&base) => n == base,
        None => n > 1 && !BASES.iter().any(|&base| is_witness(base, n)),
    }
}

/// What the command line asks for.
struct Request {
    start: u64,
    count: usize,
    pause: Duration,
}

impl Request {
    /// Reads the arguments; `None` when one is no number or there are too many.
    fn parse(arguments: Arguments) -> Option<Self> {
        if arguments.count() > 2 {
            return None;
        }
        let (start, count) = (arguments.get(1).unwrap_or("2"), arguments.get(2));
        let (digits, milliseconds) = match start.strip_prefix('-') {
            Some(digits) => (digits, 0),
            None => (start, 100),
        };
        Some(Self {
            start: digits.parse().ok()?,
            count: count.map_or(Some(usize::MAX), |count| count.parse().ok())?,
            pause: Duration::from_millis(milliseconds),
        })
    }
}

fn print_primes(request: &Request) -> io::Result<()> {
    for prime in (request.start..=u64::MAX).filter(|&n| is_prime(n)).take(request.count) {
        print_line(prime)?;
        if !request.pause.is_zero() {
            sleep(request.pause);
        }
    }
    Ok(())
}

/// The program.
///
/// # Safety
///
/// `argv` has `argc` strings.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn main(argc: c_int, argv: *const *const c_char) -> c_int {
    // SAFETY: the caller's contract.
    let arguments = unsafe { Arguments::new(argc, argv) };
    let Some(request) = Request::parse(arguments) else {
        eprintln!("{USAGE}");
        return 2;
    };
    run("primes-test", || print_primes(&request))
}
