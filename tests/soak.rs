//! Many deaths, or many tables that change: `cargo xtask soak` runs this, `soak WHAT FIRST COUNT AT_ONCE`, so many
//! seeds beside each other.
#![expect(clippy::print_stdout, reason = "a command-line tool talks on stdout")]

use std::fmt::Debug;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use tailwater_tests::{Altering, Plan, follow, survive};

fn main() -> Result<()> {
    let number = |text: String| text.parse::<u64>().with_context(|| format!("`{text}`"));
    let what = std::env::args().nth(1).unwrap_or_default();
    let numbers = std::env::args().skip(2).map(number).collect::<Result<Vec<_>>>()?;
    let (lives_on, &[first, count, at_once]) = (of(&what)?, numbers.as_slice()) else {
        anyhow::bail!("usage: soak deaths|alters FIRST COUNT AT_ONCE");
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

/// Runs a seed and tells how it went; whether all was well.
type LivesOn = fn(u64) -> bool;

fn of(what: &str) -> Result<LivesOn> {
    match what {
        "deaths" => Ok(|seed| told(seed, Plan::of(seed), survive)),
        "alters" => Ok(|seed| told(seed, Altering::of(seed), follow)),
        other => anyhow::bail!("`{other}` is neither `deaths` nor `alters`"),
    }
}

/// Runs one seed's plan and tells how it went.
fn told<P: Copy + Debug>(seed: u64, plan: P, run: fn(P) -> Result<usize>) -> bool {
    let begun = Instant::now();
    let outcome = run(plan);
    let took = begun.elapsed().as_secs_f64();
    match &outcome {
        Ok(rows) => println!("seed {seed}: {rows} rows equal, {took:.1} s, {plan:?}"),
        Err(error) => println!("seed {seed}: FAILED after {took:.1} s, {plan:?}: {error:?}"),
    }
    outcome.is_ok()
}
