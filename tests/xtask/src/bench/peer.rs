//! Debezium's PostgreSQL connector on Kafka Connect, as its users run it.

use anyhow::{Context as _, Result};
use tailwater_test_support::{Kafka, KafkaConnect, setup};

use super::source::{PUBLICATION, Source};

/// The case's name.
pub(super) const NAME: &str = "debezium";

/// The class that tells where topics end.
const OFFSETS: &str = "org.apache.kafka.tools.GetOffsetShell";

pub(super) fn fetch() -> Result<()> {
    setup::debezium_jars().map(drop)
}

/// The worker with the connector in it.
pub(super) struct Connect(KafkaConnect);

impl Connect {
    pub(super) fn start(
        kafka: &Kafka,
        source: &Source<'_>,
        slot: &str,
        prefix: &str,
    ) -> Result<Self> {
        let postgres = source.database.postgres();
        let (user, password) = postgres.tcp_login();
        let connector = format!(
            "name=bench\nconnector.class=io.debezium.connector.postgresql.PostgresConnector\n\
             tasks.max=1\nplugin.name=pgoutput\ndatabase.hostname=127.0.0.1\n\
             database.port={}\ndatabase.user={user}\ndatabase.password={password}\n\
             database.dbname={}\ntopic.prefix={prefix}\nslot.name={slot}\n\
             publication.name={PUBLICATION}\npublication.autocreate.mode=disabled\n\
             snapshot.mode=no_data\nmax.batch.size=8192\nmax.queue.size=65536\n\
             topic.creation.default.replication.factor=1\ntopic.creation.default.partitions=6\n",
            postgres.port(),
            source.database.name(),
        );
        KafkaConnect::start(kafka, &connector).map(Self)
    }

    pub(super) fn id(&self) -> u32 {
        self.0.id()
    }

    pub(super) fn log_tail(&self) -> String {
        self.0.log_tail()
    }
}

/// How many records the tables' topics hold.
pub(super) fn records(kafka: &Kafka, prefix: &str) -> Result<u64> {
    let topics = format!("{prefix}\\.public\\..*");
    let brokers = kafka.bootstrap();
    let text = kafka.tool(OFFSETS, ["--bootstrap-server", &brokers, "--topic", &topics])?;
    let end = |line: &str| -> Result<u64> {
        let (_, end) = line.rsplit_once(':').context("a line of topic:partition:offset")?;
        Ok(end.trim().parse()?)
    };
    text.lines().map(end).sum()
}
