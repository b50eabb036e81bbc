//! `tests/guests/hostile`, `tests/guests/hostile-keys`: whatever a plugin does, the host goes on.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tailwater::change::Changes;
use tailwater::dead_letter::{DeadLetter, Stage};
use tailwater::disposition::Disposition;
use tailwater::plugin::Error;
use tailwater::table::{ColumnType, Table};
use tailwater::telemetry::metrics::{PluginKindLabels, PluginLabels};
use tracing::Level;

use crate::batch::{Batch, lines, table};
use crate::chains::{Loaded, load, options, test_guest_file};
use crate::log_lines::logged;

fn members() -> Arc<Table> {
    table("members", &[("id", ColumnType::Int4), ("name", ColumnType::Text)])
}

/// That many members, one of whom may be poison.
fn batch(rows: u64, poison: Option<u64>) -> Changes {
    let members = members();
    let insert = |batch: Batch, row: u64| {
        let name = if Some(row) == poison { "poison" } else { "ann" };
        batch.insert(&members, &[&row.to_string(), name])
    };
    (1..=rows).fold(Batch::at(7), insert).done()
}

fn guest(name: &str, deed: &str, settings: &str) -> Result<Loaded, Error> {
    let settings = format!("{settings}\nconfig = {{ deed = '{deed}' }}");
    load(vec![options(&test_guest_file(name), &settings)])
}

fn hostile(deed: &str, settings: &str) -> Loaded {
    guest("hostile", deed, settings).expect("the plugin loads")
}

fn refused(deed: &str, settings: &str) -> String {
    let Err(error) = guest("hostile", deed, settings) else { panic!("{deed} was loaded") };
    assert_eq!(error.disposition(), Disposition::Halt);
    error.to_string()
}

impl Loaded {
    fn faults(&self, kind: &'static str) -> u64 {
        let labels = PluginKindLabels { plugin: "hostile".to_owned(), kind };
        self.metrics.plugin_faults.get_or_create(&labels).get()
    }

    fn own_counters(&self) -> usize {
        let exposed = self.metrics.expose();
        let own = exposed.lines().filter(|line| line.starts_with("tailwater_plugin_custom_total{"));
        own.count()
    }

    fn calls(&self) -> u64 {
        let labels = PluginLabels { plugin: "hostile".to_owned() };
        self.metrics.plugin_calls.get_or_create(&labels).get()
    }
}

fn ordinals(letters: &[DeadLetter]) -> Vec<u64> {
    letters.iter().map(|letter| letter.position.ordinal).collect()
}

/// All of a batch is set aside for that reason, by every batch anew.
fn sets_everything_aside(deed: &str, settings: &str, reason: &str, kind: &'static str) {
    let mut chain = hostile(deed, settings);
    for _ in 0..2 {
        let mut changes = batch(3, None);
        let mut letters = chain.run(&mut changes);
        // Rows that hang are judged when the batch is through.
        letters.sort_by_key(|letter| letter.position);
        assert_eq!(ordinals(&letters), [1, 2, 3], "{deed}");
        assert!(changes.is_empty(), "{deed}");
        for letter in &letters {
            assert!(letter.reason.contains(reason), "{deed}: {}", letter.reason);
        }
    }
    assert!(chain.faults(kind) > 0, "{deed} counts as {kind}");
}

/// Only the poison row is set aside; gives its letter.
fn sets_poison_aside(deed: &str, settings: &str) -> (Loaded, DeadLetter) {
    let mut chain = hostile(deed, settings);
    let mut changes = batch(40, Some(20));
    let mut expected = lines(&changes);
    expected.remove(19);
    let letters = chain.run(&mut changes);
    assert_eq!(ordinals(&letters), [20], "{deed}");
    assert_eq!(lines(&changes), expected, "{deed}: the rest goes on, in order");
    let letter = letters.into_iter().next().expect("one");
    (chain, letter)
}

#[test]
fn a_panic_costs_its_row_only() {
    let (chain, letter) = sets_poison_aside("panic-on-poison", "");
    assert!(letter.reason.starts_with("it trapped: "), "{}", letter.reason);
    let backtrace = letter.backtrace.expect("the way to the trap");
    let explodes = backtrace.lines().find(|line| line.contains("hostile::explode at 0x"));
    assert!(explodes.is_some() && backtrace.lines().count() <= 32, "{backtrace}");
    assert_eq!((letter.table.as_str(), letter.op.as_str()), ("public.members", "c"));
    assert_eq!(letter.stage, Stage::Transform);
    assert_eq!(letter.original, r#"{"after":{"id":"20","name":"poison"},"before":null}"#);
    let plugin = letter.plugin.expect("the plugin that failed");
    assert_eq!((plugin.name.as_str(), plugin.digest.len()), ("hostile", 64));
    assert_eq!(chain.faults("trap"), 3, "one per level of the search");
}

#[test]
fn what_passes_a_plugin_is_noted_when_asked_for_and_what_it_fails_on_is_not() {
    for settings in ["", "on_error = 'skip'"] {
        let mut chain = hostile("panic-on-poison", settings);
        chain.run(&mut batch(3, Some(2)));
        assert_eq!(chain.chain.take_passed(), [], "nobody asked");
        chain.chain.note_passed(true);
        chain.run(&mut batch(3, Some(2)));
        let mut ordinals = Vec::new();
        for passed in chain.chain.take_passed() {
            assert_eq!((&*passed.plugin, &*passed.table), ("hostile", "public.members"));
            ordinals.extend(passed.rows.iter().map(|(position, _)| position.ordinal));
        }
        ordinals.sort_unstable();
        assert_eq!(ordinals, [1, 3]);
    }
}

#[test]
fn an_endless_loop_costs_its_row_only() {
    let (chain, letter) = sets_poison_aside("loop-on-poison", "deadline_ms = 100");
    assert!(letter.reason.starts_with("it ran longer than "), "{}", letter.reason);
    // One per level of the search, and one more on a machine that was busy in the first call.
    assert!((3..=4).contains(&chain.faults("deadline")));
}

#[test]
fn two_rows_that_hang_are_found_in_a_large_batch() {
    let members = members();
    let name = |row: u64| if row == 1000 || row == 3000 { "poison" } else { "ann" };
    let insert = |batch: Batch, row: u64| batch.insert(&members, &[&row.to_string(), name(row)]);
    let mut changes = (1..=4096).fold(Batch::at(7), insert).done();
    let letters = hostile("loop-on-poison", "deadline_ms = 800").run(&mut changes);
    assert_eq!(ordinals(&letters), [1000, 3000]);
    assert_eq!(changes.len(), 4094);
}

#[test]
fn a_fault_costs_its_row_only() {
    let (chain, letter) = sets_poison_aside("fault-on-poison", "");
    assert_eq!(letter.reason, "the row is poison");
    assert_eq!((chain.faults("row"), chain.calls()), (1, 1));
}

#[test]
fn a_retryable_fault_is_retried_as_often_as_set() {
    let (chain, letter) = sets_poison_aside("retry-on-poison", "retries = 5");
    assert_eq!(letter.reason, "the row is poison");
    assert_eq!(chain.calls(), 6);
}

#[test]
fn a_plugin_that_fails_on_most_rows_stops_the_pipeline_instead_of_setting_all_aside() {
    let settings = "breaker_rows = 10\nbreaker_percent = 40";
    let mut chain = hostile("refuse-batch", settings);
    for _ in 0..3 {
        assert_eq!(chain.run(&mut batch(3, None)).len(), 3);
    }
    let error = chain.chain.transform(&mut batch(3, None)).expect_err("it stops");
    assert_eq!(error.disposition(), Disposition::Halt);
    let said = "failed on 12 of the last 12 changes and is taken for broken; the last time: ";
    assert!(error.to_string().contains(said), "{error}");
}

#[test]
fn a_plugin_that_hangs_stops_the_pipeline_after_some_calls_and_not_after_a_thousand_rows() {
    let mut chain = hostile("loop-on-poison", "deadline_ms = 100");
    for _ in 0..20 {
        assert_eq!(chain.run(&mut batch(1, Some(1))).len(), 1);
    }
    assert_eq!(chain.run(&mut batch(1, None)), [], "it does not hang on this one");
    let hangs = |chain: &mut Loaded| chain.chain.transform(&mut batch(1, Some(1)));
    let error = (1..=32).find_map(|row| hangs(&mut chain).err().map(|error| (row, error)));
    let (row, error) = error.expect("it stops");
    assert_eq!(row, 32);
    let said = "plugin hostile hung for 32 deadlines without an answer and is taken for broken";
    assert!(error.to_string().starts_with(said), "{error}");
    assert_eq!(error.disposition(), Disposition::Halt);
}

#[test]
fn a_plugin_that_fails_on_few_rows_goes_on() {
    let mut chain = hostile("fault-on-poison", "breaker_rows = 10\nbreaker_percent = 40");
    for _ in 0..20 {
        assert_eq!(chain.run(&mut batch(5, Some(2))).len(), 1);
    }
}

#[test]
fn halt_names_the_row_and_loses_nothing() {
    let mut chain = hostile("panic-on-poison", "on_error = 'halt'");
    let mut changes = batch(40, Some(20));
    let error = chain.chain.transform(&mut changes).expect_err("it halts");
    assert_eq!(error.disposition(), Disposition::Halt);
    let sentence = error.to_string();
    let begin = "plugin hostile failed on the change at 0/7:20 of public.members: it trapped: ";
    assert!(sentence.starts_with(begin), "{sentence}");
    assert!(sentence.contains("on_error = \"dead-letter\""), "{sentence}");
    let mut again = batch(40, None);
    let expected = lines(&again);
    assert_eq!(chain.run(&mut again), []);
    assert_eq!(lines(&again), expected, "the plugin works on after the halt");
}

#[test]
fn a_loop_in_every_batch_is_cut() {
    let reason = "deadlines of its batch";
    sets_everything_aside("loop-in-process", "deadline_ms = 400", reason, "deadline");
}

#[test]
fn a_batch_of_rows_that_all_hang_takes_no_more_than_two_deadlines() {
    let mut chain = hostile("loop-in-process", "deadline_ms = 400\nbreaker_rows = 0");
    for _ in 0..2 {
        let (mut changes, started) = (batch(500, None), Instant::now());
        let letters = chain.run(&mut changes);
        let took = started.elapsed();
        assert_eq!(letters.len(), 500);
        let because =
            |end: &str| letters.iter().filter(|letter| letter.reason.ends_with(end)).count();
        assert!(because("deadlines of its batch, on this row or on one shown with it") > 0);
        assert!(because("it was not shown: rows of its batch took 2 deadlines") > 100);
        // A tick more for each call, and the starts of instances.
        assert!(took < Duration::from_millis(2 * 400 + 1500), "the stream stood for {took:?}");
    }
    assert!(chain.calls() < 40, "{} calls", chain.calls());
}

#[test]
fn a_table_behind_one_whose_rows_all_hang_goes_on() {
    let (members, others) =
        (members(), table("others", &[("id", ColumnType::Int4), ("name", ColumnType::Text)]));
    let insert = |batch: Batch, row: u64| batch.insert(&members, &[&row.to_string(), "poison"]);
    let batch = (1..=100).fold(Batch::at(7), insert);
    let insert = |batch: Batch, row: u64| batch.insert(&others, &[&row.to_string(), "ann"]);
    let mut changes = (1..=200).fold(batch, insert).done();
    let mut chain = hostile("loop-on-poison", "deadline_ms = 400\nbreaker_rows = 0");
    assert_eq!(chain.run(&mut changes).len(), 100);
    assert_eq!(changes.len(), 200, "the other table's");
}

#[test]
fn memory_is_limited() {
    let reason = "it wanted more than its 16 MiB of memory";
    sets_everything_aside("eat-memory", "memory_mb = 16", reason, "memory");
    let sentence = refused("nothing", "memory_mb = 1");
    assert!(sentence.contains("its 1 MiB of memory"), "{sentence}");
}

/// Every instance fills its memory after some twenty batches, on a row that is not at fault.
#[test]
fn a_plugin_that_leaks_is_built_anew_and_loses_nothing() {
    let mut chain = hostile("leak-memory", "memory_mb = 8");
    for _ in 0..100 {
        let mut changes = batch(1, None);
        let expected = lines(&changes);
        assert_eq!(chain.run(&mut changes), []);
        assert_eq!(lines(&changes), expected);
    }
    let (instances, calls) = (chain.faults("memory"), chain.calls());
    assert!((3..=10).contains(&instances), "{instances} were filled");
    assert_eq!(calls, 100 + instances, "its batch is shown to each new one again");
    let labels = PluginLabels { plugin: "hostile".to_owned() };
    let held = chain.metrics.plugin_memory_bytes.get_or_create(&labels).get();
    assert!((1 << 20..=8 << 20).contains(&held), "{held} bytes");
}

#[test]
fn the_stack_is_limited() {
    sets_everything_aside("overflow-stack", "", "out of bounds memory access", "trap");
    sets_everything_aside("recurse-forever", "", "call stack exhausted", "trap");
}

#[test]
fn output_is_limited() {
    let reason = "it handed back more than 8 MiB";
    sets_everything_aside("huge-output", "output_mb = 8", reason, "output");
    let reason = "it handed back more than 64 MiB";
    sets_everything_aside("output-of-aliases", "", reason, "output");
}

#[test]
fn an_error_for_the_batch_is_an_error_for_its_rows() {
    sets_everything_aside("refuse-batch", "", "it does not like the batch", "refused");
}

#[test]
fn malformed_patches_are_refused_whole() {
    for (deed, reason) in [
        ("too-few-values", "0 values for 1 rows"),
        ("too-many-values", "2 values for 1 rows"),
        ("short-nulls", "0 bytes of nulls for 1 rows"),
        ("discard-beyond", "discard: row 1 is not ascending below 1"),
        ("discard-twice", "discard: row 0 is not ascending below 1"),
        ("fault-beyond", "faults: row 1 is not ascending below 1"),
        ("edit-beyond", "edit: row 4294967295 is not ascending below 1"),
        ("edit-column-beyond", "an edit of column 2 of 2"),
        ("not-utf8-packed", "packed data is not UTF-8"),
        ("end-inside-character", "end 1 is not ascending, inside the data, or at a character"),
        ("end-beyond-data", "end 9 is not ascending, inside the data, or at a character"),
        ("data-beyond-end", "6 bytes of packed data, the last end is 2"),
    ] {
        sets_everything_aside(deed, "", &format!("its answer is malformed: {reason}"), "malformed");
    }
    sets_everything_aside("not-utf8-string", "", "utf-8", "trap");
}

#[test]
fn values_that_their_column_cannot_hold_are_faults_of_their_rows() {
    let invalid = "it gave a value that its type cannot hold to id, a integer";
    sets_everything_aside("word-for-number", "", invalid, "row");
    sets_everything_aside("zeros-before-number", "", invalid, "row");
    sets_everything_aside("number-too-large", "", invalid, "row");
    let null = "it gave NULL where none may be to id, a integer";
    sets_everything_aside("null-for-not-null", "", null, "row");
}

#[test]
fn a_plugin_that_does_not_start_is_not_loaded() {
    let sentence = refused("refuse-init", "");
    let expected =
        "plugin hostile does not start: it does not like the weather; check its `config`";
    assert_eq!(sentence, expected);
    assert!(refused("panic-in-init", "").contains("it trapped"));
    let sentence = refused("loop-in-init", "deadline_ms = 50");
    assert!(sentence.contains("longer than its deadline of 50 ms"), "{sentence}");
    assert!(refused("fly", "").contains("unknown variant `fly`"));
}

#[test]
fn a_table_that_is_refused_sets_its_rows_aside_without_calls() {
    for (deed, settings, reason) in [
        ("refuse-subscribe", "", "it does not like the table"),
        ("panic-in-subscribe", "", "it trapped"),
        ("loop-in-subscribe", "deadline_ms = 50", "it ran longer than its deadline"),
        ("want-missing-column", "", "it wants column nowhere of public.members, which has none"),
        ("want-native-text", "", "name of public.members is text, which has no native form"),
        ("want-too-much", "", "it wants 100002 columns of public.members, which has 2"),
    ] {
        let mut chain = hostile(deed, settings);
        for _ in 0..2 {
            let mut changes = batch(3, None);
            let letters = chain.run(&mut changes);
            assert_eq!(ordinals(&letters), [1, 2, 3], "{deed}");
            for letter in letters {
                let begin = "it does not take table public.members: ";
                assert!(letter.reason.starts_with(begin), "{}", letter.reason);
                assert!(letter.reason.contains(reason), "{}", letter.reason);
            }
        }
        assert_eq!(chain.calls(), 0, "{deed}");
    }
}

#[test]
fn a_plugin_that_does_not_answer_about_tables_takes_one_deadline_of_a_batch() {
    let mut chain = hostile("loop-in-subscribe", "deadline_ms = 500");
    let columns = [("id", ColumnType::Int4), ("name", ColumnType::Text)];
    let tables: Vec<_> = (0..10).map(|number| table(&format!("t{number}"), &columns)).collect();
    let insert = |batch: Batch, table: &Arc<Table>| batch.insert(table, &["1", "ann"]);
    let mut changes = tables.iter().fold(Batch::at(7), insert).done();
    let started = Instant::now();
    let letters = chain.run(&mut changes);
    let took = started.elapsed();
    assert!(took < Duration::from_millis(5 * 500), "the stream stood still for {took:?}");
    let [first, others @ ..] = &letters[..] else { panic!("no letters") };
    assert!(first.reason.starts_with("it does not take table public.t0: "), "{}", first.reason);
    let reason = "it is not asked about the table, another one of the batch took its deadline";
    assert!(others.len() == 9 && others.iter().all(|letter| letter.reason == reason));
    assert_eq!(chain.faults("deadline"), 1);
    let mut changes = tables.iter().fold(Batch::at(8), insert).done();
    let letters = chain.run(&mut changes);
    let asked = letters.iter().filter(|letter| letter.reason.starts_with("it does not take"));
    assert_eq!((asked.count(), chain.faults("deadline")), (2, 2), "one more is asked about");
}

#[test]
fn tables_that_a_plugin_takes_go_on_though_it_does_not_answer_about_another_one() {
    let mut chain = hostile("loop-on-poison-table", "deadline_ms = 200");
    let columns = [("id", ColumnType::Int4), ("name", ColumnType::Text)];
    let [left, poison, right] = ["left", "poison", "right"].map(|name| table(name, &columns));
    let insert = |batch: Batch, table: &Arc<Table>| batch.insert(table, &["1", "ann"]);
    let mut changes = [&left, &right].into_iter().fold(Batch::at(7), insert).done();
    assert_eq!(chain.run(&mut changes), []);
    let mut changes = [&left, &poison, &right].into_iter().fold(Batch::at(8), insert).done();
    let letters = chain.run(&mut changes);
    assert_eq!(letters.iter().map(|letter| &*letter.table).collect::<Vec<_>>(), ["public.poison"]);
    assert_eq!(changes.len(), 2);
}

#[test]
fn a_flood_of_lines_without_end_is_cut_at_the_deadline() {
    let mut chain = hostile("flood-log-forever", "deadline_ms = 100");
    let started = Instant::now();
    let ((), logged) = logged(Level::INFO, || {
        let letters = chain.run(&mut batch(1, None));
        assert_eq!(letters[0].reason, "it ran longer than its deadline of 100 ms");
    });
    let took = started.elapsed();
    assert!(took < Duration::from_secs(2), "the stream stood still for {took:?}");
    assert!(!logged.is_empty() && logged.len() < 100, "{} lines", logged.len());
}

#[test]
fn what_it_counts_is_bounded() {
    let mut counters = hostile("bad-counters", "");
    assert_eq!(counters.run(&mut batch(3, None)), []);
    assert_eq!(counters.own_counters(), 32);
}

#[test]
fn what_it_counts_is_bounded_however_many_instances_count() {
    let mut chain = hostile("count-rows-and-panic", "");
    let ((), logged) = logged(Level::WARN, || {
        assert_eq!(chain.run(&mut batch(100, None)).len(), 100);
    });
    assert!(chain.faults("trap") > 100, "each of them is another instance");
    assert_eq!(chain.own_counters(), 32);
    let told = logged.iter().filter(|line| line["message"] == "plugin counter is ignored");
    assert_eq!(told.count(), 1);
}

#[test]
fn other_plugins_of_the_chain_work_on() {
    let settings = "config = { deed = 'panic-on-poison' }";
    let hostile = options(&test_guest_file("hostile"), settings);
    let mask =
        options(&crate::chains::plugin_file("mask-email"), "config = { columns = ['name'] }");
    let mut chain = load(vec![hostile, mask]).expect("both load");
    let mut changes = batch(3, Some(2));
    assert_eq!(ordinals(&chain.run(&mut changes)), [2]);
    let masked = ["c 7:1 members -> (1,a***)", "c 7:3 members -> (3,a***)"];
    assert_eq!(lines(&changes), masked);
}

fn keys(deed: &str) -> Loaded {
    guest("hostile-keys", deed, "").expect("the plugin loads")
}

#[test]
fn malformed_keys_are_refused_whole() {
    for (deed, reason) in [
        ("too-few-keys", "0 values for 1 rows"),
        ("too-many-keys", "2 values for 1 rows"),
        ("not-utf8", "packed data is not UTF-8"),
        ("fault-beyond", "faults: row 1 is not ascending below 1"),
        ("panic", "it trapped"),
    ] {
        let mut changes = batch(3, None);
        let letters = keys(deed).run(&mut changes);
        assert_eq!(ordinals(&letters), [1, 2, 3], "{deed}");
        assert!(letters.iter().all(|letter| letter.reason.contains(reason)), "{letters:?}");
    }
}

#[test]
fn one_key_for_all_drops_no_other_row() {
    let mut chain = keys("one-key-for-all");
    assert_eq!(chain.lines(batch(3, None)).len(), 3, "they are rows of their own");
    assert_eq!(chain.lines(batch(3, None)).len(), 0, "and these came before");
    assert_eq!(keys("no-keys").lines(batch(3, None)).len(), 3);
}

#[test]
fn rows_that_fail_are_not_remembered() {
    let mut chain = keys("retry-first");
    let mut changes = batch(3, None);
    assert_eq!(ordinals(&chain.run(&mut changes)), [1]);
    let mut again = batch(3, None);
    assert_eq!(ordinals(&chain.run(&mut again)), [1], "it was never kept");
    assert_eq!(again.len(), 0, "the others were");
}
