//! Plugins that remember, killed under load: what they remember is that of the place at which the
//! source goes on, exactly. One drops what says nothing new, the next counts what is left of each row
//! in its state and writes the count into the row.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use tailwater_test_support::{
    ClickHouse, Database, Kafka, Postgres, PostgresVersion, Tailwater, TailwaterProcess, guests,
    unique_name, wait_for, wait_until,
};
use tailwater_tests::{committed_offsets, end_offset, read_committed};

use crate::bad_input::{FAILED, ends_with};
use crate::kill::seed;
use crate::legs::Link;

const DEADLINE: Duration = Duration::from_secs(120);
const MEMBERS: usize = 12;
/// The member that is there from the beginning.
pub(crate) const FIRST: usize = 100;
const KILLS: usize = 5;
/// Rows that take a while to copy.
const ROWS: u64 = 30_000;
const SINKS: usize = 3;
const CHANGES: usize = 10;

pub(crate) fn members() -> Result<Database<'static>> {
    let source = Postgres::shared(PostgresVersion::V18).create_database()?;
    source.execute("CREATE TABLE members (id int PRIMARY KEY, name text)")?;
    Ok(source)
}

/// Both plugins, on the stage.
fn plugins(stage: &str) -> Result<String> {
    let dedup = guests::plugin("drop-duplicates")?;
    let counts = guests::test_guest("rememberer")?;
    Ok(format!(
        "[[plugin]]\nname = \"dedup\"\npath = \"{}\"\nstage = \"{stage}\"\n\n\
         [[plugin]]\nname = \"counts\"\npath = \"{}\"\nstage = \"{stage}\"\ngrants = [\"state\"]\n",
        dedup.display(),
        counts.display(),
    ))
}

pub(crate) fn config(source: &Database<'_>, more: &str) -> Result<String> {
    let (url, listen, plugins) = (source.url(), "{listen}", plugins("capture")?);
    Ok(format!("[source]\nurl = \"{url}\"\n\n[http]\nlisten = \"{listen}\"\n\n{more}\n{plugins}"))
}

/// Writes until it is told to end; how many changes of each member say something new.
fn load(source: &Database<'_>, seed: u64, ends: &AtomicBool) -> Result<BTreeMap<usize, u64>> {
    let mut random = StdRng::seed_from_u64(seed);
    let mut last = [""; MEMBERS];
    let mut counts = BTreeMap::new();
    while !ends.load(Ordering::Relaxed) {
        let mut sql = String::new();
        for _ in 0..random.random_range(1..6) {
            let (id, name) =
                (random.random_range(0..MEMBERS), ["a", "b", "c"][random.random_range(0..3)]);
            sql += &format!(
                "INSERT INTO members VALUES ({id}, '{name}') \
                 ON CONFLICT (id) DO UPDATE SET name = excluded.name;"
            );
            if last[id] != name {
                last[id] = name;
                *counts.entry(id).or_default() += 1;
            }
        }
        source.execute(&sql)?;
    }
    Ok(counts)
}

/// Lets the process live and die under load; the counts.
fn survive(
    source: &Database<'_>,
    tailwater: &Tailwater,
    places: &[&str],
    seed: u64,
) -> Result<BTreeMap<usize, u64>> {
    begin(source, tailwater)?;
    let ends = AtomicBool::new(false);
    thread::scope(|scope| {
        let loading = scope.spawn(|| load(source, seed, &ends));
        let died = die(tailwater, places, seed);
        ends.store(true, Ordering::Relaxed);
        let mut counts = loading.join().expect("the load does not panic")?;
        died.with_context(|| tailwater.log_tail())?;
        ensure!(counts.len() == MEMBERS, "too little was written: {counts:?}");
        counts.insert(FIRST, 1);
        Ok(counts)
    })
}

/// Gets the copy of the tables behind it: what a copy shows are rows, not their changes.
pub(crate) fn begin(source: &Database<'_>, tailwater: &Tailwater) -> Result<()> {
    let mut process = tailwater.start()?;
    process.wait_ready(DEADLINE)?;
    source.execute(&format!("INSERT INTO members VALUES ({FIRST}, 'a')"))?;
    serves(tailwater, &BTreeMap::from([(FIRST, 1)]))?;
    ends_well(process)
}

fn die(tailwater: &Tailwater, places: &[&str], seed: u64) -> Result<()> {
    for place in places {
        let mut process = tailwater.start_with(&[("TAILWATER_FAILPOINT", place)])?;
        wait_until(DEADLINE, place, || !process.is_running().unwrap_or(true))?;
    }
    let mut random = StdRng::seed_from_u64(seed);
    for _ in 0..KILLS {
        let mut process = tailwater.start()?;
        let (born, life) = (Instant::now(), Duration::from_millis(random.random_range(400..2_500)));
        wait_until(DEADLINE, "the moment to kill", || born.elapsed() >= life)?;
        ensure!(process.is_running()?, "it ended by itself");
        process.kill9()?;
    }
    Ok(())
}

/// Waits until each member's name is its count.
pub(crate) fn serves(tailwater: &Tailwater, counts: &BTreeMap<usize, u64>) -> Result<()> {
    let line = |(id, count): (&usize, &u64)| format!("{{\"id\":{id},\"name\":\"{count}\"}}\n");
    let expected: String = counts.iter().map(line).collect();
    wait_for(DEADLINE, "the counts in the snapshot pipe", || {
        let answer = tailwater.get("/v0/pipes/members_snapshot.ndjson")?;
        ensure!(answer.text() == expected, "{}, not {expected}", answer.text());
        Ok(())
    })
}

fn ends_well(process: TailwaterProcess<'_>) -> Result<()> {
    let status = process.terminate(DEADLINE)?;
    ensure!(status.success(), "it ended with {status}");
    Ok(())
}

#[test]
fn killed_under_load_plugins_remember_exactly_what_was_stored() -> Result<()> {
    let seed = seed();
    let source = members()?;
    let tailwater = Tailwater::with_config(&config(&source, "")?)?;
    let places = [
        "before_keep:2",
        "after_keep:3",
        "before_slot_advance:2",
        "after_store:5",
        "before_store:5",
    ];
    let counts = survive(&source, &tailwater, &places, seed)?;
    let mut process = tailwater.start()?;
    serves(&tailwater, &counts).with_context(|| format!("seed {seed}"))?;
    let metrics = tailwater.get("/metrics")?.text();
    let keys = format!("tailwater_plugin_state_keys{{plugin=\"counts\"}} {}\n", MEMBERS + 1);
    ensure!(metrics.contains(&keys), "{metrics}");
    process.wait_ready(DEADLINE)?;
    ends_well(process)
}

#[test]
fn killed_under_load_plugins_remember_exactly_what_kafka_holds() -> Result<()> {
    let seed = seed();
    let (source, kafka, prefix) = (members()?, Kafka::shared(), unique_name("state"));
    let brokers = kafka.bootstrap();
    let section =
        format!("[kafka]\nbrokers = \"{brokers}\"\nprefix = \"{prefix}\"\npartitions = 3\n");
    let tailwater = Tailwater::with_config(&config(&source, &section)?)?;
    let places =
        ["before_keep:2", "after_keep:3", "before_send:5", "before_commit:5", "after_commit:3"];
    let counts = survive(&source, &tailwater, &places, seed)?;
    let process = tailwater.start()?;
    serves(&tailwater, &counts).with_context(|| format!("seed {seed}"))?;
    ends_well(process)?;
    each_count_once(&brokers, &format!("{prefix}.public.members"), &counts)
        .with_context(|| format!("seed {seed}"))
}

/// Two tables of many rows, so that one of them is copied whole while the other is not.
fn large_members(rows: u64) -> Result<Database<'static>> {
    let source = members()?;
    source.execute("CREATE TABLE others (id int PRIMARY KEY, name text)")?;
    source.execute("INSERT INTO others SELECT n, 'a' FROM generate_series(1, 100) n")?;
    let last = 1000 + rows;
    source.execute(&format!(
        "INSERT INTO members SELECT n, 'a' FROM generate_series(1001, {last}) n"
    ))?;
    Ok(source)
}

/// Each row was copied, and counted once.
fn counts_every_row_once(tailwater: &Tailwater, rows: u64) -> Result<()> {
    for (table, rows) in [("members", rows), ("others", 100)] {
        let query = format!("SELECT name, toInt32(count()) AS n FROM {table} GROUP BY name");
        let query = utf8_percent_encode(&query, NON_ALPHANUMERIC).to_string();
        wait_for(DEADLINE, "every row to count once", || {
            let answer = tailwater.get(&format!("/v0/sql?format=ndjson&q={query}"))?;
            let expected = format!("{{\"name\":\"1\",\"n\":{rows}}}\n");
            ensure!(answer.text() == expected, "{} {}", answer.status, answer.text());
            Ok(())
        })?;
    }
    Ok(())
}

fn survive_a_copy(tailwater: &Tailwater) -> Result<()> {
    for place in ["during_snapshot:3", "during_snapshot:4"] {
        let mut process = tailwater.start_with(&[("TAILWATER_FAILPOINT", place)])?;
        wait_until(DEADLINE, place, || !process.is_running().unwrap_or(true))?;
    }
    let process = tailwater.start()?;
    counts_every_row_once(tailwater, ROWS)?;
    ends_well(process)
}

#[test]
fn a_copy_that_is_cut_short_is_forgotten_before_it_is_taken_again() -> Result<()> {
    let source = large_members(ROWS)?;
    survive_a_copy(&Tailwater::with_config(&config(&source, "")?)?)?;
    let (source, prefix) = (large_members(ROWS)?, unique_name("copy"));
    let brokers = Kafka::shared().bootstrap();
    let kafka = format!("[kafka]\nbrokers = \"{brokers}\"\nprefix = \"{prefix}\"\n");
    survive_a_copy(&Tailwater::with_config(&config(&source, &kafka)?)?)
}

#[test]
fn a_copy_that_loses_its_source_is_taken_again_by_the_same_process() -> Result<()> {
    let source = large_members(3 * ROWS)?;
    let tailwater = Tailwater::with_config(&config(&source, "")?)?;
    let process = tailwater.start()?;
    let copying = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
                   WHERE datname = current_database() AND query LIKE 'COPY %members%' \
                   AND pid <> pg_backend_pid() AND state = 'active'";
    wait_for(DEADLINE, "the copy to be cut short", || {
        ensure!(!source.query(copying)?.is_empty(), "nobody copies");
        Ok(())
    })?;
    counts_every_row_once(&tailwater, 3 * ROWS)?;
    let cut = "failed, trying again what=\"copy the tables\"";
    ensure!(tailwater.log().contains(cut), "it was not cut: {}", tailwater.log_tail());
    ends_well(process)
}

#[test]
fn a_memory_that_the_source_has_left_behind_is_refused_until_it_is_removed() -> Result<()> {
    let source = members()?;
    let with = config(&source, "")?;
    let without = with.split_once("[[plugin]]").context("find the plugins")?.0.to_owned();
    let tailwater = Tailwater::with_config(&with)?;
    begin(&source, &tailwater)?;
    tailwater.set_config(&without)?;
    let mut process = tailwater.start()?;
    process.wait_ready(DEADLINE)?;
    source.execute("INSERT INTO members VALUES (1, 'unseen')")?;
    wait_for(DEADLINE, "the row that no plugin sees", || {
        let answer = tailwater.get("/v0/pipes/members_snapshot.ndjson")?;
        ensure!(answer.text().contains("unseen"), "{}", answer.text());
        Ok(())
    })?;
    ends_well(process)?;
    tailwater.set_config(&with)?;
    let status = tailwater.run_to_end(DEADLINE)?;
    let log = tailwater.log();
    ensure!(status.code() == Some(1), "it ended with {status}");
    ensure!(log.contains("it went on without them; remove the file"), "{log}");
    std::fs::remove_dir_all(tailwater.directory().join("tailwater-data/plugin-state"))?;
    let process = tailwater.start()?;
    source.execute("UPDATE members SET name = 'seen'")?;
    serves(&tailwater, &BTreeMap::from([(1, 1), (FIRST, 1)]))?;
    ends_well(process)
}

/// As under `run --watch`, which grants everything.
#[test]
fn a_plugin_that_keeps_no_state_goes_on_after_a_run_without_it() -> Result<()> {
    let source = members()?;
    let with = config(&source, "")?;
    let without = with.split_once("[[plugin]]").context("find the plugins")?.0.to_owned();
    let plugin = guests::test_guest("identity")?;
    let with = format!(
        "{without}[[plugin]]\nname = \"plain\"\npath = \"{}\"\ngrants = [\"state\", \"clock\"]\n",
        plugin.display()
    );
    let tailwater = Tailwater::with_config(&with)?;
    for (id, settings) in [(1, &with), (2, &without), (3, &with)] {
        tailwater.set_config(settings)?;
        let mut process = tailwater.start()?;
        process.wait_ready(DEADLINE)?;
        source.execute(&format!("INSERT INTO members VALUES ({id}, 'row {id}')"))?;
        wait_for(DEADLINE, "the row", || {
            let answer = tailwater.get("/v0/pipes/members_snapshot.ndjson")?;
            ensure!(answer.text().contains(&format!("row {id}")), "{}", answer.text());
            Ok(())
        })?;
        ends_well(process)?;
    }
    Ok(())
}

/// Processes of a group of sinks come and go, each with a memory of its own, and the partitions between
/// them.
#[test]
fn partitions_that_move_between_sinks_take_what_is_remembered_along() -> Result<()> {
    let seed = seed();
    let mut random = StdRng::seed_from_u64(seed);
    let (source, clickhouse) = (members()?, ClickHouse::start()?);
    let settings = format!("partitions = 4\n\n{}", plugins("sink")?);
    let link = Link::plain(Kafka::shared(), &settings);
    let capture = link.capture(&source, "")?;
    let mut capturing = capture.start()?;
    capturing.wait_ready(DEADLINE)?;
    let homes = (0..SINKS).map(|_| link.sink_into(&clickhouse)).collect::<Result<Vec<_>>>()?;
    let mut sinks: Vec<Option<TailwaterProcess<'_>>> =
        homes.iter().map(|home| home.start().map(Some)).collect::<Result<_>>()?;
    let ends = AtomicBool::new(false);
    let mut counts = thread::scope(|scope| {
        let loading = scope.spawn(|| load(&source, seed, &ends));
        let changed = (0..CHANGES).try_for_each(|_| {
            let (moment, pause) = (Instant::now(), random.random_range(300..3_000));
            let pause = Duration::from_millis(pause);
            wait_until(DEADLINE, "the moment to change", || moment.elapsed() >= pause)?;
            let index = random.random_range(0..SINKS);
            sinks[index] = match sinks[index].take() {
                None => Some(homes[index].start()?),
                Some(sink) if random.random() => sink.kill9().map(|()| None)?,
                Some(sink) => ends_well(sink).map(|()| None)?,
            };
            Ok(())
        });
        ends.store(true, Ordering::Relaxed);
        let counts = loading.join().expect("the load does not panic")?;
        changed.and(Ok::<_, anyhow::Error>(counts))
    })?;
    if sinks[0].is_none() {
        sinks[0] = Some(homes[0].start()?);
    }
    source.execute(&format!("INSERT INTO members VALUES ({FIRST}, 'a')"))?;
    counts.insert(FIRST, 1);
    serves(&homes[0], &counts).with_context(|| {
        let logs: Vec<String> = homes.iter().map(Tailwater::log_tail).collect();
        format!("seed {seed}\n{}", logs.join("\n\n"))
    })
}

/// A sink that had the partition is away for good, and so are the records of which it remembers
/// something.
#[test]
fn a_memory_that_nobody_has_any_more_is_said_instead_of_begun_anew() -> Result<()> {
    let (source, kafka, clickhouse) = (members()?, Kafka::shared(), ClickHouse::shared());
    let link = Link::plain(kafka, &format!("partitions = 1\n\n{}", plugins("sink")?));
    let capture = link.capture(&source, "")?;
    let _capturing = capture.start()?;
    let first = link.sink_into(clickhouse)?;
    begin(&source, &first)?;
    let topic = link.topic("members");
    kafka.delete_records(&topic)?;
    let second = link.sink_into(clickhouse)?;
    let said =
        format!("what the plugins remember of partition 0 of {topic} is not on this machine");
    ends_with(&second, FAILED, &["transport stopped: ", &said])
}

/// Kafka's mark of the last transaction outlives the records before it.
#[test]
fn a_sink_that_remembers_starts_again_when_the_retention_has_emptied_a_table_at_rest() -> Result<()>
{
    let (source, kafka, clickhouse) = (members()?, Kafka::shared(), ClickHouse::shared());
    let link = Link::plain(kafka, &format!("partitions = 1\n\n{}", plugins("sink")?));
    let capture = link.capture(&source, "")?;
    let _capturing = capture.start()?;
    let sink = link.sink_into(clickhouse)?;
    begin(&source, &sink)?;
    let (brokers, topic) = (kafka.bootstrap(), link.topic("members"));
    // The second time the memory ends before what is held already.
    for _ in 0..2 {
        let sinking = sink.start()?;
        let end = end_offset(&brokers, &topic)?;
        wait_for(DEADLINE, "the group to be at the end", || {
            let committed = committed_offsets(&brokers, &link.group(), &topic)?;
            ensure!(committed.get(&0) == Some(&end), "{committed:?}, the end is {end}");
            Ok(())
        })?;
        ensure!(sinking.terminate(DEADLINE)?.success(), "it ended badly");
        kafka.delete_records(&topic)?;
    }
    let _sinking = sink.start()?;
    source.execute(&format!("UPDATE members SET name = 'b' WHERE id = {FIRST}"))?;
    serves(&sink, &BTreeMap::from([(FIRST, 2)]))
}

/// The records of each member have the counts 1, 2, 3, … in this order.
fn each_count_once(brokers: &str, topic: &str, counts: &BTreeMap<usize, u64>) -> Result<()> {
    let mut sent: BTreeMap<usize, Vec<u64>> = BTreeMap::new();
    for record in read_committed(brokers, topic)? {
        let value: serde_json::Value =
            serde_json::from_str(record.value.as_deref().context("no deletes")?)?;
        if value["op"] == "t" {
            continue;
        }
        let after = &value["after"];
        let id = usize::try_from(after["id"].as_u64().context("find the id")?)?;
        let count = after["name"].as_str().context("find the count")?.parse()?;
        sent.entry(id).or_default().push(count);
    }
    for (id, count) in counts {
        let all: Vec<u64> = (1..=*count).collect();
        ensure!(sent.get(id) == Some(&all), "member {id}: {:?}, not 1 to {count}", sent.get(id));
    }
    Ok(())
}
