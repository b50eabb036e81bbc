//! `tests/guests/chronicler-c`: a plugin of a world of its own, which has a state and is told the time.

use std::path::Path;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use tailwater::plugin::inspect;
use tailwater::table::{ColumnType, Table};

use crate::batch::{Batch, NULL, table};
use crate::chains::{Loaded, RUNTIME, load, options, test_guest_file};

const GRANTS: &str = "grants = ['clock', 'state']";

/// What the plugin makes of the columns behind the name: what it was before, how often the row was changed,
/// and when the plugin was shown it.
fn visits() -> Arc<Table> {
    let (number, text) = (ColumnType::Int8, ColumnType::Text);
    let columns = [
        ("id", number.clone()),
        ("name", text.clone()),
        ("before", text),
        ("changes", number.clone()),
        ("shown_at", number),
    ];
    table("visits", &columns)
}

fn named<'a>(id: &'a str, name: &'a str) -> [&'a str; 5] {
    [id, name, NULL, NULL, NULL]
}

fn chronicler(component: &Path, settings: &str) -> Loaded {
    load(vec![options(component, settings)]).expect("the plugin loads")
}

/// Microseconds since the Unix epoch.
fn now() -> u128 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("a later time").as_micros()
}

impl Loaded {
    /// Runs a batch through; its lines, with `now` for a time at which it did.
    fn lines_now(&mut self, batch: Batch) -> Vec<String> {
        let begin = now();
        let lines = self.lines(batch.done());
        let times = begin..=now();
        let shown = |line: String| {
            let (row, time) = line.rsplit_once(',').expect("columns");
            let micros = time.trim_end_matches(')');
            let is_now = micros.parse().is_ok_and(|micros| times.contains(&micros));
            assert!(is_now, "{line}: not in {times:?}");
            format!("{row},now)")
        };
        lines.into_iter().map(shown).collect()
    }
}

/// What the plugin does with all that it imports, whenever it was built.
pub fn remembers_counts_and_tells_the_time(component: &Path) {
    let visits = visits();
    let mut chain = chronicler(component, GRANTS);
    let first = Batch::at(7)
        .insert(&visits, &named("1", "ann"))
        .insert(&visits, &named("2", "bob"))
        .update(&visits, &named("1", "eve"));
    let expected = [
        "c 7:1 visits -> (1,ann,-,1,now)",
        "c 7:2 visits -> (2,bob,-,1,now)",
        "u 7:3 visits -> (1,eve,ann,2,now)",
    ];
    assert_eq!(chain.lines_now(first), expected);
    let later = Batch::at(8)
        .update(&visits, &named("2", NULL))
        .delete_full(&visits, &named("1", "eve"))
        .insert(&visits, &named("1", "kim"))
        .update(&visits, &named("2", "sue"));
    let expected = [
        "u 8:1 visits -> (2,-,bob,2,now)",
        "d 8:2 visits (1,eve,eve,3,now)",
        "c 8:3 visits -> (1,kim,-,1,now)",
        "u 8:4 visits -> (2,sue,-,3,now)",
    ];
    assert_eq!(chain.lines_now(later), expected, "by what it was shown in the batch before");
    let counted = chain.exposed("custom_total").concat();
    assert!(counted.contains("counter=\"rows\"") && counted.ends_with("} 7"), "{counted}");
}

/// What the plugin is answered when there is no room for what it writes.
pub fn is_told_that_its_state_is_full(component: &Path) {
    let mut chain = chronicler(component, &format!("{GRANTS}\nstate_mb = 1"));
    let long = "x".repeat(1 << 20);
    let mut changes = Batch::at(7).insert(&visits(), &named("1", &long)).done();
    let reason = chain.run(&mut changes).pop().expect("it is set aside").reason;
    assert!(reason.contains("its state would grow beyond 1 MiB; raise `state_mb`"), "{reason}");
    let next = Batch::at(8).insert(&visits(), &named("1", "ann"));
    let expected = ["c 8:1 visits -> (1,ann,-,1,now)"];
    assert_eq!(chain.lines_now(next), expected, "nothing was written");
}

#[test]
fn a_plugin_of_its_own_world_is_given_what_it_imports_and_is_granted() {
    remembers_counts_and_tells_the_time(&test_guest_file("chronicler-c"));
    is_told_that_its_state_is_full(&test_guest_file("chronicler-c"));
}

#[test]
fn without_the_grant_nobody_is_told_the_time() {
    let component = test_guest_file("chronicler-c");
    for (settings, missing) in [("grants = ['state']", "clock"), ("grants = ['clock']", "state")] {
        let Err(error) = load(vec![options(&component, settings)]) else { panic!("it was loaded") };
        let expected = format!(
            "{} imports `{missing}`, which it is not granted; add grants = [\"{missing}\"] to its \
             section if it may have it",
            component.display()
        );
        assert_eq!(error.to_string(), expected);
    }
    let found = inspect(&RUNTIME, &component).expect("a plugin");
    assert_eq!(found.needed_grants(), ["clock", "state"]);
}
