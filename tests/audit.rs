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

    /// Committed changes so far: per key, the operations in order, by Debezium's letters.
    pub fn changes(&self) -> Result<BTreeMap<i64, String>> {
        let sql = "SELECT id, string_agg(op, '' ORDER BY n) FROM audit GROUP BY id";
        let rows = self.source.query(sql)?;
        let parse = |row: &Vec<String>| Ok((row[0].parse()?, row[1].clone()));
        rows.iter().map(parse).collect()
    }
}
