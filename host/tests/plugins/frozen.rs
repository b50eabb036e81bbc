//! Plugins that were built for 0.1.0 keep working: `tests/data/plugins-0.1.0` holds their components, which
//! are never built again.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use tailwater::plugin::{Golden, Grant, Options, Role, inspect};
use tailwater_test_support::workspace_root;

use crate::chains::RUNTIME;
use crate::own_world;

/// A component of each role, and one that imports what the others do not, with its digest: who builds one
/// again has broken the promise.
const FROZEN: [(&str, Role, &str); 4] = [
    (
        "transform",
        Role::Transform,
        "433b0c4ae9beaaeae43d87f48e69524701e921561897423d5b2f31a74f2664bb",
    ),
    ("dedup", Role::Dedup, "c6f04cb589c03bf93ac22cb203a5af2172828ddaa7ef5f115af624337e82f145"),
    ("reshape", Role::Reshape, "8a2007c7dc560fbeaf6782276671a4aac716c39c8379d7707cf1dfe72a70ba5b"),
    (
        "own-world",
        Role::Transform,
        "44d79706dacb59a5657916d346d21926ab27c28da22a93696de579b142659ae9",
    ),
];

/// Those that make the same of the same rows, and are shown golden events.
const GOLDEN: [&str; 3] = ["transform", "dedup", "reshape"];

fn file(name: &str) -> PathBuf {
    workspace_root().join("tests/data/plugins-0.1.0").join(name)
}

#[test]
fn components_built_for_0_1_0_are_still_plugins() {
    for (name, role, digest) in FROZEN {
        let found = inspect(&RUNTIME, &file(&format!("{name}.wasm"))).expect("a plugin");
        assert_eq!((found.role, &*found.digest), (role, digest), "{name}");
    }
}

#[test]
fn components_built_for_0_1_0_make_of_their_golden_events_what_they_made_then() {
    for name in GOLDEN {
        let golden = fs::read_to_string(file(&format!("{name}.golden.jsonl"))).expect("events");
        let golden = Golden::parse(&golden).expect("golden events");
        let component = file(&format!("{name}.wasm"));
        let report = golden.run(&RUNTIME, &Options::of_component(&component, vec![Grant::Clock]));
        let report = report.expect("it loads");
        assert!(report.events > 2, "{name}");
        assert_eq!(report.differences, [], "{name}");
    }
}

#[test]
fn a_component_built_for_0_1_0_remembers_counts_and_tells_the_time() {
    let component = file("own-world.wasm");
    own_world::remembers_counts_and_tells_the_time(&component);
    own_world::is_told_that_its_state_is_full(&component);
}

#[test]
fn whatever_may_be_imported_one_of_them_imports() {
    let imports =
        |name| inspect(&RUNTIME, &file(&format!("{name}.wasm"))).expect("a plugin").imports;
    let imported: BTreeSet<String> = FROZEN.iter().flat_map(|(name, ..)| imports(name)).collect();
    let entries = fs::read_dir(workspace_root().join("wit")).expect("the contract");
    let texts = entries.map(|entry| fs::read_to_string(entry.expect("a file").path()));
    let contract: String = texts.map(|text| text.expect("text")).collect();
    let interfaces = contract.lines().filter_map(|line| {
        let name = line.strip_prefix("interface ")?.strip_suffix(" {")?;
        Some(format!("tailwater:plugin/{name}@0.1.0"))
    });
    assert_eq!(imported, interfaces.collect());
}
