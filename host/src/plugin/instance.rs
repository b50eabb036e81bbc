//! One instance of a plugin. A call ends in an answer or in an [`Outcome`]; after a trap the
//! instance is dead and its owner builds another.

use std::mem;
use std::sync::Arc;
use std::time::{Duration, Instant};

use wasmtime::component::types::ComponentItem;
use wasmtime::component::{Component, InstancePre};
use wasmtime::{Store, Trap};

use crate::plugin::bindings::shapes::{Rewriting, Shape};
use crate::plugin::bindings::types::{self, Batch, Interest, Patch, RowKeys};
use crate::plugin::calls::Calls;
pub use crate::plugin::calls::Role;
use crate::plugin::engine::TICK;
use crate::plugin::limits::Guest;
use crate::plugin::state::State;
use crate::plugin::trapped::Trapped;
use crate::position::Position;
use crate::table::Table;

/// What a component may import: the contract's interfaces of any compatible version.
const GRANTED: [&str; 4] = [
    "tailwater:plugin/types@0.1.",
    "tailwater:plugin/shapes@0.1.",
    "tailwater:plugin/log@0.1.",
    "tailwater:plugin/metrics@0.1.",
];

/// How a call failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Outcome {
    /// It exports functions of other types than the contract's.
    #[error("{0}")]
    Shape(String),
    /// It trapped.
    #[error("it trapped: {0}")]
    Trap(Trapped),
    /// It ran longer than `deadline_ms`.
    #[error("it ran longer than its deadline of {} ms", .0.as_millis())]
    Deadline(Duration),
    /// It wanted more than `memory_mb`.
    #[error("it wanted more than its {0} MiB of memory")]
    Memory(u32),
    /// It handed back more than `output_mb`.
    #[error("it handed back more than {0} MiB")]
    Output(u32),
    /// It answered with an error.
    #[error("{0}")]
    Refused(String),
    /// Its answer does not fit what it was asked.
    #[error("its answer is malformed: {0}")]
    Malformed(String),
}

impl Outcome {
    /// The functions that were running, if it trapped in one, with the places in the source that `places`
    /// has of them.
    pub(crate) fn backtrace(&self, places: impl Fn(usize, usize) -> Vec<String>) -> Option<String> {
        match self {
            Outcome::Trap(trapped) => trapped.backtrace(places),
            _ => None,
        }
    }

    /// The label of the metric.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Outcome::Shape(_) => "shape",
            Outcome::Trap(_) => "trap",
            Outcome::Deadline(_) => "deadline",
            Outcome::Memory(_) => "memory",
            Outcome::Output(_) => "output",
            Outcome::Refused(_) => "refused",
            Outcome::Malformed(_) => "malformed",
        }
    }
}

/// What one call may use.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Allowance {
    pub(crate) deadline: Duration,
    pub(crate) memory_mb: u32,
    pub(crate) output_mb: u32,
}

pub(crate) struct Instance {
    store: Store<Guest>,
    calls: Calls,
    allowance: Allowance,
    dead: bool,
    /// It was called with no batch yet that it answered.
    fresh: bool,
}

/// Which role a component has, by its exports.
pub(crate) fn role(component: &Component) -> Result<Role, String> {
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

/// What a component imports beyond the contract.
pub(crate) fn foreign_imports(component: &Component) -> Vec<String> {
    let shape = component.component_type();
    let names = shape.imports(component.engine()).map(|(name, _)| name.to_owned());
    names.filter(|name| !GRANTED.iter().any(|granted| name.starts_with(granted))).collect()
}

impl Instance {
    /// Instantiates and calls `init`.
    pub(crate) fn start(
        code: &InstancePre<Guest>,
        role: Role,
        guest: Guest,
        allowance: Allowance,
        config: &str,
    ) -> Result<Instance, Outcome> {
        let mut store = Store::new(code.engine(), guest);
        store.limiter(Guest::limiter);
        store.set_hostcall_fuel(
            usize::try_from(u64::from(allowance.output_mb) << 20).unwrap_or(usize::MAX),
        );
        // Refused by an engine that does not count.
        store.set_fuel(u64::MAX).ok();
        store.set_epoch_deadline(ticks(allowance.deadline));
        let instance = code.instantiate(&mut store);
        let instance = instance.map_err(|trap| outcome(&store, &trap, allowance))?;
        let calls = Calls::find(&mut store, &instance, role).map_err(Outcome::Shape)?;
        let mut started = Instance { store, calls, allowance, dead: false, fresh: true };
        started.call(|calls, store| calls.init(store, config))?;
        Ok(started)
    }

    /// Whether it trapped.
    pub(crate) fn is_dead(&self) -> bool {
        self.dead
    }

    /// Whether it answered no batch yet, and so keeps nothing of one in its memory.
    pub(crate) fn is_fresh(&self) -> bool {
        self.fresh
    }

    /// Tells what it is shown by the calls that follow: a table, and of rows the first one's place
    /// and how many there are.
    pub(crate) fn look_at(&mut self, table: &Arc<Table>, rows: Option<(Position, usize)>) {
        self.store.data_mut().look_at(table, rows);
    }

    /// Ends what [`look_at`](Self::look_at) began.
    pub(crate) fn look_away(&mut self) {
        self.store.data_mut().look_away();
    }

    /// Lends it a state while something runs, which keeps what a call wrote if the call went well.
    pub(crate) fn with_state<T>(
        &mut self,
        state: &mut State,
        run: impl FnOnce(&mut Instance) -> T,
    ) -> T {
        self.store.data_mut().lend(mem::take(state));
        let done = run(self);
        *state = self.store.data_mut().take_back();
        done
    }

    pub(crate) fn memory_bytes(&self) -> usize {
        self.store.data().memory_bytes()
    }

    /// Instructions executed so far; 0 if the engine does not count.
    pub(crate) fn instructions(&self) -> u64 {
        u64::MAX - self.store.get_fuel().unwrap_or(u64::MAX)
    }

    pub(crate) fn subscribe(
        &mut self,
        table: types::Table<'_>,
    ) -> Result<Option<Interest>, Outcome> {
        self.call(|calls, store| calls.subscribe(store, table))
    }

    pub(crate) fn process(&mut self, batch: Batch<'_>) -> Result<Patch, Outcome> {
        self.show(|calls, store| calls.process(store, batch))
    }

    pub(crate) fn reshape(&mut self, table: types::Table<'_>) -> Result<Shape, Outcome> {
        self.call(|calls, store| calls.reshape(store, table))
    }

    pub(crate) fn rewrite(&mut self, batch: Batch<'_>) -> Result<Rewriting, Outcome> {
        self.show(|calls, store| calls.rewrite(store, batch))
    }

    pub(crate) fn keys(&mut self, batch: Batch<'_>) -> Result<RowKeys, Outcome> {
        self.show(|calls, store| calls.keys(store, batch))
    }

    /// Calls it with a batch.
    fn show<T>(
        &mut self,
        call: impl FnOnce(&Calls, &mut Store<Guest>) -> wasmtime::Result<Result<T, String>>,
    ) -> Result<T, Outcome> {
        let started = Instant::now();
        let answer = self.call(call);
        self.store.data().took(started.elapsed());
        self.fresh &= answer.is_err();
        answer
    }

    fn call<T>(
        &mut self,
        call: impl FnOnce(&Calls, &mut Store<Guest>) -> wasmtime::Result<Result<T, String>>,
    ) -> Result<T, Outcome> {
        self.store.set_epoch_deadline(ticks(self.allowance.deadline));
        self.store.data_mut().begin_call();
        let answer = call(&self.calls, &mut self.store);
        self.store.data_mut().end_call();
        match answer {
            // It said that it could not; but it will not get any more the next time.
            Ok(Err(_)) if self.store.data().memory_exceeded() => {
                self.dead = true;
                Err(Outcome::Memory(self.allowance.memory_mb))
            }
            Ok(answer) => answer.map_err(|reason| Outcome::Refused(shorten(reason))),
            Err(trap) => {
                self.dead = true;
                Err(outcome(&self.store, &trap, self.allowance))
            }
        }
    }
}

/// One tick more, because the current one has partly passed.
fn ticks(deadline: Duration) -> u64 {
    let ticks = deadline.as_nanos().div_ceil(TICK.as_nanos());
    u64::try_from(ticks).unwrap_or(u64::MAX / 2) + 1
}

fn outcome(store: &Store<Guest>, trap: &wasmtime::Error, allowance: Allowance) -> Outcome {
    match trap.downcast_ref::<Trap>() {
        Some(Trap::Interrupt) => Outcome::Deadline(allowance.deadline),
        _ if store.data().memory_exceeded() => Outcome::Memory(allowance.memory_mb),
        Some(code) => Outcome::Trap(Trapped::new(*code, trap)),
        None if is_output_limit(trap) => Outcome::Output(allowance.output_mb),
        None => {
            let what = shorten(format!("{:#}", trap.root_cause()));
            Outcome::Trap(Trapped::other(what, trap))
        }
    }
}

/// wasmtime has no type for it, only this sentence.
fn is_output_limit(trap: &wasmtime::Error) -> bool {
    trap.chain().any(|cause| cause.to_string().contains("fuel allocated for hostcalls"))
}

/// Guests choose how long their messages are; operators read them.
fn shorten(mut message: String) -> String {
    message.truncate(message.floor_char_boundary(500));
    message
}
