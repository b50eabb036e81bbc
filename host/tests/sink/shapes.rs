//! What a table turns into when its source changes, and what is said of one that does not fit.

use std::sync::Arc;

use tailwater::disposition::Disposition;
use tailwater::table::{Column, ColumnType, Table};
use tokio::sync::mpsc;

use crate::feed::{column, hop, insert, key, mixed, table, truncate};
use crate::rig::Rig;

fn notes(more: Vec<Column>) -> Arc<Table> {
    let mut columns = vec![key("id", ColumnType::Int4), column("body", ColumnType::Text)];
    columns.extend(more);
    table("public", "notes", columns)
}

#[test]
fn a_new_column_appears_and_old_rows_show_its_default() {
    let rig = Rig::new("");
    let first = hop(&notes(vec![]), &[insert(1, &["1", "one"])]);
    let plan = Column { default: Some("free".into()), ..column("plan", ColumnType::Text) };
    let wider = notes(vec![plan]);
    let second = hop(&wider, &[insert(2, &["2", "two", "pro"])]);
    rig.deliver([first, second]).expect("the sink stores");
    let all = "SELECT * FROM {db}.notes ORDER BY id";
    assert_eq!(rig.lines(all), ["1\tone\tfree", "2\ttwo\tpro"]);
    // A replay of the table as it was changes neither the table nor the view.
    rig.deliver([hop(&notes(vec![]), &[insert(1, &["1", "one"])])]).expect("the sink stores");
    assert_eq!(rig.lines(all), ["1\tone\tfree", "2\ttwo\tpro"]);
}

#[test]
fn rows_that_a_newer_copy_hides_do_not_ask_for_the_shape_that_the_table_had() {
    let rig = Rig::new("");
    let old = notes(vec![]);
    let of_two = vec![key("id", ColumnType::Int4), key("region", ColumnType::Text)];
    let new = table("public", "notes", of_two);
    let events = [insert(1, &["1", "one"]), truncate(2), insert(3, &["3", "three"])];
    let before = || hop(&old, &events);
    rig.deliver([before()]).expect("the sink stores");
    let misfit = rig.deliver([hop(&new, &[insert(4, &["4", "eu"])])]).expect_err("another key");
    assert_eq!(misfit.disposition(), Disposition::Halt);
    for name in ["VIEW {db}.notes", "TABLE {db}.notes_versions"] {
        rig.lines(&format!("DROP {name} SYNC"));
    }
    rig.deliver([hop(&new, &[truncate(5), insert(6, &["4", "eu"])])]).expect("a copy");
    // All of the topic once more: nothing of it is newer than the copy.
    rig.deliver([before(), hop(&new, &[insert(7, &["5", "us"])])]).expect("the sink goes on");
    let all = "SELECT * FROM {db}.notes ORDER BY id";
    assert_eq!(rig.lines(all), ["4\teu", "5\tus"]);
    // A batch across the copy: one row of it is hidden, the other is not.
    let across = [insert(4, &["9", "old"]), insert(8, &["6", "as"])];
    rig.deliver([hop(&new, &across)]).expect("the sink goes on");
    assert_eq!(rig.lines(all), ["4\teu", "5\tus", "6\tas"]);
}

#[test]
fn a_widened_column_takes_old_rows_and_new_ones() {
    let rig = Rig::new("");
    let narrow = notes(vec![column("n", ColumnType::Int4)]);
    let wide = notes(vec![column("n", ColumnType::Int8)]);
    let small = insert(1, &["1", "one", "7"]);
    let large = insert(2, &["2", "two", "9223372036854775807"]);
    rig.deliver([hop(&narrow, std::slice::from_ref(&small)), hop(&wide, &[large])])
        .expect("the sink stores");
    rig.deliver([hop(&narrow, &[small])]).expect("a replay is stored as well");
    let all = "SELECT id, n FROM {db}.notes ORDER BY id";
    assert_eq!(rig.lines(all), ["1\t7", "2\t9223372036854775807"]);
}

#[test]
fn a_batch_with_rows_from_before_a_widening_and_after_it_is_stored() {
    let rig = Rig::new("");
    let narrow = notes(vec![column("n", ColumnType::Int4)]);
    let wide = notes(vec![column("n", ColumnType::Int8)]);
    let small = insert(1, &["1", "one", "7"]);
    let large = insert(2, &["2", "two", "9223372036854775807"]);
    rig.deliver([mixed(&[(&narrow, &small), (&wide, &large)])]).expect("the sink stores");
    let all = "SELECT id, n FROM {db}.notes ORDER BY id";
    assert_eq!(rig.lines(all), ["1\t7", "2\t9223372036854775807"]);
}

#[test]
fn rows_for_a_table_that_another_process_widened_are_asked_for_again() {
    let rig = Rig::new("");
    let narrow = notes(vec![column("n", ColumnType::Int4)]);
    let wide = notes(vec![column("n", ColumnType::Int8)]);
    let sink = rig.connect().expect("a ClickHouse");
    let (input, output) = mpsc::channel(4);
    let (stored, first) = std::sync::mpsc::channel();
    let ended = std::thread::scope(|scope| {
        let run = sink.run(output, move |_| stored.send(()).expect("somebody waits"));
        let running = scope.spawn(|| rig.runtime.block_on(run));
        let send = |id: u64, text: &str| {
            let row = insert(id, &[text, "narrow", "7"]);
            input.blocking_send(hop(&narrow, &[row])).expect("the sink runs");
        };
        send(1, "1");
        first.recv().expect("the first row is stored");
        rig.deliver([hop(&wide, &[insert(2, &["2", "wide", "9223372036854775807"])])])
            .expect("another sink stores");
        send(3, "3");
        running.join().expect("no panic")
    });
    let error = ended.expect_err("rows were written for the narrow column");
    assert_eq!(error.disposition(), Disposition::Retry, "{error}");
    assert!(error.to_string().contains("was altered by another process"), "{error}");
    rig.deliver([hop(&narrow, &[insert(3, &["3", "narrow", "7"])])]).expect("read again");
    let all = "SELECT id, n FROM {db}.notes ORDER BY id";
    assert_eq!(rig.lines(all), ["1\t7", "2\t9223372036854775807", "3\t7"]);
}

/// Two sinks of a group read a table's changes from two partitions, and one of them is behind.
#[test]
fn a_view_that_another_process_moved_on_is_not_moved_back_by_a_slower_one() {
    let rig = Rig::new("");
    let versions = [
        notes(vec![]),
        notes(vec![column("m", ColumnType::Int4)]),
        notes(vec![column("m", ColumnType::Int4), column("n", ColumnType::Int4)]),
    ];
    let [first, second, third] = versions.each_ref();
    rig.deliver([hop(first, &[insert(1, &["1", "one"])])]).expect("the sink stores");
    let slower = rig.connect().expect("a ClickHouse");
    rig.deliver([hop(third, &[insert(3, &["3", "three", "3", "3"])])]).expect("the sink stores");
    let (input, output) = mpsc::channel(1);
    rig.runtime.block_on(async {
        let feeding = async move {
            let row = insert(2, &["2", "two", "2"]);
            input.send(hop(second, &[row])).await.expect("the sink runs");
        };
        let storing = slower.run(output, drop);
        tokio::join!(feeding, storing).1.expect("the sink stores");
    });
    let all = "SELECT * FROM {db}.notes ORDER BY id";
    assert_eq!(rig.lines(all), ["1\tone\t\\N\t\\N", "2\ttwo\t2\t\\N", "3\tthree\t3\t3"]);
}

#[test]
fn a_dropped_column_leaves_the_view_and_comes_back() {
    let rig = Rig::new("");
    let with = notes(vec![column("n", ColumnType::Int4)]);
    rig.deliver([
        hop(&with, &[insert(1, &["1", "one", "7"])]),
        hop(&notes(vec![]), &[insert(2, &["2", "two"])]),
    ])
    .expect("the sink stores");
    assert_eq!(rig.columns("notes"), ["id\tInt32", "body\tNullable(String)"]);
    rig.deliver([hop(&with, &[insert(3, &["3", "three", "9"])])]).expect("the sink stores");
    let all = "SELECT id, n FROM {db}.notes ORDER BY id";
    assert_eq!(rig.lines(all), ["1\t7", "2\t\\N", "3\t9"]);
}

/// The sink refuses the table that `create` made before it, and says all of this.
fn is_refused(create: &str, said: &[&str]) {
    let rig = Rig::new("");
    rig.connect().expect("a ClickHouse");
    rig.lines(create);
    let error =
        rig.deliver([hop(&notes(vec![]), &[insert(1, &["1", "one"])])]).expect_err("a clash");
    assert_eq!(error.disposition(), Disposition::Halt, "{error}");
    let text = error.to_string();
    for part in said {
        assert!(text.contains(part), "`{part}` is not in: {text}");
    }
}

#[test]
fn a_table_of_another_shape_is_refused_with_each_difference() {
    is_refused(
        "CREATE TABLE {db}.notes_versions (id Int64, body Array(Int32), _version UInt64) \
         ENGINE = MergeTree ORDER BY body",
        &[
            "`notes_versions` in ClickHouse does not fit public.notes",
            "its engine is MergeTree, not ReplacingMergeTree",
            "it is sorted by (body), not (`id`)",
            "`body` is Array(Int32), not Nullable(String)",
            "`_version` is UInt64, not UInt128",
            "`_deleted` is absent",
            "clickhouse.tables.\"public.notes\".name",
        ],
    );
}

#[test]
fn a_table_in_the_views_place_is_refused() {
    is_refused(
        "CREATE TABLE {db}.notes (id Int64) ENGINE = MergeTree ORDER BY id",
        &[
            "`notes` in ClickHouse is a MergeTree that tailwater did not make, and public.notes",
            "rename it or drop it there, or set clickhouse.tables.\"public.notes\".name",
        ],
    );
}

#[test]
fn a_view_of_the_users_own_is_refused_and_left_as_it_is() {
    let said = ["`notes` in ClickHouse is a View that tailwater did not make"];
    is_refused("CREATE VIEW {db}.notes AS SELECT 7 AS seven", &said);
    let comment = "COMMENT 'of somebody'";
    is_refused(&format!("CREATE VIEW {{db}}.notes AS SELECT 7 AS seven {comment}"), &said);
    let rig = Rig::new("");
    rig.connect().expect("a ClickHouse");
    rig.lines("CREATE VIEW {db}.notes AS SELECT 7 AS seven");
    rig.deliver([hop(&notes(vec![]), &[insert(1, &["1", "one"])])]).expect_err("a clash");
    assert_eq!(rig.lines("SELECT * FROM {db}.notes"), ["7"]);
    assert_eq!(rig.lines("EXISTS TABLE {db}.notes_versions"), ["0"], "it made a table");
}

#[test]
fn a_view_of_the_sinks_own_is_known_whatever_its_comment() {
    for dedup in ["", "dedup = \"argmax\""] {
        let rig = Rig::new(dedup);
        rig.deliver([hop(&notes(vec![]), &[insert(1, &["1", "one"])])]).expect("the sink stores");
        let select = rig.lines(&format!(
            "SELECT as_select FROM system.tables WHERE database = '{}' AND name = 'notes' \
             FORMAT RawBLOB",
            rig.database
        ));
        for comment in ["", " COMMENT 'the notes of the shop'"] {
            let select = select.join("\n");
            rig.lines(&format!("CREATE OR REPLACE VIEW {{db}}.notes AS {select}{comment}"));
            rig.deliver([hop(&notes(vec![]), &[insert(2, &["2", "two"])])]).expect("it goes on");
            assert_eq!(rig.lines("SELECT id FROM {db}.notes ORDER BY id"), ["1", "2"]);
        }
    }
}

#[test]
fn a_view_that_another_process_has_made_of_another_table_is_a_clash() {
    let rig = Rig::new("");
    let sink = rig.connect().expect("a ClickHouse");
    let settings = "[tables.\"public.others\"]\nname = \"notes\"";
    let other = Rig { database: rig.database.clone(), ..Rig::new(settings) };
    let others = table("public", "others", vec![key("id", ColumnType::Int4)]);
    other.deliver([hop(&others, &[insert(1, &["1"])])]).expect("the sink stores");
    let (input, output) = mpsc::channel(1);
    input.try_send(hop(&notes(vec![]), &[insert(1, &["1", "one"])])).expect("there is room");
    drop(input);
    let error = rig.runtime.block_on(sink.run(output, drop)).expect_err("a clash");
    let said = "public.others and public.notes would both be called `notes` in ClickHouse";
    assert!(error.to_string().starts_with(said), "{error}");
}

#[test]
fn a_column_that_cannot_follow_its_source_is_refused() {
    let rig = Rig::new("");
    let number = notes(vec![column("n", ColumnType::Int4)]);
    rig.deliver([hop(&number, &[insert(1, &["1", "one", "7"])])]).expect("the sink stores");
    let date = notes(vec![column("n", ColumnType::Date)]);
    let error = rig.deliver([hop(&date, &[insert(2, &["2", "two", "2024-01-01"])])]).unwrap_err();
    assert!(error.to_string().contains("`n` is Nullable(Int32), not Nullable(Date32)"), "{error}");
}

#[test]
fn a_column_with_a_name_of_the_sinks_own_is_refused() {
    let rig = Rig::new("");
    let taken = notes(vec![column("_version", ColumnType::Int4)]);
    let error = rig.deliver([hop(&taken, &[insert(1, &["1", "one", "7"])])]).unwrap_err();
    assert!(error.to_string().contains("public.notes has a column `_version`"), "{error}");
}
