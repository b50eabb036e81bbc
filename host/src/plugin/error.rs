//! What goes wrong with plugins.

use std::path::PathBuf;

use crate::disposition::Disposition;
use crate::position::Position;

/// Why a plugin cannot be loaded, or why the chain stops.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file cannot be read.
    #[error("plugin file {} cannot be read; check `path`", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The engine cannot be set up on this machine.
    #[error(
        "the WebAssembly engine does not start on this machine; allow memory that is made \
         executable (systemd: MemoryDenyWriteExecute=no)"
    )]
    Engine {
        /// Why.
        source: wasmtime::Error,
    },
    /// The file is no component that compiles.
    #[error(
        "{} is not a WebAssembly component; make one of a core module with `wasm-tools component \
         new`",
        path.display()
    )]
    NotAComponent {
        /// The file.
        path: PathBuf,
        /// Why.
        source: wasmtime::Error,
    },
    /// The component asks for what plugins are not given.
    #[error(
        "{} imports {}, which plugins are not given; build it without WASI (Rust: \
         wasm32-unknown-unknown, componentize-py: --stub-wasi)",
        path.display(), imports.join(", ")
    )]
    Imports {
        /// The file.
        path: PathBuf,
        /// What it imports beyond the contract.
        imports: Vec<String>,
    },
    /// The component asks for what its section does not grant.
    #[error(
        "{} imports `{grant}`, which it is not granted; add grants = [\"{grant}\"] to its section \
         if it may have it",
        path.display()
    )]
    NotGranted {
        /// The file.
        path: PathBuf,
        /// The grant's name.
        grant: &'static str,
    },
    /// The file is not the one that the section pins.
    #[error("{} has the digest {actual}, but its section pins {pinned}", path.display())]
    Digest {
        /// The file.
        path: PathBuf,
        /// What the section says.
        pinned: String,
        /// What the file has.
        actual: String,
    },
    /// The version was rolled back, or refused for what it did.
    #[error(
        "plugin {plugin}: the version {digest} with these settings is in quarantine since {since}: {why}; \
         give it another build or other settings, or {lift}"
    )]
    Quarantined {
        /// Name in the configuration.
        plugin: String,
        /// SHA-256 of the component, hex.
        digest: String,
        /// ISO 8601.
        since: String,
        /// What it did.
        why: String,
        /// How it gets another chance.
        lift: String,
    },
    /// The component implements no role.
    #[error(
        "{} implements no world of tailwater:plugin@0.1.0: {difference}; `tailwater plugin inspect` \
         shows all that differs",
        path.display()
    )]
    World {
        /// The file.
        path: PathBuf,
        /// What is missing or differs.
        difference: String,
    },
    /// A new version has another role.
    #[error("{} is now a {new} plugin but runs as {old}; restart to change its role", path.display())]
    RoleChanged {
        /// The file.
        path: PathBuf,
        /// Of the version that runs.
        old: &'static str,
        /// Of the new one.
        new: &'static str,
    },
    /// A reload would give or take a state.
    #[error("plugin {plugin}: to grant `state` or to take it back, restart")]
    GrantChanged {
        /// Name in the configuration.
        plugin: String,
    },
    /// A reload would move it to the other leg.
    #[error("plugin {plugin}: to move it to the other `stage`, restart")]
    StageChanged {
        /// Name in the configuration.
        plugin: String,
    },
    /// A reload of a plugin that is not configured any more.
    #[error(
        "plugin {plugin} has no section in the configuration any more; restart to run without it"
    )]
    SectionGone {
        /// Its name.
        plugin: String,
    },
    /// A section that came since the start.
    #[error("plugin {plugin} came into the configuration since the start; restart to run it")]
    SectionNew {
        /// Its name.
        plugin: String,
    },
    /// `init` failed.
    #[error("plugin {plugin} does not start: {reason}; check its `config`")]
    Init {
        /// Name in the configuration.
        plugin: String,
        /// What it said, or how it trapped.
        reason: String,
    },
    /// A pattern in `tables` that means nothing.
    #[error(
        "plugin {plugin}: `{pattern}` in `tables` is no table; write `users`, `public.users` or \
         `public.*`, without quotes"
    )]
    Pattern {
        /// Name in the configuration.
        plugin: String,
        /// As it was written.
        pattern: String,
    },
    /// A limit that would let nothing through.
    #[error("plugin {plugin}: `{setting}` must be at least 1")]
    Zero {
        /// Name in the configuration.
        plugin: String,
        /// Which.
        setting: &'static str,
    },
    /// A part of more than the whole.
    #[error("plugin {plugin}: `{setting}` is in percent, 100 at most")]
    Percent {
        /// Name in the configuration.
        plugin: String,
        /// Which.
        setting: &'static str,
    },
    /// Two plugins have one name.
    #[error("two plugins are named {0}; give each its own `name`")]
    NameTaken(String),
    /// Its golden events do not come out, or cannot be read.
    #[error("the golden events in {}: {why}", path.display())]
    Golden {
        /// The file with the events.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// The file cannot be watched.
    #[error(
        "{} cannot be watched for changes; raise fs.inotify.max_user_instances and \
         fs.inotify.max_user_watches (`sysctl`)",
        path.display()
    )]
    Watch {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: notify::Error,
    },
    /// A row failed and the plugin's `on_error` is `halt`.
    #[error(
        "plugin {plugin} failed on the change at {position} of {table}: {reason}; fix the plugin, \
         or set on_error = \"dead-letter\" to set such changes aside"
    )]
    Fault {
        /// Name in the configuration.
        plugin: String,
        /// The (first) change it was shown.
        position: Position,
        /// `schema.table`
        table: String,
        /// What happened.
        reason: String,
    },
    /// It fails on most of what it is shown.
    #[error(
        "plugin {plugin} failed on {failed} of the last {rows} changes and is taken for broken; the last time: \
         {reason}; give it a version that works, or raise `breaker_percent`; the changes are kept where they \
         came from"
    )]
    Broken {
        /// Name in the configuration.
        plugin: String,
        /// Changes it failed on.
        failed: u64,
        /// Changes it was shown.
        rows: u64,
        /// What happened on the last one of them.
        reason: String,
    },
    /// It hangs on all that it is shown.
    #[error(
        "plugin {plugin} hung for {deadlines} deadlines without an answer and is taken for broken; give it a \
         version that works, or raise `deadline_ms`; the changes are kept where they came from"
    )]
    Hanging {
        /// Name in the configuration.
        plugin: String,
        /// What its calls took that were cut off, without one between that was answered.
        deadlines: u32,
    },
}

impl Error {
    /// All of them need a person: a plugin that failed once on the same input fails again.
    #[must_use]
    pub fn disposition(&self) -> Disposition {
        Disposition::Halt
    }
}
