//! The HTTP interface: every mirrored table as a pipe, read-only SQL, health, metrics, status.
//!
//! It reads what the legs publish ([`Readiness`], [`Status`], [`Mirrored`] tables, metrics) and asks
//! ClickHouse, streaming its answers through. It changes nothing itself: reloads, copies and dead
//! letters are asked of the pipeline ([`Reloads`], [`SnapshotRequests`], [`DeadLetters`]).

mod access;
mod answer;
mod clickhouse;
mod connections;
mod dlq;
mod filter;
#[cfg(fuzzing)]
pub mod fuzzing;
mod guard;
mod options;
mod parameters;
mod pipe;
mod readiness;
mod routes;
mod snapshot;
mod sql;
mod status;
mod tables;
mod tail;
mod token;

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use tokio::net::TcpListener;
use tokio::sync::watch;

pub use clickhouse::{ClickHouseError, Endpoint, clickhouse_version};
pub use options::{Int64, Options, listen_address};
pub use readiness::{Leg, LegState, Readiness};
pub use status::{PluginStatus, Status, StatusError, StepStatus, ask, fetch_status};
pub use tables::{Mirrored, MirroredColumn};
pub use token::{Scope, Token, Tokens, hash_token, new_token};

pub(crate) use connections::{told_to, until_told};

use connections::Limits;

use crate::disposition::Disposition;
use crate::plugin::Reloads;
use crate::redrive::DeadLetters;
use crate::snapshot_requests::SnapshotRequests;
use crate::telemetry::metrics::Metrics;

/// How long open answers may go on after the shutdown began.
const DRAIN: Duration = Duration::from_secs(5);

/// What the interface reads, and whom it asks. What it reads is sent by the pipeline.
#[derive(Debug, Clone)]
pub struct Context {
    /// Where ClickHouse is; `None` until it is known.
    pub clickhouse: watch::Receiver<Option<Endpoint>>,
    /// The tables that may be asked for.
    pub tables: watch::Receiver<Vec<Mirrored>>,
    /// What `/v0/status` shows.
    pub status: watch::Receiver<Status>,
    /// What `/readyz` shows.
    pub readiness: Readiness,
    /// What `/metrics` shows.
    pub metrics: Arc<Metrics>,
    /// What `/v0/plugins/<name>/reload` asks.
    pub plugins: Reloads,
    /// What `/v0/dlq` shows and drives through again.
    pub dead_letters: DeadLetters,
    /// What `/v0/snapshot` asks.
    pub snapshot_requests: SnapshotRequests,
}

/// Why the interface does not serve.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The address cannot be listened on.
    #[error("cannot listen on {listen}; set another address by --listen or `[http] listen`")]
    Bind {
        /// The address.
        listen: SocketAddr,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The settings contradict each other.
    #[error("{0}")]
    Settings(String),
}

impl ServeError {
    /// What to do about it.
    #[must_use]
    pub fn disposition(&self) -> Disposition {
        match self {
            ServeError::Bind { .. } | ServeError::Settings(_) => Disposition::Halt,
        }
    }
}

/// A bound listener, ready to serve.
#[derive(Debug)]
pub struct Server {
    listener: TcpListener,
    router: Router,
    tokens: Tokens,
}

impl Server {
    /// Binds the address of `options`. Connections wait until [`Server::run`].
    ///
    /// # Errors
    /// [`ServeError::Settings`], [`ServeError::Bind`].
    pub async fn bind(options: Options, context: Context) -> Result<Server, ServeError> {
        options.validate().map_err(ServeError::Settings)?;
        let listen = options.listen;
        let listener = TcpListener::bind(listen)
            .await
            .map_err(|source| ServeError::Bind { listen, source })?;
        let tokens = Tokens::new(&options.token);
        let router = routes::router(options, tokens.clone(), context);
        Ok(Server { listener, router, tokens })
    }

    /// The tokens in force, to be replaced when the settings are read again.
    #[must_use]
    pub fn tokens(&self) -> Tokens {
        self.tokens.clone()
    }

    /// The address really listened on, with the port the system chose for port 0.
    ///
    /// # Errors
    /// What the system says.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves until `shutdown` resolves, then lets open answers end, at most five seconds.
    pub async fn run(self, shutdown: impl Future<Output = ()> + Send + 'static) {
        let stopping = watch::Sender::new(false);
        let serving =
            connections::serve(self.listener, self.router, Limits::default(), stopping.subscribe());
        let told = async {
            shutdown.await;
            stopping.send_replace(true);
            tokio::time::sleep(DRAIN).await;
        };
        tokio::select! {
            () = serving => {}
            () = told => {}
        }
    }
}
