//! The places at which the process is made to die: those that the program names are those that it passes, and tests
//! die at every one.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result, ensure};
use tailwater_tests::FAILPOINTS;

use super::{Source, ensure_none, sources};

/// Where the names are.
const NAMES: &str = "host/src/failpoint.rs";

/// Where tests die at each of the soak's places.
const DEATHS: &str = "tests/e2e/faults.rs";

/// Places that the soak does not die at, because its load does not come there, each with the test that does.
const ELSEWHERE: [(&str, &str, &str); 4] = [
    (
        "after_prepare",
        "tests/e2e/tables.rs",
        "a_table_made_while_the_pipeline_runs_goes_over_kafka_too",
    ),
    (
        "before_closing",
        "tests/e2e/dead_letters.rs",
        "letters_close_when_their_rows_come_again_after_a_crash_and_come_through",
    ),
    ("before_redriven", "tests/e2e/dead_letters.rs", "come_through_once"),
    (
        "after_redriven",
        "tests/e2e/dead_letters.rs",
        "redriven_letters_of_the_capture_are_in_the_topic_once_whatever_dies",
    ),
];

fn named(sources: &[Source]) -> Result<BTreeSet<String>> {
    let source = sources.iter().find(|source| source.name == NAMES).context(NAMES)?;
    let list = source.text.split_once("pub const NAMES").context("the list")?.1;
    let list = list.split_once("];").context("the end of the list")?.0;
    Ok(list.split('"').skip(1).step_by(2).map(str::to_owned).collect())
}

/// The names behind `failpoint::pass`.
fn passed(sources: &[Source]) -> BTreeSet<String> {
    let program = sources.iter().filter(|source| source.name.starts_with("host/src/"));
    let calls = program.flat_map(|source| source.text.split("failpoint::pass(\"").skip(1));
    calls.filter_map(|call| Some(call.split_once('"')?.0.to_owned())).collect()
}

#[test]
fn the_places_to_die_at_are_those_that_have_a_name() -> Result<()> {
    let sources = sources()?;
    let (named, passed) = (named(&sources)?, passed(&sources));
    ensure!(named == passed, "{NAMES} names {named:?}, and the program passes {passed:?}");
    Ok(())
}

#[test]
fn at_every_place_that_has_a_name_a_test_dies() -> Result<()> {
    let sources = sources()?;
    let died_at = FAILPOINTS.iter().map(|(name, _)| *name);
    let died_at = died_at.chain(ELSEWHERE.iter().map(|(name, _, _)| *name));
    let mut died_at: Vec<_> = died_at.map(str::to_owned).collect();
    died_at.sort();
    let named: Vec<_> = named(&sources)?.into_iter().collect();
    ensure!(died_at == named, "tests die at {died_at:?}, and {NAMES} has {named:?}");
    let dies_there = |(place, file, test): &&(&str, &str, &str)| {
        let source = sources.iter().find(|source| source.name == *file);
        let body = source.and_then(|source| source.text.split_once(&format!("fn {test}(")));
        let body = body.and_then(|(_, rest)| rest.split("\n}\n").next());
        body.is_some_and(|body| body.contains(&format!("\"{place}:")))
    };
    let missing = ELSEWHERE.iter().filter(|place| !dies_there(place));
    let missing = missing.map(|(place, file, test)| format!("{file}: {test} at {place}"));
    let deaths = sources.iter().find(|source| source.name == DEATHS).context(DEATHS)?;
    let dies = |(name, _): &&(&str, _)| deaths.text.contains(&format!("dies_at(\"{name}\")"));
    let never = FAILPOINTS.iter().filter(|place| !dies(place));
    let never = never.map(|(name, _)| format!("{DEATHS}: nothing dies at {name}"));
    ensure_none("the test dies at the place", missing.chain(never))
}
