//! Many deaths: `cargo xtask soak` runs this, `soak FIRST COUNT`, one seed after the other.
#![expect(clippy::print_stdout, reason = "a command-line tool talks on stdout")]

use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use tailwater_tests::{Plan, survive};

fn main() -> Result<()> {
    let number = |text: String| text.parse::<u64>().with_context(|| format!("`{text}`"));
    let numbers = std::env::args().skip(1).map(number).collect::<Result<Vec<_>>>()?;
    let &[first, count] = numbers.as_slice() else {
        anyhow::bail!("usage: soak FIRST COUNT");
    };
    let mut failed = Vec::new();
    for seed in first..first + count {
        let (plan, begun) = (Plan::of(seed), Instant::now());
        let took = || begun.elapsed().as_secs_f64();
        match survive(plan) {
            Ok(rows) => println!("seed {seed}: {rows} rows equal, {:.1} s, {plan:?}", took()),
            Err(error) => {
                println!("seed {seed}: FAILED after {:.1} s, {plan:?}: {error:?}", took());
                failed.push(seed);
            }
        }
    }
    ensure!(failed.is_empty(), "{} of {count} seeds failed: {failed:?}", failed.len());
    println!("{count} seeds, nothing lost, nothing doubled");
    Ok(())
}
