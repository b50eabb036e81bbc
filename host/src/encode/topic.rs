//! Topic names.

use crate::table::{Table, TableName};

/// The topic of a table: `<prefix>.<schema>.<table>`, every character that Kafka does not allow
/// replaced by `_`, as Debezium does.
#[must_use]
pub fn topic_name(prefix: &str, table: &Table) -> String {
    allowed(&format!("{prefix}.{}.{}", table.schema, table.name))
}

/// Whether two tables have one topic, or two that differ only in `.` and `_`, which Kafka takes for the
/// same.
#[must_use]
pub fn topics_collide(one: &TableName, other: &TableName) -> bool {
    let topic = |table: &TableName| allowed(&table.to_string()).replace('.', "_");
    topic(one) == topic(other)
}

fn allowed(name: &str) -> String {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    name.chars().map(|c| if allowed(c) { c } else { '_' }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::ReplicaIdentity;

    #[test]
    fn characters_that_kafka_refuses_become_underscores() {
        let named = |name: &str| {
            Table::new(1, "public".into(), name.into(), Vec::new(), ReplicaIdentity::Default)
        };
        assert_eq!(topic_name("shop", &named("Weird Name")), "shop.public.Weird_Name");
        assert_eq!(topic_name("shop", &named("ünï-1")), "shop.public._n_-1");
    }
    #[test]
    fn tables_of_one_topic_are_told() {
        let named =
            |schema: &str, name: &str| TableName { schema: schema.into(), name: name.into() };
        let collide = |one: (&str, &str), other: (&str, &str)| {
            topics_collide(&named(one.0, one.1), &named(other.0, other.1))
        };
        assert!(collide(("public", "Weird Name"), ("public", "Weird_Name")));
        assert!(collide(("a.b", "c"), ("a", "b.c")));
        assert!(collide(("a", "b_c"), ("a.b", "c")), "Kafka refuses one of these topics");
        assert!(!collide(("public", "users"), ("public", "Users")));
    }
}
