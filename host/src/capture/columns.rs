//! A table's columns in the catalog, and which of them the stream means: it may describe a table as it was
//! before the last changes of its columns.

use tokio_postgres::Client;
use tokio_postgres::types::Oid;

use super::error::Error;
use crate::decode::message::RelationColumn;

/// A column as the catalog has it now. Dropped ones are there too, of which only the number counts.
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
}

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
            LIMIT 1)
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

/// The columns of a table in the order of their numbers, none if there is no such table.
pub(super) async fn of(client: &Client, table: Oid) -> Result<Vec<CatalogColumn>, Error> {
    Ok(client.query(COLUMNS, &[&table]).await?.iter().map(catalog_column).collect())
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
    }
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

/// Which of the catalog's columns each column of a description is. The stream tells names in the order of
/// the columns' numbers, and it may tell them as they were a while ago; so a column that is there now had its
/// place in the description, if it was there then, under whatever name. Of all ways to see it so the one with
/// the most equal names and types counts. Where two are as good, nothing is known of a column.
pub(super) fn matched<'a>(
    described: &[RelationColumn],
    catalog: &'a [CatalogColumn],
) -> Vec<Option<&'a CatalogColumn>> {
    let named = |column: &RelationColumn| {
        catalog.iter().find(|found| !found.dropped && found.name == column.name)
    };
    let by_name: Vec<_> = described.iter().map(named).collect();
    if catalog.iter().any(|column| column.listed) || is_as_it_was(described, &by_name, catalog) {
        return by_name;
    }
    let best = Alignment::of(described, catalog);
    (0..described.len()).map(|index| best.only(index).map(|column| &catalog[column])).collect()
}

/// Whether each column of the description is there under its name with its type, and none was there already
/// that has no place in the description.
fn is_as_it_was(
    described: &[RelationColumn],
    by_name: &[Option<&CatalogColumn>],
    catalog: &[CatalogColumn],
) -> bool {
    let mut last = 0;
    for (column, found) in described.iter().zip(by_name) {
        let Some(found) = found else { return false };
        let passed =
            catalog.iter().filter(|other| (last + 1..found.number).contains(&other.number));
        let grew = found.number > last && passed.into_iter().all(|other| !other.is_due());
        if !grew || !found.has_type_of(column) {
            return false;
        }
        last = found.number;
    }
    true
}

impl CatalogColumn {
    /// Whether a description that has a column after it has this one, too.
    fn is_due(&self) -> bool {
        !self.dropped && !self.generated
    }

    fn has_type_of(&self, column: &RelationColumn) -> bool {
        self.type_of == (column.type_oid, column.type_modifier)
    }
}

/// How many columns are equal at best, for every way to go through both lists.
struct Alignment<'a> {
    described: &'a [RelationColumn],
    catalog: &'a [CatalogColumn],
    /// Of what is before a column of each, and of what is from there on. `None`: there is no way.
    before: Vec<Vec<Option<u16>>>,
    after: Vec<Vec<Option<u16>>>,
}

impl<'a> Alignment<'a> {
    fn of(described: &'a [RelationColumn], catalog: &'a [CatalogColumn]) -> Alignment<'a> {
        let (columns, names) = (catalog.len(), described.len());
        let before = vec![vec![None; names + 1]; columns + 1];
        let mut found = Alignment { described, catalog, after: before.clone(), before };
        found.before[0][0] = Some(0);
        for column in 0..columns {
            for name in 0..=names {
                let here = found.before[column][name];
                if found.may_pass(column, name) {
                    found.before[column + 1][name] = found.before[column + 1][name].max(here);
                }
                if name < names && found.may_take(column, name) {
                    let next = here.map(|equal| equal + found.equal(column, name));
                    found.before[column + 1][name + 1] = next;
                }
            }
        }
        found.after[columns][names] = Some(0);
        for column in (0..columns).rev() {
            for name in 0..=names {
                let passed = found.after[column + 1][name].filter(|_| found.may_pass(column, name));
                let taken = found.after[column + 1].get(name + 1).copied().flatten();
                let taken = taken.filter(|_| found.may_take(column, name));
                let taken = taken.map(|equal| equal + found.equal(column, name));
                found.after[column][name] = passed.max(taken);
            }
        }
        found
    }

    /// One that was dropped or is computed need not be described, nor one that may have been added since.
    fn may_pass(&self, column: usize, name: usize) -> bool {
        !self.catalog[column].is_due() || name == self.described.len()
    }

    /// One that is computed was always, and mostly is in no description at all.
    fn may_take(&self, column: usize, name: usize) -> bool {
        let catalog = &self.catalog[column];
        !catalog.generated || catalog.name == self.described[name].name
    }

    /// One under its name that has another type now may be another one.
    fn equal(&self, column: usize, name: usize) -> u16 {
        let (catalog, described) = (&self.catalog[column], &self.described[name]);
        u16::from(catalog.name == described.name && catalog.has_type_of(described))
    }

    /// The one column that a name is in all of the best ways.
    fn only(&self, name: usize) -> Option<usize> {
        let best = self.after[0][0]?;
        let is_best = |column: &usize| {
            let before = self.before[*column][name];
            let after = self.after[*column + 1][name + 1].filter(|_| self.may_take(*column, name));
            let sum = before.zip(after).map(|(before, after)| before + after);
            sum.map(|sum| sum + self.equal(*column, name)) == Some(best)
        };
        let mut columns = (0..self.catalog.len()).filter(is_best);
        columns.next().filter(|_| columns.next().is_none())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The numbers that are found for descriptions of text columns. Of the catalog's, those without a name
    /// were dropped.
    fn numbers(described: &[&str], catalog: &[&str]) -> Vec<Option<i16>> {
        let described = described.iter().map(|name| RelationColumn {
            identity: false,
            name: (*name).into(),
            type_oid: 25,
            type_modifier: -1,
        });
        let described: Vec<_> = described.collect();
        let column = |(number, name): (i16, &&str)| CatalogColumn {
            name: (*name).into(),
            number,
            dropped: name.is_empty(),
            type_of: (25, -1),
            ..CatalogColumn::default()
        };
        let catalog: Vec<_> = (1..).zip(catalog).map(column).collect();
        matched(&described, &catalog).iter().map(|found| found.map(|found| found.number)).collect()
    }

    #[test]
    fn columns_that_were_renamed_since_are_found_between_their_neighbours() {
        assert_eq!(numbers(&["id", "a", "z"], &["id", "b", "z"]), [Some(1), Some(2), Some(3)]);
        assert_eq!(numbers(&["id", "a"], &["id", "b"]), [Some(1), Some(2)]);
        assert_eq!(numbers(&["id", "a", "z"], &["id", "", "b", "z"]), [Some(1), Some(3), Some(4)]);
        assert_eq!(numbers(&["a", "b"], &["c", "d"]), [Some(1), Some(2)]);
        assert_eq!(numbers(&["id", "a", "b"], &["id", "b", "a"]), [Some(1), Some(2), Some(3)]);
        assert_eq!(numbers(&["id", "a"], &["id", "", "b"]), [Some(1), None], "added, or renamed");
        assert_eq!(numbers(&["id", "a"], &["id", "b", "c"]), [Some(1), Some(2)], "one was added");
        let described = ["id", "title", "b", "note", "n"];
        let catalog = ["id", "b", "title", "", "n", "", "note"];
        let all = [Some(1), Some(2), Some(3), Some(4), Some(5)];
        assert_eq!(numbers(&described, &catalog), all, "swapped, and dropped and added");
    }

    #[test]
    fn a_column_whose_name_another_one_has_now_is_the_one_at_its_place() {
        assert_eq!(numbers(&["id", "a"], &["id", "old_a", "a"]), [Some(1), Some(2)]);
        let described = [("id", 23), ("a", 1082), ("b", 23)];
        let of_type = |catalog: &[(&str, Oid)]| {
            let described = described.map(|(name, type_oid)| RelationColumn {
                identity: false,
                name: name.into(),
                type_oid,
                type_modifier: -1,
            });
            let column = |(number, (name, type_oid)): (i16, &(&str, Oid))| CatalogColumn {
                name: name.trim_start_matches('=').into(),
                number,
                dropped: name.is_empty(),
                generated: name.starts_with('='),
                type_of: (*type_oid, -1),
                ..CatalogColumn::default()
            };
            let catalog: Vec<_> = (1..).zip(catalog).map(column).collect();
            let found = matched(&described, &catalog);
            found.iter().map(|found| found.map(|found| found.number)).collect::<Vec<_>>()
        };
        let in_place = [Some(1), Some(2), Some(3)];
        let retyped = [("id", 23), ("a", 20), ("b", 23)];
        assert_eq!(of_type(&retyped), in_place);
        let again = [("id", 23), ("", 0), ("b", 23), ("a", 23)];
        assert_eq!(of_type(&again), in_place, "dropped, and added with another type");
        let swapped = [("id", 23), ("b", 1082), ("a", 23), ("=sum", 23)];
        assert_eq!(of_type(&swapped), in_place, "beside a computed one");
        let passed = [("id", 23), ("=sum", 23), ("a", 1082), ("b", 23)];
        assert_eq!(of_type(&passed), [Some(1), Some(3), Some(4)]);
        let last = [("id", 23), ("a", 1082), ("", 0), ("b", 20)];
        assert_eq!(of_type(&last), [Some(1), Some(2), None], "either may be the one");
    }

    #[test]
    fn columns_that_were_dropped_since_have_the_numbers_at_their_places() {
        assert_eq!(numbers(&["id", "a", "z"], &["id", "", "z"]), [Some(1), Some(2), Some(3)]);
        assert_eq!(numbers(&["id", "a", "z"], &["id", "", "", "z"]), [Some(1), None, Some(4)]);
        assert_eq!(numbers(&["id", "a", "b"], &["id", "", ""]), [Some(1), Some(2), Some(3)]);
        assert_eq!(numbers(&["id", "a"], &[]), [None, None], "the table was dropped");
    }

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
