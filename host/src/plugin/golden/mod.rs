//! Golden events: what a plugin's author says it makes of which changes.
//!
//! A file of JSON lines lies beside the component. The first lines say how it is configured and what
//! tables look like; every other line is a change, and what has to become of it:
//!
//! ```text
//! {"config": {"columns": ["email"]}}
//! {"table": "public.users", "columns": [["id", "bigint"], ["email", "text"]], "key": ["id"]}
//! {"table": "public.users", "op": "c", "after": {"id": "1", "email": "ann@x.org"},
//!  "expect": [{"table": "public.users", "op": "c", "after": {"id": "1", "email": "a***@x.org"}}]}
//! ```
//!
//! (one line each). Values are PostgreSQL's text form; a column that is left out of `after` was not
//! sent, one that is left out of `before` is NULL. Instead of `table`, `op`, `before` and `after` a
//! line may have `envelope`, a value of Debezium's, and `key`, its key. `expect` is the list of
//! changes that it becomes, or `{"fault": "a part of the reason"}`.

use std::fmt;
use std::sync::Arc;

use serde_json::{Map, Value as Json, json};

use crate::change::{Change, Changes, Old, Row, Value};
use crate::plugin::chain::Chain;
use crate::plugin::error::Error;
use crate::plugin::options::{OnError, Options};
use crate::plugin::versions::{Loader, Runtime};
use crate::table::{Column, Table};
use crate::telemetry::metrics::PluginKindLabels;

mod parse;

mod self_test;

mod cost;

mod outline;

pub use cost::Cost;
pub use outline::Outline;
pub use self_test::beside;
pub(crate) use self_test::self_test;

/// A file of golden events.
#[derive(Debug)]
pub struct Golden {
    config: toml::Table,
    /// Every version of a table that it describes, in its order.
    tables: Vec<Arc<Table>>,
    changes: Changes,
    /// What is expected of each change; none: whatever comes.
    expected: Vec<Option<Json>>,
}

/// What a plugin made of golden events.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GoldenReport {
    /// How many events there are.
    pub events: usize,
    /// Those that became something else.
    pub differences: Vec<Difference>,
    /// How many calls did not come to their end: it trapped, or ran out of time or memory.
    pub cut_off: u64,
}

/// An event that became something else.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// Which event, counted from 1.
    pub event: usize,
    /// What was expected.
    pub expected: Json,
    /// What came.
    pub actual: Json,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "event {}", self.event)?;
        let lines = |value: &Json| match value {
            Json::Array(changes) => changes.iter().map(Json::to_string).collect(),
            other => vec![other.to_string()],
        };
        let (expected, actual) = (lines(&self.expected), lines(&self.actual));
        let missing = expected.iter().filter(|line| !actual.contains(line)).collect::<Vec<_>>();
        let new = actual.iter().filter(|line| !expected.contains(line)).collect::<Vec<_>>();
        // The same changes, but not as often, or in another order.
        let whole = missing.is_empty() && new.is_empty();
        let (missing, new) = match whole {
            true => (expected.iter().collect(), actual.iter().collect()),
            false => (missing, new),
        };
        missing.iter().try_for_each(|line| writeln!(f, "  - {line}"))?;
        new.iter().try_for_each(|line| writeln!(f, "  + {line}"))
    }
}

impl Golden {
    /// Runs a plugin over the events, configured as the file says. What a leg does about rows that
    /// fail is not asked: they may be what is expected.
    ///
    /// # Errors
    /// The plugin does not load.
    pub fn run(&self, runtime: &Runtime, options: &Options) -> Result<GoldenReport, Error> {
        self.run_on(self.loader(runtime, options))
    }

    /// [`run`](Self::run), of which nobody reads what the plugin logs.
    fn run_muted(&self, runtime: &Runtime, options: &Options) -> Result<GoldenReport, Error> {
        self.run_on(self.loader(runtime, options).muted())
    }

    fn run_on(&self, loader: Loader) -> Result<GoldenReport, Error> {
        let (plugin, metrics) = (loader.options.name.clone(), Arc::clone(&loader.metrics));
        let mut chain = Chain::offline(loader)?;
        let mut changes = self.changes.clone();
        let letters = chain.transform(&mut changes)?;
        let mut actual: Vec<Vec<Json>> = vec![Vec::new(); self.expected.len()];
        for change in &changes.list {
            actual[event(change.ordinal)].push(outcome(&changes, change));
        }
        let mut actual: Vec<Json> = actual.into_iter().map(Json::Array).collect();
        for letter in letters {
            actual[event(letter.position.ordinal)] = json!({ "fault": letter.reason });
        }
        let pairs = self.expected.iter().zip(actual).enumerate();
        let differences = pairs.filter_map(|(index, (expected, actual))| {
            let expected = expected.clone()?;
            let difference = Difference { event: index + 1, expected, actual };
            (!difference.is_none()).then_some(difference)
        });
        let differences = differences.collect();
        let faults = |kind| {
            let labels = PluginKindLabels { plugin: plugin.clone(), kind };
            metrics.plugin_faults.get_or_create(&labels).get()
        };
        let cut_off = ["trap", "deadline", "memory"].into_iter().map(faults).sum();
        Ok(GoldenReport { events: self.expected.len(), differences, cut_off })
    }

    fn loader(&self, runtime: &Runtime, options: &Options) -> Loader {
        Loader::new(runtime.clone(), self.configured(options), Arc::default())
    }

    /// A section of the configuration, with the `config` that the events are for. A failure is an
    /// outcome like others, however many there are.
    fn configured(&self, options: &Options) -> Options {
        Options {
            tables: Vec::new(),
            on_error: OnError::DeadLetter,
            breaker_rows: 0,
            shadow_batches: 0,
            config: self.config.clone(),
            ..options.clone()
        }
    }

    /// There is no event in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.expected.is_empty()
    }
}

impl Difference {
    fn is_none(&self) -> bool {
        match (self.expected["fault"].as_str(), self.actual["fault"].as_str()) {
            (Some(part), Some(reason)) => reason.contains(part),
            _ => self.expected == self.actual,
        }
    }
}

fn event(ordinal: u64) -> usize {
    usize::try_from(ordinal).expect("few events") - 1
}

/// A change as `expect` has it; a `before` of which only the key is known holds nothing else.
fn outcome(changes: &Changes, change: &Change) -> Json {
    let table = changes.table(change);
    let cells = |row: Row, keys_only: bool| {
        let columns = table.columns.iter().enumerate();
        let cell = |(index, column): (usize, &Column)| match changes.value(row, index) {
            _ if keys_only && !column.key => None,
            Value::Null => Some((column.name.clone(), Json::Null)),
            Value::Unchanged => None,
            Value::Text(text) => Some((column.name.clone(), String::from_utf8_lossy(text).into())),
        };
        Json::Object(columns.filter_map(cell).collect())
    };
    let mut outcome = Map::new();
    outcome.insert("table".to_owned(), table.full_name().to_string().into());
    outcome.insert("op".to_owned(), change.op.code().into());
    match change.old {
        Old::None => {}
        Old::Key(row) => drop(outcome.insert("before".to_owned(), cells(row, true))),
        Old::Full(row) => drop(outcome.insert("before".to_owned(), cells(row, false))),
    }
    if let Some(row) = change.new {
        outcome.insert("after".to_owned(), cells(row, false));
    }
    Json::Object(outcome)
}
