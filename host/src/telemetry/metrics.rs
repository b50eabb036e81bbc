//! Every metric by name. Stages hold an `Arc<Metrics>` and touch it once per batch.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use prometheus_client::encoding::{EncodeLabelSet, EncodeMetric, MetricEncoder};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

use crate::change::Changes;
use crate::position::Lsn;

/// Labels of a counter of changes.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ChangeLabels {
    /// `captured`, `sent`, `consumed`, `stored`
    pub step: &'static str,
    /// `schema.table`
    pub table: String,
    /// `read`, `insert`, `update`, `delete`, `truncate`
    pub op: &'static str,
}

/// A step's label.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct StepLabels {
    /// `captured`, `sent`, `consumed`, `stored`; of dead letters also `transformed`
    pub step: &'static str,
}

/// A plugin's label.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct PluginLabels {
    /// Name in the configuration.
    pub plugin: String,
}

/// A plugin's fault or reload, by kind.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct PluginKindLabels {
    /// Name in the configuration.
    pub plugin: String,
    /// What happened.
    pub kind: &'static str,
}

/// The version of a plugin that runs.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct PluginInfoLabels {
    /// Name in the configuration.
    pub plugin: String,
    /// SHA-256 of the component, hex.
    pub digest: String,
    /// 1 for the version the process started with, one more per swap.
    pub generation: u64,
}

/// Labels of [`Op`](crate::change::Op)s, in their order.
const OPS: [&str; 5] = ["read", "insert", "update", "delete", "truncate"];

/// A counter that a plugin made.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct PluginCounterLabels {
    /// Name in the configuration.
    pub plugin: String,
    /// The plugin's name for it.
    pub counter: String,
}

/// A gauge of something that has fractions.
pub type FloatGauge = Gauge<f64, AtomicU64>;

/// A counter of something that has fractions.
pub type FloatCounter = Counter<f64, AtomicU64>;

/// A gauge without labels that is not shown before it has a value: what nobody looked at is not 0.
#[derive(Debug, Clone, Default)]
pub struct SeenGauge {
    gauge: Gauge,
    seen: Arc<AtomicBool>,
}

impl SeenGauge {
    /// Sets the value.
    pub fn set(&self, value: i64) {
        self.gauge.set(value);
        self.seen.store(true, Ordering::Release);
    }

    /// Sets the value, unless it is larger already.
    fn raise(&self, value: i64) {
        self.gauge.inner().fetch_max(value, Ordering::Relaxed);
        self.seen.store(true, Ordering::Release);
    }

    fn get(&self) -> i64 {
        self.gauge.get()
    }
}

impl EncodeMetric for SeenGauge {
    fn encode(&self, encoder: MetricEncoder<'_>) -> Result<(), std::fmt::Error> {
        self.gauge.encode(encoder)
    }

    fn metric_type(&self) -> MetricType {
        EncodeMetric::metric_type(&self.gauge)
    }

    fn is_empty(&self) -> bool {
        !self.seen.load(Ordering::Acquire)
    }
}

/// The commits before a step, as times in microseconds since 1970.
#[derive(Debug, Default, Clone, Copy)]
struct Commits {
    /// The newest that is on its way to the step, or was.
    newest: i64,
    /// The newest that passed it. Commits do not come in the order of their times.
    passed: i64,
    /// A commit time that none of the commits on their way is older than; none while nothing waits.
    waiting_since: Option<i64>,
    /// Age of the newest that passed, when it passed; seconds.
    passed_after: f64,
    /// Since when some are on their way and none passed.
    stuck_since: Option<Instant>,
}

/// All metrics of the process.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    /// Changes that passed a step.
    pub changes: Family<ChangeLabels, Counter>,
    /// All changes that passed a step, of any table.
    pub passed: Family<StepLabels, Counter>,
    /// The server's end of the write-ahead log, as last heard.
    pub source_position: SeenGauge,
    /// The LSN that a step acknowledged.
    pub position: Family<StepLabels, Gauge>,
    /// Bytes of write-ahead log between the server's end and what passed the step; set when exposed.
    lag_bytes: Family<StepLabels, Gauge>,
    /// See [`Metrics::lag_seconds`]; set when exposed.
    lag_seconds: Family<StepLabels, FloatGauge>,
    /// See [`Metrics::movements`].
    movements: AtomicU64,
    /// How late each step is.
    commits: Mutex<BTreeMap<&'static str, Commits>>,
    /// Commit to visible in ClickHouse.
    pub visible_seconds: Histogram,
    /// Write-ahead log the slot holds back.
    pub slot_retained_bytes: SeenGauge,
    /// Whether the slot is safe: 1 while `wal_status` is reserved or extended.
    pub slot_safe: SeenGauge,
    /// Rows of a batch at a step.
    pub batch_rows: Family<StepLabels, Histogram>,
    /// Which version of a plugin runs; the value is 1.
    pub plugin_info: Family<PluginInfoLabels, Gauge>,
    /// Time spent on a plugin, host work included.
    pub plugin_busy_seconds: Family<PluginLabels, FloatCounter>,
    /// Time that a plugin took for one call with a batch.
    pub plugin_call_seconds: Family<PluginLabels, Histogram>,
    /// Calls of a plugin.
    pub plugin_calls: Family<PluginLabels, Counter>,
    /// Rows a plugin was shown.
    pub plugin_rows: Family<PluginLabels, Counter>,
    /// Faults of a plugin.
    pub plugin_faults: Family<PluginKindLabels, Counter>,
    /// Reloads of a plugin, by how they ended.
    pub plugin_reloads: Family<PluginKindLabels, Counter>,
    /// Linear memory of a plugin's instance.
    pub plugin_memory_bytes: Family<PluginLabels, Gauge>,
    /// What a plugin keeps in its state, bytes.
    pub plugin_state_bytes: Family<PluginLabels, Gauge>,
    /// Keys of a plugin's state.
    pub plugin_state_keys: Family<PluginLabels, Gauge>,
    /// Rows by which a plugin's duplicates are told.
    pub plugin_window_keys: Family<PluginLabels, Gauge>,
    /// Lines that a plugin wanted to log: `logged`, or `suppressed` because they were too many.
    pub plugin_log_lines: Family<PluginKindLabels, Counter>,
    /// Batches on which several plugins computed at the same time.
    pub plugin_parallel_batches: Counter,
    /// Counters of the plugins' own.
    pub plugin_custom: Family<PluginCounterLabels, Counter>,
    /// Changes set aside, by the step that did so.
    pub dead_letters: Family<StepLabels, Counter>,
    /// Times a stage lost its peer and tried again.
    pub reconnects: Family<StepLabels, Counter>,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut metrics = Metrics {
            registry: Registry::with_prefix("tailwater"),
            changes: Family::default(),
            passed: Family::default(),
            source_position: SeenGauge::default(),
            position: Family::default(),
            lag_bytes: Family::default(),
            lag_seconds: Family::default(),
            movements: AtomicU64::default(),
            commits: Mutex::default(),
            // 5 ms to 30 s, so fine that a quantile read from it is off by an eighth at most.
            visible_seconds: Histogram::new(exponential_buckets(0.005, 1.25, 40)),
            slot_retained_bytes: SeenGauge::default(),
            slot_safe: SeenGauge::default(),
            batch_rows: Family::new_with_constructor(|| {
                Histogram::new(exponential_buckets(1.0, 4.0, 11))
            }),
            plugin_info: Family::default(),
            plugin_busy_seconds: Family::default(),
            plugin_call_seconds: Family::new_with_constructor(|| {
                Histogram::new(exponential_buckets(1e-6, 4.0, 12))
            }),
            plugin_calls: Family::default(),
            plugin_rows: Family::default(),
            plugin_faults: Family::default(),
            plugin_reloads: Family::default(),
            plugin_memory_bytes: Family::default(),
            plugin_state_bytes: Family::default(),
            plugin_state_keys: Family::default(),
            plugin_window_keys: Family::default(),
            plugin_log_lines: Family::default(),
            plugin_parallel_batches: Counter::default(),
            plugin_custom: Family::default(),
            dead_letters: Family::default(),
            reconnects: Family::default(),
        };
        metrics.register();
        metrics
    }
}

impl Metrics {
    fn register(&mut self) {
        let r = &mut self.registry;
        r.register("changes", "changes that passed a step", self.changes.clone());
        r.register("passed", "changes of any table that passed a step", self.passed.clone());
        r.register(
            "source_position",
            "the server's end of the write-ahead log, as last heard",
            self.source_position.clone(),
        );
        r.register("position", "the LSN up to which a step is done", self.position.clone());
        r.register_with_unit(
            "lag",
            "write-ahead log between the server's end and what passed the step",
            Unit::Bytes,
            self.lag_bytes.clone(),
        );
        r.register_with_unit(
            "lag",
            "age of the newest commit that passed the step, when it passed; grows while others wait",
            Unit::Seconds,
            self.lag_seconds.clone(),
        );
        r.register_with_unit(
            "commit_to_visible",
            "from commit in PostgreSQL to visible in ClickHouse",
            Unit::Seconds,
            self.visible_seconds.clone(),
        );
        r.register_with_unit(
            "slot_retained",
            "write-ahead log the replication slot holds back",
            Unit::Bytes,
            self.slot_retained_bytes.clone(),
        );
        r.register(
            "slot_safe",
            "1 while the server still promises the slot's write-ahead log",
            self.slot_safe.clone(),
        );
        r.register("batch_rows", "rows of a batch at a step", self.batch_rows.clone());
        r.register("dead_letters", "changes set aside", self.dead_letters.clone());
        r.register("reconnects", "times a step lost its peer", self.reconnects.clone());
        self.register_plugins();
    }

    fn register_plugins(&mut self) {
        let r = self.registry.sub_registry_with_prefix("plugin");
        r.register("info", "the version that runs", self.plugin_info.clone());
        let busy = self.plugin_busy_seconds.clone();
        r.register_with_unit("busy", "time spent in the plugin", Unit::Seconds, busy);
        let calls = self.plugin_call_seconds.clone();
        r.register_with_unit("call", "time that one call took", Unit::Seconds, calls);
        r.register("calls", "calls of the plugin", self.plugin_calls.clone());
        r.register("rows", "rows shown to the plugin", self.plugin_rows.clone());
        r.register("faults", "faults by kind", self.plugin_faults.clone());
        r.register("reloads", "reloads by how they ended", self.plugin_reloads.clone());
        let memory = self.plugin_memory_bytes.clone();
        r.register_with_unit("memory", "linear memory held", Unit::Bytes, memory);
        let state = self.plugin_state_bytes.clone();
        r.register_with_unit("state", "bytes of its state", Unit::Bytes, state);
        r.register("state_keys", "keys of its state", self.plugin_state_keys.clone());
        let window = self.plugin_window_keys.clone();
        r.register("window_keys", "rows by which duplicates are told", window);
        let lines = self.plugin_log_lines.clone();
        r.register("log_lines", "lines it wanted to log, by what became of them", lines);
        let parallel = self.plugin_parallel_batches.clone();
        r.register("parallel_batches", "batches on which several computed at once", parallel);
        r.register("custom", "counters of the plugin's own", self.plugin_custom.clone());
    }

    /// Shows the counters of what goes wrong from 0 on, for the steps of this process: what first appears
    /// with its first value did not grow, as Prometheus sees it, and nobody is alarmed.
    pub fn watch(&self, steps: &[&'static str]) {
        for step in steps.iter().copied() {
            drop(self.reconnects.get_or_create(&StepLabels { step }));
        }
        // What is captured fails in a plugin, or later on.
        let keeping = steps.iter().copied().filter(|step| *step != "captured");
        for step in keeping.chain(["transformed"]) {
            drop(self.dead_letters.get_or_create(&StepLabels { step }));
        }
    }

    /// Counts changes that a step set aside. It alone counts them, though they go on with the others.
    pub fn count_dead_letters(&self, step: &'static str, count: usize) {
        if let Ok(count @ 1..) = u64::try_from(count) {
            self.dead_letters.get_or_create(&StepLabels { step }).inc_by(count);
        }
    }

    /// Counts a batch's changes by table and operation.
    pub fn count_changes(&self, step: &'static str, changes: &Changes) {
        let mut counts = vec![[0u64; OPS.len()]; changes.tables.len()];
        for change in &changes.list {
            counts[change.table as usize][change.op as usize] += 1;
        }
        for (table, counts) in changes.tables.iter().zip(counts) {
            for (op, count) in OPS.into_iter().zip(counts).filter(|(_, count)| *count > 0) {
                let labels = ChangeLabels { step, table: table.full_name().to_string(), op };
                self.changes.get_or_create(&labels).inc_by(count);
            }
        }
        self.movements.fetch_add(1, Ordering::Relaxed);
        self.passed.get_or_create(&StepLabels { step }).inc_by(changes.len() as u64);
        let rows = u32::try_from(changes.len()).unwrap_or(u32::MAX);
        self.batch_rows.get_or_create(&StepLabels { step }).observe(f64::from(rows));
    }

    /// Notes the server's end of the log, unless a later one was heard of.
    pub fn source_is_at(&self, end: Lsn) {
        self.source_position.raise(gauge(end.0));
    }

    /// Notes that a step is done with everything up to an LSN; 0 is none.
    pub fn reached(&self, step: &'static str, position: Lsn) {
        self.movements.fetch_add(1, Ordering::Relaxed);
        if position > Lsn(0) {
            self.position.get_or_create(&StepLabels { step }).set(gauge(position.0));
        }
    }

    /// The LSN up to which a step is done, and the bytes of write-ahead log that the server has after it;
    /// none of a step that is told no LSN.
    #[must_use]
    pub fn progress(&self, step: &'static str) -> Option<(Lsn, u64)> {
        let position = self.position.get(&StepLabels { step })?.get();
        let lag = self.source_position.get().saturating_sub(position);
        Some((Lsn(position.try_into().unwrap_or_default()), lag.try_into().unwrap_or_default()))
    }

    /// Notes that commits are on their way to a step. `newest` is the time of the newest, in microseconds
    /// since 1970, 0 if there is none.
    pub fn awaits(&self, step: &'static str, newest: i64) {
        if newest > 0 {
            let mut all = self.commits();
            let commits = all.entry(step).or_default();
            commits.newest = commits.newest.max(newest);
            commits.waiting_since.get_or_insert(newest);
            commits.stuck_since.get_or_insert_with(Instant::now);
        }
    }

    /// Notes that a step begins something of which no commit says how late it is; over with
    /// [`Metrics::awaits_nothing`].
    pub fn begins(&self, step: &'static str) {
        self.commits().entry(step).or_default().stuck_since.get_or_insert_with(Instant::now);
    }

    /// Notes that what was on its way to a step will come again, as far as it still has to.
    pub fn awaits_nothing(&self, step: &'static str) {
        if let Some(commits) = self.commits().get_mut(step) {
            (commits.newest, commits.waiting_since, commits.stuck_since) = (0, None, None);
        }
    }

    /// Notes that commits passed a step; `newest` as for [`Metrics::awaits`].
    pub fn passed_by(&self, step: &'static str, newest: i64) {
        if newest > 0 {
            let mut all = self.commits();
            let commits = all.entry(step).or_default();
            commits.passed = commits.passed.max(newest);
            commits.waiting_since = (commits.passed < commits.newest).then_some(newest);
            commits.passed_after = seconds_since(newest);
            commits.stuck_since = commits.waiting_since.map(|_| Instant::now());
        }
    }

    /// For how long commits have been on their way to a step of which none passed it.
    #[must_use]
    pub fn stuck_for(&self, step: &'static str) -> Option<Duration> {
        Some(self.commits().get(step)?.stuck_since?.elapsed())
    }

    /// A number that grows while anything passes any step.
    #[must_use]
    pub fn movements(&self) -> u64 {
        self.movements.load(Ordering::Relaxed)
    }

    /// How far a step is behind: the age of the newest commit that passed it, when it passed, and now
    /// while younger ones are on their way to it. None if none passed and none is.
    #[must_use]
    pub fn lag_seconds(&self, step: &'static str) -> Option<f64> {
        let commits = *self.commits().get(step)?;
        Some(commits.waiting_since.map_or(commits.passed_after, seconds_since))
    }

    fn commits(&self) -> std::sync::MutexGuard<'_, BTreeMap<&'static str, Commits>> {
        self.commits.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The exposition text of `/metrics`.
    #[must_use]
    pub fn expose(&self) -> String {
        for step in ["captured", "sent", "stored"] {
            let labels = StepLabels { step };
            if let Some((_, lag)) = self.progress(step) {
                self.lag_bytes.get_or_create(&labels).set(gauge(lag));
            }
            if let Some(lag) = self.lag_seconds(step) {
                self.lag_seconds.get_or_create(&labels).set(lag);
            }
        }
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.registry)
            .expect("writing to a string does not fail");
        text
    }
}

fn gauge(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

fn seconds_since(micros: i64) -> f64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let now = i64::try_from(now.as_micros()).unwrap_or(i64::MAX);
    (now.saturating_sub(micros) as f64 / 1e6).max(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exposition_carries_the_prefix_and_help() {
        let metrics = Metrics::default();
        metrics.slot_safe.set(1);
        let text = metrics.expose();
        assert!(text.contains("# HELP tailwater_slot_safe "), "{text}");
        assert!(text.contains("tailwater_slot_safe 1\n"), "{text}");
    }

    #[test]
    fn what_nobody_looked_at_is_not_shown_as_zero() {
        let metrics = Metrics::default();
        let names = ["slot_safe", "slot_retained_bytes", "source_position"];
        let shown = || {
            let text = metrics.expose();
            let is_shown = |name: &&str| text.contains(&format!("tailwater_{name}"));
            names.into_iter().filter(is_shown).collect::<Vec<_>>()
        };
        assert_eq!(shown(), [""; 0]);
        metrics.slot_safe.set(0);
        assert_eq!(shown(), ["slot_safe"]);
        assert!(metrics.expose().contains("\ntailwater_slot_safe 0\n"));
        metrics.slot_retained_bytes.set(0);
        metrics.source_is_at(Lsn(7));
        assert_eq!(shown(), names);
    }

    #[test]
    fn what_goes_wrong_is_counted_from_zero_for_the_steps_there_are() {
        let metrics = Metrics::default();
        metrics.watch(&["captured", "sent"]);
        let text = metrics.expose();
        let counted = |name: &str| {
            let name = format!("tailwater_{name}_total{{step=\"");
            let step =
                |line: &str| Some(line.strip_prefix(&name)?.strip_suffix("\"} 0")?.to_owned());
            let mut steps: Vec<_> = text.lines().filter_map(step).collect();
            steps.sort();
            steps
        };
        assert_eq!(counted("dead_letters"), ["sent", "transformed"]);
        assert_eq!(counted("reconnects"), ["captured", "sent"]);
    }

    #[test]
    fn what_only_grows_is_a_counter_and_what_has_a_unit_is_named_after_it() {
        let metrics = Metrics::default();
        let labels = PluginLabels { plugin: "it".to_owned() };
        metrics.plugin_busy_seconds.get_or_create(&labels).inc_by(0.5);
        metrics.plugin_call_seconds.get_or_create(&labels).observe(0.5);
        metrics.plugin_memory_bytes.get_or_create(&labels).set(1);
        metrics.plugin_state_bytes.get_or_create(&labels).set(1);
        metrics.slot_retained_bytes.set(1);
        metrics.reached("stored", Lsn(100));
        metrics.passed_by("stored", 1);
        let text = metrics.expose();
        assert!(text.contains("# TYPE tailwater_plugin_busy_seconds counter\n"), "{text}");
        assert!(
            text.contains("tailwater_plugin_busy_seconds_total{plugin=\"it\"} 0.5\n"),
            "{text}"
        );
        let of_kind = |kind: &'static str| {
            let named =
                move |line: &str| Some(line.strip_prefix(kind)?.split_once(' ')?.0.to_owned());
            text.lines().filter_map(named).collect::<Vec<_>>()
        };
        let has_unit = |name: &String| name.ends_with("_seconds") || name.ends_with("_bytes");
        let named: Vec<_> = of_kind("# TYPE ").into_iter().filter(has_unit).collect();
        assert_eq!(named, of_kind("# UNIT "));
        assert_eq!(named.len(), 8, "{named:?}");
    }

    #[test]
    fn the_lag_of_a_step_that_stands_grows_with_the_source() {
        let metrics = Metrics::default();
        metrics.reached("stored", Lsn(0));
        assert_eq!(metrics.progress("stored"), None);
        metrics.reached("stored", Lsn(100));
        metrics.source_is_at(Lsn(100));
        assert!(metrics.expose().contains("tailwater_lag_bytes{step=\"stored\"} 0\n"));
        metrics.source_is_at(Lsn(900));
        // What the stream heard before is no news.
        metrics.source_is_at(Lsn(500));
        assert_eq!(metrics.progress("stored"), Some((Lsn(100), 800)));
        assert!(metrics.expose().contains("tailwater_lag_bytes{step=\"stored\"} 800\n"));
    }

    #[test]
    fn the_age_of_what_waits_grows_until_all_of_it_has_passed() {
        const SECOND: i64 = 1_000_000;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        let now = i64::try_from(now.as_micros()).unwrap();
        let metrics = Metrics::default();
        let lag = || metrics.lag_seconds("stored").unwrap();
        let about = |seconds: f64| assert!((lag() - seconds).abs() < 5.0, "{} {seconds}", lag());
        metrics.awaits("stored", 0);
        assert_eq!(metrics.lag_seconds("stored"), None);
        metrics.awaits("stored", now - 300 * SECOND);
        metrics.awaits("stored", now - 100 * SECOND);
        about(300.0);
        metrics.passed_by("stored", now - 300 * SECOND);
        about(300.0);
        metrics.passed_by("stored", now - 100 * SECOND);
        about(100.0);
        assert_eq!(metrics.stuck_for("stored"), None);
        // Idle from here on, and so no later than it was.
        let before = lag();
        let later = SystemTime::now() + Duration::from_millis(2);
        while SystemTime::now() < later {
            std::hint::spin_loop();
        }
        assert_eq!(lag(), before);
        metrics.awaits("stored", now - 50 * SECOND);
        about(50.0);
        assert!(metrics.stuck_for("stored").is_some());
        metrics.awaits_nothing("stored");
        assert_eq!(metrics.stuck_for("stored"), None);
        about(100.0);
        // The clock of the source went back between two commits.
        for age in [20, 40] {
            metrics.awaits("stored", now - age * SECOND);
            metrics.passed_by("stored", now - age * SECOND);
        }
        about(40.0);
        assert_eq!(lag(), lag(), "nothing waits");
    }
}
