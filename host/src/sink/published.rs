//! The views: which version of its table each one shows, and what the HTTP interface is told.
//!
//! A view's comment says which source table it shows, with what key, and since which change its
//! columns are as they are. So the description is replaced together with the view, and whoever
//! connects finds the tables of earlier runs too.
//!
//! A view only ever moves to a later version of its table. Changes from before a schema change come
//! again after a crash, and from the slower of two partitions; they are stored, and the view stays.

use rustc_hash::{FxHashMap, FxHashSet};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::block::Encoder;
use super::client::Client;
use super::error::Error;
use super::names::literal;
use super::shape::find_table;
use crate::serve::{Mirrored, MirroredColumn};
use crate::table::{Column, ColumnType, Table};

/// A view's comment, in JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Description {
    source: String,
    key: Vec<String>,
    /// The table version's fingerprint.
    table: String,
    /// The first change seen of that table version, 0 before any was.
    since: String,
    /// Columns that hold bytes, or arrays of them, and no text.
    binary: Vec<String>,
}

impl Description {
    fn of(table: &Table, since: u128) -> Description {
        Description {
            source: table.full_name().to_string(),
            key: table.key().map(|index| table.columns[index].name.clone()).collect(),
            table: format!("{:016x}", table.fingerprint),
            since: since.to_string(),
            binary: table
                .columns
                .iter()
                .filter(is_binary)
                .map(|column| column.name.clone())
                .collect(),
        }
    }

    fn shows(&self, table: &Table) -> bool {
        self.table == format!("{:016x}", table.fingerprint)
    }

    fn since(&self) -> u128 {
        self.since.parse().unwrap_or_default()
    }
}

#[derive(Deserialize)]
struct FoundView {
    name: String,
    comment: String,
    /// Names and types in the view's order.
    columns: Vec<(String, String)>,
}

/// All views that show a source table.
#[derive(Debug)]
pub(super) struct Views {
    shown: FxHashMap<String, Description>,
    /// What these read has been made anew, and they are to be.
    outdated: FxHashSet<String>,
    published: watch::Sender<Vec<Mirrored>>,
}

impl Views {
    fn none() -> Views {
        let published = watch::Sender::default();
        Views { shown: FxHashMap::default(), outdated: FxHashSet::default(), published }
    }

    /// The views that are there.
    pub(super) async fn find(client: &Client) -> Result<Views, Error> {
        let mut views = Views::none();
        views.refresh(client).await?;
        Ok(views)
    }

    /// Each view and the source table that it shows, `schema.table`.
    pub(super) fn sources(&self) -> impl Iterator<Item = (&str, &str)> {
        self.shown.iter().map(|(view, description)| (view.as_str(), description.source.as_str()))
    }

    /// What can be queried, now and whenever it changes.
    pub(super) fn subscribe(&self) -> watch::Receiver<Vec<Mirrored>> {
        self.published.subscribe()
    }

    /// Whether a view should be made, or made anew. `version` is that of a change of this table version.
    pub(super) fn is_due(&self, encoder: &Encoder, version: u128) -> bool {
        let shown = self.shown.get(&encoder.place.plan.view);
        shown.is_none_or(|shown| !shown.shows(&encoder.table) && shown.since() < version)
    }

    /// A view that is there does not count any more: what it reads has been made anew.
    pub(super) fn outdate(&mut self, view: &str) {
        if self.shown.remove(view).is_some() {
            self.outdated.insert(view.to_owned());
        }
    }

    /// Reads what a view shows by now: another process may have come farther with its table.
    pub(super) async fn look_again(&mut self, client: &Client, view: &str) -> Result<(), Error> {
        if self.outdated.contains(view) {
            return Ok(());
        }
        let found = find_table(client, view).await?;
        if let Some(description) = found.and_then(|found| describes(&found.comment)) {
            self.shown.insert(view.to_owned(), description);
        }
        Ok(())
    }

    /// Makes a view that shows this table version.
    pub(super) async fn show(
        &mut self,
        client: &Client,
        encoder: &Encoder,
        since: u128,
    ) -> Result<(), Error> {
        let (view, table) = (&encoder.place.plan.view, &encoder.table);
        let comment = serde_json::to_string(&Description::of(table, since));
        let comment = comment.expect("names and numbers are plain text");
        let sql = encoder.place.create_view(&encoder.stored, &comment);
        client.execute(&format!("create the view `{view}`"), &sql).await?;
        self.outdated.remove(view);
        Ok(())
    }

    /// Reads and publishes what there is.
    pub(super) async fn refresh(&mut self, client: &Client) -> Result<(), Error> {
        let database = literal(client.database());
        let sql = format!(
            "SELECT t.name AS name, any(t.comment) AS comment, \
             arrayMap(c -> [c.2, c.3], arraySort(groupArray((c.position, c.name, c.type)))) \
             AS columns FROM system.tables AS t \
             INNER JOIN system.columns AS c ON t.name = c.table \
             WHERE t.database = {database} AND c.database = {database} AND t.engine = 'View' \
             GROUP BY t.name ORDER BY t.name"
        );
        let found = client.rows::<FoundView>("look up views", &sql).await?;
        let mut tables = Vec::with_capacity(found.len());
        for view in found {
            // A view without such a comment is somebody else's.
            if let Some(description) = describes(&view.comment) {
                tables.push(mirrored(&view, &description));
                if !self.outdated.contains(&view.name) {
                    self.shown.insert(view.name, description);
                }
            }
        }
        self.published.send_if_modified(|published| {
            let news = *published != tables;
            *published = tables;
            news
        });
        Ok(())
    }
}

/// The source table that a view shows, by its comment; nothing for somebody else's.
pub(super) fn shows(comment: &str) -> Option<String> {
    describes(comment).map(|description| description.source)
}

fn describes(comment: &str) -> Option<Description> {
    serde_json::from_str(comment).ok()
}

fn is_binary(column: &&Column) -> bool {
    match &column.kind {
        ColumnType::Bytea => true,
        ColumnType::Array(element) => **element == ColumnType::Bytea,
        _ => false,
    }
}

fn mirrored(view: &FoundView, description: &Description) -> Mirrored {
    let columns = view.columns.iter().cloned();
    let is_binary = |name: &String| description.binary.contains(name);
    let columns = columns.map(|(name, kind)| {
        let binary = is_binary(&name) && kind.contains("String");
        MirroredColumn { name, kind, binary }
    });
    Mirrored {
        source: description.source.clone(),
        view: view.name.clone(),
        columns: columns.collect(),
        order: description.key.clone(),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::sink::ddl::Place;
    use crate::sink::options::Options;
    use crate::table::ReplicaIdentity;

    fn encoder(columns: &[&str]) -> Encoder {
        let column = |name: &&str| {
            let column = Column::new(*name, ColumnType::Int4, "integer");
            Column { nullable: false, key: *name == "id", ..column }
        };
        let columns = columns.iter().map(column).collect();
        let table = Table::new(1, "public".into(), "t".into(), columns, ReplicaIdentity::Default);
        let plan = Options::default().plan(&table.full_name());
        let place = Place { database: "shop".into(), plan };
        Encoder::new(Arc::new(table), place, Vec::new())
    }

    #[test]
    fn a_view_moves_to_later_versions_of_its_table_only() {
        let (old, new) = (encoder(&["id"]), encoder(&["id", "n"]));
        let showing = |encoder: &Encoder, since| Views {
            shown: [("t".to_owned(), Description::of(&encoder.table, since))].into_iter().collect(),
            ..Views::none()
        };
        assert!(Views::none().is_due(&old, 1));
        assert!(showing(&old, 10).is_due(&new, 20));
        assert!(!showing(&new, 20).is_due(&old, 10), "a replay");
        assert!(!showing(&new, 20).is_due(&new, 30), "it shows that already");
    }
}
