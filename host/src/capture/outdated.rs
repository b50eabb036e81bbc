//! Tables whose copies count no more, though nothing that is recorded of them speaks against it.
//!
//! PostgreSQL tells nothing of rows that `ALTER TABLE` rewrites: neither of their new values, nor of a default
//! that a rewriting put into them. So a table that is in another file *and* has other columns than at the last look
//! is copied again. One that is only in another file was put in order or emptied, and one that only has other
//! columns holds in its old rows what the catalog tells. What happens while nobody looks is not noticed.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio_postgres::types::Oid;

/// SQL for the files that hold table `c`, and for the types of its columns.
pub const FORM: &str = "
    CASE c.relkind WHEN 'p' THEN
        (SELECT string_agg(f.relfilenode::text, ' ' ORDER BY f.oid) FROM pg_partition_tree(c.oid) p
         JOIN pg_class f ON f.oid = p.relid)
    ELSE c.relfilenode::text END,
    (SELECT string_agg(concat_ws(' ', a.attnum, a.atttypid, a.atttypmod, a.attgenerated), ','
                       ORDER BY a.attnum)
     FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped)";

/// What [`FORM`] gives.
pub type Form = (Option<String>, Option<String>);

/// What is known of them, for as long as the capture runs. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Outdated(Arc<Mutex<Known>>);

#[derive(Debug, Default)]
struct Known {
    outdated: HashSet<Oid>,
    forms: HashMap<Oid, Form>,
}

impl Outdated {
    /// Has a table copied again; false if that was known.
    pub fn mark(&self, table: Oid) -> bool {
        self.known().outdated.insert(table)
    }

    /// Whether it is to be copied again.
    #[must_use]
    pub fn has(&self, table: Oid) -> bool {
        self.known().outdated.contains(&table)
    }

    /// It was copied.
    pub fn copied(&self, table: Oid) {
        self.known().outdated.remove(&table);
    }

    /// Takes in what a look found of a table; whether it was rewritten since the last one, which marks it.
    pub fn look(&self, table: Oid, now: Form) -> bool {
        let mut known = self.known();
        let before = known.forms.insert(table, now.clone());
        let rewritten = before.is_some_and(|(file, columns)| file != now.0 && columns != now.1);
        if rewritten {
            known.outdated.insert(table);
        }
        rewritten
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_copied_again_if_it_has_another_file_and_other_columns_at_once() {
        let outdated = Outdated::default();
        let form = |file: &str, columns: &str| (Some(file.to_owned()), Some(columns.to_owned()));
        let looks = [
            ("1", "a", false),
            ("1", "a,b", false),
            ("2", "a,b", false),
            ("3", "a,c", true),
            ("3", "a,c", false),
        ];
        for (file, columns, wanted) in looks {
            assert_eq!(outdated.look(7, form(file, columns)), wanted, "{file} {columns}");
        }
        assert!(outdated.has(7) && !outdated.mark(7), "until it is copied");
        outdated.copied(7);
        assert!(!outdated.has(7) && outdated.mark(7));
    }
}
