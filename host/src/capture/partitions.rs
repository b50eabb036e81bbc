//! Partitions that come, go, or are emptied by themselves. Rows of a partitioned table are published as its
//! own, and PostgreSQL publishes nothing of what is done to a partition as a whole. So the copy is not the
//! source any more then, and somebody has to be told.

use std::collections::{BTreeMap, HashMap};

use tokio_postgres::Client;
use tokio_postgres::types::Oid;
use tracing::warn;

use super::error::Error;
use crate::table::TableName;

/// The partitions that hold rows, of each published partitioned table: whether it is empty is looked up too,
/// since a rewritten one is in another file as well.
const LEAVES: &str = "
    SELECT p.schemaname::text, p.tablename::text, leaf.relid::oid, leaf.relid::text,
           f.relfilenode, pg_relation_size(leaf.relid) = 0
    FROM pg_publication_tables p
    JOIN pg_namespace n ON n.nspname = p.schemaname
    JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = p.tablename AND c.relkind = 'p'
    CROSS JOIN LATERAL pg_partition_tree(c.oid) leaf
    JOIN pg_class f ON f.oid = leaf.relid AND f.relkind = 'r'
    WHERE p.pubname = $1";

/// Object ids only grow, so a partition that is younger than this was made as one, without rows.
const NEWEST: &str = "SELECT coalesce(max(oid), 0::oid) FROM pg_class";

/// The partitions as they were at the last look.
#[derive(Debug, Default)]
pub struct Partitions {
    seen: Option<Look>,
}

#[derive(Debug, Default)]
struct Look {
    newest: Oid,
    leaves: HashMap<(TableName, Oid), Leaf>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Leaf {
    name: String,
    file: Oid,
    empty: bool,
}

impl Partitions {
    /// Looks again, and logs what happened since the last look; nothing the first time.
    ///
    /// # Errors
    /// A query's error.
    pub async fn look(&mut self, client: &Client, publication: &str) -> Result<(), Error> {
        let newest = client.query_one(NEWEST, &[]).await?.get(0);
        let mut leaves = HashMap::new();
        for row in client.query(LEAVES, &[&publication]).await? {
            let table = TableName { schema: row.get(0), name: row.get(1) };
            let leaf = Leaf {
                name: row.get(3),
                file: row.get(4),
                empty: row.get::<_, Option<bool>>(5).unwrap_or(true),
            };
            leaves.insert((table, row.get(2)), leaf);
        }
        let now = Look { newest, leaves };
        for (table, what) in self.seen.iter().flat_map(|before| changes(before, &now)) {
            let what = what.join(", ");
            warn!(
                %table,
                what,
                "rows came or went with a partition as a whole, which PostgreSQL does not publish, so the \
                 copy differs from the source; to have it copied again run `tailwater snapshot`"
            );
        }
        self.seen = Some(now);
        Ok(())
    }
}

/// What was done to partitions as a whole, by table. A table that is not published any more is left out.
fn changes(before: &Look, now: &Look) -> BTreeMap<TableName, Vec<String>> {
    let is_published = |table: &TableName| now.leaves.keys().any(|(known, _)| known == table);
    let mut changes = BTreeMap::<TableName, Vec<String>>::new();
    for ((table, oid), leaf) in &before.leaves {
        let what = match now.leaves.get(&(table.clone(), *oid)) {
            None if is_published(table) && !leaf.empty => "dropped or detached",
            Some(now) if now.file != leaf.file && now.empty && !leaf.empty => "truncated",
            _ => continue,
        };
        changes.entry(table.clone()).or_default().push(format!("{} was {what}", leaf.name));
    }
    let was_published = |table: &TableName| before.leaves.keys().any(|(known, _)| known == table);
    for ((table, oid), leaf) in &now.leaves {
        let is_new = !before.leaves.contains_key(&(table.clone(), *oid));
        if is_new && *oid <= before.newest && was_published(table) && !leaf.empty {
            changes.entry(table.clone()).or_default().push(format!("{} was attached", leaf.name));
        }
    }
    changes.values_mut().for_each(|what| what.sort());
    changes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look(newest: Oid, leaves: &[(&str, Oid, Oid, bool)]) -> Look {
        let leaf = |&(table, oid, file, empty): &(&str, Oid, Oid, bool)| {
            let table = TableName { schema: "public".into(), name: table.into() };
            ((table, oid), Leaf { name: format!("p_{oid}"), file, empty })
        };
        Look { newest, leaves: leaves.iter().map(leaf).collect() }
    }

    fn said(before: &Look, now: &Look) -> Vec<String> {
        changes(before, now).into_values().flatten().collect()
    }

    #[test]
    fn only_rows_that_come_or_go_with_their_partition_are_told() {
        let before = look(9, &[("p", 1, 1, false), ("p", 2, 2, false), ("p", 3, 3, true)]);
        assert_eq!(said(&before, &before), [""; 0]);
        let gone = look(9, &[("p", 2, 2, false)]);
        assert_eq!(said(&before, &gone), ["p_1 was dropped or detached"]);
        let rewritten = look(9, &[("p", 1, 8, false), ("p", 2, 2, false), ("p", 3, 9, true)]);
        assert_eq!(said(&before, &rewritten), [""; 0]);
        let emptied = look(9, &[("p", 1, 8, true), ("p", 2, 2, false), ("p", 3, 3, true)]);
        assert_eq!(said(&before, &emptied), ["p_1 was truncated"]);
    }

    #[test]
    fn one_that_was_made_as_a_partition_is_none_that_was_attached() {
        let before = look(9, &[("p", 1, 1, false)]);
        let made = look(12, &[("p", 1, 1, false), ("p", 12, 12, false)]);
        assert_eq!(said(&before, &made), [""; 0]);
        let attached = look(9, &[("p", 1, 1, false), ("p", 7, 7, false), ("p", 8, 8, true)]);
        assert_eq!(said(&before, &attached), ["p_7 was attached"]);
        let published = look(9, &[("p", 1, 1, false), ("q", 7, 7, false)]);
        assert_eq!(said(&before, &published), [""; 0], "another table, which is copied");
    }
}
