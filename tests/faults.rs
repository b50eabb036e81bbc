//! One death and what comes after it: the process dies at a named place or at a moment, under load,
//! is started again, and must leave an exact copy and, over Kafka, each change exactly once: of the shop's
//! users and of the tables of other kinds. The same seed makes the same workload and the same death.

use std::fs;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use tailwater_test_support::workload::{KINDS, Runner};
use tailwater_test_support::{
    Database, Kafka, Postgres, PostgresVersion, Tailwater, TailwaterProcess, guests, unique_name,
    wait_for, wait_until,
};

use crate::{
    Audit, Emails, copies, each_change_once, topics_hold_the_rows, wait_equal, wait_kinds_equal,
    wait_sent,
};

const RATE: u64 = 500;
const DEADLINE: Duration = Duration::from_secs(120);
const SIGKILL: i32 = 9;

/// How the changes go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Route {
    /// PostgreSQL to ClickHouse; the slot is the log.
    Direct,
    /// Both legs in one process.
    Kafka,
}

/// The named places of the product, each with the routes that pass it.
pub const FAILPOINTS: [(&str, &[Route]); 15] = [
    (IN_COPY, &[Route::Direct, Route::Kafka]),
    ("during_swap", &[Route::Direct, Route::Kafka]),
    ("during_token_reload", &[Route::Direct, Route::Kafka]),
    ("before_send", &[Route::Kafka]),
    ("after_send", &[Route::Kafka]),
    ("before_commit", &[Route::Kafka]),
    ("after_commit", &[Route::Kafka]),
    ("before_alter", &[Route::Direct, Route::Kafka]),
    ("after_alter", &[Route::Direct, Route::Kafka]),
    ("before_store", &[Route::Direct, Route::Kafka]),
    ("after_store", &[Route::Direct, Route::Kafka]),
    ("before_keep", &[Route::Direct, Route::Kafka]),
    ("after_keep", &[Route::Direct, Route::Kafka]),
    ("before_slot_advance", &[Route::Direct]),
    ("before_offset_commit", &[Route::Kafka]),
];

/// When the process dies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Death {
    /// At the n-th passage of a named place.
    At(&'static str, u32),
    /// So many milliseconds after its start.
    After(u64),
}

/// One run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Plan {
    /// Of the workload.
    pub seed: u64,
    /// How the changes go.
    pub route: Route,
    /// Whether a plugin remembers every change it saw, and would drop one that it sees again.
    pub remembers: bool,
    /// What happens.
    pub death: Death,
}

impl Plan {
    /// The plan of a seed; one in four dies at a moment, the others at a place.
    #[must_use]
    pub fn of(seed: u64) -> Plan {
        let mut random = StdRng::seed_from_u64(seed);
        let (name, routes) = FAILPOINTS[random.random_range(0..FAILPOINTS.len())];
        let route = routes[random.random_range(0..routes.len())];
        let passage = match name {
            // At least once for each table.
            IN_COPY => random.random_range(1..=1 + KINDS.len()).try_into().unwrap_or(1),
            name if happens_once(name) => 1,
            _ => random.random_range(1..=30),
        };
        let death = match random.random_range(0..4) {
            0 => Death::After(random.random_range(1..3_000)),
            _ => Death::At(name, passage),
        };
        Plan { seed, route, remembers: passes_by_memory(name) || random.random(), death }
    }
}

fn passes_by_memory(name: &str) -> bool {
    name.ends_with("_keep")
}

fn happens_once(name: &str) -> bool {
    name.starts_with("during_") || name.ends_with("_alter")
}

/// The place that every copy of a table passes.
const IN_COPY: &str = "during_snapshot";

/// Runs a plan; the number of rows compared.
pub fn survive(plan: Plan) -> Result<usize> {
    let version =
        if plan.seed.is_multiple_of(2) { PostgresVersion::V15 } else { PostgresVersion::V18 };
    let source = Postgres::shared(version).create_database()?;
    let workload = Runner::start_with_kinds(&source.url(), plan.seed, RATE)?;
    let audit = Audit::install_with_kinds(&source)?;
    let prefix = unique_name("fault");
    let config = config(&source, plan, &prefix)?;
    let tailwater = Tailwater::with_config(&config)?;
    install(&tailwater, &[])?;
    let mut mark = None;
    if !matches!(plan.death, Death::At(IN_COPY, _)) {
        let mut process = tailwater.start()?;
        process.wait_ready(DEADLINE)?;
        if plan.route == Route::Kafka {
            wait_sent(&tailwater, &source)?;
            mark = Some(audit.mark()?);
        }
        process.kill9()?;
    }
    die(&tailwater, plan, &source, &config).with_context(|| tailwater.log_tail())?;
    tailwater.set_config(&config)?;
    let mut process = tailwater.start()?;
    process.wait_ready(DEADLINE)?;
    if plan.route == Route::Kafka {
        wait_sent(&tailwater, &source)?;
        mark = Some(mark.map_or_else(|| audit.mark(), Ok)?);
    }
    workload.stop()?;
    if mark.is_some() {
        wait_sent(&tailwater, &source)?;
    }
    let rows = wait_all_equal(&source, &tailwater).with_context(|| tailwater.log_tail())?;
    let status = process.terminate(DEADLINE)?;
    ensure!(status.success(), "it ended with {status}");
    if let Some(mark) = mark {
        let bootstrap = Kafka::shared().bootstrap();
        for table in tables() {
            let topic = format!("{prefix}.public.{table}");
            // One that is altered soon after it was emptied is taken for rewritten, and copied again.
            let copied_again = altered(plan) == Some(table) && copies(&bootstrap, &topic)? > 1;
            let mark = if copied_again { i64::MAX } else { mark };
            each_change_once(&audit.histories(table, mark)?, &bootstrap, &topic)?;
        }
        topics_hold_the_rows(&source, &bootstrap, &prefix)?;
    }
    // So that the next ones have room.
    source.drop_idle_slots()?;
    Ok(rows)
}

/// The tables of the workload.
fn tables() -> Vec<&'static str> {
    ["users"].into_iter().chain(KINDS.map(|kind| kind.name)).collect()
}

/// The table that a plan gives another column.
fn altered(plan: Plan) -> Option<&'static str> {
    let tables = tables();
    let alters = matches!(plan.death, Death::At(name, _) if name.ends_with("_alter"));
    let one = usize::try_from(plan.seed % tables.len() as u64).ok()?;
    alters.then(|| tables[one])
}

fn wait_all_equal(source: &Database<'_>, tailwater: &Tailwater) -> Result<usize> {
    let url = tailwater.http_url();
    let users = wait_equal(source, &url, Emails::Plain, DEADLINE)?;
    Ok(users + wait_kinds_equal(source, &url, DEADLINE)?)
}

fn config(source: &Database<'_>, plan: Plan, prefix: &str) -> Result<String> {
    let kafka = match plan.route {
        Route::Direct => String::new(),
        Route::Kafka => format!(
            "[kafka]\nbrokers = \"{}\"\nprefix = \"{prefix}\"\npartitions = 3\n\
             transaction_interval_ms = 50\n\n",
            Kafka::shared().bootstrap()
        ),
    };
    let remembers = match plan.remembers {
        false => String::new(),
        true => format!(
            "[[plugin]]\nname = \"remembers\"\npath = \"{}\"\n\
             [plugin.config]\nby = \"position\"\n\n",
            guests::plugin("drop-duplicates")?.display()
        ),
    };
    Ok(format!(
        "[source]\nurl = \"{}\"\nexclude = [\"public.audit\"]\n\n{kafka}{remembers}\
         [[plugin]]\nname = \"guest\"\npath = \"plugin.wasm\"\n\n\
         [http]\nlisten = \"{{listen}}\"\n",
        source.url()
    ))
}

/// Lives until the death; places that only an event passes get it once the process runs.
fn die(tailwater: &Tailwater, plan: Plan, source: &Database<'_>, config: &str) -> Result<()> {
    let (name, passage) = match plan.death {
        Death::At(name, passage) => (name, passage),
        Death::After(life) => {
            let mut process = tailwater.start()?;
            let (born, life) = (Instant::now(), Duration::from_millis(life));
            wait_until(DEADLINE, "the moment to die", || born.elapsed() >= life)?;
            ensure!(process.is_running()?, "it ended by itself");
            return process.kill9();
        }
    };
    let place = format!("{name}:{passage}");
    let mut process = tailwater.start_with(&[("TAILWATER_FAILPOINT", &place)])?;
    if happens_once(name) && name != IN_COPY {
        process.wait_ready(DEADLINE)?;
        match name {
            "during_swap" => install(tailwater, &OTHER)?,
            "during_token_reload" => {
                tailwater.set_config(&format!("{config}{TOKEN}"))?;
                process.hang_up()?;
            }
            _ => {
                let table = altered(plan).context("a table to alter")?;
                source.execute(&format!("ALTER TABLE {table} ADD COLUMN note text"))?;
            }
        }
    }
    died_of_it(process).with_context(|| format!("die at {place}"))
}

fn died_of_it(mut process: TailwaterProcess<'_>) -> Result<()> {
    wait_for(DEADLINE, "the process to die", || {
        ensure!(!process.is_running()?, "it still runs");
        Ok(())
    })?;
    let status = process.wait_exit(DEADLINE)?;
    ensure!(status.signal() == Some(SIGKILL), "it ended with {status}");
    Ok(())
}

/// A section that lets nobody in.
const TOKEN: &str = "\n[[http.token]]\nname = \"nobody\"\nscopes = [\"metrics\"]\n\
                     hash = \"0000000000000000000000000000000000000000000000000000000000000000\"\n";

/// A custom section of a component: other bytes that mean the same.
const OTHER: [u8; 7] = [0, 5, 4, b's', b'w', b'a', b'p'];

/// Puts the identity plugin, with some more bytes, where the process looks for it.
fn install(tailwater: &Tailwater, more: &[u8]) -> Result<()> {
    let mut component = fs::read(guests::test_guest("identity")?)?;
    component.extend_from_slice(more);
    let place = |name: &str| -> Box<Path> { tailwater.directory().join(name).into() };
    fs::write(place("fresh"), component)?;
    Ok(fs::rename(place("fresh"), place("plugin.wasm"))?)
}
