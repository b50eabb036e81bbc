//! One plugin of a chain, whichever version of it runs.
//!
//! The files are the pieces of a batch's way through it, in the order in which they come to pass. [`turn`] is
//! the whole of it.

use std::sync::Arc;

use rustc_hash::{FxHashMap, FxHashSet};

use crate::plugin::boundary::Scratch;
use crate::plugin::guest::{Instance, Role};
use crate::plugin::memory::{Memory, Scope, SetAside};
use crate::plugin::options::Options;
use crate::plugin::versions::{Handover, Loaded, Loader, Version};
use crate::table::Table;
use crate::telemetry::metrics::PluginKindLabels;
use ahead::Ahead;
use breaker::Breaker;
use hangs::Hangs;
use meters::{Meters, Usage};
use pace::{Pace, Usual};
use probation::Probation;
pub(crate) use subscription::Subscription;

mod probation;

mod turn;

mod subscription;

mod task;

mod ask;

mod ahead;

mod faults;

mod hangs;

mod restart;

mod breaker;

mod reach;

mod memory;

mod compare;

mod meters;

pub(super) mod pace;

/// A plugin with all that it has while its chain lives.
pub(crate) struct Member {
    name: Arc<str>,
    pub(super) loader: Loader,
    version: Version,
    pub(super) instance: Instance,
    subscriptions: FxHashMap<u64, Subscription>,
    /// What is remembered for it.
    pub(super) memory: Memory,
    scope: Scope,
    /// What is remembered in other scopes.
    elsewhere: FxHashMap<Scope, Memory>,
    /// What windows mark rows under.
    secret: [u8; 16],
    handover: Arc<Handover>,
    pub(super) probation: Option<Probation>,
    scratch: Scratch,
    pub(super) usage: Usage,
    meters: Meters,
    /// Rows of the batch that it failed on for good.
    failed_rows: u64,
    /// Time and rows of the version that runs.
    pub(super) pace: Pace,
    /// What its calls take that are answered.
    usual: Usual,
    breaker: Breaker,
    /// What rows that hang took of the batch.
    hangs: Hangs,
    /// The rows were set aside before, and later changes of theirs were looked at since.
    redriving: bool,
    /// What it answered before its turn.
    ahead: Ahead,
    /// Changes of the batch that were set aside before it could see them.
    pub(super) unseen: Vec<SetAside>,
    /// The batch was taken in already.
    has_begun: bool,
    /// The digest of the version that ran before, if no change was shown to the one that runs.
    pub(super) swapped_from: Option<String>,
    /// Why its instance was not replaced in this batch, though it is dead.
    down: Option<String>,
    /// It was asked about a table of the batch and did not answer in time.
    questions_hang: bool,
    /// Tables of which an instance wanted rows; one that takes its place has to be asked about them again.
    taken: FxHashSet<u64>,
}

impl Drop for Member {
    fn drop(&mut self) {
        self.loader.lines.finish();
    }
}

impl Member {
    pub(crate) fn new(loader: Loader, loaded: Loaded) -> Member {
        let handover = Handover::of(loaded.version.identity(&loader.options));
        let secret = rand::random();
        let memory = Memory::new(&loader.options, secret);
        let meters = Meters::new(&loader.metrics, &loader.options.name);
        meters.holds(loaded.instance.memory_bytes());
        Member {
            name: loader.options.name.as_str().into(),
            loader,
            version: loaded.version,
            instance: loaded.instance,
            subscriptions: FxHashMap::default(),
            memory,
            scope: Scope::default(),
            elsewhere: FxHashMap::default(),
            secret,
            handover: Arc::new(handover),
            probation: None,
            scratch: Scratch::default(),
            usage: Usage::default(),
            meters,
            failed_rows: 0,
            pace: Pace::default(),
            usual: Usual::default(),
            breaker: Breaker::default(),
            hangs: Hangs::default(),
            redriving: false,
            ahead: Ahead::default(),
            unseen: Vec::new(),
            has_begun: false,
            swapped_from: None,
            down: None,
            questions_hang: false,
            taken: FxHashSet::default(),
        }
    }

    pub(crate) fn version(&self) -> &Version {
        &self.version
    }

    /// SHA-256 of the version that runs, hex.
    pub(crate) fn digest(&self) -> String {
        self.version.id.digest.clone()
    }

    pub(crate) fn handover(&self) -> &Arc<Handover> {
        &self.handover
    }

    pub(crate) fn covers(&self, table: &Table) -> bool {
        self.options().covers(&table.schema, &table.name)
    }

    pub(super) fn role(&self) -> Role {
        self.version.role
    }

    pub(super) fn options(&self) -> &Options {
        &self.loader.options
    }

    pub(super) fn count_fault(&self, kind: &'static str) {
        let labels = PluginKindLabels { plugin: self.options().name.clone(), kind };
        self.loader.metrics.plugin_faults.get_or_create(&labels).inc();
    }
}
