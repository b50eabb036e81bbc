//! The preflight without its deeds: what `tailwater check` may do to a source, which is nothing.

use super::catalog;
use super::error::Error;
use super::options::Options;
use super::preflight::{self, Slot};
use super::publication;
use super::reach::reach;
use super::remarks::Remarks;
use super::rights::{may_publish, may_read};
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
    let exists = "SELECT FROM pg_publication WHERE pubname = $1";
    let publication_exists = client.query_opt(exists, &[&options.publication]).await?.is_some();
    let wanted = publication::wanted_tables(&client, options, &remarks, publication_exists).await?;
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
            may_publish(&client, &wanted.iter().collect::<Vec<_>>()).await?;
            wanted
        }
    };
    may_read(&client, &tables.iter().collect::<Vec<_>>()).await?;
    Ok(Survey { server_version, tables, publication_exists, slot })
}
