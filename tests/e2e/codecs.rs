//! Every codec of Kafka's batches carries a backlog whole, and in a memory that does not grow with what a
//! fetch holds once it is decompressed.

use std::thread;

use anyhow::{Context as _, Result, anyhow, ensure};
use tailwater_test_support::workload::Runner;
use tailwater_test_support::{ClickHouse, Kafka, Postgres, PostgresVersion};
use tailwater_tests::wait_sent;

use crate::legs::{DEADLINE, Link};
use crate::outages::{recovers, stays_below};

const RATE: u64 = 100;

/// Each codec, and rows of its backlog: with zstd, which makes the most of a fetch, nearly 100 MiB of them.
const BACKLOGS: [(&str, u32); 5] =
    [("none", 1_000), ("gzip", 1_000), ("snappy", 1_000), ("lz4", 1_000), ("zstd", 20_000)];

/// What each half may take, in MiB. A debug build has 50 without a backlog; with a slow ClickHouse the sink's bounds come on
/// top, of fetches, queues and inserts, but not the backlog.
const MEMORY: u64 = 180;

/// Rows of 4.6 kB that zstd packs into less than a twentieth, all of them gone again in the end.
fn backlog(rows: u32) -> String {
    format!(
        "INSERT INTO users (id, name, email) SELECT 1000000 + n, repeat(piece, 12), 'e'
         FROM generate_series(1, {rows}) n,
         LATERAL (SELECT string_agg(md5(n || '-' || m), '') AS piece FROM generate_series(1, 12) m) p;
         TRUNCATE users"
    )
}

fn carries(codec: &'static str, rows: u32) -> Result<()> {
    let source = Postgres::shared(PostgresVersion::V18).create_database()?;
    let kafka = Kafka::shared();
    let workload = Runner::start(&source.url(), 71, RATE)?;
    let link = Link::plain(kafka, &format!("compression = \"{codec}\""));
    let (capture, sink) = (link.capture(&source, "")?, link.sink_into(ClickHouse::shared())?);
    let capturing = capture.start()?;
    wait_sent(&capture, &source)?;
    source.execute(&backlog(rows))?;
    wait_sent(&capture, &source)?;
    let sinking = sink.start()?;
    recovers(&source, workload, &sink)?;
    stays_below(MEMORY, &capturing).context("the capture")?;
    stays_below(MEMORY, &sinking).context("the sink")?;
    ensure!(capturing.terminate(DEADLINE)?.success(), "the capture ended badly");
    ensure!(sinking.terminate(DEADLINE)?.success(), "the sink ended badly");
    let records = kafka.records_by_codec(&link.topic("users"))?;
    let of_codec = records.get(codec).copied().unwrap_or_default();
    ensure!(of_codec > rows && records.len() == 1, "the records by their codecs: {records:?}");
    Ok(())
}

#[test]
fn every_codec_carries_a_backlog_whole_in_bounded_memory() -> Result<()> {
    thread::scope(|scope| {
        let running =
            BACKLOGS.map(|(codec, rows)| (codec, scope.spawn(move || carries(codec, rows))));
        for (codec, way) in running {
            let carried = way.join().map_err(|_| anyhow!("{codec} panicked"))?;
            carried.with_context(|| format!("with the codec {codec}"))?;
        }
        Ok(())
    })
}
