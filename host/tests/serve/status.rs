//! The operator's table of `/v0/status` names every field that is there, and no other.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use serde_json::Value;
use tailwater::plugin::{Differing, How, Shadow};
use tailwater::serve::{Mirrored, MirroredColumn, PluginStatus, Status, StepStatus};
use tailwater_test_support::workspace_root;

use crate::interface::Interface;

/// With everything that may be left out; a field that is new does not compile until it is here.
fn whole() -> Status {
    let differing = Differing {
        table: "public.users".into(),
        position: "0/16B3748:1".into(),
        how: How::Changed,
        columns: vec!["email".into()],
    };
    let shadow = Shadow {
        digest: "5f".into(),
        batches: 1,
        rows: 1,
        discarded: 1,
        changed: 1,
        routed: 1,
        faults: 1,
        first: vec![differing],
        skipped: Some("there is no batch".into()),
    };
    let plugin = PluginStatus {
        name: "mask".into(),
        stage: "sink".into(),
        digest: "5f".into(),
        generation: 1,
        last_reload_error: Some("it does not compile".into()),
        last_shadow: Some(shadow),
    };
    let step = StepStatus {
        position: Some("0/16B3748".into()),
        lag_bytes: Some(1),
        lag_seconds: Some(0.5),
        changes: 1,
    };
    Status {
        version: "0.1.0".into(),
        role: "all".into(),
        transport: "direct".into(),
        uptime_seconds: 1,
        steps: BTreeMap::from([("stored".to_owned(), step)]),
        plugins: vec![plugin],
        // The interface fills these in.
        readiness: BTreeMap::new(),
        tables: Vec::new(),
    }
}

fn mirrored() -> Mirrored {
    let column = MirroredColumn { name: "photo".into(), kind: "String".into(), binary: true };
    Mirrored {
        source: "public.users".into(),
        view: "users".into(),
        columns: vec![column],
        order: vec!["id".into()],
    }
}

/// The paths of all values: `steps.<step>.changes`, `tables[].columns[].name`.
fn fields(value: &Value, path: &str, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(members) => {
            for (key, member) in members {
                let inner = match path {
                    "" => key.clone(),
                    "steps" => "steps.<step>".to_owned(),
                    "readiness" => "readiness.<leg>".to_owned(),
                    _ => format!("{path}.{key}"),
                };
                fields(member, &inner, found);
            }
        }
        Value::Array(items) => {
            assert!(!items.is_empty(), "{path} is empty, so what is in it is not looked at");
            items.iter().for_each(|item| fields(item, &format!("{path}[]"), found));
        }
        _ => _ = found.insert(path.to_owned()),
    }
}

/// The first column of the table under the heading.
fn documented() -> BTreeSet<String> {
    let file = workspace_root().join("docs/OPERATING.md");
    let text = fs::read_to_string(file).expect("the operator's manual");
    let (_, section) = text.split_once("\n### What the status tells\n").expect("the section");
    let section = section.split("\n#").next().unwrap_or_default();
    let cells = section.lines().filter_map(|line| line.strip_prefix("| `")?.split_once("` |"));
    cells.map(|(field, _)| field.to_owned()).collect()
}

#[test]
fn every_field_of_the_status_is_documented_and_no_other() {
    let interface = Interface::start("");
    interface.status.send_replace(whole());
    interface.readiness.leg("capture").stalled("the source is away");
    interface.tables.send_replace(vec![mirrored()]);
    let answer = interface.get("/v0/status");
    let mut found = BTreeSet::new();
    fields(&serde_json::from_slice(&answer.body).expect("it is JSON"), "", &mut found);
    assert!(found.contains("plugins[].last_shadow.first[].columns[]"), "{found:?}");
    assert_eq!(found, documented(), "what is there, and what docs/OPERATING.md names");
}
