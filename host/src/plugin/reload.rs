//! A new version takes over while events flow.
//!
//! The directory is watched, because an atomic rename replaces the file itself. When it has been
//! quiet for a moment the file's digest decides whether there is anything to do. Everything slow
//! (reading, compiling, `init`) happens on the watching thread while the running version goes on;
//! the chain swaps at its next batch. A version that does not load changes nothing.

use std::fs;
use std::path::Path;
use std::sync::PoisonError;
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::Duration;

use notify::event::{AccessKind, AccessMode};
use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use sha2::{Digest, Sha256};

use crate::plugin::engine::hex;
use crate::plugin::error::Error;
use crate::plugin::instance::Role;
use crate::plugin::loader::{Loaded, Loader};
use crate::plugin::member::Incoming;
use crate::telemetry::metrics::PluginKindLabels;

/// How long the directory must be quiet: a build writes its output in pieces.
const QUIET: Duration = Duration::from_millis(100);

/// Watches until it is dropped.
pub(crate) struct Watch {
    _watcher: RecommendedWatcher,
}

struct Reloader {
    loader: Loader,
    incoming: Incoming,
    role: Role,
    /// Digest of the version that runs or is about to.
    accepted: String,
    /// Digest of the file when it was looked at last.
    looked_at: String,
}

/// Begins to watch a plugin's file.
pub(crate) fn watch(
    loader: Loader,
    role: Role,
    digest: String,
    incoming: Incoming,
) -> Result<Watch, Error> {
    let directory = match loader.options.path.parent() {
        Some(parent) if parent != Path::new("") => parent.to_owned(),
        _ => Path::new(".").to_owned(),
    };
    let fail = |source| Error::Watch { path: directory.clone(), source };
    let (sender, events) = mpsc::channel();
    let forward = move |event: notify::Result<notify::Event>| {
        if event.map_or(true, |event| may_change(event.kind)) {
            // The thread ends before the watcher only when the process does.
            sender.send(()).ok();
        }
    };
    let mut watcher = notify::recommended_watcher(forward).map_err(fail)?;
    watcher.watch(&directory, RecursiveMode::NonRecursive).map_err(fail)?;
    let reloader = Reloader { loader, incoming, role, accepted: digest.clone(), looked_at: digest };
    let name = format!("reload-{}", reloader.loader.options.name);
    let builder = thread::Builder::new().name(name);
    builder.spawn(move || reloader.follow(&events)).expect("a service can start a thread");
    Ok(Watch { _watcher: watcher })
}

/// Reading the file makes events too; only those after a write count.
fn may_change(kind: EventKind) -> bool {
    match kind {
        EventKind::Access(access) => access == AccessKind::Close(AccessMode::Write),
        _ => true,
    }
}

impl Reloader {
    fn follow(mut self, events: &Receiver<()>) {
        // It may have been replaced between its being loaded and being watched.
        self.look();
        while events.recv().is_ok() {
            while events.recv_timeout(QUIET).is_ok() {}
            self.look();
        }
    }

    fn look(&mut self) {
        // The file is missing for a moment while it is replaced.
        let Ok(wasm) = fs::read(&self.loader.options.path) else { return };
        let digest = hex(&Sha256::digest(&wasm));
        if digest == self.looked_at {
            return;
        }
        self.looked_at.clone_from(&digest);
        if digest == self.accepted {
            return;
        }
        match self.load() {
            Ok(loaded) => self.hand_over(loaded),
            Err(error) => self.reject(&error, &digest),
        }
    }

    fn load(&self) -> Result<Loaded, Error> {
        let loaded = self.loader.load()?;
        if (loaded.version.role == Role::Dedup) != (self.role == Role::Dedup) {
            return Err(Error::RoleChanged {
                path: self.loader.options.path.clone(),
                old: self.role.world(),
                new: loaded.version.role.world(),
            });
        }
        Ok(loaded)
    }

    fn hand_over(&mut self, loaded: Loaded) {
        let plugin = &self.loader.options.name;
        let digest = &loaded.version.id.digest;
        tracing::info!(%plugin, %digest, "new plugin version takes over at the next batch");
        self.accepted.clone_from(digest);
        *self.incoming.lock().unwrap_or_else(PoisonError::into_inner) = Some(loaded);
        self.count("accepted");
    }

    fn reject(&self, error: &Error, digest: &str) {
        let plugin = &self.loader.options.name;
        let running = &self.accepted;
        let cause = std::error::Error::source(error).map(|source| source.to_string());
        let cause = cause.unwrap_or_default();
        tracing::error!(
            %plugin, %error, cause, %digest, %running,
            "new plugin version is rejected, the running one goes on"
        );
        self.count("rejected");
    }

    fn count(&self, kind: &'static str) {
        let labels = PluginKindLabels { plugin: self.loader.options.name.clone(), kind };
        self.loader.metrics.plugin_reloads.get_or_create(&labels).inc();
    }
}
