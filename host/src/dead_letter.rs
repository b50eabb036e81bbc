//! A change that could not be processed: kept whole, with the reason, so that it blocks nothing,
//! is never lost silently, and can be driven through again.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value as Json};

use crate::change::{Change, Changes, Row, Value};
use crate::position::Position;
use crate::table::Table;

/// The stage that gave up on the change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Stage {
    /// A plugin faulted.
    Transform,
    /// The change could not be read or written as a Kafka record.
    Encode,
    /// The change could not be written as a ClickHouse row.
    Store,
}

/// The plugin that faulted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PluginVersion {
    /// Name in the configuration.
    pub name: String,
    /// SHA-256 of the component, hex.
    pub digest: String,
}

/// A change that was set aside.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeadLetter {
    /// Where the change stands.
    pub position: Position,
    /// `schema.table`.
    pub table: String,
    /// Debezium's letter of the operation.
    pub op: String,
    /// The stage that gave up.
    pub stage: Stage,
    /// The plugin that faulted, if one did.
    pub plugin: Option<PluginVersion>,
    /// What went wrong; holds no row value.
    pub reason: String,
    /// The change as JSON: `{"before": {column: text|null}, "after": …}`, values in PostgreSQL's
    /// text form; a column that was not sent is left out.
    pub original: String,
}

impl DeadLetter {
    /// Sets a change aside.
    #[must_use]
    pub fn new(
        changes: &Changes,
        change: &Change,
        stage: Stage,
        plugin: Option<PluginVersion>,
        reason: String,
    ) -> DeadLetter {
        let table = changes.table(change);
        let row = |row: Option<Row>| {
            row.map_or(Json::Null, |row| Json::Object(row_as_json(changes, table, row)))
        };
        let mut original = Map::new();
        original.insert("before".into(), row(change.old.row()));
        original.insert("after".into(), row(change.new));
        DeadLetter {
            position: changes.position(change),
            table: table.full_name().to_string(),
            op: change.op.code().to_owned(),
            stage,
            plugin,
            reason,
            original: Json::Object(original).to_string(),
        }
    }
}

fn row_as_json(changes: &Changes, table: &Table, row: Row) -> Map<String, Json> {
    let cell = |index| match changes.value(row, index) {
        Value::Null => Some(Json::Null),
        Value::Unchanged => None,
        Value::Text(text) => Some(Json::String(String::from_utf8_lossy(text).into_owned())),
    };
    let columns = table.columns.iter().enumerate();
    columns.filter_map(|(index, column)| Some((column.name.clone(), cell(index)?))).collect()
}
