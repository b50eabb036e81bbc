//! What users are told: every sentence of an error is explained in `docs/ERRORS.md`, and tests
//! provoke it.
//!
//! A sentence is the text of an `#[error("…")]` or of one of the calls in [`MARKS`], with `…` for
//! what is filled in. A test counts as provoking it if one of its texts (comments are none) holds
//! three words in a row of it.

use std::collections::BTreeSet;
use std::fs;

use anyhow::{Result, ensure};
use tailwater_test_support::workspace_root;

use super::{Source, ensure_none, sources};

/// Behind these stands a sentence for users.
const MARKS: [&str; 10] = [
    "#[error(",
    "unmet(",
    "Refusal::bad(",
    "Refusal::absent(",
    "Refusal::new(",
    "conflict(",
    "Conflict(",
    "Err(format!(",
    "Error::Url(",
    "Precondition(",
];
/// Directly behind this stands one in which nothing is filled in.
const PLAIN: &str = "Err(";

/// Beginnings of sentences that no test can provoke on the machines that tests run on. The list may
/// only become shorter.
const UNPROVOKED: [&str; 4] = [
    // A processor without AVX2.
    "the embedded ClickHouse engine needs a processor",
    // Another system than Linux on x86-64.
    "the embedded ClickHouse engine comes for Linux",
    // An engine that has no memory left to say so.
    "the engine gave no result",
    // A batch of 4 GiB.
    "the batch would hold more than 4 GiB",
];

/// Tests that judge nothing of what the program says: tools, guests, and what starts the services.
const NO_JUDGES: [&str; 4] = ["tests/xtask/", "tests/guests/", "tests/fuzz/", "tests/support/"];

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
        let behind = |mark: &'static str| {
            code.match_indices(mark).map(|(at, mark)| &code[at + mark.len()..])
        };
        let marked = MARKS.into_iter().flat_map(behind);
        let filled_in = marked.filter_map(literal).map(|text| shape(&text));
        let plain = behind(PLAIN).map(str::trim_start).filter(|rest| rest.starts_with('"'));
        let texts = filled_in.chain(plain.filter_map(literal)).filter(|text| words(text) >= 2);
        for text in texts.filter(|text| seen.insert(text.clone())) {
            found.push(Sentence { file: source.name.clone(), text });
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
    text(rest).map(|(text, _)| text)
}

/// A literal behind its first quote, without its escapes, and what follows it.
fn text(code: &str) -> Option<(String, &str)> {
    let (mut text, mut chars) = (String::new(), code.chars());
    loop {
        match chars.next()? {
            '"' => return Some((text, chars.as_str())),
            '\\' => match chars.next()? {
                '\n' => chars = chars.as_str().trim_start().chars(),
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

/// The texts of all tests that judge what the program says.
fn tests() -> Result<Vec<String>> {
    let mut texts = Vec::new();
    for source in sources()?.iter().filter(|source| source.is_rust()) {
        let judges = !NO_JUDGES.iter().any(|place| source.name.starts_with(place));
        let lines = source.text.lines().enumerate();
        let lines = lines.filter(|(index, _)| judges && source.is_test(index + 1));
        texts.extend(texts_of(&lines.map(|(_, line)| format!("{line}\n")).collect::<String>()));
    }
    ensure!(texts.len() > 5000, "only {} texts of tests were found", texts.len());
    Ok(texts)
}

/// The string literals of Rust code; comments hold none.
fn texts_of(code: &str) -> Vec<String> {
    let (mut texts, mut rest) = (Vec::new(), code);
    while let Some(at) = rest.find(['"', '/', '\'']) {
        let (before, found) = rest.split_at(at);
        rest = match found.as_bytes() {
            [b'/', b'/', ..] => found.split_once('\n').map_or("", |(_, next)| next),
            [b'\'', b'"', b'\'', ..] => &found[3..],
            [b'\'', b'\\', _, b'\'', ..] => &found[4..],
            [b'"', ..] => {
                let bare = before.trim_end_matches('#');
                let end = format!("\"{}", "#".repeat(before.len() - bare.len()));
                let raw = || found[1..].split_once(&end).map(|(raw, next)| (raw.to_owned(), next));
                let read = if bare.ends_with('r') { raw() } else { text(&found[1..]) };
                let Some((text, next)) = read else { break };
                texts.push(text);
                next
            }
            _ => &found[1..],
        };
    }
    texts
}

/// Whether three words in a row of the sentence, or all between two gaps if they are fewer, are in
/// one of the texts and in no other sentence.
fn provoked(sentence: &str, all: &[Sentence], tests: &[String]) -> bool {
    let longest = sentence.split('…').map(|part| part.split_whitespace().count()).max();
    let length = longest.unwrap_or_default().clamp(1, 3);
    let own = |run: &str| all.iter().filter(|other| other.text.contains(run)).count() == 1;
    sentence.split('…').any(|part| {
        let words: Vec<&str> = part.split_whitespace().collect();
        words.windows(length).any(|run| {
            let run = run.join(" ");
            let bare = run.trim_matches(['`', ';', ':', ',', '.']);
            tests.iter().any(|text| text.contains(bare)) && own(&run)
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

#[test]
fn only_what_a_test_compares_with_counts_as_its_text() {
    let code = r##"
        // one "comment"
        let (quote, escaped, tick) = ('"', '\"', '\'');
        assert_eq!(said, "two \"words\" \
                          on");
        let raw = r#"three "raw" words"#;
    "##;
    assert_eq!(texts_of(code), ["two \"words\" on", "three \"raw\" words"]);
}
