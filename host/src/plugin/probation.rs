//! A new version proves itself while the one before stands by.
//!
//! A batch on which the new version fails rows is shown to the version before. If that takes them,
//! its outcome counts, so that a bad build costs no row, and the new version is rolled back and
//! quarantined. If that fails just as much, the rows are at fault and not the version.

use std::mem;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustc_hash::FxHashMap;

use crate::plugin::breaker::Breaker;
use crate::plugin::instance::Instance;
use crate::plugin::loader::{Loader, Version};
use crate::plugin::member::{Member, Subscription};
use crate::telemetry::metrics::PluginKindLabels;

/// Rows that both versions must have seen before their speeds are compared.
const PACE_ROWS: u64 = 1_000;
/// How much slower than the version before a version may be.
const PACE_RATIO: u32 = 10;
/// What is fast enough, however fast the version before was, per row.
const PACE_FLOOR: Duration = Duration::from_micros(50);

/// A version that could run at once.
pub(super) struct Standby {
    pub(super) loader: Loader,
    pub(super) version: Version,
    pub(super) instance: Instance,
    pub(super) subscriptions: FxHashMap<u64, Subscription>,
    pub(super) pace: Pace,
}

/// The time in which a new version proves itself.
pub(super) struct Probation {
    /// The version before.
    pub(super) standby: Standby,
    /// Rows of the batch that the new version failed on.
    pub(super) failed_rows: u64,
    /// When the new version took over.
    pub(super) since: Instant,
}

impl Probation {
    pub(super) fn new(standby: Standby) -> Probation {
        Probation { standby, failed_rows: 0, since: Instant::now() }
    }
}

/// What a version took so far.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Pace {
    pub(super) rows: u64,
    pub(super) time: Duration,
}

impl Pace {
    fn per_row(&self) -> Option<Duration> {
        let per_row = || self.time.as_nanos() / u128::from(self.rows);
        let known = (self.rows >= PACE_ROWS).then(per_row)?;
        Some(Duration::from_nanos(u64::try_from(known).unwrap_or(u64::MAX)))
    }

    /// How long so many rows are likely to take; none if that is not known yet.
    pub(super) fn expected(&self, rows: u64) -> Option<Duration> {
        let rows = u32::try_from(rows).unwrap_or(u32::MAX);
        Some(self.per_row()?.saturating_mul(rows))
    }

    pub(super) fn is_far_slower_than(&self, before: &Pace) -> bool {
        let (Some(now), Some(before)) = (self.per_row(), before.per_row()) else { return false };
        now > PACE_FLOOR && now > before * PACE_RATIO
    }
}

impl Member {
    /// Lets a version that is ready take over; the memory of keys stays. The version before stands
    /// by until the new one has proved itself.
    pub(crate) fn take_over(&mut self) -> bool {
        let Some((loader, loaded)) = self.handover.take() else { return false };
        let standby = Standby {
            loader,
            version: loaded.version,
            instance: loaded.instance,
            subscriptions: FxHashMap::default(),
            pace: Pace::default(),
        };
        self.probation = Some(Probation::new(standby));
        self.exchange();
        self.breaker = Breaker::default();
        if self.options().probation_rows == 0 {
            self.probation = None;
        }
        true
    }

    /// Swaps the version that runs and the one that stands by, with the limits of their settings.
    fn exchange(&mut self) {
        let Some(Probation { standby, .. }) = &mut self.probation else { return };
        mem::swap(&mut self.loader, &mut standby.loader);
        mem::swap(&mut self.version, &mut standby.version);
        mem::swap(&mut self.instance, &mut standby.instance);
        mem::swap(&mut self.subscriptions, &mut standby.subscriptions);
        mem::swap(&mut self.pace, &mut standby.pace);
        self.handover.forget_seen();
        let options = Arc::clone(&self.loader.options);
        self.limit_memory(&options);
    }

    pub(crate) fn on_probation(&self) -> bool {
        self.probation.is_some()
    }

    /// Whether a version on probation failed on so much of a batch that the version before is to
    /// have a look at it.
    pub(crate) fn is_suspect(&self) -> bool {
        self.on_probation()
            && self.failed_rows * 100
                > u64::from(self.options().probation_fault_percent) * self.usage.batch_rows
    }

    /// Lets the version before look at the batch.
    pub(crate) fn step_aside(&mut self) {
        let failed = self.failed_rows;
        self.exchange();
        if let Some(probation) = &mut self.probation {
            probation.failed_rows = failed;
        }
    }

    /// After the version before looked at the batch: the new one is rolled back if that did better,
    /// and has its place again if it did not. True: rolled back.
    pub(crate) fn judge(&mut self) -> bool {
        let Some(probation) = &self.probation else { return false };
        let blamed = self.failed_rows < probation.failed_rows;
        let why = format!(
            "{} rows of a batch failed that the version before takes",
            probation.failed_rows
        );
        if blamed {
            self.reject_new(&why);
        } else {
            self.exchange();
        }
        blamed
    }

    /// Ends the probation of a version that proved itself or had its time, or that is far too slow.
    /// True: rolled back.
    pub(crate) fn review(&mut self) -> bool {
        let Some(probation) = &self.probation else { return false };
        if self.pace.is_far_slower_than(&probation.standby.pace) {
            self.exchange();
            self.reject_new("it takes more than ten times as long per row as the version before");
            return true;
        }
        let options = &self.loader.options;
        let time_max = Duration::from_secs(options.probation_seconds);
        if self.pace.rows >= options.probation_rows || probation.since.elapsed() >= time_max {
            self.probation = None;
        }
        false
    }

    fn reject_new(&mut self, why: &str) {
        let Some(probation) = self.probation.take() else { return };
        let Standby { loader, version, .. } = probation.standby;
        let identity = version.identity(&loader.options);
        self.handover.roll_back(identity, self.version.identity(self.options()), why);
        let labels = PluginKindLabels { plugin: version.id.name.clone(), kind: "rolled-back" };
        self.loader.metrics.plugin_reloads.get_or_create(&labels).inc();
        let (plugin, digest, running) =
            (&version.id.name, &version.id.digest, &self.version.id.digest);
        tracing::error!(%plugin, %digest, %running, why, "plugin version is rolled back and quarantined");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pace(rows: u64, per_row: u64) -> Pace {
        Pace { rows, time: Duration::from_micros(rows * per_row) }
    }

    #[test]
    fn only_what_is_far_slower_over_many_rows_is_too_slow() {
        assert!(pace(1_000, 60).is_far_slower_than(&pace(5_000, 5)));
        assert!(!pace(1_000, 60).is_far_slower_than(&pace(5_000, 6)), "not ten times");
        assert!(!pace(1_000, 40).is_far_slower_than(&pace(5_000, 1)), "fast enough");
        assert!(!pace(999, 60).is_far_slower_than(&pace(5_000, 5)), "too few rows");
    }
}
