//! `plugins/golden`: events as Debezium writes them, and what a plugin makes of them.

use std::fs;

use serde_json::{Value as Json, json};
use tailwater::change::Changes;
use tailwater::encode::{Batch, Encoder, Incoming, Reader};
use tailwater_test_support::workspace_root;

use crate::chains::Loaded;

/// The events of a file of a plugin's golden directory, one envelope a line.
fn events(plugin: &str, file: &str) -> Vec<Json> {
    let path = workspace_root().join("plugins/golden").join(plugin).join(file);
    let text = fs::read_to_string(&path).unwrap_or_else(|_| panic!("no {}", path.display()));
    text.lines().map(|line| serde_json::from_str(line).expect("an event")).collect()
}

/// What of an event the plugin may change.
fn told(event: &Json) -> Json {
    let source = &event["source"];
    json!({
        "op": event["op"], "before": event["before"], "after": event["after"],
        "schema": source["schema"], "table": source["table"], "ts_us": source["ts_us"],
    })
}

/// Shows a plugin the golden events, all in one batch and then one by one, and compares.
pub fn check(name: &str, plugin: &mut Loaded) {
    let given = events(name, "given.jsonl");
    let expected: Vec<Json> = events(name, "expected.jsonl").iter().map(told).collect();
    assert!(!expected.is_empty(), "no golden events");
    assert_eq!(made_of(plugin, &given), expected, "in one batch");
    let one_by_one = given.chunks(1).flat_map(|event| made_of(plugin, event));
    assert_eq!(one_by_one.collect::<Vec<_>>(), expected, "one by one");
}

fn made_of(plugin: &mut Loaded, given: &[Json]) -> Vec<Json> {
    let mut changes = read(given);
    assert_eq!(plugin.run(&mut changes), [], "nothing is set aside");
    let mut batch = Batch::default();
    Encoder::new("shop", "shop").encode(&changes, 0, &mut batch);
    assert_eq!(batch.dead_letters, []);
    let values = batch.records.iter().filter_map(|record| record.value);
    values.map(|span| told(&serde_json::from_slice(batch.span(span)).expect("JSON"))).collect()
}

fn read(given: &[Json]) -> Changes {
    let (mut reader, mut changes) = (Reader::default(), Changes::default());
    for (event, offset) in given.iter().zip(0..) {
        let row = if event["after"].is_null() { &event["before"] } else { &event["after"] };
        let (key, value) = (json!({ "id": row["id"] }).to_string(), event.to_string());
        let incoming = Incoming {
            topic: "shop.public.users",
            partition: 0,
            offset,
            key: Some(key.as_bytes()),
            value: Some(value.as_bytes()),
            origin: None,
            exact: None,
        };
        let read = reader.read(&incoming, &mut |_| None, &mut changes);
        read.expect("a golden event is a change");
    }
    changes
}
