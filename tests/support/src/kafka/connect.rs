//! Debezium's PostgreSQL connector in a Kafka Connect worker, the peer that benchmarks compare with.

use std::fs;
use std::path::Path;

use anyhow::Result;
use rustix::process::Signal;

use super::{JAVA, Kafka};
use crate::child::{self, Guarded};
use crate::{Scratch, free_port, setup};

/// What its users set first: JSON without schemas, lz4. The offset, and with it the slot, is flushed
/// often, so that the end of the work shows when it is there.
const WORKER: &str = "\
key.converter=org.apache.kafka.connect.json.JsonConverter
value.converter=org.apache.kafka.connect.json.JsonConverter
key.converter.schemas.enable=false
value.converter.schemas.enable=false
producer.compression.type=lz4
offset.flush.interval.ms=500
";

/// A running worker with one connector, killed on drop.
#[derive(Debug)]
pub struct KafkaConnect {
    worker: Guarded,
    // Last, so that the worker is down before its directory goes.
    scratch: Scratch,
}

impl KafkaConnect {
    /// Starts a worker of the broker with the connector that these properties describe.
    pub fn start(kafka: &Kafka, connector: &str) -> Result<Self> {
        let scratch = Scratch::new("connect")?;
        let plugins = scratch.join("plugins");
        fs::create_dir(&plugins)?;
        std::os::unix::fs::symlink(setup::debezium_jars()?, plugins.join("debezium"))?;
        let listener = format!("listeners=http://127.0.0.1:{}\n", free_port()?);
        let worker = format!(
            "{WORKER}{listener}bootstrap.servers={}\nplugin.path={}\n\
             offset.storage.file.filename={}\n",
            kafka.bootstrap(),
            plugins.display(),
            scratch.join("offsets").display(),
        );
        let (worker_file, connector_file) =
            (scratch.join("worker.properties"), scratch.join("connector.properties"));
        fs::write(&worker_file, worker)?;
        fs::write(&connector_file, connector)?;
        let mut command = child::command(Path::new(JAVA), "KILL", None);
        command.arg("-Xmx2g").args(kafka.class_path("warn"));
        command.arg("org.apache.kafka.connect.cli.ConnectStandalone");
        command.arg(worker_file).arg(connector_file);
        let log = fs::File::create(scratch.join("connect.log"))?;
        command.stdout(log.try_clone()?).stderr(log);
        Ok(Self { worker: Guarded::spawn(command, Signal::KILL)?, scratch })
    }

    /// The process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.worker.id()
    }

    /// The last lines of what it printed.
    #[must_use]
    pub fn log_tail(&self) -> String {
        child::log_tail(&self.scratch.join("connect.log"))
    }
}
