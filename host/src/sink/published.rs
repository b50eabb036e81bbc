//! The views: which version of its table each one shows, and what the HTTP interface is told.
//!
//! A view's comment says which source table it shows, with what key, and since which change its
//! columns are as they are. So the description is replaced together with the view, and whoever
//! connects finds the tables of earlier runs too.
//!
//! A view only ever moves to a later version of its table. Changes from before a schema change come
//! again after a crash, and from the slower of two partitions; they are stored, and the view stays.

use rustc_hash::FxHashMap;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::block::Encoder;
use super::client::Client;
use super::error::Error;
use super::names::literal;
use crate::serve::{Mirrored, MirroredColumn};
use crate::table::Table;

/// A view's comment, in JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Description {
    source: String,
    key: Vec<String>,
    /// The table version's fingerprint.
    table: String,
    /// The first change seen of that table version, 0 before any was.
    since: String,
}

impl Description {
    fn of(table: &Table, since: u128) -> Description {
        Description {
            source: table.full_name().to_string(),
            key: table.key().map(|index| table.columns[index].name.clone()).collect(),
            table: format!("{:016x}", table.fingerprint),
            since: since.to_string(),
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
    published: watch::Sender<Vec<Mirrored>>,
}

impl Views {
    /// The views that are there.
    pub(super) async fn find(client: &Client) -> Result<Views, Error> {
        let mut views = Views { shown: FxHashMap::default(), published: watch::Sender::default() };
        views.refresh(client).await?;
        Ok(views)
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

    /// Makes a view that shows this table version.
    pub(super) async fn show(
        &self,
        client: &Client,
        encoder: &Encoder,
        since: u128,
    ) -> Result<(), Error> {
        let (view, table) = (&encoder.place.plan.view, &encoder.table);
        let comment = serde_json::to_string(&Description::of(table, since));
        let comment = comment.expect("names and numbers are plain text");
        let sql = encoder.place.create_view(&encoder.stored, &comment);
        client.execute(&format!("create the view `{view}`"), &sql).await
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
            if let Ok(description) = serde_json::from_str::<Description>(&view.comment) {
                tables.push(mirrored(&view, &description));
                self.shown.insert(view.name, description);
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

fn mirrored(view: &FoundView, description: &Description) -> Mirrored {
    let columns = view.columns.iter().cloned();
    let columns = columns.map(|(name, kind)| MirroredColumn { name, kind });
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
    use crate::table::{Column, ColumnType, ReplicaIdentity};

    fn encoder(columns: &[&str]) -> Encoder {
        let column = |name: &&str| Column {
            name: (*name).into(),
            kind: ColumnType::Int4,
            type_name: "integer".into(),
            nullable: false,
            key: *name == "id",
            default: None,
            number: None,
            missing: None,
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
            published: watch::Sender::default(),
        };
        let empty = Views { shown: FxHashMap::default(), published: watch::Sender::default() };
        assert!(empty.is_due(&old, 1));
        assert!(showing(&old, 10).is_due(&new, 20));
        assert!(!showing(&new, 20).is_due(&old, 10), "a replay");
        assert!(!showing(&new, 20).is_due(&new, 30), "it shows that already");
    }
}
