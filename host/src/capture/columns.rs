//! A table's columns in the catalog, and which of them the stream [means](super::alignment).

use std::collections::HashMap;

use tokio_postgres::Client;
use tokio_postgres::types::Oid;

use super::error::Error;
use crate::decode::message::RelationColumn;

/// A column as the catalog has it now. Dropped ones are there too, of which the number and the layout are left.
#[derive(Debug, Clone, Default)]
pub(super) struct CatalogColumn {
    pub(super) name: String,
    pub(super) number: i16,
    pub(super) dropped: bool,
    /// The type's object id and modifier, as a description tells them.
    pub(super) type_of: (Oid, i32),
    /// Whether it is computed: a description may leave it out although it is there.
    pub(super) generated: bool,
    /// Whether a publication names the columns of the table that it is about, and leaves out others.
    pub(super) listed: bool,
    pub(super) nullable: bool,
    pub(super) key: bool,
    pub(super) type_name: String,
    pub(super) default: Option<String>,
    pub(super) missing: Option<String>,
    pub(super) layout: Layout,
    /// Whether it was last changed by a transaction that is older than the one it is asked for.
    pub(super) older: bool,
}

/// How a value of a type lies in a row: `pg_type.typlen` and `typalign`.
pub(super) type Layout = (i16, String);

// `attmissingval` keeps what rows from before a column hold until the table is rewritten, and is absent
// where that is NULL. Of a partitioned table its partitions have it.
const COLUMNS: &str = "
    SELECT a.attname::text, a.attnum, a.attisdropped, a.atttypid, a.atttypmod, a.attgenerated <> '', l.named,
           -- Rows from before a constraint that was not validated may be NULL.
           NOT a.attnotnull OR EXISTS (
               SELECT FROM pg_constraint n WHERE n.conrelid = c.oid AND n.contype = 'n'
                   AND NOT n.convalidated AND n.conkey = ARRAY[a.attnum]),
           coalesce(a.attnum = ANY (i.indkey), false), coalesce(format_type(a.atttypid, a.atttypmod), ''),
           CASE WHEN a.attgenerated = '' THEN pg_get_expr(d.adbin, d.adrelid) END,
           (SELECT array_to_string(m.attmissingval, '') FROM pg_attribute m
            WHERE m.attname = a.attname AND m.atthasmissing AND (m.attrelid = c.oid
                OR m.attrelid IN (SELECT p.relid FROM pg_partition_tree(c.oid) p))
            LIMIT 1),
           a.attlen, a.attalign::text,
           -- How many transactions ago it was changed, modulo 2^32.
           (pg_snapshot_xmax(pg_current_snapshot())::text::numeric - a.xmin::text::numeric) % 4294967296 >
               (pg_snapshot_xmax(pg_current_snapshot())::text::numeric - $2::int8) % 4294967296
    FROM pg_class c
    JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0
    LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
    LEFT JOIN LATERAL (
        -- Without the columns that an index only includes.
        SELECT (x.indkey::int2[])[0:x.indnkeyatts - 1] AS indkey FROM pg_index x
        WHERE x.indrelid = c.oid
          AND CASE WHEN c.relreplident = 'i' THEN x.indisreplident ELSE x.indisprimary END
        LIMIT 1
    ) i ON true
    CROSS JOIN LATERAL (
        -- Lists of columns came with version 15.
        SELECT coalesce(bool_or(to_jsonb(r) ->> 'prattrs' IS NOT NULL), false) AS named
        FROM pg_publication_rel r WHERE r.prrelid = c.oid
    ) l
    WHERE c.oid = $1
    ORDER BY a.attnum";

/// The columns of a table in the order of their numbers, none if there is no such table; as seen from a transaction
/// of the past, if one is given.
pub(super) async fn of(
    client: &Client,
    table: Oid,
    xid: Option<u32>,
) -> Result<Vec<CatalogColumn>, Error> {
    let xid = xid.map(i64::from);
    Ok(client.query(COLUMNS, &[&table, &xid]).await?.iter().map(catalog_column).collect())
}

fn catalog_column(row: &tokio_postgres::Row) -> CatalogColumn {
    let default: Option<String> = row.get(10);
    CatalogColumn {
        name: row.get(0),
        number: row.get(1),
        dropped: row.get(2),
        type_of: (row.get(3), row.get(4)),
        generated: row.get(5),
        listed: row.get(6),
        nullable: row.get(7),
        key: row.get(8),
        type_name: row.get(9),
        default: default.as_deref().and_then(constant),
        missing: row.get(11),
        layout: (row.get(12), row.get(13)),
        older: row.get::<_, Option<bool>>(14) == Some(true),
    }
}

/// The layouts of the types of a description, those that are there still.
pub(super) async fn layouts(
    client: &Client,
    described: &[RelationColumn],
) -> Result<HashMap<Oid, Layout>, Error> {
    const LAYOUTS: &str = "SELECT oid, typlen, typalign::text FROM pg_type WHERE oid = ANY ($1)";
    let types: Vec<Oid> = described.iter().map(|column| column.type_oid).collect();
    let found = client.query(LAYOUTS, &[&types]).await?;
    Ok(found.iter().map(|row| (row.get(0), (row.get(1), row.get(2)))).collect())
}

/// The value of a default expression that is a literal, in text form.
fn constant(expression: &str) -> Option<String> {
    match expression {
        "true" => return Some("t".into()),
        "false" => return Some("f".into()),
        _ => {}
    }
    if let Some(quoted) = expression.strip_prefix('\'') {
        let (literal, cast) = quoted.rsplit_once("'::")?;
        let plain = !cast.contains(['(', '\'']) || cast.starts_with("character");
        return (plain && !literal.replace("''", "").contains('\''))
            .then(|| literal.replace("''", "'"));
    }
    let number = expression.trim_start_matches('(').trim_end_matches(')');
    number.parse::<f64>().ok().map(|_| number.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_literal_defaults_are_constants() {
        let cases = [
            ("true", Some("t")),
            ("42", Some("42")),
            ("'-1'::integer", Some("-1")),
            ("'it''s'::text", Some("it's")),
            ("'2023-08-17 10:30:00'::timestamp without time zone", Some("2023-08-17 10:30:00")),
            ("'x'::character varying(40)", Some("x")),
            ("now()", None),
            ("nextval('users_id_seq'::regclass)", None),
            ("('a'::text || 'b'::text)", None),
            ("'a'::text || 'b'::text", None),
        ];
        for (expression, value) in cases {
            assert_eq!(constant(expression).as_deref(), value, "{expression}");
        }
    }
}
