//! Names are data: nothing in them can leave its place in a statement.

use std::sync::Arc;

use tailwater::disposition::Disposition;
use tailwater::sink::quoted;
use tailwater::table::{ColumnType, ReplicaIdentity, Table, TableName};

use crate::feed::{column, delete, hop, insert, key, moved, table, truncate, update};
use crate::rig::Rig;

const HOSTILE: [&str; 7] = [
    "we`ird",
    r"back\slash",
    "it's \"quoted\"",
    "ünïcødé 名前 🦀",
    "a; DROP TABLE users; --",
    "select",
    "{a:Int32} ? $1 %s",
];

#[test]
fn any_name_of_a_table_and_its_columns_is_a_name() {
    for name in HOSTILE {
        let rig = Rig::new("");
        let columns = vec![
            key(&format!("id {name}"), ColumnType::Int4),
            column(name, ColumnType::Text),
            column(&format!("{name}2"), ColumnType::Text),
        ];
        let table = table("public", name, columns);
        let first = [insert(1, &["9", "gone", "x"]), truncate(2)];
        let then = [
            insert(3, &["1", name, "long"]),
            update(4, &["1", "b", "GAP"]),
            moved(5, &["1", "NULL", "NULL"], &["2", name, "GAP"]),
            insert(6, &["3", "c", "x"]),
            delete(7, &["3", "NULL", "NULL"]),
        ];
        rig.deliver([hop(&table, &first)]).expect(name);
        rig.deliver([hop(&table, &then[..1])]).expect(name);
        rig.deliver([hop(&table, &then[1..])]).expect(name);
        let (view, column) = (quoted(name), quoted(name));
        let raw = format!("SELECT {column} = unhex('{}') FROM {{db}}.{view}", hex(name));
        assert_eq!(rig.lines(&raw), ["1"], "{name}");
        let sink = rig.connect().expect(name);
        assert_eq!(sink.mirrored().borrow()[0].source, format!("public.{name}"));
    }
}

fn hex(text: &str) -> String {
    text.bytes().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn two_tables_of_one_name_are_refused_before_a_row_of_the_second() {
    let rig = Rig::new("");
    let of = |schema: &str, name: &str| table(schema, name, vec![key("id", ColumnType::Int4)]);
    let tables = [of("billing", "users"), of("public", "billing_users")];
    let error = rig.deliver(tables.map(|table| hop(&table, &[insert(1, &["1"])]))).unwrap_err();
    assert_eq!(error.disposition(), Disposition::Halt);
    assert_eq!(
        error.to_string(),
        "billing.users and public.billing_users would both be called `billing_users` in \
         ClickHouse; set clickhouse.tables.\"public.billing_users\".name to another name"
    );
    assert_eq!(rig.lines("SELECT count() FROM {db}.billing_users_versions"), ["1"]);
}

#[test]
fn a_table_that_holds_rows_of_another_source_is_refused() {
    let (theirs, mut ours) = (Rig::new(""), Rig::new(""));
    ours.options.database = Some(theirs.database.clone());
    let users = table("public", "users", vec![key("id", ColumnType::Int4)]);
    theirs.deliver([hop(&users, &[insert(1, &["1"])])]).expect("the first one");
    let error = ours.deliver([hop(&users, &[insert(2, &["2"])])]).expect_err("another source");
    assert_eq!(error.disposition(), Disposition::Halt);
    assert_eq!(
        error.to_string(),
        format!(
            "`users_versions` in ClickHouse holds public.users of another source, `{}`; set \
             [clickhouse] database or clickhouse.tables.\"public.users\".name to another name, or \
             drop it there",
            theirs.database
        )
    );
    theirs.deliver([hop(&users, &[insert(3, &["3"])])]).expect("the first one goes on");
    assert_eq!(theirs.lines("SELECT id FROM {db}.users ORDER BY id"), ["1", "3"]);
}

#[test]
fn two_tables_that_a_plugin_routes_to_one_are_refused_before_a_row_of_the_second() {
    let of = |schema: &str, oid| {
        let columns = vec![key("id", ColumnType::Int4)];
        Table::new(oid, schema.to_owned(), "users".to_owned(), columns, ReplicaIdentity::Default)
    };
    let eu = |table: &Table| {
        let name = TableName { schema: "eu".to_owned(), name: "users".to_owned() };
        Arc::new(table.renamed(name))
    };
    let (first, renamed) = (of("public", 7), of("hidden", 7));
    let deliver = |tables: [Arc<Table>; 2]| {
        let rig = Rig::new("");
        let stored = rig.deliver(tables.map(|table| hop(&table, &[insert(1, &["1"])])));
        (stored, rig.lines("SELECT count() FROM {db}.eu_users_versions"))
    };
    for second in [eu(&of("legacy", 8)), Arc::new(of("eu", 8))] {
        let (stored, rows) = deliver([eu(&first), Arc::clone(&second)]);
        let error = stored.expect_err("two origins");
        assert_eq!(error.disposition(), Disposition::Halt);
        let origin = second.origin().name;
        assert_eq!(
            error.to_string(),
            format!(
                "rows of public.users and of {origin} would both go into eu.users, where a truncate or a \
                 copy of one would take those of the other along; have the plugin route them to \
                 different tables"
            )
        );
        assert_eq!(rows, ["1"]);
    }
    let (stored, _) = deliver([eu(&first), eu(&renamed)]);
    stored.expect("the same table under another name");
}

#[test]
fn a_setting_resolves_a_clash() {
    let rig = Rig::new("[tables.\"public.billing_users\"]\nname = \"other\"");
    let of = |schema: &str, name: &str| table(schema, name, vec![key("id", ColumnType::Int4)]);
    let tables = [of("billing", "users"), of("public", "billing_users")];
    rig.deliver(tables.map(|table| hop(&table, &[insert(1, &["1"])]))).expect("two names");
    assert_eq!(rig.lines("SHOW TABLES FROM {db} LIKE 'other'"), ["other"]);
}

#[test]
fn a_name_of_the_sinks_own_is_refused() {
    let rig = Rig::new("");
    let table = table("public", "_tailwater_truncates", vec![key("id", ColumnType::Int4)]);
    let error = rig.deliver([hop(&table, &[insert(1, &["1"])])]).unwrap_err();
    assert!(error.to_string().contains("the prefix belongs to tailwater"), "{error}");
}
