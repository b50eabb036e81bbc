//! Topic names.

use crate::table::Table;

/// The topic of a table: `<prefix>.<schema>.<table>`, every character that Kafka does not allow
/// replaced by `_`, as Debezium does.
#[must_use]
pub fn topic_name(prefix: &str, table: &Table) -> String {
    let name = format!("{prefix}.{}.{}", table.schema, table.name);
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
}
