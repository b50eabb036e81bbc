//! The table version that a record's inline schema describes (`schemas.enable=true`).
//!
//! Debezium's and Connect's semantic types say both what a column is and how its values are
//! written; this reads all that the PostgreSQL connector has for its three `decimal.handling.mode`s
//! and `time.precision.mode`s.

use std::sync::Arc;

use serde_json::Value as Json;

use super::plan::Field;
use super::reader::Shape;
use super::wire::{Unit, Wire};
use super::{Error, infer};
use crate::table::{Column, ColumnType, ReplicaIdentity, Table};

/// The shape of the rows in `after`.
pub(super) fn shape(
    (schema, name): &(String, String),
    block: &[u8],
    key: Option<&[u8]>,
) -> Result<Shape, Error> {
    let missing = || Error::Envelope { field: "schema" };
    let block: Json = serde_json::from_slice(block).map_err(|_| missing())?;
    let rows = block["fields"].as_array().ok_or_else(missing)?.iter();
    let row = rows.clone().find(|field| matches!(field["field"].as_str(), Some("after")));
    let fields = row.ok_or_else(missing)?["fields"].as_array().ok_or_else(missing)?;
    let keys = infer::key_columns(key)?;
    let columns = fields.iter().map(|field| column(field, &keys).ok_or_else(missing));
    let (columns, wires): (Vec<Column>, Vec<Wire>) =
        columns.collect::<Result<Vec<_>, _>>()?.into_iter().unzip();
    let fields = columns.iter().zip(wires).map(|(column, wire)| Field::new(column, wire)).collect();
    let identity = ReplicaIdentity::Default;
    let table = Table::new(0, schema.clone(), name.clone(), columns, identity);
    Ok(Shape { table: Arc::new(table), fields })
}

fn column(field: &Json, keys: &[String]) -> Option<(Column, Wire)> {
    let name = field["field"].as_str()?.to_owned();
    let (kind, wire) = type_of(field)?;
    let (key, type_name) = (keys.contains(&name), infer::type_name(&kind));
    let nullable = field["optional"].as_bool().unwrap_or(true);
    let column = Column { nullable, key, ..Column::new(name, kind, type_name) };
    Some((column, wire))
}

fn type_of(field: &Json) -> Option<(ColumnType, Wire)> {
    let plain = field["type"].as_str()?;
    if let Some(semantic) = field["name"].as_str()
        && let Some(found) = semantic_type(semantic, plain, field)
    {
        return Some(found);
    }
    Some(match plain {
        "boolean" => (ColumnType::Bool, Wire::Bool),
        "int8" | "int16" => (ColumnType::Int2, Wire::Digits),
        "int32" => (ColumnType::Int4, Wire::Digits),
        "int64" => (ColumnType::Int8, Wire::Digits),
        "float" | "float32" => (ColumnType::Float4, Wire::Float),
        "double" | "float64" => (ColumnType::Float8, Wire::Float),
        "bytes" => (ColumnType::Bytea, Wire::Bytea),
        "array" => {
            let (element, wire) = type_of(&field["items"])?;
            (ColumnType::Array(Box::new(element)), Wire::Array(Box::new(wire)))
        }
        "string" => (ColumnType::Text, Wire::Text),
        // Maps and unknown structs keep their JSON.
        _ => (ColumnType::Json, Wire::Any),
    })
}

fn semantic_type(name: &str, plain: &str, field: &Json) -> Option<(ColumnType, Wire)> {
    let parameter = |key: &str| field["parameters"][key].as_str();
    Some(match name {
        "io.debezium.time.Date" | "org.apache.kafka.connect.data.Date" => {
            (ColumnType::Date, Wire::Date)
        }
        "io.debezium.time.Time" | "org.apache.kafka.connect.data.Time" => {
            (ColumnType::Time(3), Wire::Time(Unit::Millis))
        }
        "io.debezium.time.MicroTime" => (ColumnType::Time(6), Wire::Time(Unit::Micros)),
        "io.debezium.time.NanoTime" => (ColumnType::Time(6), Wire::Time(Unit::Nanos)),
        "io.debezium.time.Timestamp" | "org.apache.kafka.connect.data.Timestamp" => {
            (ColumnType::Timestamp(3), Wire::Timestamp(Unit::Millis))
        }
        "io.debezium.time.MicroTimestamp" => {
            (ColumnType::Timestamp(6), Wire::Timestamp(Unit::Micros))
        }
        "io.debezium.time.NanoTimestamp" => {
            (ColumnType::Timestamp(6), Wire::Timestamp(Unit::Nanos))
        }
        "io.debezium.time.IsoTimestamp" => {
            (ColumnType::Timestamp(6), Wire::Timestamp(Unit::Micros))
        }
        "io.debezium.time.ZonedTime" => (ColumnType::Timetz(6), Wire::Timetz),
        "io.debezium.time.ZonedTimestamp" => (ColumnType::Timestamptz(6), Wire::Timestamptz(6)),
        "io.debezium.time.MicroDuration" => (ColumnType::Interval, Wire::Interval),
        "io.debezium.time.Interval" => (ColumnType::Interval, Wire::Text),
        "io.debezium.data.Json" => (ColumnType::Json, Wire::Text),
        "io.debezium.data.Uuid" => (ColumnType::Uuid, Wire::Text),
        "io.debezium.data.Xml" => (ColumnType::Xml, Wire::Text),
        "io.debezium.data.Enum" => {
            let labels = parameter("allowed")?.split(',').map(str::to_owned).collect();
            (ColumnType::Enum(labels), Wire::Text)
        }
        "io.debezium.data.Bits" => match parameter("length")?.parse::<u32>().ok()? {
            length if length >= i32::MAX.unsigned_abs() => {
                (ColumnType::Varbit(None), Wire::Bits(None))
            }
            length => (ColumnType::Bit(length), Wire::Bits(Some(length))),
        },
        "io.debezium.data.geometry.Point" => (ColumnType::Point, Wire::Point),
        "io.debezium.data.VariableScaleDecimal" => {
            (ColumnType::Numeric(None), Wire::VariableDecimal)
        }
        "org.apache.kafka.connect.data.Decimal" => {
            let scale: i32 = parameter("scale")?.parse().ok()?;
            let precision = parameter("connect.decimal.precision").and_then(|p| p.parse().ok());
            let declared = precision.zip(i16::try_from(scale).ok());
            (ColumnType::Numeric(declared), Wire::Decimal(scale))
        }
        // Ltree, Tsvector and what else is a string with a name.
        _ if plain == "string" => (ColumnType::Other, Wire::Text),
        _ => return None,
    })
}
