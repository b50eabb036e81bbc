//! What `/v0/status` and `tailwater status` show.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use hyper::Method;

use super::clickhouse::http_ask;
use super::readiness::LegState;
use super::tables::Mirrored;
use crate::config::{Secret, redact_url};
use crate::plugin::Shadow;

/// What one process is doing. The pipeline keeps it in a `watch` channel; `tables` and `readiness`
/// are filled in when somebody asks.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Status {
    /// The program's version.
    pub version: String,
    /// `all`, `capture` or `sink`
    pub role: String,
    /// `direct` or `kafka`
    pub transport: String,
    /// Seconds since the start.
    pub uptime_seconds: u64,
    /// Each step's progress: `captured`, `sent`, `consumed`, `stored`.
    pub steps: BTreeMap<String, StepStatus>,
    /// Each leg's state, by name.
    pub readiness: BTreeMap<String, LegState>,
    /// The plugins in configured order.
    pub plugins: Vec<PluginStatus>,
    /// The mirrored tables.
    pub tables: Vec<Mirrored>,
}

/// How far a step is.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct StepStatus {
    /// The last position acknowledged, as PostgreSQL writes it: `0/16B3748`. None behind Kafka, where
    /// progress is counted in offsets.
    pub position: Option<String>,
    /// Write-ahead log that is not acknowledged yet; none where there is no position.
    pub lag_bytes: Option<u64>,
    /// Age of the newest commit that passed, when it passed, and now while younger ones are on their
    /// way; none before the first, and of the steps that only read.
    pub lag_seconds: Option<f64>,
    /// Changes since the start.
    pub changes: u64,
}

/// One plugin.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct PluginStatus {
    /// Name in the configuration.
    pub name: String,
    /// `capture` or `sink`
    pub stage: String,
    /// SHA-256 of the component that runs, in hex.
    pub digest: String,
    /// 1 for the version the process started with, one more per reload.
    pub generation: u64,
    /// When a reload failed: why, in one sentence.
    pub last_reload_error: Option<String>,
    /// What the newest version made of the last batches beside the one before, if that was compared.
    pub last_shadow: Option<Shadow>,
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "tailwater {}, role {}, transport {}, up {} s",
            self.version, self.role, self.transport, self.uptime_seconds
        )?;
        for (name, state) in &self.readiness {
            let state = if state.moving { "moving" } else { state.reason.as_str() };
            writeln!(f, "  leg {name}: {state}")?;
        }
        for (name, step) in &self.steps {
            write!(f, "  step {name}: ")?;
            if let Some(position) = &step.position {
                write!(f, "at {position}, ")?;
            }
            if let Some(bytes) = step.lag_bytes {
                write!(f, "{bytes} bytes behind, ")?;
            }
            if let Some(seconds) = step.lag_seconds {
                write!(f, "{seconds:.3} s late, ")?;
            }
            writeln!(f, "{} changes", step.changes)?;
        }
        for plugin in &self.plugins {
            let digest = plugin.digest.get(..12).unwrap_or(&plugin.digest);
            write!(f, "  plugin {} ({}): {digest}", plugin.name, plugin.stage)?;
            match &plugin.last_reload_error {
                Some(error) => writeln!(f, "; the last reload failed: {error}")?,
                None => writeln!(f)?,
            }
            if let Some(shadow) = &plugin.last_shadow {
                let digest = shadow.digest.get(..12).unwrap_or(&shadow.digest);
                writeln!(f, "    {digest}: {}", shadow.to_string().replace('\n', "\n    "))?;
            }
        }
        for table in &self.tables {
            writeln!(f, "  table {}: pipe {}", table.source, table.pipe())?;
        }
        Ok(())
    }
}

/// Why `tailwater status` has nothing to print.
#[derive(Debug, thiserror::Error)]
pub enum StatusError {
    /// Nobody answers.
    #[error("no answer from {url}; is tailwater running there? give its address by --url")]
    NoAnswer {
        /// What was asked.
        url: String,
        /// What went wrong.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// An answer, but not the status.
    #[error("{url} answered {status}: {sentence}")]
    Refused {
        /// What was asked.
        url: String,
        /// The HTTP status.
        status: u16,
        /// The answer's own words.
        sentence: String,
    },
}

/// Asks a running instance. `base` is `http://127.0.0.1:7447`.
///
/// # Errors
/// [`StatusError`].
pub async fn fetch_status(base: &str, token: Option<&Secret>) -> Result<Status, StatusError> {
    ask(Method::GET, base, "/v0/status", token, Duration::from_secs(10)).await
}

/// Asks a running instance for anything, for so long. `path` begins with a slash.
///
/// # Errors
/// [`StatusError`].
pub async fn ask<T: serde::de::DeserializeOwned>(
    method: Method,
    base: &str,
    path: &str,
    token: Option<&Secret>,
    limit: Duration,
) -> Result<T, StatusError> {
    let url = format!("{}{path}", base.trim_end_matches('/'));
    let answered = http_ask(method, &url, token, limit).await;
    let url = redact_url(&url);
    let (status, body) =
        answered.map_err(|source| StatusError::NoAnswer { url: url.clone(), source })?;
    let text = String::from_utf8_lossy(&body);
    let refused = |sentence: String| StatusError::Refused { url: url.clone(), status, sentence };
    if status != 200 {
        let answer: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
        return Err(refused(answer["error"].as_str().unwrap_or("not tailwater").to_owned()));
    }
    serde_json::from_str(&text).map_err(|_| refused("not tailwater's answer".to_owned()))
}
