//! What `docs/tour.md` points to is there.
//!
//! Its links name a file, and with it a heading, or, if the text is code, what is defined there: a
//! function, a structure, a label, a symbol of a linker script. So they hold however the lines move,
//! and break when a name goes.

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use common::cargo;

/// A link of the document.
struct Link<'d> {
    text: &'d str,
    /// The path, seen from the document; nothing for the document itself.
    file: &'d str,
    /// The heading that is meant, or nothing.
    heading: &'d str,
}

fn documents() -> PathBuf {
    cargo::project().join("docs")
}

/// The document without its fenced blocks, which are drawings and sessions.
fn prose(document: &str) -> String {
    document.split("```").step_by(2).collect()
}

/// The links in a text: `[text](target)`.
fn links(prose: &str) -> Vec<Link<'_>> {
    prose.split('[').skip(1).filter_map(link).collect()
}

/// The link in what follows an opening bracket, if it is one.
fn link(part: &str) -> Option<Link<'_>> {
    let (text, rest) = part.split_once("](")?;
    let (target, _) = rest.split_once(')')?;
    let (file, heading) = target.split_once('#').unwrap_or((target, ""));
    Some(Link { text, file, heading })
}

/// The words with which a definition begins, and those that may stand before them.
const KINDS: [&str; 9] =
    ["fn", "const", "static", "struct", "enum", "trait", "type", "mod", "macro_rules!"];
const MODIFIERS: [&str; 7] = ["pub", "pub(crate)", "unsafe", "extern", "\"C\"", "safe", "mut"];

/// The name that a line of Rust, of assembly or of a linker script defines, if it is one that does.
fn defined(line: &str) -> Option<&str> {
    let line = line.trim_start();
    let end_of_name = |text: &str| text.find(|c: char| c != '_' && !c.is_alphanumeric());
    if let Some(assembly) = line.strip_prefix('"') {
        let end = end_of_name(assembly)?;
        return assembly[end..].starts_with(":\"").then(|| &assembly[..end]);
    }
    let mut words = line.split(' ').skip_while(|word| MODIFIERS.contains(word));
    let mut kind = words.next()?;
    let mut name = words.find(|word| !MODIFIERS.contains(word))?;
    if kind == "const" && name == "fn" {
        kind = name;
        name = words.next()?;
    }
    if KINDS.contains(&kind) {
        return Some(end_of_name(name).map_or(name, |end| &name[..end]));
    }
    (name == "=").then_some(kind)
}

#[test]
fn what_the_tour_points_to_is_there() {
    let document = documents().join("tour.md");
    let prose = prose(&fs::read_to_string(document).expect("the document"));
    let links = links(&prose);
    let mut sources = BTreeMap::new();
    let mut wrong = Vec::new();
    let mut symbols = 0;
    for Link { text, file, heading } in &links {
        let source = sources.entry(*file).or_insert_with(|| {
            let file = if file.is_empty() { "tour.md" } else { file };
            fs::read_to_string(documents().join(file)).ok()
        });
        let Some(source) = source else {
            wrong.push(format!("{file}: there is no such file"));
            continue;
        };
        if let Some(symbol) = text.strip_prefix('`').and_then(|text| text.strip_suffix('`'))
            && heading.is_empty()
        {
            symbols += 1;
            let name = symbol.rsplit("::").next().unwrap_or(symbol);
            if !source.lines().any(|line| defined(line) == Some(name)) {
                wrong.push(format!("{file} defines no {name}"));
            }
        }
        let is_meant = |line: &str| line.starts_with('#') && slug(line) == *heading;
        if !heading.is_empty() && !source.lines().any(is_meant) {
            wrong.push(format!("{file} has no heading for #{heading}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(symbols > 50, "the document has lost its links: {symbols} are left");
}

/// What a heading is linked by: its words in small letters, joined by hyphens.
fn slug(heading: &str) -> String {
    let words = heading.trim_start_matches('#').trim().to_lowercase();
    let kept = words.chars().filter(|c| c.is_alphanumeric() || [' ', '-', '_'].contains(c));
    kept.map(|c| if c == ' ' { '-' } else { c }).collect()
}

#[test]
fn definitions_are_told_from_uses() {
    for (line, name) in [
        ("fn a() {", "a"),
        ("    pub(crate) const fn a_b<T>(x: T) -> T {", "a_b"),
        ("pub unsafe extern \"C\" fn a(x: u8) -> ! {", "a"),
        ("pub const A: u64 = 1;", "A"),
        ("static mut A: u8 = 0;", "A"),
        ("pub struct A<'b> {", "A"),
        ("macro_rules! a {", "a"),
        ("\"memcpy:\",", "memcpy"),
        ("    __image_start = .;", "__image_start"),
    ] {
        assert_eq!(defined(line), Some(name), "{line}");
    }
    for line in
        ["a();", "// fn a()", "context: *const A,", "let x = a;", "\"2:\", a", "if a == b {"]
    {
        assert_ne!(defined(line), Some("a"), "{line}");
        assert_ne!(defined(line), Some("A"), "{line}");
    }
}
