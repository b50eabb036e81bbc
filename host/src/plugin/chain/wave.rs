//! Plugins that have nothing to do with each other compute at the same time.
//!
//! A *wave* is a run of members none of which wants rows of a table, as the batch has them, that
//! another of it wants. They take their turns in order, as ever; but where it pays, they are all
//! [asked ahead](Member::ask_ahead), at the same time, before the first has its turn. What they answer is
//! carried out by one thread, so a batch needs no lock, and comes out as if they had computed one after
//! another.

use std::cmp::Reverse;
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use prometheus_client::metrics::counter::Counter;
use rayon::{ThreadPool, ThreadPoolBuilder};

use crate::change::{Changes, Op};
use crate::plugin::chain::member::{Member, Subscription};
use crate::plugin::guest::Role;
use crate::telemetry::metrics::Metrics;

/// With less to compute, waking another thread takes longer than that plugin does.
const WORTH_A_THREAD: Duration = Duration::from_micros(250);
/// Text that the answers of one plugin may hold until its turn.
const MEMBER_BYTES: usize = 64 << 20;
/// Text that the answers of all plugins of a wave may hold.
const WAVE_BYTES: usize = 256 << 20;
/// In a larger batch nothing is asked ahead: no answer may find it full in its turn.
const BATCH_BYTES: usize = 1 << 30;

/// Members at the head of a chain that have nothing to do with each other.
pub(super) struct Wave {
    /// Rows that each of them wants.
    rows: Vec<u64>,
}

impl Wave {
    /// The first wave of some members over a batch.
    pub(super) fn first(members: &mut [Member], changes: &Changes) -> Wave {
        let mut rows = Vec::new();
        if members.len() == 1 {
            return Wave { rows: vec![0] };
        }
        let mut tables = rows_of_tables(changes);
        for member in members {
            if !rows.is_empty() && member.compares() {
                break;
            }
            let wanted = member.wanted(changes, &tables);
            if wanted.iter().any(|table| tables[*table].taken) {
                break;
            }
            rows.push(wanted.iter().map(|table| tables[*table].rows).sum());
            wanted.into_iter().for_each(|table| tables[table].taken = true);
            // It may put rows into tables that others want. What is to be compared is what it alone
            // makes of a batch.
            if member.role() == Role::Reshape || member.compares() {
                break;
            }
        }
        Wave { rows }
    }

    pub(super) fn len(&self) -> usize {
        self.rows.len()
    }
}

/// Of one table of a batch.
#[derive(Clone, Copy, Default)]
struct OfTable {
    rows: u64,
    taken: bool,
}

fn rows_of_tables(changes: &Changes) -> Vec<OfTable> {
    let mut tables = vec![OfTable::default(); changes.tables.len()];
    for change in changes.list.iter().filter(|change| change.op != Op::Truncate) {
        tables[change.table as usize].rows += 1;
    }
    tables
}

impl Member {
    /// The tables of a batch of which it wants rows, or refuses them.
    fn wanted(&mut self, changes: &Changes, tables: &[OfTable]) -> Vec<usize> {
        let started = Instant::now();
        let mut wanted = Vec::new();
        for (index, table) in changes.tables.iter().enumerate() {
            let offered = tables[index].rows > 0 && self.covers(table);
            if offered && !matches!(self.subscription(table), Subscription::Ignored) {
                wanted.push(index);
            }
        }
        self.usage.ahead += started.elapsed();
        wanted
    }
}

/// The threads that help the one that runs a chain. They are its own, so that nothing else holds them.
pub(super) struct Crew {
    /// None: not needed yet, or not to be had.
    threads: Option<ThreadPool>,
    /// How many there may be, beside the one that runs the chain.
    helpers: usize,
    batches: Counter,
}

impl Crew {
    /// For a chain of so many members.
    pub(super) fn new(members: usize, metrics: &Metrics) -> Crew {
        let cores = thread::available_parallelism().map_or(1, usize::from);
        let helpers = cores.min(members).saturating_sub(1);
        Crew { threads: None, helpers, batches: metrics.plugin_parallel_batches.clone() }
    }

    /// Lets the members of a wave compute at the same time, where that is faster.
    pub(super) fn ask_ahead(&mut self, members: &mut [Member], wave: &Wave, changes: &Changes) {
        if self.helpers == 0 || changes.bytes() > BATCH_BYTES {
            return;
        }
        let worth = |(member, rows): (_, &u64)| {
            let member: &mut Member = member;
            let time = member.pace.expected(*rows).filter(|time| *time >= WORTH_A_THREAD)?;
            Some((time, member))
        };
        let mut asked: Vec<_> = members.iter_mut().zip(&wave.rows).filter_map(worth).collect();
        if asked.len() < 2 {
            return;
        }
        let room = MEMBER_BYTES.min(WAVE_BYTES / asked.len());
        let helpers = self.helpers.min(asked.len() - 1);
        let Some(threads) = self.threads() else { return };
        // Who takes longest begins, so that the last ones to end are short.
        asked.sort_by_key(|(time, _)| Reverse(*time));
        let asked = Mutex::new(asked.into_iter());
        let next = || asked.lock().unwrap_or_else(PoisonError::into_inner).next();
        let work = || {
            while let Some((_, member)) = next() {
                member.ask_ahead(changes, room);
            }
        };
        threads.in_place_scope(|scope| {
            (0..helpers).for_each(|_| scope.spawn(|_| work()));
            work();
        });
        self.batches.inc();
    }

    fn threads(&mut self) -> Option<&ThreadPool> {
        if self.threads.is_none() {
            let name = |index| format!("plugin-{}", index + 1);
            let started =
                ThreadPoolBuilder::new().num_threads(self.helpers).thread_name(name).build();
            match started {
                Ok(threads) => self.threads = Some(threads),
                Err(error) => {
                    tracing::warn!(%error, "plugins compute one after another");
                    self.helpers = 0;
                }
            }
        }
        self.threads.as_ref()
    }
}
