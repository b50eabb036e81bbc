//! The publication: which tables it should hold, and how it comes to hold them.

use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Row};
use tracing::{debug, info};

use super::catalog::Published;
use super::error::Error;
use super::options::Options;
use super::preflight::{quote, quote_ident, unmet};
use super::remarks::Remarks;
use crate::table::{ReplicaIdentity, TableName};

/// Marks publications that Tailwater made and may complete.
const OURS: &str = "managed by tailwater";

/// A table that somebody else has locked is left for the next look.
const ADD_TIMEOUT: &str = "3s";

const FOUND: &str = "
    SELECT obj_description(oid, 'pg_publication') = $2, pg_has_role(pubowner, 'USAGE')
    FROM pg_publication WHERE pubname = $1";

const LISTED: &str = "
    SELECT schemaname::text, tablename::text FROM pg_publication_tables WHERE pubname = $1";

/// Creates the publication, or completes one of ours with the tables that came since; the tables
/// that it did not hold before.
///
/// # Errors
/// [`Error::Precondition`] if there is nothing to publish or a listed table cannot be; what the server
/// refused.
pub async fn ensure(
    client: &Client,
    options: &Options,
    remarks: &Remarks,
) -> Result<Vec<TableName>, Error> {
    let name = &options.publication;
    if client.query_opt(FOUND, &[name, &OURS]).await?.is_some() {
        return complete(client, options, remarks).await;
    }
    let wanted = wanted_tables(client, options, remarks).await?;
    something_is_wanted(&wanted)?;
    let tables = wanted.iter().map(|table| quote(&table.name)).collect::<Vec<_>>().join(", ");
    let sql = format!(
        "CREATE PUBLICATION {name} FOR TABLE {tables} \
         WITH (publish_via_partition_root = true);
         COMMENT ON PUBLICATION {name} IS '{OURS}'",
        name = quote_ident(name)
    );
    client.batch_execute(&sql).await?;
    info!(publication = name, tables = wanted.len(), "created the publication");
    Ok(wanted.into_iter().map(|table| table.name).collect())
}

/// Adds the tables that came since, if the publication is ours; those that were added.
///
/// # Errors
/// As [`ensure`].
pub async fn complete(
    client: &Client,
    options: &Options,
    remarks: &Remarks,
) -> Result<Vec<TableName>, Error> {
    let publication = &options.publication;
    let wanted = wanted_tables(client, options, remarks).await?;
    let found = client.query_opt(FOUND, &[publication, &OURS]).await?;
    let Some(found) = found.filter(|row| row.get::<_, Option<bool>>(0) == Some(true)) else {
        return Ok(Vec::new());
    };
    let owned: bool = found.get(1);
    let listed: Vec<TableName> =
        client.query(LISTED, &[publication]).await?.iter().map(table_name).collect();
    let mut added = Vec::new();
    for Wanted { name, usable } in wanted {
        if listed.contains(&name) {
            continue;
        }
        // What the settings name is worth the server's refusal.
        if options.tables.is_empty() && !(owned && usable) {
            remarks.once(
                &name,
                "not captured: the user may not read it, or does not own it and the publication",
            );
        } else if add(client, publication, &name).await? {
            info!(publication, table = %name, "added a table to the publication");
            added.push(name);
        }
    }
    Ok(added)
}

/// Adds one table; not if it is gone, or locked.
async fn add(client: &Client, publication: &str, table: &TableName) -> Result<bool, Error> {
    // One transaction, because it is one message. Children of plain inheritance are named themselves.
    let sql = format!(
        "SET LOCAL lock_timeout = '{ADD_TIMEOUT}'; ALTER PUBLICATION {} ADD TABLE ONLY {}",
        quote_ident(publication),
        quote(table)
    );
    let Err(error) = client.batch_execute(&sql).await else { return Ok(true) };
    let passing = [
        SqlState::UNDEFINED_TABLE,
        SqlState::INVALID_SCHEMA_NAME,
        SqlState::DUPLICATE_OBJECT,
        SqlState::LOCK_NOT_AVAILABLE,
    ];
    if error.code().is_some_and(|code| passing.contains(code)) {
        debug!(%table, %error, "not added to the publication now");
        return Ok(false);
    }
    Err(error.into())
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

/// A table that a publication of ours should hold.
#[derive(Debug)]
pub struct Wanted {
    /// Its name.
    pub name: TableName,
    /// Whether the user may publish and copy it.
    usable: bool,
}

/// A key is what PostgreSQL takes for the replica identity, so a primary key that is deferrable is
/// none. With full identity the log holds whole rows, and the primary key tells which row it was.
const USER_TABLES: &str = "
    SELECT n.nspname::text, c.relname::text,
           EXISTS (SELECT FROM pg_index x WHERE x.indrelid = c.oid AND x.indisvalid AND
               CASE c.relreplident
                   WHEN 'd' THEN x.indisprimary AND x.indimmediate
                   WHEN 'f' THEN x.indisprimary
                   WHEN 'i' THEN x.indisreplident
                   ELSE false
               END),
           c.relreplident = 'f',
           pg_has_role(c.relowner, 'USAGE') AND has_schema_privilege(n.oid, 'USAGE')
               AND has_table_privilege(c.oid, 'SELECT')
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relkind IN ('r', 'p') AND NOT c.relispartition AND c.relpersistence = 'p'
      AND n.nspname NOT LIKE 'pg\\_%' AND n.nspname <> 'information_schema'
    ORDER BY 1, 2";

/// The tables a publication of ours should hold. Once published, a table without a key refuses
/// updates and deletes in the source itself, and with full identity its equal rows cannot be told
/// apart, so such tables are left out, or refused if named.
///
/// # Errors
/// [`Error::Precondition`] if a table that is named does not exist or has no key.
pub async fn wanted_tables(
    client: &Client,
    options: &Options,
    remarks: &Remarks,
) -> Result<Vec<Wanted>, Error> {
    let mut wanted = Vec::new();
    let mut all = Vec::new();
    for row in client.query(USER_TABLES, &[]).await? {
        let (name, keyed, full) = (table_name(&row), row.get(2), row.get(3));
        let text = name.to_string();
        let named = options.tables.contains(&text);
        let chosen = named || (options.tables.is_empty() && !options.exclude.contains(&text));
        all.push(text);
        match (chosen, keyed) {
            (true, true) => wanted.push(Wanted { name, usable: row.get(4) }),
            (true, false) if named => return refuse_keyless(&name, full),
            (true, false) => {
                remarks.once(&name, "not captured: it has no primary key");
            }
            (false, _) => {}
        }
    }
    if let Some(missing) = options.tables.iter().find(|name| !all.contains(name)) {
        return unmet(format!(
            "table {missing} of [source] tables does not exist; names are schema.table, as in \
             public.users"
        ));
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
    Ok(())
}
