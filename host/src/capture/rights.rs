//! What the user may do in the source, as far as a run needs it. The server's own refusals do not say how to mend
//! it.

use tokio_postgres::Client;

use super::error::Error;
use super::preflight::{quote, quote_ident, unmet};
use crate::table::TableName;

/// `CREATE PUBLICATION` takes the right to create in the database and the ownership of each table.
///
/// # Errors
/// [`Error::Precondition`] says what to grant.
pub async fn may_publish(client: &Client, tables: &[&TableName]) -> Result<(), Error> {
    let right = "SELECT has_database_privilege(current_database(), 'CREATE'),
         current_database()::text, current_user::text";
    let row = client.query_one(right, &[]).await?;
    let (database, user): (String, String) = (row.get(1), row.get(2));
    if !row.get::<_, bool>(0) {
        return unmet(format!(
            "user {user} may not create the publication; run GRANT CREATE ON DATABASE {} TO {}, or \
             create the publication as another user",
            quote_ident(&database),
            quote_ident(&user)
        ));
    }
    may_add(client, tables).await
}

/// To add a table to a publication takes its ownership.
///
/// # Errors
/// As [`may_publish`].
pub async fn may_add(client: &Client, tables: &[&TableName]) -> Result<(), Error> {
    let owned = "SELECT pg_has_role(c.relowner, 'USAGE'), current_user::text
         FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
         WHERE n.nspname = $1 AND c.relname = $2";
    for table in tables {
        // One that is gone meanwhile is told by who publishes it.
        let Some(row) = client.query_opt(owned, &[&table.schema, &table.name]).await? else {
            continue;
        };
        if !row.get::<_, bool>(0) {
            let user: String = row.get(1);
            return unmet(format!(
                "user {user} does not own table {table}, so it may not publish it; create the \
                 publication as the owner, or run ALTER TABLE {} OWNER TO {}",
                quote(table),
                quote_ident(&user)
            ));
        }
    }
    Ok(())
}

/// A copy reads the tables.
///
/// # Errors
/// As [`may_publish`].
pub async fn may_read(client: &Client, tables: &[&TableName]) -> Result<(), Error> {
    let right = "SELECT has_schema_privilege($1, 'USAGE')
           AND has_table_privilege(c.oid, 'SELECT'), current_user::text
         FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
         WHERE n.nspname = $1 AND c.relname = $2";
    for table in tables {
        let found = client.query_opt(right, &[&table.schema, &table.name]).await?;
        let Some(row) = found else { continue };
        if !row.get::<_, bool>(0) {
            let user = quote_ident(&row.get::<_, String>(1));
            return unmet(format!(
                "table {table} may not be read; run GRANT USAGE ON SCHEMA {} TO {user}; GRANT \
                 SELECT ON {} TO {user}",
                quote_ident(&table.schema),
                quote(table)
            ));
        }
    }
    Ok(())
}
