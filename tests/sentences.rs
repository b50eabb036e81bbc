//! What users are told: every sentence of an error is explained in `docs/ERRORS.md`, and tests
//! provoke it.
//!
//! A sentence is a text in one of the calls in [`SAYS`], or any other of at least [`WORDS`] words,
//! unless what is around it or [`NO_ERRORS`] says that it is none; `…` is for what is filled in. A
//! test counts as provoking it if one of its texts (comments are none, nor is what it says itself
//! when it fails) holds so many words in a row of it.

use std::collections::BTreeSet;
use std::fs;

use anyhow::{Result, ensure};
use tailwater_test_support::workspace_root;

use super::literals::{Call, Literal, literals};
use super::{Source, ensure_none, sources};

/// In these stand sentences for users, be they ever so short.
const SAYS: &[&str] = &[
    "error",
    "unmet",
    "bad",
    "absent",
    "conflict",
    "Conflict",
    "Url",
    "Precondition",
    "Arguments",
    "Err",
    "ensure!",
    "stalled",
    "complain",
];
/// In these stand others: lines of the log, what is tried, what is said when all is well.
const SAYS_NO_ERROR: &[&str] = &[
    "trace!",
    "debug!",
    "info!",
    "warn!",
    "error!",
    "once",
    "register",
    "register_with_unit",
    ".error",
    "execute",
    "rows",
    "patience",
    "Repeated::new",
    "Patience::new",
    "Ok",
    "print",
    "write!",
    "writeln!",
    "with_template",
    "command",
    "serde",
    "bindgen!",
    "reason",
    "expect",
    "unreachable!",
    "assert!",
    "debug_assert!",
    "contains",
    "replace",
    "unknown",
    "Shadow::skipped",
];
/// In these something is filled in between braces.
const FILLS: &[&str] = &["format!", "error", "ensure!"];
/// So many words in a row tell a sentence from others.
const WORDS: usize = 4;

/// Texts of at least as many words that are no errors, by what they begin with.
const NO_ERRORS: &[&str] = &[
    // What "could not" is followed by.
    "ask for the end of a topic",
    "ask the brokers what there is",
    "clean up after a truncate",
    "find out where partitions go on",
    "look for ",
    "look up ",
    "read a topic of tailwater's",
    "read on where it was",
    "read the source's cluster",
    // What "the source does not answer" is followed by.
    "what the columns of",
    "what the rows hold",
    // Behind what is allowed.
    "a whole number, 0 or more",
    // Only in the log.
    "[source] exclude names no table",
    "[source] tables names it",
    "creating a slot;",
    "its columns changed in ways",
    "its publication leaves out a kind of change",
    "none of the source's tables fits a pattern",
    "none of the source's tables has the name of a section",
    "not captured: it has no primary key",
    "others may write there",
    // When all is well.
    "; … ns and … instructions per event",
    "; … stays as it is, because",
    "; what they cost is not measured",
    "and … more; --limit … lists all",
    "is created by the first run",
    "run `npm install` in it",
    "start the sink, and have the capture",
    "the next start copies the table",
    "… is PostgreSQL …, tables:",
    "# the token, which is stored nowhere",
    // What a driver says.
    "server does not support TLS",
    // Names of what sentences are about.
    "`[embedded] path`, or by --data",
    "GSSAPI or SSPI",
    "this run's data",
    // The reader of an answer sees its connection end.
    "clickhouse failed in the middle of the answer",
    // Taken for the end of the leg; the step behind it says why.
    "the pipeline behind the capture ended",
    // What a programmer would read.
    "every life of a leg gives the plugins back",
];
/// Texts with one of these are code, types or forms.
const CODE: &[&str] = &[
    "::text",
    "charset=",
    " UInt",
    " String,",
    "(String)",
    "source_schema,",
    "source_table,",
    "_version,",
    "nullIf(",
    "sipHash",
    "fsync_",
    "system_identifier,",
    "stage = ",
    "base64Encode",
    " time zone",
    "DateStyle",
    "__exception__",
    "00:00",
    "DateTime64(",
];

/// Beginnings of sentences that no test can provoke on the machines that tests run on. The list may
/// only become shorter.
const UNPROVOKED: &[&str] = &[
    // A processor without AVX2.
    "the embedded ClickHouse engine needs a processor",
    // Another system than Linux on x86-64.
    "the embedded ClickHouse engine comes for Linux",
    // An engine that has no memory left to say so, or for one session more.
    "the engine gave no result",
    "the engine opens no further session.",
    // A batch of 4 GiB.
    "the batch would hold more than 4 GiB",
    // A statement of 128 MiB.
    "the statement is longer than … bytes.",
    // A reload that comes while the leg gives its plugins back.
    "the plugin's leg has ended",
    // A request that comes while the engine's process ends, or whose sender is gone and hears no answer.
    "the engine is stopping.",
    "the insert has ended",
    "the request's body ended before its end",
    // An answer of ClickHouse that is cut short and yet whole to HTTP.
    "a row is cut short",
    // A resolver that finds a name and no address, and says so without an error.
    "the name has no address",
    // Two clusters at one address, one after the other within one run.
    "start again to be told how to go on",
    // A server whose history has a higher timeline and not the one of before, as after two restores.
    "was never on it",
    // A directory that goes away between the look for directories and the watch.
    "cannot watch the sources: …",
];

/// Tests that judge nothing of what the program says: tools, guests, and what starts the services.
const NO_JUDGES: [&str; 4] = ["tests/xtask/", "tests/guests/", "tests/fuzz/", "tests/support/"];

struct Sentence {
    file: String,
    text: String,
}

/// All sentences of the program, each once.
fn sentences() -> Result<Vec<Sentence>> {
    let (mut found, mut seen) = (Vec::new(), BTreeSet::new());
    for source in sources()?.iter().filter(|source| is_ours(source)) {
        for text in literals(&code(source)).iter().filter_map(sentence) {
            if seen.insert(text.clone()) {
                found.push(Sentence { file: source.name.clone(), text });
            }
        }
    }
    ensure!(found.len() > 300, "only {} sentences were found", found.len());
    Ok(found)
}

/// Whether users may hear of it: not what only the fuzzer builds.
fn is_ours(source: &Source) -> bool {
    source.name.starts_with("host/src/") && !source.name.ends_with("/fuzzing.rs")
}

/// The sentence of an error, if it is one.
fn sentence(literal: &Literal) -> Option<String> {
    let within = |names: &[&str]| literal.calls.iter().any(|call| call.is_one_of(names));
    let text = match within(FILLS) {
        true => shape(&literal.text),
        false => literal.text.clone(),
    };
    let known = NO_ERRORS.iter().any(|beginning| text.starts_with(beginning));
    if known || within(SAYS_NO_ERROR) {
        return None;
    }
    let told = match within(SAYS) {
        true => words(&text) >= 2,
        false => words(&text) >= WORDS && !is_code(&text),
    };
    told.then(|| text.trim().to_owned())
}

/// SQL begins with a word in capitals; names of things hold no space.
fn is_code(text: &str) -> bool {
    let text = text.trim_start_matches(['\n', ' ', '(', ',']);
    let first = text.split_whitespace().next().unwrap_or_default();
    let is_statement = first.len() > 1 && first.chars().all(|c| c.is_ascii_uppercase() || c == '_');
    is_statement || !text.trim().contains(' ') || CODE.iter().any(|sign| text.contains(sign))
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
fn tests() -> Result<BTreeSet<String>> {
    let mut texts = BTreeSet::new();
    for source in sources()?.iter().filter(|source| source.is_rust()) {
        let judges = !NO_JUDGES.iter().any(|place| source.name.starts_with(place));
        let lines = source.text.lines().enumerate();
        let lines = lines.filter(|(index, _)| judges && source.is_test(index + 1));
        let code: String = lines.map(|(_, line)| format!("{line}\n")).collect();
        let compared = literals(&code).into_iter().filter(|literal| !is_failure(literal));
        texts.extend(compared.map(|literal| literal.text));
    }
    ensure!(texts.len() > 4000, "only {} texts of tests were found", texts.len());
    Ok(texts)
}

/// Whether it is what a test says itself when it fails.
fn is_failure(literal: &Literal) -> bool {
    let from = |first: usize, names: &[&str]| {
        literal.calls.iter().any(|call| call.argument >= first && call.is_one_of(names))
    };
    let waits = |call: &Call| call.is_one_of(&["wait_for", "wait_until", "wait_until_async"]);
    from(0, &["expect", "bail!", "panic!", "context", "with_context", "anyhow!"])
        || from(1, &["ensure!", "assert!"])
        || from(2, &["assert_eq!", "assert_ne!"])
        || literal.calls.iter().any(|call| call.argument == 1 && waits(call))
}

/// Whether one of the texts is the sentence, or holds so many words in a row of it that are in no other
/// sentence, or all that is between its gaps.
fn provoked(sentence: &str, all: &[Sentence], tests: &BTreeSet<String>, joined: &str) -> bool {
    let own = |run: &str| all.iter().filter(|other| other.text.contains(run)).count() == 1;
    let told = |run: &str| joined.contains(run.trim_matches(['`', ';', ':', ',', '.']));
    let parts: Vec<Vec<&str>> =
        sentence.split('…').map(|part| part.split_whitespace().collect()).collect();
    let mut runs = parts.iter().flat_map(|words| words.windows(WORDS).map(|run| run.join(" ")));
    tests.contains(sentence)
        || runs.any(|run| told(&run) && own(&run))
        || tests.iter().any(|text| holds(text, sentence.split('…')))
}

/// Whether the text holds the parts, one behind the other.
fn holds<'a>(text: &str, mut parts: impl Iterator<Item = &'a str>) -> bool {
    parts.try_fold(text, |rest, part| rest.split_once(part.trim()).map(|(_, next)| next)).is_some()
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
    let joined = tests.iter().map(String::as_str).collect::<Vec<_>>().join("\n");
    let known = |text: &str| UNPROVOKED.iter().any(|beginning| text.starts_with(beginning));
    let (provoked, silent): (Vec<_>, Vec<_>) =
        all.iter().partition(|sentence| provoked(&sentence.text, &all, &tests, &joined));
    let new = silent.iter().filter(|sentence| !known(&sentence.text));
    let new = new.map(|sentence| format!("{}: {}", sentence.file, sentence.text));
    ensure_none("a test that provokes it", new)?;
    let stale = UNPROVOKED
        .iter()
        .filter(|beginning| !silent.iter().any(|sentence| sentence.text.starts_with(**beginning)));
    ensure!(provoked.len() > 100, "only {} sentences are provoked", provoked.len());
    ensure_none("provoked now, or gone: off the list", stale.map(|text| (*text).to_owned()))
}
