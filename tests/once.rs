//! Whether Kafka holds each change of the shop's `users` exactly once, in order.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use tailwater_test_support::{Database, Tailwater, wait_for};

use crate::{History, read_committed};

const DEADLINE: Duration = Duration::from_secs(120);

/// Waits until all that is written now is committed in Kafka, the copy of the tables included.
pub fn wait_sent(capture: &Tailwater, source: &Database<'_>) -> Result<()> {
    let now = "SELECT (pg_current_wal_lsn() - '0/0'::pg_lsn)::bigint";
    let written: u64 = source.query(now)?[0][0].parse()?;
    wait_for(DEADLINE, "Kafka to hold what is written", || {
        let metrics = capture.get("/metrics")?.text();
        let prefix = "tailwater_position{step=\"sent\"} ";
        let sent = metrics.lines().find_map(|line| line.strip_prefix(prefix));
        let sent: u64 = sent.context("nothing was sent yet")?.parse()?;
        ensure!(sent >= written, "sent {sent} of {written}");
        Ok(())
    })
}

/// Each key's records in Kafka are its last changes, in order, with at least those after the mark,
/// which was set once the table was copied; and no two records share a position.
pub fn each_change_once(
    histories: &BTreeMap<i64, History>,
    bootstrap: &str,
    topic: &str,
) -> Result<()> {
    let mut sent: BTreeMap<i64, String> = BTreeMap::new();
    let mut positions: BTreeMap<i64, Vec<String>> = BTreeMap::new();
    for record in read_committed(bootstrap, topic)? {
        let (Some(key), Some(value)) = (&record.key, &record.value) else { continue };
        let key: serde_json::Value = serde_json::from_str(key)?;
        let value: serde_json::Value = serde_json::from_str(value)?;
        let id = key["id"].as_i64().context("find the key's id")?;
        sent.entry(id).or_default().push_str(value["op"].as_str().context("find the op")?);
        let origin = record.headers.iter().find(|(name, _)| name == "tailwater.origin");
        let (position, _) =
            origin.and_then(|(_, origin)| origin.split_once(' ')).context("find the position")?;
        positions.entry(id).or_default().push(position.to_owned());
    }
    for (id, History { ops, after_mark }) in histories {
        let sent = sent.get(id).map_or("", String::as_str);
        // What a copy shows stands for all changes before it.
        let streamed = sent.trim_start_matches('r');
        let complete = ops.ends_with(streamed) && streamed.len() >= *after_mark;
        ensure!(
            complete,
            "key {id}: the source did `{ops}`, the last {after_mark} of them after the copy; Kafka \
             holds `{sent}`"
        );
    }
    for (id, positions) in positions {
        let mut distinct = positions.clone();
        distinct.sort();
        distinct.dedup();
        ensure!(distinct.len() == positions.len(), "key {id} has a position twice: {positions:?}");
    }
    ensure!(!sent.is_empty(), "no record in {topic}");
    Ok(())
}
