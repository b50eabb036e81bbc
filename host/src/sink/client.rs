//! ClickHouse's HTTP interface, as far as the sink uses it.

use std::time::Duration;

use bytes::Bytes;
use clickhouse::Client as Http;
use serde::de::DeserializeOwned;

use super::error::Error;
use super::names::quoted;
use super::options::{Compression, Options};

/// A block goes out in pieces of this size, which is also what gets compressed at a time.
const PIECE: usize = 512 << 10;
/// Longest silence of the server while it takes a piece, and while it stores the block.
const SEND_TIMEOUT: Duration = Duration::from_secs(30);
const STORE_TIMEOUT: Duration = Duration::from_secs(180);

/// A connection pool to one database.
#[derive(Clone)]
pub(super) struct Client {
    http: Http,
    database: String,
}

impl Client {
    pub(super) fn new(options: &Options, source_database: &str) -> Result<Client, Error> {
        let url = options.url.as_deref().ok_or(Error::NoUrl)?;
        let compression = match options.compression {
            Compression::None => clickhouse::Compression::None,
            Compression::Auto if on_loopback(url) => clickhouse::Compression::None,
            Compression::Auto | Compression::Lz4 => clickhouse::Compression::Lz4,
        };
        let mut http = Http::default()
            .with_url(url)
            .with_user(&options.user)
            .with_password(&options.password)
            .with_compression(compression)
            // The sink batches itself, and `Stored` must mean stored.
            .with_setting("async_insert", "0")
            .with_product_info("tailwater", env!("CARGO_PKG_VERSION"));
        for (name, value) in &options.settings {
            http = http.with_setting(name, value);
        }
        let database = options.database.clone().unwrap_or_else(|| source_database.to_owned());
        Ok(Client { http, database })
    }

    /// The database's name.
    pub(super) fn database(&self) -> &str {
        &self.database
    }

    /// The full name of one of the database's tables, quoted.
    pub(super) fn table(&self, name: &str) -> String {
        format!("{}.{}", quoted(&self.database), quoted(name))
    }

    /// Runs a statement that answers nothing.
    pub(super) async fn execute(&self, task: &str, sql: &str) -> Result<(), Error> {
        let done = self.http.query_raw(sql).execute().await;
        done.map_err(|error| Error::server(task, error))
    }

    /// Runs a query for a few rows, read from JSON.
    pub(super) async fn rows<T: DeserializeOwned>(
        &self,
        task: &str,
        sql: &str,
    ) -> Result<Vec<T>, Error> {
        let body = self.fetch(task, sql, "JSONEachRow").await?;
        let rows = serde_json::Deserializer::from_slice(&body).into_iter();
        rows.collect::<Result<_, _>>()
            .map_err(|error| Error::Answer { task: task.to_owned(), detail: error.to_string() })
    }

    /// Runs a query and gives its answer's bytes.
    pub(super) async fn fetch(&self, task: &str, sql: &str, format: &str) -> Result<Bytes, Error> {
        let server = |error| Error::server(task, error);
        let query = self.http.query_raw(sql).with_setting("max_query_size", "104857600");
        let mut cursor = query.fetch_bytes(format).map_err(server)?;
        cursor.collect().await.map_err(server)
    }

    /// Sends one block; a second one with the same token is dropped by the server.
    pub(super) async fn insert(
        &self,
        task: &str,
        sql: &str,
        token: &str,
        block: &Bytes,
    ) -> Result<(), Error> {
        let server = |error| Error::server(task, error);
        let mut insert = self
            .http
            .insert_formatted_with(sql)
            .with_timeouts(Some(SEND_TIMEOUT), Some(STORE_TIMEOUT))
            .with_setting("insert_deduplication_token", token);
        for start in (0..block.len()).step_by(PIECE) {
            let piece = block.slice(start..block.len().min(start + PIECE));
            insert.send(piece).await.map_err(server)?;
        }
        insert.end().await.map_err(server)
    }
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
