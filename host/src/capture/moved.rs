//! Changes that leave a TOASTed value alone which nobody after us could find, so the source is asked for it: updates
//! that move a row to another key, over Kafka; and inserts, which have such gaps where an update brought a row
//! into a publication's filter, either way.
//!
//! To Debezium, and so in a topic, such an update is a delete of the old key and a create of the new
//! one, which may be in different partitions: whoever reads the create cannot look the value up under the
//! old key, for that may be deleted already. The direct way needs none of this, for the sink sees the
//! update whole.
//!
//! # Why the copy is exact all the same
//!
//! The answer is the row that stands under the new key *now*, which is at or after the update: it is asked
//! for once the update's transaction is visible. If the value is another one by now, if the row was moved
//! on or deleted, or if another row has taken the key, then that change is in the log behind the update.
//! It carries the value, or deletes the key, or is such an update itself, and whatever the update showed
//! early is overwritten. So a reader may see a value before the change that wrote it; it never keeps a
//! wrong one. A row that is not there any more leaves the gap as it is; a change behind says that it is
//! gone, and a letter of it may be listed until then and after.

use std::time::Duration;

use rustc_hash::FxHashMap;
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, SimpleQueryMessage};

use super::error::Error;
use super::preflight::{quote, quote_ident};
use crate::change::{Cell, Change, Changes, Old, Op, Row, Value};
use crate::table::{Column, Table, TableName};

/// Such changes in one batch, and so rows that are asked for with one statement.
pub const MOST: usize = 64;
/// A batch that holds this much is completed no further, in bytes.
const MOST_BYTES: usize = 1 << 30;
/// Between two looks whether a transaction is visible. The server sends a commit once it is in the log,
/// which may be long before, with a synchronous standby.
const PAUSE: Duration = Duration::from_millis(20);

/// Whether a change that was just decoded may be one; updates only if `whole_moves`. The batch has no text yet.
#[must_use]
pub fn may_have_gaps(changes: &Changes, change: &Change, whole_moves: bool) -> bool {
    let new = match (change.op, change.old, change.new) {
        (Op::Update, Old::Key(_), Some(new)) if whole_moves => new,
        (Op::Insert, _, Some(new)) => new,
        _ => return false,
    };
    let columns = changes.table(change).columns.len();
    (0..columns).any(|column| changes.cell(new, column) == Cell::UNCHANGED)
}

/// Fills the gaps of such changes.
///
/// # Errors
/// A query's error.
pub async fn complete(
    client: &Client,
    changes: &mut Changes,
    whole_moves: bool,
) -> Result<(), Error> {
    let mut tables: FxHashMap<u32, Vec<usize>> = FxHashMap::default();
    for (index, change) in changes.list.iter().enumerate() {
        let stays = change.op == Op::Update && !changes.key_changed(change);
        if may_have_gaps(changes, change, whole_moves) && !stays {
            tables.entry(change.table).or_default().push(index);
        }
    }
    let mut xids: Vec<u32> = tables.values().flatten().map(|index| xid(changes, *index)).collect();
    xids.sort_unstable();
    xids.dedup();
    visible(client, &xids).await?;
    for moved in tables.values() {
        for moved in moved.chunks(MOST) {
            complete_some(client, changes, moved).await?;
        }
    }
    Ok(())
}

/// Waits until these transactions, which have committed, are visible to others.
///
/// # Errors
/// A query's error.
pub async fn visible(client: &Client, xids: &[u32]) -> Result<(), Error> {
    while !xids.is_empty() && !Snapshot::now(client).await?.shows(xids) {
        tokio::time::sleep(PAUSE).await;
    }
    Ok(())
}

fn xid(changes: &Changes, index: usize) -> u32 {
    changes.transaction(&changes.list[index]).xid
}

/// Fills those of one table version.
async fn complete_some(
    client: &Client,
    changes: &mut Changes,
    moved: &[usize],
) -> Result<(), Error> {
    let gaps = gaps(changes, moved);
    let Some((names, answer)) = ask(client, changes, moved, &gaps).await? else { return Ok(()) };
    // Of what was dropped since nothing can be asked, and nobody is shown it.
    let (gaps, dropped): (Vec<_>, Vec<_>) =
        gaps.into_iter().partition(|column| names.columns[*column].is_some());
    for index in moved {
        let Some(new) = changes.list[*index].new else { continue };
        for column in &dropped {
            fill(changes, new, *column, None);
        }
    }
    for found in &answer {
        let SimpleQueryMessage::Row(found) = found else { continue };
        let index = found.get(0).and_then(|number| moved.get(number.parse::<usize>().ok()?));
        let Some(new) = index.and_then(|index| changes.list[*index].new) else { continue };
        for (place, column) in gaps.iter().enumerate() {
            fill(changes, new, *column, found.get(place + 1));
        }
    }
    Ok(())
}

fn fill(changes: &mut Changes, row: Row, column: usize, text: Option<&str>) {
    let room = changes.bytes() + text.map_or(0, str::len) < MOST_BYTES;
    if changes.cell(row, column) == Cell::UNCHANGED && room {
        let cell = text.map_or(Cell::NULL, |text| changes.push_text(text.as_bytes()));
        changes.set_cell(row, column, cell);
    }
}

/// What a table and its columns are called now, since they may have been renamed, and other columns have their names.
#[derive(Debug, PartialEq, Eq)]
struct Names {
    table: TableName,
    /// A partitioned table has its rows in its partitions. Children of plain inheritance are tables of their own.
    partitioned: bool,
    /// In the order of the table's columns; nothing if it was dropped.
    columns: Vec<Option<String>>,
    /// The transactions that gave these names.
    given_by: Vec<String>,
}

impl Names {
    /// Nothing if the table is gone.
    async fn now(client: &Client, table: &Table) -> Result<Option<Names>, Error> {
        const SQL: &str = "
            SELECT n.nspname::text, c.relname::text, c.xmin::text, a.attnum, a.attname::text, a.xmin::text,
                   c.relkind = 'p'
            FROM pg_class c
            JOIN pg_namespace n ON n.oid = c.relnamespace
            JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
            WHERE c.oid = $1 ORDER BY a.attnum";
        let rows = client.query(SQL, &[&table.oid]).await?;
        let Some(first) = rows.first() else { return Ok(None) };
        let numbered: FxHashMap<i16, String> =
            rows.iter().map(|row| (row.get(3), row.get(4))).collect();
        let name = |column: &Column| match column.number {
            Some(number) => numbered.get(&number).cloned(),
            None => Some(column.name.clone()),
        };
        Ok(Some(Names {
            table: TableName { schema: first.get(0), name: first.get(1) },
            partitioned: first.get(6),
            columns: table.columns.iter().map(name).collect(),
            given_by: rows.iter().flat_map(|row| [row.get(2), row.get(5)]).collect(),
        }))
    }
}

/// Asks for the rows, by names that are the same before and after; nothing if they cannot be asked for.
async fn ask(
    client: &Client,
    changes: &Changes,
    moved: &[usize],
    gaps: &[usize],
) -> Result<Option<(Names, Vec<SimpleQueryMessage>)>, Error> {
    let Some(first) = moved.first() else { return Ok(None) };
    let table = changes.table(&changes.list[*first]);
    let mut names = Names::now(client, table).await?;
    while let Some(known) = names {
        let Some(sql) = sql(changes, moved, gaps, &known) else { return Ok(None) };
        let answer = client.simple_query(&sql).await;
        names = Names::now(client, table).await?;
        if names.as_ref() != Some(&known) {
            continue;
        }
        return match answer {
            Ok(answer) => Ok(Some((known, answer))),
            // The gaps stay, and the sink sets aside what it cannot fill.
            Err(error) if error.code().is_some_and(|code| GONE.contains(&code)) => Ok(None),
            Err(error) => Err(error.into()),
        };
    }
    Ok(None)
}

/// What cannot be asked for any more, or by this user: dropped, of another type, not granted.
const GONE: [&SqlState; 5] = [
    &SqlState::UNDEFINED_TABLE,
    &SqlState::UNDEFINED_COLUMN,
    &SqlState::INVALID_SCHEMA_NAME,
    &SqlState::INVALID_TEXT_REPRESENTATION,
    &SqlState::INSUFFICIENT_PRIVILEGE,
];

/// The columns that one of these changes does not tell.
fn gaps(changes: &Changes, moved: &[usize]) -> Vec<usize> {
    let change = |index: &usize| &changes.list[*index];
    let Some(first) = moved.first() else { return Vec::new() };
    let table = changes.table(change(first));
    let is_gap = |column: &usize| {
        let news = moved.iter().filter_map(|index| change(index).new);
        !table.columns[*column].key
            && news.into_iter().any(|new| changes.cell(new, *column) == Cell::UNCHANGED)
    };
    (0..table.columns.len()).filter(is_gap).collect()
}

/// Asks for each row by its new key, numbered; in the text form that the stream has, too. Nothing if there is no
/// such key any more, or nothing to ask for.
fn sql(changes: &Changes, moved: &[usize], gaps: &[usize], names: &Names) -> Option<String> {
    let name = |column: usize| names.columns[column].as_deref().map(quote_ident);
    let wanted: Vec<String> = gaps.iter().filter_map(|gap| name(*gap)).collect();
    let mut rows = Vec::with_capacity(moved.len());
    for (number, index) in moved.iter().enumerate() {
        let change = &changes.list[*index];
        let equals = |column| {
            let value = literal(key_value(changes, change, column)?)?;
            Some(format!("{} = {value}", name(column)?))
        };
        let key = changes.table(change).key().map(equals).collect::<Option<Vec<_>>>()?;
        let row = [vec![number.to_string()], wanted.clone()].concat().join(", ");
        let (table, key) = (quote(&names.table), key.join(" AND "));
        let only = if names.partitioned { "" } else { "ONLY " };
        rows.push(format!("SELECT {row} FROM {only}{table} WHERE {key}"));
    }
    (!gaps.is_empty()).then(|| rows.join(" UNION ALL "))
}

/// The new key's value; what was not sent of it is the old one's.
fn key_value<'a>(changes: &'a Changes, change: &Change, column: usize) -> Option<&'a [u8]> {
    match (changes.value(change.new?, column), change.old.row()) {
        (Value::Text(text), _) => Some(text),
        (Value::Unchanged, Some(old)) => match changes.value(old, column) {
            Value::Text(text) => Some(text),
            Value::Null | Value::Unchanged => None,
        },
        (Value::Null | Value::Unchanged, _) => None,
    }
}

/// A text as an SQL literal of no type yet.
fn literal(text: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(text).ok()?;
    Some(format!("E'{}'", text.replace('\\', "\\\\").replace('\'', "''")))
}

/// What a statement sees.
#[derive(Debug)]
struct Snapshot {
    /// Transactions from this one on are not visible.
    end: u64,
    /// Those before it that are not visible either.
    open: Vec<u64>,
}

impl Snapshot {
    async fn now(client: &Client) -> Result<Snapshot, Error> {
        const SQL: &str = "SELECT pg_snapshot_xmax(s)::text::int8,
             ARRAY(SELECT x::text::int8 FROM pg_snapshot_xip(s) x) FROM pg_current_snapshot() s";
        let row = client.query_one(SQL, &[]).await?;
        let open = row.get::<_, Vec<i64>>(1).into_iter().map(i64::cast_unsigned).collect();
        Ok(Snapshot { end: row.get::<_, i64>(0).cast_unsigned(), open })
    }

    /// Whether all of these transactions, which have committed, are visible. The stream tells the lower half
    /// of their numbers.
    fn shows(&self, xids: &[u32]) -> bool {
        xids.iter().all(|xid| {
            let behind = u32::try_from(self.end & 0xFFFF_FFFF).unwrap_or(0).wrapping_sub(*xid);
            // The nearest one: half of the numbers are in the past.
            let past = behind != 0 && behind < 1 << 31;
            past && !self.open.contains(&(self.end - u64::from(behind)))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_transaction_is_visible_once_no_snapshot_holds_it_open() {
        let snapshot = Snapshot { end: (3 << 32) + 10, open: vec![(3 << 32) + 7, (2 << 32) + 9] };
        assert!(snapshot.shows(&[6, 8, 9]));
        assert!(!snapshot.shows(&[6, 7]), "it is open");
        assert!(!snapshot.shows(&[10]) && !snapshot.shows(&[11]), "it is not there yet");
        assert!(snapshot.shows(&[u32::MAX]), "of the numbers before");
        assert!(snapshot.shows(&[]));
    }

    #[test]
    fn a_key_is_written_so_that_it_stays_one_literal() {
        assert_eq!(literal(br"it's \ that").as_deref(), Some(r"E'it''s \\ that'"));
        assert_eq!(literal(b"\xff"), None);
    }
}
