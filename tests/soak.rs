//! Many deaths: `cargo xtask soak` runs this, `soak FIRST COUNT AT_ONCE`, so many seeds beside each
//! other.
#![expect(clippy::print_stdout, reason = "a command-line tool talks on stdout")]

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use tailwater_tests::{Plan, survive};

fn main() -> Result<()> {
    let number = |text: String| text.parse::<u64>().with_context(|| format!("`{text}`"));
    let numbers = std::env::args().skip(1).map(number).collect::<Result<Vec<_>>>()?;
    let &[first, count, at_once] = numbers.as_slice() else {
        anyhow::bail!("usage: soak FIRST COUNT AT_ONCE");
    };
    let (next, failed) = (AtomicU64::new(first), Mutex::new(Vec::new()));
    thread::scope(|scope| {
        for _ in 0..at_once {
            scope.spawn(|| {
                while let Some(seed) = take(&next, first + count) {
                    if !lives_on(seed) {
                        failed.lock().expect("no thread panics with it").push(seed);
                    }
                }
            });
        }
    });
    let failed = failed.into_inner().expect("no thread panics with it");
    ensure!(failed.is_empty(), "{} of {count} seeds failed: {failed:?}", failed.len());
    println!("{count} seeds, nothing lost, nothing doubled");
    Ok(())
}

fn take(next: &AtomicU64, end: u64) -> Option<u64> {
    let seed = next.fetch_add(1, Ordering::Relaxed);
    (seed < end).then_some(seed)
}

/// Runs one seed and tells how it went.
fn lives_on(seed: u64) -> bool {
    let (plan, begun) = (Plan::of(seed), Instant::now());
    let outcome = survive(plan);
    let took = begun.elapsed().as_secs_f64();
    match &outcome {
        Ok(rows) => println!("seed {seed}: {rows} rows equal, {took:.1} s, {plan:?}"),
        Err(error) => println!("seed {seed}: FAILED after {took:.1} s, {plan:?}: {error:?}"),
    }
    outcome.is_ok()
}
