//! Which snapshots are complete, which cluster they are of and how far its log was told to be done with,
//! kept beside the rows they brought.

use std::collections::HashSet;

use bytes::Bytes;
use serde::Deserialize;

use super::client::Client;
use super::ddl::on_cluster;
use super::encode::{write_string, write_varint};
use super::error::Error;
use super::names::{OWN_PREFIX, literal};
use crate::hop::{Copied, SnapshotDone};
use crate::position::Lsn;
use crate::table::TableName;

const COLUMNS: &str =
    "pipeline, source_schema, source_table, consistent_at, table_oid, terms, key, form";

/// Tables of which one query asks.
const TABLES_AT_ONCE: usize = 64;

#[derive(Deserialize)]
struct Found {
    schema: String,
    name: String,
    at: String,
    oid: u32,
    terms: String,
    key: Vec<String>,
    form: String,
}

#[derive(Deserialize)]
struct Present {
    name: String,
}

/// The table, quoted.
fn home(client: &Client) -> String {
    client.table(&format!("{OWN_PREFIX}snapshots"))
}

/// The snapshots of a pipeline that were complete, whatever became of their tables since.
pub(super) async fn recorded(client: &Client, pipeline: &str) -> Result<Vec<SnapshotDone>, Error> {
    let sql = format!(
        "SELECT source_schema AS schema, source_table AS name, \
         toString(consistent_at) AS at, table_oid AS oid, \
         toString(terms) AS terms, key, form FROM {} FINAL WHERE pipeline = {}",
        home(client),
        literal(pipeline),
    );
    let found = client.rows::<Found>("read snapshots", &sql).await?;
    let done = found.into_iter().filter_map(|Found { schema, name, at, oid, terms, key, form }| {
        let table = TableName { schema, name };
        let (consistent_at, terms) = (Lsn(at.parse().ok()?), terms.parse().ok()?);
        // Records of before it was kept have none.
        let form = serde_json::from_str(&form).unwrap_or_default();
        Some(SnapshotDone { table, copied: Copied { consistent_at, oid, terms, key, form } })
    });
    Ok(done.collect())
}

/// Those of which the table, told by `versions_of`, is still there.
pub(super) async fn completed(
    client: &Client,
    pipeline: &str,
    versions_of: impl Fn(&TableName) -> String,
) -> Result<Vec<SnapshotDone>, Error> {
    let mut done = recorded(client, pipeline).await?;
    let database = literal(client.database());
    let sql = format!("SELECT name FROM system.tables WHERE database = {database}");
    let present = client.rows::<Present>("look up tables", &sql).await?;
    let present: HashSet<String> = present.into_iter().map(|table| table.name).collect();
    done.retain(|done| present.contains(&versions_of(&done.table)));
    Ok(done)
}

/// The source of a pipeline's rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Provenance {
    /// The cluster's system identifier.
    pub system: u64,
    /// Its timeline.
    pub timeline: u32,
    /// The farthest that the slot may have been told. Of several records the one with the greatest counts, and
    /// of those with the same the last.
    pub confirmed: Lsn,
}

/// Where a pipeline's rows came from, if there are any.
pub(super) async fn provenance(
    client: &Client,
    pipeline: &str,
) -> Result<Option<Provenance>, Error> {
    #[derive(Deserialize)]
    struct Found {
        system: String,
        timeline: u32,
        confirmed: String,
    }
    let sql = format!(
        "SELECT toString(system_identifier) AS system, timeline, toString(confirmed) AS confirmed \
         FROM {} FINAL WHERE pipeline = {}",
        client.table(&format!("{OWN_PREFIX}sources")),
        literal(pipeline),
    );
    let found = client.rows::<Found>("read the source's cluster", &sql).await?;
    Ok(found.first().and_then(|Found { system, timeline, confirmed }| {
        let (system, confirmed) = (system.parse().ok()?, Lsn(confirmed.parse().ok()?));
        Some(Provenance { system, timeline: *timeline, confirmed })
    }))
}

/// The record of it for `insert into _tailwater_sources`: the columns, and the row.
pub(super) fn source_row(pipeline: &str, source: Provenance) -> (&'static str, Bytes) {
    let mut row = Vec::new();
    write_string(pipeline.as_bytes(), &mut row);
    row.extend_from_slice(&source.system.to_le_bytes());
    row.extend_from_slice(&source.timeline.to_le_bytes());
    row.extend_from_slice(&source.confirmed.0.to_le_bytes());
    ("pipeline, system_identifier, timeline, confirmed", row.into())
}

/// The greatest commit after this one of which one of these tables has a row; this one if there is none. A
/// table's index of how new its rows are leaves nothing to read where all are older.
pub(super) async fn newest_commit(
    client: &Client,
    tables: impl Iterator<Item = String>,
    known: Lsn,
) -> Result<Lsn, Error> {
    #[derive(Deserialize)]
    struct Found {
        commit: String,
    }
    let tables: Vec<String> = tables.collect();
    let mut newest = known;
    let later = u128::from(known.0) << 64 | u128::from(u64::MAX);
    // A query a table takes too long for a thousand of them.
    for tables in tables.chunks(TABLES_AT_ONCE) {
        let each = tables.iter().map(|table| {
            let table = client.table(table);
            format!(
                "SELECT max(_version) AS newest FROM {table} WHERE _version > toUInt128('{later}')"
            )
        });
        let each = each.collect::<Vec<_>>().join(" UNION ALL ");
        let sql =
            format!("SELECT toString(bitShiftRight(max(newest), 64)) AS commit FROM ({each})");
        let found = client.rows::<Found>("look for the newest row", &sql).await?;
        let commit = found.first().and_then(|found| found.commit.parse().ok());
        newest = newest.max(Lsn(commit.unwrap_or_default()));
    }
    Ok(newest)
}

/// Takes a pipeline's records back, or those of some tables.
pub(super) async fn forget(
    client: &Client,
    pipeline: &str,
    cluster: Option<&str>,
    tables: Option<&[&TableName]>,
) -> Result<(), Error> {
    let of_tables = tables.map(|tables| {
        let name = |TableName { schema, name }: &&TableName| {
            format!("({}, {})", literal(schema), literal(name))
        };
        let names = tables.iter().map(name).collect::<Vec<_>>().join(", ");
        format!(" AND (source_schema, source_table) IN ({names})")
    });
    let sql = format!(
        "ALTER TABLE {}{} DELETE WHERE pipeline = {}{} SETTINGS mutations_sync = 1",
        home(client),
        on_cluster(cluster),
        literal(pipeline),
        of_tables.unwrap_or_default(),
    );
    client.execute("forget snapshots", &sql).await
}

/// Records for `insert into _tailwater_snapshots`: the columns, and the rows.
pub(super) fn rows(pipeline: &str, snapshots: &[&SnapshotDone]) -> (&'static str, Bytes) {
    let mut rows = Vec::new();
    for snapshot in snapshots {
        for text in [pipeline, &snapshot.table.schema, &snapshot.table.name] {
            write_string(text.as_bytes(), &mut rows);
        }
        let Copied { consistent_at, oid, terms, key, form } = &snapshot.copied;
        rows.extend_from_slice(&consistent_at.0.to_le_bytes());
        rows.extend_from_slice(&oid.to_le_bytes());
        rows.extend_from_slice(&terms.to_le_bytes());
        write_varint(key.len() as u64, &mut rows);
        key.iter().for_each(|column| write_string(column.as_bytes(), &mut rows));
        let form = serde_json::to_vec(form).expect("it is plain data");
        write_string(&form, &mut rows);
    }
    (COLUMNS, rows.into())
}
