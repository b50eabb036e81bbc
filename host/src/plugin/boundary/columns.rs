//! Rows into the columns that a plugin wants of them.

use crate::change::{Changes, Op, Value};
use crate::plugin::boundary::plan::{Kind, Plan, Want, old_row};
use crate::plugin::guest::bindings::types::{self, Batch, ColumnValuesParam, ValuesParam};

/// A cell's text is not what its column's type says; the row's number.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Unreadable(pub(crate) usize);

/// Buffers that keep their memory from batch to batch.
#[derive(Default)]
pub(crate) struct Scratch {
    columns: Vec<Buffers>,
    ops: Vec<types::Op>,
    positions: Vec<types::Position>,
    times: Vec<i64>,
}

#[derive(Default)]
struct Buffers {
    nulls: Vec<u8>,
    any_null: bool,
    unchanged: Vec<u32>,
    ends: Vec<u32>,
    data: Vec<u8>,
    integers: Vec<i64>,
    floats: Vec<f64>,
    booleans: Vec<bool>,
}

impl Buffers {
    fn clear(&mut self, rows: usize) {
        self.nulls.clear();
        self.nulls.resize(rows.div_ceil(8), 0);
        self.any_null = false;
        self.unchanged.clear();
        self.ends.clear();
        self.data.clear();
        self.integers.clear();
        self.floats.clear();
        self.booleans.clear();
    }

    /// Notes what is absent, and gives what is not.
    #[inline]
    fn present<'a>(&mut self, row: usize, value: Value<'a>) -> Option<&'a [u8]> {
        match value {
            Value::Text(text) => return Some(text),
            Value::Null => {}
            Value::Unchanged => self.unchanged.push(number(row)),
        }
        self.any_null = true;
        self.nulls[row >> 3] |= 1 << (row & 7);
        None
    }

    fn nulls(&self) -> Option<&[u8]> {
        self.any_null.then_some(&self.nulls)
    }

    fn unchanged(&self) -> Option<&[u32]> {
        (!self.unchanged.is_empty()).then_some(&self.unchanged)
    }

    fn pack<'a>(&mut self, values: impl ExactSizeIterator<Item = Value<'a>>) {
        self.ends.reserve(values.len());
        for (row, value) in values.enumerate() {
            if let Some(text) = self.present(row, value) {
                self.data.extend_from_slice(text);
            }
            self.ends.push(u32::try_from(self.data.len()).unwrap_or(u32::MAX));
        }
    }

    /// No row has a value.
    fn pack_nothing(&mut self, rows: usize) {
        self.any_null = true;
        self.nulls.fill(0xff);
        let beyond = self.nulls.len() * 8 - rows;
        if let Some(last) = self.nulls.last_mut() {
            *last >>= beyond;
        }
        self.ends.resize(rows, 0);
    }

    fn parse<'a>(
        &mut self,
        kind: Kind,
        values: impl Iterator<Item = Value<'a>>,
    ) -> Result<(), Unreadable> {
        for (row, value) in values.enumerate() {
            let text = self.present(row, value);
            let parsed = text.map_or(Some(Native::zero(kind)), |text| Native::parse(kind, text));
            match parsed.ok_or(Unreadable(row))? {
                Native::Integer(item) => self.integers.push(item),
                Native::Float(item) => self.floats.push(item),
                Native::Boolean(item) => self.booleans.push(item),
            }
        }
        Ok(())
    }
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Native {
    Integer(i64),
    Float(f64),
    Boolean(bool),
}

impl Native {
    fn zero(kind: Kind) -> Native {
        match kind {
            Kind::Float { .. } => Native::Float(0.0),
            Kind::Boolean => Native::Boolean(false),
            Kind::Integer { .. } | Kind::Text => Native::Integer(0),
        }
    }

    fn parse(kind: Kind, text: &[u8]) -> Option<Native> {
        let text = std::str::from_utf8(text).ok()?;
        match kind {
            Kind::Integer { min, max } => {
                let item = text.parse().ok().filter(|item| (min..=max).contains(item));
                item.map(Native::Integer)
            }
            Kind::Float { single: false } => text.parse().ok().map(Native::Float),
            Kind::Float { single: true } => {
                text.parse::<f32>().ok().map(|item| Native::Float(item.into()))
            }
            Kind::Boolean => match text {
                "t" => Some(Native::Boolean(true)),
                "f" => Some(Native::Boolean(false)),
                _ => None,
            },
            Kind::Text => None,
        }
    }
}

impl Scratch {
    /// Calls with the wanted columns of some changes; `rows` index `changes.list`.
    pub(crate) fn with_batch<T>(
        &mut self,
        plan: &Plan,
        changes: &Changes,
        rows: &[u32],
        call: impl FnOnce(Batch<'_>) -> T,
    ) -> Result<T, Unreadable> {
        self.fill_headers(plan, changes, rows);
        self.columns.resize_with(plan.wants.len(), Buffers::default);
        let mut strings = Vec::new();
        // Most updates tell nothing of the old row, and plugins that hide something ask for it.
        let any_old = rows.iter().any(|row| old_row(&changes.list[*row as usize]).is_some());
        for (want, buffers) in plan.wants.iter().zip(&mut self.columns) {
            buffers.clear(rows.len());
            let values =
                || rows.iter().map(|row| want.value(changes, &changes.list[*row as usize]));
            if want.packed && want.old && !any_old {
                buffers.pack_nothing(rows.len());
            } else if want.packed {
                buffers.pack(values());
            } else if want.native {
                buffers.parse(want.kind, values())?;
            } else {
                strings.push(texts(buffers, values())?);
            }
        }
        let mut strings = strings.iter();
        let columns: Vec<ColumnValuesParam<'_>> = plan
            .wants
            .iter()
            .zip(&self.columns)
            .map(|(want, buffers)| column(want, buffers, &mut strings))
            .collect();
        Ok(call(Batch {
            table: plan.id,
            rows: number(rows.len()),
            ops: plan.ops.then_some(&self.ops),
            positions: plan.positions.then_some(&self.positions),
            times: plan.times.then_some(&self.times),
            columns: &columns,
        }))
    }

    fn fill_headers(&mut self, plan: &Plan, changes: &Changes, rows: &[u32]) {
        let shown = || rows.iter().map(|row| &changes.list[*row as usize]);
        self.ops.clear();
        self.positions.clear();
        self.times.clear();
        if plan.ops {
            self.ops.extend(shown().map(|change| op(change.op)));
        }
        if plan.positions {
            self.positions.extend(shown().map(|change| {
                let position = changes.position(change);
                types::Position { commit: position.commit.0, ordinal: position.ordinal }
            }));
        }
        if plan.times {
            self.times.extend(shown().map(|change| changes.transaction(change).committed_at));
        }
    }
}

fn texts<'a>(
    buffers: &mut Buffers,
    values: impl Iterator<Item = Value<'a>>,
) -> Result<Vec<Option<&'a str>>, Unreadable> {
    let text = |(row, value)| {
        let text = buffers.present(row, value);
        text.map(std::str::from_utf8).transpose().map_err(|_| Unreadable(row))
    };
    values.enumerate().map(text).collect()
}

fn column<'a>(
    want: &Want,
    buffers: &'a Buffers,
    strings: &mut std::slice::Iter<'a, Vec<Option<&'a str>>>,
) -> ColumnValuesParam<'a> {
    let nulls = buffers.nulls();
    let values = if want.packed {
        let packed = types::PackedParam { nulls, ends: &buffers.ends, data: &buffers.data };
        ValuesParam::Packed(packed)
    } else if !want.native {
        ValuesParam::Strings(strings.next().expect("one per column in form strings"))
    } else {
        match want.kind {
            Kind::Float { .. } => {
                ValuesParam::Floats(types::FloatsParam { nulls, items: &buffers.floats })
            }
            Kind::Boolean => {
                ValuesParam::Booleans(types::BooleansParam { nulls, items: &buffers.booleans })
            }
            Kind::Integer { .. } | Kind::Text => {
                ValuesParam::Integers(types::IntegersParam { nulls, items: &buffers.integers })
            }
        }
    };
    ColumnValuesParam { values, unchanged: buffers.unchanged() }
}

fn op(op: Op) -> types::Op {
    match op {
        Op::Read => types::Op::Read,
        Op::Insert => types::Op::Insert,
        Op::Update => types::Op::Update,
        Op::Delete => types::Op::Delete,
        Op::Truncate => unreachable!("a truncate has no row to show"),
    }
}

pub(crate) fn number(index: usize) -> u32 {
    u32::try_from(index).expect("a batch holds fewer than 2^32 changes")
}

/// Whether a text is what a column of that kind may hold. Numbers go into JSON and into keys as they are, so
/// they have to be written as PostgreSQL would: `007` is none.
pub(crate) fn fits(kind: Kind, text: &[u8]) -> bool {
    let well_written = match (kind, std::str::from_utf8(text)) {
        (Kind::Text, _) => return true,
        (_, Err(_)) => false,
        (Kind::Boolean, _) => true,
        (Kind::Integer { .. }, Ok(text)) => text != "-0" && is_whole(text),
        (Kind::Float { .. }, Ok(text)) => is_float(text),
    };
    well_written && Native::parse(kind, text).is_some()
}

/// Digits after a sign, with no 0 before others.
fn is_whole(text: &str) -> bool {
    let digits = text.strip_prefix('-').unwrap_or(text);
    are_digits(digits) && (digits == "0" || !digits.starts_with('0'))
}

fn are_digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// JSON's number, or one of PostgreSQL's words.
fn is_float(text: &str) -> bool {
    let (mantissa, exponent) = text.split_once('e').unwrap_or((text, "0"));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, "0"));
    let exponent = exponent.strip_prefix(['+', '-']).unwrap_or(exponent);
    matches!(text, "NaN" | "Infinity" | "-Infinity")
        || is_whole(whole) && are_digits(fraction) && are_digits(exponent)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_without_a_value_are_packed_as_so_many_nulls() {
        for rows in 1..=17 {
            let [mut each, mut all] = [Buffers::default(), Buffers::default()];
            each.clear(rows);
            each.pack((0..rows).map(|_| Value::Null));
            all.clear(rows);
            all.pack_nothing(rows);
            assert_eq!(all.nulls(), each.nulls(), "{rows} rows");
            assert_eq!((all.ends, all.data), (each.ends, each.data), "{rows} rows");
        }
    }

    #[test]
    fn numbers_that_are_not_written_as_postgres_writes_them_do_not_fit() {
        let whole = Kind::Integer { min: i32::MIN.into(), max: i32::MAX.into() };
        for text in ["0", "7", "-12", "2147483647"] {
            assert!(fits(whole, text.as_bytes()), "{text}");
        }
        for text in ["007", "+5", "-0", "-07", "", "-", "1.0", " 1", "2147483648", "1\0"] {
            assert!(!fits(whole, text.as_bytes()), "{text}");
        }
        let float = Kind::Float { single: false };
        for text in ["0", "-0", "1.50", "1e+15", "1e-05", "-2.5e3", "NaN", "Infinity", "-Infinity"]
        {
            assert!(fits(float, text.as_bytes()), "{text}");
        }
        let refused =
            ["007", ".5", "5.", "+1.5", "1E5", "1e", "inf", "nan", "-NaN", "", "1.5.5", "1e5e5"];
        for text in refused {
            assert!(!fits(float, text.as_bytes()), "{text}");
        }
    }
}
