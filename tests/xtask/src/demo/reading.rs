//! One look at everything that runs: what the workload did, what Tailwater says of itself.

use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use tailwater_test_support::Tailwater;
use tailwater_test_support::workload::Counts;

use crate::exposition::{Exposition, Histogram};

/// A plugin as it runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PluginVersion {
    pub(super) name: String,
    pub(super) stage: String,
    /// SHA-256 of the component, in hex.
    pub(super) digest: String,
    /// 1 for the version the process started with.
    pub(super) generation: u64,
}

impl PluginVersion {
    /// Enough of the digest to tell versions apart.
    pub(super) fn short(&self) -> &str {
        self.digest.get(..12).unwrap_or(&self.digest)
    }
}

#[derive(Debug, Clone)]
pub(super) struct Reading {
    pub(super) at: Instant,
    pub(super) source: Counts,
    pub(super) plugins: Vec<PluginVersion>,
    exposition: Exposition,
}

impl Reading {
    pub(super) fn take(tailwater: &Tailwater, source: Counts) -> Result<Self> {
        let at = Instant::now();
        let text = get(tailwater, "/metrics")?;
        let exposition = Exposition::parse(&text);
        Ok(Self { at, source, plugins: plugins(tailwater)?, exposition })
    }

    /// Changes that passed a step since Tailwater started.
    pub(super) fn passed(&self, step: &str) -> f64 {
        self.exposition.sum("tailwater_changes_total", &[("step", step)])
    }

    /// Write-ahead log between the server's end and what passed the step.
    pub(super) fn lag_bytes(&self, step: &str) -> Option<f64> {
        self.exposition.value("tailwater_lag_bytes", &[("step", step)])
    }

    /// Age of the newest commit that passed the step, when it passed, in seconds.
    pub(super) fn lag_seconds(&self, step: &str) -> Option<f64> {
        self.exposition.value("tailwater_lag_seconds", &[("step", step)])
    }

    pub(super) fn visible(&self) -> Histogram {
        self.exposition.histogram("tailwater_commit_to_visible_seconds")
    }

    /// A figure of one plugin.
    pub(super) fn of_plugin(&self, figure: &str, plugin: &str) -> f64 {
        self.exposition.sum(&format!("tailwater_plugin_{figure}"), &[("plugin", plugin)])
    }

    pub(super) fn dead_letters(&self) -> f64 {
        self.exposition.sum("tailwater_dead_letters_total", &[])
    }
}

/// The plugins' versions, in configured order.
pub(super) fn plugins(tailwater: &Tailwater) -> Result<Vec<PluginVersion>> {
    let status: Value = serde_json::from_str(&get(tailwater, "/v0/status")?)?;
    let list = status["plugins"].as_array().context("find `plugins` in /v0/status")?;
    list.iter().map(version).collect()
}

fn version(plugin: &Value) -> Result<PluginVersion> {
    let text = |name: &str| -> Result<String> {
        let found = plugin[name].as_str();
        Ok(found.with_context(|| format!("find a plugin's `{name}`"))?.to_owned())
    };
    let generation = plugin["generation"].as_u64().context("find a plugin's `generation`")?;
    Ok(PluginVersion {
        name: text("name")?,
        stage: text("stage")?,
        digest: text("digest")?,
        generation,
    })
}

fn get(tailwater: &Tailwater, path: &str) -> Result<String> {
    let answer = tailwater.get(path)?;
    ensure!(answer.status == 200, "{path} answered {} {}", answer.status, answer.text());
    Ok(answer.text())
}
