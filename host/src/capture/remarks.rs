//! What was said of a table already, so that the log has it once and not at every reconnect.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

use tracing::warn;

use crate::table::TableName;

/// What this process said of tables; clones share it.
#[derive(Debug, Clone, Default)]
pub struct Remarks(Arc<Mutex<HashSet<(TableName, &'static str)>>>);

impl Remarks {
    /// Logs the sentence, unless it was said of the table before; whether it was logged.
    pub fn once(&self, table: &TableName, sentence: &'static str) -> bool {
        let mut said = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let first = said.insert((table.clone(), sentence));
        if first {
            warn!(%table, "{sentence}");
        }
        first
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sentence_is_said_once_of_each_table() {
        let remarks = Remarks::default();
        let table = |name: &str| TableName { schema: "public".into(), name: name.into() };
        assert!(remarks.once(&table("a"), "it has no key"));
        assert!(!remarks.once(&table("a"), "it has no key"));
        assert!(remarks.once(&table("a"), "it may not be read"));
        assert!(remarks.once(&table("b"), "it has no key"));
    }
}
