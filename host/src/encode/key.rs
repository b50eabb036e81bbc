//! A record's key: the row's key columns, or those a plugin chose, as a JSON object.

use super::Error;
use super::plan::Plan;
use super::value;
use crate::change::{Changes, Old, Row, Value};

/// Writes the key of a row, for which the old one stands in where it was not sent.
///
/// # Errors
/// A key column holds no value of its type.
pub(super) fn write(
    plan: &Plan,
    changes: &Changes,
    (old, row): (Old, Row),
    out: &mut Vec<u8>,
) -> Result<(), Error> {
    let mut open = b'{';
    for (index, field) in plan.fields.iter().enumerate().filter(|(_, field)| field.message_key) {
        out.push(open);
        open = b',';
        out.extend_from_slice(&field.fragment);
        match changes.value_after(old, row, index, field.key) {
            Value::Null => out.extend_from_slice(b"null"),
            Value::Unchanged => out.extend_from_slice(&field.unavailable),
            Value::Text(text) => {
                value::write(&field.wire, text, out).ok_or_else(|| invalid(plan, index))?;
            }
        }
    }
    out.push(b'}');
    Ok(())
}

/// The error of a value that is not of its column's type.
pub(super) fn invalid(plan: &Plan, index: usize) -> Error {
    let column = &plan.table.columns[index];
    Error::Value { column: column.name.clone(), type_name: column.type_name.clone() }
}
