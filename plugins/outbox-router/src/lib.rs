//! The transactional outbox: a service writes an event in the transaction that it tells of, and each
//! event goes to the topic of its kind, keyed by what it is about, so that events of one aggregate
//! keep their order. The outbox itself goes nowhere, nor do updates that mark an event, or deletes that tidy up.

use serde::Deserialize;
use tailwater_guest::types::Op;
use tailwater_guest::{Interest, Reshape, Rewriter, Row, Shape, Table, Verdict, export_reshape};

/// Column names as Debezium's outbox router has them.
/// Its settings.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Holds the kind of what the event is about, which names the topic.
    pub route_by: String,
    /// Holds which one it is about.
    pub key: String,
    /// Schema of the tables that events go to: topics are `<prefix>.<schema>.<kind>`.
    pub schema: String,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            route_by: "aggregatetype".to_owned(),
            key: "aggregateid".to_owned(),
            schema: "outbox".to_owned(),
        }
    }
}

/// The plugin.
pub struct OutboxRouter(Config);

impl Reshape for OutboxRouter {
    type Config = Config;

    fn new(config: Config) -> Result<Self, String> {
        Ok(OutboxRouter(config))
    }

    fn subscribe(&mut self, table: &Table) -> Result<Option<Interest>, String> {
        let Config { route_by, key, .. } = &self.0;
        if !table.has(route_by) {
            return Ok(None);
        }
        if !table.has(key) {
            return Err(format!("it has {route_by} but no {key}"));
        }
        Ok(Some(Interest::of([route_by]).ops()))
    }

    fn reshape(&mut self, _: &Table) -> Result<Shape, String> {
        Ok(Shape::default().routed_only().message_key([&self.0.key]))
    }

    fn rewrite(&mut self, row: &mut Row<'_>, out: &mut Rewriter<'_>) -> Verdict {
        match (row.op(), row.text(0)) {
            (Op::Update | Op::Delete, _) => Verdict::Discard,
            (_, Some(kind)) if !kind.is_empty() => {
                out.route(&self.0.schema, kind);
                Verdict::Keep
            }
            _ => Verdict::Fault("the event does not say what kind it is of".to_owned()),
        }
    }
}

export_reshape!(OutboxRouter);
