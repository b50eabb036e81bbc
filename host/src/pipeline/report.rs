//! What the pipeline tells the HTTP interface.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::keeper::{CAPTURE_MEMORY, SINK_MEMORY};
use super::telling::SLOT_RECORD;
use crate::config::{Config, Role};
use crate::plugin::{Reloads, Stage, Versions};
use crate::redrive::DeadLetters;
use crate::serve::{Context, Endpoint, Leg, Mirrored, PluginStatus, Readiness, Status, StepStatus};
use crate::shutdown::{Phase, Shutdown};
use crate::snapshot_requests::SnapshotRequests;
use crate::telemetry::metrics::{Metrics, StepLabels};

/// How old the status may be.
const REFRESH: Duration = Duration::from_millis(500);
/// How long changes wait for a step before it is reported stuck. With the refresh it stays below the five
/// seconds within which `/readyz` promises to tell.
const STUCK: Duration = Duration::from_secs(4);

/// The writing ends of what the HTTP interface reads. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Report(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    metrics: Arc<Metrics>,
    readiness: Readiness,
    clickhouse: watch::Sender<Option<Endpoint>>,
    tables: watch::Sender<Vec<Mirrored>>,
    status: watch::Sender<Status>,
    plugins: Mutex<Vec<(Stage, Versions)>>,
    reloads: Reloads,
    dead_letters: DeadLetters,
    snapshot_requests: SnapshotRequests,
    steps: &'static [&'static str],
    since: Instant,
}

impl Report {
    pub(super) fn new(config: &Config, role: Role) -> Report {
        let (role, steps): (_, &[_]) = match (role, &config.kafka) {
            (Role::Capture, _) => ("capture", &["captured", "sent"]),
            (Role::Sink, _) => ("sink", &["consumed", "stored"]),
            (Role::All, Some(_)) => ("all", &["captured", "sent", "consumed", "stored"]),
            (Role::All, None) => ("all", &["captured", "stored"]),
        };
        let transport = if config.kafka.is_some() { "kafka" } else { "direct" };
        let status = Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            role: role.to_owned(),
            transport: transport.to_owned(),
            ..Status::default()
        };
        let metrics = Arc::new(Metrics::default());
        metrics.watch(steps);
        Report(Arc::new(Shared {
            metrics,
            readiness: Readiness::default(),
            clickhouse: watch::Sender::new(None),
            tables: watch::Sender::default(),
            status: watch::Sender::new(status),
            plugins: Mutex::default(),
            reloads: Reloads::default(),
            dead_letters: DeadLetters::default(),
            snapshot_requests: SnapshotRequests::default(),
            steps,
            since: Instant::now(),
        }))
    }

    pub(super) fn metrics(&self) -> &Arc<Metrics> {
        &self.0.metrics
    }

    pub(super) fn leg(&self, name: &str) -> Leg {
        self.0.readiness.leg(name)
    }

    pub(super) fn dead_letters(&self) -> &DeadLetters {
        &self.0.dead_letters
    }

    pub(super) fn snapshot_requests(&self) -> &SnapshotRequests {
        &self.0.snapshot_requests
    }

    pub(super) fn clickhouse(&self, endpoint: Endpoint) {
        self.0.clickhouse.send_replace(Some(endpoint));
    }

    pub(super) fn tables(&self, tables: Vec<Mirrored>) {
        self.0.tables.send_replace(tables);
    }

    /// Shows the plugins of these stages from now on.
    pub(super) fn plugins(&self, stages: &[Stage], versions: Vec<Versions>) {
        let mut shown = self.0.plugins.lock().unwrap_or_else(PoisonError::into_inner);
        self.0.reloads.watch(versions.iter().cloned());
        shown.extend(stages.iter().copied().zip(versions));
    }

    pub(super) fn context(&self) -> Context {
        Context {
            clickhouse: self.0.clickhouse.subscribe(),
            tables: self.0.tables.subscribe(),
            status: self.0.status.subscribe(),
            readiness: self.0.readiness.clone(),
            metrics: Arc::clone(&self.0.metrics),
            plugins: self.0.reloads.clone(),
            dead_letters: self.0.dead_letters.clone(),
            snapshot_requests: self.0.snapshot_requests.clone(),
        }
    }

    /// Keeps the status fresh.
    pub(super) fn refresh_until_drained(&self, shutdown: Shutdown) {
        let report = self.clone();
        tokio::spawn(async move {
            loop {
                report.refresh();
                let wait = tokio::time::timeout(REFRESH, shutdown.reached(Phase::Drained));
                if wait.await.is_ok() {
                    return;
                }
            }
        });
    }

    fn refresh(&self) {
        let stuck_for =
            |step| self.0.metrics.stuck_for(step).filter(|stuck: &Duration| *stuck >= STUCK);
        for step in [CAPTURE_MEMORY, SINK_MEMORY] {
            let reason = stuck_for(step).map(|stuck| {
                format!(
                    "what plugins remember has been on its way to the disk for {} s; look at the disk of \
                     [state] path",
                    stuck.as_secs()
                )
            });
            self.0.readiness.stuck(step, reason);
        }
        let unrecorded = stuck_for(SLOT_RECORD).map(|stuck| {
            format!(
                "the table `_tailwater_sources` has not taken for {} s how far changes are stored, so the slot \
                 is not told, and PostgreSQL keeps its log; look at that table in ClickHouse",
                stuck.as_secs()
            )
        });
        self.0.readiness.stuck(SLOT_RECORD, unrecorded);
        for step in self.0.steps {
            let reason = stuck_for(step).map(|stuck| {
                format!(
                    "changes wait for the step `{step}`, and none has passed it for {} s; look at what \
                     it writes to, and at the plugins before it",
                    stuck.as_secs()
                )
            });
            self.0.readiness.stuck(step, reason);
        }
        let steps: BTreeMap<String, StepStatus> =
            self.0.steps.iter().map(|step| ((*step).to_owned(), self.progress(step))).collect();
        let plugins = self.running_plugins();
        self.0.status.send_modify(|status| {
            status.uptime_seconds = self.0.since.elapsed().as_secs();
            status.steps = steps;
            status.plugins = plugins;
        });
    }

    fn progress(&self, step: &'static str) -> StepStatus {
        let (metrics, labels) = (&self.0.metrics, StepLabels { step });
        let progress = metrics.progress(step);
        StepStatus {
            position: progress.map(|(position, _)| position.to_string()),
            lag_bytes: progress.map(|(_, lag)| lag),
            lag_seconds: metrics.lag_seconds(step),
            changes: metrics.passed.get_or_create(&labels).get(),
        }
    }

    fn running_plugins(&self) -> Vec<PluginStatus> {
        let shown = self.0.plugins.lock().unwrap_or_else(PoisonError::into_inner);
        let one = |(stage, versions): &(Stage, Versions)| {
            let stage = match stage {
                Stage::Capture => "capture",
                Stage::Sink => "sink",
            };
            versions.list().into_iter().map(move |plugin| PluginStatus {
                name: plugin.name,
                stage: stage.to_owned(),
                digest: plugin.digest,
                generation: plugin.generation,
                last_reload_error: plugin.last_reload_error,
                last_shadow: plugin.last_shadow,
            })
        };
        shown.iter().flat_map(one).collect()
    }
}
