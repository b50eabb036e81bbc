//! What the stream says of tables: each description is looked up, and it may speak against the table's copy.

use std::collections::HashMap;
use std::sync::Arc;

use tokio_postgres::types::Oid;
use tracing::warn;

use super::catalog::{self, Before, Defined};
use super::error::Error;
use super::moved;
use super::stream::{State, Stream};
use crate::decode::message::Relation;
use crate::hop::{Copied, CopyMark, Form, FormColumn, SnapshotDone};
use crate::position::Lsn;
use crate::table::{Column, Table, TableName};

impl Stream<'_> {
    /// Looks a table up for the decoder, and says meanwhile what has to be said. False if the process drains
    /// first: the stream then ends before the table's change.
    pub(super) fn define(&mut self, state: &mut State, relation: Relation) -> Result<bool, Error> {
        self.withdraw_renamed(state, &relation);
        let (client, oid) = (self.client, relation.oid);
        let known = self.decoder.known(&relation);
        // By its object id, since it may have got another name.
        let copied = self.copied.values().find(|copied| copied.oid == oid);
        let key = copied.map_or(&[][..], |copied| &copied.key);
        let asked = format!("what the columns of {}.{} are", relation.schema, relation.name);
        let open = self.decoder.transaction();
        let (xid, commit) = open.map(|open| (open.xid, open.commit)).unzip();
        let commit = commit.unwrap_or_default();
        let (seen, form) = (self.seen.before(oid, commit), self.forms.get(&oid).cloned());
        let forms = seen.as_deref().into_iter().chain(&form).collect();
        let lookup = async {
            // The catalog of before its commit does not tell of columns that it added.
            moved::visible(client, xid.as_slice()).await?;
            let before = Before { table: known, key, forms, xid };
            catalog::define(client, &relation, before).await
        };
        let Some(Defined { table, certain, exact }) = self.answer(state, &asked, lookup)? else {
            return Ok(false);
        };
        if !certain && self.withdraw_uncertain(state, &relation) {
            self.decoder.pass_over(oid);
            return Ok(true);
        }
        if certain && exact {
            self.forms.insert(oid, described(&table, commit));
        }
        self.decoder.define(relation, table);
        Ok(true)
    }

    /// Of whose columns nobody can tell any more which they were, its values might come into others: so it is copied
    /// again, and its changes until then are of no use. False if that cannot be.
    fn withdraw_uncertain(&self, state: &mut State, relation: &Relation) -> bool {
        let is_new = self.outdated.mark(relation.oid);
        let table = TableName { schema: relation.schema.clone(), name: relation.name.clone() };
        let why = "its columns changed in ways that cannot be told apart any more";
        if self.may_copy {
            warn!(%table, "{why}; it will be copied again");
            // Also if it was marked before: what is passed over is lost to the copy that there is.
            let copied = self.copied.iter().find(|(_, copied)| copied.oid == relation.oid);
            state.copies.extend(copied.map(|(name, _)| CopyMark::Withdrawn(name.clone())));
        } else if is_new {
            warn!(%table, "{why}; values may come into the wrong ones until it is copied");
        }
        self.may_copy
    }

    /// A table that has the name of another one meanwhile, be it for one transaction, leaves both copies wrong:
    /// what comes now goes to the other one. That they count no more is said ahead of it, for the names may be
    /// put back before anybody looks. A copy from after the transaction is none of it.
    fn withdraw_renamed(&mut self, state: &mut State, relation: &Relation) {
        let commit = self.decoder.transaction().map(|transaction| transaction.commit);
        for (table, copied) in self.copied {
            let has_name = table.schema == relation.schema && table.name == relation.name;
            let has_oid = copied.oid == relation.oid;
            let concerns = has_name != has_oid && commit >= Some(copied.consistent_at);
            if concerns && self.outdated.mark(copied.oid) {
                warn!(%table, "renamed, or another one of its name is written to; it will be copied again");
                state.copies.push(CopyMark::Withdrawn(table.clone()));
            }
        }
    }

    /// The records of copies with what their tables looked like since, as far as the stream is behind it: no
    /// transaction that commits before this comes again, unless the server forgets what it was told.
    pub(super) fn looked(&self, told: Lsn) -> Vec<CopyMark> {
        let passed = self.seen.passed(told);
        if passed.is_empty() {
            return Vec::new();
        }
        let copied: HashMap<Oid, _> =
            self.copied.iter().map(|copied| (copied.1.oid, copied)).collect();
        let record = |(oid, form): (Oid, Arc<Form>)| {
            let (table, copied) = copied.get(&oid)?;
            let copied = Copied { form: Form::clone(&form), ..Copied::clone(copied) };
            let done = SnapshotDone { table: TableName::clone(table), copied };
            (!self.outdated.has(oid)).then_some(CopyMark::Complete(done))
        };
        passed.into_iter().filter_map(record).collect()
    }
}

/// What a table looked like when it was described, as far as that is told.
fn described(table: &Table, at: Lsn) -> Form {
    let column = |column: &Column| {
        let number = column.number?;
        Some(FormColumn { number, name: column.name.clone(), type_of: (0, -1), generated: false })
    };
    let columns: Vec<_> = table.columns.iter().filter_map(column).collect();
    let last = columns.last().map_or(0, |column| column.number);
    Form { at, files: Vec::new(), columns, last }
}
