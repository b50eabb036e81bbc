//! ClickHouse's HTTP interface, as far as the sink uses it.

use std::time::Duration;

use bytes::Bytes;
use clickhouse::Client as Http;
use clickhouse::query::Query;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde::de::DeserializeOwned;
use tokio::time::timeout;

use super::error::Error;
use super::names::{literal, quoted};
use super::options::{Compression, Options};

/// A block goes out in pieces of this size, which is also what gets compressed at a time.
const PIECE: usize = 512 << 10;
/// Longest silence of the server while it takes a piece.
const SEND_TIMEOUT: Duration = Duration::from_secs(30);
/// A statement without an answer may take so many times as long as an insert or a query: nothing comes of it before
/// it is done, and an `ALTER` that rewrites a column of a large table takes its time. What a server has begun goes on
/// without its client, and the next attempt finds it done.
const WITHOUT_ANSWER: u32 = 4;
/// A connection over which nothing comes is probed, and given up when probes and bytes find no answer for so long:
/// within a minute, whatever is being waited for. A proxy that hangs answers probes; that is what timeouts are for.
const KEEPALIVE: Duration = Duration::from_secs(30);
const PROBE_INTERVAL: Duration = Duration::from_secs(10);
const PROBES: u32 = 3;
const UNANSWERED: Duration = Duration::from_secs(60);
/// ClickHouse closes a connection that was idle for three seconds.
const LONGEST_IDLE: Duration = Duration::from_secs(2);

/// How a block goes into a table.
#[derive(Debug, Clone, Copy)]
pub(super) struct Insert<'a> {
    /// What an error calls it.
    pub(super) task: &'a str,
    /// `INSERT INTO …`
    pub(super) sql: &'a str,
    /// A second block with the same token is dropped by the server. Without one every block is kept.
    pub(super) token: Option<&'a str>,
    /// Whether versions of one row are left to the next merge, which takes the server half the time. A query that
    /// tells them apart takes longer until then.
    pub(super) as_it_is: bool,
}

/// A connection pool to one database.
#[derive(Clone)]
pub(super) struct Client {
    http: Http,
    database: String,
    source: String,
    /// How long the server may be silent while it stores a block, or before it answers a query.
    silence: Duration,
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
        let silence = Duration::from_secs(options.silence_timeout_s);
        Client { http, database, source: source.to_owned(), silence }
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
        let limit = self.silence.saturating_mul(WITHOUT_ANSWER);
        let done = within(limit, self.http.query_raw(sql).execute()).await;
        done.map_err(|error| Error::server(task, &error))
    }

    /// Runs a query for a few rows, read from JSON.
    pub(super) async fn rows<T: DeserializeOwned>(
        &self,
        task: &str,
        sql: &str,
    ) -> Result<Vec<T>, Error> {
        let body = self.fetch(self.http.query_raw(sql), "JSONEachRow").await;
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
        let answer = self.fetch(query, "RowBinary").await;
        answer.map_err(|error| Error::server_with_rows(task, &error))
    }

    /// Sends one block, a header before it.
    pub(super) async fn insert(
        &self,
        insert: &Insert<'_>,
        header: &Bytes,
        block: &Bytes,
    ) -> Result<(), Error> {
        let Insert { task, sql, token, as_it_is } = *insert;
        let insert = self
            .http
            .insert_formatted_with(sql)
            .with_timeouts(Some(SEND_TIMEOUT), Some(self.silence));
        let mut insert = match token {
            Some(token) => insert.with_setting("insert_deduplication_token", token),
            None => insert.with_setting("insert_deduplicate", "0"),
        };
        if as_it_is {
            insert = insert.with_setting("optimize_on_insert", "0");
        }
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

    /// The whole answer.
    async fn fetch(&self, query: Query, format: &str) -> clickhouse::error::Result<Bytes> {
        let query = query.with_setting("max_query_size", "104857600");
        let mut cursor = query.fetch_bytes(format)?;
        within(self.silence, cursor.collect()).await
    }
}

/// A server that is silent for longer is given up: where the network forgot the connection, nothing would
/// ever come.
async fn within<T>(
    limit: Duration,
    answer: impl Future<Output = clickhouse::error::Result<T>>,
) -> clickhouse::error::Result<T> {
    timeout(limit, answer).await.unwrap_or(Err(clickhouse::error::Error::TimedOut))
}

fn connect() -> Http {
    let mut connector = HttpConnector::new();
    connector.set_keepalive(Some(KEEPALIVE));
    connector.set_keepalive_interval(Some(PROBE_INTERVAL));
    connector.set_keepalive_retries(Some(PROBES));
    #[cfg(target_os = "linux")]
    connector.set_tcp_user_timeout(Some(UNANSWERED));
    // A head and a small block are two packets, and without this the second one waits 40 ms until the server's
    // kernel has acknowledged the first.
    connector.set_nodelay(true);
    let pool = hyper_util::client::legacy::Client::builder(TokioExecutor::new())
        .pool_idle_timeout(LONGEST_IDLE)
        .build(connector);
    Http::with_http_client(pool)
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

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::time::Instant;

    use super::*;
    use crate::disposition::Disposition;

    /// The kernel takes the connections of a server that hangs, and nobody answers.
    #[tokio::test]
    async fn a_server_that_falls_silent_is_given_up_and_an_alter_has_longer_than_a_query() {
        const SILENCE: Duration = Duration::from_secs(1);
        let silent = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = Some(format!("http://{}", silent.local_addr().unwrap()));
        let options = Options { url, silence_timeout_s: SILENCE.as_secs(), ..Options::default() };
        let client = Client::new(&options, "shop", "shop");
        let begun = Instant::now();
        let found = client.rows::<String>("look up columns", "SELECT 1").await;
        assert_eq!(found.unwrap_err().disposition(), Disposition::Retry);
        assert!(begun.elapsed() >= SILENCE, "{:?}", begun.elapsed());
        let begun = Instant::now();
        let altered = client.execute("alter `users`", "ALTER TABLE users ADD COLUMN n Int8").await;
        assert_eq!(altered.unwrap_err().disposition(), Disposition::Retry);
        assert!(begun.elapsed() >= SILENCE * WITHOUT_ANSWER, "{:?}", begun.elapsed());
    }
}
