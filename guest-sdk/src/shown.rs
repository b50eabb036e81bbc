//! The batch as the host shows it, checked once per column so that reading a cell is a slice.

use crate::bindings::transform::tailwater::plugin::types;
use crate::types::{Batch, Op, Position};

pub(crate) struct Shown {
    pub(crate) table: u32,
    pub(crate) rows: usize,
    pub(crate) ops: Option<Vec<Op>>,
    pub(crate) positions: Option<Vec<Position>>,
    pub(crate) times: Option<Vec<i64>>,
    pub(crate) columns: Vec<Column>,
}

pub(crate) struct Column {
    pub(crate) values: Values,
    pub(crate) unchanged: Vec<u32>,
}

pub(crate) enum Values {
    Strings(Vec<Option<String>>),
    Packed { nulls: Option<Vec<u8>>, ends: Vec<u32>, text: String },
    Integers(types::Integers),
    Floats(types::Floats),
    Booleans(types::Booleans),
}

impl Shown {
    pub(crate) fn new(batch: Batch) -> Result<Shown, String> {
        let columns = batch.columns.into_iter().map(column).collect::<Result<_, _>>()?;
        Ok(Shown {
            table: batch.table,
            rows: batch.rows as usize,
            ops: batch.ops,
            positions: batch.positions,
            times: batch.times,
            columns,
        })
    }
}

fn column(column: types::ColumnValues) -> Result<Column, String> {
    let values = Values::new(column.values)?;
    Ok(Column { values, unchanged: column.unchanged.unwrap_or_default() })
}

fn is_null(nulls: Option<&[u8]>, row: usize) -> bool {
    nulls.is_some_and(|bits| bits[row >> 3] & (1 << (row & 7)) != 0)
}

impl Values {
    pub(crate) fn new(values: types::Values) -> Result<Values, String> {
        Ok(match values {
            types::Values::Strings(items) => Values::Strings(items),
            types::Values::Packed(packed) => {
                let text = String::from_utf8(packed.data).map_err(|_| "a value is not UTF-8")?;
                Values::Packed { nulls: packed.nulls, ends: packed.ends, text }
            }
            types::Values::Integers(items) => Values::Integers(items),
            types::Values::Floats(items) => Values::Floats(items),
            types::Values::Booleans(items) => Values::Booleans(items),
        })
    }

    // Inlined, because a call costs WebAssembly more than it does.
    #[inline(always)]
    pub(crate) fn text(&self, row: usize) -> Option<&str> {
        let Values::Packed { nulls, ends, text } = self else { return self.text_apart(row) };
        if is_null(nulls.as_deref(), row) {
            return None;
        }
        let start = row.checked_sub(1).map_or(0, |before| ends[before] as usize);
        Some(&text[start..ends[row] as usize])
    }

    #[cold]
    fn text_apart(&self, row: usize) -> Option<&str> {
        let Values::Strings(items) = self else {
            panic!("text of a column asked for in native form");
        };
        items[row].as_deref()
    }

    pub(crate) fn integer(&self, row: usize) -> Option<i64> {
        let Values::Integers(column) = self else { panic!("not a native integer column") };
        (!is_null(column.nulls.as_deref(), row)).then(|| column.items[row])
    }

    pub(crate) fn float(&self, row: usize) -> Option<f64> {
        let Values::Floats(column) = self else { panic!("not a native float column") };
        (!is_null(column.nulls.as_deref(), row)).then(|| column.items[row])
    }

    pub(crate) fn boolean(&self, row: usize) -> Option<bool> {
        let Values::Booleans(column) = self else { panic!("not a native boolean column") };
        (!is_null(column.nulls.as_deref(), row)).then(|| column.items[row])
    }
}
