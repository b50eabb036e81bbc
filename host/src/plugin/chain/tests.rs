//! What no configuration brings about at will: instances that do not start again, versions that are slow.

use std::path::Path;
use std::sync::LazyLock;
use std::time::Duration;

use tailwater_test_support::guests;

use super::*;
use crate::change::{Change, Old, Op, Transaction};
use crate::plugin::chain::member::pace::Pace;
use crate::position::Lsn;
use crate::table::{Column, ColumnType, ReplicaIdentity, Table};
use crate::telemetry::metrics::PluginKindLabels;

static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| Runtime::new(None).unwrap());

/// A plugin `it` with these settings.
fn section(path: &Path, settings: &str) -> Options {
    let path = path.display();
    toml::from_str(&format!("name = 'it'\npath = '{path}'\n{settings}")).unwrap()
}

/// `tests/guests/hostile` with these settings.
fn options(settings: &str) -> Options {
    section(&guests::test_guest("hostile").unwrap(), settings)
}

fn deed(deed: &str) -> String {
    format!("config = {{ deed = '{deed}' }}")
}

fn chain(settings: &str) -> Chain {
    Chain::load(&RUNTIME, vec![options(settings)], Stage::Capture, Arc::default()).unwrap()
}

/// One transaction with a row of `members (id integer primary key, name text)` for each name.
fn batch(names: &[&str]) -> Changes {
    let column = |name: &str, kind, type_name: &str, key: bool| Column {
        name: name.into(),
        kind,
        type_name: type_name.into(),
        nullable: !key,
        key,
        default: None,
        number: None,
        missing: None,
    };
    let columns = vec![
        column("id", ColumnType::Int4, "integer", true),
        column("name", ColumnType::Text, "text", false),
    ];
    let identity = ReplicaIdentity::Default;
    let table = Arc::new(Table::new(1, "public".into(), "members".into(), columns, identity));
    let mut changes = Changes::default();
    let table = changes.intern_table(&table);
    let (commit, previous_commit) = (Lsn(7), Lsn(6));
    let transaction = Transaction { commit, previous_commit, committed_at: 0, xid: 1 };
    let transaction = changes.push_transaction(transaction);
    for (ordinal, name) in (1..).zip(names) {
        let row = changes.begin_row();
        for text in [ordinal.to_string().as_bytes(), name.as_bytes()] {
            let cell = changes.push_text(text);
            changes.push_cell(cell);
        }
        let (op, lsn, old, new) = (Op::Insert, commit, Old::None, Some(row));
        changes.list.push(Change { op, table, transaction, ordinal, lsn, old, new });
    }
    changes
}

impl Chain {
    fn member(&mut self) -> &mut Member {
        let it = |member: &&mut Member| member.version().id.name == "it";
        self.members.iter_mut().find(it).expect("it is there")
    }

    /// How many of these go on, and why others are set aside.
    fn show(&mut self, names: &[&str]) -> (usize, Vec<String>) {
        let mut changes = batch(names);
        let letters = self.transform(&mut changes).unwrap();
        (changes.len(), letters.into_iter().map(|letter| letter.reason).collect())
    }

    /// Lets the version with other settings take over, as a reload does.
    fn hand_over(&mut self, settings: &str) {
        let mut loader = self.member().loader.clone();
        loader.options = Arc::new(section(&loader.options.path, settings));
        let loaded = loader.load().unwrap();
        let identity = loaded.version.identity(&loader.options);
        self.member().handover().offer(identity, loader, loaded);
    }

    /// Its next instances are of other settings.
    fn start_with(&mut self, settings: &str) {
        self.member().loader.options = Arc::new(options(settings));
    }

    fn count(&mut self, kind: &'static str) -> u64 {
        let labels = PluginKindLabels { plugin: "it".into(), kind };
        self.member().loader.metrics.plugin_faults.get_or_create(&labels).get()
    }

    fn generation(&self) -> u64 {
        self.versions.list()[0].generation
    }
}

#[test]
fn an_instance_that_does_not_start_again_costs_the_rows_of_its_batch_and_no_more() {
    let mut chain = chain(&deed("panic-on-poison"));
    chain.start_with(&deed("refuse-init"));
    for (names, attempts) in [(&["ann", "poison", "bob"][..], 1), (&["ann", "bob"], 2)] {
        let (gone_on, reasons) = chain.show(names);
        assert_eq!(gone_on, 0);
        let expected = "it does not start again: it does not like the weather";
        assert_eq!(reasons, vec![expected; names.len()]);
        assert_eq!(chain.count("init"), attempts, "one a batch");
    }
    chain.start_with(&deed("panic-on-poison"));
    assert_eq!(chain.show(&["ann"]), (1, Vec::new()));
}

#[test]
fn where_a_row_must_not_be_set_aside_one_without_an_instance_stops_the_pipeline() {
    let settings = format!("on_error = 'halt'\n{}", deed("panic-on-poison"));
    let mut chain = chain(&settings);
    chain.start_with(&format!("on_error = 'halt'\n{}", deed("refuse-init")));
    let error = chain.transform(&mut batch(&["poison"])).unwrap_err();
    assert!(matches!(error, Error::Fault { .. }), "{error}");
    let error = chain.transform(&mut batch(&["ann"])).unwrap_err().to_string();
    assert!(error.contains("it does not start again"), "{error}");
}

#[test]
fn an_init_that_runs_into_its_deadline_counts_as_a_call_that_does() {
    let mut chain = chain(&format!("deadline_ms = 100\n{}", deed("panic-on-poison")));
    chain.start_with(&format!("deadline_ms = 100\n{}", deed("loop-in-init")));
    let mut hangs = (1..=32).map(|_| chain.transform(&mut batch(&["poison"])));
    let error = hangs.find_map(Result::err).expect("it stops");
    assert!(matches!(error, Error::Hanging { deadlines: 32, .. }), "{error}");
}

#[test]
fn a_new_version_that_does_not_start_again_is_rolled_back_and_costs_no_row() {
    let mut chain = chain(&deed("nothing"));
    chain.hand_over(&deed("panic-on-poison"));
    assert_eq!(chain.show(&["ann"]), (1, Vec::new()));
    chain.start_with(&deed("refuse-init"));
    assert_eq!(chain.show(&["ann", "poison"]), (2, Vec::new()));
    assert_eq!(chain.generation(), 3);
    assert_eq!(chain.show(&["poison"]), (1, Vec::new()));
}

#[test]
fn a_batch_is_kept_only_where_a_version_on_probation_may_be_offered_rows_of_it() {
    let mut chain = chain(&deed("nothing"));
    let batch = batch(&["ann"]);
    assert!(!chain.may_look_again(&batch), "nothing is on probation");
    chain.hand_over(&format!("tables = ['people']\n{}", deed("nothing")));
    chain.show(&[]);
    assert!(!chain.may_look_again(&batch));
    chain.start_with(&format!("tables = ['people', 'members']\n{}", deed("nothing")));
    assert!(chain.may_look_again(&batch));
    assert!(!chain.may_look_again(&Changes::default()));
}

#[test]
fn a_batch_is_kept_for_a_version_behind_one_that_may_route_rows_to_it() {
    let route = guests::plugin("route-by-value").unwrap();
    let config = "config = { column = 'name', schemas = { ann = 'europe' } }";
    let route = format!("name = 'route'\npath = '{}'\n{config}", route.display());
    let hostile =
        |retries| format!("tables = ['europe.*']\nretries = {retries}\n{}", deed("nothing"));
    let all = vec![options(&hostile(1)), toml::from_str(&route).unwrap()];
    for (index, expected) in [(0, false), (1, true)] {
        let mut all = all.clone();
        all.rotate_left(index);
        let mut chain = Chain::load(&RUNTIME, all, Stage::Capture, Arc::default()).unwrap();
        chain.hand_over(&hostile(2));
        chain.show(&[]);
        assert_eq!(chain.may_look_again(&batch(&["ann"])), expected);
    }
}

#[test]
fn a_version_that_sees_few_rows_stands_on_its_own_after_a_time() {
    let settings = format!("probation_seconds = 1\n{}", deed("fault-on-poison"));
    for (age, letters, generation) in [(0, 0, 3), (1, 1, 2)] {
        let mut chain = chain(&deed("nothing"));
        chain.hand_over(&settings);
        chain.show(&[]);
        let age = Duration::from_secs(age);
        let probation = chain.member().probation.as_mut().expect("it is on probation");
        probation.since = probation.since.checked_sub(age).expect("the machine runs for longer");
        assert_eq!(chain.show(&["poison"]).1.len(), letters);
        assert_eq!(chain.generation(), generation);
    }
}

impl Chain {
    /// The new version is far slower than the one before, as it turns out.
    fn be_slow(&mut self) {
        let pace = |seconds| Pace { rows: 1_000, time: Duration::from_secs(seconds) };
        let member = self.member();
        member.pace = pace(60);
        member.probation.as_mut().expect("it is on probation").standby.pace = pace(1);
    }
}

#[test]
fn the_limits_of_a_version_that_is_rolled_back_go_with_it() {
    let plugin = guests::plugin("drop-duplicates").unwrap();
    let all = vec![section(&plugin, "window_keys = 100")];
    let mut chain = Chain::load(&RUNTIME, all, Stage::Capture, Arc::default()).unwrap();
    chain.hand_over("window_keys = 1");
    chain.show(&["ann", "bob", "cid"]);
    assert_eq!(chain.member().memory.window.len(), 1);
    chain.be_slow();
    chain.show(&["cid", "bob", "ann"]);
    assert_eq!((chain.generation(), chain.member().memory.window.len()), (3, 3));
}

#[test]
fn a_version_that_is_too_slow_is_told_of_the_last_batch_that_it_made_and_makes_no_other() {
    let mut chain = chain(&deed("nothing"));
    chain.hand_over(&format!("probation_fault_percent = 100\n{}", deed("fault-on-poison")));
    assert_eq!(chain.show(&["poison"]).1.len(), 1);
    chain.be_slow();
    assert_eq!(chain.generation(), 2);
    assert_eq!(chain.show(&["poison"]), (1, Vec::new()));
    assert_eq!(chain.generation(), 3);
}
