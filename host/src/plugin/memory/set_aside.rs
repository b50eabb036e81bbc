//! Changes that were set aside before a plugin that tells duplicates could see them.
//!
//! Such a change may be driven through later, and is then the newest of its row for the copy unless a
//! later one is there. So of the row nothing may be dropped for what was known of it before: `a`, `b`,
//! `a` with `b` set aside needs the second `a`. Which row that is where duplicates are told is sure
//! only if no plugin on the way may change its key.

use std::sync::Arc;

use crate::change::{Change, Changes, Row};
use crate::position::Position;
use crate::table::Table;

/// What a change that was set aside may be about, where it would have come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Reach {
    /// Its own row.
    Row,
    /// Any row of its table.
    Table,
    /// Any row of any table.
    Everything,
}

/// A change of a batch that was set aside.
#[derive(Debug, Clone)]
pub struct SetAside {
    pub(crate) table: Arc<Table>,
    /// The row before and after, in the batch.
    pub(crate) rows: [Option<Row>; 2],
    pub(crate) position: Position,
    /// Microseconds since the Unix epoch.
    pub(crate) committed_at: i64,
    pub(crate) reach: Reach,
}

impl SetAside {
    pub(crate) fn new(changes: &Changes, change: &Change) -> SetAside {
        SetAside {
            table: Arc::clone(changes.table(change)),
            rows: [change.old.row(), change.new],
            position: changes.position(change),
            committed_at: changes.transaction(change).committed_at,
            reach: Reach::Row,
        }
    }
}
