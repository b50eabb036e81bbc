//! What is prepared once per table version.

use std::sync::Arc;

use super::wire::Wire;
use super::{json, topic_name, value};
use crate::table::{Column, Table};

/// A column, prepared.
#[derive(Debug)]
pub(super) struct Field {
    /// `"name":`, escaped.
    pub(super) fragment: Vec<u8>,
    /// The form of its values.
    pub(super) wire: Wire,
    /// What stands in `before` for a value that the log did not hold.
    pub(super) fill: Vec<u8>,
    /// What stands for a TOASTed value that was not sent.
    pub(super) unavailable: Vec<u8>,
    /// Whether the column belongs to the row's key.
    pub(super) key: bool,
    /// Whether the column belongs to the record's key.
    pub(super) message_key: bool,
}

impl Field {
    pub(super) fn new(column: &Column, wire: Wire) -> Field {
        let mut fragment = Vec::new();
        json::write_string(&mut fragment, column.name.as_bytes());
        fragment.push(b':');
        let fill = fill(column, &wire);
        let unavailable = value::unavailable(&wire);
        let (key, message_key) = (column.key, column.key);
        Field { fragment, wire, fill, unavailable, key, message_key }
    }

    /// The name as JSON has it, without quotes.
    pub(super) fn name(&self) -> &[u8] {
        &self.fragment[1..self.fragment.len() - 2]
    }
}

/// The column's default, else null, else the type's zero: Debezium's rule.
fn fill(column: &Column, wire: &Wire) -> Vec<u8> {
    let mut out = Vec::new();
    if let Some(default) = &column.default
        && value::write(wire, default.as_bytes(), &mut out).is_some()
    {
        return out;
    }
    let zero = if column.nullable { "null" } else { wire.zero() };
    zero.as_bytes().to_vec()
}

/// A table version, prepared for writing.
#[derive(Debug)]
pub(super) struct Plan {
    /// The table.
    pub(super) table: Arc<Table>,
    /// Its topic.
    pub(super) topic: String,
    /// Its columns.
    pub(super) fields: Vec<Field>,
    /// A space and its fingerprint, for the header.
    pub(super) version: Vec<u8>,
    /// The source block from `"schema":` up to the transaction's id.
    pub(super) source: Vec<u8>,
    /// Whether its records have keys.
    pub(super) keyed: bool,
    /// The largest record that its topic takes, in bytes.
    pub(super) record_bytes: usize,
}

impl Plan {
    pub(super) fn new(prefix: &str, table: &Arc<Table>, record_bytes: usize) -> Plan {
        let mut source = b"\"schema\":".to_vec();
        json::write_string(&mut source, table.schema.as_bytes());
        source.extend_from_slice(b",\"table\":");
        json::write_string(&mut source, table.name.as_bytes());
        source.extend_from_slice(b",\"txId\":");
        let keys = &table.message_key;
        let field = |column: &Column| {
            let field = Field::new(column, Wire::of(&column.kind));
            let message_key = if keys.is_empty() { field.key } else { keys.contains(&column.name) };
            Field { message_key, ..field }
        };
        Plan {
            topic: topic_name(prefix, table),
            fields: table.columns.iter().map(field).collect(),
            version: format!(" {:016x}", table.fingerprint).into_bytes(),
            source,
            keyed: table.has_key() || !keys.is_empty(),
            record_bytes,
            table: Arc::clone(table),
        }
    }
}
