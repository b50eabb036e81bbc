//! What a plugin may use, and what it imports: the host's side of one instance.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use rustc_hash::FxHashMap;
use wasmtime::ResourceLimiter;
use wasmtime::component::HasData;

use crate::plugin::bindings::{clock, log, metrics, state, types};
use crate::plugin::state::State;
use crate::telemetry::metrics::{Metrics, PluginCounterLabels};

/// Lines one call may log.
const LINES_MAX: u32 = 32;
/// Bytes of a line.
const LINE_BYTES_MAX: usize = 2048;
/// Counters of its own that a plugin may have.
const COUNTERS_MAX: usize = 32;
/// Characters of a counter's name.
const COUNTER_NAME_MAX: usize = 64;
/// Elements of a table; a component of a megabyte has a few thousand.
const TABLE_ELEMENTS_MAX: usize = 1 << 20;

/// The state of one instance's imports and limits.
pub struct Guest {
    name: Arc<str>,
    digest: Arc<str>,
    memory: Memory,
    lines: u32,
    metrics: Arc<Metrics>,
    counters: FxHashMap<String, u64>,
    refused_counter: bool,
    /// Lent for as long as a batch is shown.
    state: Option<State>,
}

struct Memory {
    bytes_max: usize,
    bytes: usize,
    exceeded: bool,
}

impl HasData for Guest {
    type Data<'a> = &'a mut Guest;
}

impl Guest {
    pub(crate) fn new(name: &str, digest: &str, memory_mb: u32, metrics: Arc<Metrics>) -> Guest {
        let bytes_max = usize::try_from(u64::from(memory_mb) << 20).unwrap_or(usize::MAX);
        Guest {
            name: name.into(),
            digest: digest.into(),
            memory: Memory { bytes_max, bytes: 0, exceeded: false },
            lines: 0,
            metrics,
            counters: FxHashMap::default(),
            refused_counter: false,
            state: None,
        }
    }

    /// Lends it the plugin's state.
    pub(crate) fn lend(&mut self, state: State) {
        self.state = Some(state);
    }

    /// Takes the state back.
    pub(crate) fn take_back(&mut self) -> State {
        self.state.take().expect("it was lent")
    }

    pub(crate) fn limiter(&mut self) -> &mut dyn ResourceLimiter {
        &mut self.memory
    }

    /// Linear memory held.
    pub(crate) fn memory_bytes(&self) -> usize {
        self.memory.bytes
    }

    /// Whether the instance asked for more memory than it may have; an allocation that failed
    /// usually ends in a trap.
    pub(crate) fn memory_exceeded(&self) -> bool {
        self.memory.exceeded
    }

    /// Begins a call.
    pub(crate) fn begin_call(&mut self) {
        self.lines = 0;
    }

    /// Ends a call: says what was not logged, and counts what was counted.
    pub(crate) fn end_call(&mut self) {
        if let Some(dropped) = self.lines.checked_sub(LINES_MAX + 1) {
            let lines = dropped + 1;
            tracing::warn!(plugin = %self.name, lines, "plugin logs too much, lines were dropped");
        }
        for (counter, delta) in &mut self.counters {
            if *delta > 0 {
                let plugin = self.name.to_string();
                let labels = PluginCounterLabels { plugin, counter: counter.clone() };
                self.metrics.plugin_custom.get_or_create(&labels).inc_by(*delta);
                *delta = 0;
            }
        }
    }

    fn refuse_counter(&mut self, why: &'static str) {
        if !self.refused_counter {
            tracing::warn!(plugin = %self.name, why, "plugin counter is ignored");
            self.refused_counter = true;
        }
    }
}

impl ResourceLimiter for Memory {
    fn memory_growing(
        &mut self,
        current: usize,
        desired: usize,
        _maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        let grown = self.bytes.saturating_add(desired.saturating_sub(current));
        if grown > self.bytes_max {
            self.exceeded = true;
            return Ok(false);
        }
        self.bytes = grown;
        Ok(true)
    }

    fn table_growing(
        &mut self,
        _current: usize,
        desired: usize,
        _maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        Ok(desired <= TABLE_ELEMENTS_MAX)
    }
}

impl types::Host for Guest {}

impl clock::Host for Guest {
    fn now(&mut self) -> i64 {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
    }
}

impl state::Host for Guest {
    /// What does not fit into the guest's memory is not even copied for it.
    fn get(&mut self, keys: Vec<String>) -> wasmtime::Result<Vec<Option<String>>> {
        let mut bytes = 0_usize;
        let mut value = |key: &String| {
            let value = self.state.as_ref()?.get(key)?;
            bytes = bytes.saturating_add(value.len());
            (bytes <= self.memory.bytes_max).then(|| value.to_owned())
        };
        let values = keys.iter().map(&mut value).collect();
        if bytes > self.memory.bytes_max {
            let most = self.memory.bytes_max >> 20;
            return Err(wasmtime::Error::msg(format!(
                "state.get would hand over more than its {most} MiB of memory"
            )));
        }
        Ok(values)
    }

    fn set(&mut self, entries: Vec<(String, Option<String>)>) -> Result<(), String> {
        match &mut self.state {
            Some(state) => state.set(entries),
            None => Err("the state is there only while a batch is shown".to_owned()),
        }
    }
}

impl log::Host for Guest {
    fn write(&mut self, level: log::Level, mut message: String) {
        self.lines = self.lines.saturating_add(1);
        if self.lines > LINES_MAX {
            return;
        }
        message.truncate(message.floor_char_boundary(LINE_BYTES_MAX));
        let (plugin, digest) = (&*self.name, &self.digest[..12]);
        match level {
            log::Level::Trace => tracing::trace!(target: "plugin", plugin, digest, "{message}"),
            log::Level::Debug => tracing::debug!(target: "plugin", plugin, digest, "{message}"),
            log::Level::Info => tracing::info!(target: "plugin", plugin, digest, "{message}"),
            log::Level::Warn => tracing::warn!(target: "plugin", plugin, digest, "{message}"),
            log::Level::Error => tracing::error!(target: "plugin", plugin, digest, "{message}"),
        }
    }
}

impl metrics::Host for Guest {
    fn add(&mut self, counter: String, delta: u64) {
        if let Some(sum) = self.counters.get_mut(&counter) {
            *sum = sum.saturating_add(delta);
            return;
        }
        let plain = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_');
        if counter.is_empty() || counter.len() > COUNTER_NAME_MAX || !counter.bytes().all(plain) {
            self.refuse_counter("its name is not 1 to 64 of a-z, 0-9 and _");
        } else if self.counters.len() == COUNTERS_MAX {
            self.refuse_counter("a plugin may have 32");
        } else {
            self.counters.insert(counter, delta);
        }
    }
}
