//! Tables whose copies count no more, though nothing that is recorded of them speaks against it.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio_postgres::types::Oid;

/// Which they are, for as long as the capture runs. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Outdated(Arc<Mutex<HashSet<Oid>>>);

impl Outdated {
    /// Has a table copied again; false if that was known.
    pub fn mark(&self, table: Oid) -> bool {
        self.known().insert(table)
    }

    /// Whether it is to be copied again.
    #[must_use]
    pub fn has(&self, table: Oid) -> bool {
        self.known().contains(&table)
    }

    /// It was copied.
    pub fn copied(&self, table: Oid) {
        self.known().remove(&table);
    }

    fn known(&self) -> MutexGuard<'_, HashSet<Oid>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
