//! ClickHouse's HTTP interface, as far as the sink uses it.

use std::time::Duration;

use bytes::Bytes;
use clickhouse::Client as Http;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde::de::DeserializeOwned;

use super::error::Error;
use super::names::{literal, quoted};
use super::options::{Compression, Options};

/// A block goes out in pieces of this size, which is also what gets compressed at a time.
const PIECE: usize = 512 << 10;
/// Longest silence of the server while it takes a piece, and while it stores the block.
const SEND_TIMEOUT: Duration = Duration::from_secs(30);
const STORE_TIMEOUT: Duration = Duration::from_secs(180);
const KEEPALIVE: Duration = Duration::from_secs(60);
/// ClickHouse closes a connection that was idle for three seconds.
const LONGEST_IDLE: Duration = Duration::from_secs(2);

/// A connection pool to one database.
#[derive(Clone)]
pub(super) struct Client {
    http: Http,
    database: String,
    source: String,
}

impl Client {
    pub(super) fn new(options: &Options, source_database: &str, source: &str) -> Client {
        let url = options.url.as_deref().expect("who has no server passes the embedded engine's");
        let compression = match options.compression {
            Compression::None => clickhouse::Compression::None,
            Compression::Auto if on_loopback(url) => clickhouse::Compression::None,
            Compression::Auto | Compression::Lz4 => clickhouse::Compression::Lz4,
        };
        let mut http = connect()
            .with_url(url)
            .with_user(&options.user)
            .with_password(&options.password)
            .with_compression(compression)
            // The sink batches itself, and `Stored` must mean stored.
            .with_setting("async_insert", "0")
            // A snapshot of a partitioned table has rows of all partitions.
            .with_setting("max_partitions_per_insert_block", "0")
            .with_product_info("tailwater", env!("CARGO_PKG_VERSION"));
        if options.cluster.is_some() {
            // A replica that is away gets the statement when it is back; nobody waits for it until then.
            http = http
                .with_setting("distributed_ddl_output_mode", "null_status_on_timeout")
                .with_setting("distributed_ddl_task_timeout", "30");
        }
        for (name, value) in &options.settings {
            http = http.with_setting(name, value);
        }
        let database = options.database.clone().unwrap_or_else(|| source_database.to_owned());
        Client { http, database, source: source.to_owned() }
    }

    /// The database's name.
    pub(super) fn database(&self) -> &str {
        &self.database
    }

    /// Whose rows are written: the source database's name, or the prefix of its topics.
    pub(super) fn source(&self) -> &str {
        &self.source
    }

    /// The full name of one of the database's tables, quoted.
    pub(super) fn table(&self, name: &str) -> String {
        format!("{}.{}", quoted(&self.database), quoted(name))
    }

    /// Whether the database is there; who may not create one can then still use it.
    pub(super) async fn has_database(&self) -> Result<bool, Error> {
        #[derive(serde::Deserialize)]
        struct Found {}
        let name = literal(&self.database);
        let sql = format!("SELECT name FROM system.databases WHERE name = {name}");
        Ok(!self.rows::<Found>("look up the database", &sql).await?.is_empty())
    }

    /// Runs a statement that answers nothing.
    pub(super) async fn execute(&self, task: &str, sql: &str) -> Result<(), Error> {
        let done = self.http.query_raw(sql).execute().await;
        done.map_err(|error| Error::server(task, &error))
    }

    /// Runs a query for a few rows, read from JSON.
    pub(super) async fn rows<T: DeserializeOwned>(
        &self,
        task: &str,
        sql: &str,
    ) -> Result<Vec<T>, Error> {
        let body = fetch(self.http.query_raw(sql), "JSONEachRow").await;
        let body = body.map_err(|error| Error::server(task, &error))?;
        let rows = serde_json::Deserializer::from_slice(&body).into_iter();
        rows.collect::<Result<_, _>>()
            .map_err(|error| Error::Answer { task: task.to_owned(), detail: error.to_string() })
    }

    /// Runs a query that has row values in it, and gives its answer in RowBinary. One of more than `limit`
    /// bytes is refused, see [`Error::is_too_large`].
    pub(super) async fn look_up(
        &self,
        task: &str,
        sql: &str,
        limit: Option<usize>,
    ) -> Result<Bytes, Error> {
        let mut query = self.http.query_raw(sql);
        if let Some(limit) = limit {
            query = query.with_setting("max_result_bytes", limit.to_string());
        }
        let answer = fetch(query, "RowBinary").await;
        answer.map_err(|error| Error::server_with_rows(task, &error))
    }

    /// Sends one block, a header before it; a second one with the same token is dropped by the server. Without a token
    /// every block is kept.
    pub(super) async fn insert(
        &self,
        task: &str,
        sql: &str,
        token: Option<&str>,
        header: &Bytes,
        block: &Bytes,
    ) -> Result<(), Error> {
        let insert = self
            .http
            .insert_formatted_with(sql)
            .with_timeouts(Some(SEND_TIMEOUT), Some(STORE_TIMEOUT));
        let mut insert = match token {
            Some(token) => insert.with_setting("insert_deduplication_token", token),
            None => insert.with_setting("insert_deduplicate", "0"),
        };
        let failed = |error| Error::server_with_rows(task, &error);
        if !header.is_empty() {
            insert.send(header.clone()).await.map_err(failed)?;
        }
        for start in (0..block.len()).step_by(PIECE) {
            let piece = block.slice(start..block.len().min(start + PIECE));
            insert.send(piece).await.map_err(failed)?;
        }
        insert.end().await.map_err(failed)
    }
}

fn connect() -> Http {
    let mut connector = HttpConnector::new();
    connector.set_keepalive(Some(KEEPALIVE));
    // A head and a small block are two packets, and without this the second one waits 40 ms until the server's
    // kernel has acknowledged the first.
    connector.set_nodelay(true);
    let pool = hyper_util::client::legacy::Client::builder(TokioExecutor::new())
        .pool_idle_timeout(LONGEST_IDLE)
        .build(connector);
    Http::with_http_client(pool)
}

/// The whole answer. A server that is silent for longer than an insert may take is given up: where the
/// network forgot the connection, nothing would ever come.
async fn fetch(query: clickhouse::query::Query, format: &str) -> clickhouse::error::Result<Bytes> {
    let query = query.with_setting("max_query_size", "104857600");
    let mut cursor = query.fetch_bytes(format)?;
    let answer = tokio::time::timeout(STORE_TIMEOUT, cursor.collect()).await;
    answer.unwrap_or(Err(clickhouse::error::Error::TimedOut))
}

fn on_loopback(url: &str) -> bool {
    let host = url::Url::parse(url).ok().and_then(|url| url.host().map(|host| host.to_owned()));
    match host {
        Some(url::Host::Domain(name)) => name == "localhost",
        Some(url::Host::Ipv4(address)) => address.is_loopback(),
        Some(url::Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}
