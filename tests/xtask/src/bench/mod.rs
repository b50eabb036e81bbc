//! `cargo xtask bench`: how fast, against what the database itself can send, and at what cost.
//!
//! Every case reads rows that were written before, from a slot of its own, so that all cases and the
//! reference read the same log; the reference is `pg_recvlogical` on the same kind of socket, its
//! output thrown away. A capture is measured from its slot in use to its slot confirmed, which is
//! when the last change is durable one hop on.

mod cases;
mod latency;
mod leg;
mod peer;
mod report;
mod scaling;
mod shape;
mod source;
mod usage;

use std::path::PathBuf;
use std::time::Duration;
use std::{fs, io};

use anyhow::{Result, bail};
use tailwater_test_support::{Kafka, Postgres, PostgresOptions, PostgresVersion, Warmth};

use self::cases::{Capture, copy_to_nowhere};
use self::leg::IDENTITY;
use self::report::Report;
use self::shape::Shape;
use crate::steps::{self, Profile, step};

/// A process drains within this.
const STOP: Duration = Duration::from_secs(60);

/// All names, in the order they are measured.
const NAMES: [&str; 17] = [
    "capture-kafka",
    "capture-kafka-identity",
    "capture-kafka-mask",
    "kafka-clickhouse",
    "direct",
    "direct-mask",
    "debezium",
    "snapshot-kafka",
    "snapshot-direct",
    "mixed",
    "mixed-full",
    "wide",
    "big-values",
    "small-transactions",
    "one-transaction",
    "latency",
    "scaling",
];

/// What to measure.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Rows of the standard case; others are scaled from it
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(1_000..))]
    rows: u64,
    /// How often everything is measured; the medians are shown then
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    runs: u32,
    /// Only this case; may be repeated
    #[arg(long, value_name = "NAME")]
    only: Vec<String>,
    /// A binary of tailwater that is built already, instead of this tree's
    #[arg(long, value_name = "FILE", value_parser = built)]
    binary: Option<PathBuf>,
    /// Another binary of tailwater, measured beside this one in the cases that read inserts
    #[arg(long, value_name = "FILE", value_parser = built)]
    against: Option<PathBuf>,
    /// How the cases over Kafka compress their batches: `lz4`, `zstd`, `none`, `gzip` or `snappy`
    #[arg(long, default_value = "lz4", value_parser = ["lz4", "zstd", "none", "gzip", "snappy"])]
    codec: String,
    /// Debezium on Kafka Connect too
    #[arg(long)]
    peers: bool,
    /// Save the table as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Seconds of each latency measurement
    #[arg(long, default_value_t = 20)]
    latency_seconds: u64,
}

/// Tailwater starts in a directory of its own, where a relative path would lead elsewhere.
fn built(path: &str) -> io::Result<PathBuf> {
    fs::canonicalize(path)
}

impl Options {
    fn wants(&self, name: &str) -> bool {
        match self.only.is_empty() {
            true => name != peer::NAME || self.peers,
            false => self.only.iter().any(|only| only == name),
        }
    }

    fn check(&self) -> Result<()> {
        match self.only.iter().find(|only| !NAMES.contains(&only.as_str())) {
            Some(unknown) => bail!("no case is called {unknown}; there are {}", NAMES.join(", ")),
            None => Ok(()),
        }
    }
}

/// What all cases share.
struct Bed {
    binary: PathBuf,
    /// The binary to compare with.
    other: Option<PathBuf>,
    kafka: Kafka,
    codec: String,
    postgres: Postgres,
}

impl Bed {
    fn start(options: &Options) -> Result<Self> {
        let binary = match &options.binary {
            Some(built) => built.clone(),
            None => steps::binary(Profile::Release)?,
        };
        steps::guests()?;
        let kafka = step("starting Apache Kafka", || Kafka::start_as(Warmth::Full))?;
        let settings = [
            ("shared_buffers", "1GB"),
            ("max_wal_size", "16GB"),
            ("autovacuum", "off"),
            ("wal_sender_timeout", "0"),
        ];
        let settings = settings.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let settings = PostgresOptions { settings: settings.into(), ..PostgresOptions::default() };
        let postgres =
            step("starting PostgreSQL 15", || Postgres::start(PostgresVersion::V15, settings))?;
        let (other, codec) = (options.against.clone(), options.codec.clone());
        Ok(Self { binary, other, kafka, codec, postgres })
    }
}

pub(crate) fn run(options: &Options) -> Result<()> {
    options.check()?;
    steps::setup()?;
    if options.wants(peer::NAME) {
        step("fetching Debezium", peer::fetch)?;
    }
    let bed = Bed::start(options)?;
    step("warming up", || bed.warm())?;
    println!("\n{}", Report::heading());
    let mut report = Report::default();
    let measured = (0..options.runs).try_for_each(|_| bed.measure(options, &mut report));
    if options.runs > 1 {
        println!("\nthe medians of {} runs", options.runs);
        report = report.medians();
    }
    // What was measured before something failed is worth having.
    report.save(&steps::target_directory(), options.json.as_deref())?;
    measured
}

impl Bed {
    fn measure(&self, options: &Options, report: &mut Report) -> Result<()> {
        self.inserts(options, report)?;
        self.snapshots(options, report)?;
        self.shapes(options, report)?;
        self.latencies(options, report)?;
        self.scaling(options, report)
    }

    /// Everything that reads the standard rows.
    fn inserts(&self, options: &Options, report: &mut Report) -> Result<()> {
        let case = |name, kafka, plugin| Capture { name, kafka, plugin, other: false };
        let captures = [
            case("capture-kafka", true, None),
            case("capture-kafka-identity", true, Some(IDENTITY)),
            case("capture-kafka-mask", true, Some("mask-email")),
            case("direct", false, None),
            case("direct-mask", false, Some("mask-email")),
        ];
        let with_other = |case: Capture| {
            let other = self.other.is_some().then_some(Capture { other: true, ..case });
            [case].into_iter().chain(other)
        };
        let wanted = captures.into_iter().filter(|case| options.wants(case.name));
        let wanted: Vec<Capture> = wanted.flat_map(with_other).collect();
        let sink = options.wants("kafka-clickhouse");
        let mut slots: Vec<String> = wanted.iter().map(Capture::label).collect();
        if options.wants(peer::NAME) {
            slots.push(peer::NAME.to_owned());
        }
        if sink && !options.wants("capture-kafka") {
            slots.push("capture-kafka".to_owned());
        }
        if slots.is_empty() {
            return Ok(());
        }
        let source = self.fill(Shape::Inserts, options.rows, &slots)?;
        report.add(source.reference_line("pg_recvlogical"));
        let mut topics = None;
        for case in wanted {
            let (line, prefix) = self.capture(&source, case)?;
            report.add(line);
            if case.name == "capture-kafka" && !case.other {
                topics = Some(prefix);
            }
        }
        if options.wants(peer::NAME) {
            report.add(self.debezium(&source)?);
        }
        if sink {
            let topics = match topics {
                Some(topics) => topics,
                None => self.capture(&source, captures[0])?.1,
            };
            report.add(self.sink(&source, topics)?);
        }
        Ok(())
    }

    /// Everything that copies the standard rows.
    fn snapshots(&self, options: &Options, report: &mut Report) -> Result<()> {
        let wanted: Vec<bool> = [("snapshot-kafka", true), ("snapshot-direct", false)]
            .into_iter()
            .filter_map(|(name, kafka)| options.wants(name).then_some(kafka))
            .collect();
        if wanted.is_empty() {
            return Ok(());
        }
        let source = self.fill::<&str>(Shape::Inserts, options.rows, &[])?;
        source.session.execute("VACUUM users")?;
        let copy = copy_to_nowhere(&self.postgres, source.database.name())?;
        report.add(Self::reference("COPY users TO STDOUT", source.events, copy, None));
        for kafka in wanted {
            report.add(self.snapshot(&source, kafka, copy)?);
        }
        Ok(())
    }

    /// Rows and transactions of other sizes and kinds, into Kafka.
    fn shapes(&self, options: &Options, report: &mut Report) -> Result<()> {
        let shapes = [
            ("mixed", Shape::Mixed { full: false }),
            ("mixed-full", Shape::Mixed { full: true }),
            ("wide", Shape::Wide),
            ("big-values", Shape::BigValues),
            ("small-transactions", Shape::SmallTransactions),
            ("one-transaction", Shape::OneTransaction),
        ];
        for (name, shape) in shapes.into_iter().filter(|(name, _)| options.wants(name)) {
            let source = self.fill(shape, options.rows, &[name])?;
            let reference = format!("pg_recvlogical, {name}");
            report.add(source.reference_line(&reference));
            report.add(
                self.capture(&source, Capture { name, kafka: true, plugin: None, other: false })?.0,
            );
        }
        Ok(())
    }
}
