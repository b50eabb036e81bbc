//! Updates whose TOASTed values were not sent: the values are in an older version of the row.
//!
//! The older version is the newest below the update's own position, wherever it is: stored, in the
//! same batch, or itself an update that was just filled. All of them are looked at before anything
//! of the batch is stored, so no merge can drop a version that is still wanted.
//!
//! An update that is stored already, or superseded by what is, is left out first: in a replay the
//! version it built on may be gone while an even older one is still there. For an update that moved
//! its row to another key, what stands under the *new* key counts.
//! What was never stored is a dead letter, unless a truncate took it.

use bytes::Bytes;
use rustc_hash::{FxHashMap, FxHashSet};

use super::block::{Aside, Block, Encoder, Rows, StoredRow};
use super::client::Client;
use super::error::Error;
use super::names::{OWN_PREFIX, literal, quoted};
use crate::dead_letter::DeadLetter;

/// Rows whose older versions are fetched at a time, at most;
const CHUNK: usize = 500;
/// and bytes of them, unless one row alone has more. What was not sent is what is large.
const CHUNK_BYTES: usize = 16 << 20;

/// Older versions that are not stored yet, by key.
type Pending = FxHashMap<Vec<u8>, Vec<StoredRow>>;

/// What became of the rows set aside.
#[derive(Debug, Default)]
pub(super) struct Filled {
    pub(super) rows: Rows,
    pub(super) dead_letters: Vec<DeadLetter>,
}

/// Fills a table's rows set aside, some at a time.
pub(super) struct Filler<'a> {
    client: &'a Client,
    encoder: &'a Encoder,
    waiting: Vec<Aside>,
    /// How many are tried at once: less after some were too large together.
    at_once: usize,
    /// The block's own rows, and those filled since the last lookup.
    own: Pending,
    filled: Pending,
}

impl<'a> Filler<'a> {
    /// Takes the block's rows set aside.
    pub(super) fn new(client: &'a Client, block: &'a mut Block) -> Filler<'a> {
        let mut aside = std::mem::take(&mut block.aside);
        block.aside_bytes = 0;
        aside.sort_by_key(|aside| aside.position);
        let own = rows_of_interest(block, &aside);
        let filled = Pending::default();
        let (encoder, at_once) = (&block.encoder, CHUNK);
        Filler { client, encoder, waiting: aside, at_once, own, filled }
    }

    /// Fills the next rows, none when there are no more; they are to be stored before the next ones are
    /// looked up, and before the block.
    pub(super) async fn fill_next(&mut self) -> Result<Option<Filled>, Error> {
        let mut waiting = std::mem::take(&mut self.waiting);
        let filled = self.fill_first(&waiting).await;
        if filled.is_ok() {
            waiting.drain(..self.at_once.min(waiting.len()));
            self.at_once = (self.at_once * 2).min(CHUNK);
        }
        self.waiting = waiting;
        filled
    }

    async fn fill_first(&mut self, waiting: &[Aside]) -> Result<Option<Filled>, Error> {
        loop {
            let chunk = &waiting[..self.at_once.min(waiting.len())];
            if chunk.is_empty() {
                return Ok(None);
            }
            match self.fill(chunk).await {
                Err(error) if error.is_too_large() && chunk.len() > 1 => {
                    self.at_once = chunk.len() / 2;
                }
                filled => return filled.map(Some),
            }
        }
    }

    async fn fill(&mut self, chunk: &[Aside]) -> Result<Filled, Error> {
        self.filled.clear();
        let (stored, superseded) =
            tokio::try_join!(self.stored_below(chunk), self.superseded(chunk))?;
        let mut filled = Filled::default();
        let mut lost = Vec::new();
        let known = stored.into_iter().zip(superseded);
        for (aside, (stored, superseded)) in chunk.iter().zip(known) {
            if superseded {
                continue;
            }
            let version = aside.position.version();
            let below = |rows| newest_below(rows, &aside.lookup, version);
            let bases = [below(&self.own), below(&self.filled), stored];
            let base = bases.into_iter().flatten().max_by_key(|row| row.version);
            match base.filter(|base| !base.deleted) {
                Some(base) => self.fill_one(aside, &base, &mut filled),
                // What comes behind it in the block says all of the row, or that it is gone.
                None if is_below_one(&self.own, &aside.key, version) => {}
                None => lost.push(aside),
            }
        }
        if !lost.is_empty() {
            let truncated = self.truncated().await?;
            let lost = lost.into_iter().filter(|aside| aside.position.version() > truncated);
            filled.dead_letters.extend(lost.map(|aside| DeadLetter::clone(&aside.letter)));
        }
        Ok(filled)
    }

    fn fill_one(&mut self, aside: &Aside, base: &StoredRow, filled: &mut Filled) {
        let start = filled.rows.bytes.len();
        if !self.encoder.write_filled(aside, &base.cells, &mut filled.rows) {
            filled.dead_letters.push(DeadLetter::clone(&aside.letter));
            return;
        }
        let row = self.encoder.read(&filled.rows.bytes[start..], None);
        let (row, _) = row.expect("a row that was just written");
        self.filled.entry(aside.key.clone()).or_default().push(row);
    }

    /// For each row, the newest version that is stored below its own.
    async fn stored_below(&self, chunk: &[Aside]) -> Result<Vec<Option<StoredRow>>, Error> {
        let gaps: FxHashSet<usize> = chunk.iter().flat_map(|aside| aside.cells.gaps()).collect();
        let mut gaps: Vec<_> = gaps.into_iter().collect();
        gaps.sort_unstable();
        let keys = chunk.iter().map(|aside| (aside.lookup.as_slice(), aside.position.version()));
        let sql = self.lookup_sql(&gaps, wanted_literal(keys));
        let task = format!("look up older rows in `{}`", self.encoder.place.versions_name());
        let limit = (chunk.len() > 1).then_some(CHUNK_BYTES);
        let answer = self.client.look_up(&task, &sql, limit).await?;
        self.read_answer(&answer, &gaps, chunk.len())
            .ok_or_else(|| Error::Answer { task, detail: "a row is cut short".into() })
    }

    fn read_answer(
        &self,
        answer: &Bytes,
        gaps: &[usize],
        wanted: usize,
    ) -> Option<Vec<Option<StoredRow>>> {
        let mut found = vec![None; wanted];
        let mut rest = &answer[..];
        while let Some((number, after)) = rest.split_first_chunk::<4>() {
            let number = usize::try_from(u32::from_le_bytes(*number)).ok()?;
            let (row, after) = self.encoder.read(after, Some(gaps))?;
            *found.get_mut(number)? = Some(row);
            rest = after;
        }
        rest.is_empty().then_some(found)
    }

    fn lookup_sql(&self, gaps: &[usize], wanted: String) -> String {
        let column = |index: &usize| format!("{}, ", quoted(&self.encoder.stored[*index].name));
        let columns: String = gaps.iter().map(column).collect();
        let Keys { structure, names, own } = self.keys();
        let join = names.iter().zip(&own).map(|(own, name)| format!("v.{own} = w.{name}"));
        let join: Vec<_> = join.collect();
        let versions = self.encoder.place.versions();
        let (names, own, join) = (names.join(", "), own.join(", "), join.join(" AND "));
        let meta = "_version, _deleted, _commit_time, _exact";
        format!(
            "WITH wanted AS (SELECT * FROM format(RowBinary, {structure}, {wanted})) \
             SELECT w._number, {columns}{meta} \
             FROM (SELECT * FROM {versions} WHERE ({names}) IN (SELECT {own} FROM wanted)) AS v \
             INNER JOIN wanted AS w ON {join} WHERE v._version < w._below \
             ORDER BY v._version DESC LIMIT 1 BY w._number"
        )
    }

    /// For each row, whether a version at or above its own stands under its key.
    async fn superseded(&self, chunk: &[Aside]) -> Result<Vec<bool>, Error> {
        let mut superseded = vec![false; chunk.len()];
        let Keys { structure, names, own } = self.keys();
        let keys = chunk.iter().map(|aside| (aside.key.as_slice(), aside.position.version()));
        let wanted = wanted_literal(keys);
        let join = names.iter().zip(&own).map(|(own, name)| format!("v.{own} = w.{name}"));
        let join = join.collect::<Vec<_>>().join(" AND ");
        let versions = self.encoder.place.versions();
        let (names, own) = (names.join(", "), own.join(", "));
        let sql = format!(
            "WITH wanted AS (SELECT * FROM format(RowBinary, {structure}, {wanted})) \
             SELECT DISTINCT w._number \
             FROM (SELECT * FROM {versions} WHERE ({names}) IN (SELECT {own} FROM wanted)) AS v \
             INNER JOIN wanted AS w ON {join} WHERE v._version >= w._below"
        );
        let task = format!("look up newer rows in `{}`", self.encoder.place.versions_name());
        for number in self.client.look_up(&task, &sql, None).await?.as_chunks().0 {
            let number = usize::try_from(u32::from_le_bytes(*number)).ok();
            if let Some(flag) = number.and_then(|number| superseded.get_mut(number)) {
                *flag = true;
            }
        }
        Ok(superseded)
    }

    /// The version up to which rows were truncated away, by whichever process.
    async fn truncated(&self) -> Result<u128, Error> {
        let table = self.client.table(&format!("{OWN_PREFIX}truncates"));
        let view = literal(&self.encoder.place.plan.view);
        let sql = format!("SELECT max(version) FROM {table} WHERE name = {view}");
        let task = "look up the last truncate";
        let answer = self.client.look_up(task, &sql, None).await?;
        let version = answer.first_chunk::<16>().ok_or_else(|| Error::Answer {
            task: task.into(),
            detail: "a row is cut short".into(),
        })?;
        Ok(u128::from_le_bytes(*version))
    }

    fn keys(&self) -> Keys {
        let columns = || self.encoder.key_columns().enumerate();
        let types = columns().map(|(index, column)| format!(", _key{index} {}", column.ty));
        let structure = format!("_number UInt32, _below UInt128{}", types.collect::<String>());
        Keys {
            structure: literal(&structure),
            names: columns().map(|(_, column)| quoted(&column.name)).collect(),
            own: columns().map(|(index, _)| format!("_key{index}")).collect(),
        }
    }
}

/// The key's columns in the table, and in the list of what is wanted.
struct Keys {
    structure: String,
    names: Vec<String>,
    own: Vec<String>,
}

/// RowBinary of number, version and key, as a string literal.
fn wanted_literal<'a>(wanted: impl Iterator<Item = (&'a [u8], u128)>) -> String {
    let mut bytes = Vec::new();
    for (number, (key, version)) in (0u32..).zip(wanted) {
        bytes.extend_from_slice(&number.to_le_bytes());
        bytes.extend_from_slice(&version.to_le_bytes());
        bytes.extend_from_slice(key);
    }
    let mut text = String::with_capacity(bytes.len() * 4 + 2);
    text.push('\'');
    for byte in bytes {
        text.push_str("\\x");
        for nibble in [byte >> 4, byte & 15] {
            text.push(char::from_digit(nibble.into(), 16).expect("a nibble"));
        }
    }
    text.push('\'');
    text
}

/// The block's own rows that rows set aside may build on.
fn rows_of_interest(block: &Block, aside: &[Aside]) -> Pending {
    let lookups: FxHashSet<&[u8]> = aside.iter().map(|aside| aside.lookup.as_slice()).collect();
    let mut pending = Pending::default();
    if lookups.is_empty() {
        return pending;
    }
    for rows in [&block.rows, &block.late] {
        let mut rest = &rows.bytes[..];
        while !rest.is_empty() {
            let (row, after) = block.encoder.read(rest, None).expect("a row that was written");
            let key = block.encoder.key_of(&row.cells);
            if lookups.contains(key.as_slice()) {
                pending.entry(key).or_default().push(row);
            }
            rest = after;
        }
    }
    pending
}

fn is_below_one(pending: &Pending, key: &[u8], version: u128) -> bool {
    pending.get(key).is_some_and(|rows| rows.iter().any(|row| row.version > version))
}

fn newest_below(pending: &Pending, key: &[u8], version: u128) -> Option<StoredRow> {
    let rows = pending.get(key)?.iter().filter(|row| row.version < version);
    rows.max_by_key(|row| row.version).cloned()
}
