//! What rows that hang may cost a batch: two deadlines, however many there are.
//!
//! The first call that hangs took one of them. The other one is for all that comes after it: the call is
//! repeated with parts of its rows, and each has a little time, but more than it takes usually, because it
//! only has to show whether it hangs. Who then hangs alone is a *suspect*, and looked at when the batch is
//! through. If it is the only one, then the first call was its own: all others took next to nothing
//! without it. Suspects of which that cannot be said share what is left, each alone.
//!
//! When little is left, nothing is looked for any more: what is left of the batch has the rest of the time,
//! each part by the number of its rows, and what does not end by then is set aside. Good rows are through
//! in a moment, and leave their time to others. Calls that are answered cost nothing of all this.

use std::sync::Arc;
use std::time::Duration;

use crate::plugin::chain::member::pace::Usual;
use crate::plugin::chain::member::task::Task;
use crate::plugin::guest::{Outcome, TICK, Took};
use crate::table::Table;

/// Deadlines that calls which hang may take of a batch.
const DEADLINES: u32 = 2;
/// Which part of a deadline is left when nothing is looked for any more.
const KEPT: u32 = 4;
/// Which part of a deadline is left for the tables behind, whatever the rows before take.
const KEPT_BEHIND: u32 = 8;
/// Which part of the deadline rows are given that only have to show whether they hang.
const SHARE: u32 = 20;
/// They are given this much at least, as long as it is no more than an eighth of the deadline: a machine
/// that is busy for a moment does not make them hang.
const BRIEF_LEAST: Duration = Duration::from_millis(50);
/// What is left is not divided further than that.
const REST_LEAST: Duration = TICK.saturating_mul(2);
/// How many times what rows take usually they are given, as long as that is no more than a quarter of the
/// deadline.
const USUAL_TIMES: u32 = 4;

/// A row that did not end in the time that it was given by itself, which was not the deadline.
#[derive(Debug, Clone)]
pub(super) struct Suspect {
    pub(super) table: Arc<Table>,
    pub(super) row: u32,
    /// It was among those of the first call that hung.
    of_first: bool,
}

/// Who is given time.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shows<'a> {
    pub(super) deadline: Duration,
    pub(super) usual: &'a Usual,
    /// Its instance answered nothing yet.
    pub(super) fresh: bool,
    /// It remembers what it was shown, so no row can wait until the batch is through.
    pub(super) in_order: bool,
}

/// What calls that hang took of a batch so far.
#[derive(Debug, Default)]
pub(super) struct Hangs {
    spent: Duration,
    /// What the next call is given, if that is not the deadline.
    given: Option<Duration>,
    /// What of it is for a new instance, and not for the rows.
    warming_up: Duration,
    /// It is of what was left, and not for a search.
    cut_short: bool,
    /// A call hung, of this version or of the one that was shown the batch before.
    hung: bool,
    /// One of this version did.
    hung_here: bool,
    /// What the first call computed, if it had the whole deadline and its rows are looked through.
    first: Option<Duration>,
    /// The rows of that call are being looked through.
    in_first: bool,
    /// What those of them take that do not hang.
    others: Duration,
    suspects: Vec<Suspect>,
    /// Rows of the batch behind those that are looked at.
    pub(super) behind: usize,
    /// What the batch took when it was shown before.
    before: Duration,
}

impl Hangs {
    /// The batch will not be shown again.
    pub(super) fn forget(&mut self) {
        *self = Hangs::default();
    }

    /// Forgets the batch, but for what it took, in case it is shown again.
    pub(super) fn end(&mut self) {
        let before = if self.hung { self.spent } else { Duration::ZERO };
        *self = Hangs { before, ..Hangs::default() };
    }

    /// The same batch is shown again: after a look that hung it has one deadline left at least.
    pub(super) fn begin_again(&mut self, deadline: Duration) {
        self.spent = self.before.min(deadline);
        self.hung = !self.spent.is_zero();
    }

    /// Whether a call hung already, so that what follows is shown in parts from the beginning.
    pub(super) fn has_hung(&self) -> bool {
        self.hung
    }

    /// Gives a task time, of `waiting` rows behind it in its part of the batch. False: there is none left.
    pub(super) fn give(&mut self, task: &Task, waiting: usize, plugin: Shows<'_>) -> bool {
        let Shows { deadline, usual, fresh, .. } = plugin;
        let left = (deadline * DEADLINES).saturating_sub(self.spent);
        let wanted = self.wanted(task, left, plugin);
        let searched = deadline * DEADLINES - deadline / KEPT;
        let beyond = self.spent >= searched || self.hung && self.spent + wanted > searched;
        self.cut_short = beyond && !task.last_chance;
        self.given = Some(wanted);
        if self.cut_short {
            let kept = if self.behind > 0 { deadline / KEPT_BEHIND } else { Duration::ZERO };
            let left = left.saturating_sub(kept);
            let rows = task.rows.len();
            let share = left.as_secs_f64() * rows as f64 / (rows + waiting + self.behind) as f64;
            let share = Duration::from_secs_f64(share).max(REST_LEAST);
            self.given = Some(share.min(wanted).min(left));
        }
        self.given = self.given.filter(|given| *given >= REST_LEAST.min(deadline));
        self.warming_up = Duration::ZERO;
        if let Some(given) = self.given.as_mut().filter(|_| self.hung && fresh) {
            self.warming_up = usual.warming_up().min(deadline.saturating_sub(*given));
            *given += self.warming_up;
        }
        self.given.is_some()
    }

    fn wanted(&self, task: &Task, left: Duration, plugin: Shows<'_>) -> Duration {
        let Shows { deadline, usual, in_order, .. } = plugin;
        let brief = brief(task.rows.len(), deadline, usual);
        if task.last_chance {
            let suspects = u32::try_from(self.suspects.len() + 1).unwrap_or(u32::MAX);
            return deadline.min(left / suspects);
        }
        match (task.rows.len() > 1, self.hung) {
            (true, hung) if hung || task.part => brief,
            (_, false) => deadline,
            // Nobody knows how long it takes, or it has to be judged at once.
            _ if in_order || usual.is_unknown() => {
                let share = if self.hung_here { left / 2 } else { left };
                share.clamp(brief, deadline)
            }
            _ => brief,
        }
    }

    /// What a call is given.
    pub(super) fn given(&self, deadline: Duration) -> Duration {
        self.given.unwrap_or(deadline)
    }

    /// Takes in a call that was answered.
    pub(super) fn answered(&mut self, took: Took) {
        if self.in_first {
            self.others += took.time;
        }
    }

    /// Takes in how a call failed, and what it took. Whether nothing is to be looked for in its rows.
    pub(super) fn note(&mut self, outcome: &Outcome, took: Took, deadline: Duration) -> bool {
        let Outcome::Deadline(given) = outcome else {
            // One that traps at once costs its instance, which the search is limited by.
            if took.time >= deadline / SHARE {
                self.spent += took.time;
            }
            return false;
        };
        self.spent += given.saturating_sub(self.warming_up);
        if !self.hung && *given >= deadline {
            (self.first, self.in_first) = (Some(took.computing), true);
        }
        (self.hung, self.hung_here) = (true, true);
        // What hangs among them is not known then.
        if self.cut_short && self.in_first {
            self.first = None;
        }
        self.cut_short
    }

    /// The rows of one call are through, with all that was looked for in them.
    pub(super) fn end_part(&mut self) {
        self.in_first = false;
    }

    /// Takes in a row that hung. False: it had its time.
    pub(super) fn suspect(&mut self, table: &Arc<Table>, task: &Task, plugin: Shows<'_>) -> bool {
        let judged = task.last_chance || self.cut_short || plugin.in_order;
        let [row] = task.rows[..] else { return false };
        if judged || self.given(plugin.deadline) >= plugin.deadline {
            return false;
        }
        let of_first = self.in_first;
        self.suspects.push(Suspect { table: Arc::clone(table), row, of_first });
        true
    }

    /// Suspects of which it is known that they hang: the first call took nearly all of its deadline for one.
    pub(super) fn take_proven(&mut self, deadline: Duration) -> Option<Suspect> {
        let mut of_first = (0..self.suspects.len()).filter(|at| self.suspects[*at].of_first);
        let (Some(only), None) = (of_first.next(), of_first.next()) else { return None };
        let its_own = self.first?.saturating_sub(self.others);
        (its_own >= deadline * 3 / 4).then(|| self.suspects.remove(only))
    }

    /// The next suspect, to be shown for what is left for it.
    pub(super) fn next_suspect(&mut self) -> Option<Suspect> {
        (!self.suspects.is_empty()).then(|| self.suspects.remove(0))
    }

    /// Why a row is set aside that did not end in the time it was given, which was what was left; or that
    /// was not shown, because nothing was.
    pub(super) fn reason(given: Option<Duration>) -> String {
        match given {
            Some(given) => format!(
                "it ran longer than the {} ms that were left of the {DEADLINES} deadlines of its batch",
                given.as_millis()
            ),
            None => format!("it was not shown: rows of its batch took {DEADLINES} deadlines"),
        }
    }
}

/// What rows are given that only have to show whether they hang.
pub(super) fn brief(rows: usize, deadline: Duration, usual: &Usual) -> Duration {
    let least = BRIEF_LEAST.min(deadline / 8).max(REST_LEAST.min(deadline));
    let usually = usual.of(rows).saturating_mul(USUAL_TIMES).min(deadline / 4);
    (deadline / SHARE).max(least).max(usually)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::{Column, ColumnType, ReplicaIdentity};

    const DEADLINE: Duration = Duration::from_secs(1);
    const SHOWS: Shows<'_> = Shows {
        deadline: DEADLINE,
        usual: &Usual { rows: 1000, time: Duration::from_millis(1), first: None },
        fresh: true,
        in_order: false,
    };

    fn task(rows: &[u32], part: bool) -> Task {
        Task { rows: rows.to_vec(), part, ..Task::default() }
    }

    fn rows(number: u32) -> Vec<u32> {
        (0..number).collect()
    }

    fn table() -> Arc<Table> {
        let columns = vec![Column { key: true, ..Column::new("id", ColumnType::Text, "text") }];
        let identity = ReplicaIdentity::Default;
        Arc::new(Table::new(1, "public".into(), "t".into(), columns, identity))
    }

    /// A batch of which some rows hang, shown as a plugin's turn shows it.
    #[derive(Default)]
    struct Turn {
        hangs: Hangs,
        /// What calls were given that hung.
        given: Vec<Duration>,
        calls: usize,
        set_aside: Vec<u32>,
    }

    impl Turn {
        fn show(&mut self, mut tasks: Vec<Task>, shows: Shows<'_>, hangs: &dyn Fn(u32) -> bool) {
            while let Some(task) = tasks.pop() {
                let waiting = tasks.iter().map(|task| task.rows.len()).sum();
                if !self.hangs.give(&task, waiting, shows) {
                    self.set_aside.extend(task.rows);
                    continue;
                }
                self.calls += 1;
                if !task.rows.iter().any(|row| hangs(*row)) {
                    let took = Took::default();
                    self.hangs.answered(took);
                    continue;
                }
                let given = self.hangs.given(DEADLINE);
                self.given.push(given - self.hangs.warming_up);
                let took = Took { time: given, computing: given };
                let cut_short = self.hangs.note(&Outcome::Deadline(given), took, DEADLINE);
                if self.hangs.suspect(&table(), &task, shows) {
                } else if cut_short || task.rows.len() == 1 {
                    self.set_aside.extend(task.rows);
                } else {
                    tasks.extend(task.parts());
                }
            }
            self.hangs.end_part();
        }

        fn run(number: u32, shows: Shows<'_>, hangs: &dyn Fn(u32) -> bool) -> Turn {
            let mut turn = Turn::default();
            turn.show(vec![task(&rows(number), false)], shows, hangs);
            turn.set_aside.extend(turn.hangs.take_proven(DEADLINE).map(|proven| proven.row));
            while let Some(suspect) = turn.hangs.next_suspect() {
                let task = Task { last_chance: true, ..task(&[suspect.row], false) };
                turn.show(vec![task], shows, hangs);
            }
            turn.set_aside.sort_unstable();
            turn
        }

        fn deadlines(&self) -> f64 {
            self.given.iter().sum::<Duration>().as_secs_f64() / DEADLINE.as_secs_f64()
        }
    }

    #[test]
    fn one_row_that_hangs_costs_one_deadline_and_a_little() {
        for number in [2, 40, 500, 4096] {
            let turn = Turn::run(number, SHOWS, &|row| row == number / 2);
            assert_eq!(turn.set_aside, [number / 2]);
            assert!(turn.deadlines() <= 1.2, "{number} rows: {:?}", turn.given);
            assert!(turn.calls <= 1 + 3 * 16);
        }
        let turn = Turn::run(1, SHOWS, &|_| true);
        assert_eq!((turn.given, turn.set_aside), (vec![DEADLINE], vec![0]));
    }

    #[test]
    fn four_rows_that_hang_are_found_in_a_large_batch_and_have_an_equal_chance_by_themselves() {
        let poison = [5, 1000, 2000, 4000];
        let turn = Turn::run(4096, SHOWS, &|row| poison.contains(&row));
        assert_eq!(turn.set_aside, poison);
        assert!(turn.deadlines() <= 2.0, "{:?}", turn.given);
        let chances = &turn.given[turn.given.len() - 4..];
        assert!(chances.iter().all(|chance| *chance >= DEADLINE / 20), "{chances:?}");
    }

    #[test]
    fn a_batch_of_rows_that_all_hang_takes_two_deadlines() {
        for usual in [*SHOWS.usual, Usual::default()] {
            for in_order in [false, true] {
                let shows = Shows { usual: &usual, in_order, ..SHOWS };
                for number in [1, 2, 3, 4, 5, 40, 500, 4096] {
                    let turn = Turn::run(number, shows, &|_| true);
                    assert!(turn.deadlines() <= 2.0 + 1e-6, "{number} rows: {:?}", turn.given);
                    assert_eq!((turn.given[0], turn.set_aside), (DEADLINE, rows(number)));
                }
            }
        }
    }

    #[test]
    fn who_remembers_has_half_of_what_is_left_for_a_row_at_once() {
        let shows = Shows { in_order: true, ..SHOWS };
        let turn = Turn::run(40, shows, &|row| row == 7);
        assert_eq!(turn.set_aside, [7]);
        let [_, part, alone] = turn.given[..] else { panic!("{:?}", turn.given) };
        assert_eq!(alone, (DEADLINE - part) / 2);
    }

    #[test]
    fn a_suspect_is_not_proven_by_a_call_that_hardly_computed_and_has_what_is_left() {
        let mut hangs = Hangs::default();
        let took = |computing| Took { time: DEADLINE, computing };
        hangs.give(&task(&rows(40), false), 0, SHOWS);
        hangs.note(&Outcome::Deadline(DEADLINE), took(DEADLINE / 2), DEADLINE);
        assert!(hangs.give(&task(&[3], true), 39, SHOWS));
        let brief = hangs.given(DEADLINE);
        hangs.note(&Outcome::Deadline(brief), took(brief), DEADLINE);
        assert!(hangs.suspect(&table(), &task(&[3], true), SHOWS));
        hangs.end_part();
        assert!(hangs.take_proven(DEADLINE).is_none());
        assert!(hangs.next_suspect().is_some());
        let last = Task { last_chance: true, ..task(&[3], false) };
        assert!(hangs.give(&last, 0, SHOWS));
        assert_eq!(hangs.given(DEADLINE), DEADLINE - brief);
    }

    #[test]
    fn a_suspect_is_not_proven_when_the_others_took_their_part_of_the_first_call() {
        let mut hangs = Hangs::default();
        let took = |time| Took { time, computing: time };
        hangs.give(&task(&rows(40), false), 0, SHOWS);
        hangs.note(&Outcome::Deadline(DEADLINE), took(DEADLINE), DEADLINE);
        hangs.give(&task(&[3], true), 39, SHOWS);
        hangs.note(&Outcome::Deadline(hangs.given(DEADLINE)), took(DEADLINE / 20), DEADLINE);
        assert!(hangs.suspect(&table(), &task(&[3], true), SHOWS));
        hangs.answered(took(DEADLINE / 2));
        assert!(hangs.take_proven(DEADLINE).is_none());
    }

    #[test]
    fn rows_have_more_time_where_they_usually_take_longer_and_where_an_instance_is_new() {
        let mut hangs = Hangs { hung: true, ..Hangs::default() };
        let usual = Usual { rows: 100, time: DEADLINE / 10, first: Some(DEADLINE / 4) };
        let shows = Shows { usual: &usual, ..SHOWS };
        assert!(hangs.give(&task(&rows(30), true), 0, Shows { fresh: false, ..shows }));
        assert_eq!(hangs.given(DEADLINE), Duration::from_millis(120), "four times as long");
        assert!(hangs.give(&task(&rows(30), true), 0, shows));
        assert_eq!(hangs.given(DEADLINE), Duration::from_millis(120) + DEADLINE / 4);
        let outcome = Outcome::Deadline(hangs.given(DEADLINE));
        hangs.note(&outcome, Took::default(), DEADLINE);
        assert_eq!(hangs.spent, Duration::from_millis(120), "the start is not the rows' fault");
    }

    #[test]
    fn calls_that_trap_at_once_leave_rows_their_time_and_slow_ones_do_not() {
        let mut hangs = Hangs::default();
        let took = |time| Took { time, computing: time };
        let refused = Outcome::Refused("no".to_owned());
        (0..100).for_each(|_| _ = hangs.note(&refused, took(DEADLINE / 21), DEADLINE));
        assert!(hangs.give(&task(&[1], true), 0, SHOWS));
        assert_eq!(hangs.given(DEADLINE), DEADLINE);
        (0..40).for_each(|_| _ = hangs.note(&refused, took(DEADLINE / 20), DEADLINE));
        assert!(!hangs.give(&task(&[1], true), 0, SHOWS));
    }

    #[test]
    fn a_batch_that_is_shown_again_has_one_deadline_after_a_look_that_hung() {
        let mut turn = Turn::run(500, SHOWS, &|_| true);
        turn.hangs.end();
        turn.hangs.begin_again(DEADLINE);
        let again = &mut Turn { hangs: turn.hangs, ..Turn::default() };
        again.show(task(&rows(500), false).parts(), SHOWS, &|_| true);
        assert!(again.deadlines() <= 1.0 + 1e-6, "{:?}", again.given);
        let mut quiet = Turn::run(500, SHOWS, &|_| false);
        quiet.hangs.end();
        quiet.hangs.begin_again(DEADLINE);
        assert!(quiet.hangs.give(&task(&rows(500), false), 0, SHOWS));
        assert_eq!(quiet.hangs.given(DEADLINE), DEADLINE, "nothing hung");
    }

    #[test]
    fn tables_behind_one_that_hangs_have_their_share_of_what_is_left() {
        let mut hangs = Hangs { behind: 100, hung: true, ..Hangs::default() };
        hangs.spent = DEADLINE * 7 / 4;
        assert!(hangs.give(&task(&rows(50), true), 50, SHOWS));
        let share = DEADLINE / 8 / 4;
        assert_eq!(hangs.given(DEADLINE), share, "of what is not kept for the table behind");
        hangs.spent = DEADLINE * 15 / 8;
        assert!(!hangs.give(&task(&rows(50), true), 50, SHOWS));
        hangs.behind = 0;
        assert!(hangs.give(&task(&rows(100), true), 0, SHOWS));
    }
}
