//! The preflight without its deeds: what `tailwater check` may do to a source, which is nothing.

use tokio_postgres::Client;

use super::catalog;
use super::error::Error;
use super::options::Options;
use super::preflight::{self, Slot, quote, quote_ident, unmet};
use super::publication;
use super::reach::reach;
use super::remarks::Remarks;
use super::source_url::SourceUrl;
use crate::table::TableName;

/// What a look at the source found.
#[derive(Debug)]
pub struct Survey {
    /// `server_version_num`
    pub server_version: i32,
    /// The tables that will be streamed.
    pub tables: Vec<TableName>,
    /// Whether the publication exists; otherwise the first run creates it.
    pub publication_exists: bool,
    /// The slot, if it exists; otherwise the first run creates it.
    pub slot: Option<Slot>,
}

/// Checks what [`check`](super::check) does, and that the user may do what a first run does, without
/// changing anything.
///
/// # Errors
/// [`Error::Precondition`] says what is missing and how to mend it.
pub async fn survey(url: &SourceUrl, options: &Options) -> Result<Survey, Error> {
    let options = &options.for_database(url.database());
    let (client, _) = reach(url).await?;
    let server_version = preflight::server(&client).await?;
    let slot = preflight::slot(&client, options).await?;
    if slot.is_none() {
        preflight::slot_can_be_made(&client, options).await?;
    }
    let remarks = Remarks::default();
    let wanted = publication::wanted_tables(&client, options, &remarks).await?;
    let exists = "SELECT FROM pg_publication WHERE pubname = $1";
    let publication_exists = client.query_opt(exists, &[&options.publication]).await?.is_some();
    let tables = match publication_exists {
        true => {
            let published =
                catalog::published(&client, &options.publication, server_version).await?;
            publication::tables_are_usable(&published, options, &remarks)?;
            published.into_iter().map(|table| table.name).collect()
        }
        false => {
            publication::something_is_wanted(&wanted)?;
            publication::topics_differ(wanted.iter().map(|table| &table.name), options)?;
            let wanted: Vec<TableName> = wanted.into_iter().map(|table| table.name).collect();
            may_publish(&client, &wanted).await?;
            wanted
        }
    };
    may_read(&client, &tables).await?;
    Ok(Survey { server_version, tables, publication_exists, slot })
}

/// `CREATE PUBLICATION` takes the right to create in the database and the ownership of each table.
async fn may_publish(client: &Client, tables: &[TableName]) -> Result<(), Error> {
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
    let owned =
        "SELECT pg_has_role(relowner, 'USAGE') FROM pg_class WHERE oid = $1::text::regclass";
    for table in tables {
        if !client.query_one(owned, &[&quote(table)]).await?.get::<_, bool>(0) {
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

/// The first copy reads the tables.
async fn may_read(client: &Client, tables: &[TableName]) -> Result<(), Error> {
    let right = "SELECT has_schema_privilege($1, 'USAGE')
           AND has_table_privilege(c.oid, 'SELECT'), current_user::text
         FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
         WHERE n.nspname = $1 AND c.relname = $2";
    for table in tables {
        let row = client.query_one(right, &[&table.schema, &table.name]).await?;
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
