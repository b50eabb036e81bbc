//! A load that comes and goes: a wave of inserts, updates and deletes on one table, whose size
//! stays bounded.

use std::f64::consts::TAU;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::Result;
use tailwater_test_support::{Session, wait_until};

/// Changes a second at the trough and at the crest of the wave.
const RATES: (f64, f64) = (200.0, 6_000.0);
/// From crest to crest.
const PERIOD: Duration = Duration::from_secs(120);
/// A transaction this often.
const TICK: Duration = Duration::from_millis(50);
/// Rows that the table keeps.
const ROWS: u64 = 50_000;

/// A thread that writes.
pub(super) struct Load {
    thread: JoinHandle<Result<u64>>,
    /// Changes of the last transaction.
    last: Arc<AtomicU64>,
}

impl Load {
    pub(super) fn start(session: Session, ended: Arc<AtomicBool>) -> Self {
        let last = Arc::<AtomicU64>::default();
        let told = Arc::clone(&last);
        let thread = std::thread::spawn(move || {
            let (begun, mut ticks, mut next, mut changes) = (Instant::now(), 0u32, 1, 0);
            while !ended.load(Ordering::Relaxed) {
                let now = begun.elapsed();
                // As many inserts as updates, and as many deletes once the table is full.
                let rows = rows(rate(now));
                session.execute(&transaction(next, rows))?;
                (next, changes) = (next + rows, changes + 3 * rows);
                told.store(3 * rows, Ordering::Relaxed);
                ticks += 1;
                let ahead = (TICK * ticks).saturating_sub(begun.elapsed());
                drop(wait_until(ahead, "the next transaction", || false));
            }
            Ok(changes)
        });
        Self { thread, last }
    }

    /// Changes a second.
    pub(super) fn rate(&self) -> f64 {
        self.last.load(Ordering::Relaxed) as f64 / TICK.as_secs_f64()
    }

    /// The number of changes, once it was told to end.
    pub(super) fn join(self) -> Result<u64> {
        self.thread.join().expect("the load does not panic")
    }
}

/// Inserts of a transaction, at least one: the next rate is reached from any.
fn rows(rate: f64) -> u64 {
    let wanted = rate * TICK.as_secs_f64() / 3.0;
    (1..).find(|rows| *rows as f64 >= wanted).unwrap_or(1)
}

fn rate(at: Duration) -> f64 {
    let (low, high) = RATES;
    let wave = (1.0 - (TAU * at.as_secs_f64() / PERIOD.as_secs_f64()).cos()) / 2.0;
    low + (high - low) * wave
}

fn transaction(next: u64, rows: u64) -> String {
    let last = next + rows - 1;
    let old = |id: u64| id.saturating_sub(ROWS);
    format!(
        "BEGIN; INSERT INTO users (id, name, email, address, phone_number, lang) \
         SELECT g, 'Ada Brandt ' || g, 'ada.' || g || '@shop.example.net', \
         'Bergstrasse ' || g % 200, '+351 ' || g, 'pt-BR' FROM generate_series({next}, {last}) g; \
         UPDATE users SET lang = 'de', updated_at = clock_timestamp() \
         WHERE id BETWEEN {next} AND {last}; \
         DELETE FROM users WHERE id BETWEEN {} AND {}; COMMIT",
        old(next),
        old(last)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wave_stays_between_trough_and_crest() {
        let (low, high) = RATES;
        assert!((rate(Duration::ZERO) - low).abs() < 1e-6);
        assert!((rate(PERIOD / 2) - high).abs() < 1e-6);
    }
}
