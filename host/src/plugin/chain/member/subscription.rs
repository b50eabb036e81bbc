//! What a plugin wants of a table version. An instance is asked once at most, when the first rows of it come. One
//! that does not answer in time is asked about no other table of that batch: each may take a deadline.

use std::sync::Arc;

use crate::plugin::boundary::{Plan, Shape, number, with_table};
use crate::plugin::chain::member::Member;
use crate::plugin::guest::bindings::types::Interest;
use crate::plugin::guest::{Outcome, Role};
use crate::table::Table;

/// What became of the question.
#[derive(Clone)]
pub(crate) enum Subscription {
    Ignored,
    Wanted(Arc<Plan>),
    Refused(String),
}

impl Member {
    /// What the instance said about a table version; asks it if it was not asked yet.
    pub(crate) fn subscription(&mut self, table: &Arc<Table>) -> Subscription {
        let known = self.subscriptions.get(&table.fingerprint);
        let stale = self.instance.is_dead();
        if let Some(known) =
            known.filter(|known| !stale || !matches!(known, Subscription::Wanted(_)))
        {
            return known.clone();
        }
        if let Some(why) = self.replace_dead() {
            return Subscription::Refused(why);
        }
        if self.questions_hang && !self.taken.contains(&table.fingerprint) {
            let why = "it is not asked about the table, another one of the batch took its deadline";
            return Subscription::Refused(why.to_owned());
        }
        let id = number(self.subscriptions.len());
        self.instance.look_at(table, None);
        let answer = with_table(id, table, |shown| self.instance.subscribe(shown));
        let subscription = match answer {
            Ok(None) => Ok(Subscription::Ignored),
            Ok(Some(interest)) => {
                self.plan(id, table, &interest).map(|plan| Subscription::Wanted(Arc::new(plan)))
            }
            Err(outcome) => Err(outcome),
        };
        let subscription = subscription.unwrap_or_else(|outcome| {
            self.note_failure(&outcome, outcome.kind());
            self.questions_hang |= matches!(outcome, Outcome::Deadline(_));
            let (plugin, name) = (&self.version.id.name, table.full_name());
            tracing::error!(%plugin, table = %name, %outcome, "plugin does not take the table");
            Subscription::Refused(format!(
                "it does not take table {}: {outcome}",
                table.full_name()
            ))
        });
        self.replace_dead();
        if matches!(subscription, Subscription::Wanted(_)) {
            self.taken.insert(table.fingerprint);
        }
        self.subscriptions.insert(table.fingerprint, subscription.clone());
        subscription
    }

    fn plan(&mut self, id: u32, table: &Arc<Table>, interest: &Interest) -> Result<Plan, Outcome> {
        let mut plan = Plan::new(id, table, interest)?;
        if self.role() == Role::Reshape {
            let shape = with_table(id, table, |shown| self.instance.reshape(shown))?;
            plan.shape = Some(Shape::new(table, &shape).map_err(Outcome::malformed)?);
        }
        Ok(plan)
    }
}
