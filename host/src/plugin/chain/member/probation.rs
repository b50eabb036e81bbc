//! A new version proves itself while the one before stands by.
//!
//! A batch on which the new version fails rows is shown to the version before. If that fails on fewer of
//! them, its outcome counts, so that a bad build costs no row, and the new version is rolled back and
//! quarantined. If it does not, the rows are at fault and not the version, and the outcome of the new
//! version counts: one that mends a part of what the version before fails on must not lose by that.

use std::mem;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustc_hash::FxHashMap;

use crate::plugin::chain::member::breaker::Breaker;
use crate::plugin::chain::member::pace::{Pace, Usual};
use crate::plugin::chain::member::{Member, Subscription};
use crate::plugin::guest::Instance;
use crate::plugin::versions::{Loader, Version};

/// A version that could run at once.
pub(crate) struct Standby {
    pub(crate) loader: Loader,
    pub(crate) version: Version,
    pub(crate) instance: Instance,
    pub(crate) subscriptions: FxHashMap<u64, Subscription>,
    pub(crate) pace: Pace,
    pub(crate) usual: Usual,
}

/// The time in which a new version proves itself.
pub(crate) struct Probation {
    /// The version before.
    pub(crate) standby: Standby,
    /// Rows of the batch that the new version failed on.
    pub(crate) failed_rows: u64,
    /// When the new version took over.
    pub(crate) since: Instant,
}

impl Probation {
    pub(crate) fn new(standby: Standby) -> Probation {
        Probation { standby, failed_rows: 0, since: Instant::now() }
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
            usual: Usual::default(),
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
        mem::swap(&mut self.usual, &mut standby.usual);
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

    /// Is shown the batch once more, by whichever version has the place now.
    pub(crate) fn look_again(&mut self) {
        self.hangs.begin_again(self.options().deadline());
    }

    /// Lets the version before have the place for a look at the batch.
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
        let (identity, running) =
            (version.identity(&loader.options), self.version.identity(self.options()));
        loader.runtime.quarantine.put(&version.id.digest, &loader.options, why, &running);
        self.handover.roll_back(&identity, running, why);
        self.loader.count_reload("rolled-back");
        let (plugin, digest, running) =
            (&version.id.name, &version.id.digest, &self.version.id.digest);
        tracing::error!(%plugin, %digest, %running, why, "plugin version is rolled back and quarantined");
    }
}
