//! The configuration: a TOML file, the environment, the command line, in rising precedence.
//!
//! Every stage owns its section: an `Options` struct with `deny_unknown_fields` and a documented
//! default for every key. This module only puts them together: a new section is one field of
//! [`Config`].

mod arguments;
mod cli;
mod coherence;
mod file;
mod secret;

use std::io;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::telemetry::logging;
use crate::transport::Setting;
use crate::{capture, embedded, plugin, serve, sink, transport};

pub use arguments::{move_secrets, read_arguments};
use cli::Needs;
pub use cli::{
    CheckArgs, Cli, Command, DlqChoice, DlqCommand, EmbeddedCommand, InstanceArgs, PluginArgs,
    PluginCommand, Role, RunArgs, SnapshotArgs, TokenCommand,
};
use file::parse_sections;
pub use file::{Environment, parse};
pub use secret::{REDACTED, Secret, redact_url};

/// The file that is read when `--config` names none and it exists.
pub const DEFAULT_FILE: &str = "tailwater.toml";

/// What the process tells the shell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Ended as asked.
    Done = 0,
    /// Failed while running: what was acknowledged is safe, the rest is replayed at the next start.
    Failed = 1,
    /// The command line or the configuration is wrong; nothing was started.
    Usage = 2,
    /// `check` found a precondition that does not hold, or `status` an instance that is not ready.
    NotReady = 3,
    /// A second SIGTERM or SIGINT ended the draining.
    Aborted = 130,
}

impl From<Exit> for std::process::ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("{}: cannot be read; name another file by --config", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A mistake in the file.
    #[error("{}:{line}: {what}", path.display())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// Line, from 1.
        line: usize,
        /// What is wrong, and what is allowed. Never a secret value.
        what: String,
    },
    /// Every key is fine by itself, the whole is not.
    #[error("{0}")]
    Conflict(String),
}

/// All settings of one process.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// `[source]`: PostgreSQL.
    pub source: capture::Options,
    /// `[kafka]`: Kafka between the two legs. Default: none, changes go directly to ClickHouse.
    pub kafka: Option<transport::Options>,
    /// `[clickhouse]`: the server and its tables.
    pub clickhouse: sink::Options,
    /// `[embedded]`: the engine that stands in for a server.
    pub embedded: embedded::Options,
    /// `[[plugin]]`: the chain, in the order of the file.
    pub plugin: Vec<plugin::Options>,
    /// `[state]`: where what plugins remember is kept.
    pub state: plugin::StateOptions,
    /// `[http]`: the HTTP interface.
    pub http: serve::Options,
    /// `[log]`: what is logged, and how.
    pub log: logging::Options,
}

impl Config {
    /// The settings that a command needs: none, those that tell where the instance is that it asks, or
    /// all, as [`Config::load`] reads them.
    ///
    /// # Errors
    /// [`ConfigError`]: one sentence each.
    pub fn load_for(cli: &Cli, environment: Environment<'_>) -> Result<Config, ConfigError> {
        match cli.command.needs() {
            Needs::Everything => Config::load(cli, environment),
            needs => {
                let mut config = match cli.file() {
                    Some(path) if needs == Needs::Instance => {
                        // What else is in it may hold variables that only the service has.
                        parse_sections(&read_text(path)?, path, environment, &["http", "log"])?
                    }
                    Some(_) | None => Config::default(),
                };
                cli.apply(&mut config);
                Ok(config)
            }
        }
    }

    /// All settings: the file named (or [`DEFAULT_FILE`] if it exists, or nothing),
    /// then the command line on top.
    ///
    /// # Errors
    /// [`ConfigError`]: one sentence each.
    pub fn load(cli: &Cli, environment: Environment<'_>) -> Result<Config, ConfigError> {
        let mut config = match cli.file() {
            Some(path) => Config::read(path, environment)?,
            None => Config::default(),
        };
        cli.apply(&mut config);
        config.source.over_kafka = config.kafka.is_some();
        config.validate()?;
        Ok(config)
    }

    /// Reads one file. Relative paths in it start from its directory.
    ///
    /// # Errors
    /// [`ConfigError::Unreadable`] and [`ConfigError::Invalid`].
    pub fn read(path: &Path, environment: Environment<'_>) -> Result<Config, ConfigError> {
        let mut config: Config = parse(&read_text(path)?, path, environment)?;
        config.start_paths_from(path.parent().unwrap_or(Path::new("")));
        Ok(config)
    }

    /// The directory of what plugins remember.
    #[must_use]
    pub fn plugin_memory(&self) -> PathBuf {
        self.state.path.clone().unwrap_or_else(|| self.embedded.path.join("plugin-state"))
    }

    /// The directory of which versions of plugins are not to run again.
    #[must_use]
    pub fn quarantine(&self) -> PathBuf {
        self.plugin_memory().join("quarantine")
    }

    fn start_paths_from(&mut self, directory: &Path) {
        let plugins = self.plugin.iter_mut().map(|plugin| &mut plugin.path);
        let embedded = std::iter::once(&mut self.embedded.path).chain(&mut self.embedded.library);
        for path in plugins.chain(embedded).chain(&mut self.state.path) {
            *path = directory.join(&*path);
        }
        let settings = self.kafka.iter_mut().flat_map(|kafka| &mut kafka.librdkafka);
        for (name, value) in settings {
            match value {
                // `probe` is librdkafka's word for the system's own certificates.
                Setting::Text(file) if name.ends_with(".location") && file != "probe" => {
                    *file = directory.join(&*file).to_string_lossy().into_owned();
                }
                Setting::Text(_) | Setting::Number(_) | Setting::Switch(_) => {}
            }
        }
    }
}

fn read_text(path: &Path) -> Result<String, ConfigError> {
    std::fs::read_to_string(path)
        .map_err(|source| ConfigError::Unreadable { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests;
