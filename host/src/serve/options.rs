//! `[http]`

use std::net::{Ipv4Addr, SocketAddr};

use serde::de::Error as _;
use serde::{Deserialize, Deserializer};

use super::token::Token;

/// Settings of the HTTP interface.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    /// Address and port. Default: `127.0.0.1:7447`. Others than loopback need a token.
    #[serde(deserialize_with = "read_address")]
    pub listen: SocketAddr,
    /// `[[http.token]]`. Default: none, and then everybody on this machine may do everything.
    pub token: Vec<Token>,
    /// Rows of a pipe's answer unless `limit` asks otherwise. Default: 100.
    pub default_rows: u64,
    /// The largest `limit` of a pipe. Default: 10,000.
    pub max_rows: u64,
    /// 64-bit integers in JSON as `number` or as `string` (for JavaScript, which rounds numbers
    /// above 2^53). Default: `number`.
    pub json_int64: Int64,
    /// Rows one SQL statement may answer. Default: 1,000,000.
    pub sql_max_rows: u64,
    /// Seconds one SQL statement or pipe may take. Default: 30.
    pub sql_max_seconds: u32,
    /// Memory one SQL statement or pipe may take in ClickHouse, in MiB. Default: 512.
    pub sql_max_memory_mb: u32,
}

/// How 64-bit integers are written in JSON.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Int64 {
    /// `1`
    #[default]
    Number,
    /// `"1"`
    String,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 7447)),
            token: Vec::new(),
            default_rows: 100,
            max_rows: 10_000,
            json_int64: Int64::default(),
            sql_max_rows: 1_000_000,
            sql_max_seconds: 30,
            sql_max_memory_mb: 512,
        }
    }
}

impl Options {
    /// What single keys cannot tell.
    ///
    /// # Errors
    /// A sentence with what to change.
    pub fn validate(&self) -> Result<(), String> {
        if self.token.is_empty() && !self.listen.ip().is_loopback() {
            return Err(format!(
                "{} is not a loopback address, and without a token everybody who reaches it could \
                 read everything; add a [[http.token]] (see `tailwater token new`) or listen on \
                 127.0.0.1",
                self.listen
            ));
        }
        for (index, token) in self.token.iter().enumerate() {
            if token.name.is_empty() {
                return Err("a [[http.token]] has an empty `name`; say whose it is".to_owned());
            }
            let earlier = &self.token[..index];
            if earlier.iter().any(|earlier| earlier.name == token.name) {
                return Err(format!("two [[http.token]] have the name `{}`", token.name));
            }
            if let Some(same) = earlier.iter().find(|earlier| earlier.hash == token.hash) {
                return Err(format!(
                    "the [[http.token]] `{}` and `{}` have the same hash; make a token for each",
                    same.name, token.name
                ));
            }
        }
        // ClickHouse takes 0 for no limit at all.
        let limits = [
            ("[http] sql_max_rows", self.sql_max_rows),
            ("[http] sql_max_seconds", self.sql_max_seconds.into()),
            ("[http] sql_max_memory_mb", self.sql_max_memory_mb.into()),
        ];
        if let Some((key, _)) = limits.into_iter().find(|(_, limit)| *limit == 0) {
            return Err(format!("`{key}` is a whole number, 1 or more"));
        }
        if self.default_rows > self.max_rows {
            return Err(format!(
                "`[http] default_rows` ({}) is more than `max_rows` ({})",
                self.default_rows, self.max_rows
            ));
        }
        Ok(())
    }
}

fn read_address<'de, D: Deserializer<'de>>(deserializer: D) -> Result<SocketAddr, D::Error> {
    listen_address(&String::deserialize(deserializer)?).map_err(D::Error::custom)
}

/// The address that a text names.
///
/// # Errors
/// A sentence with what is wanted: names are not looked up.
pub fn listen_address(text: &str) -> Result<SocketAddr, String> {
    match text.parse() {
        Ok(address) => Ok(address),
        Err(_) => Err(format!("`{text}` is no IP address with a port, as in 127.0.0.1:7447")),
    }
}
