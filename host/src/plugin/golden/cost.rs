//! What an event costs a plugin, on its golden events.

use std::time::{Duration, Instant};

use crate::change::Changes;
use crate::plugin::chain::Chain;
use crate::plugin::error::Error;
use crate::plugin::golden::Golden;
use crate::plugin::guest::Metering;
use crate::plugin::options::Options;
use crate::plugin::versions::Runtime;

/// How long the speed is measured at least.
const MEASURED: Duration = Duration::from_millis(150);
/// Events a round has at least, so that the clock's own cost does not show.
const ROUND_EVENTS: usize = 1024;

/// What an event costs.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Cost {
    /// How many events a call shows.
    pub batch: usize,
    /// Time per event of the fastest round, host work included, in nanoseconds.
    pub nanoseconds: f64,
    /// WebAssembly instructions per event. Unlike the time they are the same on every machine.
    pub instructions: f64,
}

impl Golden {
    /// What the events cost at several sizes of a batch, those on which the plugin fails too. It is
    /// configured as in [`run`](Self::run).
    ///
    /// # Errors
    /// The plugin does not load, or not again after a trap.
    pub fn costs(
        &self,
        cache: Option<&std::path::Path>,
        options: &Options,
        batches: &[usize],
    ) -> Result<Vec<Cost>, Error> {
        let cache = cache.map(std::path::Path::to_owned);
        // What it logs is the same over and over.
        let chain = |runtime| Chain::offline(self.loader(&runtime, options).muted());
        // Counting slows a plugin down, so it is done on an engine of its own.
        let mut timed = chain(Runtime::new(cache.clone())?)?;
        let mut counted = chain(Runtime::metered(cache, Metering::Instructions)?)?;
        let mut events = Events { changes: &self.changes, next: 0 };
        let cost = |batch: &usize| {
            Ok(Cost {
                batch: *batch,
                nanoseconds: time(&mut timed, &mut events, *batch)?,
                instructions: count(&mut counted, &mut events, *batch)?,
            })
        };
        batches.iter().map(cost).collect()
    }
}

/// The golden events over and over, each with a place of its own, so that none was delivered before.
struct Events<'a> {
    changes: &'a Changes,
    next: u64,
}

impl Events<'_> {
    fn batch(&mut self, rows: usize) -> Changes {
        let mut batch = self.changes.clone();
        batch.list = self.changes.list.iter().cycle().take(rows).copied().collect();
        for change in &mut batch.list {
            self.next += 1;
            change.ordinal = self.next;
        }
        batch
    }
}

fn time(chain: &mut Chain, events: &mut Events<'_>, batch: usize) -> Result<f64, Error> {
    let (mut least, mut spent) = (Duration::MAX, Duration::ZERO);
    let count = ROUND_EVENTS.div_ceil(batch);
    while spent < MEASURED {
        let mut batches: Vec<Changes> = (0..count).map(|_| events.batch(batch)).collect();
        let started = Instant::now();
        batches.iter_mut().try_for_each(|batch| chain.transform(batch).map(drop))?;
        let took = started.elapsed();
        spent += took;
        least = least.min(took);
    }
    Ok(per_event(least.as_nanos(), count * batch))
}

fn count(chain: &mut Chain, events: &mut Events<'_>, batch: usize) -> Result<f64, Error> {
    // The first batch of a size grows the guest's memory.
    chain.transform(&mut events.batch(batch))?;
    let before = chain.instructions();
    chain.transform(&mut events.batch(batch))?;
    Ok(per_event((chain.instructions() - before).into(), batch))
}

#[expect(clippy::cast_precision_loss, reason = "a measure")]
fn per_event(whole: u128, events: usize) -> f64 {
    whole as f64 / events as f64
}
