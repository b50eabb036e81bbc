//! Any history of a table, delivered in pieces, several times, by sinks that come and go: the view
//! shows what the source would. The seed is printed; set `TAILWATER_TEST_SEED` to repeat one.

use std::collections::BTreeMap;
use std::ops::Range;

use rand::rngs::StdRng;
use rand::seq::SliceRandom as _;
use rand::{Rng as _, SeedableRng as _};
use tailwater::change::Op;

use crate::feed::{Before, Event, Value, hop, users};
use crate::rig::Rig;

const CASES: u64 = 6;
const EVENTS: usize = 120;
const KEYS: i32 = 6;

/// Batches of a few rows, sent as soon as the one before is stored.
const SMALL: &str = "batch_rows = 7\nflush_interval_ms = 0\n";
const ARGMAX: &str = "dedup = \"argmax\"\n";
const SCATTERED: &str =
    "[tables.\"public.users\"]\norder_by = [\"name\"]\npartition_by = \"ifNull(n, 0) % 3\"\n";

/// A row of the source.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Row {
    name: Option<String>,
    bio: Option<String>,
    n: i32,
}

/// The source: its rows, and all that happened to them.
struct Source {
    rng: StdRng,
    rows: BTreeMap<i32, Row>,
    events: Vec<Event>,
    /// Whether updates leave out long values that did not change, and tell only the old key.
    gaps: bool,
}

impl Source {
    fn with_history(seed: u64, gaps: bool) -> Source {
        let rng = StdRng::seed_from_u64(seed);
        let mut source = Source { rng, rows: BTreeMap::new(), events: Vec::new(), gaps };
        let (mut commit, mut ordinal) = (100, 0);
        while source.events.len() < EVENTS {
            // Some transactions hold several changes.
            let more = source.rng.random_bool(0.4);
            (commit, ordinal) = if more { (commit, ordinal + 1) } else { (commit + 8, 1) };
            source.change(commit, ordinal);
        }
        source
    }

    fn change(&mut self, commit: u64, ordinal: u64) {
        let id = self.rng.random_range(1..=KEYS);
        let found = self.rows.get(&id).cloned();
        let (op, before, after) = match (found, self.rng.random_range(0..100)) {
            (_, 0..3) => {
                self.rows.clear();
                (Op::Truncate, Before::Nothing, None)
            }
            (None, _) => {
                let row = self.row();
                self.rows.insert(id, row.clone());
                (Op::Insert, Before::Nothing, Some(cells(id, &row)))
            }
            (Some(old), 3..25) => {
                self.rows.remove(&id);
                (Op::Delete, self.before(id, &old), None)
            }
            (Some(old), chance) => self.update(id, &old, chance < 45),
        };
        self.events.push(Event { commit, ordinal, op, before, after });
    }

    fn update(&mut self, id: i32, old: &Row, moves: bool) -> (Op, Before, Option<Vec<Value>>) {
        let free = (1..=KEYS).find(|id| !self.rows.contains_key(id)).filter(|_| moves);
        let new_id = free.unwrap_or(id);
        let mut new = self.row();
        let keeps = self.rng.random_bool(0.6);
        if keeps {
            new.bio.clone_from(&old.bio);
        }
        self.rows.remove(&id);
        self.rows.insert(new_id, new.clone());
        let mut after = cells(new_id, &new);
        if keeps && old.bio.is_some() {
            after[2] = Value::Gap;
        }
        let before = match (self.gaps, new_id == id) {
            (true, true) => Before::Nothing,
            _ => self.before(id, old),
        };
        (Op::Update, before, Some(after))
    }

    /// The key alone, or with `REPLICA IDENTITY FULL` the row: that fills every gap.
    fn before(&self, id: i32, row: &Row) -> Before {
        match self.gaps {
            true => {
                let id = Value::Text(id.to_string());
                Before::Key(vec![id, Value::Null, Value::Null, Value::Null])
            }
            false => Before::Full(cells(id, row)),
        }
    }

    fn row(&mut self) -> Row {
        let word = |rng: &mut StdRng| format!("w{}", rng.random_range(0..40));
        Row {
            name: self.rng.random_bool(0.8).then(|| word(&mut self.rng)),
            bio: self.rng.random_bool(0.8).then(|| word(&mut self.rng).repeat(3)),
            n: self.rng.random_range(0..9),
        }
    }

    fn shown(&self) -> Vec<String> {
        let text = |text: &Option<String>| text.clone().unwrap_or_else(|| "\\N".to_owned());
        let line = |(id, row): (&i32, &Row)| {
            format!("{id}\t{}\t{}\t{}", text(&row.name), text(&row.bio), row.n)
        };
        self.rows.iter().map(line).collect()
    }
}

fn cells(id: i32, row: &Row) -> Vec<Value> {
    let text = |text: &Option<String>| text.clone().map_or(Value::Null, Value::Text);
    let number = |number: i32| Value::Text(number.to_string());
    vec![number(id), text(&row.name), text(&row.bio), number(row.n)]
}

/// Ranges of events: everything in order, with steps back to where an earlier life of the source's
/// reader may have resumed.
fn replays(rng: &mut StdRng, length: usize) -> Vec<Range<usize>> {
    let mut ranges = Vec::new();
    let mut at = 0;
    while at < length {
        let end = (at + rng.random_range(1..=12)).min(length);
        ranges.push(at..end);
        let back = rng.random_bool(0.3);
        at = if back { rng.random_range(end.saturating_sub(40)..=end) } else { end };
    }
    ranges
}

/// Ranges of events: everything two times or three, in any order.
fn shuffles(rng: &mut StdRng, length: usize) -> Vec<Range<usize>> {
    let mut ranges = replays(rng, length);
    ranges.extend(replays(rng, length));
    ranges.shuffle(rng);
    ranges
}

type Deliveries = fn(&mut StdRng, usize) -> Vec<Range<usize>>;

#[expect(clippy::print_stdout, reason = "the seed is what a failure is repeated with")]
fn shows_the_source(settings: &str, gaps: bool, deliveries: Deliveries) {
    let first = seed();
    for seed in first..first + CASES {
        println!("TAILWATER_TEST_SEED={seed}");
        let source = Source::with_history(seed, gaps);
        let mut rng = StdRng::seed_from_u64(!seed);
        let rig = Rig::new(&format!("{SMALL}{settings}"));
        let ranges = deliveries(&mut rng, source.events.len());
        // Each chunk has a sink of its own.
        for life in ranges.chunks(rng.random_range(4..20)) {
            let hops = life.iter().map(|range| hop(&users(), &source.events[range.clone()]));
            let stored = rig.deliver(hops).expect("the sink stores");
            let reached = stored.last().expect("it stored something").confirm.0;
            let sent = life.iter().map(|range| source.events[range.end - 1].commit).max();
            assert!(Some(reached) <= sent, "it acknowledged what never came");
        }
        assert_eq!(rig.users(), source.shown(), "seed {seed}");
        assert_eq!(rig.dead_letters(), [""; 0], "seed {seed}");
        rig.merge("users_versions");
        assert_eq!(rig.users(), source.shown(), "seed {seed}, merged");
    }
}

fn seed() -> u64 {
    match std::env::var("TAILWATER_TEST_SEED") {
        Ok(seed) => seed.parse().expect("TAILWATER_TEST_SEED is a number"),
        Err(_) => rand::random_range(0..u64::MAX / 2),
    }
}

#[test]
fn replayed_histories_show_the_source() {
    shows_the_source("", true, replays);
}

#[test]
fn replayed_histories_show_the_source_with_argmax() {
    shows_the_source(ARGMAX, true, replays);
}

#[test]
fn replayed_histories_show_the_source_under_a_sorting_key_of_the_users() {
    shows_the_source(SCATTERED, true, replays);
}

#[test]
fn shuffled_histories_show_the_source() {
    shows_the_source("", false, shuffles);
}

#[test]
fn shuffled_histories_show_the_source_with_argmax() {
    shows_the_source(ARGMAX, false, shuffles);
}

#[test]
fn shuffled_histories_show_the_source_under_a_sorting_key_of_the_users() {
    shows_the_source(SCATTERED, false, shuffles);
}
