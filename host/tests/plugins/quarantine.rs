//! What becomes at the next start of a version that was rolled back, or refused for what it did.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use tailwater::plugin::{Chain, Error, Reloaded, Runtime, Stage, rehearse};
use tailwater::telemetry::metrics::Metrics;
use tailwater_test_support::{Scratch, binary};

use crate::chains::{Loaded, RUNTIME, options, plugin_file, test_guest_file};
use crate::reload::PANICS;

/// A machine on which a process starts again and again.
struct Machine {
    scratch: Scratch,
}

impl Machine {
    fn new() -> Machine {
        Machine { scratch: Scratch::new("quarantine").expect("a directory") }
    }

    fn put(&self, component: &Path) {
        let fresh = self.scratch.join("fresh");
        fs::copy(component, &fresh).expect("a copy");
        fs::rename(fresh, self.scratch.join("it.wasm")).expect("the same directory");
    }

    fn runtime(&self) -> Runtime {
        RUNTIME.clone().with_quarantine(self.scratch.join("quarantine"))
    }

    /// What a process begins with, with compiled code in the engine's cache.
    fn start_on(&self, runtime: &Runtime, settings: &str) -> Result<Loaded, Error> {
        let metrics = Arc::new(Metrics::default());
        let plugins = vec![options(&self.scratch.join("it.wasm"), settings)];
        let chain = Chain::load(runtime, plugins, Stage::Capture, Arc::clone(&metrics))?;
        Ok(Loaded { chain, metrics })
    }

    fn start(&self, settings: &str) -> Result<Loaded, Error> {
        self.start_on(&self.runtime(), settings)
    }

    /// What `tailwater check` prints, which finds the same compiled code.
    fn check(&self) -> String {
        let (cache, config) = (self.scratch.join("cache"), self.scratch.join("tailwater.toml"));
        fs::create_dir(&cache).expect("a directory");
        let compiled = Path::new(env!("CARGO_TARGET_TMPDIR")).join("compiled-plugins");
        symlink(compiled, cache.join("plugins")).expect("a link");
        let text = format!(
            "[state]\npath = {:?}\n[[plugin]]\nname = \"it\"\npath = \"it.wasm\"\n",
            self.scratch.path()
        );
        fs::write(&config, text).expect("a file");
        let mut check = Command::new(binary().expect("the program"));
        check.args(["check", "--source", "host=127.0.0.1 port=1 user=u dbname=d", "--config"]);
        let output = check.arg(config).env("TAILWATER_CACHE", cache).output().expect("it runs");
        String::from_utf8(output.stdout).expect("a text")
    }

    fn files(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.scratch.join("quarantine")).expect("the directory");
        entries.map(|entry| entry.expect("an entry").path()).collect()
    }

    /// A process whose plugin gets a bad build, which is rolled back; the digest of the one that goes on.
    fn roll_back(&self) -> String {
        self.put(&test_guest_file("identity"));
        let mut chain = self.start("").expect("the plugin loads");
        assert_eq!(chain.people("poison"), (3, 0));
        let digest = chain.status().digest;
        self.put(&test_guest_file("trapper-c"));
        // Whoever looks first: this, or who watches the file.
        chain.reload(&self.scratch, "").expect("it loads");
        assert_eq!(chain.people("poison"), (3, 0), "the version before takes the row");
        assert_eq!(chain.status().digest, digest, "it is rolled back");
        digest
    }
}

fn refusal(started: Result<Loaded, Error>) -> String {
    started.err().expect("it is refused").to_string()
}

#[test]
fn a_restart_goes_on_with_the_version_that_a_bad_build_was_rolled_back_to() {
    let machine = Machine::new();
    let good = machine.roll_back();
    let mut chain = machine.start("").expect("the version before is at hand");
    assert_eq!(chain.status().digest, good);
    let told = chain.status().last_reload_error.expect("it is told");
    let [file] = &machine.files()[..] else { panic!("one file says why") };
    let part = "with these settings is in quarantine since 2";
    assert!(
        told.contains(part)
            && told.contains(" rows of a batch failed that the version before takes"),
        "{told}"
    );
    assert!(told.ends_with(&format!("or remove {} to try it again", file.display())), "{told}");
    assert_eq!(chain.people("poison"), (3, 0));
    let checked = rehearse(&machine.runtime(), &options(&machine.scratch.join("it.wasm"), ""));
    let checked = checked.expect("a run would start");
    assert_eq!((checked.digest, checked.instead), (good, Some(told.clone())), "as `check` says it");
    let printed = machine.check();
    assert!(printed.contains(&format!("…, which goes on instead: {told}")), "{printed}");
    assert_eq!(chain.reload(&machine.scratch, ""), Err(told), "nobody lifted it");
    fs::remove_file(file).expect("it is ours");
    assert!(matches!(chain.reload(&machine.scratch, ""), Ok(Reloaded::Accepted { .. })));
}

#[test]
fn a_restart_goes_on_with_what_ran_when_a_bad_build_was_put_back() {
    let machine = Machine::new();
    machine.roll_back();
    machine.put(&plugin_file("mask-email-c"));
    let chain = machine.start("").expect("the plugin loads");
    let running = chain.status().digest;
    machine.put(&test_guest_file("trapper-c"));
    let refused = chain.reload(&machine.scratch, "").expect_err("it is in quarantine");
    assert!(refused.contains("is in quarantine since"), "{refused}");
    assert_eq!(machine.start("").expect("it goes on").status().digest, running);
}

#[test]
fn a_bad_build_is_refused_at_the_start_if_what_ran_before_is_not_at_hand_or_not_meant() {
    let machine = Machine::new();
    machine.roll_back();
    let elsewhere = Runtime::new(Some(machine.scratch.join("empty"))).expect("it runs");
    let elsewhere = elsewhere.with_quarantine(machine.scratch.join("quarantine"));
    let said = refusal(machine.start_on(&elsewhere, ""));
    assert!(said.starts_with("plugin it: the version "), "{said}");
    assert!(said.contains("is in quarantine since "), "{said}");
    let bad = rehearse(&RUNTIME, &options(&machine.scratch.join("it.wasm"), "")).expect("a plugin");
    let pinned = format!("digest = '{}'", bad.digest);
    assert_eq!(refusal(machine.start(&pinned)), said, "no other file is meant");
    let [file] = &machine.files()[..] else { panic!("one file says why") };
    fs::write(file, "").expect("it is ours");
    let said = refusal(machine.start_on(&elsewhere, ""));
    assert!(said.contains("since its file does not say when: its file does not say why"), "{said}");
}

#[test]
fn another_build_and_other_settings_are_no_versions_in_quarantine() {
    let machine = Machine::new();
    machine.roll_back();
    let chain = machine.start("retries = 1").expect("other settings");
    assert_eq!(chain.status().last_reload_error, None);
    machine.put(&test_guest_file("identity"));
    machine.start("").expect("another build");
}

#[test]
fn settings_that_were_rolled_back_are_refused_at_the_start() {
    let machine = Machine::new();
    machine.put(&test_guest_file("hostile"));
    let mut chain = machine.start("config = { deed = 'nothing' }").expect("the plugin loads");
    chain.reload(&machine.scratch, PANICS).expect("it loads");
    assert_eq!(chain.people("poison"), (3, 0));
    let said = refusal(machine.start(PANICS));
    assert!(said.contains("give it another build or other settings"), "{said}");
    machine.start("config = { deed = 'nothing' }").expect("as they were");
}
