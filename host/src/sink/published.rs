//! What the HTTP interface may show: the views, as ClickHouse has them.
//!
//! A view's comment says which source table it shows and what its key is. So the description is
//! replaced together with the view, and whoever connects finds the tables of earlier runs too.

use serde::{Deserialize, Serialize};

use super::client::Client;
use super::error::Error;
use super::names::literal;
use crate::serve::{Mirrored, MirroredColumn};
use crate::table::Table;

/// A view's comment, in JSON.
#[derive(Serialize, Deserialize)]
struct Description {
    source: String,
    key: Vec<String>,
}

#[derive(Deserialize)]
struct FoundView {
    name: String,
    comment: String,
    /// Names and types in the view's order.
    columns: Vec<(String, String)>,
}

/// The comment of a table's view.
pub(super) fn describe(table: &Table) -> String {
    let key = table.key().map(|index| table.columns[index].name.clone()).collect();
    let description = Description { source: table.full_name().to_string(), key };
    serde_json::to_string(&description).expect("names are plain text")
}

/// Every view in the database that shows a source table, sorted by name.
pub(super) async fn read(client: &Client) -> Result<Vec<Mirrored>, Error> {
    let database = literal(client.database());
    let sql = format!(
        "SELECT t.name AS name, any(t.comment) AS comment, \
         arrayMap(c -> [c.2, c.3], arraySort(groupArray((c.position, c.name, c.type)))) AS columns \
         FROM system.tables AS t INNER JOIN system.columns AS c ON t.name = c.table \
         WHERE t.database = {database} AND c.database = {database} AND t.engine = 'View' \
         GROUP BY t.name ORDER BY t.name"
    );
    let found = client.rows::<FoundView>("look up views", &sql).await?;
    Ok(found.into_iter().filter_map(mirrored).collect())
}

/// `None` for a view of somebody else's.
fn mirrored(view: FoundView) -> Option<Mirrored> {
    let Description { source, key } = serde_json::from_str(&view.comment).ok()?;
    let columns = view.columns.into_iter().map(|(name, kind)| MirroredColumn { name, kind });
    Some(Mirrored { source, view: view.name, columns: columns.collect(), order: key })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::{Column, ColumnType, ReplicaIdentity};

    #[test]
    fn a_description_reads_back_and_other_comments_do_not() {
        let column = |name: &str, key| Column {
            name: name.into(),
            kind: ColumnType::Int4,
            type_name: "integer".into(),
            nullable: false,
            key,
            default: None,
        };
        let columns = vec![column("n", false), column("i\"d", true)];
        let table = Table::new(1, "s".into(), "t".into(), columns, ReplicaIdentity::Default);
        let view = |comment: String| FoundView {
            name: "s_t".into(),
            comment,
            columns: vec![("n".into(), "Int32".into()), ("i\"d".into(), "Int32".into())],
        };
        let found = mirrored(view(describe(&table))).unwrap();
        assert_eq!((found.source.as_str(), found.view.as_str()), ("s.t", "s_t"));
        assert_eq!(found.order, ["i\"d"]);
        assert_eq!(found.columns[0], MirroredColumn { name: "n".into(), kind: "Int32".into() });
        assert_eq!(mirrored(view("our own view".into())), None);
    }
}
