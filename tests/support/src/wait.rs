//! Waiting for a condition, never for a time.

use std::future::Future;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

const POLL: Duration = Duration::from_millis(20);

/// Polls `attempt` until it succeeds and returns its value; after `deadline` the error names `what`
/// was waited for and carries the last attempt's error.
pub fn wait_for<T>(
    deadline: Duration,
    what: &str,
    mut attempt: impl FnMut() -> Result<T>,
) -> Result<T> {
    let end = Instant::now() + deadline;
    loop {
        match attempt() {
            Ok(value) => return Ok(value),
            Err(error) if Instant::now() >= end => {
                return Err(error).with_context(|| timed_out(deadline, what));
            }
            Err(_) => std::thread::sleep(POLL),
        }
    }
}

/// Polls `condition` until it holds; after `deadline` the error names `what` was waited for.
pub fn wait_until(
    deadline: Duration,
    what: &str,
    mut condition: impl FnMut() -> bool,
) -> Result<()> {
    let end = Instant::now() + deadline;
    while !condition() {
        if Instant::now() >= end {
            bail!(timed_out(deadline, what));
        }
        std::thread::sleep(POLL);
    }
    Ok(())
}

/// [`wait_until`] for a condition that awaits.
pub async fn wait_until_async<F: Future<Output = bool>>(
    deadline: Duration,
    what: &str,
    mut condition: impl FnMut() -> F,
) -> Result<()> {
    let end = Instant::now() + deadline;
    while !condition().await {
        if Instant::now() >= end {
            bail!(timed_out(deadline, what));
        }
        tokio::time::sleep(POLL).await;
    }
    Ok(())
}

fn timed_out(deadline: Duration, what: &str) -> String {
    format!("waited {deadline:?} in vain for {what}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_condition_that_never_holds_is_an_error_that_names_it() {
        let error = wait_until(Duration::from_millis(30), "the moon", || false).unwrap_err();
        assert!(error.to_string().contains("the moon"), "{error}");
    }

    #[test]
    fn the_last_attempts_error_is_kept() {
        let error = wait_for(Duration::from_millis(30), "x", || -> Result<()> { bail!("why") });
        assert!(format!("{:#}", error.unwrap_err()).ends_with("why"));
    }
}
