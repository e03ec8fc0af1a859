//! Programs that nobody wrote for these tests, and some small ones: each is checkpointed, killed
//! with SIGKILL and restarted, and its output, joined across the two lives, equals that of a life
//! nobody disturbed.

mod common;

use common::{Place, Program, Stream, each_user, killed_by, words, work};

/// A program that writes line after line, reads one line of its standard input at the *gate*, and
/// then writes more. So a checkpoint can strike it at work and can never come too late.
struct Job<'p> {
    program: Program<'p>,
    lines_before_gate: usize,
}

const GATE: &str = "go on\n";

impl Job<'_> {
    /// Both ways to join two lives.
    fn survives(self) {
        let undisturbed = self.program.undisturbed(GATE);
        let total = undisturbed.lines().count();
        assert!(total > self.lines_before_gate && self.lines_before_gate > 10, "{undisturbed}");
        assert_eq!(self.joined_in_a_file(), undisturbed, "joined in a file");
        assert_eq!(self.joined_through_pipes(), undisturbed, "joined through pipes");
    }

    /// Output to a regular file: checkpointed at work, the program goes on for some lines and is
    /// killed. The restart cuts the file back to what it was at the checkpoint.
    fn joined_in_a_file(&self) -> String {
        let program = self.program.clone().into_file("output");
        let file = program.place.path("output");
        let mut first = program.start();
        first.lines_in(&file, 5);
        let image = first.checkpoint();
        first.lines_in(&file, self.lines_before_gate);
        first.kill();

        let mut second = program.restart(&image);
        second.send_all(GATE);
        second.close_input();
        second.ends_well();
        program.place.text("output")
    }

    /// Output to a pipe: all of the first life's has been read when the program, waiting at its
    /// gate, is checkpointed and killed.
    fn joined_through_pipes(&self) -> String {
        let mut first = self.program.start();
        for _ in 0..self.lines_before_gate {
            first.line();
        }
        first.reads_stdin();
        let image = first.checkpoint();
        first.kill();
        assert_eq!(first.errors(), "");

        let mut second = self.program.restart(&image);
        second.send_all(GATE);
        second.close_input();
        second.ends_well();
        first.all_output() + &second.all_output()
    }
}

/// A program with no gate, made `slow` enough for a checkpoint to strike it: its output is that of
/// the `fast` one.
fn survives_without_gate(fast: Program, slow: Program) {
    let undisturbed = fast.undisturbed("");
    let program = slow.into_file("output");
    let file = program.place.path("output");
    let mut first = program.start();
    first.lines_in(&file, 3);
    let image = first.checkpoint();
    first.lines_in(&file, 8);
    first.kill();
    assert_eq!(first.errors(), "");

    let mut second = program.restart(&image);
    second.ends_well();
    assert_eq!(program.place.text("output"), undisturbed);
}

#[test]
fn counting_test() {
    each_user(|place| {
        let fast = place.target("counting-test").args(["7", "150", "0"]);
        let slow = place.target("counting-test").args(["7", "150", "10"]);
        survives_without_gate(fast, slow);
    });
}

#[test]
fn primes_test() {
    each_user(|place| {
        let fast = place.target("primes-test").args(["-1000000007", "25"]);
        let slow = place.target("primes-test").args(["1000000007", "25"]);
        survives_without_gate(fast, slow);
    });
}

#[test]
fn primes_test_without_a_pause() {
    each_user(|place| {
        let program =
            place.target("primes-test").args(["-18000000000000000000", &work(150_000).to_string()]);
        survives_without_gate(program.clone(), program);
    });
}

#[test]
fn python() {
    // The seed of the hashes differs from run to run: what depends on it is compared inside the
    // program.
    const SCRIPT: &str = r#"
import hashlib, math, random, zlib
words = {"w%d" % i for i in range(500)}
order, hashed = list(words), hash("word")
random.seed(7)
def fibonacci():
    a, b = 0, 1
    while True:
        yield a
        a, b = b, a + b
numbers, heap, x = fibonacci(), [], 0.1
def step(n):
    global x
    for _ in range(200):
        x = 3.99 * x * (1 - x)
    heap.extend(str(i * n) for i in range(500))
    same = hash("word") == hashed and list(words) == order and "w7" in words
    print(n, next(numbers), repr(x), math.sin(x).hex(), random.random(), len(heap),
          hashlib.sha256("".join(heap).encode()).hexdigest()[:16], same, flush=True)
for n in range(60): step(n)
input()
for n in range(60, 80): step(n)
print(zlib.crc32("".join(heap).encode()))
"#;
    each_user(|place| {
        let program = place.system("/usr/bin/python3").args(["-c", SCRIPT]);
        Job { program, lines_before_gate: 60 }.survives();
    });
}

#[test]
fn bash() {
    const SCRIPT: &str = r#"
declare -A seen
steps() {
    for ((n = $1; n < $2; n++)); do
        for ((i = 0; i < 200; i++)); do x=$(((x * 1103515245 + 12345) % 2147483648)); done
        seen[$x]=$n text+=${x:0:3}
        printf '%d %d %d %s\n' "$n" "$x" "${#seen[@]}" "${text: -12}"
    done
}
steps 0 60
read line
steps 60 80
echo "$line ${#text}"
"#;
    each_user(|place| {
        let program = place.system("/bin/bash").args(["--norc", "-c", SCRIPT]);
        Job { program, lines_before_gate: 60 }.survives();
    });
}

#[test]
fn perl() {
    const SCRIPT: &str = r#"
$| = 1;
my (%seen, $text); my $x = 1;
sub steps {
    for my $n ($_[0] .. $_[1]) {
        for (1 .. 1000) { $x = ($x * 1103515245 + 12345) % 2147483648 }
        $seen{$x} = $n; $text .= chr(65 + $x % 26) x 100;
        $text =~ s/A+(B*)C/$1/g;
        printf "%d %d %.17g %d %d\n", $n, $x, sqrt($x), scalar(keys %seen), length $text;
    }
}
steps(0, 59);
my $line = <STDIN>;
steps(60, 79);
print $line, join(",", map { $seen{$_} } sort keys %seen), "\n";
"#;
    each_user(|place| {
        let program = place.system("/usr/bin/perl").args(["-e", SCRIPT]);
        Job { program, lines_before_gate: 60 }.survives();
    });
}

#[test]
fn awk() {
    const SCRIPT: &str = r#"
function steps(from, to,    n, i) {
    for (n = from; n < to; n++) {
        for (i = 0; i < 2000; i++) x = (x * 1103 + 12345) % 65536
        seen[x] = n; text = text sprintf("%d,", x)
        printf "%d %d %.17g %s\n", n, x, sin(x), substr(text, length(text) - 20); fflush()
    }
}
BEGIN { steps(0, 60); getline; steps(60, 80); print $0, length(text); for (i in seen) n++; print n }
"#;
    each_user(|place| {
        let program = place.system("/usr/bin/mawk").args([SCRIPT]);
        Job { program, lines_before_gate: 60 }.survives();
    });
}

/// A program that reads the file `input` and writes the file `output`, struck when it has read a
/// part of the one, and killed when it has read more.
fn filter(command: &str, arguments: &[&str], input: &str) {
    each_user(|place| {
        let input_file = place.file("input", input);
        let bare = place.system(command).args(arguments).stdin(Stream::File(input_file));
        bare.clone().into_file("undisturbed").start_bare().ends_well();

        let program = bare.into_file("output");
        let mut first = program.start();
        first.has_read(input.len() as u64 / 4);
        let image = first.checkpoint();
        first.has_read(input.len() as u64 / 2);
        first.kill();
        program.restart(&image).ends_well();
        assert!(place.text("output") == place.text("undisturbed"), "{command}");
    });
}

#[test]
fn gzip() {
    filter("/bin/gzip", &["-9"], &words(work(300_000)));
}

#[test]
fn bzip2() {
    filter("/bin/bzip2", &[], &words(work(300_000)));
}

#[test]
fn sha512sum() {
    // It is so fast that less would be read before anybody looks.
    filter("/usr/bin/sha512sum", &[], &words(4_000_000));
}

#[test]
fn sort() {
    filter("/usr/bin/sort", &["--parallel=1", "-n", "-k", "1"], &words(work(1_000_000)));
}

/// What is said to sqlite3 before the checkpoint, and after it.
const FILL: &str = "
    create table numbers(n integer primary key, square integer, name text);
    with recursive c(n) as (select 1 union all select n + 1 from c where n < 5000)
        insert into numbers select n, n * n, hex(n * 7919) from c;
    create index names on numbers(name);
    create temp table spare as select * from numbers where n % 3 = 0;
    select count(*), sum(square) from numbers;
";
const GO_ON: &str = "
    update numbers set square = square + 1 where name like '%7%';
    insert into numbers select n + 10000, square, name from spare;
    select count(*), sum(square), max(name), total(n) / 7 from numbers;
    select group_concat(n) from (select n from numbers order by name, n limit 100);
    pragma integrity_check;
";

/// Checkpoints sqlite3's shell between two commands.
fn sqlite3(place: &Place, database: &str, fill: &str, go_on: &str) {
    let program = place.system("/usr/bin/sqlite3").args(["-batch", database]);
    let undisturbed = program.undisturbed(&format!("{fill}{go_on}"));
    if database != ":memory:" {
        std::fs::remove_file(place.path(database)).expect("the database");
    }

    let mut first = program.start();
    first.send_all(fill);
    first.line();
    first.reads_stdin();
    let image = first.checkpoint();
    first.kill();

    let mut second = program.restart(&image);
    second.send_all(go_on);
    second.close_input();
    second.ends_well();
    assert_eq!(first.all_output() + &second.all_output(), undisturbed);
}

#[test]
fn sqlite3_in_memory() {
    each_user(|place| sqlite3(place, ":memory:", FILL, GO_ON));
}

#[test]
fn sqlite3_on_a_file() {
    each_user(|place| sqlite3(place, "numbers.db", FILL, GO_ON));
}

#[test]
fn sqlite3_inside_a_transaction() {
    let fill = format!("begin; {FILL}");
    let go_on = format!("{GO_ON} commit; select count(*) from numbers;");
    each_user(|place| sqlite3(place, ":memory:", &fill, &go_on));
}

/// The same C program with either C library, under the same `libckpt.so`. Its lines do not depend on
/// the library.
#[test]
fn glibc_and_musl_twins() {
    each_user(|place| {
        let steps = work(6000).to_string();
        let [glibc, musl] =
            ["gcc", "musl-gcc"].map(|compiler| place.compiled(compiler, "twin").args([&steps]));
        survives_without_gate(musl.clone(), glibc.clone());
        survives_without_gate(glibc, musl);
    });
}

#[test]
fn a_static_program_is_not_affected() {
    const PROGRAM: &str = r#"
#include <stdio.h>
int main(void) { puts("ready"); fflush(stdout); getchar(); puts("done"); return 0; }
"#;
    each_user(|place| {
        let program = place.c("musl-gcc", &["-static"], "static", PROGRAM);
        let mut run = program.start();
        run.expect("ready");
        run.close_input();
        run.expect("done");
        run.ends_well();

        // The signal means to it what it has always meant.
        let mut run = program.start();
        run.expect("ready");
        run.signal(libc::SIGUSR2);
        assert!(killed_by(run.wait(), libc::SIGUSR2));
        assert_eq!(run.errors(), "");
        assert!(!program.image.exists());
    });
}
