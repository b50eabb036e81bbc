//! Adds the words of a column as rows of a table, or answers what does not fit.

#![cfg(target_arch = "wasm32")]

use std::cell::RefCell;

use serde::Deserialize;
use tailwater_guest::bindings::reshape::{self, Guest};
use tailwater_guest::shapes::{
    AddedRows, NewColumn, NewTable, Rename, Rewriting, Route, Shape, TableName,
};
use tailwater_guest::types::{Batch, ColumnValues, Form, Interest, Op, Patch, Table, Values, Want};

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct Config {
    deed: String,
}

thread_local! {
    static CONFIG: RefCell<Config> = RefCell::default();
}

struct Reshaper;

fn deed(deed: &str) -> bool {
    CONFIG.with_borrow(|config| config.deed == deed)
}

fn column(name: &str, type_name: &str, key: bool) -> NewColumn {
    NewColumn { name: name.into(), type_name: type_name.into(), nullable: !key, key }
}

fn words() -> NewTable {
    let key = !deed("keyless");
    let columns = vec![
        column("id", "bigint", key),
        column("place", "integer", key),
        column("word", "text", false),
    ];
    NewTable { name: TableName { schema: "public".into(), name: "words".into() }, columns }
}

impl Guest for Reshaper {
    fn init(config: String) -> Result<(), String> {
        CONFIG.set(serde_json::from_str(&config).map_err(|error| error.to_string())?);
        Ok(())
    }

    fn subscribe(_: Table) -> Result<Option<Interest>, String> {
        let want = |name: &str| Want { column: name.into(), old: false, form: Form::Strings };
        let columns = vec![want("id"), want("profile")];
        Ok(Some(Interest { columns, ops: true, positions: false, times: false }))
    }

    fn reshape(_: Table) -> Result<Shape, String> {
        let mut shape = Shape {
            drops: Vec::new(),
            renames: Vec::new(),
            derives: Vec::new(),
            message_key: Vec::new(),
            stays: true,
            homes: Vec::new(),
            tables: vec![words()],
        };
        CONFIG.with_borrow(|config| match config.deed.as_str() {
            "drop-key" => shape.drops.push("id".into()),
            "drop-unknown" => shape.drops.push("nowhere".into()),
            "many-homes" => {
                let home = |index| TableName { schema: "s".into(), name: format!("t{index}") };
                shape.homes.extend((0..1000).map(home));
            }
            "wide" => {
                shape.derives.extend((0..3200).map(|at| column(&format!("c{at}"), "text", false)))
            }
            "deep" => shape.derives.push(column("note", &format!("text{}", "[]".repeat(9)), false)),
            "clash" => shape.renames.push(Rename { column: "profile".into(), to: "region".into() }),
            "derived-key" => shape.derives.push(column("note", "text", true)),
            "message-key" => shape.message_key.push("gone".into()),
            "own-home" => {
                shape.homes.push(TableName { schema: "public".into(), name: "people".into() });
            }
            "nameless-home" => {
                shape.homes.push(TableName { schema: "public".into(), name: String::new() });
            }
            "reserved" => shape.derives.push(column("_version", "text", false)),
            "unsent-columns" | "not-an-update" => shape.derives.push(column("note", "text", false)),
            _ => {}
        });
        Ok(shape)
    }

    fn rewrite(batch: Batch) -> Result<Rewriting, String> {
        let mut answer = Rewriting {
            patch: Patch { discard: Vec::new(), edits: Vec::new(), faults: Vec::new() },
            derived: Vec::new(),
            tables: Vec::new(),
            routes: Vec::new(),
            added: added(&batch),
        };
        let rows = batch.rows as usize;
        CONFIG.with_borrow(|config| match config.deed.as_str() {
            "bad-route" => answer.routes.push(Route { row: 0, table: 7, present: true }),
            "route-twice" => {
                let name = || TableName { schema: "s".into(), name: "t".into() };
                answer.tables = vec![name(), name()];
                let route = |table| Route { row: 0, table, present: true };
                answer.routes = vec![route(0), route(1)];
            }
            "bad-added" => answer.added.iter_mut().for_each(|rows| rows.table = 7),
            "narrow" => answer.added.iter_mut().for_each(|rows| drop(rows.columns.pop())),
            "bad-origin" => answer.added.iter_mut().for_each(|rows| rows.origins[0] = 99),
            "many-tables" => {
                let name = |index| TableName { schema: "s".into(), name: format!("t{index}") };
                answer.tables = (0..1001).map(name).collect();
            }
            "not-an-update" => answer.derived.push(ColumnValues {
                values: Values::Strings(vec![None; rows]),
                unchanged: Some((0..batch.rows).collect()),
            }),
            _ => {}
        });
        Ok(answer)
    }
}

fn added(batch: &Batch) -> Vec<AddedRows> {
    let (Values::Strings(ids), Values::Strings(texts)) =
        (&batch.columns[0].values, &batch.columns[1].values)
    else {
        panic!("asked for strings")
    };
    let ops = batch.ops.as_ref().expect("asked for");
    let mut groups = vec![];
    for present in [true, false] {
        let (mut origins, mut columns) = (Vec::new(), [const { Vec::new() }; 3]);
        for (row, op) in (0..).zip(ops) {
            let text = texts[row as usize].as_deref().unwrap_or("gone");
            if (*op == Op::Delete) == present {
                continue;
            }
            for (place, word) in text.split(' ').enumerate() {
                origins.push(row);
                columns[0].push(ids[row as usize].clone());
                columns[1].push(Some(place.to_string()));
                columns[2].push(Some(word.to_owned()));
            }
        }
        let columns = columns.into_iter().map(Values::Strings).collect();
        groups.push(AddedRows { table: 0, origins, present, columns });
    }
    groups.retain(|group| !group.origins.is_empty());
    groups
}

#[cfg(target_family = "wasm")]
reshape::export!(Reshaper with_types_in reshape);
