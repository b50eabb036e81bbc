//! Watches what the slot holds back and how far the source is: metrics, and an input of readiness.

use std::sync::Arc;
use std::time::Duration;

use tokio_postgres::Client;
use tracing::warn;

use super::catalog;
use super::error::Error;
use super::source_url::SourceUrl;
use crate::position::Lsn;
use crate::serve::Leg;
use crate::shutdown::{Phase, Shutdown};
use crate::telemetry::logging::{Repeated, chain};
use crate::telemetry::metrics::Metrics;

const INTERVAL: Duration = Duration::from_secs(5);
/// A look that takes longer hangs: its connection is given up, and another one looks next time.
const PATIENCE: Duration = Duration::from_secs(5);
/// One that fails is the source that restarts, of which the capture tells.
const FAILURES: u32 = 3;

const SLOT: &str = "
    SELECT coalesce(pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn), 0)::int8, wal_status,
           pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0')::int8
    FROM pg_replication_slots WHERE slot_name = $1";

/// Keeps the slot's metrics true until the process drains. A source that cannot be asked is asked
/// again.
pub async fn watch_slot(
    url: SourceUrl,
    slot: String,
    leg: Leg,
    metrics: Arc<Metrics>,
    shutdown: Shutdown,
) {
    let mut client = None;
    let mut safe = true;
    let (mut failures, unseen) = (0, Repeated::new("look at the slot"));
    loop {
        let looking = tokio::time::timeout(PATIENCE, look(&url, &slot, &mut client)).await;
        match looking.unwrap_or(Err(Error::Silent(PATIENCE))) {
            Ok(Some((retained, status, end))) => {
                failures = 0;
                unseen.succeeded();
                // Heard of here also while nothing is read from the stream.
                metrics.source_is_at(end);
                metrics.slot_retained_bytes.set(retained);
                let now_safe = !matches!(status.as_str(), "unreserved" | "lost");
                match now_safe {
                    true => leg.moving(),
                    false => leg.stalled(format!("slot {slot} is {status}: it may lose its log")),
                }
                if safe && !now_safe {
                    warn!(
                        slot,
                        status,
                        retained,
                        "the slot is about to lose its write-ahead log; raise \
                         max_slot_wal_keep_size"
                    );
                }
                safe = now_safe;
                metrics.slot_safe.set(i64::from(safe));
            }
            Ok(None) => failures = 0,
            Err(error) => {
                client = None;
                failures += 1;
                // The stream may well go on, but nobody watches whether it is safe.
                if failures >= FAILURES {
                    let why = chain(&error);
                    leg.stalled(format!("the source does not say how slot {slot} is: {why}"));
                    unseen.failed(&error);
                }
            }
        }
        let wait = tokio::time::timeout(INTERVAL, shutdown.reached(Phase::Draining));
        if wait.await.is_ok() {
            return;
        }
    }
}

async fn look(
    url: &SourceUrl,
    slot: &str,
    client: &mut Option<Client>,
) -> Result<Option<(i64, String, Lsn)>, Error> {
    let open = match client.take() {
        Some(open) => open,
        None => catalog::connect(url).await?,
    };
    let row = open.query_opt(SLOT, &[&slot]).await?;
    *client = Some(open);
    Ok(row.map(|row| {
        let status = row.get::<_, Option<String>>(1).unwrap_or_default();
        (row.get(0), status, Lsn(row.get::<_, i64>(2).try_into().unwrap_or_default()))
    }))
}
