//! What a plugin that reshapes made of a batch: checked whole, then carried out.
//!
//! A row goes to as many tables as it has routes, in the place of the change it was. Where it must
//! not be any more it is deleted, because an event that just vanished would leave it there for ever.

use std::collections::HashSet;
use std::sync::Arc;

use crate::change::{Cell, Change, Changes, Old, Op, Row};
use crate::plugin::boundary::columns::number;
use crate::plugin::boundary::fates::{Fates, deleted_row};
use crate::plugin::boundary::patch::{Beside, Verdicts, check_ascending, check_not_descending};
use crate::plugin::boundary::plan::Kind;
use crate::plugin::boundary::shape::{ROUTED_TABLES_MAX, Shape, Source, table_name};
use crate::plugin::boundary::values::{check_values, item, misfit, push_item, text_bytes};
use crate::plugin::guest::bindings::shapes::{AddedRows, Rewriting, Route};
use crate::plugin::guest::bindings::types::{ColumnValuesResult, Patch};
use crate::table::Table;

/// An answer that is sound, without its patch.
#[derive(Debug, Default)]
pub(crate) struct Rewritten {
    derived: Vec<ColumnValuesResult>,
    tables: Vec<Arc<Table>>,
    routes: Vec<Route>,
    added: Vec<AddedRows>,
}

/// Checks an answer; `rows` index `changes.list`. The error says what is malformed.
pub(crate) fn check(
    shape: &Shape,
    changes: &Changes,
    rows: &[u32],
    answer: Rewriting,
) -> Result<(Patch, Rewritten, Beside), String> {
    let Rewriting { patch, derived, tables, routes, added } = answer;
    let count = rows.len();
    let tables = tables.iter().map(|name| {
        let name = table_name(name)?;
        let routed = shape.routed(&name);
        routed.ok_or_else(|| format!("it routes to more than {ROUTED_TABLES_MAX} tables"))
    });
    let tables = tables.collect::<Result<Vec<_>, String>>()?;
    check_not_descending("routes", routes.iter().map(|route| route.row), count)?;
    if let Some(route) = routes.iter().find(|route| route.table as usize >= tables.len()) {
        return Err(format!("a route to table {} of {}", route.table, tables.len()));
    }
    let bytes = routed_bytes(shape, &tables, &routes)?;
    let mut beside = Beside { bytes, ..Beside::of(count) };
    if derived.len() != shape.derived {
        return Err(format!("{} derived columns of {}", derived.len(), shape.derived));
    }
    for (column, (kind, known)) in derived.iter().zip(shape.derived_columns()) {
        check_values(&column.values, count)?;
        let unchanged = column.unchanged.as_deref().unwrap_or_default();
        check_ascending("unchanged", unchanged.iter().copied(), count)?;
        beside.bytes = beside.bytes.saturating_add(text_bytes(&column.values));
        for (row, index) in rows.iter().enumerate() {
            let op = changes.list[*index as usize].op;
            if let Some(why) = unfit_derived(column, row, op, kind, known.nullable) {
                beside.unfit.note(number(row), why, known);
            }
        }
    }
    for rows in &added {
        check_added(shape, rows, count, &mut beside)?;
    }
    Ok((patch, Rewritten { derived, tables, routes, added }, beside))
}

fn is_unchanged(column: &ColumnValuesResult, row: usize) -> bool {
    let unchanged = column.unchanged.as_deref().unwrap_or_default();
    unchanged.binary_search(&number(row)).is_ok()
}

fn unfit_derived(
    column: &ColumnValuesResult,
    row: usize,
    op: Op,
    kind: Kind,
    nullable: bool,
) -> Option<&'static str> {
    if is_unchanged(column, row) {
        return (op != Op::Update).then_some("`unchanged`, though the row is no update,");
    }
    // Of a deleted row often only the key is known.
    misfit(item(&column.values, row), kind, nullable || op == Op::Delete)
}

fn check_added(
    shape: &Shape,
    rows: &AddedRows,
    count: usize,
    beside: &mut Beside,
) -> Result<(), String> {
    let table = shape.added.get(rows.table as usize);
    let table = table
        .ok_or_else(|| format!("rows for added table {} of {}", rows.table, shape.added.len()))?;
    check_not_descending("added rows", rows.origins.iter().copied(), count)?;
    if rows.columns.len() != table.columns.len() {
        let (given, known) = (rows.columns.len(), table.columns.len());
        return Err(format!("{given} columns for {}, which has {known}", table.full_name()));
    }
    for (values, column) in rows.columns.iter().zip(&table.columns) {
        check_values(values, rows.origins.len())?;
        beside.bytes = beside.bytes.saturating_add(text_bytes(values));
        if !column.key && !rows.present {
            continue;
        }
        let kind = Kind::of(&column.kind);
        for (index, origin) in rows.origins.iter().enumerate() {
            if let Some(why) = misfit(item(values, index), kind, column.nullable && !column.key) {
                beside.unfit.note(*origin, why, column);
            }
        }
    }
    Ok(())
}

/// Carries an answer out for all rows that did not fail.
pub(crate) fn carry_out(
    shape: &Shape,
    changes: &mut Changes,
    rows: &[u32],
    verdicts: &Verdicts,
    fates: &mut Fates,
) {
    let answer = &verdicts.rewritten;
    let failed = |row: u32| verdicts.failed(row);
    let mut routes = answer.routes.iter().peekable();
    for (row, index) in rows.iter().enumerate() {
        let number = number(row);
        let mut own: Vec<&Route> = Vec::new();
        while let Some(route) = routes.next_if(|route| route.row == number) {
            own.push(route);
        }
        if failed(number) {
            continue;
        }
        let discarded = verdicts.discard.binary_search(&number).is_ok();
        let places = places(shape, answer, changes.list[*index as usize].op, discarded, &own);
        reshape_row(shape, changes, *index, row, &answer.derived);
        place(changes, *index, &places, fates);
    }
    for rows_of_table in &answer.added {
        add_rows(shape, changes, rows, rows_of_table, &failed, fates);
    }
}

/// Where a row is, and where it is not, from now on.
fn places<'a>(
    shape: &'a Shape,
    answer: &'a Rewritten,
    op: Op,
    discarded: bool,
    routes: &[&Route],
) -> Vec<(&'a Arc<Table>, bool)> {
    let own = shape.stays.then_some(&shape.table);
    if discarded {
        return own.into_iter().chain(&shape.homes).map(|table| (table, false)).collect();
    }
    if !routes.is_empty() {
        let place = |route: &&Route| (&answer.tables[route.table as usize], route.present);
        return routes.iter().map(place).collect();
    }
    let homes = shape.homes.iter().filter(|_| op == Op::Delete);
    own.into_iter().chain(homes).map(|table| (table, true)).collect()
}

/// Gives a change's rows the columns of the shaped table.
fn reshape_row(
    shape: &Shape,
    changes: &mut Changes,
    index: u32,
    row: usize,
    derived: &[ColumnValuesResult],
) {
    let change = changes.list[index as usize];
    if Arc::ptr_eq(changes.table(&change), &shape.table) {
        return;
    }
    let cells: Vec<Cell> = derived
        .iter()
        .zip(shape.derived_columns())
        .map(|(column, (kind, _))| match is_unchanged(column, row) {
            true => Cell::UNCHANGED,
            false => push_item(changes, item(&column.values, row), kind),
        })
        .collect();
    let mut map = |row: Row, cell: &dyn Fn(usize) -> Cell| {
        let mapped = changes.begin_row();
        for source in &shape.sources {
            let cell = match source {
                Source::Column(column) => changes.cell(row, *column),
                Source::Derived(derived) => cell(*derived),
            };
            changes.push_cell(cell);
        }
        mapped
    };
    let given = |derived: usize| cells[derived];
    let new = change.new.map(|row| map(row, &given));
    // What was derived of the row before is not told again.
    let old = match change.old {
        Old::None => Old::None,
        Old::Key(row) => Old::Key(map(row, &|_| Cell::NULL)),
        Old::Full(row) if new.is_none() => Old::Full(map(row, &given)),
        Old::Full(row) => Old::Full(map(row, &|_| Cell::UNCHANGED)),
    };
    let table = changes.intern_table(&shape.table);
    let shaped = &mut changes.list[index as usize];
    (shaped.table, shaped.old, shaped.new) = (table, old, new);
}

/// Bytes of the cells that rows with several routes are copied for; a row has one route to a table.
fn routed_bytes(shape: &Shape, tables: &[Arc<Table>], routes: &[Route]) -> Result<usize, String> {
    let mut copies = 0_usize;
    let mut there = HashSet::new();
    for routes in routes.chunk_by(|a, b| a.row == b.row) {
        there.clear();
        for Route { row, table, .. } in routes {
            let table = &tables[*table as usize];
            if !there.insert(table.fingerprint) {
                return Err(format!("row {row} has two routes to {}", table.full_name()));
            }
        }
        copies += routes.iter().filter(|route| route.present).count().saturating_sub(1);
    }
    Ok(copies.saturating_mul(shape.sources.len() * size_of::<Cell>()))
}

/// Puts a change that has its shape where it belongs.
fn place(changes: &mut Changes, index: u32, places: &[(&Arc<Table>, bool)], fates: &mut Fates) {
    let change = changes.list[index as usize];
    let mut is_taken = false;
    let placed: Vec<Change> = places
        .iter()
        .filter_map(|(table, present)| {
            let table = changes.intern_table(table);
            let there = Change { table, ..change };
            match present {
                true if std::mem::replace(&mut is_taken, true) => Some(apart(changes, there)),
                true => Some(there),
                false => absent(changes, there),
            }
        })
        .collect();
    match placed.split_first() {
        Some((first, others)) => {
            changes.list[index as usize] = *first;
            others.iter().for_each(|other| fates.add_after(index, *other));
        }
        None => fates.drop_row(index),
    }
    fates.note_new_tables();
}

/// The change with rows of its own: who edits it in one table leaves it alone in the others.
fn apart(changes: &mut Changes, change: Change) -> Change {
    let mut copy = |row| changes.copy_row(change.table, row);
    let old = match change.old {
        Old::None => Old::None,
        Old::Key(row) => Old::Key(copy(row)),
        Old::Full(row) => Old::Full(copy(row)),
    };
    Change { old, new: change.new.map(copy), ..change }
}

/// The delete of a change's row, where it may be.
fn absent(changes: &mut Changes, change: Change) -> Option<Change> {
    let known = deleted_row(&change, changes.table(&change).has_key())?;
    let key = changes.key_row(change.table, known);
    Some(Change { op: Op::Delete, old: Old::Key(key), new: None, ..change })
}

fn add_rows(
    shape: &Shape,
    changes: &mut Changes,
    rows: &[u32],
    added: &AddedRows,
    failed: &dyn Fn(u32) -> bool,
    fates: &mut Fates,
) {
    let table = &shape.added[added.table as usize];
    let interned = changes.intern_table(table);
    for (index, origin) in added.origins.iter().enumerate().filter(|(_, row)| !failed(**row)) {
        let cells: Vec<Cell> = added
            .columns
            .iter()
            .zip(&table.columns)
            .map(|(values, column)| match added.present || column.key {
                true => push_item(changes, item(values, index), Kind::of(&column.kind)),
                false => Cell::NULL,
            })
            .collect();
        let row = changes.begin_row();
        cells.into_iter().for_each(|cell| changes.push_cell(cell));
        let place = rows[*origin as usize];
        let lent = changes.list[place as usize];
        let (op, old, new) = match (added.present, lent.op) {
            (false, _) => (Op::Delete, Old::Key(row), None),
            (true, Op::Read) => (Op::Read, Old::None, Some(row)),
            (true, _) => (Op::Insert, Old::None, Some(row)),
        };
        fates.add_after(place, Change { op, table: interned, old, new, ..lent });
    }
    fates.note_new_tables();
}

/// A truncate empties the table wherever its rows may be.
pub(crate) fn truncate(shape: &Shape, changes: &mut Changes, index: u32, fates: &mut Fates) {
    let own = shape.stays.then_some(&shape.table);
    let places = own.into_iter().chain(&shape.homes).chain(&shape.added);
    let places: Vec<_> = places.map(|table| (table, true)).collect();
    place(changes, index, &places, fates);
}
