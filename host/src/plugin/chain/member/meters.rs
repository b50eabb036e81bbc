//! What a plugin does, in numbers. The handles to the metrics are looked up once; what a batch adds to
//! them is a few atomic additions.

use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;

use crate::telemetry::metrics::{FloatCounter, Metrics, PluginLabels};

/// What a batch cost so far.
#[derive(Default)]
pub(crate) struct Usage {
    pub(crate) calls: u64,
    pub(crate) rows: u64,
    /// Rows of the batch, however often they were shown.
    pub(crate) batch_rows: u64,
    /// Before its turn.
    pub(crate) ahead: Duration,
    /// Looking for the rows at fault.
    pub(crate) searching: Duration,
}

/// The metrics of one plugin. They are there from its start on, at nought.
pub(crate) struct Meters {
    busy_seconds: FloatCounter,
    calls: Counter,
    rows: Counter,
    memory_bytes: Gauge,
}

impl Meters {
    pub(crate) fn new(metrics: &Metrics, plugin: &str) -> Meters {
        let labels = PluginLabels { plugin: plugin.to_owned() };
        Meters {
            busy_seconds: metrics.plugin_busy_seconds.get_or_create(&labels).clone(),
            calls: metrics.plugin_calls.get_or_create(&labels).clone(),
            rows: metrics.plugin_rows.get_or_create(&labels).clone(),
            memory_bytes: metrics.plugin_memory_bytes.get_or_create(&labels).clone(),
        }
    }

    /// Takes in a batch.
    pub(crate) fn count(&self, usage: &Usage, elapsed: Duration) {
        self.busy_seconds.inc_by(elapsed.as_secs_f64());
        self.calls.inc_by(usage.calls);
        self.rows.inc_by(usage.rows);
    }

    /// Notes the linear memory that the instance holds.
    pub(crate) fn holds(&self, bytes: usize) {
        self.memory_bytes.set(i64::try_from(bytes).unwrap_or(i64::MAX));
    }
}
