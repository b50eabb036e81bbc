//! The `[clickhouse]` section.

use std::collections::BTreeMap;
use std::fmt;

use serde::Deserialize;

use super::names::{VERSIONS_SUFFIX, default_name};
use crate::table::TableName;

/// How a table's versions are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Dedup {
    /// `ReplacingMergeTree`: merges drop superseded versions.
    #[default]
    Replacing,
    /// `MergeTree`: every version stays, the view takes the newest.
    Argmax,
}

/// Compression of what goes to the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Compression {
    /// None on loopback, where it only costs time; LZ4 elsewhere.
    #[default]
    Auto,
    /// As they are.
    None,
    /// LZ4 frames.
    Lz4,
}

/// The `[clickhouse]` section.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Options {
    /// The server's HTTP interface, `http://host:8123`. Default: none, the embedded engine.
    pub url: Option<String>,
    /// User. Default: `default`.
    pub user: String,
    /// Password. Default: empty.
    pub password: String,
    /// Database. Default: the source database's name.
    pub database: Option<String>,
    /// How versions are kept. Default: `replacing`.
    pub dedup: Dedup,
    /// Rows after which a batch is sent. Default: 100,000.
    pub batch_rows: usize,
    /// Encoded bytes after which a batch is sent; twice this much is held at most, one batch on
    /// its way and one filling. Default: 16 MiB.
    pub batch_bytes: usize,
    /// Milliseconds between the beginnings of two batches that are not full; ten times as many, up to
    /// 500, while rows of a copy come or changes are more than a second old. Default: 25.
    pub flush_interval_ms: u64,
    /// Tables of one batch that are written at the same time. Default: 4.
    pub concurrent_inserts: usize,
    /// Seconds for which the server may be silent while it stores a block, or before it answers a query.
    /// Default: 180.
    pub silence_timeout_s: u64,
    /// Compression. Default: `auto`.
    pub compression: Compression,
    /// Cluster for `ON CLUSTER`; engines are then the replicated ones with the server's default
    /// path and replica name. Default: none.
    pub cluster: Option<String>,
    /// Settings sent with every statement. Default: none.
    pub settings: BTreeMap<String, String>,
    /// Per source table (`"public.users"`). Default: none.
    pub tables: BTreeMap<String, TableOptions>,
}

/// A `[clickhouse.tables."schema.table"]` section.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TableOptions {
    /// The view's name; the versions are in `<name>_versions`. Default: `users` for
    /// `public.users`, `billing_users` for `billing.users`.
    pub name: Option<String>,
    /// Columns or expressions to sort by, before the key. Default: none, the key alone.
    pub order_by: Vec<String>,
    /// Partition expression. Default: none.
    pub partition_by: Option<String>,
    /// How versions are kept. Default: that of `[clickhouse]`.
    pub dedup: Option<Dedup>,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            url: None,
            user: "default".into(),
            password: String::new(),
            database: None,
            dedup: Dedup::default(),
            batch_rows: 100_000,
            batch_bytes: 16 << 20,
            flush_interval_ms: 25,
            concurrent_inserts: 4,
            silence_timeout_s: 180,
            compression: Compression::default(),
            cluster: None,
            settings: BTreeMap::new(),
            tables: BTreeMap::new(),
        }
    }
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("Options");
        shown.field("url", &self.url).field("user", &self.user).field("password", &"<redacted>");
        shown.field("database", &self.database).field("dedup", &self.dedup);
        shown.field("batch_rows", &self.batch_rows).field("batch_bytes", &self.batch_bytes);
        shown.field("flush_interval_ms", &self.flush_interval_ms);
        shown.field("silence_timeout_s", &self.silence_timeout_s);
        shown.field("concurrent_inserts", &self.concurrent_inserts);
        shown.field("compression", &self.compression).field("cluster", &self.cluster);
        shown.field("tables", &self.tables).finish_non_exhaustive()
    }
}

/// What the options come to for one table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Plan {
    pub(super) view: String,
    pub(super) dedup: Dedup,
    pub(super) order_by: Vec<String>,
    pub(super) partition_by: Option<String>,
    pub(super) cluster: Option<String>,
}

impl Options {
    pub(super) fn plan(&self, table: &TableName) -> Plan {
        let own = self.tables.get(&table.to_string()).cloned().unwrap_or_default();
        Plan {
            view: own.name.unwrap_or_else(|| default_name(table)),
            dedup: own.dedup.unwrap_or(self.dedup),
            order_by: own.order_by,
            partition_by: own.partition_by,
            cluster: self.cluster.clone(),
        }
    }
}

impl Plan {
    /// The versions table's name, unquoted.
    pub(super) fn versions_name(&self) -> String {
        format!("{}{VERSIONS_SUFFIX}", self.view)
    }

    /// Whether versions of one row may lie apart, so that the engine alone cannot collapse them.
    pub(super) fn scatters_versions(&self) -> bool {
        !self.order_by.is_empty() || self.partition_by.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_section_overrides_and_the_password_stays_hidden() {
        let text = r#"
            password = "hunter2"
            dedup = "argmax"
            [tables."billing.users"]
            name = "customers"
            dedup = "replacing"
            order_by = ["country"]
        "#;
        let options: Options = toml::from_str(text).unwrap();
        let table = TableName { schema: "billing".into(), name: "users".into() };
        let plan = options.plan(&table);
        assert_eq!((plan.view.as_str(), plan.dedup), ("customers", Dedup::Replacing));
        assert!(plan.scatters_versions());
        assert!(!format!("{options:?}").contains("hunter2"));
        assert!(toml::from_str::<Options>("batchrows = 1").is_err());
    }
}
