//! The plugins of one leg, in configured order.

use std::collections::HashSet;
use std::sync::{Arc, PoisonError, RwLock};

use crate::change::Changes;
use crate::dead_letter::DeadLetter;
use crate::failpoint;
use crate::plugin::engine::Runtime;
use crate::plugin::error::Error;
use crate::plugin::fates::Fates;
use crate::plugin::loader::Loader;
use crate::plugin::member::Member;
use crate::plugin::options::{Options, Stage};
use crate::plugin::reload::{self, Watch};
use crate::position::Position;
use crate::telemetry::metrics::Metrics;

/// The plugins of one leg. One thread runs it; the plugins' files are watched while it lives.
pub struct Chain {
    members: Vec<Member>,
    versions: Versions,
    _watches: Vec<Watch>,
}

/// Which version of a plugin runs.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct PluginStatus {
    /// Name in the configuration.
    pub name: String,
    /// SHA-256 of the component, hex.
    pub digest: String,
    /// 1 for the version the process started with, one more per reload.
    pub generation: u64,
    /// Why the newest file was not taken, until one is.
    pub last_reload_error: Option<String>,
}

/// The versions that run, for other threads; cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Versions(Arc<RwLock<Vec<PluginStatus>>>);

impl Versions {
    /// All plugins of the chain, in order.
    #[must_use]
    pub fn list(&self) -> Vec<PluginStatus> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Grows with every swap.
    #[must_use]
    pub fn generations(&self) -> u64 {
        let list = self.0.read().unwrap_or_else(PoisonError::into_inner);
        list.iter().map(|plugin| plugin.generation).sum()
    }

    /// Notes how the last attempt to reload a plugin ended.
    pub(crate) fn reloaded(&self, index: usize, error: Option<String>) {
        let mut list = self.0.write().unwrap_or_else(PoisonError::into_inner);
        list[index].last_reload_error = error;
    }

    fn replace(&self, index: usize, digest: &str) {
        let mut list = self.0.write().unwrap_or_else(PoisonError::into_inner);
        digest.clone_into(&mut list[index].digest);
        list[index].generation += 1;
    }
}

impl Chain {
    /// Loads the plugins of a leg.
    ///
    /// # Errors
    /// A plugin cannot be read, compiled, linked or initialised, or a name is taken twice.
    pub fn load(
        runtime: &Runtime,
        options: Vec<Options>,
        stage: Stage,
        metrics: Arc<Metrics>,
    ) -> Result<Chain, Error> {
        let mut names = HashSet::new();
        let taken = options.iter().find(|options| !names.insert(options.name.clone()));
        if let Some(taken) = taken {
            return Err(Error::NameTaken(taken.name.clone()));
        }
        options.iter().try_for_each(Options::check)?;
        let mut chain =
            Chain { members: Vec::new(), versions: Versions::default(), _watches: Vec::new() };
        for options in options.into_iter().filter(|options| options.stage == stage) {
            let runtime = runtime.clone();
            let metrics = Arc::clone(&metrics);
            chain.push(Loader { runtime, options: Arc::new(options), metrics })?;
        }
        Ok(chain)
    }

    fn push(&mut self, loader: Loader) -> Result<(), Error> {
        let member = Member::new(loader.clone(), loader.load()?);
        let id = member.version().id.clone();
        let role = member.version().role;
        tracing::info!(plugin = %id.name, digest = %id.digest, role = role.world(), "plugin loaded");
        let digest = id.digest.clone();
        let status = PluginStatus {
            name: id.name,
            digest: id.digest,
            generation: 1,
            last_reload_error: None,
        };
        self.versions.0.write().unwrap_or_else(PoisonError::into_inner).push(status);
        let (versions, index) = (self.versions.clone(), self.members.len());
        let report = move |error| versions.reloaded(index, error);
        let incoming = member.incoming();
        self._watches.push(reload::watch(loader, role, digest, incoming, Box::new(report))?);
        self.members.push(member);
        Ok(())
    }

    /// No plugin runs on this leg.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// Runs every plugin over a batch; what each edits the next one sees. Blocks for as long as the
    /// plugins compute, so call it on a worker thread. Gives the changes that were set aside, as
    /// they were shown to the plugin that failed.
    ///
    /// # Errors
    /// A change failed and its plugin's `on_error` is `halt`. The batch is then half done: drop it,
    /// and show it again from its source.
    pub fn transform(&mut self, changes: &mut Changes) -> Result<Vec<DeadLetter>, Error> {
        self.take_over();
        let mut fates = Fates::default();
        let mut members = self.members.iter_mut();
        let done = members.try_for_each(|member| member.run(changes, &mut fates));
        for member in &mut self.members {
            match done {
                Ok(()) => member.commit(),
                Err(_) => member.roll_back(),
            }
        }
        if !fates.dead_letters.is_empty() {
            let failed = fates.failed();
            self.members.iter_mut().for_each(|member| member.forget(&failed));
        }
        done.map(|()| fates.dead_letters)
    }

    /// Says that the source starts over after `durable`, so that rows which come again are no
    /// duplicates of themselves. The default position forgets every key: right for a consumer,
    /// whose partitions have no common order.
    pub fn rewind(&mut self, durable: Position) {
        for member in &mut self.members {
            member.rewind(durable);
        }
    }

    /// Which versions run; the handle follows reloads.
    #[must_use]
    pub fn versions(&self) -> Versions {
        self.versions.clone()
    }

    fn take_over(&mut self) {
        for (index, member) in self.members.iter_mut().enumerate() {
            if member.take_over() {
                failpoint::pass("during_swap");
                let id = &member.version().id;
                tracing::info!(plugin = %id.name, digest = %id.digest, "plugin swapped");
                self.versions.replace(index, &id.digest);
            }
        }
    }
}
