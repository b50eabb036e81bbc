//! A source table's home in ClickHouse: made if absent, widened if too narrow, refused if other.
//!
//! Every step can be replayed: an older table version that comes again after a crash finds columns
//! that are wider or more than it needs, and writes into them as they are.
//!
//! A column of the source is known by its number there, which a comment on ClickHouse's column tells. So one
//! that is renamed stays where it is, and the view shows it under its new name. One that is dropped stays
//! too, filled with its default from then on, and leaves the view; and where another one gets its name
//! later, that one is stored under a name of its own. A column without a number, or with somebody's own
//! comment on it, is known by its name.

use serde::Deserialize;

use super::array::{Element, Elements};
use super::client::Client;
use super::datetime::micros;
use super::ddl::{META, Place, StoredColumn};
use super::encode::{Codec, Fit};
use super::error::Error;
use super::names::{OWN_PREFIX, literal, quoted};
use super::published::shows;
use super::types::{Kind, Type};
use crate::decode::array::unquote;
use crate::failpoint;
use crate::table::{Column, ColumnType, Table, TableName};

/// What a comment of ours on a column begins with: `source column OID.NUMBER`.
const MARK: &str = "source column ";

/// A table or a view as ClickHouse has it.
#[derive(Deserialize)]
pub(super) struct FoundTable {
    pub(super) engine: String,
    sorting_key: String,
    pub(super) comment: String,
    /// What a view selects.
    as_select: String,
}

/// Columns that a table of ClickHouse's has anyway.
const CLICKHOUSE_OWN: [&str; 3] = ["_row_exists", "_block_number", "_block_offset"];

/// What a source table has in ClickHouse.
pub(super) struct Home {
    /// In source order.
    pub(super) columns: Vec<StoredColumn>,
    /// The table was not there before, so a view of its name is of another one, which may have been laid out
    /// in another way.
    pub(super) is_new: bool,
}

#[derive(Deserialize)]
struct FoundColumn {
    name: String,
    #[serde(rename = "type")]
    ty: String,
    comment: String,
}

/// Makes the table fit, and gives it as it then is.
pub(super) async fn ensure(client: &Client, place: &Place, table: &Table) -> Result<Home, Error> {
    refuse_reserved(table)?;
    let wanted: Vec<_> = table.columns.iter().map(|column| wanted(table, column)).collect();
    refuse_other_view(client, place, table).await?;
    match find_table(client, &place.versions_name()).await? {
        None => {
            refuse_long_name(client.database(), place, table)?;
            let wanted = bind(wanted, &[], &mark_of(table));
            let sql = place.create_versions(&wanted, &owner(client, &table.full_name()));
            client.execute(&format!("create `{}`", place.versions_name()), &sql).await?;
            Ok(Home { columns: wanted, is_new: true })
        }
        Some(found) => {
            refuse_other_source(client, place, table, &found)?;
            let columns = fit(client, place, table, &found, wanted).await?;
            Ok(Home { columns, is_new: false })
        }
    }
}

/// The comment on a table with versions: whose rows it holds.
pub(super) fn owner(client: &Client, table: &TableName) -> String {
    format!("{table} of {}", client.source())
}

/// Positions of two sources do not compare, so rows of the one would hide those of the other.
fn refuse_other_source(
    client: &Client,
    place: &Place,
    table: &Table,
    found: &FoundTable,
) -> Result<(), Error> {
    let other = found.comment.strip_prefix(&format!("{} of ", table.full_name()));
    match other.filter(|other| *other != client.source()) {
        None => Ok(()),
        Some(other) => Err(Error::OtherSource {
            name: place.versions_name(),
            table: table.full_name(),
            other: other.to_owned(),
        }),
    }
}

fn refuse_reserved(table: &Table) -> Result<(), Error> {
    let reserved = |column: &&Column| {
        let ours = META.iter().any(|(name, _)| column.name == *name);
        ours || CLICKHOUSE_OWN.contains(&&*column.name) || column.name.starts_with("_exact.")
    };
    match table.columns.iter().find(reserved) {
        None => Ok(()),
        Some(column) => {
            let (table, column) = (table.full_name(), column.name.clone());
            Err(Error::ReservedColumn { table, column })
        }
    }
}

/// A table that is dropped waits in a file of its database's name, its own and a number.
fn refuse_long_name(database: &str, place: &Place, table: &Table) -> Result<(), Error> {
    const MOST: usize = 255 - "..00000000-0000-0000-0000-000000000000.sql".len();
    let bytes = |name: &str| -> usize {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
        name.bytes().map(|byte| if plain(byte) { 1 } else { "%00".len() }).sum()
    };
    let name = place.versions_name();
    match bytes(database) + bytes(&name) <= MOST {
        true => Ok(()),
        false => Err(Error::LongName { name, table: table.full_name() }),
    }
}

fn wanted(table: &Table, column: &Column) -> StoredColumn {
    let ty = Type::of(column);
    // What rows from before the column hold is known exactly from `attmissingval`, unless the table was
    // rewritten since. Today's default is then the best guess, and taken only where NULL would be wrong.
    let told = column.number.is_some() && column.nullable;
    let before = column.missing.as_deref().or(column.default.as_deref().filter(|_| !told));
    let default = before.and_then(|text| default_of(&ty, &column.kind, text.as_bytes()));
    let mark = column.number.map(|number| format!("{}{number}", mark_of(table)));
    let (name, shown, key) = (column.name.clone(), column.name.clone(), column.key);
    StoredColumn { name, shown, ty, key, default, mark }
}

/// What the comments on all columns of a source table begin with.
fn mark_of(table: &Table) -> String {
    format!("{MARK}{}.", table.oid)
}

/// A value as an expression of ClickHouse's, if it can be said exactly.
fn default_of(ty: &Type, source: &ColumnType, text: &[u8]) -> Option<String> {
    let codec = Codec::new(ty, source);
    if codec.write(text, &mut Vec::new()) != Ok(Fit::Exact) {
        return None;
    }
    let value = match (&ty.kind, source) {
        (Kind::Bool, _) => if text.starts_with(b"t") { "true" } else { "false" }.to_owned(),
        (Kind::DateTime64, _) => {
            let (micros, _) = micros(text).ok()?;
            format!("fromUnixTimestamp64Micro(toInt64({micros}), 'UTC')")
        }
        (Kind::Array(element), ColumnType::Array(of)) => array_of(element, of, text)?,
        (Kind::Array(_), _) => return None,
        (_, ColumnType::Bytea) => {
            let digits = std::str::from_utf8(text).ok()?.strip_prefix("\\x")?;
            format!("unhex({})", literal(digits))
        }
        _ => literal(std::str::from_utf8(text).ok()?),
    };
    Some(format!("CAST({value}, {})", literal(&ty.to_string())))
}

fn array_of(element: &Type, source: &ColumnType, text: &[u8]) -> Option<String> {
    let (mut elements, _) = Elements::of(text);
    let mut values = Vec::new();
    while let Some(found) = elements.next_element().ok()? {
        values.push(match found {
            Element::Null => "NULL".to_owned(),
            Element::Plain(text) => default_of(element, source, text)?,
            Element::Quoted(text) => {
                let mut plain = Vec::with_capacity(text.len());
                unquote(&mut plain, text);
                default_of(element, source, &plain)?
            }
        });
    }
    Some(format!("[{}]", values.join(", ")))
}

/// The table or view of that name.
pub(super) async fn find_table(client: &Client, name: &str) -> Result<Option<FoundTable>, Error> {
    let sql = format!(
        "SELECT engine, sorting_key, comment, as_select FROM system.tables \
         WHERE database = {} AND name = {}",
        literal(client.database()),
        literal(name),
    );
    Ok(client.rows("look up tables", &sql).await?.pop())
}

async fn find_columns(client: &Client, name: &str) -> Result<Vec<FoundColumn>, Error> {
    let sql = format!(
        "SELECT name, type, comment FROM system.columns WHERE database = {} AND table = {}",
        literal(client.database()),
        literal(name),
    );
    client.rows("look up columns", &sql).await
}

async fn fit(
    client: &Client,
    place: &Place,
    table: &Table,
    found: &FoundTable,
    wanted: Vec<StoredColumn>,
) -> Result<Vec<StoredColumn>, Error> {
    let name = place.versions_name();
    let existing = find_columns(client, &name).await?;
    let wanted = bind(wanted, &existing, &mark_of(table));
    let mut differences = different_engine(place, found, &wanted);
    differences.extend(META.iter().filter_map(|(name, ty)| {
        let found = existing.iter().find(|column| column.name == *name);
        let actual = found.map_or("absent", |column| column.ty.as_str());
        (actual != *ty).then(|| format!("`{name}` is {actual}, not {ty}"))
    }));
    let mut changes = Vec::new();
    let mut columns = Vec::new();
    for (column, source) in wanted.into_iter().zip(&table.columns) {
        let actual = existing.iter().find(|found| found.name == column.name);
        match fit_column(as_before(column, source, actual), actual) {
            Ok((column, change)) => {
                changes.extend(change);
                columns.push(column);
            }
            Err(difference) => differences.push(difference),
        }
    }
    if !differences.is_empty() {
        let (table, differences) = (table.full_name(), differences.join("; "));
        return Err(Error::Shape { name, table, differences });
    }
    if !changes.is_empty() {
        failpoint::pass("before_alter");
        client.execute(&format!("alter `{name}`"), &place.alter_versions(&changes)).await?;
        failpoint::pass("after_alter");
        tracing::info!(table = %table.full_name(), changes = changes.len(), "altered a table");
    }
    Ok(columns)
}

fn different_engine(place: &Place, found: &FoundTable, wanted: &[StoredColumn]) -> Vec<String> {
    // After a restart ClickHouse may write a key of one column as `(id)`.
    let plain = |text: &str| text.replace(['`', ' ', '\\', '(', ')'], "");
    let mut differences = Vec::new();
    // ClickHouse Cloud answers with a Shared… engine whatever was asked for.
    if !found.engine.ends_with(&place.engine()) {
        differences.push(format!("its engine is {}, not {}", found.engine, place.engine()));
    }
    let sorting = place.sorting(wanted).join(", ");
    if plain(&found.sorting_key) != plain(&sorting) {
        differences.push(format!("it is sorted by ({}), not ({sorting})", found.sorting_key));
    }
    differences
}

/// Gives each column the name under which it is stored, or will be.
fn bind(
    mut wanted: Vec<StoredColumn>,
    existing: &[FoundColumn],
    mark_of_table: &str,
) -> Vec<StoredColumn> {
    let marked = |column: &StoredColumn| {
        let mark = column.mark.as_ref()?;
        existing.iter().find(|found| found.comment == *mark).map(|found| found.name.clone())
    };
    let names: Vec<_> = wanted.iter().map(marked).collect();
    let shown: Vec<_> = wanted.iter().map(|column| column.shown.clone()).collect();
    for (index, column) in wanted.iter_mut().enumerate() {
        let is_anothers = |name: &str| {
            let marked = column.mark.is_some()
                && existing
                    .iter()
                    .any(|found| found.name == name && found.comment.starts_with(mark_of_table));
            marked || names.iter().flatten().any(|taken| taken == name)
        };
        if let Some(name) = &names[index] {
            column.name.clone_from(name);
        } else if is_anothers(&column.shown) || is_nested(column, existing) {
            let number = column.mark.as_deref().and_then(|mark| mark.rsplit('.').next());
            let mut name = format!("{}_{}", column.shown, number.unwrap_or("dropped"));
            // An array of this name is a part of a nested table, whose arrays are all of one length.
            name = name.replace('.', "_");
            while is_anothers(&name) || shown.contains(&name) {
                name.push('_');
            }
            column.name = name;
        }
    }
    wanted
}

/// Whether a new column would be taken for a part of a nested table.
fn is_nested(column: &StoredColumn, existing: &[FoundColumn]) -> bool {
    let is_array = matches!(column.ty.kind, Kind::Array(_));
    is_array
        && column.shown.contains('.')
        && existing.iter().all(|found| found.name != column.shown)
}

/// The column in the type that it has already, if the source has dropped its own: the column was made for that.
fn as_before(column: StoredColumn, source: &Column, actual: Option<&FoundColumn>) -> StoredColumn {
    let actual = actual.filter(|_| source.has_unknown_type());
    let before = actual.and_then(|found| Type::parse(&found.ty));
    StoredColumn { ty: before.unwrap_or(column.ty), ..column }
}

/// The column as it will be, and the change that makes it so.
fn fit_column(
    wanted: StoredColumn,
    actual: Option<&FoundColumn>,
) -> Result<(StoredColumn, Vec<String>), String> {
    let Some(actual) = actual else {
        let add = format!("ADD COLUMN IF NOT EXISTS {}", wanted.definition());
        return Ok((wanted, vec![add]));
    };
    let mut changes = Vec::new();
    let is_ours = actual.comment.is_empty() || actual.comment.starts_with(MARK);
    if let Some(mark) = wanted.mark.as_ref().filter(|mark| is_ours && **mark != actual.comment) {
        changes.push(format!("COMMENT COLUMN {} {}", quoted(&wanted.name), literal(mark)));
    }
    let differs = || format!("`{}` is {}, not {}", wanted.name, actual.ty, wanted.ty);
    let ty = Type::parse(&actual.ty).ok_or_else(differs)?;
    if ty.takes(&wanted.ty) {
        return Ok((StoredColumn { ty, ..wanted }, changes));
    }
    let wider = ty.widened_to(&wanted.ty).filter(|_| !wanted.key).ok_or_else(differs)?;
    changes.push(format!("MODIFY COLUMN {} {wider}", quoted(&wanted.name)));
    Ok((StoredColumn { ty: wider, ..wanted }, changes))
}

/// What is not of the sink's making is left alone. A view is told by its comment or, where somebody put
/// another one on it, by what it selects.
async fn refuse_other_view(client: &Client, place: &Place, table: &Table) -> Result<(), Error> {
    let (name, table) = (place.plan.view.clone(), table.full_name());
    let Some(found) = find_table(client, &name).await? else { return Ok(()) };
    let is_view = found.engine == "View";
    match shows(&found.comment).filter(|_| is_view) {
        Some(first) if first != table.to_string() => {
            Err(Error::NameClash { name, first, second: table })
        }
        None if !(is_view && selects_versions(&found, place)) => {
            Err(Error::NameTaken { name, engine: found.engine, table })
        }
        _ => Ok(()),
    }
}

/// Whether a view selects the table's versions behind its last truncate, as the sink's views do.
fn selects_versions(found: &FoundTable, place: &Place) -> bool {
    let last_truncate = format!("{OWN_PREFIX}truncates WHERE name = {}", literal(&place.plan.view));
    [place.versions_name(), last_truncate].iter().all(|part| found.as_select.contains(part))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn column(ty: &str, key: bool) -> StoredColumn {
        let ty = Type::parse(ty).unwrap();
        let (name, shown) = ("c".to_owned(), "c".to_owned());
        StoredColumn { name, shown, ty, key, default: None, mark: None }
    }

    fn found(ty: &str) -> FoundColumn {
        FoundColumn { name: "c".into(), ty: ty.into(), comment: String::new() }
    }

    #[test]
    fn a_column_is_added_widened_kept_or_refused() {
        let change = |wanted: &str, key, actual: Option<&str>| {
            fit_column(column(wanted, key), actual.map(found).as_ref())
                .map(|(column, changes)| (column.ty.to_string(), changes.join(", ")))
        };
        let (_, added) = change("Int32", false, None).unwrap();
        assert_eq!(added, "ADD COLUMN IF NOT EXISTS `c` Int32");
        let (ty, widened) = change("Nullable(Int64)", false, Some("Int32")).unwrap();
        assert_eq!(ty, "Nullable(Int64)");
        assert_eq!(widened, "MODIFY COLUMN `c` Nullable(Int64)");
        assert_eq!(change("Int32", false, Some("Int64")).unwrap(), ("Int64".into(), String::new()));
        let refused = change("Date32", false, Some("Int64")).unwrap_err();
        assert_eq!(refused, "`c` is Int64, not Date32");
        assert!(change("Int64", true, Some("Int32")).is_err(), "keys cannot be widened in place");
    }

    #[test]
    fn a_column_whose_type_was_dropped_stays_what_it_is() {
        let array = "Array(LowCardinality(Nullable(String)))";
        let change = |type_name: &str, actual: &str| {
            let source = Column::new("c", ColumnType::Other, type_name);
            let actual = found(actual);
            let wanted = as_before(column("Nullable(String)", false), &source, Some(&actual));
            fit_column(wanted, Some(&actual))
                .map(|(column, changes)| (column.ty.to_string(), changes))
        };
        for actual in [array, "Int32", "Decimal(10, 2)", "Nullable(Bool)"] {
            assert_eq!(change(crate::table::UNKNOWN_TYPE, actual), Ok((actual.into(), vec![])));
        }
        assert!(change("int4range", array).is_err(), "that type is known, and another one");
    }

    /// Names under which columns, given by name and number, are stored beside those given by name and
    /// comment.
    fn bound(wanted: &[(&str, Option<i16>)], existing: &[(&str, &str)]) -> Vec<String> {
        let wanted = wanted.iter().map(|(name, number)| StoredColumn {
            name: (*name).into(),
            shown: (*name).into(),
            mark: number.map(|number| format!("source column 7.{number}")),
            ..column("Int32", false)
        });
        let existing: Vec<_> = existing
            .iter()
            .map(|(name, comment)| FoundColumn {
                name: (*name).into(),
                comment: (*comment).into(),
                ..found("Int32")
            })
            .collect();
        let bound = bind(wanted.collect(), &existing, "source column 7.");
        bound.into_iter().map(|column| column.name).collect()
    }

    #[test]
    fn a_column_is_the_one_of_its_number_whatever_it_is_called() {
        let existing = [("id", "source column 7.1"), ("a", "source column 7.2")];
        assert_eq!(bound(&[("id", Some(1)), ("b", Some(2))], &existing), ["id", "a"]);
        let swapped = [("a", "source column 7.1"), ("b", "source column 7.2")];
        assert_eq!(bound(&[("b", Some(1)), ("a", Some(2))], &swapped), ["a", "b"]);
        assert_eq!(bound(&[("b", Some(2)), ("a", Some(3))], &existing), ["a", "a_3"]);
    }

    #[test]
    fn a_column_that_is_back_under_the_name_of_a_dropped_one_is_another() {
        let existing = [("id", "source column 7.1"), ("note", "source column 7.2")];
        assert_eq!(bound(&[("id", Some(1)), ("note", Some(3))], &existing), ["id", "note_3"]);
    }

    #[test]
    fn a_name_that_a_column_is_stored_under_is_no_other_ones() {
        let existing =
            [("id", "source column 7.1"), ("a", "source column 7.2"), ("a_4", "source column 7.3")];
        let wanted = [("id", Some(1)), ("a_4", Some(3)), ("a", Some(4))];
        assert_eq!(bound(&wanted, &existing), ["id", "a_4", "a_4_"]);
        let wanted = [("id", Some(1)), ("a", Some(4)), ("a_4", Some(5))];
        assert_eq!(bound(&wanted, &existing[..2]), ["id", "a_4_", "a_4"]);
    }

    #[test]
    fn what_has_no_number_goes_by_its_name() {
        let existing = [("id", ""), ("note", "what he said"), ("old", "source column 5.3")];
        let wanted = [("id", Some(1)), ("note", Some(2)), ("old", Some(3))];
        assert_eq!(
            bound(&wanted, &existing),
            ["id", "note", "old"],
            "made before, or of another table"
        );
        assert_eq!(bound(&[("note", None)], &[("note", "source column 7.2")]), ["note"]);
        let existing = [("a", "source column 7.2")];
        assert_eq!(bound(&[("b", Some(2)), ("a", None)], &existing), ["a", "a_dropped"]);
    }

    #[test]
    fn a_comment_of_somebody_elses_is_left_alone() {
        let wanted =
            StoredColumn { mark: Some("source column 7.1".into()), ..column("Int32", false) };
        let changes = |comment: &str| {
            let found = FoundColumn { comment: comment.into(), ..found("Int32") };
            fit_column(wanted.clone(), Some(&found)).unwrap().1
        };
        assert_eq!(changes("what he said"), [""; 0]);
        assert_eq!(changes("source column 7.1"), [""; 0]);
        assert_eq!(changes("source column 5.1"), ["COMMENT COLUMN `c` 'source column 7.1'"]);
        assert_eq!(changes(""), ["COMMENT COLUMN `c` 'source column 7.1'"]);
    }

    #[test]
    fn what_rows_from_before_hold_is_what_the_source_says_they_hold() {
        let default = |nullable, default: Option<&str>, missing: Option<&str>, number| {
            let column = Column {
                name: "n".into(),
                kind: ColumnType::Int4,
                type_name: "integer".into(),
                nullable,
                key: false,
                default: default.map(Into::into),
                number,
                missing: missing.map(Into::into),
            };
            let identity = crate::table::ReplicaIdentity::Default;
            let table = Table::new(7, "public".into(), "t".into(), vec![column], identity);
            wanted(&table, &table.columns[0]).default
        };
        let five = Some("CAST('5', 'Nullable(Int32)')".to_owned());
        assert_eq!(default(true, Some("7"), Some("5"), Some(2)), five);
        assert_eq!(default(true, Some("7"), None, Some(2)), None, "NULL: the default came later");
        assert_eq!(default(true, Some("5"), None, None), five, "there is nothing better");
        let guess = Some("CAST('5', 'Int32')".to_owned());
        assert_eq!(default(false, Some("5"), None, Some(2)), guess);
    }

    #[test]
    fn values_are_said_in_the_columns_own_type() {
        let of = |ty: &str, kind, text: &str| {
            default_of(&Type::parse(ty).unwrap(), &kind, text.as_bytes())
        };
        assert_eq!(of("Bool", ColumnType::Bool, "t").as_deref(), Some("CAST(true, 'Bool')"));
        let text = of("Nullable(String)", ColumnType::Text, "it's");
        assert_eq!(text.as_deref(), Some(r"CAST('it\'s', 'Nullable(String)')"));
        assert_eq!(of("Date32", ColumnType::Date, "infinity"), None);
        let moment =
            of("DateTime64(6, 'UTC')", ColumnType::Timestamptz(6), "1970-01-01 00:00:01+00");
        let expected =
            r"CAST(fromUnixTimestamp64Micro(toInt64(1000000), 'UTC'), 'DateTime64(6, \'UTC\')')";
        assert_eq!(moment.as_deref(), Some(expected));
        assert_eq!(
            of("String", ColumnType::Bytea, r"\x00ff").as_deref(),
            Some("CAST(unhex('00ff'), 'String')")
        );
        let array = ColumnType::Array(Box::new(ColumnType::Text));
        assert_eq!(
            of("Array(Nullable(String))", array.clone(), "{}").as_deref(),
            Some("CAST([], 'Array(Nullable(String))')")
        );
        let expected = r#"CAST([CAST('a', 'Nullable(String)'), NULL, CAST('b "c', 'Nullable(String)')], 'Array(Nullable(String))')"#;
        assert_eq!(
            of("Array(Nullable(String))", array, r#"{a,NULL,"b \"c"}"#).as_deref(),
            Some(expected)
        );
    }
}
