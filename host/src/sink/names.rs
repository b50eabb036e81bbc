//! What things are called in ClickHouse, and how any name is written into SQL.

use rustc_hash::FxHashMap;

use super::error::Error;
use super::options::Options;
use crate::table::{Origin, Table, TableName};

/// Prefix of the sink's own tables.
pub(super) const OWN_PREFIX: &str = "_tailwater_";
/// What a table's stored versions are called after.
pub(super) const VERSIONS_SUFFIX: &str = "_versions";

/// A name as an SQL identifier, whatever is in it.
#[must_use]
pub fn quoted(name: &str) -> String {
    format!("`{}`", name.replace('\\', "\\\\").replace('`', "\\`").replace('\0', "\\0"))
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

impl Options {
    /// Refuses source tables of which two would have one name in ClickHouse: as a view, or as what stores the
    /// versions of one.
    ///
    /// # Errors
    /// [`Error::NameClash`], [`Error::ReservedName`]
    pub fn names_differ<'a>(
        &self,
        tables: impl IntoIterator<Item = &'a TableName>,
    ) -> Result<(), Error> {
        let mut names = Names::default();
        tables.into_iter().try_for_each(|table| names.claim(&self.plan(table).view, table))
    }
}

/// Who has taken which name: the source table, as it is written.
#[derive(Debug, Default)]
pub(super) struct Names {
    owners: FxHashMap<String, String>,
    /// By the table that holds the rows, the one that they come from.
    origins: FxHashMap<TableName, Origin>,
}

impl Names {
    /// The tables of which there are views already.
    pub(super) fn of_views<'a>(views: impl IntoIterator<Item = (&'a str, &'a str)>) -> Names {
        let mut names = Names::default();
        for (view, table) in views {
            for name in both(view) {
                names.owners.insert(name, table.to_owned());
            }
        }
        names
    }

    /// Takes the name of a view and that of its versions for a table.
    pub(super) fn claim(&mut self, view: &str, table: &TableName) -> Result<(), Error> {
        if view.starts_with(OWN_PREFIX) {
            return Err(Error::ReservedName { name: view.to_owned(), table: table.clone() });
        }
        let owner =
            |name: &String| self.owners.get(name).filter(|owner| **owner != table.to_string());
        if let Some((name, first)) =
            both(view).into_iter().find_map(|name| owner(&name).cloned().map(|first| (name, first)))
        {
            return Err(Error::NameClash { name, first, second: table.clone() });
        }
        self.owners.extend(both(view).map(|name| (name, table.to_string())));
        Ok(())
    }

    /// Takes a table for the rows of the source's table that they come from.
    pub(super) fn claim_rows(&mut self, table: &Table) -> Result<(), Error> {
        let (target, origin) = (table.full_name(), table.origin());
        if let Some(known) = self.origins.get(&target).filter(|known| !known.is(&origin)) {
            return Err(Error::RouteClash {
                target: target.to_string(),
                first: known.name.to_string(),
                second: origin.name.to_string(),
            });
        }
        self.origins.insert(target, origin);
        Ok(())
    }
}

/// A view's name and that of its versions.
fn both(view: &str) -> [String; 2] {
    [view.to_owned(), format!("{view}{VERSIONS_SUFFIX}")]
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
        let versions = table("public", "users_versions");
        let said = "public.users and public.users_versions would both be called `users_versions` in \
                    ClickHouse; set clickhouse.tables.\"public.users_versions\".name to another name";
        let clash = names.claim("users_versions", &versions).unwrap_err();
        assert_eq!(clash.to_string(), said);
        let mut stored = Names::of_views([("users", "public.users")]);
        assert_eq!(stored.claim("users_versions", &versions).unwrap_err().to_string(), said);
        stored.claim("users", &table("public", "users")).unwrap();
        let both = [table("public", "users"), versions];
        let clash = Options::default().names_differ(&both).unwrap_err();
        assert_eq!(clash.to_string(), said);
    }

    #[test]
    fn quotes_and_backslashes_cannot_leave_a_name() {
        assert_eq!(quoted("a`b\\c\0"), r"`a\`b\\c\0`");
        assert_eq!(literal(r"a'b\"), r"'a\'b\\'");
    }
}
