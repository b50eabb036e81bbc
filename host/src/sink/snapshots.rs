//! Which snapshots are complete and which cluster they are of, kept beside the rows they brought.

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

#[derive(Deserialize)]
struct Found {
    schema: String,
    name: String,
    at: String,
    oid: u32,
    key: Vec<String>,
}

#[derive(Deserialize)]
struct Present {
    name: String,
}

/// The table, quoted.
fn home(client: &Client) -> String {
    client.table(&format!("{OWN_PREFIX}snapshots"))
}

/// The snapshots of a pipeline whose tables, told by `versions_of`, are still there.
pub(super) async fn completed(
    client: &Client,
    pipeline: &str,
    versions_of: impl Fn(&TableName) -> String,
) -> Result<Vec<SnapshotDone>, Error> {
    let sql = format!(
        "SELECT source_schema AS schema, source_table AS name, \
         toString(consistent_at) AS at, table_oid AS oid, key FROM {} FINAL WHERE pipeline = {}",
        home(client),
        literal(pipeline),
    );
    let found = client.rows::<Found>("read snapshots", &sql).await?;
    let database = literal(client.database());
    let sql = format!("SELECT name FROM system.tables WHERE database = {database}");
    let present = client.rows::<Present>("look up tables", &sql).await?;
    let done = found.into_iter().filter_map(|Found { schema, name, at, oid, key }| {
        let table = TableName { schema, name };
        let consistent_at = Lsn(at.parse().ok()?);
        let versions = versions_of(&table);
        let is_there = present.iter().any(|table| table.name == versions);
        let copied = Copied { consistent_at, oid, key };
        is_there.then_some(SnapshotDone { table, copied })
    });
    Ok(done.collect())
}

/// The system identifier of the cluster that a pipeline's rows came from.
pub(super) async fn cluster(client: &Client, pipeline: &str) -> Result<Option<u64>, Error> {
    #[derive(Deserialize)]
    struct Found {
        system: String,
    }
    let sql = format!(
        "SELECT toString(system_identifier) AS system FROM {} FINAL WHERE pipeline = {}",
        client.table(&format!("{OWN_PREFIX}sources")),
        literal(pipeline),
    );
    let found = client.rows::<Found>("read the source's cluster", &sql).await?;
    Ok(found.first().and_then(|found| found.system.parse().ok()))
}

/// Takes a pipeline's records back, or that of one table.
pub(super) async fn forget(
    client: &Client,
    pipeline: &str,
    cluster: Option<&str>,
    table: Option<&TableName>,
) -> Result<(), Error> {
    let of_table = table.map(|TableName { schema, name }| {
        format!(" AND source_schema = {} AND source_table = {}", literal(schema), literal(name))
    });
    let sql = format!(
        "ALTER TABLE {}{} DELETE WHERE pipeline = {}{} SETTINGS mutations_sync = 2",
        home(client),
        on_cluster(cluster),
        literal(pipeline),
        of_table.unwrap_or_default(),
    );
    client.execute("forget snapshots", &sql).await
}

/// Records for `insert into _tailwater_snapshots`: the columns, and the rows.
pub(super) fn rows(pipeline: &str, snapshots: &[SnapshotDone]) -> (&'static str, Bytes) {
    let mut rows = Vec::new();
    for snapshot in snapshots {
        for text in [pipeline, &snapshot.table.schema, &snapshot.table.name] {
            write_string(text.as_bytes(), &mut rows);
        }
        let Copied { consistent_at, oid, key } = &snapshot.copied;
        rows.extend_from_slice(&consistent_at.0.to_le_bytes());
        rows.extend_from_slice(&oid.to_le_bytes());
        write_varint(key.len() as u64, &mut rows);
        key.iter().for_each(|column| write_string(column.as_bytes(), &mut rows));
    }
    ("pipeline, source_schema, source_table, consistent_at, table_oid, key", rows.into())
}
