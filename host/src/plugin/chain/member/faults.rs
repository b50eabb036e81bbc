//! What becomes of rows that a plugin fails on: looked for until they stand alone, then set aside.

use std::sync::Arc;

use crate::change::Changes;
use crate::dead_letter::{DeadLetter, Stage};
use crate::plugin::boundary::Fates;
use crate::plugin::chain::member::Member;
use crate::plugin::chain::member::hangs::{Hangs, Shows, brief};
use crate::plugin::chain::member::pace::Usual;
use crate::plugin::chain::member::task::Task;
use crate::plugin::error::Error;
use crate::plugin::guest::{Instance, Outcome, Role};
use crate::plugin::memory::SetAside;
use crate::plugin::options::{OnError, Options};
use crate::table::Table;

/// Deadlines that looking for the rows at fault may cost per batch, new instances included. A plugin that
/// traps on every row would else hold the stream for as long as all of these take.
const SEARCH_DEADLINES: u32 = 16;

impl Member {
    /// Sets rows of a failed call aside once they stand alone; else the parts to go on with.
    pub(super) fn search(
        &mut self,
        changes: &Changes,
        task: Task,
        outcome: &Outcome,
        fates: &mut Fates,
    ) -> Result<Vec<Task>, Error> {
        let given_up = self.usage.searching > self.options().deadline() * SEARCH_DEADLINES;
        if task.rows.len() > 1 && !given_up {
            return Ok(task.parts());
        }
        self.give_up(changes, &task, outcome, fates)?;
        Ok(Vec::new())
    }

    /// Gives rows time, of `waiting` ones behind them. False: there is none left for them.
    pub(super) fn give(&mut self, task: &Task, waiting: usize) -> bool {
        let shows = shows(&self.loader.options, &self.usual, &self.instance, self.role());
        self.hangs.give(task, waiting, shows)
    }

    /// Takes in how a call failed. Whether nothing is to be looked for in its rows.
    pub(super) fn note_hang(&mut self, outcome: &Outcome) -> bool {
        self.hangs.note(outcome, self.instance.took(), self.loader.options.deadline())
    }

    /// The batch is through, and what its rows took counts no more.
    pub(crate) fn forget_time(&mut self) {
        self.hangs.forget();
    }

    /// Whether a row that hung is looked at again when the batch is through.
    pub(super) fn suspect(&mut self, table: &Arc<Table>, task: &Task, outcome: &Outcome) -> bool {
        let shows = shows(&self.loader.options, &self.usual, &self.instance, self.role());
        matches!(outcome, Outcome::Deadline(_)) && self.hangs.suspect(table, task, shows)
    }

    /// Sets suspects aside, or shows them for what is left.
    pub(super) fn show_suspects(
        &mut self,
        changes: &mut Changes,
        fates: &mut Fates,
    ) -> Result<(), Error> {
        let deadline = self.options().deadline();
        if let Some(proven) = self.hangs.take_proven(deadline) {
            let task = self.task(&[proven.row]);
            self.give_up(changes, &task, &Outcome::Deadline(deadline), fates)?;
        }
        while let Some(suspect) = self.hangs.next_suspect() {
            let task = Task { last_chance: true, ..self.task(&[suspect.row]) };
            self.run_part(&suspect.table, changes, vec![task], fates)?;
        }
        Ok(())
    }

    /// Sets rows aside for which no time is left.
    pub(super) fn pass_over(
        &mut self,
        changes: &Changes,
        task: &Task,
        fates: &mut Fates,
    ) -> Result<(), Error> {
        let had = task.last_chance.then(|| brief(1, self.options().deadline(), &self.usual));
        self.set_all_aside(changes, task, &Hangs::reason(had), fates)
    }

    /// Sets the rows of a failed call aside.
    pub(super) fn give_up(
        &mut self,
        changes: &Changes,
        task: &Task,
        outcome: &Outcome,
        fates: &mut Fates,
    ) -> Result<(), Error> {
        let deadline = self.options().deadline();
        let mut reason = match outcome {
            Outcome::Deadline(given) if *given < deadline => Hangs::reason(Some(*given)),
            _ => outcome.to_string(),
        };
        if task.rows.len() > 1 {
            reason.push_str(", on this row or on one shown with it");
        }
        let set_aside = fates.dead_letters.len();
        self.set_all_aside(changes, task, &reason, fates)?;
        let letters = &mut fates.dead_letters[set_aside..];
        if !letters.is_empty() {
            let places = |start, offset| self.version.symbolizer.places(start, offset);
            let backtrace = outcome.backtrace(places);
            letters.iter_mut().for_each(|letter| letter.backtrace.clone_from(&backtrace));
        }
        Ok(())
    }

    pub(super) fn set_all_aside(
        &mut self,
        changes: &Changes,
        task: &Task,
        reason: &str,
        fates: &mut Fates,
    ) -> Result<(), Error> {
        let mut rows = task.rows.iter();
        rows.try_for_each(|row| self.set_aside(changes, *row, reason.to_owned(), fates))
    }

    pub(super) fn set_aside(
        &mut self,
        changes: &Changes,
        row: u32,
        reason: String,
        fates: &mut Fates,
    ) -> Result<(), Error> {
        let change = &changes.list[row as usize];
        self.failed_rows += 1;
        self.breaker.failed(&reason);
        fates.fail(&self.name, changes.position(change));
        let on_error = if self.redriving { OnError::DeadLetter } else { self.options().on_error };
        if on_error == OnError::Halt {
            return Err(Error::Fault {
                plugin: self.options().name.clone(),
                position: changes.position(change),
                table: changes.table(change).full_name().to_string(),
                reason,
            });
        }
        if on_error == OnError::Skip {
            self.count_fault("skipped");
            fates.drop_row(row);
            return Ok(());
        }
        let unseen = SetAside::new(changes, change);
        if self.role() == Role::Dedup {
            self.memory.window.hide(changes, &unseen);
        }
        fates.unseen.push(unseen);
        let plugin = Some(self.version.id.clone());
        let mut letter = DeadLetter::new(changes, change, Stage::Transform, plugin, reason);
        if let Some(replay) = letter.replay.as_mut().filter(|_| !self.scope.is_empty()) {
            replay.scope = self.scope.to_string();
        }
        fates.set_aside(row, letter);
        Ok(())
    }
}

fn shows<'a>(options: &Options, usual: &'a Usual, instance: &Instance, role: Role) -> Shows<'a> {
    let in_order = role == Role::Dedup || options.has_state();
    Shows { deadline: options.deadline(), usual, fresh: instance.is_fresh(), in_order }
}
