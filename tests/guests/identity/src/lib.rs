//! Changes nothing, in the ways there are to change nothing.

#![cfg(target_arch = "wasm32")]

use std::cell::RefCell;

use serde::Deserialize;
use tailwater_guest::bindings::transform::{self, Guest};
use tailwater_guest::types::{Batch, Edit, Form, Interest, Patch, Table, Values, Want};

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct Config {
    /// None: of no table.
    columns: Option<Vec<String>>,
    form: String,
    old: bool,
    headers: bool,
    /// Hands every value back as it came.
    echo: bool,
}

thread_local! {
    static CONFIG: RefCell<Config> = RefCell::default();
}

struct Identity;

impl Guest for Identity {
    fn init(config: String) -> Result<(), String> {
        let config = serde_json::from_str(&config).map_err(|error| error.to_string())?;
        CONFIG.set(config);
        Ok(())
    }

    fn subscribe(table: Table) -> Result<Option<Interest>, String> {
        CONFIG.with_borrow(|config| {
            let Some(columns) = &config.columns else { return Ok(None) };
            let form = match config.form.as_str() {
                "strings" => Form::Strings,
                "native" => Form::Native,
                _ => Form::Packed,
            };
            let want = |name: &String, old| Want { column: name.clone(), old, form };
            let present = || columns.iter().filter(|name| table.has(name));
            let mut wants: Vec<Want> = present().map(|name| want(name, false)).collect();
            if config.old {
                wants.extend(present().map(|name| want(name, true)));
            }
            let headers = config.headers;
            Ok(Some(Interest { columns: wants, ops: headers, positions: headers, times: headers }))
        })
    }

    fn process(batch: Batch) -> Result<Patch, String> {
        let echo = CONFIG.with_borrow(|config| config.echo);
        let columns = batch.columns.into_iter().zip(0..).filter(|_| echo);
        let edits = columns.map(|(column, index)| edit(index, column.values)).collect();
        Ok(Patch { discard: Vec::new(), edits, faults: Vec::new() })
    }
}

fn edit(column: u32, values: Values) -> Edit {
    Edit { column, rows: None, values }
}

#[cfg(target_family = "wasm")]
transform::export!(Identity with_types_in transform);
