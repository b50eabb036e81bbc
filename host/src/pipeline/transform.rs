//! Step 3 as a stage: a thread that runs the chains of plugins over every batch.

use std::sync::Arc;

use tokio::runtime::Handle;
use tokio::sync::mpsc::{Receiver, Sender};
use tokio::task::{JoinHandle, spawn_blocking};

use super::keeper::Backlog;
use crate::change::Changes;
use crate::dead_letter::{DeadLetter, OpenLetters};
use crate::hop::{Hop, Point, Redrive};
use crate::plugin::{
    Chain, Error, MemoryError, Options, PluginStatus, Runtime, Stage, StateStore, Versions,
};
use crate::telemetry::metrics::Metrics;

/// The plugins of one leg; on the direct way those of both, in their order.
pub(super) struct Transform {
    chains: Vec<Chain>,
    /// Where what comes through is durable.
    last: &'static str,
    metrics: Arc<Metrics>,
    /// What is remembered and not on its way to the disk yet.
    backlog: Backlog,
}

impl Transform {
    /// Loads the plugins of these stages.
    ///
    /// # Errors
    /// A plugin cannot be loaded.
    pub(super) fn load(
        runtime: &Runtime,
        options: &[Options],
        stages: &[Stage],
        metrics: &Arc<Metrics>,
    ) -> Result<Transform, Error> {
        let load =
            |stage: &Stage| Chain::load(runtime, options.to_vec(), *stage, Arc::clone(metrics));
        let chains = stages.iter().map(load).collect::<Result<_, _>>()?;
        let last = if stages.contains(&Stage::Sink) { "stored" } else { "sent" };
        let (metrics, backlog) = (Arc::clone(metrics), Backlog::default());
        Ok(Transform { chains, last, metrics, backlog })
    }

    /// Which versions run, chain by chain.
    pub(super) fn versions(&self) -> Vec<Versions> {
        self.chains.iter().map(Chain::versions).collect()
    }

    /// The plugins for which something is remembered from batch to batch.
    pub(super) fn remembering(&self) -> impl Iterator<Item = &str> {
        self.chains.iter().flat_map(Chain::remembering)
    }

    /// The plugins that tell duplicates.
    pub(super) fn deduplicating(&self) -> impl Iterator<Item = &Options> {
        self.chains.iter().flat_map(Chain::deduplicating)
    }

    /// Whether one of them keeps a state, of which nothing may be missing.
    pub(super) fn keeps_state(&self) -> bool {
        self.chains.iter().any(Chain::keeps_state)
    }

    /// Puts back what is remembered as it is on disk, and keeps it from now on.
    pub(super) fn restore(&mut self, store: &StateStore) -> Result<(), MemoryError> {
        // What was underway in the life before will never be taken.
        self.backlog = Backlog::default();
        self.chains.iter_mut().try_for_each(|chain| chain.restore(store))
    }

    /// What is remembered of the batches that come from now on, until it is taken.
    pub(super) fn backlog(&self) -> Backlog {
        self.backlog.clone()
    }

    /// Runs on a thread of its own until the input ends, the next stage is gone, or a plugin halts
    /// the pipeline; gives the plugins back. With `open` it is told what passes the plugins where
    /// letters of it may be open.
    pub(super) fn spawn<P: Point>(
        mut self,
        mut input: Receiver<Hop<P>>,
        output: Sender<Hop<P>>,
        open: Option<OpenLetters>,
    ) -> JoinHandle<(Transform, Result<(), Error>)> {
        spawn_blocking(move || {
            let ended = self.run(&mut input, &output, open.as_ref());
            (self, ended)
        })
    }

    fn run<P: Point>(
        &mut self,
        input: &mut Receiver<Hop<P>>,
        output: &Sender<Hop<P>>,
        open: Option<&OpenLetters>,
    ) -> Result<(), Error> {
        let versions = self.versions();
        self.metrics.awaits_nothing(self.last);
        let mut stamp = Stamp::default();
        let mut assignment = 0;
        while self.has_room(output)
            && let Some(mut hop) = input.blocking_recv()
        {
            // What was set aside before says nothing of how late the rest is.
            if hop.redrive.is_none() {
                let newest = hop.changes.newest_commit();
                hop.point.note_commit(newest);
                self.metrics.awaits(self.last, newest);
            }
            if let Some(open) = open.filter(|_| hop.point.assignment() > assignment) {
                assignment = hop.point.assignment();
                open.doubt();
            }
            let notes = open.is_some_and(|open| open.may_be_of(&hop.changes));
            self.chains.iter_mut().for_each(|chain| chain.note_passed(notes));
            let before = hop.dead_letters.len();
            self.transform(&mut hop)?;
            self.metrics.count_dead_letters("transformed", hop.dead_letters.len() - before);
            hop.plugins = stamp.of(&versions);
            if output.blocking_send(hop).is_err() {
                break;
            }
        }
        Ok(())
    }
}

impl Transform {
    /// Waits while too much is on its way to the disk; false if the next stage is gone meanwhile.
    fn has_room<P: Point>(&self, output: &Sender<Hop<P>>) -> bool {
        Handle::current().block_on(async {
            tokio::select! {
                biased;
                () = self.backlog.room() => true,
                () = output.closed() => false,
            }
        })
    }

    fn transform<P: Point>(&mut self, hop: &mut Hop<P>) -> Result<(), Error> {
        let redrive = hop.redrive.as_ref();
        let scope = redrive.map_or_else(|| hop.point.scope(), |redrive| redrive.scope.clone());
        for chain in self.chains.iter_mut().filter(|chain| !chain.is_empty()) {
            chain.enter(&scope);
        }
        if let Some(Redrive { letters, dropped, .. }) = redrive {
            let plugin = letters.first().and_then(|letter| letter.plugin.as_ref());
            if let Some(plugin) = plugin.filter(|_| !dropped) {
                let again = self.redrive(&mut hop.changes, letters, &plugin.name)?;
                hop.dead_letters.extend(again);
            }
        } else {
            let mut unseen = Vec::new();
            for chain in self.chains.iter_mut().filter(|chain| !chain.is_empty()) {
                hop.dead_letters.extend(chain.transform_behind(&mut hop.changes, &mut unseen)?);
                hop.passed.extend(chain.take_passed());
            }
        }
        for chain in self.chains.iter_mut().filter(|chain| !chain.is_empty()) {
            let deltas = chain.take_deltas();
            self.backlog.add(&deltas);
            hop.point.remember(deltas);
        }
        Ok(())
    }

    /// Runs the plugin that failed, and all behind it, over its letters; what they fail on.
    fn redrive(
        &mut self,
        changes: &mut Changes,
        letters: &[DeadLetter],
        plugin: &str,
    ) -> Result<Vec<DeadLetter>, Error> {
        let Some(first) = self.chains.iter().position(|chain| chain.has(plugin)) else {
            // What no plugin has looked at does not go on.
            changes.list.clear();
            return Ok(letters.to_vec());
        };
        let mut again = self.chains[first].redrive(changes, Some(plugin))?;
        for chain in &mut self.chains[first + 1..] {
            again.extend(chain.redrive(changes, None)?);
        }
        Ok(again)
    }
}

/// The text that names the versions a batch went through, made anew only after a swap.
#[derive(Default)]
struct Stamp {
    generations: u64,
    text: Arc<str>,
}

impl Stamp {
    fn of(&mut self, versions: &[Versions]) -> Arc<str> {
        let generations = versions.iter().map(Versions::generations).sum();
        if generations != self.generations {
            let all: Vec<PluginStatus> = versions.iter().flat_map(Versions::list).collect();
            let name = |plugin: &PluginStatus| {
                let digest = plugin.digest.get(..12).unwrap_or(&plugin.digest);
                format!("{}@{digest}", plugin.name)
            };
            self.text = all.iter().map(name).collect::<Vec<_>>().join(",").into();
            self.generations = generations;
        }
        Arc::clone(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::mpsc;

    use super::*;
    use crate::hop::LogPoint;
    use crate::pipeline::keeper::MOST_WAITING;
    use crate::plugin::Delta;

    fn no_plugins() -> Transform {
        let (metrics, backlog) = (Arc::default(), Backlog::default());
        Transform { chains: Vec::new(), last: "sent", metrics, backlog }
    }

    #[test]
    fn a_stage_that_waits_for_the_disk_ends_with_the_next_one() {
        let transform = no_plugins();
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let _inside = runtime.enter();
        let (output, gone) = mpsc::channel::<Hop<LogPoint>>(1);
        drop(gone);
        assert!(transform.has_room(&output));
        transform.backlog().add(&[Delta::writing("k", "v".repeat(MOST_WAITING))]);
        assert!(!transform.has_room(&output));
    }

    #[tokio::test]
    async fn batches_go_on_once_the_disk_does() {
        let transform = no_plugins();
        let (backlog, full) =
            (transform.backlog(), [Delta::writing("k", "v".repeat(MOST_WAITING))]);
        backlog.add(&full);
        let (give, input) = mpsc::channel(1);
        let (output, mut transformed) = mpsc::channel(1);
        let transforming = transform.spawn(input, output, None);
        give.send(Hop::new(Changes::default(), LogPoint::default())).await.unwrap();
        backlog.take(&full);
        assert!(transformed.recv().await.is_some());
        drop(give);
        transforming.await.unwrap().1.unwrap();
    }
}
