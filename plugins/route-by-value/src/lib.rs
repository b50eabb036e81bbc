//! Rows go to tables by what one of their columns holds: `public.users` with `region = eu` to
//! `eu.users`. A row whose value changes moves; one whose value is not listed stays where it was.

use std::collections::BTreeMap;

use serde::Deserialize;
use tailwater_guest::types::Op;
use tailwater_guest::{Interest, Reshape, Rewriter, Row, Shape, Table, Verdict, export_reshape};

/// Its settings.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The column.
    pub column: String,
    /// The schema of each value.
    pub schemas: BTreeMap<String, String>,
}

/// The plugin.
pub struct RouteByValue {
    config: Config,
    tables: BTreeMap<u32, Known>,
}

/// A table that it was asked about.
struct Known {
    schema: String,
    name: String,
    /// The other schemas in which its rows may be, each once.
    others: Vec<String>,
    /// The column is `character(n)`, whose blanks at the end do not count.
    padded: bool,
}

impl Reshape for RouteByValue {
    type Config = Config;

    fn new(config: Config) -> Result<Self, String> {
        if config.schemas.is_empty() {
            return Err("schemas names no value".to_owned());
        }
        Ok(RouteByValue { config, tables: BTreeMap::new() })
    }

    fn subscribe(&mut self, table: &Table) -> Result<Option<Interest>, String> {
        let mut others: Vec<String> = self.config.schemas.values().cloned().collect();
        others.sort();
        others.dedup();
        others.retain(|schema| *schema != table.schema);
        let (schema, name) = (table.schema.clone(), table.name.clone());
        let column = table.columns.iter().find(|column| column.name == self.config.column);
        let padded = column.is_some_and(|column| column.type_name.starts_with("character("));
        self.tables.insert(table.id, Known { schema, name, others, padded });
        Ok(table.has(&self.config.column).then(|| Interest::of([&self.config.column]).ops()))
    }

    fn reshape(&mut self, table: &Table) -> Result<Shape, String> {
        let others = self.tables[&table.id].others.iter();
        Ok(others.fold(Shape::default(), |shape, schema| shape.home(schema, &table.name)))
    }

    fn rewrite(&mut self, row: &mut Row<'_>, out: &mut Rewriter<'_>) -> Verdict {
        // Without a route, a delete goes to every home: often nothing but its key is known.
        if row.op() == Op::Delete {
            return Verdict::Keep;
        }
        let Known { schema: own, name, others, padded } = &self.tables[&row.table()];
        if row.is_unchanged(0) {
            return Verdict::Fault("the value that tells where it belongs was not sent".to_owned());
        }
        let home = row.text(0).and_then(|value| self.schema_of(value, *padded)).unwrap_or(own);
        // The row may have been anywhere before: the old value is known under FULL only.
        for schema in others.iter().chain([own]) {
            if schema != home {
                out.not_in(schema, name);
            }
        }
        out.route(home, name);
        Verdict::Keep
    }
}

impl RouteByValue {
    fn schema_of(&self, value: &str, padded: bool) -> Option<&String> {
        if !padded {
            return self.config.schemas.get(value);
        }
        let plain = |text: &str| text.trim_end_matches(' ').to_owned();
        let mut schemas = self.config.schemas.iter();
        schemas.find(|(known, _)| plain(known) == plain(value)).map(|(_, schema)| schema)
    }
}

export_reshape!(RouteByValue);
