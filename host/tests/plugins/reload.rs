//! A plugin's file is replaced while batches flow.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tailwater::plugin::{How, PluginStatus, Reloaded, Shadow};
use tailwater::table::ColumnType;
use tailwater::telemetry::metrics::PluginKindLabels;
use tailwater_test_support::{Scratch, guests, wait_until};

use crate::batch::{Batch, table, users};
use crate::chains::{Loaded, load, options, plugin_file, test_guest_file};

const DEADLINE: Duration = Duration::from_secs(60);

/// A chain of one plugin whose file is a copy of that one.
pub fn watched(scratch: &Scratch, first: &Path, settings: &str) -> Loaded {
    let file = scratch.join("it.wasm");
    fs::copy(first, &file).expect("a copy");
    load(vec![options(&file, settings)]).expect("the plugin loads")
}

fn replace_by_rename(scratch: &Scratch, content: &[u8]) {
    let fresh = scratch.join("fresh");
    fs::write(&fresh, content).expect("a file");
    fs::rename(fresh, scratch.join("it.wasm")).expect("the same directory");
}

fn read(path: &Path) -> Vec<u8> {
    fs::read(path).expect("a component")
}

impl Loaded {
    pub fn reloads(&self, kind: &'static str) -> u64 {
        let labels = PluginKindLabels { plugin: "it".to_owned(), kind };
        self.metrics.plugin_reloads.get_or_create(&labels).get()
    }

    pub fn status(&self) -> PluginStatus {
        self.chain.versions().list().remove(0)
    }

    fn wait_for(&self, kind: &'static str, count: u64) {
        wait_until(DEADLINE, kind, || self.reloads(kind) == count).expect("the reload ends");
    }

    /// What becomes of an address.
    fn mail(&mut self) -> String {
        let line = self.lines(Batch::at(7).insert(&users(), &["1", "ann", "ann@x.org"]).done());
        line.concat()
    }
}

const AS_IT_WAS: &str = "c 7:1 users -> (1,ann,ann@x.org)";
const MASKED: &str = "c 7:1 users -> (1,ann,a***@x.org)";

#[test]
fn a_renamed_file_takes_over_between_batches() {
    let scratch = Scratch::new("reload").expect("a directory");
    let mut chain = watched(&scratch, &test_guest_file("identity"), "");
    assert_eq!(chain.mail(), AS_IT_WAS);
    let before = chain.status();
    replace_by_rename(&scratch, &read(&plugin_file("mask-email")));
    chain.wait_for("accepted", 1);
    assert_eq!(chain.status(), before, "it takes over with the next batch, not earlier");
    assert_eq!(chain.mail(), MASKED);
    let after = chain.status();
    assert_eq!((before.generation, after.generation), (1, 2));
    assert_ne!(before.digest, after.digest);
}

#[test]
fn a_file_written_in_place_takes_over() {
    let scratch = Scratch::new("reload").expect("a directory");
    let mut chain = watched(&scratch, &test_guest_file("identity"), "");
    fs::write(scratch.join("it.wasm"), read(&plugin_file("mask-email"))).expect("a file");
    chain.wait_for("accepted", 1);
    assert_eq!(chain.mail(), MASKED);
}

#[test]
fn what_does_not_load_leaves_the_old_version_running() {
    let scratch = Scratch::new("reload").expect("a directory");
    let mut chain = watched(&scratch, &plugin_file("mask-email"), "");
    let other_world = guests::component_of("package a:b; world it { export go: func(); }", "it");
    let broken = [
        (b"half a compon".to_vec(), "it.wasm is not a WebAssembly component"),
        (other_world.expect("a component"), "it.wasm implements no world"),
        (
            read(&plugin_file("drop-duplicates")),
            "it.wasm is now a dedup plugin but runs as transform; restart to change its role",
        ),
        (read(&test_guest_file("hostile")), "plugin it does not start"),
    ];
    for ((content, wanted), count) in broken.iter().zip(1..) {
        replace_by_rename(&scratch, content);
        chain.wait_for("rejected", count);
        let told = chain.status().last_reload_error.expect("it was rejected");
        assert!(told.contains(wanted), "{wanted}: {told}");
        assert_eq!(chain.mail(), MASKED);
    }
    assert_eq!((chain.status().generation, chain.reloads("accepted")), (1, 0));
    replace_by_rename(&scratch, &read(&test_guest_file("identity")));
    chain.wait_for("accepted", 1);
    assert_eq!(chain.mail(), AS_IT_WAS, "a good version takes over after bad ones");
}

#[test]
fn why_a_version_is_not_taken_is_told_until_one_is() {
    let scratch = Scratch::new("reload").expect("a directory");
    let first = plugin_file("mask-email");
    let chain = watched(&scratch, &first, "");
    assert_eq!(chain.status().last_reload_error, None);
    replace_by_rename(&scratch, b"half a compon");
    chain.wait_for("rejected", 1);
    let told = chain.status().last_reload_error.expect("it was rejected");
    assert!(told.contains("it.wasm") && told.lines().count() == 1, "{told:?}");
    // Back to what runs already: there is nothing to complain about, and nothing to swap.
    replace_by_rename(&scratch, &read(&first));
    wait_until(DEADLINE, "the error to go", || chain.status().last_reload_error.is_none())
        .expect("it goes");
    replace_by_rename(&scratch, &read(&plugin_file("drop-duplicates")));
    chain.wait_for("rejected", 2);
    assert!(chain.status().last_reload_error.is_some());
    replace_by_rename(&scratch, &read(&test_guest_file("identity")));
    chain.wait_for("accepted", 1);
    assert_eq!(chain.status().last_reload_error, None);
}

#[test]
fn the_same_content_again_is_no_new_version() {
    let scratch = Scratch::new("reload").expect("a directory");
    let mut chain = watched(&scratch, &plugin_file("mask-email"), "");
    replace_by_rename(&scratch, &read(&plugin_file("mask-email")));
    // Events come in order: when this one is through, the one before is too.
    replace_by_rename(&scratch, b"broken");
    chain.wait_for("rejected", 1);
    assert_eq!(chain.mail(), MASKED);
    assert_eq!((chain.status().generation, chain.reloads("accepted")), (1, 0));
}

#[test]
fn a_file_that_goes_away_changes_nothing() {
    let scratch = Scratch::new("reload").expect("a directory");
    let mut chain = watched(&scratch, &plugin_file("mask-email"), "");
    fs::remove_file(scratch.join("it.wasm")).expect("it is there");
    assert_eq!(chain.mail(), MASKED);
    replace_by_rename(&scratch, &read(&test_guest_file("identity")));
    chain.wait_for("accepted", 1);
    assert_eq!(chain.mail(), AS_IT_WAS);
}

#[test]
fn the_memory_of_duplicates_outlives_a_reload() {
    let scratch = Scratch::new("reload").expect("a directory");
    let first = plugin_file("drop-duplicates");
    let mut chain = watched(&scratch, &first, "");
    assert_eq!(chain.mail().len(), AS_IT_WAS.len());
    // The same code with a section nobody reads: another version that does the same.
    let mut second = read(&first);
    second.extend_from_slice(b"\0\x05\x04note");
    replace_by_rename(&scratch, &second);
    chain.wait_for("accepted", 1);
    assert_eq!(chain.mail(), "", "it came before");
    assert_eq!(chain.status().generation, 2);
}

#[test]
fn swapping_all_the_time_loses_and_doubles_nothing() {
    let scratch = Scratch::new("reload").expect("a directory");
    let (plain, masking) = (read(&test_guest_file("identity")), read(&plugin_file("mask-email")));
    let mut chain = watched(&scratch, &test_guest_file("identity"), "");
    let users = users();
    let mut generation = 1;
    for round in 0..40_u64 {
        replace_by_rename(&scratch, if round % 2 == 0 { &masking } else { &plain });
        let wanted = chain.reloads("accepted") + 1;
        let mut batches = 0;
        while chain.reloads("accepted") < wanted || batches < 5 {
            batches += 1;
            let batch = Batch::at(batches).insert(&users, &["1", "ann", "ann@x.org"]);
            let lines = chain.lines(batch.insert(&users, &["2", "bob", "bob@x.org"]).done());
            let masked = [
                format!("c {batches}:1 users -> (1,ann,a***@x.org)"),
                format!("c {batches}:2 users -> (2,bob,b***@x.org)"),
            ];
            let plain = [
                format!("c {batches}:1 users -> (1,ann,ann@x.org)"),
                format!("c {batches}:2 users -> (2,bob,bob@x.org)"),
            ];
            assert!(lines == masked || lines == plain, "one version per batch: {lines:?}");
        }
        chain.mail();
        generation += 1;
        assert_eq!(chain.status().generation, generation);
    }
    assert_eq!(Arc::strong_count(&users), 1);
}

/// The hostile guest, which does nothing until it is told a deed.
pub fn harmless(scratch: &Scratch, settings: &str) -> Loaded {
    let settings = format!("deadline_ms = 200\n{settings}\nconfig = {{ deed = 'nothing' }}");
    watched(scratch, &test_guest_file("hostile"), &settings)
}

impl Loaded {
    /// Reloads with other settings, and waits for what comes of it.
    pub fn reload(&self, scratch: &Scratch, settings: &str) -> Result<Reloaded, String> {
        let options = options(&scratch.join("it.wasm"), settings);
        self.chain.versions().reload("it", Some(&options)).expect("there is one")
    }

    /// How many of three people go on, and how many are set aside.
    pub fn people(&mut self, poison: &str) -> (usize, usize) {
        let users = users();
        let batch = Batch::at(9)
            .insert(&users, &["1", "ann", "a"])
            .insert(&users, &["2", poison, "b"])
            .insert(&users, &["3", "cy", "c"]);
        let mut changes = batch.done();
        let letters = self.run(&mut changes);
        (changes.len(), letters.len())
    }
}

pub const PANICS: &str = "deadline_ms = 200\nconfig = { deed = 'panic-on-poison' }";

#[test]
fn other_settings_take_over_as_another_file_does() {
    let scratch = Scratch::new("reload").expect("a directory");
    let mut chain = harmless(&scratch, "");
    assert_eq!(chain.people("poison"), (3, 0));
    let unchanged = "deadline_ms = 200\n\nconfig = { deed = 'nothing' }";
    assert_eq!(chain.reload(&scratch, unchanged), Ok(Reloaded::Unchanged));
    let refused = chain.reload(&scratch, "config = { deed = 'refuse-init' }").expect_err("refused");
    assert!(refused.contains("it does not like the weather"), "{refused}");
    assert_eq!(chain.status().last_reload_error, Some(refused));
    let digest = chain.status().digest;
    let settings = format!("probation_rows = 0\n{PANICS}");
    assert_eq!(chain.reload(&scratch, &settings), Ok(Reloaded::Accepted { digest, shadow: None }));
    assert_eq!(chain.people("poison"), (2, 1), "it panics now");
    assert_eq!((chain.status().generation, chain.status().last_reload_error), (2, None));
}

#[test]
fn a_version_that_fails_on_what_the_one_before_takes_is_rolled_back_and_costs_no_row() {
    let scratch = Scratch::new("reload").expect("a directory");
    let mut chain = harmless(&scratch, "");
    chain.reload(&scratch, PANICS).expect("it loads");
    assert_eq!(chain.people("ben"), (3, 0));
    assert_eq!(chain.status().generation, 2);
    assert_eq!(chain.people("poison"), (3, 0), "the version before takes the row");
    assert_eq!((chain.status().generation, chain.reloads("rolled-back")), (3, 1));
    let error = chain.status().last_reload_error.expect("it is told");
    assert!(error.starts_with("rolled back and put in quarantine: "), "{error}");
    let again = chain.reload(&scratch, PANICS).expect_err("it is quarantined");
    assert!(again.contains("is in quarantine since"), "{again}");
    assert_eq!(chain.people("poison"), (3, 0));
}

#[test]
fn a_row_that_both_versions_fail_on_is_no_fault_of_the_new_one() {
    let scratch = Scratch::new("reload").expect("a directory");
    let mut chain = watched(&scratch, &test_guest_file("hostile"), PANICS);
    chain.reload(&scratch, &format!("retries = 1\n{PANICS}")).expect("it loads");
    assert_eq!(chain.people("poison"), (2, 1));
    assert_eq!((chain.status().generation, chain.reloads("rolled-back")), (2, 0));
}

#[test]
fn a_version_that_mends_a_part_loses_none_of_it_to_the_one_before() {
    let scratch = Scratch::new("reload").expect("a directory");
    let mut chain = watched(&scratch, &test_guest_file("hostile"), PANICS);
    let mended = "deadline_ms = 200\nconfig = { deed = 'fault-on-poison' }";
    chain.reload(&scratch, mended).expect("it loads");
    let users = users();
    let batch = Batch::at(9).insert(&users, &["1", "ann", "a"]);
    let batch = batch.insert(&users, &["2", "poison", "b"]).insert(&users, &["3", "poison", "c"]);
    let mut changes = batch.done();
    let letters = chain.run(&mut changes);
    let reasons: Vec<&str> = letters.iter().map(|letter| letter.reason.as_str()).collect();
    assert_eq!(
        (reasons, changes.len()),
        (vec!["the row is poison"], 2),
        "the one before fails on two"
    );
    assert_eq!((chain.status().generation, chain.reloads("rolled-back")), (2, 0));
}

#[test]
fn after_its_probation_a_version_stands_on_its_own() {
    let scratch = Scratch::new("reload").expect("a directory");
    let mut chain = harmless(&scratch, "");
    chain.reload(&scratch, &format!("probation_rows = 3\n{PANICS}")).expect("it loads");
    assert_eq!(chain.people("ben"), (3, 0));
    assert_eq!(chain.people("poison"), (2, 1));
    assert_eq!((chain.status().generation, chain.reloads("rolled-back")), (2, 0));
}

#[test]
fn a_halting_version_on_probation_does_not_halt_what_the_one_before_takes() {
    let scratch = Scratch::new("reload").expect("a directory");
    let mut chain = harmless(&scratch, "on_error = 'halt'");
    chain.reload(&scratch, &format!("on_error = 'halt'\n{PANICS}")).expect("it loads");
    assert_eq!(chain.people("poison"), (3, 0));
    assert_eq!(chain.reloads("rolled-back"), 1);
}

#[test]
fn rows_are_skipped_and_counted_when_asked_to() {
    let scratch = Scratch::new("reload").expect("a directory");
    let settings = format!("on_error = 'skip'\n{PANICS}");
    let mut chain = watched(&scratch, &test_guest_file("hostile"), &settings);
    assert_eq!(chain.people("poison"), (2, 0));
    let labels = PluginKindLabels { plugin: "it".to_owned(), kind: "skipped" };
    assert_eq!(chain.metrics.plugin_faults.get_or_create(&labels).get(), 1);
}

#[test]
fn a_pinned_digest_admits_no_other_file() {
    let scratch = Scratch::new("reload").expect("a directory");
    let digest = "0".repeat(64);
    let file = scratch.join("it.wasm");
    fs::copy(plugin_file("mask-email"), &file).expect("a copy");
    let Err(error) = load(vec![options(&file, &format!("digest = '{digest}'"))]) else {
        panic!("it was loaded")
    };
    assert!(error.to_string().contains(&format!("but its section pins {digest}")), "{error}");
}

impl Loaded {
    /// What came of the last comparison.
    pub fn shadow(&self) -> Shadow {
        self.status().last_shadow.expect("a version was compared")
    }

    /// Ann and Bob, if the plugin lets them through; the last batches count.
    fn ann_and_bob(&mut self, commit: u64) {
        let users = users();
        let batch = Batch::at(commit).insert(&users, &["1", "ann", "ann@x.org"]);
        self.lines(batch.insert(&users, &["2", "bob", "bob@x.org"]).done());
    }
}

#[test]
fn before_it_takes_over_a_version_is_compared_on_the_last_batches() {
    let scratch = Scratch::new("reload").expect("a directory");
    let mut chain = watched(&scratch, &test_guest_file("identity"), "shadow_batches = 2");
    for commit in 1..=3 {
        chain.ann_and_bob(commit);
    }
    // Nothing to compare.
    chain.lines(Batch::at(4).done());
    replace_by_rename(&scratch, &read(&plugin_file("mask-email")));
    chain.wait_for("accepted", 1);
    let shadow = chain.shadow();
    assert_eq!((shadow.batches, shadow.rows, shadow.changed, shadow.differing()), (2, 4, 4, 4));
    let first = &shadow.first[0];
    assert_eq!((first.table.as_str(), first.position.as_str()), ("public.users", "0/2:1"));
    assert_eq!((first.how, first.columns.as_slice()), (How::Changed, &["email".to_owned()][..]));
    assert!(!format!("{shadow} {shadow:?}").contains("ann"), "a row value is told");
    assert_eq!(chain.status().generation, 1, "the running version goes on");
    assert_eq!(chain.mail(), MASKED);
}

#[test]
fn rows_that_only_one_version_keeps_fails_on_or_routes_are_told_apart() {
    let scratch = Scratch::new("reload").expect("a directory");
    let keep = |name: &str| {
        format!(
            "shadow_batches = 9\nconfig = {{ where = [{{ column = 'name', value = '{name}' }}] }}"
        )
    };
    let mut chain = watched(&scratch, &plugin_file("filter-rows"), &keep("ann"));
    chain.ann_and_bob(1);
    chain.reload(&scratch, &keep("bob")).expect("it loads");
    let shadow = chain.shadow();
    assert_eq!((shadow.rows, shadow.discarded, shadow.differing()), (2, 2, 2));

    let scratch = Scratch::new("reload").expect("a directory");
    let mut chain = harmless(&scratch, "shadow_batches = 9");
    assert_eq!(chain.people("poison"), (3, 0));
    chain.reload(&scratch, &format!("shadow_batches = 9\n{PANICS}")).expect("it loads");
    let shadow = chain.shadow();
    assert_eq!((shadow.rows, shadow.faults, shadow.differing()), (3, 1, 1));
    assert_eq!(shadow.first[0].how, How::Fault);

    let scratch = Scratch::new("reload").expect("a directory");
    let route = |schema: &str| {
        let config = format!("config = {{ column = 'region', schemas = {{ eu = '{schema}' }} }}");
        format!("shadow_batches = 9\n{config}")
    };
    let mut chain = watched(&scratch, &plugin_file("route-by-value"), &route("europe"));
    let people = table("people", &[("id", ColumnType::Int8), ("region", ColumnType::Text)]);
    chain.lines(Batch::at(1).insert(&people, &["1", "eu"]).insert(&people, &["2", "us"]).done());
    chain.reload(&scratch, &route("old_world")).expect("it loads");
    let shadow = chain.shadow();
    assert_eq!((shadow.rows, shadow.routed, shadow.differing()), (2, 1, 1));
}

#[test]
fn a_version_that_makes_something_else_of_too_many_rows_is_refused_and_quarantined() {
    let scratch = Scratch::new("reload").expect("a directory");
    let compares = "shadow_batches = 9\nshadow_limit = 30";
    let mut chain = harmless(&scratch, compares);
    assert_eq!(chain.people("poison"), (3, 0));
    let settings = format!("{compares}\n{PANICS}");
    let refused = chain.reload(&scratch, &settings).expect_err("a third of the rows fail");
    assert!(refused.starts_with("1 of 3 rows of the last batches differ"), "{refused}");
    assert_eq!(chain.status().last_reload_error, Some(refused));
    let again = chain.reload(&scratch, &settings).expect_err("it is quarantined");
    let why =
        ": it made something else of 1 of 3 rows; give it another build or other settings, or ";
    assert!(again.contains(why) && again.ends_with("restart to try it again"), "{again}");
    assert_eq!(chain.people("poison"), (3, 0));
    assert_eq!((chain.status().generation, chain.reloads("rejected")), (1, 2));
    let wider = settings.replace("30", "34");
    chain.reload(&scratch, &wider).expect("as many may differ");
    let shadow = chain.shadow();
    assert_eq!((shadow.rows, shadow.faults), (6, 2));
}

#[test]
fn what_a_plugin_did_by_its_memory_is_not_compared() {
    for (file, settings) in [
        (plugin_file("drop-duplicates"), "shadow_batches = 2\nshadow_limit = 0"),
        (test_guest_file("rememberer"), "shadow_batches = 2\nshadow_limit = 0\ngrants = ['state']"),
    ] {
        let scratch = Scratch::new("reload").expect("a directory");
        let mut chain = watched(&scratch, &file, settings);
        chain.mail();
        chain.reload(&scratch, &format!("{settings}\nretries = 1")).expect("it loads");
        let skipped = chain.shadow().skipped.expect("nothing was compared");
        assert_eq!(skipped, "what it did depends on what it remembered then");
    }
}

#[test]
fn without_a_batch_or_the_setting_nothing_is_compared() {
    let scratch = Scratch::new("reload").expect("a directory");
    let mut chain = harmless(&scratch, "");
    assert_eq!(chain.people("ben"), (3, 0));
    chain.reload(&scratch, PANICS).expect("it loads");
    assert_eq!(chain.status().last_shadow, None);
    assert_eq!(chain.people("ben"), (3, 0));
    let compares = format!("shadow_batches = 2\nshadow_limit = 0\n{PANICS}");
    chain.reload(&scratch, &compares).expect("it loads");
    let skipped = chain.shadow().skipped.expect("the version before kept no batch");
    assert!(skipped.contains("seen no batch"), "{skipped}");
}

/// The next version takes long to compile.
#[test]
fn the_running_version_goes_on_while_the_next_one_compiles() {
    let scratch = Scratch::new("reload").expect("a directory");
    let mut chain = watched(&scratch, &plugin_file("mask-email"), "memory_mb = 256");
    let users = users();
    let mut next = read(&test_guest_file("identity"));
    next.extend_from_slice(&guests::idle_module(500));
    replace_by_rename(&scratch, &next);
    let (mut masked, mut plain) = (0, 0);
    while chain.status().generation == 1 || plain < 10 {
        let commit = masked + plain + 1;
        let line = chain.lines(Batch::at(commit).insert(&users, &["1", "ann", "ann@x.org"]).done());
        let is = |email: &str| line == [format!("c {commit}:1 users -> (1,ann,{email})")];
        assert!(is("a***@x.org") || is("ann@x.org"), "a row was lost, doubled or torn: {line:?}");
        if is("ann@x.org") {
            plain += 1;
        } else {
            masked += 1;
        }
        assert!(plain == 0 || !is("a***@x.org"), "the version before came back");
    }
    assert!(masked >= 10, "the stream stood still while the next version was compiled: {masked}");
}
