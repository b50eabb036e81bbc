//! What the demo runs: the database with its workload, the broker, Tailwater.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result};
use tailwater_test_support::workload::Runner;
use tailwater_test_support::{
    Database, Kafka, Postgres, PostgresOptions, PostgresVersion, Tailwater, cache, guests,
};

use super::Options;
use crate::steps::step;

/// The plugin that is replaced while events flow.
pub(super) const SWAPPED: &str = "mask-email";
const DEDUP: &str = "drop-duplicates";
const DATABASE: &str = "shop";
const SEED: u64 = 2026;
pub(super) const READY_DEADLINE: Duration = Duration::from_secs(120);

/// The plugins, built.
pub(super) struct Plugins {
    first: PathBuf,
    dedup: PathBuf,
    /// The other version of the first.
    pub(super) second: PathBuf,
}

impl Plugins {
    pub(super) fn build() -> Result<Self> {
        Ok(Self {
            first: guests::plugin(SWAPPED)?,
            dedup: guests::plugin(DEDUP)?,
            second: guests::plugin_with_feature(SWAPPED, "dots")?,
        })
    }
}

/// The services that the demo starts, and the workload on them. Dropped in this order.
pub(super) struct Stack {
    pub(super) workload: Runner,
    pub(super) kafka: Option<Kafka>,
    pub(super) postgres: Postgres,
}

impl Stack {
    pub(super) fn start(options: &Options) -> Result<Self> {
        let kafka = match options.direct {
            true => None,
            false => Some(step("starting Apache Kafka", Kafka::start)?),
        };
        let postgres = step("starting PostgreSQL 15", || {
            let postgres = Postgres::start(PostgresVersion::V15, PostgresOptions::default())?;
            postgres.execute("postgres", &format!("CREATE DATABASE {DATABASE}"))?;
            Ok(postgres)
        })?;
        let workload = Runner::start(&postgres.url(DATABASE), SEED, options.rate)?;
        Ok(Self { workload, kafka, postgres })
    }

    pub(super) fn database(&self) -> Database<'_> {
        self.postgres.database(DATABASE)
    }

    /// A configured Tailwater with plugins of its own, so that nothing built is overwritten.
    pub(super) fn tailwater(&self, binary: PathBuf, plugins: &Plugins) -> Result<Tailwater> {
        let tailwater = Tailwater::of_binary(binary, ["run", "--config", "tailwater.toml"])?;
        let cache = cache::directory()?.display().to_string();
        let tailwater = tailwater.variable("TAILWATER_CACHE", &cache);
        tailwater.set_config(&self.config())?;
        fs::create_dir(tailwater.directory().join("plugins"))?;
        for (name, built) in [(SWAPPED, &plugins.first), (DEDUP, &plugins.dedup)] {
            fs::copy(built, plugin_file(&tailwater, name))
                .with_context(|| format!("copy {}", built.display()))?;
        }
        Ok(tailwater)
    }

    fn config(&self) -> String {
        let (kafka, dedup_stage) = match &self.kafka {
            Some(kafka) => (format!("[kafka]\nbrokers = \"{}\"\n\n", kafka.bootstrap()), "sink"),
            None => (String::new(), "capture"),
        };
        format!(
            "[source]\nurl = \"{}\"\n\n{kafka}[http]\nlisten = \"{{listen}}\"\n\n\
             [[plugin]]\nname = \"{SWAPPED}\"\npath = \"plugins/{SWAPPED}.wasm\"\n\
             stage = \"capture\"\nconfig = {{ columns = [\"email\"] }}\n\n\
             [[plugin]]\nname = \"{DEDUP}\"\npath = \"plugins/{DEDUP}.wasm\"\n\
             stage = \"{dedup_stage}\"\nconfig = {{ by = \"position\" }}\n",
            self.postgres.url(DATABASE),
        )
    }
}

/// Where the running Tailwater watches a plugin.
pub(super) fn plugin_file(tailwater: &Tailwater, name: &str) -> PathBuf {
    Path::new(tailwater.directory()).join("plugins").join(name).with_extension("wasm")
}
