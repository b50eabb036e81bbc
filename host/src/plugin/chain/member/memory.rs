//! A plugin of a chain and what is remembered for it.

use std::collections::HashSet;
use std::mem;
use std::sync::Arc;

use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;

use crate::plugin::chain::member::Member;
use crate::plugin::guest::Role;
use crate::plugin::memory::{self, Delta, Memory, Remembered, Scope, StateStore};
use crate::plugin::options::Options;
use crate::position::Position;
use crate::telemetry::metrics::PluginLabels;

impl Member {
    /// Whether anything is remembered for it.
    pub(crate) fn remembers(&self) -> bool {
        self.options().remembers_as(self.role())
    }

    /// Goes over to the memory of a scope.
    pub(crate) fn enter(&mut self, scope: &Scope) {
        if self.scope != *scope {
            let next = self.elsewhere.remove(scope);
            let next = next.unwrap_or_else(|| Memory::new(self.options(), self.secret));
            let before = mem::replace(&mut self.memory, next);
            self.elsewhere.insert(mem::replace(&mut self.scope, Arc::clone(scope)), before);
        }
    }

    /// Takes over limits that were changed.
    pub(super) fn limit_memory(&mut self, options: &Options) {
        let memories = self.elsewhere.values_mut().chain([&mut self.memory]);
        memories.for_each(|memory| memory.limit(options));
    }

    /// Puts the memory back as it is on disk.
    pub(crate) fn restore(&mut self, store: &StateStore) -> Result<(), memory::Error> {
        self.secret = store.secret();
        let all = store.load(&self.options().name)?.into_iter();
        let filled = |(scope, Remembered { state, window })| {
            let mut memory = Memory::new(self.options(), self.secret);
            state.iter().for_each(|(key, value)| memory.state.load(key, value));
            memory.window.restore(window);
            (Scope::from(scope), memory)
        };
        self.elsewhere = all.map(filled).collect();
        let memory = self.elsewhere.remove(&self.scope);
        self.memory = memory.unwrap_or_else(|| Memory::new(self.options(), self.secret));
        self.report_memory();
        Ok(())
    }

    pub(crate) fn commit(&mut self) {
        self.memory.state.commit();
        self.memory.window.commit();
    }

    /// As [`commit`](Self::commit), and tells what changed.
    pub(crate) fn commit_with_delta(&mut self) -> Delta {
        Delta {
            plugin: self.version.id.name.as_str().into(),
            scope: Arc::clone(&self.scope),
            state: self.memory.state.commit(),
            window: self.memory.window.commit_with_delta(),
        }
    }

    pub(crate) fn roll_back(&mut self) {
        self.memory.roll_back();
    }

    pub(crate) fn forget(&mut self, failed: &HashSet<Position>) {
        self.memory.window.forget(failed);
    }

    /// Tells how much is remembered, if anything is.
    pub(super) fn report_memory(&self) {
        if !self.remembers() {
            return;
        }
        let labels = PluginLabels { plugin: self.options().name.clone() };
        let memories = || self.elsewhere.values().chain([&self.memory]);
        let sum = |of: fn(&Memory) -> usize| i64::try_from(memories().map(of).sum::<usize>());
        let metrics = &self.loader.metrics;
        let set = |gauge: &Family<PluginLabels, Gauge>, sum: Result<i64, _>| {
            gauge.get_or_create(&labels).set(sum.unwrap_or(i64::MAX));
        };
        if self.options().has_state() {
            set(&metrics.plugin_state_bytes, sum(|memory| memory.state.bytes()));
            set(&metrics.plugin_state_keys, sum(|memory| memory.state.keys()));
        }
        if self.role() == Role::Dedup {
            set(&metrics.plugin_window_keys, sum(|memory| memory.window.len()));
        }
    }
}
