//! A plugin's section changes while batches flow.

use std::fs;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tailwater::plugin::{Options, Reloads};
use tailwater::telemetry::metrics::PluginKindLabels;
use tailwater_test_support::{Scratch, wait_until};

use crate::chains::{Loaded, load, options, plugin_file, test_guest_file};

const DEADLINE: Duration = Duration::from_secs(60);

fn accepted(loaded: &Loaded) -> u64 {
    let labels = PluginKindLabels { plugin: "it".to_owned(), kind: "accepted" };
    loaded.metrics.plugin_reloads.get_or_create(&labels).get()
}

#[test]
fn a_file_at_another_path_is_loaded_and_followed_there() {
    let scratch = Scratch::new("settings").expect("a directory");
    let there = scratch.join("there");
    fs::create_dir(&there).expect("a directory");
    let (old, new) = (scratch.join("it.wasm"), there.join("it.wasm"));
    fs::copy(test_guest_file("identity"), &old).expect("a copy");
    let loaded = load(vec![options(&old, "")]).expect("the plugin loads");
    let reload = |file| loaded.chain.versions().reload("it", Some(&options(file, "")));
    let nowhere = scratch.join("nowhere/it.wasm");
    let refused = reload(&nowhere).expect("there is one").expect_err("refused");
    assert!(refused.contains("nowhere/it.wasm cannot be read"), "{refused}");
    fs::copy(test_guest_file("identity"), &new).expect("a copy");
    reload(&new).expect("there is one").expect("it takes over");
    let before = accepted(&loaded);
    let fresh = there.join("fresh");
    fs::copy(plugin_file("mask-email"), &fresh).expect("a copy");
    fs::rename(&fresh, &new).expect("the same directory");
    wait_until(DEADLINE, "the version there", || accepted(&loaded) > before).expect("it is seen");
}

#[test]
fn another_stage_and_a_section_that_is_gone_need_a_restart() {
    let scratch = Scratch::new("settings").expect("a directory");
    let file = scratch.join("it.wasm");
    fs::copy(test_guest_file("identity"), &file).expect("a copy");
    let loaded = load(vec![options(&file, "")]).expect("the plugin loads");
    let reloads = Reloads::default();
    reloads.watch([loaded.chain.versions()]);
    let settings: Arc<Mutex<Vec<Options>>> = Arc::default();
    let read = Arc::clone(&settings);
    let reread = move || Ok(read.lock().unwrap_or_else(PoisonError::into_inner).clone());
    reloads.read_settings_by(["it".to_owned()], reread);
    let gone = "plugin it has no section in the configuration any more; restart to run without it";
    assert_eq!(reloads.one("it"), Some(Err(gone.to_owned())));
    assert_eq!(reloads.all().expect("settings").remove("it"), Some(Err(gone.to_owned())));
    assert_eq!(reloads.one("another"), None);
    let other = Options { name: "late".to_owned(), ..options(&file, "") };
    *settings.lock().expect("no panic") = vec![other];
    let late = "plugin late came into the configuration since the start; restart to run it";
    assert_eq!(reloads.all().expect("settings").remove("late"), Some(Err(late.to_owned())));
    let section = |more| *settings.lock().expect("no panic") = vec![options(&file, more)];
    section("stage = 'sink'\nretries = 7");
    let moved = "plugin it: to move it to the other `stage`, restart";
    assert_eq!(reloads.one("it"), Some(Err(moved.to_owned())));
    assert_eq!(accepted(&loaded), 0, "none of the settings is taken");
    section("retries = 7");
    reloads.one("it").expect("there is one").expect("it takes over");
    assert_eq!(accepted(&loaded), 1);
}
