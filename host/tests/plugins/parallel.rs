//! Plugins on different tables compute at the same time, and nobody can tell from what comes of it.

use std::collections::HashSet;
use std::io::{self, Write};
use std::sync::{Arc, Condvar, LazyLock, Mutex, Once};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use tailwater::change::Changes;
use tailwater::plugin::Options;
use tailwater::table::{ColumnType, Table};
use tailwater::telemetry::metrics::{PluginKindLabels, PluginLabels};
use tracing::Level;

use crate::batch::{Batch, NULL, lines, seed, table};
use crate::chains::{Loaded, load, options, plugin_file, test_guest_file};

/// Rows of each table of a batch: enough for it to pay.
const ROWS: u64 = 4000;

/// `(id integer primary key, name text not null, email text)`
fn members_of(name: &str) -> Arc<Table> {
    let text = ColumnType::Text;
    table(name, &[("id", ColumnType::Int4), ("name", text.clone()), ("email", text)])
}

/// A test guest under a name of its own.
fn guest(name: &str, guest: &str, deed: &str, settings: &str) -> Options {
    let settings = format!("{settings}\nconfig = {{ deed = '{deed}' }}");
    Options { name: name.to_owned(), ..options(&test_guest_file(guest), &settings) }
}

/// Inserts into two tables in turns; the row of that number is poison.
fn in_turns(commit: u64, poison: Option<u64>) -> Changes {
    let tables = [members_of("left"), members_of("right")];
    let insert = |batch: Batch, row: u64| {
        let name = if Some(row) == poison { "poison" } else { "ann" };
        let table = &tables[usize::from(row.is_multiple_of(2))];
        batch.insert(table, &[&(row / 2).to_string(), name, ""])
    };
    (1..=2 * ROWS).fold(Batch::at(commit), insert).done()
}

impl Loaded {
    fn parallel_batches(&self) -> u64 {
        self.metrics.plugin_parallel_batches.get()
    }

    /// Whether the next batch, of as many rows, is going to be shown to several at once.
    fn warmed_up(mut self) -> Loaded {
        for commit in 1..=2 {
            assert_eq!(self.run(&mut in_turns(commit, None)), []);
        }
        assert_eq!(self.parallel_batches(), u64::from(has_cores()), "their pace is known by now");
        self
    }

    fn calls_of(&self, plugin: &str) -> u64 {
        let labels = PluginLabels { plugin: plugin.to_owned() };
        self.metrics.plugin_calls.get_or_create(&labels).get()
    }

    fn faults_of(&self, plugin: &str, kind: &'static str) -> u64 {
        let labels = PluginKindLabels { plugin: plugin.to_owned(), kind };
        self.metrics.plugin_faults.get_or_create(&labels).get()
    }
}

fn has_cores() -> bool {
    std::thread::available_parallelism().is_ok_and(|cores| cores.get() > 1)
}

/// Where plugins wait for each other with a line that they log; who waited in vain is not there.
#[derive(Default)]
struct Meeting {
    here: Mutex<HashSet<&'static str>>,
    is_on: Mutex<bool>,
    came: Condvar,
}

static MEETING: LazyLock<Meeting> = LazyLock::new(Meeting::default);
/// How long one waits for the other.
const PATIENCE: Duration = Duration::from_secs(60);

impl Meeting {
    fn begin(&self) {
        self.here.lock().expect("nobody panicked").clear();
        *self.is_on.lock().expect("nobody panicked") = true;
    }

    fn arrive(&self, who: &'static str) {
        if !*self.is_on.lock().expect("nobody panicked") {
            return;
        }
        let mut here = self.here.lock().expect("nobody panicked");
        here.insert(who);
        self.came.notify_all();
        let met = self.came.wait_timeout_while(here, PATIENCE, |here| here.len() < 2);
        let (mut here, waited) = met.expect("nobody panicked");
        if waited.timed_out() {
            here.remove(who);
        }
    }
}

/// The log of this process as long as a test has none of its own.
struct Lines;

impl Write for Lines {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(line);
        for who in ["meets-left", "meets-right"] {
            if text.contains(&format!("\"plugin\":\"{who}\"")) {
                MEETING.arrive(who);
            }
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Sets the log of this process. Else a place that another thread meets first is at times taken for one that nobody
/// listens to at all, while the listeners of single tests come and go.
pub fn hear_everything() {
    static HEARD: Once = Once::new();
    HEARD.call_once(|| {
        let lines = tracing_subscriber::fmt().json().flatten_event(true);
        let log = lines.with_max_level(Level::DEBUG).with_writer(|| Lines).finish();
        tracing::subscriber::set_global_default(log).expect("it is set here only");
    });
}

/// Each waits inside of its call until the other is in its own.
#[test]
fn plugins_on_different_tables_are_in_their_calls_at_the_same_time() {
    if !has_cores() {
        return;
    }
    hear_everything();
    let member = |name, tables| {
        let settings = format!("tables = ['{tables}']\ndeadline_ms = 120000");
        guest(name, "hostile", "log-at-each-level", &settings)
    };
    let members = vec![member("meets-left", "left"), member("meets-right", "right")];
    let mut chain = load(members).expect("both load").warmed_up();
    MEETING.begin();
    assert_eq!(chain.run(&mut in_turns(3, None)), []);
    assert_eq!(MEETING.here.lock().expect("nobody panicked").len(), 2);
}

#[test]
fn members_of_one_table_see_what_those_before_made_of_it() {
    let grant = |tables: &str| format!("tables = ['{tables}']\ngrants = ['state']");
    let once = "config = { where = [{ column = 'name', value = '3' }] }";
    let mut chain = load(vec![
        guest("count-left", "rememberer", "count", &grant("left")),
        guest("count-right", "rememberer", "count", &grant("right")),
        options(&plugin_file("filter-rows"), once),
    ])
    .expect("all load")
    .warmed_up();
    let mut third = in_turns(3, None);
    assert_eq!(chain.run(&mut third), []);
    assert_eq!(third.len() as u64, 2 * ROWS, "each row was counted twice before");
    assert_eq!(chain.run(&mut in_turns(4, None)), []);
    let mut fifth = in_turns(5, None);
    assert_eq!(chain.run(&mut fifth), []);
    assert!(fifth.is_empty());
}

#[test]
fn what_one_plugin_of_a_batch_fails_on_costs_the_other_nothing() {
    // Long enough that no part is cut short on a machine that is busy.
    for (deed, kind, deadline) in
        [("panic-on-poison", "trap", 10_000), ("loop-on-poison", "deadline", 1600)]
    {
        let settings = format!("tables = ['left']\ndeadline_ms = {deadline}");
        let left = guest("fails", "hostile", deed, &settings);
        let right = "tables = ['right']\ngrants = ['state']";
        let mut chain = load(vec![left, guest("counts", "rememberer", "count", right)])
            .expect("both load")
            .warmed_up();
        let (calls, batches) = (chain.calls_of("counts"), chain.parallel_batches());
        let mut changes = in_turns(3, Some(301));
        let letters = chain.run(&mut changes);
        let failed: Vec<u64> = letters.iter().map(|letter| letter.position.ordinal).collect();
        assert_eq!(failed, [301], "{deed}");
        assert_eq!(changes.len() as u64, 2 * ROWS - 1, "{deed}");
        // One per level of the search; one more for a row that hangs, if the machine was busy in the first call.
        let most = if kind == "deadline" { 5 } else { 4 };
        assert!((4..=most).contains(&chain.faults_of("fails", kind)), "{deed}");
        let calls = chain.calls_of("counts") - calls;
        assert_eq!(calls, ROWS, "{deed}: one where the table changes, and none again");
        let counted = lines(&changes);
        let counted = counted.iter().filter(|line| line.contains(" right -> ("));
        assert!(counted.clone().all(|line| line.ends_with(",3,)")), "{deed}");
        assert_eq!(chain.parallel_batches() - batches, u64::from(has_cores()), "{deed}");
    }
}

#[test]
fn what_was_asked_before_a_halt_never_happened() {
    let left = guest("halts", "hostile", "fault-on-poison", "tables = ['left']\non_error = 'halt'");
    let right = "tables = ['right']\ngrants = ['state']";
    let mut chain = load(vec![left, guest("counts", "rememberer", "count", right)])
        .expect("both load")
        .warmed_up();
    for _ in 0..2 {
        chain.chain.transform(&mut in_turns(3, Some(301))).expect_err("it halts");
    }
    let mut again = in_turns(3, None);
    assert_eq!(chain.run(&mut again), []);
    let last = lines(&again).pop().expect("many");
    assert_eq!(last, format!("c 3:{} right -> ({ROWS},3,)", 2 * ROWS), "its third count");
}

#[test]
fn the_time_before_its_turn_is_a_plugins_own() {
    let member = |name: &str| {
        let settings = format!("tables = ['{name}']\ngrants = ['state']");
        guest(name, "rememberer", "count", &settings)
    };
    let mut chain = load(vec![member("left"), member("right")]).expect("both load").warmed_up();
    assert_eq!(chain.run(&mut in_turns(3, None)), []);
    let seconds = |metric: &str, name: &str| -> f64 {
        let labels = format!("{{plugin=\"{name}\"}} ");
        let lines = chain.exposed(metric);
        let value = lines.iter().find_map(|line| line.strip_prefix(&labels));
        value.and_then(|text| text.parse().ok()).expect("a number of seconds")
    };
    for name in ["left", "right"] {
        let busy = seconds("busy_seconds_total", name);
        let called = seconds("call_seconds_sum", name);
        assert!(busy >= called && called > 0.0, "{name}: {busy} of which {called} in calls");
    }
    let all = chain.metrics.expose();
    let batches = format!("tailwater_plugin_parallel_batches_total {}", chain.parallel_batches());
    assert!(all.lines().any(|line| line == batches), "{all}");
}

/// Members that fail, ask for another try, trap, drop, remember and route, most on tables of their own.
fn various() -> Vec<Options> {
    let state = |tables: &str| format!("tables = [{tables}]\ngrants = ['state']\nretries = 2");
    let named = |name: &str, file: &str, settings: &str| Options {
        name: name.to_owned(),
        ..options(&plugin_file(file), settings)
    };
    let routes = "tables = ['f']\nconfig = { column = 'name', schemas = { a = 'x', b = 'y' } }";
    let filters = "tables = ['b', 'e']\nconfig = { match = 'any', where = [\
                   { column = 'name', value = '1' }, { column = 'name', value = '3' }] }";
    vec![
        guest("retries", "rememberer", "retry-on-poison", &state("'a'")),
        guest("counts", "rememberer", "panic-on-poison", &state("'b', 'e'")),
        named("dedups", "drop-duplicates", "tables = ['c']\nconfig = { columns = ['name'] }"),
        guest("traps", "hostile", "panic-on-poison", "tables = ['d']\nbatch_rows = 100"),
        named("filters", "filter-rows", filters),
        named("routes", "route-by-value", routes),
        named("masks", "mask-email", "tables = ['x.f']"),
        guest("recounts", "rememberer", "fault-on-poison", &state("'d', 'y.f'")),
        guest("again", "hostile", "retry-on-poison", "tables = ['a', 'e']\nbatch_rows = 100"),
    ]
}

fn random_batch(random: &mut StdRng, tables: &[Arc<Table>], commit: u64) -> Changes {
    let mut batch = Batch::at(commit);
    for _ in 0..3000 {
        let table = &tables[random.random_range(0..tables.len())];
        let ids = [50, 2000][random.random_range(0..2)];
        let id = random.random_range(0..ids).to_string();
        let name = match random.random_range(0..500) {
            0 => "poison",
            other => ["a", "b", "c", "x"][other % 4],
        };
        let new = [id.as_str(), name, "ann@example.com"];
        batch = match random.random_range(0..300) {
            0 => batch.truncate(table),
            1..15 => batch.delete(table, &[&id, NULL, NULL]),
            15..30 => batch.replace(table, &[&id, "a", "bob@example.com"], &new),
            30..180 => batch.update(table, &new),
            _ => batch.insert(table, &new),
        };
    }
    batch.done()
}

/// The same members, each in a chain of its own, cannot compute at the same time.
#[test]
fn a_batch_comes_out_as_if_its_plugins_had_computed_one_after_another() {
    let seed = seed();
    let mut random = StdRng::seed_from_u64(seed);
    let tables = ["a", "b", "c", "d", "e", "f"].map(members_of);
    let mut together = load(various()).expect("all load");
    let one_by_one = various().into_iter().map(|options| load(vec![options]).expect("it loads"));
    let mut one_by_one: Vec<Loaded> = one_by_one.collect();
    let mut failed = 0;
    for commit in 1..=12 {
        let mut changes = random_batch(&mut random, &tables, commit);
        let mut expected = changes.clone();
        let letters = together.run(&mut changes);
        let mut alone = one_by_one.iter_mut();
        let expected_letters: Vec<_> =
            alone.by_ref().flat_map(|chain| chain.run(&mut expected)).collect();
        failed += letters.len();
        assert_eq!(letters, expected_letters, "batch {commit}");
        assert_eq!(lines(&changes), lines(&expected), "batch {commit}");
    }
    assert!(failed > 12, "only {failed} rows failed");
    let batches = together.parallel_batches();
    assert!(!has_cores() || batches > 6, "{batches} batches in parallel");
}
