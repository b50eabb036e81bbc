//! What a new version makes of the last batches, beside what the running version made of them, before it
//! takes over.
//!
//! The comparison runs on the thread that loads versions, on an instance of its own, so neither the
//! stream nor the guest that is to take over notices. Of a plugin that remembers nothing can be compared:
//! what it did depended on a memory that is another one by now.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::change::{Change, Changes, Row, Value};
use crate::plugin::boundary::Fates;
use crate::plugin::chain::Member;
use crate::plugin::error::Error;
use crate::plugin::options::{OnError, Options};
use crate::plugin::versions::loader::{Loaded, Loader, Version};
use crate::position::Position;
use crate::table::Table;

/// Rows that differ of which it is told where they are.
const TOLD: usize = 5;

/// A batch as the running version got it, and what it made of it.
pub(crate) struct Seen {
    pub(crate) before: Changes,
    pub(crate) after: Changes,
    /// Where the rows stand that it failed on.
    pub(crate) failed: Vec<Position>,
    /// The settings it ran with.
    pub(crate) options: Arc<Options>,
}

impl Seen {
    /// Bytes held.
    pub(crate) fn bytes(&self) -> usize {
        self.before.bytes() + self.after.bytes()
    }
}

/// What came of a comparison. Holds no row value.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shadow {
    /// SHA-256 of the version that was compared, hex.
    pub digest: String,
    /// Batches that both versions saw.
    pub batches: usize,
    /// Rows of them that one of the versions at least was offered.
    pub rows: usize,
    /// Rows that are in one of the copies only, or deleted in one only.
    pub discarded: usize,
    /// Rows with other values.
    pub changed: usize,
    /// Rows in other tables.
    pub routed: usize,
    /// Rows that one of the versions failed on.
    pub faults: usize,
    /// The first rows that differ.
    pub first: Vec<Differing>,
    /// Why nothing was compared, if nothing was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub skipped: Option<String>,
}

/// A row that differs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Differing {
    /// `schema.table`
    pub table: String,
    /// Where the change stands.
    pub position: String,
    /// How it differs.
    pub how: How,
    /// In which columns, if it is the values.
    pub columns: Vec<String>,
}

/// How a row differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum How {
    /// It is in one of the copies only, or deleted in one only.
    Discarded,
    /// It has other values.
    Changed,
    /// It is in other tables.
    Routed,
    /// One of the versions failed on it.
    Fault,
}

impl Shadow {
    /// Rows that differ.
    #[must_use]
    pub fn differing(&self) -> usize {
        self.discarded + self.changed + self.routed + self.faults
    }

    /// Whether more than so many percent of the rows differ.
    pub(crate) fn exceeds(&self, percent: u32) -> bool {
        self.differing() as u128 * 100 > self.rows as u128 * u128::from(percent)
    }

    pub(crate) fn skipped(digest: &str, why: &str) -> Shadow {
        let (digest, skipped) = (digest.to_owned(), Some(why.to_owned()));
        Shadow { digest, skipped, ..Shadow::default() }
    }

    fn note(&mut self, table: String, position: Position, (how, columns): (How, Vec<String>)) {
        match how {
            How::Discarded => self.discarded += 1,
            How::Changed => self.changed += 1,
            How::Routed => self.routed += 1,
            How::Fault => self.faults += 1,
        }
        if self.first.len() < TOLD {
            let position = position.to_string();
            self.first.push(Differing { table, position, how, columns });
        }
    }

    /// Compares what the two versions made of a batch; `covers` are the tables that the new one is offered.
    fn compare(
        &mut self,
        seen: &Seen,
        (changes, failed): (&Changes, &[Position]),
        covers: impl Fn(&Table) -> bool,
    ) {
        let offered = |change: &&Change| {
            let table = seen.before.table(change);
            seen.options.covers(&table.schema, &table.name) || covers(table)
        };
        let (before, after) = (by_position(&seen.after), by_position(changes));
        self.batches += 1;
        // What a plugin before this one added to a row stands where the row does.
        let together = |a: &Change, b: &Change| seen.before.position(a) == seen.before.position(b);
        for row in seen.before.list.chunk_by(together) {
            let Some(change) = row.iter().find(offered) else { continue };
            let position = seen.before.position(change);
            self.rows += 1;
            let at = |list: &BTreeMap<Position, Vec<Change>>| -> Vec<Change> {
                list.get(&position).cloned().unwrap_or_default()
            };
            let difference = match (seen.failed.contains(&position), failed.contains(&position)) {
                (true, true) => None,
                (false, false) => {
                    difference((&seen.after, &at(&before)[..]), (changes, &at(&after)[..]))
                }
                _ => Some((How::Fault, Vec::new())),
            };
            if let Some(difference) = difference {
                let table = seen.before.table(change).full_name().to_string();
                self.note(table, position, difference);
            }
        }
    }
}

impl fmt::Display for Shadow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(why) = &self.skipped {
            return write!(f, "not compared with the version before: {why}");
        }
        let Shadow { rows, batches, discarded, changed, routed, faults, .. } = self;
        write!(
            f,
            "{} of {rows} rows of the last {batches} batches differ from what the version before made \
             of them ({discarded} discarded, {changed} changed, {routed} routed, {faults} faults)",
            self.differing()
        )?;
        let mut first = self.first.iter();
        first.try_for_each(|differing| write!(f, "\n  {differing}"))
    }
}

impl fmt::Display for Differing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let how = match self.how {
            How::Discarded => "discarded",
            How::Changed => "changed",
            How::Routed => "routed",
            How::Fault => "fault",
        };
        write!(f, "{} at {}: {how} {}", self.table, self.position, self.columns.join(", "))
    }
}

/// Runs a version over batches that the running one saw.
///
/// # Errors
/// It does not start.
pub(crate) fn run(loader: &Loader, version: &Version, seen: &[Arc<Seen>]) -> Result<Shadow, Error> {
    let on_error = match loader.options.on_error {
        OnError::Halt => OnError::DeadLetter,
        other => other,
    };
    let options = Options { on_error, shadow_batches: 0, ..Options::clone(&loader.options) };
    // What it counts here is not the running version's, and what it logs is not about what flows.
    let loader = Loader::new(loader.runtime.clone(), options, Arc::default()).muted();
    let loaded =
        Loaded { version: version.clone(), instance: loader.start(version)?, instead: None };
    let mut member = Member::new(loader, loaded);
    let mut shadow = Shadow { digest: version.id.digest.clone(), ..Shadow::default() };
    for seen in seen {
        let (mut changes, mut fates) = (seen.before.clone(), Fates::default());
        member.run(&mut changes, &mut fates)?;
        let failed: Vec<Position> = fates.failed().into_iter().collect();
        shadow.compare(seen, (&changes, &failed), |table| member.covers(table));
    }
    Ok(shadow)
}

fn by_position(changes: &Changes) -> BTreeMap<Position, Vec<Change>> {
    let mut all: BTreeMap<Position, Vec<Change>> = BTreeMap::new();
    for change in &changes.list {
        all.entry(changes.position(change)).or_default().push(*change);
    }
    all
}

type Made<'a> = (&'a Changes, &'a [Change]);

/// What one row became in two batches, if that is not the same.
fn difference((a, of_a): Made<'_>, (b, of_b): Made<'_>) -> Option<(How, Vec<String>)> {
    let tables = |changes: &Changes, list: &[Change]| -> Vec<String> {
        list.iter().map(|change| changes.table(change).full_name().to_string()).collect()
    };
    let (in_a, in_b) = (tables(a, of_a), tables(b, of_b));
    if in_a != in_b {
        let gone = in_a.is_empty() || in_b.is_empty();
        return Some((if gone { How::Discarded } else { How::Routed }, Vec::new()));
    }
    if of_a.iter().zip(of_b).any(|(a, b)| a.op != b.op) {
        return Some((How::Discarded, Vec::new()));
    }
    let mut columns = BTreeSet::new();
    for (change_a, change_b) in of_a.iter().zip(of_b) {
        let images = [(change_a.new, change_b.new), (change_a.old.row(), change_b.old.row())];
        for (row_a, row_b) in images {
            columns.extend(differing_columns((a, change_a, row_a), (b, change_b, row_b)));
        }
    }
    (!columns.is_empty()).then(|| (How::Changed, columns.into_iter().collect()))
}

type Image<'a> = (&'a Changes, &'a Change, Option<Row>);

/// Names of the columns in which two rows of one table are not the same, or that only one has.
fn differing_columns<'a>(a: Image<'a>, b: Image<'a>) -> Vec<String> {
    let columns = |(changes, change, _): Image<'a>| &changes.table(change).columns;
    let known = columns(b).iter().filter(|b| columns(a).iter().all(|a| a.name != b.name));
    let names = columns(a).iter().chain(known).map(|column| &column.name);
    names.filter(|name| value(a, name) != value(b, name)).cloned().collect()
}

fn value<'a>((changes, change, row): Image<'a>, name: &str) -> Option<Value<'a>> {
    let at = changes.table(change).columns.iter().position(|column| column.name == name)?;
    row.map(|row| changes.value(row, at))
}
