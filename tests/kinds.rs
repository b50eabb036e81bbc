//! Compares the workload's tables of other kinds with their copies in ClickHouse, and with what somebody has
//! who reads their topics to the end. Rows are told as text, long values by their SHA-256.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};
use tailwater_test_support::workload::{KINDS, Kind};
use tailwater_test_support::{Database, wait_for};

use crate::copy::{Difference, compare};
use crate::{Record, read_committed};

/// Debezium's word for a value that an update left alone and the log does not tell.
const UNAVAILABLE: &str = "__debezium_unavailable_value";
const NULL: &str = r"\N";

/// The columns besides the body.
fn columns(kind: Kind) -> Vec<&'static str> {
    kind.key.iter().copied().chain(["revision", "title"]).collect()
}

fn source_sql(kind: Kind) -> String {
    let text = |name: &str| format!(r"coalesce({name}::text, '\N')");
    let columns: Vec<_> = columns(kind).into_iter().map(text).collect();
    let body = r"coalesce(encode(sha256(convert_to(body, 'UTF8')), 'hex'), '\N')";
    format!("SELECT concat_ws('|', {}, {body}) FROM {}", columns.join(", "), kind.name)
}

fn copy_sql(kind: Kind) -> String {
    let text = |name: &str| format!(r"ifNull(toString({name}), '\\N')");
    let columns: Vec<_> = columns(kind).into_iter().map(text).collect();
    let body = r"ifNull(lower(hex(SHA256(body))), '\\N')";
    format!("SELECT concat_ws('|', {}, {body}) AS line FROM {}", columns.join(", "), kind.name)
}

/// Waits until the copies equal the source, which must no longer change; the number of rows.
pub fn wait_kinds_equal(
    source: &Database<'_>,
    http_url: &str,
    deadline: Duration,
) -> Result<usize> {
    let mut rows = 0;
    for kind in KINDS {
        rows += wait_for(deadline, "the copy to equal the source", || {
            let difference = compare(source, &source_sql(kind), http_url, &copy_sql(kind))?;
            ensure!(difference.is_none(), "{}: {difference}", kind.name);
            Ok(difference.rows)
        })?;
    }
    Ok(rows)
}

/// Whoever reads the topics below the prefix has the source's rows in the end.
pub fn topics_hold_the_rows(source: &Database<'_>, bootstrap: &str, prefix: &str) -> Result<()> {
    for kind in KINDS {
        let wanted: Vec<String> = source.query(&source_sql(kind))?.into_iter().flatten().collect();
        let records = read_committed(bootstrap, &format!("{prefix}.public.{}", kind.name))?;
        let difference = Difference::of(&wanted, &last_rows(kind, &records)?);
        ensure!(difference.is_none(), "the topic of {}: {difference}", kind.name);
    }
    Ok(())
}

/// The rows after the last record. A value that is not told is the one that the row had under its key.
fn last_rows(kind: Kind, records: &[Record]) -> Result<Vec<String>> {
    let mut rows: BTreeMap<(i32, String), Map<String, Value>> = BTreeMap::new();
    for record in records {
        let Some(value) = &record.value else { continue };
        let mut value: Value = serde_json::from_str(value)?;
        let Some(key) = &record.key else {
            rows.retain(|(partition, _), _| *partition != record.partition);
            continue;
        };
        let key = (record.partition, key.clone());
        match value["after"].take() {
            Value::Object(mut after) => {
                for (name, cell) in &mut after {
                    if cell == UNAVAILABLE {
                        let before = rows.get(&key).and_then(|row| row.get(name));
                        *cell = before.cloned().unwrap_or_else(|| UNAVAILABLE.into());
                    }
                }
                rows.insert(key, after);
            }
            _ => drop(rows.remove(&key)),
        }
    }
    rows.values().map(|row| line(kind, row)).collect()
}

fn line(kind: Kind, row: &Map<String, Value>) -> Result<String> {
    let text = |name: &str| match row.get(name).with_context(|| format!("find `{name}`"))? {
        Value::Null => Ok(NULL.to_owned()),
        Value::String(text) => Ok(text.clone()),
        other => anyhow::Ok(other.to_string()),
    };
    let mut cells = columns(kind).into_iter().map(text).collect::<Result<Vec<_>>>()?;
    cells.push(match text("body")? {
        none if none == NULL => none,
        body => Sha256::digest(body).iter().map(|byte| format!("{byte:02x}")).collect(),
    });
    Ok(cells.join("|"))
}
