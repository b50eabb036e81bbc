//! Plugins that were built for 0.1.0 keep working: `tests/data/plugins-0.1.0` holds their components, which
//! are never built again.

use std::fs;
use std::path::PathBuf;

use tailwater::plugin::{Golden, Grant, Options, Role, inspect};
use tailwater_test_support::workspace_root;

use crate::chains::RUNTIME;

/// A component of each world, with its digest: who builds one again has broken the promise.
const FROZEN: [(&str, Role, &str); 3] = [
    (
        "transform",
        Role::Transform,
        "433b0c4ae9beaaeae43d87f48e69524701e921561897423d5b2f31a74f2664bb",
    ),
    ("dedup", Role::Dedup, "c6f04cb589c03bf93ac22cb203a5af2172828ddaa7ef5f115af624337e82f145"),
    ("reshape", Role::Reshape, "8a2007c7dc560fbeaf6782276671a4aac716c39c8379d7707cf1dfe72a70ba5b"),
];

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
    for (name, ..) in FROZEN {
        let golden = fs::read_to_string(file(&format!("{name}.golden.jsonl"))).expect("events");
        let golden = Golden::parse(&golden).expect("golden events");
        let component = file(&format!("{name}.wasm"));
        let report = golden.run(&RUNTIME, &Options::of_component(&component, vec![Grant::Clock]));
        let report = report.expect("it loads");
        assert!(report.events > 2, "{name}");
        assert_eq!(report.differences, [], "{name}");
    }
}
