//! A plugin's answer into host rows: checked whole, which only reads them, then applied, because rows of an
//! answer that is refused are shown again, as they were.

use std::mem;

use crate::change::{Cell, Changes, Value};
use crate::plugin::boundary::columns::number;
use crate::plugin::boundary::plan::{Kind, Plan, Want};
use crate::plugin::boundary::rewrite::Rewritten;
use crate::plugin::boundary::values::{
    Item, check_values, item, misfit, push_item, text_bytes, unfit, write_native,
};
use crate::plugin::guest::bindings::types::{Edit, Fault, Patch, RowKeys, ValuesResult};
use crate::table::Column;

/// What an answer says of its rows, once it is known to be sound.
#[derive(Debug, Default)]
pub(crate) struct Verdicts {
    /// New values of rows, whose columns and rows are known to be there.
    pub(crate) edits: Vec<Edit>,
    /// Rows that are not in the copy, ascending.
    pub(crate) discard: Vec<u32>,
    /// Rows that say nothing new, ascending.
    pub(crate) duplicates: Vec<u32>,
    /// Rows that failed, ascending, one fault each.
    pub(crate) faults: Vec<Fault>,
    /// Where rows go and what they look like, if the plugin is one that says so.
    pub(crate) rewritten: Rewritten,
    /// Text that will go into the batch, at most.
    pub(crate) bytes: usize,
}

impl Verdicts {
    /// Whether a row failed.
    pub(crate) fn failed(&self, row: u32) -> bool {
        self.faults.binary_search_by_key(&row, |fault| fault.row).is_ok()
    }
}

/// What is known of an answer beside its patch.
#[derive(Debug)]
pub(crate) struct Beside {
    /// Rows to which a value was given that its column cannot hold.
    pub(crate) unfit: Unfit,
    /// Text that will go into the batch.
    pub(crate) bytes: usize,
}

impl Beside {
    /// Of an answer about so many rows that has nothing beside its patch.
    pub(crate) fn of(rows: usize) -> Beside {
        let unfit = Unfit { rows, known: Vec::new(), faults: Vec::new() };
        Beside { unfit, bytes: 0 }
    }
}

/// Rows to which an answer gives values that their columns cannot hold. One fault a row is kept, however
/// often the answer names it.
#[derive(Debug)]
pub(crate) struct Unfit {
    rows: usize,
    /// Empty before the first one.
    known: Vec<bool>,
    faults: Vec<Fault>,
}

impl Unfit {
    pub(super) fn note(&mut self, row: u32, why: &str, column: &Column) {
        self.known.resize(self.rows, false);
        if !mem::replace(&mut self.known[row as usize], true) {
            self.faults.push(unfit(row, why, column));
        }
    }
}

/// Checks a patch; `rows` index `changes.list`. The error says what is malformed.
pub(crate) fn check(
    plan: &Plan,
    changes: &Changes,
    rows: &[u32],
    patch: Patch,
    beside: Beside,
) -> Result<Verdicts, String> {
    check_ascending("discard", patch.discard.iter().copied(), rows.len())?;
    check_ascending("faults", patch.faults.iter().map(|fault| fault.row), rows.len())?;
    let Beside { mut unfit, mut bytes } = beside;
    for edit in &patch.edits {
        let want = wanted(plan, edit)?;
        check_edit(edit, rows.len())?;
        bytes = bytes.saturating_add(text_bytes(&edit.values));
        find_unfit(want, changes, rows, edit, &mut unfit);
    }
    let mut faults = patch.faults;
    faults.extend(unfit.faults);
    faults.sort_by_key(|fault| fault.row);
    faults.dedup_by_key(|fault| fault.row);
    let Patch { edits, discard, .. } = patch;
    Ok(Verdicts { edits, discard, faults, bytes, ..Verdicts::default() })
}

/// Refuses an answer that holds more text than there is room for.
pub(crate) fn check_room(verdicts: Verdicts, room: usize) -> Result<Verdicts, String> {
    match verdicts.bytes > room {
        true => Err("the batch would hold more than 4 GiB".to_owned()),
        false => Ok(verdicts),
    }
}

/// Writes new values into the rows that did not fail; the plan is the one that the answer was checked
/// against.
pub(crate) fn apply(plan: &Plan, changes: &mut Changes, rows: &[u32], verdicts: &Verdicts) {
    for edit in &verdicts.edits {
        let want = &plan.wants[edit.column as usize];
        apply_edit(want, changes, rows, edit, verdicts);
    }
}

/// Checks the answer of a dedup plugin and hands each row's key to `each`; rows at fault have none.
pub(crate) fn each_key(
    rows: usize,
    keys: &RowKeys,
    mut each: impl FnMut(usize, Option<&[u8]>),
) -> Result<(), String> {
    check_ascending("faults", keys.faults.iter().map(|fault| fault.row), rows)?;
    check_values(&keys.values, rows)?;
    let mut faults = keys.faults.iter().map(|fault| fault.row as usize).peekable();
    let mut text = Vec::new();
    for row in 0..rows {
        if faults.next_if_eq(&row).is_some() {
            continue;
        }
        match item(&keys.values, row) {
            Item::Null => each(row, None),
            Item::Text(key) => each(row, Some(key)),
            native => {
                text.clear();
                write_native(native, false, &mut text);
                each(row, Some(&text));
            }
        }
    }
    Ok(())
}

fn wanted<'a>(plan: &'a Plan, edit: &Edit) -> Result<&'a Want, String> {
    plan.wants
        .get(edit.column as usize)
        .ok_or_else(|| format!("an edit of column {} of {}", edit.column, plan.wants.len()))
}

/// Refuses rows that do not ascend, each named once, below `count`.
pub(super) fn check_ascending(
    what: &str,
    rows: impl Iterator<Item = u32>,
    count: usize,
) -> Result<(), String> {
    check_order(what, rows, count, 1)
}

/// As [`check_ascending`], for rows of which each may be named several times.
pub(super) fn check_not_descending(
    what: &str,
    rows: impl Iterator<Item = u32>,
    count: usize,
) -> Result<(), String> {
    check_order(what, rows, count, 0)
}

fn check_order(
    what: &str,
    rows: impl Iterator<Item = u32>,
    count: usize,
    apart: u32,
) -> Result<(), String> {
    let mut least = 0;
    for row in rows {
        if row < least || row as usize >= count {
            return Err(format!("{what}: row {row} is not ascending below {count}"));
        }
        least = row + apart;
    }
    Ok(())
}

fn check_edit(edit: &Edit, count: usize) -> Result<(), String> {
    let Some(rows) = &edit.rows else {
        return check_values(&edit.values, count);
    };
    check_ascending("edit", rows.iter().copied(), count)?;
    check_values(&edit.values, rows.len())
}

/// The rows an edit names, with the number of each one's value.
fn edited(edit: &Edit, count: usize) -> impl Iterator<Item = (usize, usize)> + '_ {
    let named = edit.rows.as_ref();
    let len = named.map_or(count, Vec::len);
    (0..len).map(move |index| (index, named.map_or(index, |rows| rows[index] as usize)))
}

/// Finds rows whose new value its column cannot hold.
fn find_unfit(want: &Want, changes: &Changes, rows: &[u32], edit: &Edit, unfit: &mut Unfit) {
    let text = matches!(edit.values, ValuesResult::Packed(_) | ValuesResult::Strings(_));
    if want.kind == Kind::Text && want.nullable && text {
        return;
    }
    for (index, row) in edited(edit, rows.len()) {
        let change = &changes.list[rows[row] as usize];
        let before = want.value(changes, change);
        let nullable = want.nullable || !matches!(before, Value::Text(_));
        if let Some(why) = misfit(item(&edit.values, index), want.kind, nullable) {
            let column = &changes.table(change).columns[want.column];
            unfit.note(number(row), why, column);
        }
    }
}

fn apply_edit(want: &Want, changes: &mut Changes, rows: &[u32], edit: &Edit, verdicts: &Verdicts) {
    let packed = match &edit.values {
        ValuesResult::Packed(packed) => Some((packed, changes.push_buffer(&packed.data))),
        _ => None,
    };
    for (index, row) in edited(edit, rows.len()) {
        let target = want.row(&changes.list[rows[row] as usize]);
        let Some(target) = target.filter(|_| !verdicts.failed(number(row))) else { continue };
        let cell = match (item(&edit.values, index), packed) {
            (Item::Null, _) if changes.value(target, want.column) == Value::Unchanged => continue,
            (Item::Text(value), Some((packed, start))) => {
                let len = number(value.len());
                Cell::text(start + packed.ends[index] - len, len)
            }
            (item, _) => push_item(changes, item, want.kind),
        };
        changes.set_cell(target, want.column, cell);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::ColumnType;

    #[test]
    fn of_a_row_that_is_named_again_and_again_one_fault_is_kept() {
        let column = Column::new("name", ColumnType::Text, "text");
        let Beside { mut unfit, .. } = Beside::of(3);
        (0..1000).for_each(|_| unfit.note(2, "NULL", &column));
        unfit.note(0, "NULL", &column);
        assert_eq!(unfit.faults.iter().map(|fault| fault.row).collect::<Vec<_>>(), [2, 0]);
        assert_eq!(unfit.faults[0].message, "it gave NULL to name, a text");
    }
}
