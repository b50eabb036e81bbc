//! The end of leg A: batches go into Kafka, transaction by transaction.

use std::time::{Instant, SystemTime};

use tokio::runtime::Handle;
use tokio::sync::mpsc::Receiver;

use crate::failpoint;
use crate::hop::{Hop, LogPoint};
use crate::transport::{Delivered, Error, Producer};

enum Next {
    Hop(Box<Hop<LogPoint>>),
    Due,
    End,
}

/// Sends all that comes and tells `on_delivered` of every commit. Ends when the input does and the
/// rest is committed.
///
/// # Errors
/// Kafka's. What was not committed will not be read by anybody who reads committed records.
pub(super) fn run(
    producer: &mut Producer,
    mut input: Receiver<Hop<LogPoint>>,
    runtime: &Handle,
    mut on_delivered: impl FnMut(Delivered<LogPoint>),
) -> Result<(), Error> {
    loop {
        let deadline = producer.deadline(producer.is_behind(SystemTime::now()));
        let next = runtime.block_on(next(&mut input, deadline));
        let ended = matches!(next, Next::End);
        if let Next::Hop(hop) = next {
            failpoint::pass("before_send");
            producer.send(*hop)?;
            failpoint::pass("after_send");
        }
        let is_behind = !input.is_empty() || producer.is_behind(SystemTime::now());
        if ended || producer.is_due(Instant::now(), is_behind) {
            failpoint::pass("before_commit");
            if let Some(delivered) = producer.commit()? {
                failpoint::pass("after_commit");
                on_delivered(delivered);
            }
        }
        if ended {
            return Ok(());
        }
    }
}

async fn next(input: &mut Receiver<Hop<LogPoint>>, deadline: Option<Instant>) -> Next {
    let received = match deadline {
        Some(deadline) => match tokio::time::timeout_at(deadline.into(), input.recv()).await {
            Ok(received) => received,
            Err(_) => return Next::Due,
        },
        None => input.recv().await,
    };
    received.map_or(Next::End, |hop| Next::Hop(Box::new(hop)))
}
