//! A plugin's file is replaced while batches flow.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tailwater::plugin::PluginStatus;
use tailwater::telemetry::metrics::PluginKindLabels;
use tailwater_test_support::{Scratch, guests, wait_until};

use crate::batch::{Batch, users};
use crate::chains::{Loaded, load, options, plugin_file, test_guest_file};

const DEADLINE: Duration = Duration::from_secs(60);

/// A chain of one plugin whose file is a copy of that one.
fn watched(scratch: &Scratch, first: &Path, settings: &str) -> Loaded {
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
    fn reloads(&self, kind: &'static str) -> u64 {
        let labels = PluginKindLabels { plugin: "it".to_owned(), kind };
        self.metrics.plugin_reloads.get_or_create(&labels).get()
    }

    fn status(&self) -> PluginStatus {
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
        b"half a compon".to_vec(),
        other_world.expect("a component"),
        read(&plugin_file("drop-duplicates")),
        read(&test_guest_file("hostile")),
    ];
    for (content, count) in broken.iter().zip(1..) {
        replace_by_rename(&scratch, content);
        chain.wait_for("rejected", count);
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
