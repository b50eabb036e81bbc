//! The measurements, one function a kind.

use anyhow::{Context as _, Result, ensure};
use tailwater_test_support::{Postgres, Session};

use super::leg::{Setup, Since, Taken, Topics, passed, wait_passed};
use super::report::Line;
use super::shape::Shape;
use super::source::{Source, topic_prefix};
use super::usage::Usage;
use super::{Bed, peer};

/// Enough for the broker's compiler to be done: after a third of it the first case took half as long again as it does later.
const WARM_UP_ROWS: u64 = 1_500_000;

/// A leg that begins at a slot.
#[derive(Debug, Clone, Copy)]
pub(super) struct Capture {
    pub(super) name: &'static str,
    pub(super) kafka: bool,
    pub(super) plugin: Option<&'static str>,
    /// By the binary that ours is compared with.
    pub(super) other: bool,
}

impl Capture {
    /// What its line, its slot and its topics are called.
    pub(super) fn label(&self) -> String {
        let suffix = if self.other { "-other" } else { "" };
        format!("{}{suffix}", self.name)
    }
}

/// A case's line out of what it took.
pub(super) fn line(name: &str, events: u64, reference: f64, taken: Taken) -> Line {
    Line {
        name: name.to_owned(),
        events,
        seconds: taken.seconds,
        ratio_to_reference: Some(reference / taken.seconds),
        used: Some(taken.used),
        latency: None,
    }
}

impl Bed {
    /// The reference's line.
    pub(super) fn reference(name: &str, events: u64, seconds: f64, used: Option<Usage>) -> Line {
        let name = name.to_owned();
        Line { name, events, seconds, ratio_to_reference: None, used, latency: None }
    }

    /// From the slot in use to the slot confirmed. Gives the topics' prefix too.
    pub(super) fn capture(&self, source: &Source<'_>, case: Capture) -> Result<(Line, String)> {
        let Capture { kafka, plugin, other, .. } = case;
        let name = case.label();
        let prefix = topic_prefix(&name);
        let slot = source.slot(&slot_prefix(&name));
        let setup = Setup {
            role: if kafka { "capture" } else { "all" },
            slot: slot.clone(),
            kafka: kafka.then(|| self.topics(prefix.clone())),
            plugin,
            ..Setup::default()
        };
        let binary = if other { self.other.as_ref() } else { None }.unwrap_or(&self.binary);
        let tailwater = setup.prepare(source, binary.clone())?;
        let process = tailwater.start()?;
        let begin = source.wait_active(&slot).and_then(|_| Since::now(process.id()))?;
        let end = source.wait_confirmed(&slot).with_context(|| tailwater.log_tail())?;
        let taken = begin.until(end, process.id())?;
        let step = if kafka { "sent" } else { "stored" };
        let found = passed(&tailwater, step)?;
        ensure!(found == source.events, "{name}: {found} of {} were {step}", source.events);
        ensure!(process.terminate(super::STOP)?.success(), "{}", tailwater.log_tail());
        source.drop_slot(&slot)?;
        Ok((line(&name, source.events, source.reference.seconds, taken), prefix))
    }

    /// Has the broker compile its code and the system its caches filled, so that the case that
    /// happens to be the first is not the slowest for it.
    pub(super) fn warm(&self) -> Result<()> {
        let case = Capture { name: "warm-up", kafka: true, plugin: None, other: false };
        let source = self.fill(Shape::Inserts, WARM_UP_ROWS, &[case.name])?;
        self.capture(&source, case).map(drop)
    }

    /// From the first change read to the last one stored.
    pub(super) fn sink(&self, source: &Source<'_>, prefix: String) -> Result<Line> {
        let name = "kafka-clickhouse";
        let kafka = Some(self.topics(prefix));
        let setup = Setup { role: "sink", kafka, ..Setup::default() };
        let tailwater = setup.prepare(source, self.binary.clone())?;
        let mut process = tailwater.start()?;
        wait_passed(&tailwater, &mut process, "consumed", 1)?;
        let begin = Since::now(process.id())?;
        let end = wait_passed(&tailwater, &mut process, "stored", source.events)?;
        let taken = begin.until(end, process.id())?;
        ensure!(process.terminate(super::STOP)?.success(), "{}", tailwater.log_tail());
        Ok(line(name, source.events, source.reference.seconds, taken))
    }

    /// A table copied, against `COPY` to nowhere: from the first row read to the last one durable.
    pub(super) fn snapshot(&self, source: &Source<'_>, kafka: bool, copy: f64) -> Result<Line> {
        let name = if kafka { "snapshot-kafka" } else { "snapshot-direct" };
        let setup = Setup {
            role: if kafka { "capture" } else { "all" },
            slot: source.slot(&slot_prefix(name)),
            snapshot: true,
            kafka: kafka.then(|| self.topics(topic_prefix(name))),
            ..Setup::default()
        };
        let tailwater = setup.prepare(source, self.binary.clone())?;
        let mut process = tailwater.start()?;
        wait_passed(&tailwater, &mut process, "captured", 1)?;
        let begin = Since::now(process.id())?;
        let step = if kafka { "sent" } else { "stored" };
        let end = wait_passed(&tailwater, &mut process, step, source.events)?;
        let taken = begin.until(end, process.id())?;
        ensure!(process.terminate(super::STOP)?.success(), "{}", tailwater.log_tail());
        source.drop_slot(&source.slot(&slot_prefix(name)))?;
        Ok(line(name, source.events, copy, taken))
    }

    /// The same rows through Debezium on Kafka Connect to the same broker.
    pub(super) fn debezium(&self, source: &Source<'_>) -> Result<Line> {
        let slot = source.slot(&slot_prefix(peer::NAME));
        let prefix = topic_prefix(peer::NAME);
        let connect = peer::Connect::start(&self.kafka, source, &slot, &prefix)?;
        source.wait_active(&slot)?;
        let begin = Since::now(connect.id())?;
        let end = source.wait_confirmed(&slot).with_context(|| connect.log_tail())?;
        let taken = begin.until(end, connect.id())?;
        let found = peer::records(&self.kafka, &prefix)?;
        ensure!(found == source.events, "debezium wrote {found} of {} records", source.events);
        drop(connect);
        source.drop_slot(&slot)?;
        Ok(line(peer::NAME, source.events, source.reference.seconds, taken))
    }
}

/// What a case's slot is called before its database's name.
pub(super) fn slot_prefix(case: &str) -> String {
    format!("{}_", case.replace('-', "_"))
}

/// `COPY` of the users to nowhere; seconds.
pub(super) fn copy_to_nowhere(postgres: &Postgres, database: &str) -> Result<f64> {
    let start = std::time::Instant::now();
    let status = std::process::Command::new(postgres.program("psql"))
        .args(["-X", "-q", "-d", &postgres.url(database), "-c", "COPY users TO STDOUT"])
        .stdout(std::process::Stdio::null())
        .status()
        .context("run psql")?;
    ensure!(status.success(), "COPY ended with {status}");
    Ok(start.elapsed().as_secs_f64())
}

/// The services and the binary that all cases share.
impl Bed {
    pub(super) fn fill<S: AsRef<str>>(
        &self,
        shape: Shape,
        rows: u64,
        cases: &[S],
    ) -> Result<Source<'_>> {
        let slots: Vec<String> = cases.iter().map(|case| slot_prefix(case.as_ref())).collect();
        let slots: Vec<&str> = slots.iter().map(String::as_str).collect();
        Source::fill(&self.postgres, shape, shape.events(rows), &slots)
    }

    /// The topics below a prefix, for whoever is measured.
    pub(super) fn topics(&self, prefix: String) -> Topics {
        Topics { brokers: self.kafka.bootstrap(), prefix, codec: self.codec.clone() }
    }

    pub(super) fn session(&self, database: &str) -> Result<Session> {
        Session::open(&self.postgres.url(database))
    }
}
