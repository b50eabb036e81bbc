//! The publication: which tables it should hold, and how it comes to hold them.

use std::collections::BTreeMap;
use std::fmt;

use tokio_postgres::error::SqlState;
use tokio_postgres::types::{Oid, PgLsn};
use tokio_postgres::{Client, Row};
use tracing::{debug, info, warn};

use super::catalog::{GENERATED, Published};
use super::error::Error;
use super::options::{Options, SnapshotMode};
use super::preflight::{quote, quote_ident, unmet};
use super::remarks::Remarks;
use super::rights;
use crate::encode;
use crate::position::Lsn;
use crate::table::{ReplicaIdentity, TableName};

/// Marks publications that Tailwater made and may complete.
const OURS: &str = "managed by tailwater";

/// A table that somebody else has locked is left for the next look.
const ADD_TIMEOUT: &str = "3s";

const FOUND: &str = "
    SELECT coalesce(obj_description(oid, 'pg_publication'), ''), pg_has_role(pubowner, 'USAGE')
    FROM pg_publication WHERE pubname = $1";

/// Partitions are in no publication of ours by themselves.
const CHILDREN: &str = "
    SELECT n.nspname::text, c.relname::text
    FROM pg_publication p
    JOIN pg_publication_rel r ON r.prpubid = p.oid
    JOIN pg_class c ON c.oid = r.prrelid AND NOT c.relispartition
    JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE p.pubname = $1 AND EXISTS
        (SELECT FROM pg_inherits i JOIN pg_publication_rel q ON q.prrelid = i.inhparent
         WHERE i.inhrelid = c.oid AND q.prpubid = p.oid)
    ORDER BY 1, 2";

const LISTED: &str = "
    SELECT schemaname::text, tablename::text FROM pg_publication_tables WHERE pubname = $1";

/// Since when the tables of a publication of ours are in it. It is kept in the publication's comment,
/// so that it is changed together with the publication.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Since {
    created: Lsn,
    added: BTreeMap<Oid, Lsn>,
}

impl Since {
    /// The log's end when the table was published, or a little before. The beginning of all times in a
    /// publication that is not ours.
    #[must_use]
    pub fn of(&self, table: Oid) -> Lsn {
        self.added.get(&table).copied().unwrap_or(self.created)
    }

    /// The log's end when the publication was made, or a little before. The beginning of all times in
    /// one that is not ours.
    #[must_use]
    pub fn created(&self) -> Lsn {
        self.created
    }

    /// Nothing if the comment is not one of ours.
    pub(super) fn parse(comment: &str) -> Option<Since> {
        let rest = comment.strip_prefix(OURS)?;
        let mut words = match rest.strip_prefix(" since ") {
            Some(words) => words.split_whitespace(),
            None if rest.is_empty() => return Some(Since::default()),
            None => return None,
        };
        let created = words.next()?.parse().ok()?;
        let entry = |word: &str| {
            let (table, lsn) = word.split_once('@')?;
            Some((table.parse().ok()?, lsn.parse().ok()?))
        };
        Some(Since { created, added: words.filter_map(entry).collect() })
    }
}

impl fmt::Display for Since {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{OURS} since {}", self.created)?;
        self.added.iter().try_for_each(|(table, lsn)| write!(f, " {table}@{lsn}"))
    }
}

/// Creates the publication, or completes one of ours with the tables that came since.
///
/// # Errors
/// [`Error::Precondition`] if there is nothing to publish or a listed table cannot be; what the server
/// refused.
pub async fn ensure(
    client: &Client,
    options: &Options,
    remarks: &Remarks,
    server_version: i32,
) -> Result<Since, Error> {
    let name = &options.publication;
    if client.query_opt(FOUND, &[name]).await?.is_some() {
        return complete(client, options, remarks).await;
    }
    let wanted = wanted_tables(client, options, remarks, false).await?;
    something_is_wanted(&wanted)?;
    topics_differ(wanted.iter().map(|table| &table.name), options)?;
    rights::may_publish(client, &wanted.iter().map(|table| &table.name).collect::<Vec<_>>())
        .await?;
    // Children of plain inheritance are named themselves, if they are wanted at all.
    let tables = wanted.iter().map(|table| format!("ONLY {}", quote(&table.name)));
    let tables = tables.collect::<Vec<_>>().join(", ");
    let since = Since { created: log_end(client).await?, ..Since::default() };
    let generated = match server_version >= GENERATED {
        true => ", publish_generated_columns = stored",
        false => "",
    };
    let sql = format!(
        "CREATE PUBLICATION {name} FOR TABLE {tables} \
         WITH (publish_via_partition_root = true{generated});
         COMMENT ON PUBLICATION {name} IS '{since}'",
        name = quote_ident(name)
    );
    client.batch_execute(&sql).await?;
    info!(publication = name, tables = wanted.len(), "created the publication");
    Ok(since)
}

/// Adds the tables that came since, if the publication is ours.
///
/// # Errors
/// As [`ensure`], and [`Error::Unpublished`].
pub async fn complete(
    client: &Client,
    options: &Options,
    remarks: &Remarks,
) -> Result<Since, Error> {
    let publication = &options.publication;
    let wanted = wanted_tables(client, options, remarks, true).await?;
    let Some(found) = client.query_opt(FOUND, &[publication]).await? else {
        return Err(Error::unpublished(options));
    };
    let Some(mut since) = Since::parse(found.get(0)) else { return Ok(Since::default()) };
    let owned: bool = found.get(1);
    drop_children(client, options, remarks, &wanted, owned).await?;
    // Of tables that are gone nothing needs to be known.
    since.added.retain(|oid, _| wanted.iter().any(|table| table.oid == *oid));
    let mut listed: Vec<TableName> =
        client.query(LISTED, &[publication]).await?.iter().map(table_name).collect();
    for table in &wanted {
        if listed.contains(&table.name) {
            continue;
        }
        if !options.tables.is_empty() {
            rights::may_add(client, &[&table.name]).await?;
        }
        let collides = |other: &TableName| encode::topics_collide(other, &table.name);
        // What the settings name is worth the server's refusal.
        if options.tables.is_empty() && !(owned && table.usable) {
            remarks.once(
                &table.name,
                "not captured: the user may not read all of it, or does not own it and the publication",
            );
        } else if options.over_kafka && listed.iter().any(collides) {
            remarks.once(
                &table.name,
                "not captured: Kafka cannot tell its topic from that of a table which is; rename it",
            );
        } else if let Some(completed) = add(client, publication, &since, table).await? {
            info!(publication, table = %table.name, "added a table to the publication");
            since = completed;
            listed.push(table.name.clone());
        }
    }
    Ok(since)
}

/// Takes tables out of a publication of ours that nobody wants: children of plain inheritance, which a
/// publication that was made without `ONLY` has with their parents. One without a key would refuse its updates
/// in the source.
async fn drop_children(
    client: &Client,
    options: &Options,
    remarks: &Remarks,
    wanted: &[Wanted],
    owned: bool,
) -> Result<(), Error> {
    let publication = &options.publication;
    let children = client.query(CHILDREN, &[publication]).await?;
    let children = children.iter().map(table_name);
    for child in children.filter(|child| !wanted.iter().any(|table| table.name == *child)) {
        if !owned {
            remarks.once(
                &child,
                "published with the table that it inherits from, and not wanted; as the publication's \
                 owner run ALTER PUBLICATION … DROP TABLE ONLY …",
            );
            continue;
        }
        let sql = format!(
            "SET LOCAL lock_timeout = '{ADD_TIMEOUT}'; ALTER PUBLICATION {} DROP TABLE ONLY {}",
            quote_ident(publication),
            quote(&child),
        );
        match client.batch_execute(&sql).await {
            Ok(()) => warn!(
                publication,
                table = %child,
                "took a table out of the publication that was in it only because it inherits from one that \
                 is; its rows in ClickHouse stay as they are"
            ),
            Err(error) if may_pass(&error) => {
                debug!(table = %child, %error, "not taken out of the publication now");
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Whether a table is gone or locked, so that the next look will tell.
fn may_pass(error: &tokio_postgres::Error) -> bool {
    let passing = [
        SqlState::UNDEFINED_TABLE,
        SqlState::UNDEFINED_OBJECT,
        SqlState::INVALID_SCHEMA_NAME,
        SqlState::DUPLICATE_OBJECT,
        SqlState::LOCK_NOT_AVAILABLE,
    ];
    error.code().is_some_and(|code| passing.contains(code))
}

/// Adds one table; not if it is gone, or locked.
async fn add(
    client: &Client,
    publication: &str,
    since: &Since,
    table: &Wanted,
) -> Result<Option<Since>, Error> {
    let mut completed = since.clone();
    completed.added.insert(table.oid, log_end(client).await?);
    // One transaction, because it is one message. Children of plain inheritance are named themselves.
    let sql = format!(
        "SET LOCAL lock_timeout = '{ADD_TIMEOUT}'; ALTER PUBLICATION {name} ADD TABLE ONLY {}; \
         COMMENT ON PUBLICATION {name} IS '{completed}'",
        quote(&table.name),
        name = quote_ident(publication),
    );
    let Err(error) = client.batch_execute(&sql).await else { return Ok(Some(completed)) };
    if may_pass(&error) {
        debug!(table = %table.name, %error, "not added to the publication now");
        return Ok(None);
    }
    Err(error.into())
}

async fn log_end(client: &Client) -> Result<Lsn, Error> {
    let end: PgLsn = client.query_one("SELECT pg_current_wal_lsn()", &[]).await?.get(0);
    Ok(Lsn(end.into()))
}

fn table_name(row: &Row) -> TableName {
    TableName { schema: row.get(0), name: row.get(1) }
}

/// Refuses a database in which nothing can be published.
///
/// # Errors
/// [`Error::Precondition`].
pub fn something_is_wanted(tables: &[Wanted]) -> Result<(), Error> {
    match tables.is_empty() {
        true => unmet(
            "no table with a primary key was found to publish; create one, or list tables in \
             [source] tables"
                .into(),
        ),
        false => Ok(()),
    }
}

/// Refuses tables whose changes would go into one topic: compaction and readers would take rows of the
/// one for those of the other.
///
/// # Errors
/// [`Error::Precondition`].
pub fn topics_differ<'a>(
    tables: impl Iterator<Item = &'a TableName> + Clone,
    options: &Options,
) -> Result<(), Error> {
    let mut rest = tables.filter(|_| options.over_kafka);
    while let Some(table) = rest.next() {
        if let Some(other) = rest.clone().find(|other| encode::topics_collide(table, other)) {
            return unmet(format!(
                "tables {table} and {other} would have topics that Kafka cannot tell apart, so \
                 their rows would mix; rename one of them, or leave it out by [source] exclude, or \
                 out of the publication"
            ));
        }
    }
    Ok(())
}

/// A table that a publication of ours should hold.
#[derive(Debug)]
pub struct Wanted {
    /// Its name.
    pub name: TableName,
    oid: Oid,
    /// Whether the user may publish and copy it.
    usable: bool,
}

/// A key is what PostgreSQL takes for the replica identity, so a primary key that is deferrable is
/// none. With full identity the log holds whole rows, and the primary key tells which row it was; a
/// deferrable one does not, since two rows may have the same one within a transaction. Generated columns
/// are not in the stream.
const USER_TABLES: &str = "
    SELECT n.nspname::text, c.relname::text,
           EXISTS (SELECT FROM pg_index x WHERE x.indrelid = c.oid AND x.indisvalid AND
               CASE c.relreplident
                   WHEN 'd' THEN x.indisprimary AND x.indimmediate
                   WHEN 'f' THEN x.indisprimary AND x.indimmediate
                   WHEN 'i' THEN x.indisreplident
                   ELSE false
               END AND NOT EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = c.oid
                                   AND a.attnum = ANY ((x.indkey::int2[])[0:x.indnkeyatts - 1])
                                   AND a.attgenerated <> '')),
           c.relreplident = 'f',
           pg_has_role(c.relowner, 'USAGE') AND has_schema_privilege(n.oid, 'USAGE')
               AND has_table_privilege(c.oid, 'SELECT') AND NOT row_security_active(c.oid), c.oid
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relkind IN ('r', 'p') AND NOT c.relispartition AND c.relpersistence = 'p'
      AND n.nspname NOT LIKE 'pg\\_%' AND n.nspname <> 'information_schema'
    ORDER BY 1, 2";

const NO_KEY: &str = "not captured: it has no primary key that tells its rows apart in the stream: none, a \
                      deferrable or a generated one, or REPLICA IDENTITY NOTHING";

const NOT_THERE: &str = "[source] tables names it, and it is not there, or has become a partition; the others are \
                         captured, and it will be if it is made";

/// The tables a publication of ours should hold. Once published, a table without a key refuses
/// updates and deletes in the source itself, and with full identity its equal rows cannot be told
/// apart, so such tables are left out, or refused if named.
///
/// A table that is named and not there is most likely misspelt before anything was `published`, and refused.
/// Later it was most likely dropped: that is remarked, and the others go on.
///
/// # Errors
/// [`Error::Precondition`] if a table that is named does not exist or has no key.
pub async fn wanted_tables(
    client: &Client,
    options: &Options,
    remarks: &Remarks,
    published: bool,
) -> Result<Vec<Wanted>, Error> {
    let (mut wanted, mut all) = (Vec::new(), Vec::new());
    for row in client.query(USER_TABLES, &[]).await? {
        let (name, keyed, full) = (table_name(&row), row.get(2), row.get(3));
        let text = name.to_string();
        let named = options.tables.contains(&text);
        let chosen = named || (options.tables.is_empty() && !options.exclude.contains(&text));
        all.push(text);
        match (chosen, keyed) {
            (true, true) => wanted.push(Wanted { name, usable: row.get(4), oid: row.get(5) }),
            (true, false) if named => return refuse_keyless(&name, full),
            (true, false) => {
                remarks.once(&name, NO_KEY);
            }
            (false, _) => {}
        }
    }
    let missing = |names: &[String]| -> Vec<TableName> {
        let names = names.iter().filter(|name| !all.contains(name));
        let parts = names.map(|name| name.split_once('.').unwrap_or(("", name)));
        parts.map(|(schema, name)| TableName { schema: schema.into(), name: name.into() }).collect()
    };
    for table in missing(&options.exclude) {
        let sentence =
            "[source] exclude names no table; names are schema.table, as in public.users";
        remarks.once(&table, sentence);
    }
    for table in missing(&options.tables) {
        if !published {
            return unmet(format!(
                "table {table} of [source] tables does not exist, or is a partition, which goes with \
                 its table; names are schema.table, as in public.users"
            ));
        }
        remarks.once(&table, NOT_THERE);
    }
    Ok(wanted)
}

fn refuse_keyless<T>(table: &TableName, full: bool) -> Result<T, Error> {
    if full {
        return unmet(format!(
            "table {table} has REPLICA IDENTITY FULL but no primary key, so equal rows cannot be \
             told apart; add a primary key, or take it out of [source] tables"
        ));
    }
    unmet(format!(
        "table {table} has no primary key, so PostgreSQL would refuse its updates and deletes once \
         it is published; add a primary key, run ALTER TABLE {} REPLICA IDENTITY USING INDEX …, or \
         take it out of [source] tables",
        quote(table)
    ))
}

/// Refuses a publication that is empty, or holds a table whose rows cannot be told apart.
///
/// # Errors
/// [`Error::Precondition`].
pub fn tables_are_usable(
    tables: &[Published],
    options: &Options,
    remarks: &Remarks,
) -> Result<(), Error> {
    let publication = quote_ident(&options.publication);
    if tables.is_empty() {
        return unmet(format!(
            "publication {} holds no table; run ALTER PUBLICATION {publication} ADD TABLE …",
            options.publication
        ));
    }
    let hiding = tables.iter().find(|table| table.hides_rows);
    if let Some(table) = hiding.filter(|_| options.snapshot == SnapshotMode::Initial) {
        return unmet(format!(
            "row-level security hides rows of table {} from this user, so its copy would lack them; \
             run ALTER ROLE … BYPASSRLS, connect as the table's owner (without FORCE ROW LEVEL \
             SECURITY), or leave the table out: [source] exclude, or ALTER PUBLICATION \
             {publication} DROP TABLE {}",
            table.name,
            quote(&table.name)
        ));
    }
    for table in tables.iter().filter(|table| !table.whole) {
        let sentence = "its publication leaves out a kind of change (`publish`), so the copy will differ \
                        from the source after one";
        remarks.once(&table.name, sentence);
    }
    for table in tables.iter().filter(|table| !table.has_key) {
        if table.relation.identity == ReplicaIdentity::Full {
            return unmet(format!(
                "published table {} has REPLICA IDENTITY FULL but no primary key, so equal rows \
                 cannot be told apart; add a primary key, or run ALTER PUBLICATION {publication} \
                 DROP TABLE {}, and name it in [source] exclude for good",
                table.name,
                quote(&table.name)
            ));
        }
        remarks.once(&table.name, "has no primary key: mirrored as append-only, inserts only");
    }
    topics_differ(tables.iter().map(|table| &table.name), options)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_comment_says_since_when_each_table_is_published() {
        let added = BTreeMap::from([(16_385, Lsn(0x30))]);
        let since = Since { created: Lsn(0x10), added };
        assert_eq!(since.to_string(), "managed by tailwater since 0/10 16385@0/30");
        assert_eq!(Since::parse(&since.to_string()), Some(since.clone()));
        assert_eq!([since.of(16_385), since.of(16_384)], [Lsn(0x30), Lsn(0x10)]);
        assert_eq!(Since::parse("managed by tailwater"), Some(Since::default()));
        assert_eq!(Since::parse("managed by tailwaters"), None);
        assert_eq!(Since::parse(""), None);
    }
}
