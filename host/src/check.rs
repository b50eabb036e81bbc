//! `tailwater check`: whether everything that a run needs is there. Looks, and changes nothing but the
//! cache of compiled plugins.

use std::fmt;
use std::future::Future;
use std::path::Path;
use std::time::Duration;

use crate::capture::{self, SourceUrl};
use crate::config::{Config, Role};
use crate::directories;
use crate::embedded;
use crate::plugin;
use crate::serve::{Endpoint, clickhouse_version};
use crate::table::TableName;
use crate::telemetry::logging::chain;
use crate::transport;

/// How long each item is waited for.
const PATIENCE: Duration = Duration::from_secs(15);

/// What was looked at, and how it is: a few words if it is well, else one sentence with the fix.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// `source`, `plugin mask-email`, `state`, `kafka`, `clickhouse`
    pub item: String,
    /// What was found.
    pub result: Result<String, String>,
}

impl Finding {
    /// Adds what is worth a look, and no reason not to run.
    fn remark(&mut self, remark: &str) {
        if let Ok(found) = &mut self.result {
            found.push_str("; ");
            found.push_str(remark);
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.result {
            Ok(found) => write!(f, "ok    {}: {found}", self.item),
            Err(sentence) => write!(f, "FAIL  {}: {sentence}", self.item),
        }
    }
}

/// Looks at everything that the role needs, in the order of the data. The configuration must have
/// passed [`Config::require`] for that role.
pub async fn run(config: &Config, role: Role) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut tables = None;
    if role != Role::Sink {
        let looking = async {
            let (text, found) = source(config).await?;
            if role == Role::All {
                let names = config.clickhouse.names_differ(&found);
                names.map_err(|error| chain(&error))?;
            }
            tables = Some(found);
            Ok(text)
        };
        findings.push(finding("source", PATIENCE, looking).await);
    }
    let (of_plugins, remember) = plugins(config).await;
    findings.extend(of_plugins);
    for (plugin, patterns) in tables.iter().flat_map(|tables| config.idle_patterns(role, tables)) {
        let of_plugin = findings.iter_mut().find(|finding| finding.item == item(plugin));
        of_plugin.expect("each plugin was looked at").remark(&idle(&patterns));
    }
    if remember || config.state.path.is_some() && !config.plugin.is_empty() {
        let result = may_write(&config.plugin_memory(), "`[state] path`");
        findings.push(Finding { item: "state".to_owned(), result });
    }
    if let Some(options) = &config.kafka {
        findings.push(finding("kafka", PATIENCE, kafka(options.clone())).await);
    }
    if role != Role::Capture {
        let mut found = finding("clickhouse", PATIENCE, clickhouse(config)).await;
        for table in tables.iter().flat_map(|tables| config.idle_tables(role, tables)) {
            found.remark(&unknown(table));
        }
        findings.push(found);
    }
    findings
}

async fn finding(
    item: &str,
    patience: Duration,
    looking: impl Future<Output = Result<String, String>>,
) -> Finding {
    let result = tokio::time::timeout(patience, looking).await.unwrap_or_else(|_| {
        Err(format!(
            "no answer within {} s; it hangs, or a firewall drops what is sent",
            patience.as_secs()
        ))
    });
    Finding { item: item.to_owned(), result }
}

/// Also the tables that a run would stream.
async fn source(config: &Config) -> Result<(String, Vec<TableName>), String> {
    let options = &config.source;
    let url = SourceUrl::parse(options.url.expose()).map_err(|error| chain(&error))?;
    let found = capture::survey(&url, options).await.map_err(|error| chain(&error))?;
    let state = |exists: bool| if exists { "exists" } else { "is created by the first run" };
    let text = format!(
        "{url} is PostgreSQL {}, tables: {}; publication {} {}, slot {} {}",
        found.server_version / 10_000,
        found.tables.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "),
        options.publication,
        state(found.publication_exists),
        options.for_database(url.database()).slot,
        state(found.slot.is_some()),
    );
    Ok((text, found.tables))
}

/// Also whether anything is kept on disk for one of them.
async fn plugins(config: &Config) -> (Vec<Finding>, bool) {
    let (plugins, quarantine) = (config.plugin.clone(), config.quarantine());
    let unheard = |options: &plugin::Options| config.unheard_by(options).join("` and `");
    let unheard: Vec<String> = plugins.iter().map(unheard).collect();
    let looking = tokio::task::spawn_blocking(move || {
        let mut remember = false;
        let runtime = plugin::Runtime::new(plugin::compiled_code());
        let runtime = runtime.map(|runtime| runtime.with_quarantine(quarantine));
        let mut look = |(options, unheard): (&plugin::Options, &String)| {
            let runtime = runtime.as_ref().map_err(|error| chain(error))?;
            let plugin::Rehearsal { role, remembers, digest, instead } =
                plugin::rehearse(runtime, options).map_err(|error| chain(&error))?;
            remember |= remembers;
            let digest = digest.get(..12).unwrap_or(&digest);
            let instead = instead.map(|why| format!(", which goes on instead: {why}"));
            let instead = instead.unwrap_or_default();
            let deaf = role == plugin::Role::Dedup && !unheard.is_empty();
            let deaf = if deaf { deaf_to(unheard) } else { String::new() };
            Ok(format!("{} plugin, sha256 {digest}…{instead}{deaf}", role_name(role)))
        };
        let finding = |plugin: (&plugin::Options, &String)| Finding {
            item: item(&plugin.0.name),
            result: look(plugin),
        };
        let findings = plugins.iter().zip(&unheard).map(finding).collect();
        (findings, remember)
    });
    looking.await.expect("looking at a file does not panic")
}

fn item(plugin: &str) -> String {
    format!("plugin {plugin}")
}

/// What is said of a plugin of the sink that tells duplicates, and of plugins of the capture.
fn deaf_to(unheard: &str) -> String {
    format!(
        "; it does not hear of changes that `{unheard}` on the capture sets aside, so that a redrive may \
         bring an older value back: have both on one leg"
    )
}

/// What is said of a section that is of no table, with the same reserve.
fn unknown(table: &str) -> String {
    format!(
        "`{table}` in [clickhouse.tables] is none of the source's tables, most likely a typing error"
    )
}

/// What is said of patterns in a plugin's `tables` that fit no table. One may come later, or be routed
/// to by a plugin before this one, so the plugin is not refused.
fn idle(patterns: &[&str]) -> String {
    let patterns: Vec<String> = patterns.iter().map(|pattern| format!("`{pattern}`")).collect();
    format!(
        "none of the source's tables fits {} in its `tables`, most likely a typing error",
        patterns.join(" or ")
    )
}

fn role_name(role: plugin::Role) -> &'static str {
    match role {
        plugin::Role::Transform | plugin::Role::Reshape => "transform",
        plugin::Role::Dedup => "dedup",
    }
}

async fn kafka(options: transport::Options) -> Result<String, String> {
    let brokers = options.brokers.clone();
    let reaching = tokio::task::spawn_blocking(move || transport::reach(&options, PATIENCE / 2));
    let found = reaching.await.expect("asking for metadata does not panic");
    let count = found.map_err(|error| format!("{brokers}: {}", chain(&error)))?;
    Ok(format!("{brokers} answers, brokers: {count}"))
}

async fn clickhouse(config: &Config) -> Result<String, String> {
    let Some(endpoint) = Endpoint::named_by(&config.clickhouse) else {
        return engine(config);
    };
    let url = endpoint.url.clone();
    let version = clickhouse_version(endpoint).await;
    let version = version.map_err(|error| format!("{url}: {}", chain(&error)))?;
    Ok(format!("{url} is ClickHouse {version}"))
}

/// The engine's library and the directory of its data; the engine itself is not started.
fn engine(config: &Config) -> Result<String, String> {
    let found = embedded::find_library(config.embedded.library.as_deref());
    let file = found.map_err(|error| chain(&error))?;
    let directory = may_write(&config.embedded.path, "`[embedded] path`, or by --data")?;
    Ok(format!("embedded, by {}, in {directory}", file.display()))
}

/// The directory, if this user may write there.
fn may_write(directory: &Path, setting: &str) -> Result<String, String> {
    let shown = directory.display();
    match directories::may_write(directory) {
        Ok(()) => Ok(shown.to_string()),
        Err(error) => Err(format!(
            "the directory {shown} cannot be written to ({error}); give this user the right to, or name \
             another one in {setting}"
        )),
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;
    use crate::config::Secret;

    /// The kernel takes the connection of a server that hangs, and nobody answers.
    #[tokio::test]
    async fn a_source_that_hangs_is_not_waited_for_without_end() {
        let hanging = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = hanging.local_addr().expect("an address").port();
        let mut config = Config::default();
        config.source.url = Secret::new(format!("postgres://u@127.0.0.1:{port}/d"));
        let looking = async { source(&config).await.map(|(text, _)| text) };
        let found = finding("source", Duration::from_secs(1), looking).await;
        let said = found.to_string();
        assert!(said.starts_with("FAIL  source: no answer within 1 s; it hangs, or"), "{said}");
    }
}
