//! What `docs/lab.md` shows is what one sees.
//!
//! Each fenced block `console` is a session of one shell, in a directory that holds all that the
//! build makes; one that is `console x86_64` looks so on that machine only. A line that begins with
//! `$ ` is a command, with those behind it that begin with `> `; what follows is what it prints, on
//! either stream. There
//!
//! * a line `...` stands for any lines, or none;
//! * `...` within a line stands for anything, `<ADDR>` for hexadecimal and `<N>` for decimal digits.
//!
//! What needs a person at a terminal stands in blocks of another kind, and has tests of its own.

mod common;

use common::place::names_in;
use common::{Place, cargo, each_user};

/// Stands between the outputs of two commands.
const MARK: &str = "--- next command ---";

struct Command {
    text: String,
    /// The lines that it is to print, with wildcards.
    expected: Vec<String>,
}

/// The sessions of the document.
fn sessions(document: &str) -> Vec<Vec<Command>> {
    let mut blocks = Vec::new();
    let mut lines = document.lines();
    while let Some(fence) = lines.next() {
        if !fence.starts_with("```") {
            continue;
        }
        let block = lines.by_ref().take_while(|line| !line.starts_with("```")).collect::<Vec<_>>();
        if ["```console", &*format!("```console {}", ckpt_arch::NAME)].contains(&fence) {
            blocks.push(session(&block));
        }
    }
    blocks
}

fn session(block: &[&str]) -> Vec<Command> {
    let mut commands: Vec<Command> = Vec::new();
    for line in block {
        match (line.strip_prefix("$ "), line.strip_prefix("> "), commands.last_mut()) {
            (Some(text), ..) => commands.push(Command { text: text.into(), expected: Vec::new() }),
            (_, Some(more), Some(last)) if last.expected.is_empty() => {
                last.text = format!("{}\n{more}", last.text);
            }
            (.., Some(last)) => last.expected.push(line.trim_end().into()),
            (.., None) => panic!("a block begins without a command: {line:?}"),
        }
    }
    commands
}

/// Whether the lines are as the pattern says.
fn same_lines(pattern: &[String], lines: &[&str]) -> bool {
    match pattern.split_first() {
        None => lines.is_empty(),
        Some((any, rest)) if any == "..." => {
            (0..=lines.len()).any(|skipped| same_lines(rest, &lines[skipped..]))
        }
        Some((first, rest)) => {
            lines.first().is_some_and(|line| same_text(first, line.trim_end()))
                && same_lines(rest, &lines[1..])
        }
    }
}

/// Whether the text is as the pattern says.
fn same_text(pattern: &str, text: &str) -> bool {
    /// A name, what it may stand for, and at least how much of it.
    type Wildcard = (&'static str, fn(char) -> bool, usize);
    const WILDCARDS: [Wildcard; 3] = [
        ("...", |_| true, 0),
        ("<ADDR>", |c| c.is_ascii_hexdigit(), 1),
        ("<N>", |c| c.is_ascii_digit(), 1),
    ];
    let first = WILDCARDS
        .iter()
        .filter_map(|wildcard| pattern.find(wildcard.0).map(|at| (at, wildcard)))
        .min_by_key(|(at, _)| *at);
    let Some((at, (name, allowed, least))) = first else { return pattern == text };
    let Some(text) = text.strip_prefix(&pattern[..at]) else { return false };
    let rest = &pattern[at + name.len()..];
    let ends = text.char_indices().take_while(|(_, c)| allowed(*c)).map(|(i, c)| i + c.len_utf8());
    std::iter::once(0).chain(ends).skip(*least).any(|end| same_text(rest, &text[end..]))
}

/// Runs the commands in one shell, in `place`; returns those that print something else than they
/// are to, and what they print.
fn differences(place: &Place, session: &[Command]) -> String {
    let script = session.iter().map(|command| format!("{}\necho '{MARK}'\n", command.text));
    let script = format!("exec 2>&1\n{}", script.collect::<String>());
    let shell = place.system("/bin/bash").env("LC_ALL", "C").args(["-c", &script]);
    let mut run = shell.start_bare();
    run.close_input();
    run.wait();
    let output = run.all_output();
    let mark = format!("{MARK}\n");
    let mut outputs = output.split_terminator(&mark);
    let mut differences = String::new();
    for Command { text, expected } in session {
        let printed = outputs.next().unwrap_or_else(|| panic!("$ {text}\nwas not reached"));
        let lines: Vec<&str> = printed.lines().collect();
        if !same_lines(expected, &lines) {
            differences += &format!("$ {text}\n{printed}--- instead of\n{}\n", expected.join("\n"));
        }
    }
    differences
}

#[test]
fn what_the_lab_shows_is_what_one_sees() {
    let path = cargo::project().join("docs/lab.md");
    let document = std::fs::read_to_string(path).expect("the document");
    let sessions = sessions(&document);
    assert!(sessions.len() > 10, "the document has lost its sessions");
    each_user(|place| {
        for name in names_in(&cargo::artifacts()) {
            place.artifact(&name);
        }
        let differences: String = sessions.iter().map(|s| differences(place, s)).collect();
        assert!(differences.is_empty(), "{differences}");
    });
}

#[test]
fn wildcards() {
    for (pattern, text) in [
        ("a", "a"),
        ("...", ""),
        ("a...c", "abbc"),
        ("...c...", "abcd"),
        ("0x<ADDR> x", "0x7ffe x"),
        ("<N>-<N>", "1-20"),
    ] {
        assert!(same_text(pattern, text), "{pattern}, {text}");
    }
    for (pattern, text) in [("a", "ab"), ("a...c", "ab"), ("0x<ADDR>", "0x"), ("<N>", "a")] {
        assert!(!same_text(pattern, text), "{pattern}, {text}");
    }
    let lines = |text: &[&str]| text.iter().map(|line| line.to_string()).collect::<Vec<_>>();
    assert!(same_lines(&lines(&["a", "...", "d"]), &["a", "b", "c", "d"]));
    assert!(same_lines(&lines(&["...", "d"]), &["d"]));
    assert!(!same_lines(&lines(&["a", "...", "d"]), &["a", "b", "c"]));
}
