//! The functions of the contract, type-checked once per instance.

#![expect(unsafe_code, reason = "a typed function whose arguments borrow cannot be stored")]

use wasmtime::Store;
use wasmtime::component::{Func, Instance, TypedFunc};

use crate::plugin::bindings::shapes::{Rewriting, Shape};
use crate::plugin::bindings::types::{Batch, Interest, Patch, RowKeys, Table};
use crate::plugin::limits::Guest;

type Answer<T> = wasmtime::Result<Result<T, String>>;

type Subscribe<'a> = TypedFunc<(Table<'a>,), (Result<Option<Interest>, String>,)>;
type Process<'a> = TypedFunc<(Batch<'a>,), (Result<Patch, String>,)>;
type Reshape<'a> = TypedFunc<(Table<'a>,), (Result<Shape, String>,)>;
type Rewrite<'a> = TypedFunc<(Batch<'a>,), (Result<Rewriting, String>,)>;
type Keys<'a> = TypedFunc<(Batch<'a>,), (Result<RowKeys, String>,)>;

/// What a plugin does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// It changes and drops rows.
    Transform,
    /// It changes and drops rows, and decides what tables look like and where rows go.
    Reshape,
    /// It gives every row a key, and the host drops duplicates.
    Dedup,
}

impl Role {
    /// The name of its world.
    #[must_use]
    pub fn world(self) -> &'static str {
        match self {
            Role::Transform => "transform",
            Role::Reshape => "reshape",
            Role::Dedup => "dedup",
        }
    }

    /// The function that only this role exports.
    pub(crate) fn export(self) -> &'static str {
        match self {
            Role::Transform => "process",
            Role::Reshape => "rewrite",
            Role::Dedup => "keys",
        }
    }
}

/// The functions of an instance. Their types were checked, so calls need not check again.
pub(crate) struct Calls {
    init: Func,
    subscribe: Func,
    batch: Func,
    /// Of [`Role::Reshape`] only.
    reshape: Option<Func>,
}

impl Calls {
    /// Finds and checks the functions of a role; the error names the one that differs.
    pub(crate) fn find(
        store: &mut Store<Guest>,
        instance: &Instance,
        role: Role,
    ) -> Result<Calls, String> {
        let mut find = |name: &str| {
            instance.get_func(&mut *store, name).ok_or(format!("it does not export `{name}`"))
        };
        let calls = Calls {
            init: find("init")?,
            subscribe: find("subscribe")?,
            batch: find(role.export())?,
            reshape: (role == Role::Reshape).then(|| find("reshape")).transpose()?,
        };
        let differs = |name, error: wasmtime::Error| format!("`{name}` differs: {error:#}");
        calls
            .init
            .typed::<(&str,), (Result<(), String>,)>(&*store)
            .map_err(|error| differs("init", error))?;
        calls
            .subscribe
            .typed::<(Table<'_>,), (Result<Option<Interest>, String>,)>(&*store)
            .map_err(|error| differs("subscribe", error))?;
        let checked = match role {
            Role::Transform => {
                calls.batch.typed::<(Batch<'_>,), (Result<Patch, String>,)>(&*store).map(drop)
            }
            Role::Reshape => {
                calls.batch.typed::<(Batch<'_>,), (Result<Rewriting, String>,)>(&*store).map(drop)
            }
            Role::Dedup => {
                calls.batch.typed::<(Batch<'_>,), (Result<RowKeys, String>,)>(&*store).map(drop)
            }
        };
        checked.map_err(|error| differs(role.export(), error))?;
        if let Some(reshape) = &calls.reshape {
            reshape
                .typed::<(Table<'_>,), (Result<Shape, String>,)>(&*store)
                .map_err(|error| differs("reshape", error))?;
        }
        Ok(calls)
    }

    pub(crate) fn init(&self, store: &mut Store<Guest>, config: &str) -> Answer<()> {
        // SAFETY: `find` checked the type.
        let init = unsafe { TypedFunc::<(&str,), (Result<(), String>,)>::new_unchecked(self.init) };
        Ok(init.call(store, (config,))?.0)
    }

    pub(crate) fn subscribe(
        &self,
        store: &mut Store<Guest>,
        table: Table<'_>,
    ) -> Answer<Option<Interest>> {
        // SAFETY: `find` checked the type.
        let subscribe = unsafe { Subscribe::new_unchecked(self.subscribe) };
        Ok(subscribe.call(store, (table,))?.0)
    }

    /// Calls a transform; `find` was told it is one.
    pub(crate) fn process(&self, store: &mut Store<Guest>, batch: Batch<'_>) -> Answer<Patch> {
        // SAFETY: `find` checked the type.
        let process = unsafe { Process::new_unchecked(self.batch) };
        Ok(process.call(store, (batch,))?.0)
    }

    /// Asks a plugin that reshapes; `find` was told it is one.
    pub(crate) fn reshape(&self, store: &mut Store<Guest>, table: Table<'_>) -> Answer<Shape> {
        let reshape = self.reshape.expect("only plugins that reshape are asked");
        // SAFETY: `find` checked the type.
        let reshape = unsafe { Reshape::new_unchecked(reshape) };
        Ok(reshape.call(store, (table,))?.0)
    }

    /// Calls a plugin that reshapes; `find` was told it is one.
    pub(crate) fn rewrite(&self, store: &mut Store<Guest>, batch: Batch<'_>) -> Answer<Rewriting> {
        // SAFETY: `find` checked the type.
        let rewrite = unsafe { Rewrite::new_unchecked(self.batch) };
        Ok(rewrite.call(store, (batch,))?.0)
    }

    /// Calls a dedup plugin; `find` was told it is one.
    pub(crate) fn keys(&self, store: &mut Store<Guest>, batch: Batch<'_>) -> Answer<RowKeys> {
        // SAFETY: `find` checked the type.
        let keys = unsafe { Keys::new_unchecked(self.batch) };
        Ok(keys.call(store, (batch,))?.0)
    }
}
