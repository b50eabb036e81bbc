//! Which versions of plugins run, for other threads, and asking for others.

use std::fmt;
use std::sync::mpsc::{self, Sender};
use std::sync::{Arc, PoisonError, RwLock};

use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;

use crate::plugin::options::Options;
use crate::plugin::versions::handover::Handover;
use crate::plugin::versions::reloader::{Ask, Reloaded};
use crate::plugin::versions::shadow::Shadow;
use crate::telemetry::metrics::PluginInfoLabels;

/// Which version of a plugin runs.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct PluginStatus {
    /// Name in the configuration.
    pub name: String,
    /// SHA-256 of the component, hex.
    pub digest: String,
    /// 1 for the version the process started with, one more per swap.
    pub generation: u64,
    /// Why the last reload failed, if it did.
    pub last_reload_error: Option<String>,
    /// What the newest version made of the last batches beside the one before, if that was compared.
    pub last_shadow: Option<Shadow>,
}

/// The versions that run; cheap to clone.
#[derive(Clone, Default)]
pub struct Versions(Arc<RwLock<Vec<Entry>>>);

struct Entry {
    status: PluginStatus,
    handover: Arc<Handover>,
    asking: Sender<Ask>,
    info: Family<PluginInfoLabels, Gauge>,
}

impl Entry {
    fn labels(&self) -> PluginInfoLabels {
        let PluginStatus { name, digest, generation, .. } = self.status.clone();
        PluginInfoLabels { plugin: name, digest, generation }
    }
}

impl fmt::Debug for Versions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.list()).finish()
    }
}

impl Versions {
    /// All plugins of the chain, in order.
    #[must_use]
    pub fn list(&self) -> Vec<PluginStatus> {
        let status = |entry: &Entry| PluginStatus {
            last_reload_error: entry.handover.error(),
            last_shadow: entry.handover.shadow(),
            ..entry.status.clone()
        };
        self.0.read().unwrap_or_else(PoisonError::into_inner).iter().map(status).collect()
    }

    /// Grows with every swap.
    #[must_use]
    pub fn generations(&self) -> u64 {
        let list = self.0.read().unwrap_or_else(PoisonError::into_inner);
        list.iter().map(|entry| entry.status.generation).sum()
    }

    /// Looks at a plugin's file, with other settings if there are any, and lets it take over at the
    /// next batch if it is another version. Blocks while it compiles; none if the chain has no
    /// plugin of that name.
    ///
    /// # Errors
    /// Why the version is not taken, in a sentence.
    #[must_use]
    pub fn reload(
        &self,
        name: &str,
        options: Option<&Options>,
    ) -> Option<Result<Reloaded, String>> {
        let list = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let asking = list.iter().find(|entry| entry.status.name == name)?.asking.clone();
        drop(list);
        let (answer, answered) = mpsc::channel();
        let options = options.cloned().map(Box::new);
        let gone = "the plugin's leg has ended".to_owned();
        if asking.send(Ask::Reload { options, answer }).is_err() {
            return Some(Err(gone));
        }
        Some(answered.recv().unwrap_or(Err(gone)))
    }

    /// Takes in a plugin; `info` tells which version runs.
    pub(crate) fn push(
        &self,
        status: PluginStatus,
        handover: Arc<Handover>,
        asking: Sender<Ask>,
        info: Family<PluginInfoLabels, Gauge>,
    ) {
        let entry = Entry { status, handover, asking, info };
        entry.info.get_or_create(&entry.labels()).set(1);
        self.0.write().unwrap_or_else(PoisonError::into_inner).push(entry);
    }

    pub(crate) fn replace(&self, index: usize, digest: &str) {
        let mut list = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let entry = &mut list[index];
        entry.info.remove(&entry.labels());
        digest.clone_into(&mut entry.status.digest);
        entry.status.generation += 1;
        entry.info.get_or_create(&entry.labels()).set(1);
    }
}
