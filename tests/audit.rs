//! What really happened in the source, by a trigger: the yardstick for counting Kafka's records.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use tailwater_test_support::Database;

const INSTALL: &str = "
    CREATE TABLE audit (n bigserial PRIMARY KEY, op text NOT NULL, id bigint NOT NULL);
    CREATE FUNCTION audited() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        IF TG_OP = 'INSERT' THEN INSERT INTO audit (op, id) VALUES ('c', NEW.id);
        ELSIF TG_OP = 'DELETE' THEN INSERT INTO audit (op, id) VALUES ('d', OLD.id);
        ELSIF OLD.id = NEW.id THEN INSERT INTO audit (op, id) VALUES ('u', NEW.id);
        ELSE INSERT INTO audit (op, id) VALUES ('d', OLD.id), ('c', NEW.id);
        END IF;
        RETURN NULL;
    END $$;
    CREATE TRIGGER audited AFTER INSERT OR UPDATE OR DELETE ON users
        FOR EACH ROW EXECUTE FUNCTION audited()";

/// What happened to one key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct History {
    /// The operations in order, by Debezium's letters.
    pub ops: String,
    /// How many of them, the last ones, came after the mark.
    pub after_mark: usize,
}

/// The trigger and its table.
#[derive(Debug, Clone, Copy)]
pub struct Audit<'a> {
    source: &'a Database<'a>,
}

impl<'a> Audit<'a> {
    /// Installs the trigger; leave `public.audit` out of the publication.
    pub fn install(source: &'a Database<'a>) -> Result<Audit<'a>> {
        source.execute(INSTALL).context("install the audit trigger")?;
        Ok(Audit { source })
    }

    /// The number of the last change so far.
    pub fn mark(&self) -> Result<i64> {
        let rows = self.source.query("SELECT coalesce(max(n), 0) FROM audit")?;
        Ok(rows[0][0].parse()?)
    }

    /// The committed changes of each key.
    pub fn histories(&self, mark: i64) -> Result<BTreeMap<i64, History>> {
        let sql = format!(
            "SELECT id, string_agg(op, '' ORDER BY n), count(*) FILTER (WHERE n > {mark})
             FROM audit GROUP BY id"
        );
        let parse = |row: &Vec<String>| {
            let history = History { ops: row[1].clone(), after_mark: row[2].parse()? };
            Ok((row[0].parse()?, history))
        };
        self.source.query(&sql)?.iter().map(parse).collect()
    }
}
