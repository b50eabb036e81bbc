//! What the stream does not tell of a table: its primary key, NOT NULL, defaults, and what its
//! types are. Looked up once per table version; reflects the catalog as it is now, matched to the
//! stream's description by [number](super::alignment).

use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use tokio_postgres::types::Oid;
use tokio_postgres::{Client, NoTls};
use tracing::debug;

use super::alignment::{self, Matched};
use super::columns::{self, CatalogColumn};
use super::error::Error;
use super::source_url::{NO_TRANSACTION_TIMEOUT, SourceUrl, Tls};
use super::tls;
use crate::decode::message::{Relation, RelationColumn};
use crate::hop::Form;
use crate::table::{Column, ColumnType, ReplicaIdentity, Table, TableName, UNKNOWN_TYPE};

/// Opens a connection for queries; its driver runs on the current runtime until the client drops.
///
/// # Errors
/// What the server or TLS refused.
pub async fn connect(url: &SourceUrl) -> Result<Client, Error> {
    let client = if url.tls.mode == Tls::Disable {
        let (client, connection) = url.config().connect(NoTls).await.map_err(connect_error)?;
        tokio::spawn(drive(connection));
        client
    } else {
        let tls = tokio_postgres_rustls::MakeRustlsConnect::new(tls::client_config(&url.tls)?);
        let (client, connection) = url.config().connect(tls).await.map_err(connect_error)?;
        tokio::spawn(drive(connection));
        client
    };
    client.batch_execute(NO_TRANSACTION_TIMEOUT).await?;
    Ok(client)
}

/// `tokio-postgres` wraps what TLS refused in an I/O error, which would be waited out, and tells the
/// other reasons by their words only.
fn connect_error(error: tokio_postgres::Error) -> Error {
    let cause = std::error::Error::source(&error);
    let io = cause.and_then(|cause| cause.downcast_ref::<std::io::Error>());
    if let Some(refused) = io.and_then(|io| io.get_ref()?.downcast_ref::<rustls::Error>()) {
        return Error::Tls(refused.clone());
    }
    match cause.map(ToString::to_string).as_deref() {
        Some("server does not support TLS") => Error::TlsRefused,
        Some("password missing") => Error::NoPassword,
        Some("unsupported authentication method") => Error::Authentication("GSSAPI or SSPI"),
        _ => Error::Query(error),
    }
}

async fn drive(connection: impl Future<Output = Result<(), tokio_postgres::Error>>) {
    if let Err(error) = connection.await {
        debug!(%error, "a query connection to the source broke");
    }
}

/// What is known of a table that the stream describes, besides what it tells.
#[derive(Debug, Default)]
pub struct Before<'a> {
    /// What such a description came to before.
    pub table: Option<Arc<Table>>,
    /// The names of its key's columns when it was copied.
    pub key: &'a [String],
    /// What it looked like, at times before this description.
    pub forms: Vec<&'a Form>,
    /// The transaction in which it is described.
    pub xid: Option<u32>,
}

/// A table as the stream described it.
#[derive(Debug)]
pub struct Defined {
    /// Completed from the catalog.
    pub table: Arc<Table>,
    /// Whether it is certain which columns they are: the catalog tells of today's.
    pub certain: bool,
    /// Whether also of those that were dropped since, so that this tells of what was there.
    pub exact: bool,
}

/// The schema of a table as the stream described it, completed from the catalog. What it came to before stays if
/// nothing changed, or if the table has been dropped since. A dropped one that was not known is completed from the
/// description alone, and from its key.
///
/// # Errors
/// A query's error.
pub async fn define(
    client: &Client,
    relation: &Relation,
    before: Before<'_>,
) -> Result<Defined, Error> {
    let catalog = columns::of(client, relation.oid, before.xid).await?;
    if let (true, Some(known)) = (catalog.is_empty(), &before.table) {
        let table = Arc::clone(known);
        return Ok(Defined { table, certain: true, exact: false });
    }
    let layouts = match catalog.iter().any(|column| column.dropped) {
        true => columns::layouts(client, &relation.columns).await?,
        false => HashMap::new(),
    };
    let Matched { columns: found, certain, exact } =
        alignment::matched(&relation.columns, &catalog, &before.forms, &layouts);
    let mut columns = Vec::with_capacity(relation.columns.len());
    for (column, found) in relation.columns.iter().zip(found) {
        columns.push(define_column(client, column, found.cloned(), relation, before.key).await?);
    }
    let Relation { oid, schema, name, identity, .. } = relation.clone();
    let table = Table::new(oid, schema, name, columns, identity);
    let known = before.table.filter(|known| **known == table);
    Ok(Defined { table: known.unwrap_or_else(|| Arc::new(table)), certain, exact })
}

async fn define_column(
    client: &Client,
    column: &RelationColumn,
    known: Option<CatalogColumn>,
    relation: &Relation,
    key: &[String],
) -> Result<Column, Error> {
    let kind = column_type(client, column.type_oid, column.type_modifier).await?;
    let number = known.as_ref().map(|known| known.number);
    // Dropped since: the stream's own flags are all there is. With full identity every column carries
    // the flag, which says nothing about the key.
    let known = known.filter(|known| !known.dropped).unwrap_or_else(|| CatalogColumn {
        nullable: true,
        key: match relation.identity {
            ReplicaIdentity::Full => key.contains(&column.name),
            _ => column.identity,
        },
        type_name: "text".into(),
        ..CatalogColumn::default()
    });
    Ok(Column {
        name: column.name.clone(),
        type_name: kind.as_ref().map_or(UNKNOWN_TYPE.into(), |_| known.type_name),
        kind: kind.unwrap_or(ColumnType::Other),
        nullable: known.nullable && !known.key,
        key: known.key,
        default: known.default,
        number,
        missing: known.missing,
    })
}

const TYPE: &str = "
    SELECT t.typname::text, t.typtype::text, t.typbasetype, t.typtypmod, t.typelem,
           t.typcategory::text,
           (SELECT e.typdelim::text FROM pg_type e WHERE e.oid = t.typelem),
           ARRAY(SELECT e.enumlabel::text FROM pg_enum e WHERE e.enumtypid = t.oid
                 ORDER BY e.enumsortorder)
    FROM pg_type t WHERE t.oid = $1";

/// Resolves a type; user-defined ones cost a query each. None if it has been dropped.
fn column_type<'a>(
    client: &'a Client,
    oid: Oid,
    modifier: i32,
) -> Pin<Box<dyn Future<Output = Result<Option<ColumnType>, Error>> + Send + 'a>> {
    Box::pin(async move {
        if let Some(built_in) = built_in(oid, modifier) {
            return Ok(Some(built_in));
        }
        let Some(row) = client.query_opt(TYPE, &[&oid]).await? else {
            return Ok(None);
        };
        let (name, class): (String, String) = (row.get(0), row.get(1));
        let (base, base_modifier): (Oid, i32) = (row.get(2), row.get(3));
        let (element, category): (Oid, String) = (row.get(4), row.get(5));
        // `box` and what PostGIS brings have others.
        let commas = row.get::<_, Option<String>>(6).is_some_and(|delimiter| delimiter == ",");
        Ok(Some(match (class.as_str(), category.as_str(), name.as_str()) {
            ("d", ..) => return column_type(client, base, base_modifier).await,
            ("e", ..) => ColumnType::Enum(row.get(7)),
            // Their text form is not the array form.
            (_, _, "int2vector" | "oidvector") => ColumnType::Other,
            (_, "A", _) if element != 0 && commas => {
                match column_type(client, element, modifier).await? {
                    // Of a domain over an array: each element is a text that is an array by itself.
                    Some(ColumnType::Array(_)) => ColumnType::Other,
                    Some(element) => ColumnType::Array(Box::new(element)),
                    None => return Ok(None),
                }
            }
            (_, _, "citext") => ColumnType::Text,
            _ => ColumnType::Other,
        }))
    })
}

/// Object ids as `pg_type.dat` fixes them.
fn built_in(oid: Oid, modifier: i32) -> Option<ColumnType> {
    let digits = || u8::try_from(modifier).ok().filter(|digits| *digits <= 6).unwrap_or(6);
    Some(match oid {
        16 => ColumnType::Bool,
        17 => ColumnType::Bytea,
        20 => ColumnType::Int8,
        21 => ColumnType::Int2,
        23 => ColumnType::Int4,
        26 => ColumnType::Oid,
        18 | 19 | 25 | 1042 | 1043 => ColumnType::Text,
        114 => ColumnType::Json,
        142 => ColumnType::Xml,
        600 => ColumnType::Point,
        700 => ColumnType::Float4,
        701 => ColumnType::Float8,
        790 => ColumnType::Money,
        1082 => ColumnType::Date,
        1083 => ColumnType::Time(digits()),
        1114 => ColumnType::Timestamp(digits()),
        1184 => ColumnType::Timestamptz(digits()),
        1186 => ColumnType::Interval,
        1266 => ColumnType::Timetz(digits()),
        1560 => ColumnType::Bit(u32::try_from(modifier).unwrap_or(1)),
        1562 => ColumnType::Varbit(u32::try_from(modifier).ok()),
        1700 => ColumnType::Numeric(numeric_modifier(modifier)),
        2950 => ColumnType::Uuid,
        3802 => ColumnType::Jsonb,
        _ => return None,
    })
}

/// `numeric(p,s)` packs the precision into the high half and an 11-bit signed scale into the low.
fn numeric_modifier(modifier: i32) -> Option<(u16, i16)> {
    let packed = u32::try_from(modifier.checked_sub(4)?).ok()?;
    let precision = u16::try_from(packed >> 16).ok()?;
    let scale = i16::try_from((packed & 0x7FF) ^ 0x400).ok()? - 0x400;
    Some((precision, scale))
}

/// A table of the publication.
#[derive(Debug, Clone)]
pub struct Published {
    /// Its name.
    pub name: TableName,
    /// As the stream will describe it.
    pub relation: Relation,
    /// The publication's row filter, SQL.
    pub filter: Option<String>,
    /// Rows, by the planner's estimate.
    pub estimated_rows: u64,
    /// Whether rows can be told apart.
    pub has_key: bool,
    /// A partitioned table: its rows are in its partitions.
    pub partitioned: bool,
    /// Whether policies may hide rows from the user, in queries and copies but not in the stream.
    pub hides_rows: bool,
    /// Whether its publication has changes of every kind.
    pub whole: bool,
    /// What the catalog says of its columns and of how it is published, to be compared with [`shape`].
    pub shape: String,
    /// See [`terms`].
    pub terms: i64,
}

const PUBLISHED: &str = "
    SELECT n.nspname::text, c.relname::text, c.oid, c.relreplident::text,
           greatest(c.reltuples, 0)::float8, c.relkind = 'p',
           EXISTS (SELECT FROM pg_index x WHERE x.indrelid = c.oid AND
               CASE c.relreplident
                   WHEN 'i' THEN x.indisreplident
                   WHEN 'f' THEN x.indisprimary AND x.indimmediate
                   ELSE x.indisprimary
               END),
           p.attnames::text[], p.rowfilter, row_security_active(c.oid),
           (SELECT pubinsert AND pubupdate AND pubdelete AND pubtruncate FROM pg_publication
            WHERE pubname = $1),
           {shape}, {terms}
    FROM (SELECT pt.schemaname, pt.tablename, {columns} FROM pg_publication_tables pt
          WHERE pt.pubname = $1) p
    JOIN pg_namespace n ON n.nspname = p.schemaname
    JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = p.tablename
    ORDER BY 1, 2";

/// Of table `c` in publication `$1`: the [terms], and its columns. The list of a publication's tables is as of
/// now whatever snapshot a transaction has, and opens every one of them; this is of the snapshot, and of one
/// table.
const SHAPE: &str = "
    concat_ws(' ', c.relreplident, {terms},
              ARRAY(SELECT (a.attnum, a.attname, a.atttypid, a.atttypmod, a.attgenerated)::text
                    FROM pg_attribute a
                    WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
                    ORDER BY a.attnum)::text)";

const ATTRIBUTES: &str = "
    SELECT attname::text, atttypid, atttypmod FROM pg_attribute
    WHERE attrelid = $1 AND attnum > 0 AND NOT attisdropped
      AND ($2::text[] IS NULL OR attname = ANY ($2))
      AND (attgenerated = '' OR $3 AND $2 IS NOT NULL)
    ORDER BY attnum";

/// From here on a publication may have generated columns, and lists them if it has. Before, it lists them
/// and has them not.
pub const GENERATED: i32 = 180_000;

fn shape_sql(server_version: i32) -> String {
    SHAPE.replace("{terms}", &terms(server_version))
}

/// A table's [shape](Published::shape) as the client's transaction sees it; nothing if it sees no such table.
///
/// # Errors
/// A query's error.
pub async fn shape(
    client: &Client,
    publication: &str,
    table: Oid,
    server_version: i32,
) -> Result<Option<String>, tokio_postgres::Error> {
    let shape = shape_sql(server_version);
    let sql = format!("SELECT {shape} FROM pg_class c WHERE c.oid = $2");
    let found = client.query_opt(&sql, &[&publication, &table]).await?;
    Ok(found.and_then(|row| row.get(0)))
}

/// SQL for what decides which changes of table `c` are in the publication `$1`, as a hash: the publication
/// itself, and the table's entry in it with column list and row filter. An entry that was away for a while
/// is another one, and a publication that was changed is, even if it was changed back.
#[must_use]
pub fn terms(server_version: i32) -> String {
    // Whole schemas came with version 15.
    let schemas = match server_version >= 150_000 {
        true => {
            "(SELECT string_agg(s.oid::text, ' ' ORDER BY s.oid) FROM pg_publication_namespace s
              WHERE s.pnpubid = b.oid AND s.pnnspid = c.relnamespace)"
        }
        false => "NULL",
    };
    format!(
        "(SELECT ('x' || left(md5(concat_ws(' ', to_jsonb(b) - 'pubowner', b.xmin, (
             SELECT string_agg(to_jsonb(r)::text, ' ' ORDER BY r.oid) FROM pg_publication_rel r
             WHERE r.prpubid = b.oid AND (r.prrelid = c.oid OR r.prrelid IN
                   (SELECT relid FROM pg_partition_ancestors(c.oid)))), {schemas})), 16))::bit(64)::int8
          FROM pg_publication b WHERE b.pubname = $1)"
    )
}

/// The publication's tables, in name order.
///
/// # Errors
/// A query's error.
pub async fn published(
    client: &Client,
    publication: &str,
    server_version: i32,
) -> Result<Vec<Published>, Error> {
    // Column lists and row filters came with version 15.
    let columns = if server_version >= 150_000 {
        "pt.attnames::text[] AS attnames, pt.rowfilter"
    } else {
        "NULL::text[] AS attnames, NULL::text AS rowfilter"
    };
    // What is read after the shape, and in one statement with it, is not older than it.
    let sql = PUBLISHED
        .replace("{columns}", columns)
        .replace("{shape}", &shape_sql(server_version))
        .replace("{terms}", &terms(server_version));
    let mut tables = Vec::new();
    for row in client.query(&sql, &[&publication]).await? {
        let name = TableName { schema: row.get(0), name: row.get(1) };
        let identity = match row.get::<_, String>(3).as_str() {
            "f" => ReplicaIdentity::Full,
            "n" => ReplicaIdentity::Nothing,
            "i" => ReplicaIdentity::Index,
            _ => ReplicaIdentity::Default,
        };
        let (oid, names): (Oid, Option<Vec<String>>) = (row.get(2), row.get(7));
        let relation = Relation {
            oid,
            schema: name.schema.clone(),
            name: name.name.clone(),
            identity,
            columns: attributes(client, oid, names.as_deref(), server_version).await?,
        };
        let estimate: f64 = row.get(4);
        tables.push(Published {
            name,
            relation,
            filter: row.get(8),
            estimated_rows: format!("{estimate:.0}").parse().unwrap_or(0),
            has_key: row.get(6),
            partitioned: row.get(5),
            hides_rows: row.get(9),
            whole: row.get(10),
            shape: row.get(11),
            terms: row.get(12),
        });
    }
    Ok(tables)
}

async fn attributes(
    client: &Client,
    oid: Oid,
    names: Option<&[String]>,
    server_version: i32,
) -> Result<Vec<RelationColumn>, Error> {
    let generated = server_version >= GENERATED;
    let rows = client.query(ATTRIBUTES, &[&oid, &names, &generated]).await?;
    let column = |row: &tokio_postgres::Row| RelationColumn {
        identity: false,
        name: row.get(0),
        type_oid: row.get(1),
        type_modifier: row.get(2),
    };
    Ok(rows.iter().map(column).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numeric_modifiers_unpack_to_precision_and_scale() {
        assert_eq!(numeric_modifier(-1), None);
        assert_eq!(numeric_modifier(4 + (18 << 16 | 4)), Some((18, 4)));
        assert_eq!(numeric_modifier(4 + (5 << 16 | (0x800 - 2))), Some((5, -2)));
    }
}
