//! Whether Kafka holds each change of a table exactly once, in order.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use tailwater_test_support::{Database, Tailwater, wait_for};

use crate::audit::compact;
use crate::{History, Record, read_committed};

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

/// The LSN of a transaction's commit, by its halves, and the ordinal in it.
type Position = (u64, u64, u64);

/// What a topic holds of one key, in order: the operations, by Debezium's letters, at their positions.
type Sent = Vec<(char, Position)>;

/// Each key's records in Kafka are its last changes, in order, with at least those after the mark,
/// which was set once the table was copied; and the positions of a key only grow.
pub fn each_change_once(
    histories: &BTreeMap<String, History>,
    bootstrap: &str,
    topic: &str,
) -> Result<()> {
    let sent = by_key(&read_committed(bootstrap, topic)?)?;
    ensure!(!sent.is_empty(), "no record in {topic}");
    for (key, History { ops, after_mark }) in histories {
        let letters =
            |sent: &[(char, Position)]| sent.iter().map(|(op, _)| *op).collect::<String>();
        let (all, complete) = match sent.get(key) {
            Some(sent) => {
                let streamed = letters(streamed(sent));
                (letters(sent), ops.ends_with(&streamed) && streamed.len() >= *after_mark)
            }
            // Of one that nothing was sent of, the partition, and so what was sent of all keys, is not known.
            None => {
                let after = ops.chars().rev().take(*after_mark);
                (String::new(), after.into_iter().all(|op| op == 't'))
            }
        };
        ensure!(
            complete,
            "{topic}, key {key}: the source did `{ops}`, the last {after_mark} of them after the copy; \
             Kafka holds `{all}`"
        );
    }
    for (key, sent) in sent {
        let only_emptied = streamed(&sent).iter().all(|(op, _)| *op == 't');
        let known = histories.contains_key(&key) || only_emptied;
        ensure!(known, "{topic}: nobody changed key {key}: {sent:?}");
        let grows = sent.is_sorted_by(|(_, before), (_, after)| before < after);
        ensure!(grows, "{topic}, key {key}: a position comes twice, or late: {sent:?}");
    }
    Ok(())
}

/// How many copies of its table a topic holds.
pub fn copies(bootstrap: &str, topic: &str) -> Result<usize> {
    let mut begun = BTreeSet::new();
    for record in read_committed(bootstrap, topic)? {
        let (high, low, ordinal) = position(&record)?;
        if ordinal == 0 {
            begun.insert((high, low));
        }
    }
    Ok(begun.len())
}

/// What a copy shows stands for all changes before it. Its truncate, where it has one, is at the ordinal 0.
fn streamed(sent: &Sent) -> &[(char, Position)] {
    let copied = sent.iter().rposition(|(op, (.., ordinal))| *op == 'r' || *ordinal == 0);
    &sent[copied.map_or(0, |last| last + 1)..]
}

/// A truncate is in every partition, and one of each key there.
fn by_key(records: &[Record]) -> Result<BTreeMap<String, Sent>> {
    let mut keys: BTreeMap<String, (i32, Sent)> = BTreeMap::new();
    let mut truncates: BTreeMap<i32, Sent> = BTreeMap::new();
    for record in records {
        // The tombstone behind a delete.
        let Some(value) = &record.value else { continue };
        let value: serde_json::Value = serde_json::from_str(value)?;
        let op = value["op"].as_str().and_then(|op| op.chars().next()).context("find the op")?;
        let sent = (op, position(record)?);
        let emptied = truncates.entry(record.partition).or_default();
        if let Some(key) = &record.key {
            let new = || (record.partition, emptied.clone());
            let (partition, all) = keys.entry(compact(key)?).or_insert_with(new);
            ensure!(*partition == record.partition, "key {key} is in two partitions");
            all.push(sent);
        } else {
            ensure!(op == 't', "a record of no key with `{op}`");
            emptied.push(sent);
            let here = keys.values_mut().filter(|(partition, _)| *partition == record.partition);
            here.for_each(|(_, all)| all.push(sent));
        }
    }
    Ok(keys.into_iter().map(|(key, (_, sent))| (key, sent)).collect())
}

fn position(record: &Record) -> Result<Position> {
    let origin = record.headers.iter().find(|(name, _)| name == "tailwater.origin");
    let (_, origin) = origin.context("find the position")?;
    let parse = || {
        let (position, _) = origin.split_once(' ')?;
        let (commit, ordinal) = position.split_once(':')?;
        let (high, low) = commit.split_once('/')?;
        let half = |digits| u64::from_str_radix(digits, 16).ok();
        Some((half(high)?, half(low)?, ordinal.parse().ok()?))
    };
    parse().with_context(|| format!("parse the position in `{origin}`"))
}
