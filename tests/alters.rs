//! A table whose columns change while the process follows, stops, dies and comes back: the copy shows what the
//! source shows. The same seed makes the same transactions and the same deaths.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use serde_json::Value;
use tailwater_test_support::workload::{ALTERED, Alters, Step};
use tailwater_test_support::{
    Database, Kafka, Postgres, PostgresVersion, Tailwater, TailwaterProcess, unique_name, wait_for,
};

use crate::Route;

const STEPS: usize = 30;
const DEADLINE: Duration = Duration::from_secs(60);

/// One run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Altering {
    /// Of the transactions and the deaths.
    pub seed: u64,
    /// How the changes go.
    pub route: Route,
    /// Whether the columns change again before the copy has followed.
    pub hasty: bool,
}

impl Altering {
    /// The run of a seed.
    #[must_use]
    pub fn of(seed: u64) -> Altering {
        let route = if seed.is_multiple_of(3) { Route::Kafka } else { Route::Direct };
        Altering { seed, route, hasty: seed % 4 > 1 }
    }
}

/// What is there, and what was done to it.
struct Run<'a> {
    source: &'a Database<'a>,
    tailwater: &'a Tailwater,
    process: Option<TailwaterProcess<'a>>,
    random: StdRng,
    hasty: bool,
    /// Since the copy was last seen to equal the source.
    done: Vec<String>,
}

/// Runs it to its end; the number of rows compared there.
pub fn follow(altering: Altering) -> Result<usize> {
    let Altering { seed, route, hasty } = altering;
    let version = if seed.is_multiple_of(2) { PostgresVersion::V15 } else { PostgresVersion::V18 };
    let source = Postgres::shared(version).create_database()?;
    let mut alters = Alters::new(seed);
    source.execute(&alters.schema())?;
    let tailwater = Tailwater::with_config(&config(&source, route))?;
    let random = StdRng::seed_from_u64(!seed);
    let (source, tailwater) = (&source, &tailwater);
    let mut run = Run { source, tailwater, process: None, random, hasty, done: Vec::new() };
    run.start()?;
    run.settle()?;
    for _ in 0..STEPS {
        run.come_and_go()?;
        run.step(&alters.next_step())?;
    }
    run.start()?;
    let rows = run.settle()?;
    let status = run.process.take().context("it was started")?.terminate(DEADLINE)?;
    ensure!(status.success(), "it ended with {status}");
    source.drop_idle_slots()?;
    Ok(rows)
}

fn config(source: &Database<'_>, route: Route) -> String {
    let kafka = match route {
        Route::Direct => String::new(),
        Route::Kafka => format!(
            "[kafka]\nbrokers = \"{}\"\nprefix = \"{}\"\npartitions = 3\n",
            Kafka::shared().bootstrap(),
            unique_name("alters")
        ),
    };
    format!("[source]\nurl = \"{}\"\n{kafka}[http]\nlisten = \"{{listen}}\"\n", source.url())
}

impl<'a> Run<'a> {
    fn start(&mut self) -> Result<()> {
        if self.process.is_none() {
            self.done.push("-- it is started".into());
            self.process = Some(self.tailwater.start()?);
        }
        Ok(())
    }

    /// At times the process is stopped or killed, and started at once or after what comes next.
    fn come_and_go(&mut self) -> Result<()> {
        let dice = self.random.random_range(0..100);
        match self.process.take() {
            Some(mut process) if dice < 10 => {
                process.wait_ready(DEADLINE)?;
                self.done.push("-- it is stopped".into());
                ensure!(process.terminate(DEADLINE)?.success(), "it ended badly");
            }
            Some(process) if dice < 20 => {
                self.done.push("-- it is killed".into());
                process.kill9()?;
            }
            other => self.process = other,
        }
        match self.random.random_range(0..2) {
            0 => self.start(),
            _ => Ok(()),
        }
    }

    fn step(&mut self, step: &Step) -> Result<()> {
        self.done.push(step.sql.clone());
        self.source.execute(&step.sql).with_context(|| self.story())?;
        let waits = (step.alters && !self.hasty) || self.random.random_range(0..10) == 0;
        if waits {
            self.start()?;
            self.settle()?;
        }
        Ok(())
    }

    /// Waits until the copy equals the source; the number of rows.
    fn settle(&mut self) -> Result<usize> {
        let rows = wait_for(DEADLINE, "the copy to equal the source", || {
            equal(self.source, self.tailwater)
        });
        let rows = rows.with_context(|| self.story())?;
        self.done.clear();
        Ok(rows)
    }

    fn story(&self) -> String {
        format!("{}\n{}", self.done.join("\n"), self.tailwater.log_tail())
    }
}

/// The rows as the source has them, and as the copy does.
fn equal(source: &Database<'_>, tailwater: &Tailwater) -> Result<usize> {
    let rows = source.query(&format!("SELECT to_jsonb(t)::text FROM {ALTERED} t"))?;
    let parse = |row: &str| serde_json::from_str::<Value>(row).context("parse a row");
    let wanted = rows.iter().map(|row| parse(&row[0])).collect::<Result<Vec<_>>>()?;
    let answer = tailwater.get(&format!("/v0/pipes/{ALTERED}_snapshot.ndjson?limit=10000"))?;
    ensure!(answer.status == 200, "{} {}", answer.status, answer.text());
    let found = answer.text().lines().map(parse).collect::<Result<Vec<_>>>()?;
    let lacks = |rows: &[Value], of: &[Value]| {
        let lacking = of.iter().filter(|row| !rows.contains(row));
        lacking.take(3).map(brief).collect::<Vec<_>>().join("\n  ")
    };
    let (missing, surplus) = (lacks(&found, &wanted), lacks(&wanted, &found));
    ensure!(
        missing.is_empty() && surplus.is_empty(),
        "the copy lacks\n  {missing}\nthe source lacks\n  {surplus}"
    );
    ensure!(wanted.len() == found.len(), "{} rows, copied {}", wanted.len(), found.len());
    Ok(wanted.len())
}

/// Long text is cut.
fn brief(row: &Value) -> String {
    let mut row = row.clone();
    for value in row.as_object_mut().into_iter().flat_map(|row| row.values_mut()) {
        if let Value::String(text) = value {
            text.truncate(12);
        }
    }
    row.to_string()
}
