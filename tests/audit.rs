//! What really happened in the source, by triggers: the yardstick for counting Kafka's records.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, Result};
use tailwater_test_support::Database;
use tailwater_test_support::workload::KINDS;

const TABLE: &str = "CREATE TABLE audit (n bigserial PRIMARY KEY, relation text NOT NULL, op text NOT NULL, key text)";

const TRIGGERS: &str = "
    CREATE FUNCTION audited_{table}() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        IF TG_OP = 'TRUNCATE' THEN INSERT INTO audit (relation, op) VALUES ('{table}', 't');
        ELSIF TG_OP = 'INSERT' THEN INSERT INTO audit (relation, op, key) VALUES ('{table}', 'c', {new});
        ELSIF TG_OP = 'DELETE' THEN INSERT INTO audit (relation, op, key) VALUES ('{table}', 'd', {old});
        ELSIF {old} = {new} THEN INSERT INTO audit (relation, op, key) VALUES ('{table}', 'u', {new});
        ELSE INSERT INTO audit (relation, op, key)
            VALUES ('{table}', 'd', {old}), ('{table}', 'c', {new});
        END IF;
        RETURN NULL;
    END $$;
    CREATE TRIGGER audited AFTER INSERT OR UPDATE OR DELETE ON {table}
        FOR EACH ROW EXECUTE FUNCTION audited_{table}();
    CREATE TRIGGER audited_truncate AFTER TRUNCATE ON {table}
        FOR EACH STATEMENT EXECUTE FUNCTION audited_{table}();";

/// What happened to one key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct History {
    /// The operations in order, by Debezium's letters; those of the whole table among them.
    pub ops: String,
    /// How many of them, the last ones, came after the mark.
    pub after_mark: usize,
}

/// The triggers and their table.
#[derive(Debug, Clone, Copy)]
pub struct Audit<'a> {
    source: &'a Database<'a>,
}

impl<'a> Audit<'a> {
    /// Installs the triggers on the shop's `users`; leave `public.audit` out of the publication.
    pub fn install(source: &'a Database<'a>) -> Result<Audit<'a>> {
        source.execute(&format!("{TABLE}; {}", triggers("users", &["id"])))?;
        Ok(Audit { source })
    }

    /// The same, on the tables of other kinds too.
    pub fn install_with_kinds(source: &'a Database<'a>) -> Result<Audit<'a>> {
        let audit = Audit::install(source)?;
        for kind in KINDS {
            source.execute(&triggers(kind.name, kind.key))?;
        }
        Ok(audit)
    }

    /// The number of the last change so far.
    pub fn mark(&self) -> Result<i64> {
        let rows = self.source.query("SELECT coalesce(max(n), 0) FROM audit")?;
        Ok(rows[0][0].parse()?)
    }

    /// The committed changes of each key of a table, by the key as compact JSON.
    pub fn histories(&self, table: &str, mark: i64) -> Result<BTreeMap<String, History>> {
        let sql = format!("SELECT n, op, key FROM audit WHERE relation = '{table}' ORDER BY n");
        let mut truncates = BTreeSet::new();
        let mut keys: BTreeMap<String, BTreeSet<(i64, char)>> = BTreeMap::new();
        for row in self.source.query(&sql)? {
            let op = (row[0].parse()?, row[1].chars().next().context("an operation")?);
            match row[2].as_str() {
                "" => drop(truncates.insert(op)),
                key => drop(keys.entry(compact(key)?).or_default().insert(op)),
            }
        }
        let history = |(key, mut ops): (String, BTreeSet<(i64, char)>)| {
            ops.extend(&truncates);
            let after_mark = ops.iter().filter(|(n, _)| *n > mark).count();
            (key, History { ops: ops.into_iter().map(|(_, op)| op).collect(), after_mark })
        };
        Ok(keys.into_iter().map(history).collect())
    }
}

fn triggers(table: &str, key: &[&str]) -> String {
    let key_of = |row: &str| {
        let members = key.iter().map(|name| format!("'{name}', {row}.{name}"));
        format!("json_build_object({})::text", members.collect::<Vec<_>>().join(", "))
    };
    TRIGGERS
        .replace("{table}", table)
        .replace("{old}", &key_of("OLD"))
        .replace("{new}", &key_of("NEW"))
}

/// JSON as `serde_json` writes it.
pub(crate) fn compact(json: &str) -> Result<String> {
    Ok(serde_json::from_str::<serde_json::Value>(json)?.to_string())
}
