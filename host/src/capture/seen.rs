//! What tables looked like, look by look. The stream describes a table as it was, the catalog tells of it as it is,
//! and neither tells which column is which after several changes of them: what was seen in between mostly does.
//!
//! PostgreSQL also tells nothing of rows that `ALTER TABLE` rewrites: neither of their new values, nor of a default
//! that a rewriting put into them. A table that is in another file *and* has columns of other types than at the last
//! look was rewritten. One that is only in another file was put in order or emptied, and one that only has other
//! columns holds in its old rows what the catalog tells. A computed column that became a plain one rewrites nothing,
//! and its old values may never have been told.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio_postgres::Row;
use tokio_postgres::types::Oid;

use crate::hop::{Form, Snapshots};
use crate::position::Lsn;

/// Looks that are kept of one table while the stream is behind them.
const MOST_LOOKS: usize = 64;

/// SQL for the [`Form`] of table `c`, in three columns.
pub const FORM: &str = "
    CASE c.relkind WHEN 'p' THEN
        (SELECT string_agg(f.relfilenode::text, ' ' ORDER BY f.oid) FROM pg_partition_tree(c.oid) p
         JOIN pg_class f ON f.oid = p.relid)
    ELSE c.relfilenode::text END,
    (SELECT json_agg(json_build_array(a.attnum, a.attname, a.atttypid::int8, a.atttypmod, a.attgenerated <> '')
                     ORDER BY a.attnum)::text
     FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped),
    c.relnatts";

/// What [`FORM`] gave, in these columns of a row. It holds from `at` on.
pub fn form(row: &Row, first: usize, at: Lsn) -> Form {
    let (files, columns): (Option<String>, Option<String>) = (row.get(first), row.get(first + 1));
    let columns = columns.and_then(|columns| serde_json::from_str(&columns).ok());
    Form {
        at,
        files: files.unwrap_or_default(),
        columns: columns.unwrap_or_default(),
        last: row.get(first + 2),
    }
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

    /// A table was copied as this, and what came before does not count any more.
    pub fn begin(&self, table: Oid, form: Form) {
        if !form.columns.is_empty() {
            self.known().looks.insert(table, [Arc::new(form)].into());
        }
    }

    /// Takes in a look; whether the table was rewritten since the last one.
    pub fn look(&self, table: Oid, form: Form) -> bool {
        let mut known = self.known();
        let looks = known.looks.entry(table).or_default();
        let Some(last) = looks.back() else {
            looks.push_back(Arc::new(form));
            return false;
        };
        if last.is_same(&form) {
            return false;
        }
        let rewritten = last.is_rewritten(&form);
        if looks.len() == MOST_LOOKS {
            // Of the table as the stream has it, the first one tells.
            looks.remove(1);
        }
        let at = form.at;
        looks.push_back(Arc::new(form));
        known.next = known.next.min(at);
        rewritten
    }

    /// The last look that a transaction with this commit cannot be before.
    #[must_use]
    pub fn before(&self, table: Oid, commit: Lsn) -> Option<Arc<Form>> {
        let known = self.known();
        known.looks.get(&table)?.iter().rev().find(|form| form.at <= commit).cloned()
    }

    /// The last look of each table of which there was one since, that the stream is behind now: every transaction
    /// that is still to come commits after this.
    #[must_use]
    pub fn passed(&self, confirm: Lsn) -> Vec<(Oid, Arc<Form>)> {
        let mut known = self.known();
        if confirm < known.next {
            return Vec::new();
        }
        let (mut passed, mut next) = (Vec::new(), Lsn(u64::MAX));
        for (table, looks) in &mut known.looks {
            let mut last = None;
            while let Some(second) = looks.get(1).filter(|second| second.at <= confirm) {
                last = Some((*table, Arc::clone(second)));
                looks.pop_front();
            }
            passed.extend(last);
            next = looks.get(1).map_or(next, |waiting| next.min(waiting.at));
        }
        known.next = next;
        passed
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Form {
    fn is_same(&self, other: &Form) -> bool {
        (&self.files, &self.columns, self.last) == (&other.files, &other.columns, other.last)
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
        (self.files != later.files && before != now) || before.iter().any(became_plain)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hop::FormColumn;

    const TABLE: Oid = 7;

    fn form(at: u64, files: &str, columns: &[(&str, Oid)]) -> Form {
        let column = |(number, (name, oid)): (i16, &(&str, Oid))| FormColumn {
            number,
            name: (*name).into(),
            type_of: (*oid, -1),
            generated: false,
        };
        let columns: Vec<_> = (1..).zip(columns).map(column).collect();
        let last = columns.last().map_or(0, |column| column.number);
        Form { at: Lsn(at), files: files.into(), columns, last }
    }

    #[test]
    fn a_table_in_another_file_with_columns_of_other_types_was_rewritten() {
        let seen = Seen::default();
        let looks = [
            ("1", vec![("a", 23)], false),
            ("1", vec![("a", 23), ("b", 25)], false),
            ("2", vec![("a", 23), ("b", 25)], false),
            ("3", vec![("b", 23), ("a", 25)], false),
            ("4", vec![("b", 20), ("a", 25)], true),
            ("4", vec![("b", 20), ("a", 25)], false),
        ];
        for (at, (files, columns, rewritten)) in (1..).zip(looks) {
            assert_eq!(seen.look(TABLE, form(at, files, &columns)), rewritten, "{at}");
        }
        let mut computed = form(8, "4", &[("b", 20), ("a", 25)]);
        computed.columns[1].generated = true;
        seen.begin(TABLE, computed);
        assert!(seen.look(TABLE, form(9, "4", &[("b", 20), ("a", 25)])), "computed no more");
        let recorded = form(9, "4", &[("b", 20), ("a", 25)]);
        seen.begin(TABLE, recorded);
        assert!(seen.look(TABLE, form(10, "5", &[("b", 20), ("a", 20)])), "since it was copied");
    }

    #[test]
    fn a_look_tells_of_transactions_that_commit_after_it() {
        let seen = Seen::default();
        seen.begin(TABLE, form(10, "1", &[("a", 23)]));
        seen.look(TABLE, form(20, "1", &[("a", 23)]));
        seen.look(TABLE, form(30, "1", &[("b", 23)]));
        let at = |commit| seen.before(TABLE, Lsn(commit)).map(|form| form.at.0);
        assert_eq!([9, 10, 29, 30].map(at), [None, Some(10), Some(10), Some(30)]);
        assert_eq!(seen.passed(Lsn(29)), []);
        let passed = seen.passed(Lsn(30));
        assert_eq!(passed.iter().map(|(_, form)| form.at.0).collect::<Vec<_>>(), [30]);
        assert_eq!(seen.passed(Lsn(31)), [], "once");
        assert_eq!(at(29), None, "the stream is behind it");
    }

    #[test]
    fn a_stream_that_stays_behind_keeps_few_looks() {
        let seen = Seen::default();
        let names: Vec<String> = (0..1000).map(|name| name.to_string()).collect();
        for (at, name) in (1..).zip(&names) {
            seen.look(TABLE, form(at, "1", &[(name, 23)]));
        }
        assert_eq!(seen.known().looks[&TABLE].len(), MOST_LOOKS);
        assert_eq!(seen.before(TABLE, Lsn(1)).unwrap().at, Lsn(1), "the first is what it needs");
        assert_eq!(seen.passed(Lsn(1000))[0].1.at, Lsn(1000));
    }
}
