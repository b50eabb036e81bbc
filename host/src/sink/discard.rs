//! Takes a table's copy out of ClickHouse, so that the next one finds its place free.

use super::client::Client;
use super::ddl::on_cluster;
use super::error::Error;
use super::options::Options;
use super::published::shows;
use super::shape::{FoundTable, find_table, owner};
use crate::table::TableName;

/// Why nothing was dropped.
#[derive(Debug, thiserror::Error)]
pub enum NotDropped {
    /// What is to be dropped was made by somebody else.
    #[error(
        "`{name}` in ClickHouse was not made by tailwater for {table}: it is a {engine} with the comment \
         `{comment}`; if it may be dropped all the same, add `--drop {name}`"
    )]
    Foreign {
        /// The name in ClickHouse.
        name: String,
        /// The source table.
        table: TableName,
        /// What is there.
        engine: String,
        /// Which says whose it is.
        comment: String,
    },
    /// What is to be dropped has another name.
    #[error(
        "`{name}` is not in the way of {table}, which is called `{view}` and `{versions}` there"
    )]
    NotInTheWay {
        /// The name given.
        name: String,
        /// The source table.
        table: TableName,
        /// Its view.
        view: String,
        /// Its versions.
        versions: String,
    },
    /// There is nothing to drop.
    #[error(
        "the ClickHouse database `{database}` has no copy of {table}; names are those of the source, as \
         in public.users"
    )]
    NoCopy {
        /// The source table.
        table: TableName,
        /// Where it was looked for.
        database: String,
    },
    /// ClickHouse does not answer, or refuses.
    #[error(transparent)]
    Store(#[from] Error),
}

/// Drops the view and the versions of a source table, and gives the names of what was dropped. What is not of
/// the sink's making for this table of this `source` is dropped only if it is in `named`. `source_database` is where
/// they are unless the options name a database.
///
/// # Errors
/// Nothing is dropped where one of the two is somebody else's and not named, where `named` has another name
/// than these two, or where there is neither. ClickHouse does not answer or refuses.
///
/// # Panics
/// The options name no server.
pub async fn discard(
    options: &Options,
    source_database: &str,
    source: &str,
    table: &TableName,
    named: &[String],
) -> Result<Vec<String>, NotDropped> {
    let client = Client::new(options, source_database, source);
    let plan = options.plan(table);
    let names = [plan.view.clone(), plan.versions_name()];
    if let Some(other) = named.iter().find(|name| !names.contains(name)) {
        let [view, versions] = names;
        return Err(NotDropped::NotInTheWay {
            name: other.clone(),
            table: table.clone(),
            view,
            versions,
        });
    }
    let mut found = Vec::new();
    for name in names {
        let Some(there) = find_table(&client, &name).await? else { continue };
        if !named.contains(&name) && !is_of(&there, &client, table) {
            let FoundTable { engine, comment, .. } = there;
            return Err(NotDropped::Foreign { name, table: table.clone(), engine, comment });
        }
        found.push(name);
    }
    if found.is_empty() {
        let database = client.database().to_owned();
        return Err(NotDropped::NoCopy { table: table.clone(), database });
    }
    let cluster = on_cluster(plan.cluster.as_deref());
    for name in &found {
        let sql = format!("DROP TABLE IF EXISTS {}{cluster} SYNC", client.table(name));
        client.execute(&format!("drop `{name}`"), &sql).await?;
    }
    Ok(found)
}

/// Whether the sink made it for this table of this source; its comment says so.
fn is_of(found: &FoundTable, client: &Client, table: &TableName) -> bool {
    match found.engine.as_str() {
        "View" => shows(&found.comment).is_some_and(|source| source == table.to_string()),
        engine => engine.ends_with("MergeTree") && found.comment == owner(client, table),
    }
}
