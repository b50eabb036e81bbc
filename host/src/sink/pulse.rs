//! Whether ClickHouse is there, asked while nothing is stored too: a server that went away during a
//! quiet night is to be told before the first row in the morning.

use std::time::Duration;

use tokio::time::{sleep, timeout};

use super::client::Client;
use crate::serve::Leg;

/// Together less than the five seconds within which a leg that stands still has to be told.
const INTERVAL: Duration = Duration::from_secs(1);
const PATIENCE: Duration = Duration::from_secs(3);

/// Asks again and again; the leg stalls while there is no answer. Ends when it is dropped.
pub(super) async fn watch(client: Client, leg: Leg) {
    let mut silent = false;
    loop {
        sleep(INTERVAL).await;
        let reason = match timeout(PATIENCE, client.execute("answer", "SELECT 1")).await {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(error.sentence()),
            Err(_) => Some(format!("ClickHouse does not answer within {PATIENCE:?}")),
        };
        match reason {
            Some(reason) => {
                if !silent {
                    tracing::warn!(reason, "ClickHouse does not answer");
                }
                silent = true;
                leg.stalled(reason);
            }
            None if silent => {
                tracing::info!("ClickHouse answers again");
                silent = false;
                leg.moving();
            }
            None => {}
        }
    }
}
