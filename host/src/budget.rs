//! How much text may be on its way between the stages, however few or many batches hold it.
//!
//! The queues count batches, which are small unless their rows are large: one row fills a batch, whatever its
//! size. So whoever reads the source takes room for a batch before he hands it on, and the room is given back
//! when the last stage has taken the batch in.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// What there is, in KiB. Batches of small rows that fill all queues take a quarter of it.
const KIBIBYTES: u32 = 32 << 10;

/// The room of one leg. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Budget(Arc<Semaphore>);

/// The room of one batch, given back when it is dropped.
#[derive(Debug)]
pub struct Room {
    permit: OwnedSemaphorePermit,
}

impl Room {
    /// Gives back what a batch of so many bytes does not take.
    pub fn shrink(&mut self, bytes: usize) {
        let excess = self.permit.num_permits().saturating_sub(kibibytes(bytes) as usize);
        drop(self.permit.split(excess));
    }
}

impl Default for Budget {
    fn default() -> Budget {
        Budget(Arc::new(Semaphore::new(KIBIBYTES as usize)))
    }
}

impl Budget {
    /// Room for so many bytes, if there is any. A batch that is larger than all there is takes all.
    #[must_use]
    pub fn try_take(&self, bytes: usize) -> Option<Room> {
        let taken = Arc::clone(&self.0).try_acquire_many_owned(kibibytes(bytes));
        taken.ok().map(|permit| Room { permit })
    }

    /// Room for so many bytes, as soon as there is any.
    ///
    /// # Panics
    /// Never: a budget is not closed.
    pub async fn take(&self, bytes: usize) -> Room {
        let taken = Arc::clone(&self.0).acquire_many_owned(kibibytes(bytes)).await;
        Room { permit: taken.expect("a budget is not closed") }
    }
}

fn kibibytes(bytes: usize) -> u32 {
    u32::try_from(bytes.div_ceil(1024)).unwrap_or(u32::MAX).min(KIBIBYTES)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: usize = (KIBIBYTES as usize) << 10;

    #[tokio::test]
    async fn a_batch_waits_until_those_before_it_have_left_room() {
        let budget = Budget::default();
        let half = budget.try_take(ALL / 2).expect("there is room");
        let rest = budget.try_take(ALL / 2).expect("and no more");
        assert!(budget.try_take(1).is_none());
        assert!(budget.try_take(0).is_some(), "a batch that only moves the point");
        let (waiting, ()) = tokio::join!(budget.take(ALL / 2), async { drop(half) });
        drop((waiting, rest));
        let huge = budget.try_take(ALL * 3).expect("it is alone");
        assert!(budget.try_take(1).is_none());
        drop(huge);
        let mut guessed = budget.try_take(ALL).expect("it is empty");
        guessed.shrink(ALL / 4);
        assert!(budget.try_take(ALL / 4 * 3 + 1).is_none());
        assert!(budget.try_take(ALL / 4 * 3).is_some());
    }
}
