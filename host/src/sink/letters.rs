//! The dead letters in ClickHouse: listed, shown, read for another drive, removed.

use serde::{Deserialize, Serialize};

use super::client::Client;
use super::error::Error;
use super::names::{OWN_PREFIX, literal};
use crate::dead_letter::{DeadLetter, PluginVersion};
use crate::position::Position;

/// What tells letters apart, as the table's order does.
const ID: &str = "lower(hex(sipHash128(source_table, version, stage, plugin, original)))";

/// The dead letters of a database; cheap to clone.
#[derive(Clone)]
pub struct Letters {
    client: Client,
}

/// Which letters; all that is said must hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Chosen {
    /// One letter.
    pub id: Option<String>,
    /// Those that this plugin failed on.
    pub plugin: Option<String>,
    /// Those of this table, `schema.table`.
    pub table: Option<String>,
}

/// A letter without the row's values.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Summary {
    /// Names it.
    pub id: String,
    /// Where the change stands.
    pub position: String,
    /// `schema.table`
    pub table: String,
    /// Debezium's letter of the operation.
    pub op: String,
    /// The stage that gave up.
    pub stage: String,
    /// The plugin that failed, if one did.
    pub plugin: String,
    /// SHA-256 of that plugin, hex.
    pub digest: String,
    /// What went wrong.
    pub reason: String,
    /// Whether it can be driven through again.
    pub redrivable: bool,
    /// Where it is kept: `clickhouse`, or `kafka` if it was set aside before Kafka.
    #[serde(default)]
    pub kept: String,
    /// The functions that were running in the plugin when it trapped, innermost first, if the letter
    /// was asked for whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backtrace: Option<String>,
    /// The change itself, if that was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub original: Option<String>,
}

#[derive(Deserialize)]
struct Stored {
    id: String,
    position: String,
    source_table: String,
    op: String,
    stage: String,
    plugin: String,
    plugin_digest: String,
    reason: String,
    original: String,
    backtrace: String,
    replay: String,
}

/// How large a letter's original is.
#[derive(Deserialize)]
struct Size {
    id: String,
    bytes: usize,
}

/// The ids of the first letters whose originals have no more than so many bytes together, or of the first one.
fn first_within(sizes: &[Size], bytes: usize) -> impl Iterator<Item = &str> {
    let mut sum = 0_usize;
    let within = move |(index, size): &(usize, &Size)| {
        sum = sum.saturating_add(size.bytes);
        *index == 0 || sum <= bytes
    };
    sizes.iter().enumerate().take_while(within).map(|(_, size)| size.id.as_str())
}

/// An open letter of a plugin.
#[derive(Debug)]
pub(super) struct Open {
    pub(super) plugin: String,
    pub(super) table: String,
    pub(super) version: u128,
    /// Debezium's letter of the operation.
    pub(super) op: String,
}

#[derive(Deserialize)]
struct Found {
    version: String,
    source_table: String,
    plugin: String,
    op: String,
}

#[derive(Deserialize)]
struct Counted {
    count: String,
}

impl Chosen {
    fn condition(&self) -> String {
        let one = |column: &str, value: &Option<String>| {
            value.as_ref().map(|value| format!("{column} = {}", literal(value)))
        };
        let parts =
            [one(ID, &self.id), one("plugin", &self.plugin), one("source_table", &self.table)];
        let parts: Vec<String> = parts.into_iter().flatten().collect();
        if parts.is_empty() { "1".to_owned() } else { parts.join(" AND ") }
    }
}

impl Letters {
    pub(super) fn new(client: Client) -> Letters {
        Letters { client }
    }

    /// Letters in the order of their positions, `limit` at most; with the rows' values or without.
    ///
    /// # Errors
    /// ClickHouse does not answer or refuses.
    pub async fn list(
        &self,
        chosen: &Chosen,
        limit: usize,
        values: bool,
    ) -> Result<Vec<Summary>, Error> {
        let original = if values { ", original, nullIf(backtrace, '') AS backtrace" } else { "" };
        let sql = format!(
            "SELECT {ID} AS id, position, source_table AS `table`, op, stage, plugin, \
             plugin_digest AS digest, reason, toBool(replay != '') AS redrivable{original} \
             FROM {} FINAL WHERE {} ORDER BY version, id LIMIT {limit}",
            self.home(),
            chosen.condition(),
        );
        self.client.rows("read dead letters", &sql).await
    }

    /// How many letters there are.
    ///
    /// # Errors
    /// ClickHouse does not answer or refuses.
    pub async fn count(&self, chosen: &Chosen) -> Result<u64, Error> {
        let (home, condition) = (self.home(), chosen.condition());
        let sql = format!("SELECT toString(count()) AS count FROM {home} FINAL WHERE {condition}");
        let counted = self.client.rows::<Counted>("count dead letters", &sql).await?;
        Ok(counted.first().and_then(|counted| counted.count.parse().ok()).unwrap_or_default())
    }

    /// Letters to be driven through again and their ids, by plugin and position, from the first behind
    /// `after` on: `limit` of them, or as many as have no more than `bytes` of originals, and one at least.
    ///
    /// # Errors
    /// ClickHouse does not answer or refuses.
    pub async fn page(
        &self,
        chosen: &Chosen,
        after: Option<&(String, DeadLetter)>,
        limit: usize,
        bytes: usize,
    ) -> Result<Vec<(String, DeadLetter)>, Error> {
        let behind = after.map_or("1".to_owned(), |(id, last)| {
            let plugin = last.plugin.as_ref().map_or("", |plugin| &plugin.name);
            let (plugin, version) = (literal(plugin), last.position.version());
            format!("(plugin, version, {ID}) > ({plugin}, toUInt128('{version}'), {})", literal(id))
        });
        let (home, chosen) = (self.home(), chosen.condition());
        let sql = format!(
            "SELECT {ID} AS id, toUInt32(length(original)) AS bytes FROM {home} FINAL WHERE replay != '' \
             AND {chosen} AND {behind} ORDER BY plugin, version, id LIMIT {limit}",
        );
        let sizes = self.client.rows::<Size>("look for dead letters", &sql).await?;
        let ids = first_within(&sizes, bytes).map(literal).collect::<Vec<_>>();
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let sql = format!(
            "SELECT {ID} AS id, position, source_table, op, stage, plugin, plugin_digest, reason, original, \
             backtrace, replay FROM {home} FINAL WHERE replay != '' AND {chosen} AND {ID} IN ({}) \
             ORDER BY plugin, version, id",
            ids.join(", "),
        );
        let stored = self.client.rows::<Stored>("read dead letters", &sql).await?;
        stored.into_iter().map(letter).collect()
    }

    /// Removes letters for good; how many.
    ///
    /// # Errors
    /// ClickHouse does not answer or refuses.
    pub async fn drop(&self, chosen: &Chosen) -> Result<u64, Error> {
        let count = self.count(chosen).await?;
        self.delete(&chosen.condition()).await?;
        Ok(count)
    }

    /// Removes the letters of these ids.
    pub(super) async fn remove(&self, ids: &[String]) -> Result<(), Error> {
        if ids.is_empty() {
            return Ok(());
        }
        let ids: Vec<String> = ids.iter().map(|id| literal(id)).collect();
        self.delete(&format!("{ID} IN ({})", ids.join(", "))).await
    }

    /// The version of the newest letter of a plugin, 0 if there is none.
    pub(super) async fn newest(&self) -> Result<u128, Error> {
        let sql = format!(
            "SELECT toString(max(version)) AS version, '' AS source_table, '' AS plugin, '' AS op \
             FROM {} WHERE stage = 'transform'",
            self.home(),
        );
        Ok(self.find(&sql).await?.first().map_or(0, |newest| newest.version))
    }

    /// The letters of plugins between two positions, both included.
    pub(super) async fn between(
        &self,
        first: Position,
        last: Position,
    ) -> Result<Vec<Open>, Error> {
        let (first, last) = (first.version(), last.version());
        let sql = format!(
            "SELECT DISTINCT toString(version) AS version, source_table, plugin, op \
             FROM {} AS letters WHERE stage = 'transform' AND letters.version \
             BETWEEN toUInt128('{first}') AND toUInt128('{last}')",
            self.home(),
        );
        self.find(&sql).await
    }

    async fn find(&self, sql: &str) -> Result<Vec<Open>, Error> {
        let task = "look for dead letters";
        let open = |Found { version, source_table, plugin, op }| match version.parse() {
            Ok(version) => Ok(Open { plugin, table: source_table, version, op }),
            Err(_) => Err(Error::Answer { task: task.to_owned(), detail: literal(&version) }),
        };
        self.client.rows::<Found>(task, sql).await?.into_iter().map(open).collect()
    }

    /// Removes the letters of a plugin on these changes of a table, by version and operation.
    pub(super) async fn close(
        &self,
        plugin: &str,
        table: &str,
        changes: &[(u128, &str)],
    ) -> Result<(), Error> {
        let change = |(version, op): &(u128, &str)| format!("(toUInt128('{version}'), '{op}')");
        let changes: Vec<_> = changes.iter().map(change).collect();
        let condition = format!(
            "stage = 'transform' AND plugin = {} AND source_table = {} AND (version, op) IN ({})",
            literal(plugin),
            literal(table),
            changes.join(", "),
        );
        self.delete(&condition).await
    }

    /// Waits until it is done: who looks afterwards finds them gone.
    async fn delete(&self, condition: &str) -> Result<(), Error> {
        let sql = format!(
            "ALTER TABLE {} DELETE WHERE {condition} SETTINGS mutations_sync = 1",
            self.home()
        );
        self.client.execute("remove dead letters", &sql).await
    }

    fn home(&self) -> String {
        self.client.table(&format!("{OWN_PREFIX}dead_letters"))
    }
}

fn letter(stored: Stored) -> Result<(String, DeadLetter), Error> {
    let broken = |what: &str| Error::Answer {
        task: "read dead letters".to_owned(),
        detail: format!("a letter's {what} is not what was written"),
    };
    let plugin = PluginVersion { name: stored.plugin, digest: stored.plugin_digest };
    let letter = DeadLetter {
        position: stored.position.parse().map_err(|_| broken("position"))?,
        table: stored.source_table,
        op: stored.op,
        stage: serde_json::from_value(stored.stage.into()).map_err(|_| broken("stage"))?,
        plugin: (!plugin.name.is_empty()).then_some(plugin),
        reason: stored.reason,
        original: stored.original,
        backtrace: (!stored.backtrace.is_empty()).then_some(stored.backtrace),
        part: None,
        replay: Some(serde_json::from_str(&stored.replay).map_err(|_| broken("replay"))?),
    };
    Ok((stored.id, letter))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_letter_that_somebody_else_wrote_is_not_guessed_at() {
        let said = |position: &str, stage: &str, replay: &str| {
            let stored = serde_json::json!({
                "id": "1", "position": position, "source_table": "public.users", "op": "c",
                "stage": stage, "plugin": "", "plugin_digest": "", "reason": "", "original": "{}",
                "backtrace": "", "replay": replay,
            });
            let stored = serde_json::from_value(stored).expect("its columns");
            letter(stored).expect_err("it is none").to_string()
        };
        let begin = "ClickHouse's answer to `read dead letters` could not be read: a letter's ";
        let (position, replay) = ("here", "nothing");
        assert_eq!(
            said(position, "store", replay),
            format!("{begin}position is not what was written")
        );
        let at = Position::default().to_string();
        assert_eq!(said(&at, "nowhere", replay), format!("{begin}stage is not what was written"));
        assert_eq!(said(&at, "store", replay), format!("{begin}replay is not what was written"));
    }

    #[test]
    fn a_page_has_as_many_letters_as_fit_and_one_at_least() {
        let sizes = [7, 3, 5, 1].map(|bytes| Size { id: bytes.to_string(), bytes });
        let page = |bytes| first_within(&sizes, bytes).collect::<Vec<_>>();
        assert_eq!(page(10), ["7", "3"]);
        assert_eq!(page(2), ["7"]);
        assert_eq!(page(100), ["7", "3", "5", "1"]);
        assert_eq!(first_within(&[], 10).count(), 0);
    }
}
