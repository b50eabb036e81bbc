//! What a plugin may use, and what it imports: the host's side of one instance.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use prometheus_client::metrics::histogram::Histogram;
use rustc_hash::FxHashMap;
use tracing::field::display;
use wasmtime::component::{Component, HasData};
use wasmtime::{ResourceLimiter, UpdateDeadline};

use crate::plugin::guest::bindings::{clock, log, metrics, state, types};
use crate::plugin::guest::call_clock::CallClock;
use crate::plugin::guest::counters::{Counters, Refusal};
use crate::plugin::guest::log_lines::{LogLines, one_line};
use crate::plugin::memory::State;
use crate::plugin::options::Options;
use crate::position::Position;
use crate::table::Table;
use crate::telemetry::metrics::{Metrics, PluginCounterLabels, PluginLabels};

/// What a component may import: the contract's interfaces of any compatible version.
const GRANTED: [&str; 4] = [
    "tailwater:plugin/types@0.1.",
    "tailwater:plugin/shapes@0.1.",
    "tailwater:plugin/log@0.1.",
    "tailwater:plugin/metrics@0.1.",
];

/// Bytes of a line.
const LINE_BYTES_MAX: usize = 2048;
/// Elements of a table; a component of a megabyte has a few thousand.
const TABLE_ELEMENTS_MAX: usize = 1 << 20;
const TABLE_ELEMENT_BYTES: usize = size_of::<usize>();

/// What a component imports beyond the contract.
pub(crate) fn foreign_imports(component: &Component) -> Vec<String> {
    let shape = component.component_type();
    let names = shape.imports(component.engine()).map(|(name, _)| name.to_owned());
    names.filter(|name| !GRANTED.iter().any(|granted| name.starts_with(granted))).collect()
}

/// The state of one instance's imports and limits.
pub struct Guest {
    name: Arc<str>,
    digest: Arc<str>,
    memory: Memory,
    clock: CallClock,
    lines: Arc<LogLines>,
    log_lines_per_second: u32,
    /// Lines may have been left out, here or by an instance before, that no summary told yet.
    lines_untold: bool,
    /// What it is shown.
    sight: Option<Sight>,
    call_seconds: Histogram,
    metrics: Arc<Metrics>,
    counters: Arc<Counters>,
    /// What this instance counted since the last call, by the names that it was given.
    counted: FxHashMap<String, u64>,
    /// Lent for as long as a batch is shown.
    state: Option<State>,
}

/// What a plugin looks at, for who reads what it logs.
struct Sight {
    table: Arc<Table>,
    /// The first row, and how many there are; none while it is asked about the table itself.
    rows: Option<(Position, usize)>,
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
    pub(crate) fn new(
        options: &Options,
        digest: &str,
        lines: Arc<LogLines>,
        counters: Arc<Counters>,
        metrics: Arc<Metrics>,
    ) -> Guest {
        let bytes_max = usize::try_from(u64::from(options.memory_mb) << 20).unwrap_or(usize::MAX);
        let labels = PluginLabels { plugin: options.name.clone() };
        let call_seconds = metrics.plugin_call_seconds.get_or_create(&labels).clone();
        Guest {
            name: options.name.as_str().into(),
            digest: digest.into(),
            memory: Memory { bytes_max, bytes: 0, exceeded: false },
            clock: CallClock::default(),
            lines,
            log_lines_per_second: options.log_lines_per_second,
            lines_untold: true,
            sight: None,
            call_seconds,
            metrics,
            counters,
            counted: FxHashMap::default(),
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

    /// Whether the call asked for more memory than the instance may have; an allocation that failed
    /// usually ends in a trap.
    pub(crate) fn memory_exceeded(&self) -> bool {
        self.memory.exceeded
    }

    /// What it is shown from now on: a table, and of rows the first one's place and how many.
    pub(crate) fn look_at(&mut self, table: &Arc<Table>, rows: Option<(Position, usize)>) {
        self.sight = Some(Sight { table: Arc::clone(table), rows });
    }

    /// It is shown nothing any more: a table version that goes is not held by who saw it last.
    pub(crate) fn look_away(&mut self) {
        self.sight = None;
    }

    /// Begins a call.
    pub(crate) fn begin_call(&mut self, clock: CallClock) {
        self.memory.exceeded = false;
        self.clock = clock;
    }

    /// See [`CallClock::ring`].
    pub(crate) fn ring(&mut self) -> UpdateDeadline {
        self.clock.ring()
    }

    /// See [`CallClock::computed`].
    pub(crate) fn computed(&self) -> Duration {
        self.clock.computed()
    }

    /// Notes how long it took to call it with a batch.
    pub(crate) fn took(&self, time: Duration) {
        self.call_seconds.observe(time.as_secs_f64());
    }

    /// Ends a call: says what was not logged, and counts what was counted.
    pub(crate) fn end_call(&mut self) {
        if self.lines_untold {
            self.lines_untold = self.lines.settle(Instant::now());
        }
        for (counter, delta) in &mut self.counted {
            if *delta > 0 {
                let plugin = self.name.to_string();
                let labels = PluginCounterLabels { plugin, counter: counter.clone() };
                self.metrics.plugin_custom.get_or_create(&labels).inc_by(*delta);
                *delta = 0;
            }
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

    /// Its tables are memory, too.
    fn table_growing(
        &mut self,
        current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        let bytes = |elements: usize| elements.saturating_mul(TABLE_ELEMENT_BYTES);
        Ok(desired <= TABLE_ELEMENTS_MAX
            && self.memory_growing(bytes(current), bytes(desired), maximum)?)
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

/// Whether the log takes lines of that level, and writing one.
macro_rules! at_level {
    ($level:ident, $guest:expr, $message:expr) => {
        // What the log's own level leaves out is no flood.
        if tracing::enabled!(target: "plugin", tracing::Level::$level)
            && let Some(message) = $guest.admit($message)
        {
            let (plugin, digest) = (&*$guest.name, &$guest.digest[..12]);
            let sight = $guest.sight.as_ref();
            let table = sight.map(|sight| display(sight.table.full_name()));
            let first = sight.and_then(|sight| sight.rows);
            let position = first.map(|(position, _)| display(position));
            let rows = first.map(|(_, rows)| rows);
            tracing::event!(
                target: "plugin", tracing::Level::$level,
                plugin, digest, table, position, rows, "{message}"
            );
        }
    };
}

impl Guest {
    /// A line as it may be written; none if there were too many.
    fn admit(&mut self, mut message: String) -> Option<String> {
        self.lines_untold = true;
        if !self.lines.admit(self.log_lines_per_second, Instant::now()) {
            return None;
        }
        message.truncate(message.floor_char_boundary(LINE_BYTES_MAX));
        Some(one_line(message))
    }
}

impl log::Host for Guest {
    fn write(&mut self, level: log::Level, message: String) {
        match level {
            log::Level::Trace => at_level!(TRACE, self, message),
            log::Level::Debug => at_level!(DEBUG, self, message),
            log::Level::Info => at_level!(INFO, self, message),
            log::Level::Warn => at_level!(WARN, self, message),
            log::Level::Error => at_level!(ERROR, self, message),
        }
    }
}

impl metrics::Host for Guest {
    fn add(&mut self, counter: String, delta: u64) {
        if let Some(sum) = self.counted.get_mut(&counter) {
            *sum = sum.saturating_add(delta);
            return;
        }
        match self.counters.admit(&counter) {
            Ok(()) => {
                self.counted.insert(counter, delta);
            }
            Err(Refusal { why, is_first: true }) => {
                tracing::warn!(plugin = %self.name, why, "plugin counter is ignored");
            }
            Err(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_count_as_memory_all_together() {
        let mut memory = Memory { bytes_max: 20 << 20, bytes: 0, exceeded: false };
        let grow = |memory: &mut Memory, from, to| memory.table_growing(from, to, None).unwrap();
        assert!(!grow(&mut memory, 0, TABLE_ELEMENTS_MAX + 1), "one is too large");
        assert!(grow(&mut memory, 0, 1 << 20) && grow(&mut memory, 0, 1 << 20));
        assert!(!memory.exceeded);
        assert!(!grow(&mut memory, 0, 1 << 20), "three are 24 MiB");
        assert!(memory.exceeded);
        assert!(memory.memory_growing(0, 4 << 20, None).unwrap(), "what is left is left");
    }
}
