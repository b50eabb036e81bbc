//! ClickHouse: the project's own `tailwater __clickhouse`, the engine behind its HTTP interface.

use std::fs::File;
use std::path::PathBuf;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use rustix::process::Signal;

use crate::child::{self, Guarded};
use crate::tailwater::binary;
use crate::{Scratch, free_port, http_get, http_request};

const START_DEADLINE: Duration = Duration::from_secs(60);
const STOP_DEADLINE: Duration = Duration::from_secs(40);
const USER: &str = "default";
const PASSWORD: &str = "of-the-tests";

/// A running server with its own data directory, stopped and removed on drop.
#[derive(Debug)]
pub struct ClickHouse {
    server: Mutex<Option<Guarded>>,
    binary: PathBuf,
    port: u16,
    // Last, so that the server is down before its directory goes.
    scratch: Scratch,
}

impl ClickHouse {
    /// The server of this process, started at first use. Whoever stops a server starts one of their
    /// own; whoever makes tables makes a database of their own.
    pub fn shared() -> &'static Self {
        static SHARED: OnceLock<ClickHouse> = OnceLock::new();
        SHARED.get_or_init(|| {
            Self::start().unwrap_or_else(|error| panic!("ClickHouse must start: {error:#}"))
        })
    }

    /// Makes a new server and starts it.
    pub fn start() -> Result<Self> {
        Self::of_binary(binary()?)
    }

    /// The same with the given `tailwater` binary.
    pub fn of_binary(binary: PathBuf) -> Result<Self> {
        let scratch = Scratch::new("clickhouse")?;
        let clickhouse = Self { server: Mutex::new(None), binary, port: free_port()?, scratch };
        clickhouse.restart()?;
        Ok(clickhouse)
    }

    /// `http://127.0.0.1:port`, the same after a restart.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// The user to log in as.
    #[must_use]
    pub fn user(&self) -> &str {
        USER
    }

    /// The user's password.
    #[must_use]
    pub fn password(&self) -> &str {
        PASSWORD
    }

    /// The process id, when it runs.
    #[must_use]
    pub fn process_id(&self) -> Option<u32> {
        self.server.lock().unwrap_or_else(PoisonError::into_inner).as_ref().map(Guarded::id)
    }

    /// The file that the server logs to.
    #[must_use]
    pub fn log_file(&self) -> PathBuf {
        self.scratch.join("clickhouse.log")
    }

    /// Runs one statement and gives its answer, by default tab separated; not for rows of an insert
    /// that are no text.
    pub fn query(&self, sql: &str) -> Result<String> {
        let headers = [("X-ClickHouse-User", USER), ("X-ClickHouse-Key", PASSWORD)];
        let url = format!("{}/", self.url());
        let answer = http_request("POST", &url, &headers, sql.as_bytes())?;
        ensure!(answer.status == 200, "{}", answer.text().trim_end());
        Ok(answer.text())
    }

    /// Shuts down in order.
    pub fn stop(&self) -> Result<()> {
        self.end(Signal::TERM)
    }

    /// Kills the server, as a crash does.
    pub fn crash(&self) -> Result<()> {
        self.end(Signal::KILL)
    }

    fn end(&self, signal: Signal) -> Result<()> {
        let server = self.server.lock().unwrap_or_else(PoisonError::into_inner).take();
        server.map_or(Ok(()), |mut server| server.stop(signal, STOP_DEADLINE).map(drop))
    }

    /// Starts the server again, after an orderly stop if it runs; data and port stay.
    pub fn restart(&self) -> Result<()> {
        self.stop()?;
        let mut command = child::command(&self.binary, "KILL", None);
        command.arg("__clickhouse").arg("--path").arg(self.scratch.join("data"));
        command.args(["--port", &self.port.to_string()]);
        command.env("TAILWATER_CLICKHOUSE_PASSWORD", PASSWORD).env("TZ", "UTC");
        let log = File::options().create(true).append(true).open(self.log_file())?;
        command.stdin(std::process::Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let mut server = Guarded::spawn(command, Signal::KILL)?;
        let ping = format!("{}/ping", self.url());
        server.wait_serving(START_DEADLINE, "ClickHouse to answer", &self.log_file(), || {
            let answer = http_get(&ping).context("ping")?;
            ensure!(answer.status == 200, "{} {}", answer.status, answer.text());
            Ok(())
        })?;
        *self.server.lock().unwrap_or_else(PoisonError::into_inner) = Some(server);
        Ok(())
    }
}
