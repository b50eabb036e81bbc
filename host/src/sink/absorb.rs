//! Takes in a hop: its tables are brought into shape, its views shown, and its rows put into the batch.

use std::sync::Arc;
use std::time::Instant;

use rustc_hash::FxHashSet;

use super::Sink;
use super::batch::{Batch, Spare};
use super::block::Encoder;
use super::ddl::Place;
use super::error::Error;
use super::shape;
use super::writer::until_done;
use crate::backlog::Came;
use crate::change::{Changes, Op};
use crate::dead_letter::{DeadLetter, Stage};
use crate::hop::{Hop, Point};
use crate::table::{Table, TableName};

impl Sink {
    /// Puts a batch into the one that fills, and gives the point that it reaches.
    pub(super) async fn absorb<P: Point>(
        &mut self,
        mut hop: Hop<P>,
        filling: &mut Batch,
        spare: &mut Spare,
    ) -> Result<P, Error> {
        self.prepare(&mut hop).await?;
        // Again, because a later version may have altered the table for which an earlier one writes.
        let mut encoders = Vec::with_capacity(hop.changes.tables.len());
        for (index, table) in (0..).zip(&hop.changes.tables) {
            encoders.push(match is_only_emptied(table, &hop.changes, index) {
                true => self.without_columns(table),
                false => self.encoder(table).await?,
            });
        }
        self.show_newer(&hop.changes, &encoders).await?;
        Came::more(&mut filling.came, Instant::now());
        filling.copies.extend_from_slice(hop.point.copies());
        filling.dead_letters.extend(hop.dead_letters);
        filling.passed.extend(hop.passed);
        let redriven = hop.redrive.is_some();
        filling.redrives.extend(hop.redrive);
        let committed = filling.committed.len();
        filling.add(&hop.changes, &encoders, spare);
        if redriven {
            // They say nothing of how long a change takes.
            filling.committed.truncate(committed);
        }
        Ok(hop.point)
    }

    /// Prepares the tables of what is to be stored. Left out is what a table that was copied again since
    /// hides anyway, whose shape may be one that the table cannot have any more; and of dead letters that
    /// come through again, those that do not fit stay letters.
    async fn prepare<P>(&mut self, hop: &mut Hop<P>) -> Result<(), Error> {
        let Hop { changes, dead_letters, redrive, .. } = hop;
        let mut left_out = FxHashSet::default();
        for (index, table) in (0..).zip(&changes.tables) {
            if self.encoders.contains_key(&table.fingerprint) {
                continue;
            }
            if is_only_emptied(table, changes, index) {
                continue;
            }
            if self.is_hidden(table, changes, index) {
                left_out.insert(index);
                continue;
            }
            match self.encoder(table).await {
                Err(error) if redrive.is_some() && error.is_of_the_table() => {
                    let of = changes.list.iter().filter(|change| change.table == index);
                    dead_letters.extend(of.map(|change| {
                        DeadLetter::new(changes, change, Stage::Store, None, error.to_string())
                    }));
                    left_out.insert(index);
                }
                prepared => drop(prepared?),
            }
        }
        if !left_out.is_empty() {
            changes.list.retain(|change| !left_out.contains(&change.table));
            changes.forget_unused_tables();
        }
        Ok(())
    }

    /// Whether none of a table version's changes is newer than the last truncate of its view.
    fn is_hidden(&self, table: &Table, changes: &Changes, index: u32) -> bool {
        let view = self.place(&table.full_name()).plan.view;
        let Some(truncated) = self.writer.truncates().get(&view).copied() else { return false };
        let mut of = changes.list.iter().filter(|change| change.table == index);
        of.all(|change| changes.position(change).version() <= truncated)
    }

    pub(super) fn knows_tables(&self, changes: &Changes) -> bool {
        changes.tables.iter().all(|table| self.encoders.contains_key(&table.fingerprint))
    }

    async fn encoder(&mut self, table: &Arc<Table>) -> Result<Arc<Encoder>, Error> {
        if let Some(known) = self.encoders.get(&table.fingerprint) {
            return Ok(Arc::clone(known));
        }
        let place = self.place(&table.full_name());
        self.names.claim(&place.plan.view, &table.full_name())?;
        self.names.claim_rows(table)?;
        let ensure = || shape::ensure(&self.writer.client, &place, table);
        let home = until_done!(self.writer, ensure())?;
        if home.is_new {
            self.views.outdate(&place.plan.view);
        }
        tracing::info!(table = %table.full_name(), view = place.plan.view, "prepared a table");
        let encoder = Arc::new(Encoder::new(Arc::clone(table), place, home.columns));
        self.encoders.retain(|_, known| !known.is_outdated_by(&encoder));
        self.encoders.insert(table.fingerprint, Arc::clone(&encoder));
        Ok(encoder)
    }

    /// That of a table of which no columns are known and none are needed, which has no view either.
    fn without_columns(&self, table: &Arc<Table>) -> Arc<Encoder> {
        let place = self.place(&table.full_name());
        Arc::new(Encoder::new(Arc::clone(table), place, Vec::new()))
    }

    /// Moves the views to the table versions of these changes, if they are newer.
    async fn show_newer(
        &mut self,
        changes: &Changes,
        encoders: &[Arc<Encoder>],
    ) -> Result<(), Error> {
        let is_prepared =
            |encoder: &Encoder| self.encoders.contains_key(&encoder.table.fingerprint);
        let may_be_due =
            |encoder: &Encoder| is_prepared(encoder) && self.views.is_due(encoder, u128::MAX);
        if !encoders.iter().any(|encoder| may_be_due(encoder)) {
            return Ok(());
        }
        // By their last changes: a version that comes back, as when a column is added and dropped, is the
        // newest again.
        let mut last = vec![None; encoders.len()];
        for change in &changes.list {
            last[change.table as usize] = Some(changes.position(change).version());
        }
        let all = last.into_iter().zip(encoders);
        let mut newest: Vec<_> = all.filter(|(_, encoder)| is_prepared(encoder)).collect();
        newest.sort_by_key(|(version, _)| *version);
        for (version, encoder) in newest {
            let Some(version) = version else { continue };
            if self.views.is_due(encoder, version) {
                self.show(encoder, version).await?;
            }
        }
        Ok(())
    }

    /// Makes the view anew, unless another process has moved it farther.
    async fn show(&mut self, encoder: &Encoder, version: u128) -> Result<(), Error> {
        let (client, view) = (&self.writer.client, &encoder.place.plan.view);
        until_done!(self.writer, self.views.look_again(client, view))?;
        if self.views.is_due(encoder, version) {
            until_done!(self.writer, self.views.show(client, encoder, version))?;
        }
        self.publish().await
    }

    /// Tells what can be queried now.
    pub(super) async fn publish(&mut self) -> Result<(), Error> {
        let client = &self.writer.client;
        until_done!(self.writer, self.views.refresh(client))?;
        self.writer.leg.moving();
        Ok(())
    }

    pub(super) fn place(&self, table: &TableName) -> Place {
        Place { database: self.database().to_owned(), plan: self.options.plan(table) }
    }
}

/// Whether nothing is known of a table but that it was emptied, as another writer's truncate tells it where no
/// row was read before.
fn is_only_emptied(table: &Table, changes: &Changes, index: u32) -> bool {
    let mut of = changes.list.iter().filter(|change| change.table == index);
    table.columns.is_empty() && of.all(|change| change.op == Op::Truncate)
}
