//! What single keys cannot tell: whether the sections fit each other and the role.

use std::collections::HashSet;

use url::Url;

use super::{Config, ConfigError, Role};
use crate::capture::SourceUrl;
use crate::plugin::{self, OnError, Stage};
use crate::table::TableName;
use crate::transport;

impl Config {
    /// Whether the sections fit each other, whatever the role.
    ///
    /// # Errors
    /// [`ConfigError::Conflict`] with what to change.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let checks = [
            self.http.validate(),
            self.plugins_differ(),
            self.sizes_are_positive(),
            self.clickhouse_is_usable(),
            self.tables_have_a_schema(),
            self.topics_are_a_pattern(),
        ];
        checks.into_iter().collect::<Result<(), String>>().map_err(ConfigError::Conflict)
    }

    /// Whether the role's settings are all there; called before anything starts.
    ///
    /// # Errors
    /// [`ConfigError::Conflict`] with what to add.
    pub fn require(&self, role: Role) -> Result<(), ConfigError> {
        let conflict = |what: &str| Err(ConfigError::Conflict(what.to_owned()));
        if role != Role::Sink && self.source.url.is_empty() {
            return conflict(
                "no source database: give --source postgres://user@host/database, or `url` in \
                 section [source] of the configuration file",
            );
        }
        match (role, &self.kafka) {
            (Role::Capture, None) => conflict(
                "--role capture writes to Kafka, and there is no section [kafka]; add it with \
                 `brokers`, or leave out --role for the direct way into ClickHouse",
            ),
            (Role::Sink, None) => conflict(
                "--role sink reads from Kafka, and there is no section [kafka]; add it with \
                 `brokers`, or leave out --role for the direct way into ClickHouse",
            ),
            (Role::All, _) | (_, Some(_)) => self.source_database().map(drop),
        }
    }

    /// Plugins, each with the patterns of its `tables` that fit none of the source's tables: most likely
    /// typing errors, and such a plugin then does nothing, in silence. None of a plugin whose tables may
    /// come from elsewhere than this source.
    #[must_use]
    pub fn idle_patterns<'a>(
        &'a self,
        role: Role,
        tables: &[TableName],
    ) -> Vec<(&'a str, Vec<&'a str>)> {
        let is_shown_them = |plugin: &&plugin::Options| match plugin.stage {
            Stage::Capture => role != Role::Sink,
            Stage::Sink => self.stores_the_source(role),
        };
        let idle =
            |plugin: &'a plugin::Options| (plugin.name.as_str(), plugin.idle_patterns(tables));
        let plugins = self.plugin.iter().filter(is_shown_them).map(idle);
        plugins.filter(|(_, patterns)| !patterns.is_empty()).collect()
    }

    /// Tables with a section of their own in `[clickhouse.tables]` that are none of the source's: most likely
    /// typing errors, and the section then does nothing, in silence. None where other tables may come.
    #[must_use]
    pub fn idle_tables(&self, role: Role, tables: &[TableName]) -> Vec<&str> {
        if !self.stores_the_source(role) {
            return Vec::new();
        }
        let known: HashSet<String> = tables.iter().map(ToString::to_string).collect();
        let named = self.clickhouse.tables.keys().map(String::as_str);
        named.filter(|name| !known.contains(*name)).collect()
    }

    /// Whether what is stored is what this process captures, and nothing else.
    fn stores_the_source(&self, role: Role) -> bool {
        let all_topics = self.kafka.as_ref().is_none_or(|kafka| kafka.topics.is_none());
        role == Role::All && all_topics
    }

    /// Of a plugin of the sink that tells duplicates: the plugins of the capture that may set changes aside
    /// of which it never hears, because Kafka is between them.
    #[must_use]
    pub fn unheard_by<'a>(&'a self, deduplicating: &plugin::Options) -> Vec<&'a str> {
        if self.kafka.is_none() || deduplicating.stage != Stage::Sink {
            return Vec::new();
        }
        let sets_aside = |plugin: &&plugin::Options| {
            plugin.stage == Stage::Capture
                && plugin.on_error == OnError::DeadLetter
                && plugin.may_share_tables(deduplicating)
        };
        self.plugin.iter().filter(sets_aside).map(|plugin| plugin.name.as_str()).collect()
    }

    /// The source database's name, which topics and the ClickHouse database are named after. A sink
    /// without a source goes by `[kafka] prefix`, or else `[clickhouse] database`.
    ///
    /// # Errors
    /// [`ConfigError::Conflict`] if there is neither, or the source's URL cannot be parsed.
    pub fn source_database(&self) -> Result<String, ConfigError> {
        if !self.source.url.is_empty() {
            let url = SourceUrl::parse(self.source.url.expose());
            let url = url.map_err(|error| ConfigError::Conflict(error.to_string()))?;
            return Ok(url.database().to_owned());
        }
        let prefix = self.kafka.as_ref().and_then(|kafka| kafka.prefix.clone());
        prefix.or_else(|| self.clickhouse.database.clone()).ok_or_else(|| {
            ConfigError::Conflict(
                "without a source it is not known which topics to read: set `prefix` in section \
                 [kafka] (the topics are <prefix>.<schema>.<table>)"
                    .to_owned(),
            )
        })
    }

    /// By what the source whose rows are in ClickHouse is told from others: its database's name, or over Kafka
    /// the prefix of its topics.
    #[must_use]
    pub fn source_name<'a>(&'a self, database: &'a str) -> &'a str {
        self.kafka.as_ref().map_or(database, |kafka| kafka.prefix(database))
    }

    fn plugins_differ(&self) -> Result<(), String> {
        let mut seen = HashSet::new();
        for plugin in &self.plugin {
            if plugin.name.is_empty() {
                return Err("a [[plugin]] has an empty `name`; give it one".to_owned());
            }
            if !seen.insert(plugin.name.as_str()) {
                return Err(format!("two [[plugin]] have the name `{}`", plugin.name));
            }
        }
        Ok(())
    }

    fn sizes_are_positive(&self) -> Result<(), String> {
        let sink = &self.clickhouse;
        let mut sizes = vec![
            ("[source] snapshot_workers", self.source.snapshot_workers),
            ("[clickhouse] batch_rows", sink.batch_rows),
            ("[clickhouse] batch_bytes", sink.batch_bytes),
            ("[clickhouse] concurrent_inserts", sink.concurrent_inserts),
            (
                "[clickhouse] silence_timeout_s",
                usize::try_from(sink.silence_timeout_s).unwrap_or(usize::MAX),
            ),
        ];
        if let Some(kafka) = &self.kafka {
            sizes.extend([
                ("[kafka] partitions", usize::try_from(kafka.partitions).unwrap_or(0)),
                ("[kafka] transaction_bytes", kafka.transaction_bytes),
                ("[kafka] batch_rows", kafka.batch_rows),
                ("[kafka] batch_bytes", kafka.batch_bytes),
                ("[kafka] fetch_bytes", kafka.fetch_bytes as usize),
                ("[kafka] queue_kbytes", kafka.queue_kbytes as usize),
                ("[kafka] max_message_bytes", kafka.max_message_bytes as usize),
                ("[kafka] brokers", kafka.brokers.trim().len()),
            ]);
            if u64::from(kafka.max_message_bytes) > u64::from(kafka.queue_kbytes) * 1024 {
                return Err(
                    "`[kafka] max_message_bytes` is more than `queue_kbytes` holds; raise \
                            `queue_kbytes`"
                        .to_owned(),
                );
            }
            if kafka.replication != -1 && kafka.replication < 1 {
                return Err("`[kafka] replication` is 1 or more, or -1 for the broker's own".into());
            }
        }
        match sizes.into_iter().find(|(_, size)| *size == 0) {
            Some(("[kafka] brokers", _)) => Err("`[kafka] brokers` is empty".to_owned()),
            Some((key, _)) => Err(format!("`{key}` is a whole number, 1 or more")),
            None => Ok(()),
        }
    }

    fn clickhouse_is_usable(&self) -> Result<(), String> {
        let Some(text) = &self.clickhouse.url else {
            return match &self.clickhouse.cluster {
                Some(_) => {
                    Err("`[clickhouse] cluster` needs a server: set `[clickhouse] url`; the \
                                embedded engine has no clusters"
                        .to_owned())
                }
                None => Ok(()),
            };
        };
        let shape = "`[clickhouse] url` is the HTTP interface of a server: http://host:8123";
        let url = Url::parse(text).map_err(|_| shape.to_owned())?;
        if url.scheme() == "https" {
            return Err(format!(
                "{shape}; https is not supported, put a TLS proxy beside Tailwater"
            ));
        }
        if url.scheme() != "http" || url.host_str().is_none() {
            return Err(shape.to_owned());
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(format!("{shape}; user and password are keys of their own"));
        }
        match url.query() {
            Some(_) => Err(format!("{shape}; settings belong into [clickhouse.settings]")),
            None => Ok(()),
        }
    }

    /// Without its `^` librdkafka takes a pattern for a topic's name, of which there is none, and reads
    /// nothing.
    fn topics_are_a_pattern(&self) -> Result<(), String> {
        let of_a_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        match self.kafka.as_ref().and_then(|kafka| kafka.topics.as_deref()) {
            Some("") => Err("`[kafka] topics` is empty; leave it out for all topics below the \
                             prefix"
                .to_owned()),
            Some(topics) if !topics.starts_with('^') && !topics.chars().all(of_a_name) => {
                Err(format!(
                    "`[kafka] topics` is a regular expression and begins with `^`: not `{topics}`, \
                     but `^{topics}`"
                ))
            }
            Some(topics) if !transport::is_pattern(topics) => Err(format!(
                "`[kafka] topics` is no regular expression: `{topics}`; every bracket in it is closed, \
                 or has a backslash before it"
            )),
            Some(_) | None => Ok(()),
        }
    }

    fn tables_have_a_schema(&self) -> Result<(), String> {
        let named = self.clickhouse.tables.keys().map(|name| ("[clickhouse.tables]", name));
        let listed = self.source.tables.iter().map(|name| ("`[source] tables`", name));
        let left_out = self.source.exclude.iter().map(|name| ("`[source] exclude`", name));
        let mut all = named.chain(listed).chain(left_out);
        match all.find(|(_, name)| !name.contains('.')) {
            Some((place, name)) => Err(format!(
                "{place} names tables as schema.table: not `{name}`, but `public.{name}`"
            )),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_of_topics_that_does_not_compile_is_refused() {
        let config: Config = toml::from_str("[kafka]\ntopics = \"^shop(\"\n").expect("settings");
        let said = config.validate().expect_err("it is no pattern").to_string();
        assert!(said.contains("`[kafka] topics` is no regular expression: `^shop(`"), "{said}");
    }
}
