//! What a plugin author implements, and how it is driven over a batch.

use std::cell::RefCell;

use serde::de::DeserializeOwned;

use crate::bindings::transform::tailwater::plugin::types;
use crate::log;
use crate::row::{Edits, KeyColumn, Row};
use crate::shown::Shown;
use crate::types::{Batch, Fault, Form, Patch, RowKeys, Want};

pub use types::Table;

/// A plugin that changes and drops rows.
pub trait Transform: Sized + 'static {
    /// Its `config` setting.
    type Config: DeserializeOwned;

    /// Makes the plugin; also after a reload or a fault.
    ///
    /// # Errors
    /// What is wrong with the configuration. The plugin is then not loaded.
    fn new(config: Self::Config) -> Result<Self, String>;

    /// What the plugin wants to see of a table; none if the table does not concern it.
    ///
    /// # Errors
    /// Why it cannot work on this table; a fault of every row of it.
    fn subscribe(&mut self, table: &Table) -> Result<Option<Interest>, String>;

    /// Looks at one row. The outcome must not depend on which rows came in the same batch.
    fn transform(&mut self, row: &mut Row<'_>) -> Verdict;
}

/// A plugin that tells duplicates; the host remembers the keys.
pub trait Dedup: Sized + 'static {
    /// Its `config` setting.
    type Config: DeserializeOwned;

    /// As [`Transform::new`].
    ///
    /// # Errors
    /// What is wrong with the configuration. The plugin is then not loaded.
    fn new(config: Self::Config) -> Result<Self, String>;

    /// As [`Transform::subscribe`].
    ///
    /// # Errors
    /// Why it cannot work on this table; a fault of every row of it.
    fn subscribe(&mut self, table: &Table) -> Result<Option<Interest>, String>;

    /// Writes the row's key and answers true, or answers false: the row is no duplicate of any.
    fn key(&mut self, row: &Row<'_>, key: &mut String) -> bool;
}

/// What becomes of a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It goes on, with the cells that were set.
    Keep,
    /// Its row is not in the copy: an insert is dropped, an update deletes the row there, a delete
    /// stays one. Nothing but the key travels on.
    Discard,
    /// It could not be processed, and never will be; the text must hold no row value.
    Fault(String),
    /// It could not be processed now.
    Retry(String),
}

/// What a plugin wants to see of a table.
#[derive(Debug, Clone)]
pub struct Interest(types::Interest);

impl Default for Interest {
    fn default() -> Self {
        let nothing =
            types::Interest { columns: Vec::new(), ops: false, positions: false, times: false };
        Interest(nothing)
    }
}

impl Interest {
    /// The columns of these names as they are after the change, as text.
    pub fn of<S: Into<String>>(columns: impl IntoIterator<Item = S>) -> Interest {
        let none = Interest::default();
        columns.into_iter().fold(none, |all, column| all.want(column, false, Form::Packed))
    }

    /// One more column, in any form.
    #[must_use]
    pub fn want(mut self, column: impl Into<String>, old: bool, form: Form) -> Interest {
        self.0.columns.push(Want { column: column.into(), old, form });
        self
    }

    /// One more column, as it was before an update, as text.
    #[must_use]
    pub fn old(self, column: impl Into<String>) -> Interest {
        self.want(column, true, Form::Packed)
    }

    /// One more column in its native form.
    #[must_use]
    pub fn native(self, column: impl Into<String>) -> Interest {
        self.want(column, false, Form::Native)
    }

    /// Makes [`Row::op`] work.
    #[must_use]
    pub fn ops(mut self) -> Interest {
        self.0.ops = true;
        self
    }

    /// Makes [`Row::position`] work.
    #[must_use]
    pub fn positions(mut self) -> Interest {
        self.0.positions = true;
        self
    }

    /// Makes [`Row::committed_at`] work.
    #[must_use]
    pub fn times(mut self) -> Interest {
        self.0.times = true;
        self
    }

    #[cfg(not(target_family = "wasm"))]
    pub(crate) fn record(&self) -> &types::Interest {
        &self.0
    }

    /// The record of the contract.
    #[must_use]
    pub fn into_record(self) -> types::Interest {
        self.0
    }
}

impl Table {
    /// Whether the table has a column of that name.
    #[must_use]
    pub fn has(&self, column: &str) -> bool {
        self.columns.iter().any(|known| known.name == column)
    }
}

/// Drives a transform over a batch; the export macro's `process`.
///
/// # Errors
/// The host sent text that is not UTF-8.
pub fn process<P: Transform>(plugin: &mut P, batch: Batch) -> Result<Patch, String> {
    let shown = Shown::new(batch)?;
    let mut edits: Vec<Edits> = shown.columns.iter().map(|_| Edits::default()).collect();
    let mut patch = Patch { discard: Vec::new(), edits: Vec::new(), faults: Vec::new() };
    for index in 0..shown.rows {
        let mut row = Row { index, shown: &shown, edits: &mut edits };
        let fault = |message, retryable| Fault { row: number(index), message, retryable };
        match plugin.transform(&mut row) {
            Verdict::Keep => {}
            Verdict::Discard => {
                if patch.discard.is_empty() {
                    // A filter discards many: it grows once.
                    patch.discard.reserve(shown.rows - index);
                }
                patch.discard.push(number(index));
            }
            Verdict::Fault(message) => patch.faults.push(fault(message, false)),
            Verdict::Retry(message) => patch.faults.push(fault(message, true)),
        }
    }
    let edits = edits.into_iter().enumerate();
    patch.edits = edits.filter_map(|(column, edits)| edits.finish(column, shown.rows)).collect();
    Ok(patch)
}

/// Drives a dedup plugin over a batch; the export macro's `keys`.
///
/// # Errors
/// The host sent text that is not UTF-8.
pub fn keys<P: Dedup>(plugin: &mut P, batch: Batch) -> Result<RowKeys, String> {
    let shown = Shown::new(batch)?;
    let mut column = KeyColumn::default();
    for index in 0..shown.rows {
        let row = Row { index, shown: &shown, edits: &mut [] };
        column.push(index, shown.rows, |key| plugin.key(&row, key));
    }
    Ok(RowKeys { values: column.finish(shown.rows), faults: Vec::new() })
}

pub(crate) fn number(row: usize) -> u32 {
    u32::try_from(row).expect("a batch has fewer than 2^32 rows")
}

/// Where an exported plugin lives between calls.
pub struct Slot<P>(RefCell<Option<P>>);

impl<P> Slot<P> {
    /// Before `init`.
    #[must_use]
    pub const fn empty() -> Slot<P> {
        Slot(RefCell::new(None))
    }

    /// Makes the plugin of its configuration.
    ///
    /// # Errors
    /// The configuration does not fit, or the plugin refuses it.
    pub fn init<C: DeserializeOwned>(
        &self,
        config: &str,
        new: impl FnOnce(C) -> Result<P, String>,
    ) -> Result<(), String> {
        std::panic::set_hook(Box::new(report_panic));
        *self.0.borrow_mut() = Some(configure(config, new)?);
        Ok(())
    }

    /// Runs on the plugin.
    ///
    /// # Errors
    /// What `run` says, or that `init` was not called.
    pub fn with<T>(&self, run: impl FnOnce(&mut P) -> Result<T, String>) -> Result<T, String> {
        run(self.0.borrow_mut().as_mut().ok_or("init was not called")?)
    }
}

/// Makes a plugin of its configuration as JSON text.
pub(crate) fn configure<P, C: DeserializeOwned>(
    config: &str,
    new: impl FnOnce(C) -> Result<P, String>,
) -> Result<P, String> {
    new(serde_json::from_str(config).map_err(|error| format!("config: {error}"))?)
}

/// A panic ends in a trap that says nothing; the place is safe to tell, the message may hold row
/// values.
fn report_panic(info: &std::panic::PanicHookInfo<'_>) {
    let place = info.location().map_or_else(|| "?".to_owned(), ToString::to_string);
    log::write(log::Level::Error, &format!("panicked at {place}"));
}

/// Makes the crate a component of the world `transform`.
#[macro_export]
macro_rules! export_transform {
    ($plugin:ty) => {
        $crate::export_world!($plugin, transform, Transform, process, Patch);
    };
}

/// Makes the crate a component of the world `dedup`.
#[macro_export]
macro_rules! export_dedup {
    ($plugin:ty) => {
        $crate::export_world!($plugin, dedup, Dedup, keys, RowKeys);
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! export_world {
    ($plugin:ty, $world:ident, $role:ident, $call:ident, $answer:ident) => {
        #[cfg(target_family = "wasm")]
        const _: () = {
            use $crate::types;

            thread_local! {
                static PLUGIN: $crate::export::Slot<$plugin> =
                    const { $crate::export::Slot::empty() };
            }

            struct Component;

            impl $crate::bindings::$world::Guest for Component {
                fn init(config: String) -> Result<(), String> {
                    PLUGIN.with(|slot| slot.init(&config, <$plugin as $crate::$role>::new))
                }

                fn subscribe(table: types::Table) -> Result<Option<types::Interest>, String> {
                    let subscribe = |plugin: &mut $plugin| {
                        let interest = $crate::$role::subscribe(plugin, &table)?;
                        Ok(interest.map($crate::Interest::into_record))
                    };
                    PLUGIN.with(|slot| slot.with(subscribe))
                }

                fn $call(batch: types::Batch) -> Result<types::$answer, String> {
                    PLUGIN.with(|slot| slot.with(|plugin| $crate::export::$call(plugin, batch)))
                }
            }

    $crate::bindings::$world::export!(Component with_types_in $crate::bindings::$world);
        };
    };
}
