//! `[[plugin]]`: one plugin of the chain, in the order of the file.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;
use serde_json::Value as Json;

use crate::plugin::error::Error;
use crate::plugin::guest::Role;
use crate::table::TableName;

/// One plugin.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Options {
    /// Its name in logs, metrics and dead letters; unique.
    pub name: String,
    /// The component. The file is watched; a new one takes over while events flow.
    pub path: PathBuf,
    /// The leg it runs on. Default `capture`.
    #[serde(default)]
    pub stage: Stage,
    /// The tables it is offered: `public.users`, `public.*`, or `users` in any schema. Default: all.
    #[serde(default)]
    pub tables: Vec<String>,
    /// What becomes of a row it fails on. Default `dead-letter`.
    #[serde(default)]
    pub on_error: OnError,
    /// Linear memory an instance may hold, in MiB. Default 64.
    #[serde(default = "default_memory_mb")]
    pub memory_mb: u32,
    /// Time one call may take, in milliseconds. Default 1000.
    #[serde(default = "default_deadline_ms")]
    pub deadline_ms: u64,
    /// What one call may hand back, in MiB of the host's memory. Default 64.
    #[serde(default = "default_output_mb")]
    pub output_mb: u32,
    /// Rows one call is shown at most. Default 4096.
    #[serde(default = "default_batch_rows")]
    pub batch_rows: u32,
    /// How often a row is shown again after a fault the plugin calls retryable. Default 3.
    #[serde(default = "default_retries")]
    pub retries: u32,
    /// Dedup only: rows remembered at most, the oldest are forgotten first. Default 100000.
    #[serde(default = "default_window_keys")]
    pub window_keys: usize,
    /// Dedup only: a row is forgotten when a commit is this many seconds younger. Default 3600.
    #[serde(default = "default_window_seconds")]
    pub window_seconds: u32,
    /// What a plugin that is granted `state` may keep there, in MiB of the host's memory; of a sink,
    /// in each partition. Default 16.
    #[serde(default = "default_state_mb")]
    pub state_mb: u32,
    /// Rows after which it is looked whether the plugin fails on most of them; 32 calls in a row that
    /// end at their deadline count as much. 0: never. Default 1000.
    #[serde(default = "default_breaker_rows")]
    pub breaker_rows: u64,
    /// Percent of them that it may fail on; with more the pipeline stops, and loses nothing.
    /// Default 50.
    #[serde(default = "default_breaker_percent")]
    pub breaker_percent: u32,
    /// Rows that a new version must see before the version before is let go; until then it is rolled
    /// back if it fails on more than the other. 0: no probation. Default 10000.
    #[serde(default = "default_probation_rows")]
    pub probation_rows: u64,
    /// Seconds after which the version before is let go, however few rows the new one saw.
    /// Default 86400.
    #[serde(default = "default_probation_seconds")]
    pub probation_seconds: u64,
    /// Percent of a batch's rows that a version on probation may fail on without a second look.
    /// Default 0.
    #[serde(default)]
    pub probation_fault_percent: u32,
    /// Batches that a new version is shown before it takes over, to compare what it makes of them with
    /// what the running version made of them. 0: none. Default 0.
    #[serde(default)]
    pub shadow_batches: u32,
    /// Percent of their rows in `tables` that may differ; with more the new version is refused. Default 100.
    #[serde(default = "default_shadow_limit")]
    pub shadow_limit: u32,
    /// Lines it may log in a second; those beyond are counted. Default 20.
    #[serde(default = "default_log_lines_per_second")]
    pub log_lines_per_second: u32,
    /// What it is given beyond logs and counters. Default: nothing.
    #[serde(default)]
    pub grants: Vec<Grant>,
    /// SHA-256 that the file must have, hex. Default: any.
    pub digest: Option<String>,
    /// Handed to the plugin's `init` as JSON. Default: empty.
    #[serde(default)]
    pub config: toml::Table,
}

/// The `[state]` section.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct StateOptions {
    /// Directory of what plugins remember; one process uses it at a time. Default: `plugin-state` in
    /// `[embedded] path`.
    pub path: Option<PathBuf>,
}

/// A leg of the pipeline.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stage {
    /// Before Kafka (with the direct transport: the only leg).
    #[default]
    Capture,
    /// Before ClickHouse.
    Sink,
}

/// What a plugin may be given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Grant {
    /// The time of day.
    Clock,
    /// A memory of its own.
    State,
}

impl Grant {
    /// All there are.
    pub const ALL: [Grant; 2] = [Grant::Clock, Grant::State];

    /// As in the configuration.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Grant::Clock => "clock",
            Grant::State => "state",
        }
    }

    /// Whether an import is what it gives, in any compatible version.
    pub(crate) fn covers(self, import: &str) -> bool {
        let interface = import.strip_prefix("tailwater:plugin/");
        let name = interface.and_then(|interface| interface.split_once("@0.1."));
        name.is_some_and(|(name, _)| name == self.name())
    }

    pub(crate) fn is_imported(self, imports: &[String]) -> bool {
        imports.iter().any(|import| self.covers(import))
    }
}

/// What becomes of a row that a plugin fails on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnError {
    /// It is set aside, and the rest goes on.
    #[default]
    DeadLetter,
    /// It goes no further, and is counted: `tailwater_plugin_faults_total{kind="skipped"}`.
    Skip,
    /// The pipeline stops with an error; nothing is lost.
    Halt,
}

fn default_memory_mb() -> u32 {
    64
}

fn default_deadline_ms() -> u64 {
    1000
}

fn default_output_mb() -> u32 {
    64
}

fn default_batch_rows() -> u32 {
    4096
}

fn default_state_mb() -> u32 {
    16
}

fn default_retries() -> u32 {
    3
}

fn default_breaker_rows() -> u64 {
    1000
}

fn default_breaker_percent() -> u32 {
    50
}

fn default_probation_rows() -> u64 {
    10_000
}

fn default_probation_seconds() -> u64 {
    86_400
}

fn default_shadow_limit() -> u32 {
    100
}

fn default_log_lines_per_second() -> u32 {
    20
}

fn default_window_keys() -> usize {
    100_000
}

fn default_window_seconds() -> u32 {
    3600
}

impl Options {
    /// A component by itself, with every setting at its default but what it is given.
    #[must_use]
    pub fn of_component(path: &Path, grants: Vec<Grant>) -> Options {
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let mut section = toml::Table::new();
        section.insert("name".to_owned(), name.into());
        section.insert("path".to_owned(), path.to_string_lossy().into_owned().into());
        let options = Options::deserialize(section).expect("a name and a path are enough");
        Options { grants, path: path.to_owned(), ..options }
    }

    /// Whether it may have a state.
    pub(crate) fn has_state(&self) -> bool {
        self.grants.contains(&Grant::State)
    }

    /// Whether anything is kept for a plugin of that role.
    pub(crate) fn remembers_as(&self, role: Role) -> bool {
        role == Role::Dedup || self.has_state()
    }

    /// Whether the plugin is offered a table.
    #[must_use]
    pub fn covers(&self, schema: &str, table: &str) -> bool {
        let covers = |pattern: &String| matches(pattern, schema, table);
        self.tables.is_empty() || self.tables.iter().any(covers)
    }

    /// Whether there may be a table that both plugins are offered.
    #[must_use]
    pub fn may_share_tables(&self, other: &Options) -> bool {
        let any = self.tables.is_empty() || other.tables.is_empty();
        any || self.tables.iter().any(|a| other.tables.iter().any(|b| may_meet(a, b)))
    }

    /// Checks what the file's syntax cannot.
    ///
    /// # Errors
    /// [`Error::Pattern`], [`Error::Zero`], [`Error::Percent`].
    pub fn check(&self) -> Result<(), Error> {
        let plugin = || self.name.clone();
        if let Some(pattern) = self.tables.iter().find(|pattern| !is_pattern(pattern)) {
            return Err(Error::Pattern { plugin: plugin(), pattern: pattern.clone() });
        }
        let sizes = [
            ("memory_mb", u64::from(self.memory_mb)),
            ("deadline_ms", self.deadline_ms),
            ("output_mb", u64::from(self.output_mb)),
            ("batch_rows", u64::from(self.batch_rows)),
            ("state_mb", u64::from(self.state_mb)),
        ];
        if let Some((setting, _)) = sizes.into_iter().find(|(_, size)| *size == 0) {
            return Err(Error::Zero { plugin: plugin(), setting });
        }
        let shares = [
            ("breaker_percent", self.breaker_percent),
            ("probation_fault_percent", self.probation_fault_percent),
            ("shadow_limit", self.shadow_limit),
        ];
        match shares.into_iter().find(|(_, percent)| *percent > 100) {
            Some((setting, _)) => Err(Error::Percent { plugin: plugin(), setting }),
            None => Ok(()),
        }
    }

    /// Patterns of [`tables`](Self::tables) that fit none of these tables.
    #[must_use]
    pub fn idle_patterns(&self, tables: &[TableName]) -> Vec<&str> {
        let fits =
            |pattern: &str| tables.iter().any(|table| matches(pattern, &table.schema, &table.name));
        self.tables.iter().map(String::as_str).filter(|pattern| !fits(pattern)).collect()
    }

    /// The `config` table as JSON; a date becomes text.
    #[must_use]
    pub fn config_json(&self) -> String {
        json(&toml::Value::Table(self.config.clone())).to_string()
    }

    pub(crate) fn deadline(&self) -> Duration {
        Duration::from_millis(self.deadline_ms.max(1))
    }
}

fn matches(pattern: &str, schema: &str, table: &str) -> bool {
    match pattern.split_once('.') {
        Some((of_schema, "*")) => of_schema == schema,
        Some((of_schema, name)) => of_schema == schema && name == table,
        None => pattern == table,
    }
}

/// Whether two patterns may fit one table.
fn may_meet(a: &str, b: &str) -> bool {
    let parts = |pattern: &str| match pattern.split_once('.') {
        Some((schema, "*")) => (Some(schema.to_owned()), None),
        Some((schema, table)) => (Some(schema.to_owned()), Some(table.to_owned())),
        None => (None, Some(pattern.to_owned())),
    };
    let meet = |a: Option<String>, b: Option<String>| a.is_none() || b.is_none() || a == b;
    let ((schema_a, table_a), (schema_b, table_b)) = (parts(a), parts(b));
    meet(schema_a, schema_b) && meet(table_a, table_b)
}

/// A table, a schema's table, or all of a schema; a star stands for nothing else.
fn is_pattern(pattern: &str) -> bool {
    let name = |name: &str| !name.is_empty() && !name.contains(['*', '"']);
    match pattern.split_once('.') {
        Some((schema, table)) => name(schema) && (table == "*" || name(table)),
        None => name(pattern),
    }
}

fn json(value: &toml::Value) -> Json {
    match value {
        toml::Value::String(text) => Json::String(text.clone()),
        toml::Value::Integer(number) => Json::from(*number),
        toml::Value::Float(number) => Json::from(*number),
        toml::Value::Boolean(truth) => Json::Bool(*truth),
        toml::Value::Datetime(date) => Json::String(date.to_string()),
        toml::Value::Array(items) => Json::Array(items.iter().map(json).collect()),
        toml::Value::Table(table) => {
            Json::Object(table.iter().map(|(key, value)| (key.clone(), json(value))).collect())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(text: &str) -> Options {
        toml::from_str(&format!("name = 'p'\npath = 'p.wasm'\n{text}")).unwrap()
    }

    #[test]
    fn without_tables_all_are_covered() {
        assert!(options("").covers("public", "users"));
    }

    #[test]
    fn a_star_covers_a_schema_only() {
        let options = options("tables = ['public.users', 'billing.*']");
        assert!(options.covers("public", "users"));
        assert!(!options.covers("public", "orders"));
        assert!(options.covers("billing", "orders"));
    }

    #[test]
    fn patterns_meet_where_one_table_may_fit_both() {
        let meet = |a: &str, b: &str| {
            options(&format!("tables = [{a}]"))
                .may_share_tables(&options(&format!("tables = [{b}]")))
        };
        assert!(meet("", "'public.users'") && meet("'users'", "'public.*'"));
        assert!(meet("'public.users', 'a.b'", "'users'") && meet("'public.*'", "'public.users'"));
        assert!(!meet("'users'", "'orders'") && !meet("'public.*'", "'billing.users'"));
        assert!(!meet("'public.users'", "'public.orders'"));
    }

    #[test]
    fn what_is_no_table_pattern_is_refused() {
        for pattern in ["", "*", "public.", ".users", "public.user*", "p*.users", "\"Users\""] {
            let error = options(&format!("tables = ['{pattern}']")).check().unwrap_err();
            assert!(matches!(error, Error::Pattern { .. }), "{pattern}");
        }
        options("tables = ['users', 'public.users', 'public.*', 'Odd Name.x y']").check().unwrap();
    }

    #[test]
    fn a_limit_of_zero_is_refused() {
        let error = options("deadline_ms = 0").check().unwrap_err();
        assert_eq!(error.to_string(), "plugin p: `deadline_ms` must be at least 1");
    }

    #[test]
    fn patterns_that_fit_no_table_are_found() {
        let table = TableName { schema: "public".into(), name: "users".into() };
        let options = options("tables = ['public.*', 'users', 'public.user']");
        assert_eq!(options.idle_patterns(&[table]), ["public.user"]);
    }

    #[test]
    fn config_becomes_json_text() {
        let options = options("config = { columns = ['email'], since = 2026-01-02, n = 1 }");
        let expected = r#"{"columns":["email"],"n":1,"since":"2026-01-02"}"#;
        let parsed: Json = serde_json::from_str(&options.config_json()).unwrap();
        assert_eq!(parsed, serde_json::from_str::<Json>(expected).unwrap());
    }

    #[test]
    fn an_unknown_key_is_an_error() {
        assert!(toml::from_str::<Options>("name = 'p'\npath = 'p.wasm'\nmemory = 1").is_err());
    }
}
