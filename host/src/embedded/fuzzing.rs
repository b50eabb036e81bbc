//! The reader of statements, for `cargo xtask fuzz`.

use super::statement::{Statement, may_be_insert, read};

/// Any text: rows lie behind the statement, and no beginning of an insert is taken for something
/// else, because then rows that come later would be read as SQL.
pub fn statement(sql: &[u8]) {
    let whole = read(sql);
    match &whole {
        Statement::Insert { head, rows, .. } => {
            assert!(head <= rows && *rows <= sql.len());
            let again = read(&sql[..*rows]);
            let Statement::Insert { head: same, .. } = again else { panic!("{again:?}") };
            assert_eq!(*head, same, "the rows say where the statement ends");
        }
        Statement::InsertFromInput | Statement::Other { .. } => {}
    }
    let inserts = matches!(whole, Statement::Insert { .. } | Statement::InsertFromInput);
    if inserts {
        (0..sql.len()).for_each(|end| assert!(may_be_insert(&sql[..end]), "{end}"));
    }
}
