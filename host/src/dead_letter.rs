//! A change that could not be processed: kept whole, with the reason, so that it blocks nothing,
//! is never lost silently, and can be driven through again.

mod open;
mod replay;

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value as Json};
use sha2::{Digest, Sha256};

use crate::change::{Change, Changes, Old, Row, Value};
use crate::position::Position;
use crate::table::Table;

pub(crate) use open::Noted;
pub use open::{OpenLetters, Passed};
pub use replay::{Replay, changes_of};

/// The stage that gave up on the change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Stage {
    /// A plugin faulted.
    Transform,
    /// The change could not be read or written as a Kafka record.
    Encode,
    /// The change could not be written as a ClickHouse row.
    Store,
}

/// The plugin that faulted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PluginVersion {
    /// Name in the configuration.
    pub name: String,
    /// SHA-256 of the component, hex.
    pub digest: String,
}

/// A change that was set aside.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeadLetter {
    /// Where the change stands.
    pub position: Position,
    /// `schema.table`.
    pub table: String,
    /// Debezium's letter of the operation.
    pub op: String,
    /// The stage that gave up.
    pub stage: Stage,
    /// The plugin that faulted, if one did.
    pub plugin: Option<PluginVersion>,
    /// What went wrong; holds no row value.
    pub reason: String,
    /// The change as JSON: `{"before": {column: text|null}, "after": …}`, values in PostgreSQL's
    /// text form; a column that was not sent is left out.
    pub original: String,
    /// The functions that were running in the plugin when it trapped, innermost first, one a line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backtrace: Option<String>,
    /// Which part of the original this is, if it had to be divided.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub part: Option<Part>,
    /// How the change is driven through again; none of a record that could not be read. Of a letter
    /// in parts the first one has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replay: Option<Replay>,
}

/// A part of a dead letter whose original is larger than what carries it. The first one has besides its
/// piece of the original what is not needed to put them together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// From 1 on.
    pub number: usize,
    /// How many there are.
    pub of: usize,
}

impl DeadLetter {
    /// Sets a change aside.
    #[must_use]
    pub fn new(
        changes: &Changes,
        change: &Change,
        stage: Stage,
        plugin: Option<PluginVersion>,
        reason: String,
    ) -> DeadLetter {
        let table = changes.table(change);
        let row = |row: Option<Row>| {
            row.map_or(Json::Null, |row| Json::Object(row_as_json(changes, table, row)))
        };
        let mut original = Map::new();
        original.insert("before".into(), row(change.old.row()));
        original.insert("after".into(), row(change.new));
        DeadLetter {
            position: changes.position(change),
            table: table.full_name().to_string(),
            op: change.op.code().to_owned(),
            stage,
            plugin,
            reason,
            original: Json::Object(original).to_string(),
            backtrace: None,
            part: None,
            replay: Some(Replay {
                table: Arc::clone(table),
                lsn: change.lsn,
                committed_at: changes.transaction(change).committed_at,
                xid: changes.transaction(change).xid,
                whole_before: matches!(change.old, Old::Full(_)),
                scope: String::new(),
            }),
        }
    }

    /// Whether it is the same change, given up on at the same place.
    #[must_use]
    pub fn is_again(&self, other: &DeadLetter) -> bool {
        let name = |letter: &DeadLetter| letter.plugin.as_ref().map(|plugin| plugin.name.clone());
        (self.position, &self.table, self.stage) == (other.position, &other.table, other.stage)
            && name(self) == name(other)
            && self.original == other.original
    }

    /// What it is called where nothing else names it: 32 hex digits. The same change, given up on at
    /// the same place, is called the same.
    #[must_use]
    pub fn id(&self) -> String {
        let name = self.plugin.as_ref().map_or("", |plugin| &plugin.name);
        let stage = serde_json::to_string(&self.stage).expect("a stage is a word");
        let mut digest = Sha256::new();
        for part in [&self.table, &self.position.to_string(), &stage, name, &self.original] {
            digest.update((part.len() as u64).to_le_bytes());
            digest.update(part);
        }
        let digest = digest.finalize();
        digest[..16].iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// The part of the source whose memory the plugins had of the change.
    #[must_use]
    pub fn scope(&self) -> &str {
        self.replay.as_ref().map_or("", |replay| &replay.scope)
    }

    /// Itself if its original takes at most so many bytes as a JSON string, beside what says how it is
    /// driven through again and the backtrace, else in parts that do. Of these two is left out what takes more
    /// than half of the bytes, or of what the other leaves.
    #[must_use]
    pub fn parts(&self, bytes: usize) -> Vec<DeadLetter> {
        let mut room = bytes;
        let mut fits = |takes: usize| {
            let fits = takes <= room / 2;
            room -= if fits { takes } else { 0 };
            fits
        };
        let replay = self.replay.clone().filter(|replay| fits(replay.bytes()));
        let backtrace = self.backtrace.clone().filter(|text| fits(json_bytes(text)));
        let pieces = pieces(&self.original, room);
        if pieces.len() <= 1 {
            return vec![DeadLetter { replay, backtrace, ..self.clone() }];
        }
        let of = pieces.len();
        let part = |(index, piece): (usize, &str)| DeadLetter {
            position: self.position,
            table: self.table.clone(),
            op: self.op.clone(),
            stage: self.stage,
            plugin: self.plugin.clone(),
            reason: self.reason.clone(),
            original: piece.to_owned(),
            backtrace: backtrace.clone().filter(|_| index == 0),
            part: Some(Part { number: index + 1, of }),
            replay: replay.clone().filter(|_| index == 0),
        };
        pieces.into_iter().enumerate().map(part).collect()
    }
}

/// What a text takes in JSON, without its quotes.
fn json_bytes(text: &str) -> usize {
    text.chars().map(in_json).sum()
}

fn in_json(character: char) -> usize {
    match character {
        '"' | '\\' => 2,
        '\0'..='\x1f' => 6,
        _ => character.len_utf8(),
    }
}

/// Cuts a text between characters so that each piece takes at most so many bytes in JSON; a
/// character that takes more is a piece of its own.
fn pieces(text: &str, bytes: usize) -> Vec<&str> {
    let (mut pieces, mut start, mut taken) = (Vec::new(), 0, 0);
    for (at, character) in text.char_indices() {
        let takes = in_json(character);
        if taken + takes > bytes && at > start {
            pieces.push(&text[start..at]);
            (start, taken) = (at, 0);
        }
        taken += takes;
    }
    pieces.push(&text[start..]);
    pieces
}

fn row_as_json(changes: &Changes, table: &Table, row: Row) -> Map<String, Json> {
    let cell = |index| match changes.value(row, index) {
        Value::Null => Some(Json::Null),
        Value::Unchanged => None,
        Value::Text(text) => Some(Json::String(String::from_utf8_lossy(text).into_owned())),
    };
    let columns = table.columns.iter().enumerate();
    columns.filter_map(|(index, column)| Some((column.name.clone(), cell(index)?))).collect()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::position::Lsn;

    pub(crate) fn letter(original: &str) -> DeadLetter {
        DeadLetter {
            position: Position { commit: Lsn(7), ordinal: 1 },
            table: "public.notes".into(),
            op: "c".into(),
            stage: Stage::Encode,
            plugin: None,
            reason: "too large".into(),
            original: original.into(),
            backtrace: None,
            part: None,
            replay: None,
        }
    }

    #[test]
    fn a_letter_that_fits_is_one_and_says_nothing_of_parts() {
        let whole = letter("{\"after\":null}");
        assert_eq!(whole.parts(100), std::slice::from_ref(&whole));
        assert!(!serde_json::to_string(&whole).unwrap().contains("part"));
    }

    #[test]
    fn the_parts_of_a_letter_fit_and_make_up_the_original() {
        let original = "ünï\"\\\u{1}🚀 plain".repeat(50);
        for bytes in [6, 7, 10, 64] {
            let parts = letter(&original).parts(bytes);
            let texts = parts.iter().map(|part| serde_json::to_string(&part.original).unwrap());
            assert!(texts.into_iter().all(|text| text.len() - 2 <= bytes));
            let joined: String = parts.iter().map(|part| part.original.as_str()).collect();
            assert_eq!(joined, original);
            let last = Part { number: parts.len(), of: parts.len() };
            assert_eq!(parts.last().unwrap().part, Some(last));
        }
    }

    #[test]
    fn a_backtrace_comes_with_the_first_part_and_takes_room_of_its_own() {
        let told = |lines: usize| Some("  \"main\"\n".repeat(lines));
        let whole = DeadLetter { backtrace: told(10), ..letter(&"x".repeat(500)) };
        let parts = whole.parts(400);
        let pieces: Vec<usize> = parts.iter().map(|part| part.original.len()).collect();
        assert_eq!((pieces, &parts[0].backtrace), (vec![240, 240, 20], &told(10)));
        assert!(parts[1..].iter().all(|part| part.backtrace.is_none()));
        let whole = DeadLetter { backtrace: told(100), ..letter("short") };
        assert_eq!(whole.parts(400)[0].backtrace, None, "the row matters more");
    }
}
