//! The envelope against Debezium's own output for the same workload, in both directions.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use serde_json::{Value as Json, json};
use tailwater::change::{Cell, Change, Changes, Old, Op, Row, Transaction, Value};
use tailwater::encode::{Batch, Encoder, Incoming, Moved, Outcome, Reader, Record, Span};
use tailwater::position::Lsn;
use tailwater::table::{Column, ColumnType, ReplicaIdentity, Table};

/// Where Tailwater differs from Debezium on purpose. Every one is checked: a difference that is
/// not here fails the test, and one that is here but does not occur fails it, too.
const DEVIATIONS: &[(&str, &str)] = &[
    ("headers.context", "Kafka Connect's __debezium.context.* headers are not written"),
    ("headers.schema", "newkey and oldkey headers have no schema, as keys and values have none"),
    ("transaction", "no transaction metadata; the position header orders across tables"),
    ("snapshot", "a snapshot row says `true`, not `first` or `last_in_data_collection`"),
    ("index-identity", "the key is the identity index's columns; Debezium makes up an id 0"),
    ("truncate", "written (op t, to every partition); Debezium skips it by default"),
];

fn data(name: &str) -> Vec<Json> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/data/debezium-3.6.3");
    let text = std::fs::read_to_string(path.join(name)).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn type_of(name: &str) -> ColumnType {
    if let Some(element) = name.strip_suffix("[]") {
        return ColumnType::Array(Box::new(type_of(element)));
    }
    match name {
        "bool" => ColumnType::Bool,
        "int2" => ColumnType::Int2,
        "int4" => ColumnType::Int4,
        "int8" => ColumnType::Int8,
        "oid" => ColumnType::Oid,
        "float4" => ColumnType::Float4,
        "float8" => ColumnType::Float8,
        "numeric" => ColumnType::Numeric(None),
        "numeric(18,4)" => ColumnType::Numeric(Some((18, 4))),
        "numeric(10,2)" => ColumnType::Numeric(Some((10, 2))),
        "money" => ColumnType::Money,
        "bytea" => ColumnType::Bytea,
        "uuid" => ColumnType::Uuid,
        "json" => ColumnType::Json,
        "jsonb" => ColumnType::Jsonb,
        "xml" => ColumnType::Xml,
        "date" => ColumnType::Date,
        "time" => ColumnType::Time(6),
        "time3" => ColumnType::Time(3),
        "timetz" => ColumnType::Timetz(6),
        "ts" => ColumnType::Timestamp(6),
        "ts3" => ColumnType::Timestamp(3),
        "tstz" => ColumnType::Timestamptz(6),
        "interval" => ColumnType::Interval,
        "bit1" => ColumnType::Bit(1),
        "bit8" => ColumnType::Bit(8),
        "varbit" => ColumnType::Varbit(None),
        "mood" => ColumnType::Enum(vec!["sad".into(), "ok".into(), "happy".into()]),
        "point" => ColumnType::Point,
        "other" => ColumnType::Other,
        "text" => ColumnType::Text,
        other => panic!("{other}"),
    }
}

/// `*` marks a key column, `!` NOT NULL, `=x` a constant default.
fn described(table: &str) -> (&'static str, ReplicaIdentity) {
    let columns = match table {
        "all_types" => {
            "id:int8* c_bool:bool c_int2:int2 c_int4:int4 c_int8:int8 c_float4:float4 \
             c_float8:float8 c_num:numeric(18,4) c_num_unscaled:numeric c_money:money c_text:text \
             c_varchar:text c_char:text c_bytea:bytea c_uuid:uuid c_json:json c_jsonb:jsonb \
             c_xml:xml c_date:date c_time:time c_time3:time3 c_timetz:timetz c_ts:ts c_ts3:ts3 \
             c_tstz:tstz c_interval:interval c_mood:mood c_zip:text c_inet:other c_cidr:other \
             c_mac:other c_bit1:bit1 c_bit8:bit8 c_varbit:varbit c_int4_arr:int4[] \
             c_text_arr:text[] c_num_arr:numeric(10,2)[] c_ts_arr:tstz[] c_jsonb_arr:jsonb[] \
             c_mood_arr:mood[] c_int4range:other c_tstzrange:other c_daterange:other \
             c_point:point c_oid:oid c_tsvector:other"
        }
        "users" => {
            "id:int8* name:text! email:text! address:text phone_number:text \
             email_verified:bool=f onboarded:bool=f deleted:bool=f lang:text \
             created_at:ts=2023-08-17_10:30:00 updated_at:ts=2023-08-17_11:15:00 \
             language:text plan:text=free"
        }
        "composite_key" => "tenant:int4* id:int4* v:text",
        "no_key" => "a:int4 b:text",
        "full_identity" => "id:int4* v:text n:int4",
        "index_identity" => "id:int4! code:text* v:text",
        "toasted" => "id:int4* big:text small:int4",
        "Weird Name" => "Id:int4* a.b:text ünï:text select:int4",
        other => panic!("{other}"),
    };
    let identity = match table {
        "full_identity" => ReplicaIdentity::Full,
        "index_identity" => ReplicaIdentity::Index,
        _ => ReplicaIdentity::Default,
    };
    (columns, identity)
}

fn table(name: &str, columns: &[&str]) -> Arc<Table> {
    let (described, identity) = described(name);
    let column = |wanted: &&str| {
        let found = described.split_whitespace().find(|c| c.split(':').next() == Some(wanted));
        let (_, rest) = found.unwrap().split_once(':').unwrap();
        let (kind, default) = match rest.split_once('=') {
            Some((kind, default)) => (kind, Some(default.replace('_', " "))),
            None => (rest, None),
        };
        let bare = kind.trim_end_matches(['*', '!']);
        Column {
            name: (*wanted).to_owned(),
            kind: type_of(bare),
            type_name: bare.to_owned(),
            nullable: bare == kind,
            key: kind.ends_with('*'),
            default,
            number: None,
            missing: None,
        }
    };
    let columns = columns.iter().map(column).collect();
    Arc::new(Table::new(1, "public".into(), name.into(), columns, identity))
}

fn push_row(changes: &mut Changes, row: &Json) -> Option<Row> {
    let cells = row.as_array()?;
    let row = changes.begin_row();
    for cell in cells {
        let cell = match cell {
            Json::Null => Cell::NULL,
            Json::String(text) => changes.push_text(text.as_bytes()),
            _ => Cell::UNCHANGED,
        };
        changes.push_cell(cell);
    }
    Some(row)
}

/// The rows that were there before the capture started.
fn snapshot() -> Vec<Json> {
    let user = "id name email address phone_number email_verified onboarded deleted lang \
                created_at updated_at";
    let john = "1|John Doe|john@example.com|123 Main St|+1234567890|t|t|f|en|\
                2023-08-17 10:30:00|2023-08-17 11:15:00";
    let rows = [
        ("composite_key", "tenant id v", "1|1|snap"),
        ("full_identity", "id v n", "1|snap|1"),
        ("users", user, john),
    ];
    let read = |(table, columns, row): (&str, &str, &str)| {
        let columns: Vec<&str> = columns.split_whitespace().collect();
        let row: Vec<&str> = row.split('|').collect();
        json!({"op": "read", "table": table, "columns": columns, "lsn": 1, "ordinal": 1,
            "commit": 1, "previous_commit": 0, "committed_at": 0, "xid": 1, "old": null,
            "new": row})
    };
    rows.into_iter().map(read).collect()
}

fn workload() -> Changes {
    let mut events = snapshot();
    events.extend(data("changes.jsonl"));
    let mut changes = Changes::default();
    let mut tables: BTreeMap<String, Arc<Table>> = BTreeMap::new();
    for event in &events {
        let columns = event["columns"].as_array().unwrap().iter();
        let columns: Vec<&str> = columns.map(|column| column.as_str().unwrap()).collect();
        let name = event["table"].as_str().unwrap();
        let version = tables.entry(format!("{name} {columns:?}"));
        let table = Arc::clone(version.or_insert_with(|| table(name, &columns)));
        push_change(&mut changes, &table, event);
    }
    changes
}

fn push_change(changes: &mut Changes, table: &Arc<Table>, event: &Json) {
    let number = |key: &str| event[key].as_u64().unwrap();
    let transaction = changes.push_transaction(Transaction {
        commit: Lsn(number("commit")),
        previous_commit: Lsn(number("previous_commit")),
        committed_at: event["committed_at"].as_i64().unwrap(),
        xid: u32::try_from(number("xid")).unwrap(),
    });
    let old = match (push_row(changes, &event["old"]), event["old_kind"].as_str()) {
        (Some(row), Some("full")) => Old::Full(row),
        (Some(row), _) => Old::Key(row),
        (None, _) => Old::None,
    };
    let new = push_row(changes, &event["new"]);
    let op = match event["op"].as_str().unwrap() {
        "read" => Op::Read,
        "insert" => Op::Insert,
        "update" => Op::Update,
        "delete" => Op::Delete,
        "truncate" => Op::Truncate,
        other => panic!("{other}"),
    };
    let lsn = Lsn(number("lsn"));
    let (table, ordinal) = (changes.intern_table(table), number("ordinal"));
    changes.list.push(Change { op, table, transaction, ordinal, lsn, old, new });
}

fn encoded(changes: &Changes) -> Batch {
    let mut batch = Batch::default();
    Encoder::new("shop", "shop").encode(changes, 1_795_398_832_225_002_004, &mut batch);
    assert_eq!(batch.dead_letters, []);
    batch
}

fn parsed(batch: &Batch, span: Option<Span>) -> Json {
    span.map_or(Json::Null, |span| serde_json::from_slice(batch.span(span)).unwrap())
}

/// Replaces what cannot be the same in two runs by its kind.
fn without_run(mut value: Json) -> Json {
    for name in ["version", "ts_ms", "ts_us", "ts_ns", "lsn", "txId", "sequence"] {
        for at in [format!("/{name}"), format!("/source/{name}")] {
            if let Some(found) = value.pointer_mut(&at) {
                *found = json!(kind(found));
            }
        }
    }
    value
}

fn kind(value: &Json) -> &'static str {
    match value {
        Json::Number(number) if number.is_i64() => "an integer",
        Json::String(_) => "a string",
        _ => "something else",
    }
}

/// Compares, after applying the deviations that this pair of records calls for.
fn compare(golden: &Json, batch: &Batch, record: &Record, seen: &mut Vec<&'static str>) {
    let mut expected = golden.clone();
    let topic = &batch.targets[record.target as usize].topic;
    assert_eq!(expected["topic"], json!(topic));
    let headers = expected["headers"].as_object_mut().unwrap();
    let before = headers.len();
    headers.retain(|name, _| !name.starts_with("__debezium.context."));
    seen.extend((headers.len() < before).then_some("headers.context"));
    for header in headers.values_mut() {
        *header = header["payload"].take();
        seen.push("headers.schema");
    }
    let mut headers = match record.moved {
        Some(Moved::To(key)) => json!({"__debezium.newkey": parsed(batch, Some(key))}),
        Some(Moved::From(key)) => json!({"__debezium.oldkey": parsed(batch, Some(key))}),
        None => json!({}),
    };
    if expected["value"]["transaction"].is_object() {
        expected["value"]["transaction"] = Json::Null;
        seen.push("transaction");
    }
    if expected["value"]["op"] == "r" {
        expected["value"]["source"]["snapshot"] = json!("true");
        seen.push("snapshot");
    }
    let mut key = parsed(batch, record.key);
    if topic == "shop.public.index_identity" {
        assert!(key["code"].is_string() && key.as_object().unwrap().len() == 1, "{key}");
        key = expected["key"].clone();
        headers = expected["headers"].clone();
        seen.push("index-identity");
    }
    assert_eq!(key, expected["key"]);
    assert_eq!(headers, expected["headers"]);
    let golden = without_run(expected["value"].take());
    assert_eq!(without_run(parsed(batch, record.value)), golden, "{topic} {key}");
}

#[test]
fn the_envelope_is_debeziums_field_for_field() {
    let changes = workload();
    let batch = encoded(&changes);
    let mut seen = Vec::new();
    let is_truncate = |record: &&Record| changes.list[record.change as usize].op == Op::Truncate;
    let (truncates, ours): (Vec<&Record>, Vec<&Record>) =
        batch.records.iter().partition(is_truncate);
    for record in truncates {
        let value = parsed(&batch, record.value);
        assert_eq!((&value["op"], &value["after"]), (&json!("t"), &Json::Null));
        seen.push("truncate");
    }
    let golden = data("events-plain.jsonl");
    let of_tables = |event: &&Json| event["topic"].as_str().unwrap().contains(".public.");
    let golden: Vec<&Json> = golden.iter().filter(of_tables).collect();
    assert_eq!(ours.len(), golden.len());
    for (golden, ours) in golden.iter().zip(ours) {
        compare(golden, &batch, ours, &mut seen);
    }
    for (deviation, reason) in DEVIATIONS {
        assert!(seen.contains(deviation), "{deviation} ({reason}) no longer occurs");
    }
    assert!(seen.iter().all(|seen| DEVIATIONS.iter().any(|(name, _)| name == seen)));
}

#[test]
fn the_order_of_fields_in_the_bytes_is_debeziums() {
    let batch = encoded(&workload());
    let text = std::str::from_utf8(batch.span(batch.records[0].value.unwrap())).unwrap();
    let names = "before after source version connector name ts_ms snapshot db sequence ts_us ts_ns \
                 schema table txId lsn xmin origin origin_lsn transaction op ts_ms ts_us ts_ns";
    let mut rest = text;
    for name in names.split_whitespace() {
        let at = rest.find(&format!("\"{name}\":")).unwrap_or_else(|| panic!("{name} in {text}"));
        rest = &rest[at + name.len()..];
    }
}

/// The row as `{column: text}`; a cell that was not sent is left out.
fn row_of(changes: &Changes, change: &Change, row: Option<Row>) -> Json {
    let Some(row) = row else { return Json::Null };
    let mut cells = serde_json::Map::new();
    for (index, column) in changes.table(change).columns.iter().enumerate() {
        let value = match changes.value(row, index) {
            Value::Null => Json::Null,
            Value::Unchanged => continue,
            Value::Text(text) => json!(std::str::from_utf8(text).unwrap()),
        };
        cells.insert(column.name.clone(), value);
    }
    Json::Object(cells)
}

/// Reads every record of a batch; gives the changes and which change each came from.
fn read_back(batch: &Batch) -> (Changes, Vec<usize>) {
    let mut reader = Reader::default();
    let mut back = Changes::default();
    let mut origins = Vec::new();
    for record in &batch.records {
        let target = &batch.targets[record.target as usize];
        let span = |span| Some(batch.span(span));
        let incoming = Incoming {
            topic: &target.topic,
            partition: 0,
            offset: 0,
            key: record.key.and_then(span),
            value: record.value.and_then(span),
            origin: span(record.origin),
            exact: record.exact.and_then(span),
        };
        let mut resolve = |_| Some(Arc::clone(&target.table));
        if reader.read(&incoming, &mut resolve, &mut back).unwrap() == Outcome::Change {
            origins.push(record.change as usize);
        }
    }
    (back, origins)
}

#[test]
fn our_records_are_read_back_exactly() {
    let changes = workload();
    let (back, origins) = read_back(&encoded(&changes));
    assert_eq!(back.len(), origins.len());
    assert!(origins.len() > changes.len(), "key-changing updates come back as two changes");
    for (read, origin) in back.list.iter().zip(origins) {
        let written = &changes.list[origin];
        assert_eq!(back.position(read), changes.position(written));
        assert_eq!(back.table(read).fingerprint, changes.table(written).fingerprint);
        assert_eq!(read.lsn, written.lsn);
        let name = &changes.table(written).name;
        if read.op != Op::Delete {
            let new = row_of(&changes, written, written.new);
            assert_eq!(row_of(&back, read, read.new), new, "{name}");
        }
        if read.op == Op::Delete || (written.op, read.op) == (Op::Update, Op::Update) {
            let old = row_of(&changes, written, written.old.row());
            assert_eq!(row_of(&back, read, read.old.row()), old, "{name}");
            let full = matches!(written.old, Old::Full(_));
            assert_eq!(matches!(read.old, Old::Full(_)), full);
        }
    }
}

/// Reads a recording of Debezium.
fn debeziums(name: &str) -> Changes {
    let mut reader = Reader::default();
    let mut changes = Changes::default();
    for (offset, event) in data(name).iter().enumerate() {
        let bytes = |value: &Json| (!value.is_null()).then(|| value.to_string().into_bytes());
        let (key, value) = (bytes(&event["key"]), bytes(&event["value"]));
        let incoming = Incoming {
            topic: event["topic"].as_str().unwrap(),
            partition: 0,
            offset: i64::try_from(offset).unwrap(),
            key: key.as_deref(),
            value: value.as_deref(),
            origin: None,
            exact: None,
        };
        let outcome = reader.read(&incoming, &mut |_| None, &mut changes);
        let of_table = event["topic"].as_str().unwrap().contains(".public.");
        let is_change = of_table && value.is_some();
        let expected = if is_change { Outcome::Change } else { Outcome::Ignored };
        assert_eq!(outcome, Ok(expected), "{event}");
    }
    changes
}

fn find<'a>(changes: &'a Changes, table: &str, id: &str) -> Vec<(&'a Change, Json)> {
    let rows = changes.list.iter().filter(|change| changes.table(change).name == table);
    let rows = rows.map(|change| (change, row_of(changes, change, change.new)));
    rows.filter(|(_, row)| row["id"] == id).collect()
}

#[test]
fn debeziums_records_with_schemas_give_postgres_text() {
    let changes = debeziums("events-default.jsonl");
    let written = data("changes.jsonl");
    let wide: Vec<&Json> = written.iter().filter(|e| e["table"] == "all_types").collect();
    // What Debezium itself loses: zones, months, the currency sign, NaN in a precise decimal, and
    // that a boolean was a bit.
    let lost = ["c_timetz", "c_interval", "c_money", "c_num_unscaled", "c_bit1"];
    for (id, event) in (1..=4).zip(wide) {
        let (change, row) = find(&changes, "all_types", &id.to_string()).remove(0);
        assert!(changes.table(change).columns[0].key);
        let columns = event["columns"].as_array().unwrap().iter();
        for (column, text) in columns.zip(event["new"].as_array().unwrap()) {
            let column = column.as_str().unwrap();
            assert!(&row[column] == text || lost.contains(&column), "{column}: {text} {row}");
        }
    }
    let (_, row) = find(&changes, "all_types", "1").remove(0);
    assert_eq!(row["c_num_unscaled"], "123456789012345678901234567890.123456789");
    assert_eq!(row["c_money"], "1234.56");
    assert_eq!(row["c_timetz"], "11:14:15.123456+00");
    assert_eq!(row["c_interval"], "10303:05:06.789");
    let toasted = find(&changes, "toasted", "1");
    assert_eq!(toasted[1].1.get("big"), None, "not sent, not null");
}

#[test]
fn debeziums_records_without_schemas_are_inferred() {
    let changes = debeziums("events-plain.jsonl");
    let last = find(&changes, "users", "8").remove(0);
    let columns = changes.table(last.0).columns.iter();
    let kinds: BTreeMap<&str, &str> =
        columns.map(|column| (column.name.as_str(), column.type_name.as_str())).collect();
    assert_eq!(kinds["id"], "bigint");
    assert_eq!(kinds["deleted"], "boolean");
    assert_eq!(kinds["plan"], "text");
    assert_eq!(last.1["email"], "kept2@example.com");
    assert_eq!(last.1["deleted"], "f");
    let weird = changes.list.iter().filter(|change| changes.table(change).name == "Weird Name");
    let weird: Vec<&Change> = weird.collect();
    assert_eq!(row_of(&changes, weird[1], weird[1].new)["ünï"], "uml");
    assert_eq!(weird[2].op, Op::Delete);
    let positions = changes.list.iter().map(|change| changes.position(change));
    assert!(positions.is_sorted(), "positions grow within a partition");
}
