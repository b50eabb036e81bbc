//! ClickHouse with a disk that is full, read-only, or slow: the slot holds what cannot be stored, the
//! memory stays as it is, and everything goes on by itself.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use tailwater_test_support::workload::Runner;
use tailwater_test_support::{
    ClickHouse, Postgres, PostgresOptions, PostgresVersion, Proxy, Tailwater, binary, wait_for,
};

use crate::legs::DEADLINE;
use crate::outages::{RATE, into_url, lags_without_growing, recovers};

/// Room of the small disk. The engine wants some for its own at the start.
const DISK: &str = "160m";
const FILLS: usize = 5;
/// A stream that has not moved for so long waits for room behind it.
const STANDSTILL: Duration = Duration::from_secs(1);

/// What is said once of a record that ClickHouse does not take.
pub(crate) const UNRECORDED: &str =
    "failed, trying again what=\"record how far the slot may be told\"";

/// `tailwater` with its data on a small disk of its own, which only it sees.
fn on_small_disk(source: &str) -> Result<Tailwater> {
    let script = format!(
        "mkdir data && mount -t tmpfs -o size={DISK} tmpfs data && \
         exec \"$0\" run --source \"$1\" --listen \"$2\" --data data"
    );
    let program = binary()?.display().to_string();
    let arguments = ["--mount", "sh", "-c", &script, &program, source, "{listen}"];
    Tailwater::of_binary("unshare".into(), arguments)
}

/// The small disk, as the process with this id sees it.
fn disk_of(process: u32, tailwater: &Tailwater) -> PathBuf {
    let directory = tailwater.directory().join("data");
    let inside = directory.strip_prefix("/").unwrap_or(&directory);
    Path::new("/proc").join(process.to_string()).join("root").join(inside)
}

/// Fills the disk with a file, to the last block.
fn fill(disk: &Path) -> Result<PathBuf> {
    let ballast = disk.join("ballast");
    let mut dd = Command::new("dd");
    dd.args(["if=/dev/zero", "bs=64k", "status=none"]).arg(format!("of={}", ballast.display()));
    // It ends when there is no room any more, which is the point, and says so.
    let output = dd.output().context("run dd")?;
    ensure!(!output.status.success(), "the disk is not full");
    Ok(ballast)
}

fn says(tailwater: &Tailwater, wanted: &str) -> Result<()> {
    wait_for(DEADLINE, "/readyz to say why", || {
        let answer = tailwater.get("/readyz")?;
        ensure!(answer.status == 503, "{} {}", answer.status, answer.text());
        ensure!(answer.text().contains(wanted), "{}", answer.text());
        Ok(())
    })
}

#[test]
fn a_full_disk_of_the_embedded_engine_is_waited_for() -> Result<()> {
    let source = Postgres::shared(PostgresVersion::V18).create_database()?;
    let workload = Runner::start(&source.url(), 32, RATE)?;
    let tailwater = on_small_disk(&source.url())?;
    let mut process = tailwater.start()?;
    process.wait_ready(DEADLINE)?;
    // Each time something else is being written: rows, or a merge of them.
    for _ in 0..FILLS {
        let ballast = fill(&disk_of(process.id(), &tailwater))?;
        says(&tailwater, "NOT_ENOUGH_SPACE")?;
        std::fs::remove_file(ballast)?;
        process.wait_ready(DEADLINE)?;
    }
    recovers(&source, workload, &tailwater)?;
    ensure!(process.is_running()?, "it ended by itself:\n{}", tailwater.log_tail());
    Ok(())
}

#[test]
fn a_table_that_is_read_only_is_waited_for() -> Result<()> {
    let source = Postgres::shared(PostgresVersion::V15).create_database()?;
    let clickhouse = ClickHouse::start()?;
    let workload = Runner::start(&source.url(), 33, RATE)?;
    let tailwater = into_url(&clickhouse.url(), &clickhouse, &source)?;
    let mut process = tailwater.start()?;
    process.wait_ready(DEADLINE)?;
    let table = format!("{}.users_versions", source.name());
    wait_for(DEADLINE, "the table", || {
        clickhouse.query(&format!("SELECT 1 FROM {table} LIMIT 1"))
    })?;
    clickhouse.query(&format!("ALTER TABLE {table} MODIFY SETTING table_readonly = 1"))?;
    says(&tailwater, "READ_ONLY")?;
    clickhouse.query(&format!("ALTER TABLE {table} MODIFY SETTING table_readonly = 0"))?;
    recovers(&source, workload, &tailwater)?;
    ensure!(process.is_running()?, "it ended by itself:\n{}", tailwater.log_tail());
    Ok(())
}

/// Else the next start would find the slot farther than it was ever told to be.
#[test]
fn a_slot_is_told_nothing_that_is_not_recorded() -> Result<()> {
    let source = Postgres::shared(PostgresVersion::V18).create_database()?;
    source.execute("CREATE TABLE notes (id int PRIMARY KEY); INSERT INTO notes VALUES (1)")?;
    let clickhouse = ClickHouse::start()?;
    let tailwater = into_url(&clickhouse.url(), &clickhouse, &source)?;
    let mut process = tailwater.start()?;
    process.wait_ready(DEADLINE)?;
    let confirmed = || {
        source.query(
            "SELECT confirmed_flush_lsn FROM pg_replication_slots
             WHERE database = current_database()",
        )
    };
    let records = format!("{}._tailwater_sources", source.name());
    let readonly = |on: u8| {
        clickhouse.query(&format!("ALTER TABLE {records} MODIFY SETTING table_readonly = {on}"))
    };
    readonly(1)?;
    source.execute("INSERT INTO notes VALUES (2)")?;
    crate::legs::serves(&tailwater, "notes", "{\"id\":1}\n{\"id\":2}\n")?;
    crate::legs::says(&tailwater, UNRECORDED)?;
    let before = confirmed()?;
    crate::stops::tells(&tailwater, "slot-record", "`_tailwater_sources` has not taken for")?;
    source.execute("INSERT INTO notes VALUES (3)")?;
    crate::legs::serves(&tailwater, "notes", "{\"id\":1}\n{\"id\":2}\n{\"id\":3}\n")?;
    ensure!(process.terminate(DEADLINE)?.success(), "it ended badly");
    ensure!(confirmed()? == before, "{before:?} and then {:?}", confirmed()?);
    ensure!(tailwater.log().matches(UNRECORDED).count() == 1, "{}", tailwater.log());
    readonly(0)?;
    let mut process = tailwater.start()?;
    process.wait_ready(DEADLINE)?;
    source.execute("DELETE FROM notes WHERE id < 3")?;
    crate::legs::serves(&tailwater, "notes", "{\"id\":3}\n")
}

/// What was read and found no room behind is read again, by the connection after.
#[test]
fn a_source_that_crashes_while_clickhouse_takes_nothing_takes_no_row_along() -> Result<()> {
    let postgres = Postgres::start(PostgresVersion::V15, PostgresOptions::default())?;
    let source = postgres.create_database()?;
    source.execute("CREATE TABLE notes (id int PRIMARY KEY, text text)")?;
    let clickhouse = ClickHouse::start()?;
    let tailwater = Tailwater::with_config(&format!(
        "[source]\nurl = \"{}\"\n\n[clickhouse]\nurl = \"{}\"\nuser = \"{}\"\npassword = \"{}\"\n\
         batch_rows = 100\n\n[http]\nlisten = \"{{listen}}\"\n",
        source.url(),
        clickhouse.url(),
        clickhouse.user(),
        clickhouse.password(),
    ))?;
    let mut process = tailwater.start()?;
    process.wait_ready(DEADLINE)?;
    let table = format!("{}.notes_versions", source.name());
    source.execute("INSERT INTO notes VALUES (0, '')")?;
    wait_for(DEADLINE, "the table", || {
        clickhouse.query(&format!("SELECT 1 FROM {table} LIMIT 1"))
    })?;
    clickhouse.query(&format!("ALTER TABLE {table} MODIFY SETTING table_readonly = 1"))?;
    source.execute(
        "INSERT INTO notes SELECT n, repeat(md5(n::text), 8) FROM generate_series(1, 100000) n",
    )?;
    let blocked = "SELECT r.pid, r.sent_lsn FROM pg_stat_replication r
         JOIN pg_replication_slots s ON s.active_pid = r.pid
         JOIN pg_stat_activity a ON a.pid = r.pid
         WHERE s.database = current_database() AND a.wait_event = 'WalSenderWriteData'";
    let mut seen = (Vec::new(), Instant::now());
    let walsender = wait_for(DEADLINE, "the walsender to wait for room", || {
        let now = source.query(blocked)?.pop().context("nothing waits")?;
        if seen.0 != now {
            seen = (now, Instant::now());
        }
        ensure!(seen.1.elapsed() > STANDSTILL, "it goes on");
        Ok(seen.0[0].clone())
    })?;
    // The server ends all other processes then, and starts them anew.
    let killed = Command::new("kill").args(["-9", &walsender]).status().context("run kill")?;
    ensure!(killed.success(), "kill ended with {killed}");
    crate::legs::says(&tailwater, "stream from the source")?;
    clickhouse.query(&format!("ALTER TABLE {table} MODIFY SETTING table_readonly = 0"))?;
    let count = format!("SELECT count(), sum(id) FROM {}.notes", source.name());
    wait_for(DEADLINE, "every row", || {
        let found = clickhouse.query(&count)?;
        ensure!(found.trim() == "100001\t5000050000", "{found}");
        Ok(())
    })
}

#[test]
fn a_slow_clickhouse_makes_the_slot_lag_and_not_the_memory_grow() -> Result<()> {
    let source = Postgres::shared(PostgresVersion::V15).create_database()?;
    let clickhouse = ClickHouse::start()?;
    let port = clickhouse.url().rsplit_once(':').context("find the port")?.1.parse()?;
    let proxy = Proxy::start(port)?;
    let workload = Runner::start(&source.url(), 34, RATE)?;
    let url = format!("http://127.0.0.1:{}", proxy.port());
    let tailwater = into_url(&url, &clickhouse, &source)?;
    let pace = |bytes_per_second| {
        proxy.slow_down(bytes_per_second);
        Ok(())
    };
    lags_without_growing(&source, workload, &tailwater, || pace(400_000), || pace(0))
}
