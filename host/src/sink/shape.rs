//! A source table's home in ClickHouse: made if absent, widened if too narrow, refused if other.
//!
//! Every step can be replayed: an older table version that comes again after a crash finds columns
//! that are wider or more than it needs, and writes into them as they are.
//!
//! A column that the source dropped stays, filled with its default from then on, and leaves the
//! view. A renamed one is a dropped and a new one to ClickHouse: rows written before show the new
//! column's default until a snapshot is taken again.

use serde::Deserialize;

use super::client::Client;
use super::ddl::{META, Place, StoredColumn};
use super::encode::Codec;
use super::error::Error;
use super::names::{literal, quoted};
use super::types::{Kind, Type};
use crate::failpoint;
use crate::table::{Column, ColumnType, Table};

#[derive(Deserialize)]
struct FoundTable {
    engine: String,
    sorting_key: String,
}

#[derive(Deserialize)]
struct FoundColumn {
    name: String,
    #[serde(rename = "type")]
    ty: String,
}

/// Makes the table fit, and gives the columns as they then are, in source order.
pub(super) async fn ensure(
    client: &Client,
    place: &Place,
    table: &Table,
) -> Result<Vec<StoredColumn>, Error> {
    refuse_reserved(table)?;
    let wanted: Vec<_> = table.columns.iter().map(wanted).collect();
    refuse_other_view(client, place, table).await?;
    match find_table(client, &place.versions_name()).await? {
        None => {
            let sql = place.create_versions(&wanted, &table.full_name().to_string());
            client.execute(&format!("create `{}`", place.versions_name()), &sql).await?;
            Ok(wanted)
        }
        Some(found) => fit(client, place, table, &found, wanted).await,
    }
}

fn refuse_reserved(table: &Table) -> Result<(), Error> {
    let reserved = |column: &&Column| META.iter().any(|(name, _)| column.name == *name);
    match table.columns.iter().find(reserved) {
        None => Ok(()),
        Some(column) => {
            let (table, column) = (table.full_name(), column.name.clone());
            Err(Error::ReservedColumn { table, column })
        }
    }
}

fn wanted(column: &Column) -> StoredColumn {
    let ty = Type::of(column);
    let default = column.default.as_deref().and_then(|text| default_of(&ty, &column.kind, text));
    StoredColumn { name: column.name.clone(), ty, key: column.key, default }
}

/// A constant default as ClickHouse reads it, if it can be said exactly.
fn default_of(ty: &Type, source: &ColumnType, text: &str) -> Option<String> {
    use super::encode::Fit;
    let exact = Codec::new(ty, source).write(text.as_bytes(), &mut Vec::new()) == Ok(Fit::Exact);
    match (&ty.kind, source) {
        _ if !exact => None,
        (_, ColumnType::Bytea) | (Kind::Array(_) | Kind::DateTime64, _) => None,
        (Kind::Bool, _) => Some(if text.starts_with('t') { "true" } else { "false" }.into()),
        (_, _) => Some(format!("CAST({}, {})", literal(text), literal(&ty.to_string()))),
    }
}

async fn find_table(client: &Client, name: &str) -> Result<Option<FoundTable>, Error> {
    let sql = format!(
        "SELECT engine, sorting_key FROM system.tables WHERE database = {} AND name = {}",
        literal(client.database()),
        literal(name),
    );
    Ok(client.rows("look up tables", &sql).await?.pop())
}

async fn find_columns(client: &Client, name: &str) -> Result<Vec<FoundColumn>, Error> {
    let sql = format!(
        "SELECT name, type FROM system.columns WHERE database = {} AND table = {}",
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
    let mut differences = different_engine(place, found, &wanted);
    differences.extend(META.iter().filter_map(|(name, ty)| {
        let found = existing.iter().find(|column| column.name == *name);
        let actual = found.map_or("absent", |column| column.ty.as_str());
        (actual != *ty).then(|| format!("`{name}` is {actual}, not {ty}"))
    }));
    let mut changes = Vec::new();
    let mut columns = Vec::new();
    for column in wanted {
        let actual = existing.iter().find(|found| found.name == column.name);
        match fit_column(column, actual) {
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

/// The column as it will be, and the change that makes it so.
fn fit_column(
    wanted: StoredColumn,
    actual: Option<&FoundColumn>,
) -> Result<(StoredColumn, Option<String>), String> {
    let Some(actual) = actual else {
        let add = format!("ADD COLUMN IF NOT EXISTS {}", wanted.definition());
        return Ok((wanted, Some(add)));
    };
    let differs = || format!("`{}` is {}, not {}", wanted.name, actual.ty, wanted.ty);
    let ty = Type::parse(&actual.ty).ok_or_else(differs)?;
    if ty.takes(&wanted.ty) {
        return Ok((StoredColumn { ty, ..wanted }, None));
    }
    let wider = ty.widened_to(&wanted.ty).filter(|_| !wanted.key).ok_or_else(differs)?;
    let change = format!("MODIFY COLUMN {} {wider}", quoted(&wanted.name));
    Ok((StoredColumn { ty: wider, ..wanted }, Some(change)))
}

async fn refuse_other_view(client: &Client, place: &Place, table: &Table) -> Result<(), Error> {
    let name = place.plan.view.clone();
    match find_table(client, &name).await? {
        Some(found) if found.engine != "View" => {
            let differences = format!("it is a {}, not a view", found.engine);
            Err(Error::Shape { name, table: table.full_name(), differences })
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn column(ty: &str, key: bool) -> StoredColumn {
        let ty = Type::parse(ty).unwrap();
        StoredColumn { name: "c".into(), ty, key, default: None }
    }

    fn found(ty: &str) -> FoundColumn {
        FoundColumn { name: "c".into(), ty: ty.into() }
    }

    #[test]
    fn a_column_is_added_widened_kept_or_refused() {
        let change = |wanted: &str, key, actual: Option<&str>| {
            fit_column(column(wanted, key), actual.map(found).as_ref())
                .map(|(column, change)| (column.ty.to_string(), change))
        };
        let (_, added) = change("Int32", false, None).unwrap();
        assert_eq!(added.as_deref(), Some("ADD COLUMN IF NOT EXISTS `c` Int32"));
        let (ty, widened) = change("Nullable(Int64)", false, Some("Int32")).unwrap();
        assert_eq!(ty, "Nullable(Int64)");
        assert_eq!(widened.as_deref(), Some("MODIFY COLUMN `c` Nullable(Int64)"));
        assert_eq!(change("Int32", false, Some("Int64")).unwrap(), ("Int64".into(), None));
        let refused = change("Date32", false, Some("Int64")).unwrap_err();
        assert_eq!(refused, "`c` is Int64, not Date32");
        assert!(change("Int64", true, Some("Int32")).is_err(), "keys cannot be widened in place");
    }

    #[test]
    fn constant_defaults_are_said_in_the_columns_own_type() {
        let of = |ty: &str, kind, text| default_of(&Type::parse(ty).unwrap(), &kind, text);
        assert_eq!(of("Bool", ColumnType::Bool, "t").as_deref(), Some("true"));
        let text = of("Nullable(String)", ColumnType::Text, "it's");
        assert_eq!(text.as_deref(), Some(r"CAST('it\'s', 'Nullable(String)')"));
        assert_eq!(of("Date32", ColumnType::Date, "infinity"), None);
    }
}
