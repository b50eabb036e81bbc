//! A plugin's answer into host rows: checked whole, which only reads them, then applied.

use std::io::Write;

use crate::change::{Cell, Changes, Row, Value};
use crate::plugin::bindings::types::{Edit, Fault, Patch, RowKeys, ValuesResult};
use crate::plugin::convert::{Kind, Plan, Want, fits, number};
use crate::plugin::rewrite::Rewritten;

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
#[derive(Debug, Default)]
pub(crate) struct Beside {
    /// Further rows at fault.
    pub(crate) faults: Vec<Fault>,
    /// Text that will go into the batch.
    pub(crate) bytes: usize,
}

/// One value of an answer.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Item<'a> {
    Null,
    Text(&'a [u8]),
    Integer(i64),
    Float(f64),
    Boolean(bool),
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
    let mut faults = patch.faults;
    faults.extend(beside.faults);
    let mut bytes = beside.bytes;
    for edit in &patch.edits {
        let want = wanted(plan, edit)?;
        check_edit(edit, rows.len())?;
        bytes = bytes.saturating_add(text_bytes(&edit.values));
        find_unfit(want, changes, rows, edit, &mut faults);
    }
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
        apply_edit(want, changes, rows, edit, &verdicts.faults);
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

pub(crate) fn check_ascending(
    what: &str,
    rows: impl Iterator<Item = u32>,
    count: usize,
) -> Result<(), String> {
    let mut least = 0;
    for row in rows {
        if row < least || row as usize >= count {
            return Err(format!("{what}: row {row} is not ascending below {count}"));
        }
        least = row + 1;
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

pub(crate) fn check_values(values: &ValuesResult, count: usize) -> Result<(), String> {
    let (len, nulls) = match values {
        ValuesResult::Strings(items) => (items.len(), None),
        ValuesResult::Packed(packed) => {
            check_packed(&packed.ends, &packed.data)?;
            (packed.ends.len(), packed.nulls.as_ref())
        }
        ValuesResult::Integers(column) => (column.items.len(), column.nulls.as_ref()),
        ValuesResult::Floats(column) => (column.items.len(), column.nulls.as_ref()),
        ValuesResult::Booleans(column) => (column.items.len(), column.nulls.as_ref()),
    };
    if len != count {
        return Err(format!("{len} values for {count} rows"));
    }
    match nulls {
        Some(bits) if bits.len() != count.div_ceil(8) => {
            Err(format!("{} bytes of nulls for {count} rows", bits.len()))
        }
        _ => Ok(()),
    }
}

fn check_packed(ends: &[u32], data: &[u8]) -> Result<(), String> {
    let text = std::str::from_utf8(data).map_err(|_| "packed data is not UTF-8")?;
    let mut start = 0;
    for end in ends {
        if *end < start || !text.is_char_boundary(*end as usize) {
            return Err(format!("end {end} is not ascending, inside the data, or at a character"));
        }
        start = *end;
    }
    if start as usize != data.len() {
        return Err(format!("{} bytes of packed data, the last end is {start}", data.len()));
    }
    Ok(())
}

pub(crate) fn text_bytes(values: &ValuesResult) -> usize {
    match values {
        ValuesResult::Strings(items) => items.iter().flatten().map(String::len).sum(),
        ValuesResult::Packed(packed) => packed.data.len(),
        // The longest number is a double of 24 characters.
        ValuesResult::Integers(column) => column.items.len() * 20,
        ValuesResult::Floats(column) => column.items.len() * 25,
        ValuesResult::Booleans(column) => column.items.len(),
    }
}

pub(crate) fn item(values: &ValuesResult, index: usize) -> Item<'_> {
    let null = |nulls: &Option<Vec<u8>>| {
        nulls.as_ref().is_some_and(|bits| bits[index >> 3] & (1 << (index & 7)) != 0)
    };
    match values {
        ValuesResult::Strings(items) => {
            items[index].as_ref().map_or(Item::Null, |text| Item::Text(text.as_bytes()))
        }
        ValuesResult::Packed(packed) if !null(&packed.nulls) => {
            let start = index.checked_sub(1).map_or(0, |before| packed.ends[before]);
            Item::Text(&packed.data[start as usize..packed.ends[index] as usize])
        }
        ValuesResult::Integers(column) if !null(&column.nulls) => {
            Item::Integer(column.items[index])
        }
        ValuesResult::Floats(column) if !null(&column.nulls) => Item::Float(column.items[index]),
        ValuesResult::Booleans(column) if !null(&column.nulls) => {
            Item::Boolean(column.items[index])
        }
        _ => Item::Null,
    }
}

/// The rows an edit names, with the number of each one's value.
fn edited(edit: &Edit, count: usize) -> impl Iterator<Item = (usize, usize)> + '_ {
    let named = edit.rows.as_ref();
    let len = named.map_or(count, Vec::len);
    (0..len).map(move |index| (index, named.map_or(index, |rows| rows[index] as usize)))
}

/// Finds rows whose new value its column cannot hold.
fn find_unfit(want: &Want, changes: &Changes, rows: &[u32], edit: &Edit, faults: &mut Vec<Fault>) {
    let text = matches!(edit.values, ValuesResult::Packed(_) | ValuesResult::Strings(_));
    if want.kind == Kind::Text && want.nullable && text {
        return;
    }
    for (index, row) in edited(edit, rows.len()) {
        let change = &changes.list[rows[row] as usize];
        let before = want.value(changes, change);
        if let Some(why) = unfit(want, item(&edit.values, index), before) {
            let column = &changes.table(change).columns[want.column];
            let message = format!("it gave {why} to {}, a {}", column.name, column.type_name);
            faults.push(Fault { row: number(row), message, retryable: false });
        }
    }
}

fn unfit(want: &Want, item: Item<'_>, before: Value<'_>) -> Option<&'static str> {
    let nullable = want.nullable || !matches!(before, Value::Text(_));
    misfit(item, want.kind, nullable)
}

/// Why a column of that kind cannot hold a value.
pub(crate) fn misfit(item: Item<'_>, kind: Kind, nullable: bool) -> Option<&'static str> {
    let why = match (item, kind) {
        (Item::Null, _) if nullable => return None,
        (Item::Null, _) => "NULL where none may be",
        (Item::Text(text), kind) if fits(kind, text) => return None,
        (Item::Integer(item), Kind::Integer { min, max }) if (min..=max).contains(&item) => {
            return None;
        }
        (Item::Float(_), Kind::Float { .. }) | (Item::Boolean(_), Kind::Boolean) => return None,
        _ => "a value that its type cannot hold",
    };
    Some(why)
}

fn apply_edit(want: &Want, changes: &mut Changes, rows: &[u32], edit: &Edit, faults: &[Fault]) {
    let target = |changes: &Changes, row: usize| -> Option<Row> {
        let failed = faults.binary_search_by_key(&number(row), |fault| fault.row).is_ok();
        want.row(&changes.list[rows[row] as usize]).filter(|_| !failed)
    };
    let packed = match &edit.values {
        ValuesResult::Packed(packed) => Some((packed, changes.push_buffer(&packed.data))),
        _ => None,
    };
    let mut text = Vec::new();
    for (index, row) in edited(edit, rows.len()) {
        let Some(target) = target(changes, row) else { continue };
        let cell = match item(&edit.values, index) {
            Item::Null if changes.value(target, want.column) == Value::Unchanged => continue,
            Item::Null => Cell::NULL,
            Item::Text(value) => match packed {
                Some((packed, start)) => {
                    let len = number(value.len());
                    Cell::text(start + packed.ends[index] - len, len)
                }
                None => changes.push_text(value),
            },
            native => {
                text.clear();
                write_native(native, want.kind == Kind::Float { single: true }, &mut text);
                changes.push_text(&text)
            }
        };
        changes.set_cell(target, want.column, cell);
    }
}

/// A cell of a value that its column can hold.
pub(crate) fn push_item(changes: &mut Changes, item: Item<'_>, kind: Kind) -> Cell {
    match item {
        Item::Null => Cell::NULL,
        Item::Text(text) => changes.push_text(text),
        native => changes.write_text(|text| {
            write_native(native, kind == Kind::Float { single: true }, text);
        }),
    }
}

/// The double whose shortest text is the float's.
fn shortest(item: f32) -> f64 {
    item.to_string().parse().unwrap_or_else(|_| item.into())
}

/// From `large` on PostgreSQL writes an exponent, with its sign and two digits at least.
fn write_float(item: f64, large: f64, text: &mut Vec<u8>) -> std::io::Result<()> {
    if item == 0.0 || (1e-4..large).contains(&item.abs()) {
        return write!(text, "{item}");
    }
    let plain = format!("{item:e}");
    let (digits, exponent) = plain.split_once('e').expect("the form has an exponent");
    let (sign, exponent) = exponent.strip_prefix('-').map_or(('+', exponent), |e| ('-', e));
    write!(text, "{digits}e{sign}{exponent:0>2}")
}

/// PostgreSQL's text form of a native value.
fn write_native(item: Item<'_>, single: bool, text: &mut Vec<u8>) {
    let written = match item {
        Item::Integer(item) => write!(text, "{item}"),
        Item::Boolean(item) => write!(text, "{}", if item { 't' } else { 'f' }),
        Item::Float(item) if item.is_nan() => write!(text, "NaN"),
        Item::Float(item) if item.is_infinite() => {
            write!(text, "{}Infinity", if item < 0.0 { "-" } else { "" })
        }
        #[expect(clippy::cast_possible_truncation, reason = "the column holds no more")]
        Item::Float(item) if single => write_float(shortest(item as f32), 1e6, text),
        Item::Float(item) => write_float(item, 1e15, text),
        Item::Null | Item::Text(_) => Ok(()),
    };
    written.expect("writing to memory does not fail");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(item: Item<'_>, single: bool) -> String {
        let mut text = Vec::new();
        write_native(item, single, &mut text);
        String::from_utf8(text).unwrap()
    }

    /// As `SELECT item::double precision` and `::real` print them.
    #[test]
    fn floats_are_written_as_postgres_writes_them() {
        let doubles = [
            (0.0, "0"),
            (-0.0, "-0"),
            (1.5, "1.5"),
            (0.0001, "0.0001"),
            (0.00001, "1e-05"),
            (1e14, "100000000000000"),
            (1e15, "1e+15"),
            (-1.25e300, "-1.25e+300"),
            (f64::NAN, "NaN"),
            (f64::NEG_INFINITY, "-Infinity"),
        ];
        for (item, expected) in doubles {
            assert_eq!(text(Item::Float(item), false), expected);
        }
        for (item, expected) in [(0.1_f32, "0.1"), (123_456.0, "123456"), (1e6, "1e+06")] {
            assert_eq!(text(Item::Float(item.into()), true), expected);
        }
    }

    #[test]
    fn whole_numbers_and_truth_values_are_written_as_postgres_writes_them() {
        assert_eq!(text(Item::Integer(i64::MIN), false), "-9223372036854775808");
        assert_eq!(text(Item::Boolean(true), false), "t");
        assert_eq!(text(Item::Boolean(false), false), "f");
    }
}
