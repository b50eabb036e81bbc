//! How far a change that was set aside may have come, had the plugin let it through.

use crate::plugin::chain::member::{Member, Subscription};
use crate::plugin::guest::Role;
use crate::plugin::memory::{Reach, SetAside};
use crate::table::Table;

impl Member {
    /// Takes into account what it could have made of changes that were set aside, by it or before it.
    pub(crate) fn widen(&self, unseen: &mut [SetAside]) {
        for set_aside in unseen {
            set_aside.reach = set_aside.reach.max(self.reach(&set_aside.table));
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
