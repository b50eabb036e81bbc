//! `snapshot`: asked of a running instance, or made possible while none runs.

use hyper::Method;
use serde_json::Value as Json;

use super::{complain, encoded, instance, print, unanswered};
use crate::config::{Config, Exit, SnapshotArgs};
use crate::pipeline::clickhouse;
use crate::serve::ask;
use crate::sink;
use crate::table::TableName;
use crate::telemetry::logging::chain;

/// `snapshot`
pub async fn snapshot(config: &Config, arguments: &SnapshotArgs) -> Exit {
    if arguments.replace {
        return replace(config, arguments).await;
    }
    let SnapshotArgs { table, at, .. } = arguments;
    let (base, path) = (instance(config, at), format!("/v0/snapshot?table={}", encoded(table)));
    match ask::<Json>(Method::POST, &base, &path, at.token.as_ref(), super::LONG).await {
        Ok(_) => {
            print(&format!("{table} is being copied again"));
            Exit::Done
        }
        Err(error) => unanswered(&error),
    }
}

/// `snapshot --replace`: drops the table's copy where it is.
async fn replace(config: &Config, arguments: &SnapshotArgs) -> Exit {
    let SnapshotArgs { table, drop, .. } = arguments;
    let Some((schema, name)) = table.split_once('.') else {
        complain(&format!("names are schema.table: not `{table}`, but `public.{table}`"));
        return Exit::Usage;
    };
    let database = match config.source_database() {
        Ok(database) => database,
        Err(error) => {
            complain(&chain(&error));
            return Exit::Usage;
        }
    };
    let (mut options, engine) = match clickhouse(config).await {
        Ok(running) => running,
        Err(error) => {
            complain(&chain(&error));
            return Exit::Failed;
        }
    };
    if engine.is_some() {
        // A server's own limit may have its reasons; here nobody could lift it.
        options.settings.insert("max_table_size_to_drop".to_owned(), "0".to_owned());
    }
    let source = config.source_name(&database);
    let copied = TableName { schema: schema.to_owned(), name: name.to_owned() };
    let dropped = sink::discard(&options, &database, source, &copied, drop).await;
    if let Some(engine) = engine {
        engine.shutdown().await;
    }
    match dropped {
        Ok(names) => {
            let names: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
            let next = match config.kafka {
                None => "the next start copies the table".to_owned(),
                Some(_) => format!(
                    "start the sink, and have the capture copy the table: tailwater snapshot {table}"
                ),
            };
            print(&format!("dropped {} in ClickHouse; {next}", names.join(" and ")));
            Exit::Done
        }
        Err(error) => {
            complain(&chain(&error));
            Exit::Failed
        }
    }
}
