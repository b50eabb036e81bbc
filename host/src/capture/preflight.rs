//! Before the first byte is streamed: every precondition checked, each failure one sentence with
//! its fix.

use tokio_postgres::Client;
use tracing::warn;

use super::catalog::{self, Published};
use super::error::Error;
use super::history::{self, Log};
use super::options::{Options, SnapshotMode};
use super::publication::{self, Since};
use super::remarks::Remarks;
use super::rights;
use crate::position::Lsn;
use crate::table::TableName;

/// How long a table may be locked by somebody else before that is told. To list a publication's tables opens
/// each of them, and somebody may have one for hours.
const LOCK_TIMEOUT: &str = "SET lock_timeout = '5s'";
/// What comes after the checks waits as long as it takes, and says so.
const NO_LOCK_TIMEOUT: &str = "SET lock_timeout = 0";

/// What the checks found.
#[derive(Debug)]
pub struct Preflight {
    /// `server_version_num`
    pub server_version: i32,
    /// The cluster's own number, given by `initdb`: positions of two clusters do not compare.
    pub system: u64,
    /// How far its log goes.
    pub log: Log,
    /// The tables that will be streamed.
    pub tables: Vec<Published>,
    /// From when on.
    pub since: Since,
    /// The slot, if it exists.
    pub slot: Option<Slot>,
}

/// An existing slot.
#[derive(Debug, Clone, Copy)]
pub struct Slot {
    /// `confirmed_flush_lsn`
    pub confirmed: Lsn,
}

/// Checks the server, the publication, the tables and the slot. One that is older than the publication is
/// dropped, unless it is `in_use`: the publication was dropped and is made again, and of what came before
/// that the server streams nothing, or until version 17 refuses to stream it.
///
/// # Errors
/// [`Error::Precondition`] says what is missing and how to mend it. With any error the client is of no use any
/// more.
pub async fn check(
    client: &Client,
    options: &Options,
    remarks: &Remarks,
    in_use: bool,
) -> Result<Preflight, Error> {
    client.batch_execute(LOCK_TIMEOUT).await?;
    let server_version = server(client).await?;
    let system = system_identifier(client).await?;
    let mut slot = slot(client, options).await?;
    // After the slot: who had it before cannot be farther.
    let log = history::log(client).await?;
    if slot.is_none() {
        slot_can_be_made(client, options).await?;
    }
    let since = match slot.is_some() && in_use {
        true => publication::complete(client, options, remarks).await?,
        false => publication::ensure(client, options, remarks, server_version).await?,
    };
    if slot.is_some_and(|slot| slot.confirmed <= since.created()) {
        drop_slot(client, &options.slot).await?;
        slot = None;
    }
    let tables = catalog::published(client, &options.publication, server_version).await?;
    publication::tables_are_usable(&tables, options, remarks)?;
    if slot.is_none() && options.snapshot == SnapshotMode::Initial {
        // Before a slot is made for a copy that would fail.
        rights::may_read(client, &tables.iter().map(|table| &table.name).collect::<Vec<_>>())
            .await?;
    }
    client.batch_execute(NO_LOCK_TIMEOUT).await?;
    Ok(Preflight { server_version, system, log, tables, since, slot })
}

pub(super) fn unmet<T>(sentence: String) -> Result<T, Error> {
    Err(Error::Precondition(sentence))
}

async fn setting(client: &Client, name: &str) -> Result<String, Error> {
    Ok(client.query_one("SELECT current_setting($1)", &[&name]).await?.get(0))
}

pub(super) async fn server(client: &Client) -> Result<i32, Error> {
    let version = setting(client, "server_version_num").await?.parse().unwrap_or(0);
    if version < 140_000 {
        return unmet(format!(
            "the source is PostgreSQL {}; Tailwater needs 14 or later",
            version / 10_000
        ));
    }
    let wal_level = setting(client, "wal_level").await?;
    if wal_level != "logical" {
        return unmet(format!(
            "wal_level is `{wal_level}` but logical decoding needs `logical`; run ALTER SYSTEM SET \
             wal_level = 'logical' and restart the server (on Amazon RDS set \
             rds.logical_replication = 1 in the parameter group and reboot)"
        ));
    }
    let recovering: bool = client.query_one("SELECT pg_is_in_recovery()", &[]).await?.get(0);
    if recovering {
        return unmet("the source is a standby; connect to the primary".into());
    }
    let replication = "SELECT rolreplication OR rolsuper
         OR EXISTS (SELECT FROM pg_roles g WHERE g.rolname IN ('rds_replication', 'rds_superuser')
                    AND pg_has_role(current_user, g.oid, 'member')),
         current_user::text FROM pg_roles WHERE rolname = current_user";
    let role = client.query_one(replication, &[]).await?;
    if !role.get::<_, bool>(0) {
        let user: String = role.get(1);
        return unmet(format!(
            "user {user} may not replicate; run ALTER ROLE {} REPLICATION (on Amazon RDS: GRANT \
             rds_replication TO …)",
            quote_ident(&user)
        ));
    }
    Ok(version)
}

async fn system_identifier(client: &Client) -> Result<u64, Error> {
    let sql = "SELECT system_identifier FROM pg_control_system()";
    Ok(client.query_one(sql, &[]).await?.get::<_, i64>(0).cast_unsigned())
}

/// Refuses a cluster that is not the one whose positions are stored already; a standby that was
/// promoted is the same cluster. `stored` is where, `way_out` how to go on.
///
/// # Errors
/// [`Error::Precondition`].
pub fn same_cluster(
    known: Option<u64>,
    found: u64,
    stored: &str,
    way_out: &str,
) -> Result<(), Error> {
    match known.filter(|known| *known != found) {
        None => Ok(()),
        Some(known) => unmet(format!(
            "the source is another cluster (system identifier {found}) than the one that {stored} \
             came from ({known}), so its positions do not compare with those stored; {way_out}, or \
             connect to the former cluster or a standby of it"
        )),
    }
}

pub(super) async fn slot(client: &Client, options: &Options) -> Result<Option<Slot>, Error> {
    let name = &options.slot;
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    if name.is_empty() || name.len() > 63 || !name.chars().all(plain) {
        return unmet(format!(
            "`{name}` is no name for a replication slot; use up to 63 of a-z, 0-9 and _"
        ));
    }
    let found = "SELECT slot_type, plugin::text, database::text, wal_status, confirmed_flush_lsn,
         active_pid, current_database()::text FROM pg_replication_slots WHERE slot_name = $1";
    let Some(row) = client.query_opt(found, &[name]).await? else {
        return Ok(None);
    };
    let (kind, plugin): (String, Option<String>) = (row.get(0), row.get(1));
    if kind != "logical" || plugin.as_deref() != Some("pgoutput") {
        return unmet(format!(
            "slot {name} is not a logical slot of pgoutput; choose another name with [source] slot"
        ));
    }
    let (database, current): (Option<String>, String) = (row.get(2), row.get(6));
    if database.as_deref() != Some(current.as_str()) {
        return unmet(format!(
            "slot {name} belongs to database {}; choose another name with [source] slot",
            database.unwrap_or_default()
        ));
    }
    if row.get::<_, Option<String>>(3).as_deref() == Some("lost") {
        return unmet(format!(
            "slot {name} lost its write-ahead log (max_slot_wal_keep_size was exceeded), so changes \
             are missing; run SELECT pg_drop_replication_slot('{name}') and start again: every \
             table is then copied anew"
        ));
    }
    if let Some(pid) = row.get::<_, Option<i32>>(5) {
        return Err(Error::Server {
            code: "55006".into(),
            message: format!("replication slot {name} is active for PID {pid}"),
        });
    }
    let confirmed: Option<tokio_postgres::types::PgLsn> = row.get(4);
    Ok(confirmed.map(|lsn| Slot { confirmed: Lsn(lsn.into()) }))
}

async fn drop_slot(client: &Client, name: &str) -> Result<(), Error> {
    warn!(
        slot = name,
        "the slot is older than the publication, so changes are missing; it is made anew, and all tables \
         are copied"
    );
    client.execute("SELECT pg_drop_replication_slot($1)", &[&name]).await?;
    Ok(())
}

pub(super) async fn slot_can_be_made(client: &Client, options: &Options) -> Result<(), Error> {
    let room = "SELECT current_setting('max_replication_slots')::int,
         (SELECT count(*)::int FROM pg_replication_slots)";
    let row = client.query_one(room, &[]).await?;
    let (limit, used): (i32, i32) = (row.get(0), row.get(1));
    if used >= limit {
        return unmet(format!(
            "all {limit} replication slots are taken, none is left for {}; raise \
             max_replication_slots and restart the server, or drop a slot that is not used",
            options.slot
        ));
    }
    Ok(())
}

/// A table's name as SQL.
#[must_use]
pub fn quote(table: &TableName) -> String {
    format!("{}.{}", quote_ident(&table.schema), quote_ident(&table.name))
}

/// A name as an SQL identifier.
#[must_use]
pub fn quote_ident(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_with_quotes_stay_one_identifier() {
        let table = TableName { schema: "a\"b".into(), name: "c; drop".into() };
        assert_eq!(quote(&table), r#""a""b"."c; drop""#);
    }
}
