//! Several sinks share a group, come and go under load, in order and by SIGKILL.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use tailwater_test_support::workload::Runner;
use tailwater_test_support::{
    ClickHouse, Kafka, Postgres, PostgresVersion, Tailwater, TailwaterProcess, wait_for, wait_until,
};
use tailwater_tests::{
    Emails, Record, committed_offsets, end_offset_of, read_committed, wait_equal, wait_sent,
};

use crate::kill::seed;
use crate::legs::{DEADLINE, Link};

const MEMBERS: usize = 3;
const CHANGES: usize = 12;
const RATE: u64 = 1_000;

#[test]
fn members_that_come_and_go_leave_an_exact_copy_and_the_offsets_at_the_end() -> Result<()> {
    let seed = seed();
    let mut random = StdRng::seed_from_u64(seed);
    let source = Postgres::shared(PostgresVersion::V18).create_database()?;
    let (kafka, clickhouse) = (Kafka::shared(), ClickHouse::start()?);
    let workload = Runner::start(&source.url(), seed, RATE)?;
    let link = Link::plain(kafka, "partitions = 4");
    let capture = link.capture(&source, "")?;
    let mut capturing = capture.start()?;
    capturing.wait_ready(DEADLINE)?;
    let homes = (0..MEMBERS).map(|_| link.sink_into(&clickhouse)).collect::<Result<Vec<_>>>()?;
    let mut members: Vec<Option<TailwaterProcess<'_>>> =
        homes.iter().map(|home| home.start().map(Some)).collect::<Result<_>>()?;
    for _ in 0..CHANGES {
        let (moment, pause) = (Instant::now(), random.random_range(100..2_000));
        let pause = Duration::from_millis(pause);
        wait_until(DEADLINE, "the moment to change", || moment.elapsed() >= pause)?;
        let index = random.random_range(0..MEMBERS);
        members[index] = match members[index].take() {
            None => Some(homes[index].start()?),
            Some(member) if random.random() => member.kill9().map(|()| None)?,
            Some(member) => {
                let status = member.terminate(DEADLINE)?;
                ensure!(status.success(), "a member ended with {status}");
                None
            }
        };
    }
    if members[0].is_none() {
        members[0] = Some(homes[0].start()?);
    }
    let counts = workload.stop()?;
    wait_sent(&capture, &source)?;
    wait_equal(&source, &homes[0].http_url(), Emails::Plain, DEADLINE)
        .with_context(|| format!("seed {seed}, {counts:?}; {}", homes[0].log_tail()))?;
    offsets_reach_the_end(kafka, &link).with_context(|| {
        let logs: Vec<_> = homes.iter().map(Tailwater::log_tail).collect();
        format!("seed {seed}\n{}", logs.join("\n\n"))
    })
}

/// The group goes on at the end of each partition that has records, behind the last transaction's mark.
fn offsets_reach_the_end(kafka: &Kafka, link: &Link) -> Result<()> {
    let topic = link.topic("users");
    let mut ends = std::collections::BTreeMap::new();
    for Record { partition, .. } in read_committed(&kafka.bootstrap(), &topic)? {
        ends.insert(partition, 0);
    }
    for (partition, end) in &mut ends {
        *end = end_offset_of(&kafka.bootstrap(), &topic, *partition)?;
    }
    ensure!(ends.len() > 1, "the rows are in one partition only: {ends:?}");
    wait_for(DEADLINE, "the group's offsets to be at the end", || {
        let mut committed = committed_offsets(&kafka.bootstrap(), &link.group(), &topic)?;
        committed.retain(|partition, _| ends.contains_key(partition));
        ensure!(committed == ends, "committed {committed:?}, the ends are {ends:?}");
        Ok(())
    })
}
