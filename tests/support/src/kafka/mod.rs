//! Apache Kafka, one KRaft node.

mod batches;
mod connect;
mod properties;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

use anyhow::Result;
use rustix::process::Signal;

pub use self::connect::KafkaConnect;
use self::properties::Ports;
use crate::child::{self, Guarded};
use crate::download::run;
use crate::port::accepts_connections;
use crate::{Certificates, Proxy, Scratch, setup};

/// The user that the SASL listeners know, by PLAIN and by SCRAM-SHA-256.
pub const SASL_USER: &str = "bob";
/// The password of [`SASL_USER`].
pub const SASL_PASSWORD: &str = "bobs-secret";

/// Debian's Java 17; another one in the path may be too old.
const JAVA: &str = "/usr/lib/jvm/java-17-openjdk-amd64/bin/java";

const START_DEADLINE: Duration = Duration::from_secs(90);
const STOP_DEADLINE: Duration = Duration::from_secs(30);

/// How Java runs the broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Warmth {
    /// Quick to start and small, half as fast later: for tests.
    Quick,
    /// As in production: for measuring.
    Full,
}

/// A running broker, stopped and removed on drop. Topics are not created by use.
#[derive(Debug)]
pub struct Kafka {
    warmth: Warmth,
    broker: Mutex<Option<Guarded>>,
    jars: PathBuf,
    ports: Ports,
    certificates: Certificates,
    // Last, so that the broker is down before its directory goes.
    scratch: Scratch,
}

impl Kafka {
    /// The broker of this process, started at first use. Whoever stops a broker starts one of their
    /// own.
    pub fn shared() -> &'static Self {
        static SHARED: OnceLock<Kafka> = OnceLock::new();
        SHARED.get_or_init(|| {
            Self::start().unwrap_or_else(|error| panic!("Kafka must start: {error:#}"))
        })
    }

    /// Makes a new broker and starts it.
    pub fn start() -> Result<Self> {
        Self::start_as(Warmth::Quick)
    }

    /// The same, compiled as told.
    pub fn start_as(warmth: Warmth) -> Result<Self> {
        Self::start_on(warmth, Ports::free()?)
    }

    /// Makes a new broker whose clients with SASL come to it by a proxy. It comes to itself by the plain listener.
    pub fn start_behind_proxy() -> Result<(Self, Proxy)> {
        let mut ports = Ports::free()?;
        let proxy = Proxy::start(ports.sasl)?;
        ports.sasl_advertised = proxy.port();
        Ok((Self::start_on(Warmth::Quick, ports)?, proxy))
    }

    fn start_on(warmth: Warmth, ports: Ports) -> Result<Self> {
        let scratch = Scratch::new("kafka")?;
        let certificates = Certificates::generate(scratch.path())?;
        let jars = setup::kafka_jars()?;
        let broker = Mutex::new(None);
        let kafka = Self { warmth, broker, jars, ports, certificates, scratch };
        kafka.format()?;
        kafka.restart()?;
        Ok(kafka)
    }

    /// `host:port` of the listener without TLS or login.
    #[must_use]
    pub fn bootstrap(&self) -> String {
        properties::address(self.ports.plain)
    }

    /// `host:port` of the listener that wants SASL PLAIN or SCRAM-SHA-256, without TLS.
    #[must_use]
    pub fn sasl_bootstrap(&self) -> String {
        properties::address(self.ports.sasl_advertised)
    }

    /// `host:port` of the TLS listener without login.
    #[must_use]
    pub fn tls_bootstrap(&self) -> String {
        properties::address(self.ports.tls)
    }

    /// `host:port` of the listener that wants SASL over TLS, as hosted Kafkas do.
    #[must_use]
    pub fn sasl_tls_bootstrap(&self) -> String {
        properties::address(self.ports.sasl_tls)
    }

    /// The certificate authority to trust for the TLS listeners, PEM.
    #[must_use]
    pub fn ca_file(&self) -> &Path {
        &self.certificates.ca
    }

    /// The certificates in use.
    #[must_use]
    pub fn certificates(&self) -> &Certificates {
        &self.certificates
    }

    /// The process id of the broker, when it runs.
    #[must_use]
    pub fn process_id(&self) -> Option<u32> {
        self.broker.lock().unwrap_or_else(PoisonError::into_inner).as_ref().map(Guarded::id)
    }

    /// The file that the broker logs to.
    #[must_use]
    pub fn log_file(&self) -> PathBuf {
        self.scratch.join("broker.log")
    }

    /// Runs one of Kafka's own command-line classes and returns what it printed, for example
    /// `org.apache.kafka.tools.TopicCommand` with `--list`.
    pub fn tool<'a>(
        &self,
        class: &str,
        arguments: impl IntoIterator<Item = &'a str>,
    ) -> Result<String> {
        let mut java = Command::new(JAVA);
        java.args(["-Xmx256m", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC"]);
        run(java.args(self.class_path("error")).arg(class).args(arguments))
    }

    /// Makes a topic, with settings as `name=value`.
    pub fn create_topic(&self, name: &str, partitions: u32, settings: &[&str]) -> Result<()> {
        let partitions = partitions.to_string();
        let mut arguments = vec!["--create", "--topic", name, "--partitions", &partitions];
        arguments.extend(settings.iter().flat_map(|setting| ["--config", setting]));
        self.topics(&arguments)
    }

    /// Deletes a topic.
    pub fn delete_topic(&self, name: &str) -> Result<()> {
        self.topics(&["--delete", "--topic", name])
    }

    /// Deletes all records of a topic's first partition, as the retention does.
    pub fn delete_records(&self, topic: &str) -> Result<()> {
        let all = format!(
            "{{\"partitions\":[{{\"topic\":\"{topic}\",\"partition\":0,\"offset\":-1}}],\"version\":1}}"
        );
        let file = self.scratch.join(&format!("{topic}.json"));
        fs::write(&file, all)?;
        let (bootstrap, file) = (self.bootstrap(), file.display().to_string());
        let arguments = ["--bootstrap-server", &bootstrap, "--offset-json-file", &file];
        self.tool("org.apache.kafka.tools.DeleteRecordsCommand", arguments).map(drop)
    }

    /// How many records of a topic that nobody writes to any more are in batches of which codec, as the broker's
    /// files tell.
    pub fn records_by_codec(&self, topic: &str) -> Result<BTreeMap<&'static str, u32>> {
        batches::records_by_codec(&self.scratch.join("logs"), topic)
    }

    fn topics(&self, arguments: &[&str]) -> Result<()> {
        let bootstrap = self.bootstrap();
        let arguments =
            ["--bootstrap-server", &bootstrap].into_iter().chain(arguments.iter().copied());
        self.tool("org.apache.kafka.tools.TopicCommand", arguments).map(drop)
    }

    /// Shuts down in order.
    pub fn stop(&self) -> Result<()> {
        self.end(Signal::TERM)
    }

    /// Kills the broker, as a crash does.
    pub fn crash(&self) -> Result<()> {
        self.end(Signal::KILL)
    }

    fn end(&self, signal: Signal) -> Result<()> {
        let broker = self.broker.lock().unwrap_or_else(PoisonError::into_inner).take();
        broker.map_or(Ok(()), |mut broker| broker.stop(signal, STOP_DEADLINE).map(drop))
    }

    /// Starts the broker again, after an orderly stop if it runs; data and ports stay.
    pub fn restart(&self) -> Result<()> {
        self.stop()?;
        let mut command = child::command(Path::new(JAVA), "KILL", None);
        command.args(match self.warmth {
            Warmth::Quick => &["-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"][..],
            // As Kafka's own start script.
            Warmth::Full => &[
                "-Xms1g",
                "-Xmx1g",
                "-XX:+UseG1GC",
                "-XX:MaxGCPauseMillis=20",
                "-XX:InitiatingHeapOccupancyPercent=35",
                "-XX:+ExplicitGCInvokesConcurrent",
            ],
        });
        command.args(self.class_path("warn")).arg("kafka.Kafka").arg(self.properties_file());
        let log = fs::File::options().create(true).append(true).open(self.log_file())?;
        command.stdout(log.try_clone()?).stderr(log);
        let mut broker = Guarded::spawn(command, Signal::KILL)?;
        let what = "Kafka to open its listeners";
        broker.wait_serving(START_DEADLINE, what, &self.log_file(), || {
            self.ports.clients().into_iter().try_for_each(accepts_connections)
        })?;
        *self.broker.lock().unwrap_or_else(PoisonError::into_inner) = Some(broker);
        Ok(())
    }

    fn format(&self) -> Result<()> {
        let text = properties::server(&self.ports, &self.scratch, &self.certificates)?;
        fs::write(self.properties_file(), text)?;
        let class = "kafka.tools.StorageTool";
        let cluster = self.tool(class, ["random-uuid"])?;
        let properties = self.properties_file();
        let scram = format!("SCRAM-SHA-256=[name={SASL_USER},password={SASL_PASSWORD}]");
        let format = ["format", "--standalone", "--cluster-id", cluster.trim(), "--config"];
        let file = properties.display().to_string();
        self.tool(class, format.into_iter().chain([file.as_str(), "--add-scram", &scram]))?;
        Ok(())
    }

    fn class_path(&self, log_level: &str) -> [String; 3] {
        [
            format!("-Dorg.slf4j.simpleLogger.defaultLogLevel={log_level}"),
            "-cp".into(),
            format!("{}/*", self.jars.display()),
        ]
    }

    fn properties_file(&self) -> PathBuf {
        self.scratch.join("server.properties")
    }
}
