//! What things are called in ClickHouse, and how any name is written into SQL.

use rustc_hash::FxHashMap;

use super::error::Error;
use crate::table::TableName;

/// Prefix of the sink's own tables.
pub(super) const OWN_PREFIX: &str = "_tailwater_";
/// What a table's stored versions are called after.
pub(super) const VERSIONS_SUFFIX: &str = "_versions";

/// A name as an SQL identifier, whatever is in it.
#[must_use]
pub fn quoted(name: &str) -> String {
    format!("`{}`", name.replace('\\', "\\\\").replace('`', "\\`"))
}

/// A text as an SQL string literal, whatever is in it.
#[must_use]
pub fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\\', "\\\\").replace('\'', "\\'"))
}

/// The view's name unless one is set: the table's, behind its schema's if that is not `public`.
pub(super) fn default_name(table: &TableName) -> String {
    match table.schema.as_str() {
        "public" => table.name.clone(),
        schema => format!("{schema}_{}", table.name),
    }
}

/// Who has taken which name.
#[derive(Debug, Default)]
pub(super) struct Names {
    owners: FxHashMap<String, TableName>,
}

impl Names {
    /// Takes the name of a view and that of its versions for a table.
    pub(super) fn claim(&mut self, view: &str, table: &TableName) -> Result<(), Error> {
        if view.starts_with(OWN_PREFIX) {
            return Err(Error::ReservedName { name: view.to_owned(), table: table.clone() });
        }
        for name in [view.to_owned(), format!("{view}{VERSIONS_SUFFIX}")] {
            let owner = self.owners.entry(name.clone()).or_insert_with(|| table.clone());
            if owner != table {
                let (first, second) = (owner.clone(), table.clone());
                return Err(Error::NameClash { name, first, second });
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(schema: &str, name: &str) -> TableName {
        TableName { schema: schema.into(), name: name.into() }
    }

    #[test]
    fn only_the_public_schema_goes_unnamed() {
        assert_eq!(default_name(&table("public", "users")), "users");
        assert_eq!(default_name(&table("billing", "users")), "billing_users");
    }

    #[test]
    fn two_tables_never_share_a_name() {
        let mut names = Names::default();
        names.claim("billing_users", &table("billing", "users")).unwrap();
        names.claim("billing_users", &table("billing", "users")).unwrap();
        let clash = names.claim("billing_users", &table("public", "billing_users")).unwrap_err();
        assert!(matches!(clash, Error::NameClash { .. }), "{clash}");
        let clash = names.claim("billing", &table("public", "billing"));
        assert!(clash.is_ok());
        names.claim("users", &table("public", "users")).unwrap();
        let clash = names.claim("users_versions", &table("public", "users_versions")).unwrap_err();
        assert!(clash.to_string().contains("users_versions"), "{clash}");
    }

    #[test]
    fn quotes_and_backslashes_cannot_leave_a_name() {
        assert_eq!(quoted(r"a`b\"), r"`a\`b\\`");
        assert_eq!(literal(r"a'b\"), r"'a\'b\\'");
    }
}
