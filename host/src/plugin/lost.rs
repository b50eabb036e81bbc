//! Changes that were set aside before a plugin that tells duplicates could see them.
//!
//! Such a change may be driven through later, and is then the newest of its row for the copy unless a
//! later one is there. So of the row nothing may be dropped for what was known of it before: `a`, `b`,
//! `a` with `b` set aside needs the second `a`. Which row that is where duplicates are told is sure
//! only if no plugin on the way may change its key.

use std::sync::Arc;

use crate::change::{Change, Changes, Row};
use crate::plugin::instance::Role;
use crate::plugin::member::{Member, Subscription};
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
pub struct Lost {
    pub(crate) table: Arc<Table>,
    /// The row before and after, in the batch.
    pub(crate) rows: [Option<Row>; 2],
    pub(crate) position: Position,
    /// Microseconds since the Unix epoch.
    pub(crate) committed_at: i64,
    pub(crate) reach: Reach,
}

impl Lost {
    pub(crate) fn new(changes: &Changes, change: &Change) -> Lost {
        Lost {
            table: Arc::clone(changes.table(change)),
            rows: [change.old.row(), change.new],
            position: changes.position(change),
            committed_at: changes.transaction(change).committed_at,
            reach: Reach::Row,
        }
    }
}

impl Member {
    /// Takes into account what it could have made of changes that were set aside, by it or before it.
    pub(super) fn widen(&self, lost: &mut [Lost]) {
        for lost in lost {
            lost.reach = lost.reach.max(self.reach(&lost.table));
        }
    }

    fn reach(&self, table: &Table) -> Reach {
        if self.role() == Role::Dedup || !self.covers(table) {
            return Reach::Row;
        }
        let known = self.subscriptions.get(&table.fingerprint);
        match known {
            Some(Subscription::Ignored) => Reach::Row,
            _ if self.role() == Role::Reshape => Reach::Everything,
            // It edits what it wants only.
            Some(Subscription::Wanted(plan)) => {
                let key = plan.wants.iter().any(|want| table.columns[want.column].key);
                if key { Reach::Table } else { Reach::Row }
            }
            Some(Subscription::Refused(_)) | None => Reach::Table,
        }
    }
}
