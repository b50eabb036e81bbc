//! What tables looked like, look by look. The stream describes a table as it was, the catalog tells of it as it is,
//! and neither tells which column is which after several changes of them: what was seen in between mostly does.
//!
//! PostgreSQL also tells nothing of rows that `ALTER TABLE` rewrites: neither of their new values, nor of a default
//! that a rewriting put into them. A table that is in another file *and* has columns of other types than at the last
//! look was rewritten. One that is only in another file was put in order or emptied, and one that only has other
//! columns holds in its old rows what the catalog tells. A computed column that became a plain one rewrites nothing,
//! and its old values may never have been told.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::de::DeserializeOwned;
use tokio_postgres::Row;
use tokio_postgres::types::Oid;

use super::outdated::Outdated;
use crate::hop::{Form, Snapshots};
use crate::position::Lsn;

/// Looks that are kept of one table while the stream is behind them.
const MOST_LOOKS: usize = 64;

/// SQL for the [`Form`] of table `c`, in three columns.
pub const FORM: &str = "
    CASE c.relkind WHEN 'p' THEN
        (SELECT json_agg(json_build_array(f.oid::int8, f.relfilenode::int8) ORDER BY f.oid)::text
         FROM pg_partition_tree(c.oid) p JOIN pg_class f ON f.oid = p.relid WHERE p.isleaf)
    ELSE json_build_array(json_build_array(c.oid::int8, c.relfilenode::int8))::text END,
    (SELECT json_agg(json_build_array(a.attnum, a.attname, a.atttypid::int8, a.atttypmod, a.attgenerated <> '')
                     ORDER BY a.attnum)::text
     FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped),
    c.relnatts";

/// What [`FORM`] gave, in these columns of a row. It holds from `at` on.
pub fn form(row: &Row, first: usize, at: Lsn) -> Form {
    Form {
        at,
        files: parsed(row.get(first)),
        columns: parsed(row.get(first + 1)),
        last: row.get(first + 2),
    }
}

/// Nothing where an aggregate had no rows.
fn parsed<T: Default + DeserializeOwned>(json: Option<&str>) -> T {
    json.and_then(|json| serde_json::from_str(json).ok()).unwrap_or_default()
}

/// The looks, for as long as the capture runs. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Seen(Arc<Mutex<Known>>);

#[derive(Debug)]
struct Known {
    /// Oldest first, each other than the one before.
    looks: HashMap<Oid, VecDeque<Arc<Form>>>,
    /// From when on the earliest look holds that the stream is not behind yet.
    next: Lsn,
}

impl Default for Known {
    fn default() -> Known {
        Known { looks: HashMap::new(), next: Lsn(u64::MAX) }
    }
}

impl Seen {
    /// As it was recorded when the process ran last.
    #[must_use]
    pub fn recorded(snapshots: &Snapshots) -> Seen {
        let seen = Seen::default();
        for copied in snapshots.values() {
            seen.begin(copied.oid, copied.form.clone());
        }
        seen
    }

    /// A table was copied as this, and what came before does not count any more. Records from before this was kept
    /// are empty.
    pub fn begin(&self, table: Oid, form: Form) {
        self.known().looks.insert(table, [Arc::new(form)].into());
    }

    /// Forgets all tables but these.
    pub fn keep(&self, tables: &HashSet<Oid>) {
        self.known().looks.retain(|table, _| tables.contains(table));
    }

    /// Takes in a look, and marks a table that was rewritten since the last one; whether that is news.
    pub fn look(&self, table: Oid, form: Form, outdated: &Outdated) -> bool {
        let mut known = self.known();
        let looks = known.looks.entry(table).or_default();
        let Some(last) = looks.back_mut() else {
            looks.push_back(Arc::new(form));
            return false;
        };
        // Before the look is there to be recorded, after which nothing else tells of it.
        let is_news = last.is_rewritten(&form) && outdated.mark(table);
        if last.has_columns_of(&form) {
            // That a table was emptied or put in order tells nothing of its columns, and may happen all the time.
            Arc::make_mut(last).files = form.files;
            return is_news;
        }
        if looks.len() == MOST_LOOKS {
            // Of the table as the stream has it, the first one tells.
            looks.remove(1);
        }
        let at = form.at;
        looks.push_back(Arc::new(form));
        known.next = known.next.min(at);
        is_news
    }

    /// The last look that a transaction with this commit cannot be before.
    #[must_use]
    pub fn before(&self, table: Oid, commit: Lsn) -> Option<Arc<Form>> {
        let known = self.known();
        let mut looks = known.looks.get(&table)?.iter().rev();
        looks.find(|form| form.at <= commit && !form.columns.is_empty()).cloned()
    }

    /// Whether a look is behind the stream that is not recorded yet.
    #[must_use]
    pub fn has_passed(&self, confirmed: Lsn) -> bool {
        confirmed >= self.known().next
    }

    /// The last look of each table of which there was one since, that the stream is behind now: every transaction
    /// that is still to come commits after this.
    #[must_use]
    pub fn passed(&self, confirmed: Lsn) -> Vec<(Oid, Arc<Form>)> {
        let known = self.known();
        if confirmed < known.next {
            return Vec::new();
        }
        let last = |(table, looks): (&Oid, &VecDeque<Arc<Form>>)| {
            let mut since = looks.iter().skip(1).rev();
            let passed = since.find(|form| form.at <= confirmed)?;
            Some((*table, Arc::clone(passed)))
        };
        known.looks.iter().filter_map(last).collect()
    }

    /// Forgets what came before these, which are on their way to be recorded.
    pub fn forget_before(&self, confirmed: Lsn) {
        let mut known = self.known();
        if confirmed < known.next {
            return;
        }
        let mut next = Lsn(u64::MAX);
        for looks in known.looks.values_mut() {
            while looks.get(1).is_some_and(|second| second.at <= confirmed) {
                looks.pop_front();
            }
            next = looks.get(1).map_or(next, |waiting| next.min(waiting.at));
        }
        known.next = next;
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Form {
    fn has_columns_of(&self, other: &Form) -> bool {
        (&self.columns, self.last) == (&other.columns, other.last)
    }

    /// Whether its old rows may hold what the stream does not tell.
    fn is_rewritten(&self, later: &Form) -> bool {
        let types = |form: &Form| {
            let columns = form.columns.iter();
            columns
                .map(|column| (column.number, column.type_of, column.generated))
                .collect::<Vec<_>>()
        };
        let (before, now) = (types(self), types(later));
        let became_plain = |(number, type_of, generated): &(i16, _, bool)| {
            *generated && now.contains(&(*number, *type_of, false))
        };
        // Partitions come and go all the time.
        let moved = |(oid, file): &(Oid, Oid)| {
            let mut files = later.files.iter();
            files.any(|(other, now)| other == oid && now != file)
        };
        (self.files.iter().any(moved) && before != now) || before.iter().any(became_plain)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hop::FormColumn;

    const TABLE: Oid = 7;

    fn form(at: u64, file: Oid, columns: &[(&str, Oid)]) -> Form {
        let column = |(number, (name, oid)): (i16, &(&str, Oid))| FormColumn {
            number,
            name: (*name).into(),
            type_of: (*oid, -1),
            generated: false,
        };
        let columns: Vec<_> = (1..).zip(columns).map(column).collect();
        let last = columns.last().map_or(0, |column| column.number);
        Form { at: Lsn(at), files: vec![(TABLE, file)], columns, last }
    }

    fn look(seen: &Seen, form: Form) -> bool {
        seen.look(TABLE, form, &Outdated::default())
    }

    #[test]
    fn a_table_in_another_file_with_columns_of_other_types_was_rewritten() {
        let seen = Seen::default();
        let looks = [
            (1, vec![("a", 23)], false),
            (1, vec![("a", 23), ("b", 25)], false),
            (2, vec![("a", 23), ("b", 25)], false),
            (3, vec![("b", 23), ("a", 25)], false),
            (4, vec![("b", 20), ("a", 25)], true),
            (4, vec![("b", 20), ("a", 25)], false),
        ];
        for (at, (file, columns, rewritten)) in (1..).zip(looks) {
            let outdated = Outdated::default();
            assert_eq!(seen.look(TABLE, form(at, file, &columns), &outdated), rewritten, "{at}");
            assert_eq!(outdated.has(TABLE), rewritten, "{at}");
        }
        let mut computed = form(8, 4, &[("b", 20), ("a", 25)]);
        computed.columns[1].generated = true;
        seen.begin(TABLE, computed);
        assert!(look(&seen, form(9, 4, &[("b", 20), ("a", 25)])), "computed no more");
        let recorded = form(9, 4, &[("b", 20), ("a", 25)]);
        seen.begin(TABLE, recorded);
        assert!(look(&seen, form(10, 5, &[("b", 20), ("a", 20)])), "since it was copied");
    }

    #[test]
    fn a_partition_that_comes_or_goes_rewrites_nothing() {
        let seen = Seen::default();
        let looked = |files: &[(Oid, Oid)], columns: &[(&str, Oid)]| {
            look(&seen, Form { files: files.to_vec(), ..form(1, 0, columns) })
        };
        assert!(!looked(&[(1, 1), (2, 2)], &[("a", 23)]));
        assert!(!looked(&[(2, 2), (3, 3)], &[("a", 23), ("b", 23)]));
        assert!(looked(&[(2, 9), (3, 3)], &[("a", 20), ("b", 23)]));
        seen.keep(&[].into());
        assert!(!looked(&[(2, 1), (3, 1)], &[("a", 25)]), "it was forgotten");
    }

    #[test]
    fn a_look_tells_of_transactions_that_commit_after_it() {
        let seen = Seen::default();
        seen.begin(TABLE, form(10, 1, &[("a", 23)]));
        look(&seen, form(20, 2, &[("a", 23)]));
        look(&seen, form(30, 2, &[("b", 23)]));
        let at = |commit| seen.before(TABLE, Lsn(commit)).map(|form| form.at.0);
        assert_eq!([9, 10, 29, 30].map(at), [None, Some(10), Some(10), Some(30)]);
        assert!(!seen.has_passed(Lsn(29)) && seen.passed(Lsn(29)).is_empty());
        let passed = || seen.passed(Lsn(30)).iter().map(|(_, form)| form.at.0).collect::<Vec<_>>();
        assert_eq!((seen.has_passed(Lsn(30)), passed()), (true, vec![30]));
        assert_eq!(at(29), Some(10), "until it is on its way to be recorded");
        seen.forget_before(Lsn(30));
        assert_eq!((at(29), passed()), (None, vec![]));
        assert!(!seen.has_passed(Lsn(31)));
    }

    #[test]
    fn what_was_never_recorded_is_with_the_first_look() {
        let seen = Seen::default();
        seen.begin(TABLE, Form::default());
        assert_eq!(seen.before(TABLE, Lsn(5)), None);
        assert!(!look(&seen, form(10, 1, &[("a", 23)])));
        assert_eq!(seen.passed(Lsn(10)).len(), 1);
    }

    #[test]
    fn a_stream_that_stays_behind_keeps_few_looks() {
        let seen = Seen::default();
        let names: Vec<String> = (0..1000).map(|name| name.to_string()).collect();
        for (at, name) in (1..).zip(&names) {
            look(&seen, form(at, 1, &[(name, 23)]));
        }
        assert_eq!(seen.known().looks[&TABLE].len(), MOST_LOOKS);
        assert_eq!(seen.before(TABLE, Lsn(1)).unwrap().at, Lsn(1), "the first is what it needs");
        assert_eq!(seen.passed(Lsn(1000))[0].1.at, Lsn(1000));
    }
}
