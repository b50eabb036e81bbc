//! What users are told: every sentence of an error is explained in `docs/ERRORS.md`, and tests
//! provoke it.
//!
//! A sentence is the text of an `#[error("…")]` or of one of the calls in [`MARKS`], with `…` for
//! what is filled in. A test counts as provoking it if it holds three words in a row of it.

use std::collections::BTreeSet;
use std::fs;

use anyhow::{Result, ensure};
use tailwater_test_support::workspace_root;

use super::{Source, ensure_none, sources};

/// Behind these stands a sentence for users.
const MARKS: [&str; 8] = [
    "#[error(",
    "unmet(",
    "Refusal::bad(",
    "Refusal::absent(",
    "Refusal::new(",
    "conflict(",
    "Conflict(",
    "Err(format!(",
];

/// Beginnings of sentences whose words no test repeats yet; some of them are provoked and judged by
/// their kind. The list may only become shorter.
const UNPROVOKED: [&str; 63] = [
    "--role capture writes to Kafka, and there is no section",
    "--role sink reads from Kafka, and there is no section",
    "`…` is a whole number, 1 or more",
    "`…` is not a pipe's file; it ends in .json, .csv, .ndjson",
    "`…` is not allowed outside of quotes; write comments as --",
    "a compressed block cannot be unpacked",
    "a compressed block claims",
    "a query parameter is not UTF-8 once its %-codes are decoded",
    "a record of … bytes is larger than topic … takes, which is",
    "cannot download the engine's library from …; check the",
    "cannot listen on 127.0.0.1",
    "cannot start the embedded engine's process",
    "cannot use … for the embedded engine's data",
    "cannot write …",
    "capture stopped",
    "clickhouse did not answer within",
    "column … holds no valid",
    "compression method 0x… is not supported; send LZ4 or",
    "field … is not a column of …",
    "header … is malformed",
    "its message key has …, which is no column any more",
    "malformed pgoutput message",
    "no ClickHouse server is named",
    "no answer within … s",
    "no directory to keep the engine's library in",
    "not JSON from byte",
    "plugin …: `…` must be at least 1",
    "slot … is not a logical slot of pgoutput; choose another",
    "slot … lost its write-ahead log",
    "store stopped",
    "the WebAssembly engine does not start on this machine",
    "the body of a statement is sent plain, without encoding",
    "the connection to the source broke",
    "the embedded ClickHouse engine comes for Linux",
    "the embedded ClickHouse engine is not on this machine",
    "the embedded ClickHouse engine needs a processor",
    "the embedded ClickHouse engine stopped",
    "the envelope has no usable",
    "the http listener stopped",
    "the last compressed block is cut short",
    "the replication stream cannot be decoded",
    "the snapshot of … cannot be read",
    "the source asks for a password",
    "the source asks for … authentication, which is not",
    "the source ended the replication stream",
    "the source is PostgreSQL …; Tailwater needs 14 or later",
    "the source is a standby; connect to the primary",
    "the source was silent for",
    "the statement is missing: give it as `q`, or as the body of",
    "the stream changed relation",
    "there is no statement",
    "there is no …; see `[embedded] library`",
    "topic … does not exist and could not be created (…); create",
    "transform stopped",
    "transport stopped",
    "two [[http.token]] have the name `…`",
    "user … does not own table …, so it may not publish it;",
    "without a source it is not known which topics to read: set",
    "… cannot be watched for changes",
    "… has SHA-256 … where",
    "… has version …, which cannot take rows safely; get a newer",
    "… is not a loopback address, and without a token everybody",
    "… is now a … plugin but runs as",
];

/// Places of a sentence may be apart by this much from its mark, such as a status or a line end.
const LONGEST_GAP: usize = 120;

struct Sentence {
    file: String,
    text: String,
}

/// All sentences of the program, each once.
fn sentences() -> Result<Vec<Sentence>> {
    let (mut found, mut seen) = (Vec::new(), BTreeSet::new());
    for source in sources()?.iter().filter(|source| source.name.starts_with("host/src/")) {
        let code = code(source);
        for mark in MARKS {
            let marked = code.match_indices(mark).map(|(at, _)| &code[at + mark.len()..]);
            let texts = marked.filter_map(literal).map(|text| shape(&text));
            let texts = texts.filter(|text| words(text) >= 2);
            for text in texts.filter(|text| seen.insert(text.clone())) {
                found.push(Sentence { file: source.name.clone(), text });
            }
        }
    }
    ensure!(found.len() > 150, "only {} sentences were found", found.len());
    Ok(found)
}

/// The file without its tests.
fn code(source: &Source) -> String {
    if !source.is_rust() || source.is_test(0) {
        return String::new();
    }
    source.text.lines().take(source.code_lines()).map(|line| format!("{line}\n")).collect()
}

fn words(text: &str) -> usize {
    text.split(|c: char| !(c.is_alphanumeric() || c == '_')).filter(|word| !word.is_empty()).count()
}

/// The string literal that comes next, unless something else comes first.
fn literal(rest: &str) -> Option<String> {
    let (gap, rest) = rest.split_once('"')?;
    let other = [";", "=>", "{"].iter().any(|sign| gap.contains(sign));
    if other || gap.len() > LONGEST_GAP {
        return None;
    }
    let (mut text, mut chars) = (String::new(), rest.chars().peekable());
    loop {
        match chars.next()? {
            '"' => return Some(text),
            '\\' => match chars.next()? {
                '\n' => while chars.next_if(|c| c.is_whitespace()).is_some() {},
                escaped => text.push(escaped),
            },
            c => text.push(c),
        }
    }
}

/// The text with `…` in place of what is filled in.
fn shape(text: &str) -> String {
    let mut shape = String::new();
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '{' | '}' if chars.next_if_eq(&c).is_some() => shape.push(c),
            '{' => {
                chars.by_ref().find(|c| *c == '}');
                shape.push('…');
            }
            c => shape.push(c),
        }
    }
    shape
}

/// All that tests say, as one line.
fn tests() -> Result<String> {
    let mut all = String::new();
    for source in sources()?.iter().filter(|source| source.is_rust()) {
        let lines = source.text.lines().enumerate();
        let lines = lines.filter(|(index, _)| source.is_test(index + 1)).map(|(_, line)| line);
        // A literal goes on behind a backslash at the line's end.
        for line in lines.map(str::trim_start) {
            all.push_str(line.strip_suffix('\\').unwrap_or(line));
            all.push_str(if line.ends_with('\\') { "" } else { " " });
        }
    }
    Ok(all.replace("\\\"", "\""))
}

/// Whether three words in a row of the sentence, or all between two gaps if they are fewer, are in
/// the text and in no other sentence.
fn provoked(sentence: &str, all: &[Sentence], tests: &str) -> bool {
    let longest = sentence.split('…').map(|part| part.split_whitespace().count()).max();
    let length = longest.unwrap_or_default().clamp(1, 3);
    let own = |run: &str| all.iter().filter(|other| other.text.contains(run)).count() == 1;
    sentence.split('…').any(|part| {
        let words: Vec<&str> = part.split_whitespace().collect();
        words.windows(length).any(|run| {
            let run = run.join(" ");
            tests.contains(run.trim_matches(['`', ';', ':', ',', '.'])) && own(&run)
        })
    })
}

#[test]
fn every_sentence_of_an_error_is_explained() -> Result<()> {
    let text = fs::read_to_string(workspace_root().join("docs/ERRORS.md"))?.replace('\\', "");
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let missing = sentences()?
        .into_iter()
        .filter(|sentence| !text.contains(&format!("**{}**", sentence.text.replace('\\', ""))));
    let missing = missing.map(|sentence| format!("{}: **{}**", sentence.file, sentence.text));
    ensure_none("in docs/ERRORS.md, with cause and fix", missing)
}

#[test]
fn no_sentence_is_explained_that_nobody_says() -> Result<()> {
    let text = fs::read_to_string(workspace_root().join("docs/ERRORS.md"))?.replace('\\', "");
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let said: BTreeSet<String> =
        sentences()?.into_iter().map(|sentence| sentence.text.replace('\\', "")).collect();
    let explained = text.split("- **").skip(1).filter_map(|entry| entry.split_once("**"));
    let stale = explained.map(|(sentence, _)| sentence.to_owned());
    ensure_none("said somewhere", stale.filter(|sentence| !said.contains(sentence)))
}

#[test]
fn every_sentence_of_an_error_is_provoked_by_a_test() -> Result<()> {
    let (all, tests) = (sentences()?, tests()?);
    let known = |text: &str| UNPROVOKED.iter().any(|beginning| text.starts_with(beginning));
    let (provoked, silent): (Vec<_>, Vec<_>) =
        all.iter().partition(|sentence| provoked(&sentence.text, &all, &tests));
    let new = silent.iter().filter(|sentence| !known(&sentence.text));
    let new = new.map(|sentence| format!("{}: {}", sentence.file, sentence.text));
    ensure_none("a test that provokes it", new)?;
    let stale = UNPROVOKED
        .iter()
        .filter(|beginning| !silent.iter().any(|sentence| sentence.text.starts_with(**beginning)));
    ensure!(provoked.len() > 100, "only {} sentences are provoked", provoked.len());
    ensure_none("provoked now, or gone: off the list", stale.map(|text| (*text).to_owned()))
}
