//! The plugins of one leg, in configured order.
//!
//! [`Chain::transform`] cuts the plugins into waves, by what they want of the batch, and has each take its
//! turn: `wave` is about several of them, `member` about one.

use std::collections::HashSet;
use std::mem;
use std::sync::Arc;

use crate::change::Changes;
use crate::dead_letter::{DeadLetter, Noted, Passed};
use crate::failpoint;
use crate::plugin::boundary::Fates;
use crate::plugin::chain::wave::{Crew, Wave};
use crate::plugin::error::Error;
use crate::plugin::guest::Role;
use crate::plugin::memory::{self, Delta, Scope, SetAside, StateStore};
use crate::plugin::options::{Options, Stage};
use crate::plugin::versions::{self, Asks, Loaded, Loader, PluginStatus, Runtime, Versions, Watch};
use crate::position::Position;
use crate::telemetry::metrics::Metrics;

mod wave;

mod member;

pub(crate) use member::{Member, Subscription};

/// The plugins of one leg. One thread runs it, with the help of others where plugins have nothing to do
/// with each other; the plugins' files are watched while it lives.
pub struct Chain {
    members: Vec<Member>,
    crew: Crew,
    /// What batches changed of what is remembered, if that is kept on disk.
    deltas: Option<Vec<Delta>>,
    /// Whether it is noted what passes the plugins.
    notes: bool,
    /// What did.
    passed: Vec<Passed>,
    versions: Versions,
    _watches: Vec<Watch>,
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
        let here = options.into_iter().filter(|options| options.stage == stage);
        let loaders: Vec<Loader> = here
            .map(|options| Loader::new(runtime.clone(), options, Arc::clone(&metrics)))
            .collect();
        let mut chain = Chain::of(Crew::new(loaders.len(), &metrics));
        // Before they are loaded, so that no change of a file is missed.
        let watches: Vec<_> =
            loaders.iter().map(|loader| versions::watch(&loader.options)).collect();
        let loaded = versions::load_all(&loaders)?;
        for ((loader, loaded), watch) in loaders.into_iter().zip(loaded).zip(watches) {
            chain.push(loader, loaded, watch?);
        }
        Ok(chain)
    }

    /// A chain of one plugin whose file nobody watches.
    pub(crate) fn offline(loader: Loader) -> Result<Chain, Error> {
        loader.options.check()?;
        let loaded = loader.load()?;
        let mut chain = Chain::of(Crew::new(1, &loader.metrics));
        chain.members.push(Member::new(loader, loaded));
        Ok(chain)
    }

    /// One without plugins yet.
    fn of(crew: Crew) -> Chain {
        Chain {
            members: Vec::new(),
            crew,
            deltas: None,
            notes: false,
            passed: Vec::new(),
            versions: Versions::default(),
            _watches: Vec::new(),
        }
    }

    fn push(&mut self, loader: Loader, loaded: Loaded, (watch, (asking, asked)): (Watch, Asks)) {
        let instead = loaded.instead.clone();
        let member = Member::new(loader.clone(), loaded);
        let id = member.version().id.clone();
        let role = member.version().role;
        tracing::info!(plugin = %id.name, digest = %id.digest, role = role.world(), "plugin loaded");
        let handover = Arc::clone(member.handover());
        instead.into_iter().for_each(|why| handover.fail(why));
        let info = loader.metrics.plugin_info.clone();
        versions::follow(loader, role, Arc::clone(&handover), &watch, asked);
        self._watches.push(watch);
        let (name, digest) = (id.name, id.digest);
        let (last_reload_error, last_shadow) = (None, None);
        let status = PluginStatus { name, digest, generation: 1, last_reload_error, last_shadow };
        self.versions.push(status, handover, asking, info);
        self.members.push(member);
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
        self.transform_behind(changes, &mut Vec::new())
    }

    /// As [`transform`](Self::transform), behind another chain: `unseen` are the changes that were set
    /// aside out of the batch before, and then those of this chain, too.
    ///
    /// # Errors
    /// As those of `transform`.
    pub fn transform_behind(
        &mut self,
        changes: &mut Changes,
        unseen: &mut Vec<SetAside>,
    ) -> Result<Vec<DeadLetter>, Error> {
        self.change_versions();
        if let Some(first) = changes.list.first() {
            self.tell_swaps(changes.position(first));
        }
        let kept = self.may_look_again(changes).then(|| changes.clone());
        let (mut done, mut fates) = self.run(changes, unseen);
        if let Some(kept) = kept
            && self.members.iter().any(Member::is_suspect)
        {
            (done, fates) = self.look_again(kept, changes, unseen);
        }
        let done = done.and_then(|()| self.members.iter_mut().try_for_each(Member::count_failures));
        if !fates.dead_letters.is_empty() {
            let failed = fates.failed();
            self.members.iter_mut().for_each(|member| member.forget(&failed));
        }
        self.conclude(&done);
        done?;
        *unseen = fates.unseen;
        self.passed.extend(fates.noted.map(Noted::into_passed).unwrap_or_default());
        Ok(fates.dead_letters)
    }

    /// Instructions that its plugins executed so far, on a runtime that counts them.
    pub(crate) fn instructions(&self) -> u64 {
        self.members.iter().map(|member| member.instance.instructions()).sum()
    }

    /// Drives changes that were set aside through again: the plugin `first` failed on them, and those
    /// behind it have not seen them; none: no plugin of the chain has. Whatever fails is set aside
    /// again, whatever `on_error` says.
    ///
    /// # Errors
    /// None that a row is the cause of: whatever fails is set aside.
    pub fn redrive(
        &mut self,
        changes: &mut Changes,
        first: Option<&str>,
    ) -> Result<Vec<DeadLetter>, Error> {
        self.change_versions();
        let is_first = |member: &Member| Some(member.version().id.name.as_str()) == first;
        let start = self.members.iter().position(is_first).unwrap_or_default();
        let mut fates = Fates::default();
        let mut members = self.members[start..].iter_mut();
        let done = members.try_for_each(|member| member.run_again(changes, &mut fates));
        self.conclude(&done);
        done.map(|()| fates.dead_letters)
    }

    /// What a batch changed of what is remembered counts, unless it failed.
    fn conclude(&mut self, done: &Result<(), Error>) {
        for member in &mut self.members {
            member.forget_time();
            match (done, &mut self.deltas) {
                (Ok(()), Some(deltas)) if member.remembers() => {
                    deltas.push(member.commit_with_delta());
                }
                (Ok(()), _) => member.commit(),
                (Err(_), _) => member.roll_back(),
            }
        }
    }

    /// Whether it has a plugin of that name.
    #[must_use]
    pub fn has(&self, plugin: &str) -> bool {
        self.members.iter().any(|member| member.version().id.name == plugin)
    }

    fn run(&mut self, changes: &mut Changes, unseen: &[SetAside]) -> (Result<(), Error>, Fates) {
        let mut fates = Fates::default();
        fates.unseen.extend_from_slice(unseen);
        fates.noted = self.notes.then(Noted::default);
        let done = self.run_waves(changes, &mut fates);
        self.members.iter_mut().for_each(Member::end);
        (done, fates)
    }

    /// Runs wave after wave: what a wave makes of the batch decides which members are in the next one.
    fn run_waves(&mut self, changes: &mut Changes, fates: &mut Fates) -> Result<(), Error> {
        let mut rest = &mut self.members[..];
        while !rest.is_empty() {
            let wave = Wave::first(rest, changes);
            let members = &mut rest[..wave.len()];
            for member in members.iter_mut().filter(|member| member.role() == Role::Dedup) {
                member.unseen.clone_from(&fates.unseen);
            }
            match members {
                [alone] => alone.run(changes, fates)?,
                members => {
                    self.crew.ask_ahead(members, &wave, changes);
                    fates.begin(changes);
                    let mut members = members.iter_mut();
                    let done = members.try_for_each(|member| member.run_in_wave(changes, fates));
                    fates.sweep(changes);
                    done?;
                }
            }
            for member in &rest[..wave.len()] {
                member.widen(&mut fates.unseen);
            }
            rest = &mut rest[wave.len()..];
        }
        Ok(())
    }

    /// Whether a version on probation may be offered rows of a batch.
    fn may_look_again(&self, changes: &Changes) -> bool {
        let mut any_table = false;
        !changes.is_empty()
            && self.members.iter().any(|member| {
                let mut tables = changes.tables.iter();
                let offered = any_table || tables.any(|table| member.covers(table));
                // Where it puts rows is not known before.
                any_table |= offered && member.role() == Role::Reshape;
                offered && member.on_probation()
            })
    }

    /// Shows a batch that new versions failed on to the versions before. Those that fail on fewer rows get
    /// their place back; unless all of them do, the batch is then shown to the versions that are left.
    fn look_again(
        &mut self,
        kept: Changes,
        changes: &mut Changes,
        unseen: &[SetAside],
    ) -> (Result<(), Error>, Fates) {
        let suspects: Vec<bool> = self.members.iter().map(Member::is_suspect).collect();
        let news: Vec<String> = self.members.iter().map(Member::digest).collect();
        for (member, suspect) in self.members.iter_mut().zip(&suspects) {
            if *suspect {
                member.step_aside();
            }
        }
        let first = kept.list.first().map(|change| kept.position(change));
        changes.clone_from(&kept);
        let mut outcome = self.run_again(changes, unseen);
        let mut acquitted = false;
        for (index, (new, suspect)) in news.into_iter().zip(suspects).enumerate() {
            if suspect && self.members[index].judge() {
                self.note_swap(index, new);
            } else {
                acquitted |= suspect;
            }
        }
        if acquitted {
            *changes = kept;
            outcome = self.run_again(changes, unseen);
        }
        first.into_iter().for_each(|first| self.tell_swaps(first));
        outcome
    }

    /// Runs a batch that was shown before, of which nothing is remembered.
    fn run_again(
        &mut self,
        changes: &mut Changes,
        unseen: &[SetAside],
    ) -> (Result<(), Error>, Fates) {
        for member in &mut self.members {
            member.roll_back();
            member.look_again();
        }
        self.run(changes, unseen)
    }

    /// The plugins for which something is remembered from batch to batch.
    pub fn remembering(&self) -> impl Iterator<Item = &str> {
        let remembering = self.members.iter().filter(|member| member.remembers());
        remembering.map(|member| member.version().id.name.as_str())
    }

    /// The plugins that tell duplicates, as they are configured.
    pub fn deduplicating(&self) -> impl Iterator<Item = &Options> {
        let members = self.members.iter().filter(|member| member.role() == Role::Dedup);
        members.map(Member::options)
    }

    /// Whether one of them keeps a state, of which nothing may be missing. One that is granted a state
    /// and does not import it has nothing to miss.
    #[must_use]
    pub fn keeps_state(&self) -> bool {
        self.members.iter().any(|member| member.version().imports_state)
    }

    /// Puts back what is remembered as it is on disk, and tells what changes from now on.
    ///
    /// # Errors
    /// The disk.
    pub fn restore(&mut self, store: &StateStore) -> Result<(), memory::Error> {
        self.deltas = Some(Vec::new());
        self.members.iter_mut().try_for_each(|member| member.restore(store))
    }

    /// What follows is of that scope.
    pub fn enter(&mut self, scope: &Scope) {
        self.members.iter_mut().for_each(|member| member.enter(scope));
    }

    /// What changed of what is remembered since it was asked last; nothing before
    /// [`restore`](Self::restore).
    pub fn take_deltas(&mut self) -> Vec<Delta> {
        self.deltas.as_mut().map(mem::take).unwrap_or_default()
    }

    /// From now on it is noted what passes the plugins, or is not any more.
    pub fn note_passed(&mut self, wanted: bool) {
        self.notes = wanted;
    }

    /// What passed the plugins since it was asked last.
    pub fn take_passed(&mut self) -> Vec<Passed> {
        mem::take(&mut self.passed)
    }

    /// Which versions run; the handle follows reloads.
    #[must_use]
    pub fn versions(&self) -> Versions {
        self.versions.clone()
    }

    /// Rolls back what turned out to be slow, and lets what is ready take over. Not behind a batch but
    /// before the next one: until then the versions that are told are those that made the last one. An
    /// empty one will do, because a source at rest must not keep a version from taking over: letters may
    /// wait for it.
    fn change_versions(&mut self) {
        for index in 0..self.members.len() {
            let before = self.members[index].digest();
            if self.members[index].review() {
                self.note_swap(index, before);
            }
            let before = self.members[index].digest();
            if self.members[index].take_over() {
                failpoint::pass("during_swap");
                self.note_swap(index, before);
            }
        }
    }

    fn note_swap(&mut self, index: usize, before: String) {
        let member = &mut self.members[index];
        member.swapped_from.get_or_insert(before);
        self.versions.replace(index, &member.version().id.digest);
    }

    /// Says at which change versions changed places: the first one that comes to the new ones.
    fn tell_swaps(&mut self, position: Position) {
        for member in &mut self.members {
            let Some(before) = member.swapped_from.take() else { continue };
            let id = &member.version().id;
            tracing::info!(
                plugin = %id.name, digest = %id.digest, %before, %position, "plugin swapped"
            );
        }
    }
}

#[cfg(test)]
mod tests;
