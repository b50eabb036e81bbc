use std::sync::Arc;

use super::*;
use crate::change::{Cell, Old, Transaction};
use crate::plugin::memory::{Delta, Pending};
use crate::position::Lsn;
use crate::table::{Column, ColumnType, ReplicaIdentity};

/// One change, to be judged.
struct Given {
    op: Op,
    old: Option<&'static str>,
    new: Option<&'static str>,
    second: u64,
    key: Option<&'static str>,
    keyless: bool,
}

fn given(op: Op, id: &'static str, second: u64, key: &'static str) -> Given {
    Given { op, old: None, new: Some(id), second, key: Some(key), keyless: false }
}

fn insert(id: &'static str, second: u64, key: &'static str) -> Given {
    given(Op::Insert, id, second, key)
}

fn update(id: &'static str, second: u64, key: &'static str) -> Given {
    given(Op::Update, id, second, key)
}

fn delete(id: &'static str, second: u64) -> Given {
    Given { old: Some(id), new: None, ..given(Op::Delete, id, second, "deleted") }
}

impl Given {
    fn changes(&self) -> Changes {
        let column = Column {
            name: "id".into(),
            kind: ColumnType::Text,
            type_name: "text".into(),
            nullable: false,
            key: !self.keyless,
            default: None,
            number: None,
            missing: None,
        };
        let identity = ReplicaIdentity::Default;
        let table = Table::new(1, "public".into(), "t".into(), vec![column], identity);
        let mut changes = Changes::default();
        let table = changes.intern_table(&Arc::new(table));
        let commit = Lsn(self.second);
        let committed_at = i64::try_from(self.second).unwrap() * 1_000_000;
        let transaction = changes.push_transaction(Transaction {
            commit,
            previous_commit: Lsn(0),
            committed_at,
            xid: 1,
        });
        let mut row = |text: Option<&str>| {
            let row = changes.begin_row();
            let cell = text.map_or(Cell::NULL, |text| changes.push_text(text.as_bytes()));
            changes.push_cell(cell);
            row
        };
        let old = self.old.map_or(Old::None, |id| Old::Key(row(Some(id))));
        let new = self.new.map(|id| row(Some(id)));
        changes.list.push(Change {
            op: self.op,
            table,
            transaction,
            ordinal: 1,
            lsn: commit,
            old,
            new,
        });
        changes
    }
}

fn drops(window: &mut Window, given: &Given) -> bool {
    window.begin(&given.changes());
    drops_of_noted(window, given)
}

fn drops_of_noted(window: &mut Window, given: &Given) -> bool {
    let changes = given.changes();
    let key = given.key.map(str::as_bytes);
    window.is_duplicate(&changes, &changes.list[0], key, false)
}

/// The numbers of the changes that are dropped, each its own batch.
fn dropped(changes: &[Given]) -> Vec<usize> {
    let mut window = Window::new(10, 60, [7; 16]);
    let judge = |given| {
        let dropped = drops(&mut window, given);
        window.commit();
        dropped
    };
    let judged: Vec<bool> = changes.iter().map(judge).collect();
    (0..changes.len()).filter(|index| judged[*index]).collect()
}

#[test]
fn an_update_that_changes_nothing_is_dropped() {
    assert_eq!(dropped(&[insert("1", 1, "a"), update("1", 2, "a"), update("1", 3, "b")]), [1]);
}

#[test]
fn a_change_back_to_what_was_is_kept() {
    let changes = [insert("1", 1, "a"), update("1", 2, "b"), update("1", 3, "a")];
    assert_eq!(dropped(&changes), [0_usize; 0]);
}

#[test]
fn equal_rows_with_other_keys_are_kept() {
    assert_eq!(dropped(&[insert("1", 1, "a"), insert("2", 2, "a")]), [0_usize; 0]);
}

#[test]
fn changes_that_come_again_are_dropped() {
    let changes = || [insert("1", 1, "a"), update("1", 2, "b"), insert("2", 3, "a")];
    let twice: Vec<Given> = changes().into_iter().chain(changes()).collect();
    assert_eq!(dropped(&twice), [3, 4, 5]);
}

#[test]
fn a_row_that_was_deleted_may_come_back_as_it_was() {
    let changes = [insert("1", 1, "a"), delete("1", 2), insert("1", 3, "a")];
    assert_eq!(dropped(&changes), [0_usize; 0]);
}

#[test]
fn a_delete_is_never_dropped() {
    assert_eq!(dropped(&[delete("1", 1), delete("1", 2)]), [0_usize; 0]);
}

#[test]
fn a_row_that_moved_to_another_key_leaves_the_old_one_unknown() {
    let moved = Given { old: Some("1"), ..update("2", 2, "a") };
    let changes = [insert("1", 1, "a"), moved, insert("1", 3, "a"), update("2", 4, "a")];
    assert_eq!(dropped(&changes), [3]);
}

#[test]
fn rows_of_an_emptied_table_are_new() {
    let changes = [insert("1", 1, "a"), truncate(2), insert("1", 3, "a"), update("1", 4, "a")];
    assert_eq!(dropped(&changes), [3]);
}

fn truncate(second: u64) -> Given {
    Given { new: None, ..given(Op::Truncate, "", second, "") }
}

/// All of it in one batch; rows lie elsewhere.
fn together(changes: &[Given]) -> Changes {
    let mut all = Changes::default();
    for given in changes {
        let one = given.changes();
        let table = all.intern_table(&one.tables[0]);
        let transaction = all.push_transaction(one.transactions[0]);
        all.list.push(Change { table, transaction, ..one.list[0] });
    }
    all
}

#[test]
fn each_of_several_truncates_counts() {
    let changes = [insert("1", 1, "a"), truncate(2), insert("1", 3, "a"), truncate(4)];
    let mut window = Window::new(10, 60, [7; 16]);
    window.begin(&together(&changes));
    assert!(!drops_of_noted(&mut window, &changes[0]));
    assert!(!drops_of_noted(&mut window, &changes[2]));
    assert!(drops_of_noted(&mut window, &update("1", 3, "a")));
    assert!(!drops_of_noted(&mut window, &update("1", 5, "a")));
}

#[test]
fn a_truncate_of_an_earlier_batch_counts_however_often_a_batch_with_another_fails() {
    let mut window = Window::new(10, 60, [7; 16]);
    for earlier in [insert("1", 1, "a"), truncate(2)] {
        assert!(!drops(&mut window, &earlier));
        window.commit();
    }
    let changes = [insert("1", 3, "a"), truncate(4)];
    for _ in 0..3 {
        window.begin(&together(&changes));
        assert!(!drops_of_noted(&mut window, &changes[0]));
        window.roll_back();
    }
}

#[test]
fn a_row_without_a_key_from_the_plugin_is_kept_and_hides_what_was_before() {
    let silent = Given { key: None, ..update("1", 2, "") };
    let changes = [insert("1", 1, "a"), silent, update("1", 3, "a"), update("1", 4, "a")];
    assert_eq!(dropped(&changes), [3]);
}

#[test]
fn a_snapshot_says_again_what_is_known() {
    let read = |second| given(Op::Read, "1", second, "a");
    assert_eq!(dropped(&[read(1), read(2), read(2)]), [2], "but not twice");
}

#[test]
fn without_a_key_equal_inserts_are_duplicates() {
    let keyless = |given: Given| Given { keyless: true, ..given };
    let changes = [keyless(insert("1", 1, "a")), keyless(insert("2", 2, "a"))];
    assert_eq!(dropped(&changes), [1]);
    let changes = [keyless(insert("1", 1, "a")), keyless(update("1", 2, "a"))];
    assert_eq!(dropped(&changes), [0_usize; 0]);
}

#[test]
fn a_row_is_forgotten_when_commits_are_younger_by_the_window() {
    let changes = [insert("1", 0, "a"), insert("2", 60, "b"), update("1", 60, "a")];
    assert_eq!(dropped(&changes), [2], "the window's edge is inside");
    let changes = [insert("1", 0, "a"), insert("2", 61, "b"), update("1", 61, "a")];
    assert_eq!(dropped(&changes), [0_usize; 0]);
}

#[test]
fn the_oldest_row_goes_when_there_are_too_many() {
    let mut window = Window::new(2, 60, [7; 16]);
    for id in ["1", "2", "3"] {
        assert!(!drops(&mut window, &insert(id, 1, "a")));
    }
    window.commit();
    assert_eq!(window.known.len(), 2);
    assert!(drops(&mut window, &update("3", 2, "a")));
    assert!(!drops(&mut window, &update("1", 2, "a")));
}

#[test]
fn a_batch_that_failed_was_never_seen() {
    let mut window = Window::new(10, 60, [7; 16]);
    drops(&mut window, &insert("1", 1, "a"));
    window.commit();
    drops(&mut window, &update("1", 2, "b"));
    drops(&mut window, &insert("2", 3, "b"));
    window.roll_back();
    assert!(!drops(&mut window, &update("1", 2, "b")));
    assert!(!drops(&mut window, &insert("2", 3, "b")));
    window.roll_back();
    assert!(drops(&mut window, &update("1", 4, "a")));
}

#[test]
fn a_window_that_is_put_back_knows_what_it_knew() {
    let mut window = Window::new(2, 60, [7; 16]);
    let mut pending = Pending::default();
    let truncate = Given { new: None, ..given(Op::Truncate, "", 4, "") };
    let changes = [
        insert("1", 1, "a"),
        insert("2", 2, "a"),
        insert("3", 3, "a"),
        truncate,
        insert("3", 5, "a"),
    ];
    for given in &changes {
        drops(&mut window, given);
        let window = window.commit_with_delta();
        let (plugin, scope) = ("p".into(), "".into());
        pending.add(Delta { plugin, scope, state: Vec::new(), window });
    }
    let kept = pending.0.into_values().next().unwrap();
    assert_eq!(kept.rows.len(), 2);
    let mut again = Window::new(2, 60, [7; 16]);
    again.restore(WindowDelta {
        rows: kept.rows.into_iter().collect(),
        first: kept.first,
        newest: kept.newest,
        emptied: kept.emptied.into_iter().collect(),
    });
    for window in [&mut window, &mut again] {
        assert!(drops(window, &update("3", 6, "a")));
        assert!(!drops(window, &update("2", 6, "a")), "its table was emptied");
        assert!(!drops(window, &update("1", 6, "a")), "it was forgotten");
        assert_eq!(window.known.first(), 1);
    }
}

#[test]
fn a_change_that_was_set_aside_hides_no_other() {
    let mut window = Window::new(10, 60, [7; 16]);
    drops(&mut window, &insert("1", 1, "a"));
    window.forget(&HashSet::from([Position { commit: Lsn(1), ordinal: 1 }]));
    window.commit();
    assert!(!drops(&mut window, &update("1", 2, "a")));
}

/// A change that was set aside before the window could see it.
fn hide(window: &mut Window, given: &Given, reach: Reach) {
    let changes = given.changes();
    let set_aside = SetAside { reach, ..SetAside::new(&changes, &changes.list[0]) };
    window.hide(&changes, &set_aside);
}

/// What is dropped of a change back to what was, of an update of the row that changes nothing after
/// that, and of another row's.
fn dropped_after_hiding(given: &Given, reach: Reach) -> [bool; 3] {
    let mut window = Window::new(10, 60, [7; 16]);
    for given in [insert("1", 1, "a"), insert("2", 1, "x")] {
        assert!(!drops(&mut window, &given));
    }
    window.commit();
    window.begin(&given.changes());
    hide(&mut window, given, reach);
    window.commit();
    [update("1", 3, "a"), update("1", 4, "a"), update("2", 5, "x")].map(|given| {
        let dropped = drops(&mut window, &given);
        window.commit();
        dropped
    })
}

#[test]
fn a_change_back_over_one_that_was_set_aside_is_kept() {
    let moved = || Given { old: Some("1"), ..update("3", 2, "b") };
    for given in [update("1", 2, "b"), delete("1", 2), moved()] {
        assert_eq!(dropped_after_hiding(&given, Reach::Row), [false, true, true]);
    }
    for reach in [Reach::Table, Reach::Everything] {
        let dropped = dropped_after_hiding(&update("9", 2, "b"), reach);
        assert_eq!(dropped, [false, true, false], "it may have been any row");
    }
    let keyless = Given { keyless: true, ..insert("1", 2, "b") };
    assert_eq!(dropped_after_hiding(&keyless, Reach::Row), [true; 3], "it is another row");
}

#[test]
fn what_was_set_aside_stands_between_what_is_before_and_behind_it_in_a_batch() {
    for reach in [Reach::Row, Reach::Table, Reach::Everything] {
        let mut window = Window::new(10, 60, [7; 16]);
        let changes = [insert("1", 1, "a"), update("1", 3, "a"), update("1", 5, "a")];
        window.begin(&together(&changes));
        for second in [4, 2] {
            hide(&mut window, &update("1", second, "b"), reach);
        }
        for given in &changes {
            assert!(!drops_of_noted(&mut window, given), "{reach:?}");
        }
        window.commit();
        assert!(drops(&mut window, &update("1", 6, "a")), "{reach:?}");
        assert!(drops(&mut window, &update("1", 3, "a")), "{reach:?}: it comes again");
    }
}

#[test]
fn a_batch_that_failed_hides_nothing() {
    for reach in [Reach::Row, Reach::Table, Reach::Everything] {
        let mut window = Window::new(10, 60, [7; 16]);
        drops(&mut window, &insert("1", 1, "a"));
        window.commit();
        window.begin(&Changes::default());
        hide(&mut window, &update("1", 2, "b"), reach);
        window.roll_back();
        assert!(drops(&mut window, &update("1", 3, "a")), "{reach:?}");
    }
}

#[test]
fn what_was_set_aside_at_first_and_kept_after_all_is_known() {
    let mut window = Window::new(10, 60, [7; 16]);
    drops(&mut window, &insert("1", 1, "a"));
    let late = update("1", 2, "b").changes();
    window.begin(&late);
    hide(&mut window, &update("1", 2, "b"), Reach::Row);
    assert!(!window.is_duplicate(&late, &late.list[0], Some(b"b"), true));
    window.commit();
    assert!(drops(&mut window, &update("1", 3, "b")));
}

#[test]
fn a_window_that_is_put_back_knows_what_was_hidden() {
    for reach in [Reach::Row, Reach::Table, Reach::Everything] {
        let mut window = Window::new(10, 60, [7; 16]);
        let mut again = Window::new(10, 60, [7; 16]);
        drops(&mut window, &insert("1", 1, "a"));
        window.begin(&Changes::default());
        hide(&mut window, &update("1", 2, "b"), reach);
        again.restore(window.commit_with_delta());
        assert!(!drops(&mut again, &update("1", 3, "a")), "{reach:?}");
        assert!(drops(&mut again, &update("1", 4, "a")), "{reach:?}");
    }
}

#[test]
fn a_row_shown_late_is_kept_although_a_newer_one_was() {
    let mut window = Window::new(10, 60, [7; 16]);
    drops(&mut window, &update("1", 2, "b"));
    let late = insert("1", 1, "a").changes();
    window.begin(&late);
    assert!(!window.is_duplicate(&late, &late.list[0], Some(b"a"), true));
    assert!(drops(&mut window, &update("1", 3, "b")), "the newer one is still the last");
}
