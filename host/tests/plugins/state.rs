//! `tests/guests/rememberer`: what plugins keep under keys of their own, in memory and on disk.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use tailwater::change::Changes;
use tailwater::plugin::{Delta, MemoryError, Options, Pending, StateStore, inspect};
use tailwater::table::{ColumnType, Table};
use tailwater::telemetry::metrics::PluginLabels;
use tailwater_test_support::Scratch;

use crate::batch::{Batch, lines, seed, table};
use crate::chains::{Loaded, RUNTIME, load, options, plugin_file, test_guest_file};

fn members() -> Arc<Table> {
    table("members", &[("id", ColumnType::Int4), ("name", ColumnType::Text)])
}

fn settings(deed: &str, more: &str) -> String {
    format!("grants = ['state']\n{more}\nconfig = {{ deed = '{deed}' }}")
}

fn rememberer(deed: &str, more: &str) -> Loaded {
    let guest = options(&test_guest_file("rememberer"), &settings(deed, more));
    load(vec![guest]).expect("the plugin loads")
}

/// Updates of these members in one transaction.
fn updates(commit: u64, rows: &[(u32, &str)]) -> Changes {
    let members = members();
    let update =
        |batch: Batch, (id, name): &(u32, &str)| batch.update(&members, &[&id.to_string(), name]);
    rows.iter().fold(Batch::at(commit), update).done()
}

/// The names after a batch went through, and why rows were set aside.
fn names(chain: &mut Loaded, mut changes: Changes) -> (Vec<String>, Vec<String>) {
    let letters = chain.run(&mut changes);
    let name = |line: String| line.rsplit_once(',').expect("columns").1.replace(')', "");
    let names = lines(&changes).into_iter().map(name).collect();
    (names, letters.into_iter().map(|letter| letter.reason).collect())
}

/// Why the only row is set aside.
fn refused(chain: &mut Loaded) -> String {
    let (names, mut reasons) = names(chain, updates(7, &[(1, "ann")]));
    assert!(names.is_empty(), "{names:?}");
    reasons.pop().expect("it is set aside")
}

impl Loaded {
    fn state(&self) -> (i64, i64) {
        let labels = PluginLabels { plugin: "rememberer".to_owned() };
        let bytes = self.metrics.plugin_state_bytes.get_or_create(&labels).get();
        (self.metrics.plugin_state_keys.get_or_create(&labels).get(), bytes)
    }
}

#[test]
fn what_a_plugin_writes_it_reads_in_the_same_call_and_in_later_ones() {
    let mut chain = rememberer("count", "");
    let (first, _) = names(&mut chain, updates(7, &[(1, "a"), (2, "a"), (1, "b")]));
    assert_eq!(first, ["1", "1", "2"]);
    let (second, _) = names(&mut chain, updates(8, &[(2, "b"), (1, "c")]));
    assert_eq!(second, ["2", "3"]);
    assert_eq!(chain.state(), (2, 2 * (64 + 2)));
}

#[test]
fn the_state_is_there_in_every_language() {
    for guest in ["rememberer-c", "rememberer-go", "rememberer-js", "rememberer-py"] {
        let settings = "grants = ['state']\nmemory_mb = 256\ndeadline_ms = 60000";
        let mut chain = load(vec![options(&test_guest_file(guest), settings)]).expect(guest);
        let (first, _) = names(&mut chain, updates(7, &[(1, "a"), (2, "a"), (1, "b")]));
        assert_eq!(first, ["1", "1", "2"], "{guest}");
        let (second, _) = names(&mut chain, updates(8, &[(2, "b"), (1, "c")]));
        assert_eq!(second, ["2", "3"], "{guest}");
    }
}

#[test]
fn without_the_grant_it_is_not_loaded() {
    let Err(error) = load(vec![options(&test_guest_file("rememberer"), "")]) else {
        panic!("it was loaded")
    };
    assert!(error.to_string().contains("add grants = [\"state\"] to its section"), "{error}");
    let found = inspect(&RUNTIME, &test_guest_file("rememberer")).expect("a plugin");
    assert_eq!(found.needed_grants(), ["state"]);
}

#[test]
fn a_call_that_traps_wrote_nothing_however_often_its_rows_are_shown() {
    let mut chain = rememberer("panic-on-poison", "");
    let rows: Vec<(u32, &str)> =
        (0..40).map(|n| (n % 4, if n == 17 { "poison" } else { "ann" })).collect();
    let (names, reasons) = names(&mut chain, updates(7, &rows));
    let mut counts = [0; 4];
    let counted = rows.iter().filter(|(_, name)| *name != "poison").map(|(id, _)| {
        counts[*id as usize] += 1;
        counts[*id as usize].to_string()
    });
    assert_eq!(names, counted.collect::<Vec<_>>());
    assert_eq!(reasons.len(), 1);
}

#[test]
fn a_fault_that_the_plugin_tells_of_keeps_what_it_wrote() {
    let mut chain = rememberer("fault-on-poison", "");
    let (names, reasons) = names(&mut chain, updates(7, &[(1, "a"), (1, "poison"), (1, "c")]));
    assert_eq!((names, reasons), (vec!["1".into(), "3".into()], vec!["the row is poison".into()]));
}

#[test]
fn a_batch_that_halts_the_pipeline_wrote_nothing() {
    let mut chain = rememberer("panic-on-poison", "on_error = 'halt'");
    let mut halts = updates(7, &[(1, "a"), (2, "poison")]);
    chain.chain.transform(&mut halts).expect_err("it halts");
    assert_eq!(names(&mut chain, updates(7, &[(1, "a"), (2, "b")])).0, ["1", "1"]);
}

#[test]
fn rows_come_in_the_order_of_the_log_whatever_their_tables() {
    let (members, guests) =
        (members(), table("guests", &[("id", ColumnType::Int4), ("name", ColumnType::Text)]));
    let batch = Batch::at(7)
        .insert(&guests, &["1", "a"])
        .insert(&members, &["1", "b"])
        .insert(&guests, &["1", "c"])
        .truncate(&members)
        .insert(&members, &["1", "d"]);
    let expected = [
        "c 7:1 guests -> (1,1)",
        "c 7:2 members -> (1,2)",
        "c 7:3 guests -> (1,3)",
        "t 7:4 members",
        "c 7:5 members -> (1,4)",
    ];
    assert_eq!(rememberer("count", "").lines(batch.done()), expected);
}

#[test]
fn a_state_that_grows_is_refused_at_its_limit_and_the_stream_goes_on() {
    let mut chain = rememberer("hoard", "state_mb = 1\ndeadline_ms = 20000");
    for _ in 0..2 {
        let reason = refused(&mut chain);
        assert!(reason.contains("its state would grow beyond 1 MiB; raise `state_mb`"), "{reason}");
        let (keys, bytes) = chain.state();
        assert!((900..1_000).contains(&keys) && bytes <= 1 << 20, "{keys} keys, {bytes} bytes");
    }
}

#[test]
fn a_plugin_that_writes_for_ever_is_bounded_too() {
    let mut overwrite = rememberer("overwrite", "state_mb = 1\ndeadline_ms = 20000");
    let (_, reasons) = names(&mut overwrite, updates(7, &[(1, "ann")]));
    assert_eq!(reasons, [""; 0], "seven keys are seven keys however often they are written");
    let mut churn = rememberer("churn", "state_mb = 1\ndeadline_ms = 20000");
    let reason = refused(&mut churn);
    assert!(reason.contains("more than twice 1 MiB of its state"), "{reason}");
    assert_eq!(churn.state(), (0, 0));
}

#[test]
fn what_does_not_fit_into_a_plugins_memory_is_not_read() {
    let mut chain = rememberer("read-too-much", "memory_mb = 32");
    let reason = refused(&mut chain);
    assert!(
        reason.contains("state.get would hand over more than its 32 MiB of memory"),
        "{reason}"
    );
}

#[test]
fn outside_of_batches_there_is_no_state() {
    let guest = options(&test_guest_file("rememberer"), &settings("write-in-init", ""));
    let Err(error) = load(vec![guest]) else { panic!("it was loaded") };
    assert!(error.to_string().contains("only while a batch is shown"), "{error}");
    let mut chain = rememberer("read-in-subscribe", "");
    assert_eq!(names(&mut chain, updates(7, &[(1, "a")])).0, ["None"]);
    assert_eq!(names(&mut chain, updates(8, &[(1, "a")])).0, ["None"]);
}

#[test]
fn the_memory_on_disk_is_one_process_own() {
    let scratch = Scratch::new("store").expect("a directory");
    let _first = StateStore::open(scratch.path(), "capture-x").expect("it opens");
    let Err(error) = StateStore::open(scratch.path(), "capture-x") else {
        panic!("it opened twice")
    };
    assert!(matches!(error, MemoryError::InUse { .. }), "{error}");
    assert!(error.to_string().contains("its own directory in [state] path"), "{error}");
    StateStore::open(scratch.path(), "capture-y").expect("another leg has another");
}

#[test]
fn a_reload_keeps_the_state_and_does_not_grant_it() {
    let file = test_guest_file("rememberer");
    let mut chain = rememberer("count", "");
    assert_eq!(names(&mut chain, updates(7, &[(1, "a")])).0, ["1"]);
    let versions = chain.chain.versions();
    let reload = |settings: &str| {
        let asked = options(&file, settings);
        versions.reload("rememberer", Some(&asked)).expect("there is one")
    };
    let refused = reload("config = { deed = 'count' }").expect_err("it would lose its state");
    assert!(refused.contains("to grant `state` or to take it back, restart"), "{refused}");
    reload(&settings("fault-on-poison", "")).expect("it takes over");
    assert_eq!(names(&mut chain, updates(8, &[(1, "b")])).0, ["2"]);
}

#[test]
fn who_is_granted_a_state_and_imports_none_keeps_none() {
    let masked = options(&plugin_file("mask-email"), "grants = ['clock', 'state']");
    assert!(!load(vec![masked]).expect("the plugin loads").chain.keeps_state());
    assert!(rememberer("count", "").chain.keeps_state());
}

/// `customers` and `orders`, joined with these columns.
fn join(columns: &str) -> Options {
    let settings = format!(
        "grants = ['state']\nconfig = {{ from = 'public.customers', key = 'id', \
         to = 'public.orders', by = 'customer', columns = {{ {columns} }} }}"
    );
    options(&plugin_file("enrich-from-state"), &settings)
}

#[test]
fn what_was_remembered_of_columns_is_theirs_whatever_columns_are_asked_for_later() {
    let text = ColumnType::Text;
    let customers =
        table("customers", &[("id", text.clone()), ("addr", text.clone()), ("name", text.clone())]);
    let orders = table("orders", &[("id", text.clone()), ("customer", text)]);
    let mut chain = load(vec![join("who = 'name'")]).expect("the plugin loads");
    let order = |id: &str, batch: Batch| batch.insert(&orders, &[id, "7"]).done();
    let first = Batch::at(7).insert(&customers, &["7", "Elm St", "Ann"]);
    assert_eq!(chain.lines(order("1", first))[1], "c 7:2 orders -> (1,7,Ann)");
    let versions = chain.chain.versions();
    let with_address = join("who = 'name', street = 'addr'");
    let reloaded = versions.reload("enrich-from-state", Some(&with_address));
    reloaded.expect("there is one").expect("it takes over");
    assert_eq!(chain.lines(order("2", Batch::at(8))), ["c 8:1 orders -> (2,7,-,Ann)"]);
    let moved = Batch::at(9).update(&customers, &["7", "Oak St", "Ann"]);
    assert_eq!(chain.lines(order("3", moved))[1], "c 9:2 orders -> (3,7,Oak St,Ann)");
}

/// The pipeline in small: batches run, what they changed is kept behind them, and a death forgets what is
/// not on disk.
struct Life {
    chain: Loaded,
    store: StateStore,
    behind: VecDeque<(usize, Vec<Delta>)>,
    next: usize,
}

impl Life {
    fn begin(directory: &Scratch) -> Life {
        let store = StateStore::open(directory.path(), "capture-it").expect("the disk works");
        let dedup = options(&plugin_file("drop-duplicates"), "window_keys = 12");
        let rememberer = options(&test_guest_file("rememberer"), &settings("panic-on-poison", ""));
        let mut chain = load(vec![dedup, rememberer]).expect("both load");
        chain.chain.restore(&store).expect("the disk works");
        let known = store.progress().expect("the disk works").remove("");
        let next = known.map_or(0, |text| text.parse().expect("a number"));
        Life { chain, store, behind: VecDeque::new(), next }
    }

    fn step(&mut self, batches: &[Vec<(u32, &'static str)>]) -> Vec<String> {
        let mut changes = updates(1 + self.next as u64, &batches[self.next]);
        self.chain.run(&mut changes);
        self.next += 1;
        self.behind.push_back((self.next, self.chain.chain.take_deltas()));
        lines(&changes)
    }

    /// Some of what is behind reaches the disk.
    fn keep(&mut self, count: usize) {
        let mut pending = Pending::default();
        let mut reached = None;
        for (next, deltas) in self.behind.drain(..count.min(self.behind.len())) {
            deltas.into_iter().for_each(|delta| pending.add(delta));
            reached = Some(next.to_string());
        }
        if let Some(reached) = reached {
            let progress = BTreeMap::from([(String::new(), reached)]);
            self.store.keep(&pending, &progress).expect("the disk works");
        }
    }
}

/// What a batch has to become: by a model that shares nothing with the product.
#[derive(Default)]
struct Model {
    /// Rows with the last name that went on, oldest first; none if it did not.
    last: Vec<(u32, Option<&'static str>)>,
    counts: HashMap<u32, u64>,
}

impl Model {
    fn step(&mut self, commit: usize, rows: &[(u32, &'static str)]) -> Vec<String> {
        let mut lines = Vec::new();
        for (ordinal, (id, name)) in (1..).zip(rows) {
            let known = self.last.iter_mut().find(|(known, _)| known == id);
            if known.as_ref().is_some_and(|(_, last)| *last == Some(*name)) {
                continue;
            }
            let now = Some(*name);
            match known {
                Some((_, last)) => *last = now,
                None => self.last.push((*id, now)),
            }
            if *name != "poison" {
                let count = self.counts.entry(*id).or_default();
                *count += 1;
                lines.push(format!("u {commit}:{ordinal} members -> ({id},{count})"));
            }
        }
        // What was set aside is no row's last change, once the batch is through.
        for (_, last) in self.last.iter_mut().filter(|(_, last)| *last == Some("poison")) {
            *last = None;
        }
        let beyond = self.last.len().saturating_sub(12);
        self.last.drain(..beyond);
        lines
    }
}

/// Whatever the process dies of, and whenever: what comes again becomes what it was the first time.
#[test]
fn after_any_death_the_memory_matches_the_place_at_which_the_source_goes_on() {
    let seed = seed();
    let mut random = StdRng::seed_from_u64(seed);
    let batches: Vec<Vec<(u32, &str)>> = (0..200)
        .map(|_| {
            let rows = random.random_range(1..8);
            let name = |random: &mut StdRng| ["a", "b", "c", "poison"][random.random_range(0..4)];
            (0..rows).map(|_| (random.random_range(0..20), name(&mut random))).collect()
        })
        .collect();
    let mut model = Model::default();
    let expected: Vec<Vec<String>> =
        batches.iter().enumerate().map(|(index, rows)| model.step(1 + index, rows)).collect();
    let scratch = Scratch::new("deaths").expect("a directory");
    let mut deaths = 0;
    let mut life = Life::begin(&scratch);
    while life.next < batches.len() {
        let index = life.next;
        assert_eq!(life.step(&batches), expected[index], "batch {index} after {deaths} deaths");
        match random.random_range(0..12) {
            0 => {
                drop(life);
                life = Life::begin(&scratch);
                deaths += 1;
            }
            1..5 => life.keep(random.random_range(1..5)),
            _ => {}
        }
    }
    assert!(deaths > 5, "only {deaths} deaths");
}

#[test]
fn a_plugin_that_is_gone_is_forgotten() {
    let scratch = Scratch::new("forgotten").expect("a directory");
    let store = StateStore::open(scratch.path(), "it").expect("the disk works");
    let mut chain = rememberer("count", "");
    chain.chain.restore(&store).expect("the disk works");
    names(&mut chain, updates(7, &[(1, "a")]));
    let mut pending = Pending::default();
    chain.chain.take_deltas().into_iter().for_each(|delta| pending.add(delta));
    store.keep(&pending, &BTreeMap::new()).expect("the disk works");
    chain.chain.restore(&store).expect("the disk works");
    assert_eq!(names(&mut chain, updates(8, &[(1, "a")])).0, ["2"], "it is on disk");
    store.forget_plugins_but(&["another"].into()).expect("the disk works");
    chain.chain.restore(&store).expect("the disk works");
    assert_eq!(names(&mut chain, updates(8, &[(1, "a")])).0, ["1"]);
}
