//! The functions that a component exports: which, its role, and their types, checked once per instance.

#![expect(unsafe_code, reason = "a typed function whose arguments borrow cannot be stored")]

use wasmtime::Store;
use wasmtime::component::types::ComponentItem;
use wasmtime::component::{Component, Func, Instance, TypedFunc};

use crate::plugin::guest::bindings::shapes::{Rewriting, Shape};
use crate::plugin::guest::bindings::types::{Batch, Interest, Patch, RowKeys, Table};
use crate::plugin::guest::imports::Guest;

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
    /// That of a component, by its exports. The error says what is missing or too much.
    pub(crate) fn of(component: &Component) -> Result<Role, String> {
        let shape = component.component_type();
        let engine = component.engine();
        let exports = |name: &str| {
            let item = shape.get_export(engine, name);
            item.is_some_and(|found| matches!(found.ty, ComponentItem::ComponentFunc(_)))
        };
        let missing: Vec<&str> =
            ["init", "subscribe"].into_iter().filter(|name| !exports(name)).collect();
        if !missing.is_empty() {
            return Err(format!("it does not export `{}`", missing.join("`, `")));
        }
        let roles = [Role::Transform, Role::Reshape, Role::Dedup];
        let found: Vec<Role> = roles.into_iter().filter(|role| exports(role.export())).collect();
        match found[..] {
            [Role::Reshape] if !exports("reshape") => {
                Err("it exports `rewrite` without `reshape`".to_owned())
            }
            [role] => Ok(role),
            [] => Err("it exports none of `process`, `rewrite` and `keys`".to_owned()),
            [first, second, ..] => {
                Err(format!("it exports both `{}` and `{}`", first.export(), second.export()))
            }
        }
    }

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
pub(crate) struct Exports {
    init: Func,
    subscribe: Func,
    batch: Func,
    /// Of [`Role::Reshape`] only.
    reshape: Option<Func>,
}

impl Exports {
    /// Finds and checks the functions of a role; the error names the one that differs.
    pub(crate) fn find(
        store: &mut Store<Guest>,
        instance: &Instance,
        role: Role,
    ) -> Result<Exports, String> {
        let mut find = |name: &str| {
            instance.get_func(&mut *store, name).ok_or(format!("it does not export `{name}`"))
        };
        let exports = Exports {
            init: find("init")?,
            subscribe: find("subscribe")?,
            batch: find(role.export())?,
            reshape: (role == Role::Reshape).then(|| find("reshape")).transpose()?,
        };
        let differs = |name, error: wasmtime::Error| format!("`{name}` differs: {error:#}");
        exports
            .init
            .typed::<(&str,), (Result<(), String>,)>(&*store)
            .map_err(|error| differs("init", error))?;
        exports
            .subscribe
            .typed::<(Table<'_>,), (Result<Option<Interest>, String>,)>(&*store)
            .map_err(|error| differs("subscribe", error))?;
        let checked = match role {
            Role::Transform => {
                exports.batch.typed::<(Batch<'_>,), (Result<Patch, String>,)>(&*store).map(drop)
            }
            Role::Reshape => {
                exports.batch.typed::<(Batch<'_>,), (Result<Rewriting, String>,)>(&*store).map(drop)
            }
            Role::Dedup => {
                exports.batch.typed::<(Batch<'_>,), (Result<RowKeys, String>,)>(&*store).map(drop)
            }
        };
        checked.map_err(|error| differs(role.export(), error))?;
        if let Some(reshape) = &exports.reshape {
            reshape
                .typed::<(Table<'_>,), (Result<Shape, String>,)>(&*store)
                .map_err(|error| differs("reshape", error))?;
        }
        Ok(exports)
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
