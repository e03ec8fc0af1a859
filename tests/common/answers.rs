//! A program that answers questions about itself: Python, which computes what it is asked.

use super::{Place, Program, Running};

const SCRIPT: &str = "
import os, sys, time
first = os.getpid()
def status(key):
    lines = open('/proc/self/status').read().splitlines()
    return next(line.split()[1] for line in lines if line.startswith(key + ':'))
print('ready', flush=True)
for line in sys.stdin:
    print(eval(line), flush=True)
";

/// The program. It says `ready`, and knows by `first` which process it was then.
pub fn python(place: &Place) -> Program<'_> {
    place.system("/usr/bin/python3").args(["-S", "-c", SCRIPT])
}

/// What it answers.
pub fn answer(run: &mut Running, question: &str) -> String {
    run.send(question);
    run.line()
}
