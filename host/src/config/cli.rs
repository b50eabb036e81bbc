//! The command line.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use clap::{Args, Parser, Subcommand, ValueEnum};
use tailwater_project::{self as plugin_project, Language};

use super::{Config, DEFAULT_FILE, Secret};
use crate::plugin;
use crate::redrive::LISTED;
use crate::serve::listen_address;
use crate::telemetry::logging;

/// Tails a PostgreSQL write-ahead log, through WebAssembly plugins, over Kafka, into an exact copy
/// in ClickHouse.
#[derive(Debug, Parser)]
#[command(name = "tailwater", version, propagate_version = true)]
#[command(
    after_help = "Exit codes: 0 done, 1 failed while running, 2 usage or configuration error, \
                        3 not ready (check, status), 130 stopped before draining was over."
)]
pub struct Cli {
    /// Configuration file [default: ./tailwater.toml if it exists]
    #[arg(long, short, global = true, value_name = "FILE", env = "TAILWATER_CONFIG")]
    pub config: Option<PathBuf>,
    /// Log lines as text or JSON, over `[log] format`
    #[arg(long, global = true, value_name = "FORMAT", env = "TAILWATER_LOG_FORMAT")]
    pub log_format: Option<logging::Format>,
    /// What to log, over `[log] level`: error, warn, info, debug, trace, or per module
    #[arg(long, global = true, value_name = "LEVEL", env = "TAILWATER_LOG")]
    pub log_level: Option<logging::Level>,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Clone, Subcommand)]
pub enum Command {
    /// Run the pipeline until told to stop
    Run(RunArgs),
    /// Check the configuration, and that source, plugins, Kafka and ClickHouse are reachable
    Check(CheckArgs),
    /// Print what a running instance is doing
    Status(InstanceArgs),
    /// Plugins: make, build, test and look into them, have them reloaded
    #[command(subcommand)]
    Plugin(PluginCommand),
    /// Dead letters: look at them, drive them through again, drop them
    #[command(subcommand)]
    Dlq(DlqCommand),
    /// Have a running instance copy a table again, or drop a copy that does not fit
    Snapshot(SnapshotArgs),
    /// The embedded ClickHouse engine
    #[command(subcommand)]
    Embedded(EmbeddedCommand),
    /// Tokens of the HTTP interface
    #[command(subcommand)]
    Token(TokenCommand),
    /// The embedded engine's own process; started by `run`
    #[command(name = "__clickhouse", hide = true)]
    Clickhouse {
        /// Arguments of the engine.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<OsString>,
    },
}

/// `run`
#[derive(Debug, Clone, Default, Args)]
pub struct RunArgs {
    /// The source database: any libpq URL, over `[source] url`
    #[arg(long, value_name = "URL", env = "TAILWATER_SOURCE", hide_env_values = true)]
    pub source: Option<Secret>,
    /// Address of the HTTP interface, over `[http] listen`
    #[arg(long, value_name = "ADDR", value_parser = listen_address)]
    pub listen: Option<SocketAddr>,
    /// Directory of the embedded engine, over `[embedded] path`
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// Which legs to run
    #[arg(long, value_enum, default_value_t)]
    pub role: Role,
    /// Build plugins from source and again when it changes, for development: those in the projects
    /// named, or, without a name, the configured ones that lie in their project
    #[arg(long, value_name = "DIR", num_args = 0..)]
    pub watch: Option<Vec<PathBuf>>,
}

/// `check`
#[derive(Debug, Clone, Default, Args)]
pub struct CheckArgs {
    /// The source database: any libpq URL, over `[source] url`
    #[arg(long, value_name = "URL", env = "TAILWATER_SOURCE", hide_env_values = true)]
    pub source: Option<Secret>,
    /// Check what this role needs
    #[arg(long, value_enum, default_value_t)]
    pub role: Role,
}

/// Which running instance is asked: all of `status`, and a part of other commands.
#[derive(Debug, Clone, Args)]
pub struct InstanceArgs {
    /// The running instance [default: the address in `[http] listen`]
    #[arg(long, value_name = "URL")]
    pub url: Option<String>,
    /// A token with the scope `admin`
    #[arg(long, env = "TAILWATER_TOKEN", hide_env_values = true)]
    pub token: Option<Secret>,
}

/// `plugin`
#[derive(Debug, Clone, Subcommand)]
pub enum PluginCommand {
    /// Make a project in a new directory
    New {
        /// Its name, and the directory's: small letters, digits and -
        name: String,
        /// The language: rust, go, js, python or c
        #[arg(long, value_name = "LANGUAGE")]
        lang: Language,
        /// What it does: transform or dedup
        #[arg(long, value_name = "ROLE", default_value = "transform")]
        role: plugin_project::Role,
    },
    /// Compile a project into the component NAME.wasm in its directory
    Build {
        /// The project's directory
        #[arg(default_value = ".", value_name = "DIR")]
        directory: PathBuf,
    },
    /// Print a component's role, digest, size, imports and the grants it needs, and of each table of its
    /// golden events, if there are any, what it is shown and what becomes of it
    Inspect(PluginArgs),
    /// Run a component over its golden events, offline, and show what differs and what it costs; exit code
    /// 1 if something differs
    Test(PluginArgs),
    /// Measure time and instructions per event of golden events, for batches of several sizes
    Bench(PluginArgs),
    /// Have a running instance read a plugin's settings and file again; exit code 1 if the version is not
    /// taken
    Reload {
        /// Its name in the configuration
        name: String,
        /// Where.
        #[command(flatten)]
        at: InstanceArgs,
    },
}

/// `plugin inspect`, `plugin test`, `plugin bench`
#[derive(Debug, Clone, Args)]
pub struct PluginArgs {
    /// The component, or the directory of its project
    #[arg(default_value = ".")]
    pub path: PathBuf,
    /// The events [default: the component's name with `.golden.jsonl`; the project's golden.jsonl]
    #[arg(long, value_name = "FILE")]
    pub golden: Option<PathBuf>,
}

/// `dlq`
#[derive(Debug, Clone, Subcommand)]
pub enum DlqCommand {
    /// List them by position, without what their rows hold
    List {
        /// List so many at the most; a last line says how many more there are
        #[arg(long, value_name = "N", default_value_t = LISTED)]
        limit: usize,
        /// Which ones.
        #[command(flatten)]
        choice: DlqChoice,
        /// Where.
        #[command(flatten)]
        at: InstanceArgs,
    },
    /// Print one with its row
    Show {
        /// Its id, as listed
        id: String,
        /// Where.
        #[command(flatten)]
        at: InstanceArgs,
    },
    /// Drive them through again, from the plugin that failed on, until what becomes of them is stored or sent;
    /// exit code 1 if some are left
    Redrive {
        /// Which ones.
        #[command(flatten)]
        choice: DlqChoice,
        /// Where.
        #[command(flatten)]
        at: InstanceArgs,
    },
    /// Remove them for good
    Drop {
        /// Which ones.
        #[command(flatten)]
        choice: DlqChoice,
        /// Where.
        #[command(flatten)]
        at: InstanceArgs,
    },
}

/// Which dead letters; all that is given must fit.
#[derive(Debug, Clone, Default, Args)]
pub struct DlqChoice {
    /// The one of that id
    #[arg(long)]
    pub id: Option<String>,
    /// Those that this plugin failed on
    #[arg(long, value_name = "NAME")]
    pub plugin: Option<String>,
    /// Those of this table
    #[arg(long, value_name = "SCHEMA.TABLE")]
    pub table: Option<String>,
    /// Every one
    #[arg(long, conflicts_with_all = ["id", "plugin", "table"])]
    pub all: bool,
}

/// `snapshot`
#[derive(Debug, Clone, Args)]
pub struct SnapshotArgs {
    /// The table in the source
    #[arg(value_name = "SCHEMA.TABLE")]
    pub table: String,
    /// Ask nobody, but drop the table's copy in ClickHouse, while no instance runs; the next start copies
    /// the table anew
    #[arg(long, conflicts_with = "url")]
    pub replace: bool,
    /// With --replace: drop also what has this name there and was not made by Tailwater
    #[arg(long, value_name = "NAME", requires = "replace")]
    pub drop: Vec<String>,
    /// Where.
    #[command(flatten)]
    pub at: InstanceArgs,
}

/// `embedded`
#[derive(Debug, Clone, Copy, Subcommand)]
pub enum EmbeddedCommand {
    /// Download the engine's library
    Fetch,
}

/// `token`
#[derive(Debug, Clone, Copy, Subcommand)]
pub enum TokenCommand {
    /// Make a token, and print it with its hash
    New,
    /// Read a token from standard input and print its hash
    Hash,
}

/// Which legs one process runs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum Role {
    /// Source to ClickHouse
    #[default]
    All,
    /// Source to Kafka
    Capture,
    /// Kafka to ClickHouse
    Sink,
}

impl std::str::FromStr for Secret {
    type Err = std::convert::Infallible;

    fn from_str(value: &str) -> Result<Secret, Self::Err> {
        Ok(Secret::new(value))
    }
}

/// Which settings a command needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Needs {
    /// None.
    Nothing,
    /// Where the running instance is.
    Instance,
    /// All that there are.
    Everything,
}

impl Command {
    pub(super) fn needs(&self) -> Needs {
        let at = match self {
            // An author's plugin is tried with what it might be granted, wherever it is to run.
            Command::Token(_)
            | Command::Plugin(
                PluginCommand::New { .. }
                | PluginCommand::Build { .. }
                | PluginCommand::Inspect(_)
                | PluginCommand::Test(_)
                | PluginCommand::Bench(_),
            ) => return Needs::Nothing,
            Command::Snapshot(snapshot) if snapshot.replace => return Needs::Everything,
            Command::Run(_)
            | Command::Check(_)
            | Command::Embedded(_)
            | Command::Clickhouse { .. } => return Needs::Everything,
            Command::Status(at)
            | Command::Plugin(PluginCommand::Reload { at, .. })
            | Command::Snapshot(SnapshotArgs { at, .. })
            | Command::Dlq(
                DlqCommand::List { at, .. }
                | DlqCommand::Show { at, .. }
                | DlqCommand::Redrive { at, .. }
                | DlqCommand::Drop { at, .. },
            ) => at,
        };
        if at.url.is_some() { Needs::Nothing } else { Needs::Instance }
    }
}

impl Cli {
    /// The configuration file, if there is one.
    pub(super) fn file(&self) -> Option<&Path> {
        let default = Path::new(DEFAULT_FILE);
        self.config.as_deref().or_else(|| default.is_file().then_some(default))
    }

    /// Lays the command line over the file's settings.
    pub(super) fn apply(&self, config: &mut Config) {
        if let Some(format) = self.log_format {
            config.log.format = format;
        }
        if let Some(level) = &self.log_level {
            config.log.level = level.clone();
        }
        let source = match &self.command {
            Command::Run(run) => {
                if let Some(listen) = run.listen {
                    config.http.listen = listen;
                }
                if let Some(data) = &run.data {
                    config.embedded.path = data.clone();
                }
                for project in run.watch.iter().flatten() {
                    add_project(&mut config.plugin, project);
                }
                &run.source
            }
            Command::Check(check) => &check.source,
            Command::Status(_)
            | Command::Plugin(_)
            | Command::Dlq(_)
            | Command::Snapshot(_)
            | Command::Embedded(_)
            | Command::Token(_)
            | Command::Clickhouse { .. } => &None,
        };
        if let Some(source) = source {
            config.source.url = source.clone();
        }
    }
}

/// A plugin that is being written, unless it is configured. It is granted all there is, and may take
/// the room and time that an interpreter needs.
fn add_project(plugins: &mut Vec<plugin::Options>, project: &Path) {
    // A directory that is not there is told when it is built.
    let Ok(component) = plugin_project::output(project) else { return };
    let is_same = |path: &Path| match (path.canonicalize(), component.canonicalize()) {
        (Ok(path), Ok(component)) => path == component,
        _ => path == component,
    };
    if !plugins.iter().any(|plugin| is_same(&plugin.path)) {
        let options = plugin::Options::of_component(&component, plugin::Grant::ALL.to_vec());
        plugins.push(plugin::Options { memory_mb: 256, deadline_ms: 10_000, ..options });
    }
}
