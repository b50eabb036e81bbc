//! One instance of a plugin. A call ends in an answer or in an [`Outcome`]; after a trap the
//! instance is dead and its owner builds another.

use std::mem;
use std::sync::Arc;
use std::time::{Duration, Instant};

use wasmtime::component::InstancePre;
use wasmtime::{Store, Trap};

use crate::plugin::backtrace::Trapped;
use crate::plugin::guest::bindings::shapes::{Rewriting, Shape};
use crate::plugin::guest::bindings::types::{self, Batch, Interest, Patch, RowKeys};
use crate::plugin::guest::call_clock::{CallClock, ticks};
use crate::plugin::guest::exports::{Exports, Role};
use crate::plugin::guest::imports::Guest;
use crate::plugin::memory::State;
use crate::position::Position;
use crate::table::Table;

/// How a call failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Outcome {
    /// It exports functions of other types than the contract's.
    #[error("{0}")]
    Shape(String),
    /// It trapped.
    #[error("it trapped: {0}")]
    Trap(Trapped),
    /// It ran longer than `deadline_ms`, or than what of that it was given.
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
    /// An answer that does not fit, and why, which may quote names that the guest chose.
    pub(crate) fn malformed(why: String) -> Outcome {
        Outcome::Malformed(shorten(why))
    }

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

/// What a call took.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Took {
    pub(crate) time: Duration,
    /// On a core, after its first tick: less than that on a machine that is busy.
    pub(crate) computing: Duration,
}

pub(crate) struct Instance {
    store: Store<Guest>,
    exports: Exports,
    allowance: Allowance,
    /// Time that a call with a batch may take.
    time: Duration,
    dead: bool,
    /// It was called with no batch yet that it answered.
    fresh: bool,
    /// What the last call with a batch took.
    took: Took,
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
        store.epoch_deadline_callback(|mut store| Ok(store.data_mut().ring()));
        let instance = code.instantiate(&mut store);
        let instance = instance.map_err(|trap| outcome(&store, &trap, allowance))?;
        let exports = Exports::find(&mut store, &instance, role).map_err(Outcome::Shape)?;
        let time = allowance.deadline;
        let (dead, fresh, took) = (false, true, Took::default());
        let mut started = Instance { store, exports, allowance, time, dead, fresh, took };
        started.call(|exports, store| exports.init(store, config))?;
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

    /// What the last call with a batch took.
    pub(crate) fn took(&self) -> Took {
        self.took
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
        self.call(|exports, store| exports.subscribe(store, table))
    }

    pub(crate) fn process(&mut self, batch: Batch<'_>) -> Result<Patch, Outcome> {
        self.show(|exports, store| exports.process(store, batch))
    }

    pub(crate) fn reshape(&mut self, table: types::Table<'_>) -> Result<Shape, Outcome> {
        self.call(|exports, store| exports.reshape(store, table))
    }

    pub(crate) fn rewrite(&mut self, batch: Batch<'_>) -> Result<Rewriting, Outcome> {
        self.show(|exports, store| exports.rewrite(store, batch))
    }

    pub(crate) fn keys(&mut self, batch: Batch<'_>) -> Result<RowKeys, Outcome> {
        self.show(|exports, store| exports.keys(store, batch))
    }

    /// Says how long calls with a batch may take from now on.
    pub(crate) fn give(&mut self, time: Duration) {
        self.time = time;
    }

    /// Calls it with a batch.
    fn show<T>(
        &mut self,
        call: impl FnOnce(&Exports, &mut Store<Guest>) -> wasmtime::Result<Result<T, String>>,
    ) -> Result<T, Outcome> {
        let started = Instant::now();
        let answer = self.call_for(self.time, call);
        let time = started.elapsed();
        self.took = Took { time, computing: self.store.data().computed() };
        self.store.data().took(time);
        self.fresh &= answer.is_err();
        answer
    }

    fn call<T>(
        &mut self,
        call: impl FnOnce(&Exports, &mut Store<Guest>) -> wasmtime::Result<Result<T, String>>,
    ) -> Result<T, Outcome> {
        self.call_for(self.allowance.deadline, call)
    }

    fn call_for<T>(
        &mut self,
        time: Duration,
        call: impl FnOnce(&Exports, &mut Store<Guest>) -> wasmtime::Result<Result<T, String>>,
    ) -> Result<T, Outcome> {
        let (clock, ticks) = CallClock::start(time);
        self.store.set_epoch_deadline(ticks);
        self.store.data_mut().begin_call(clock);
        let answer = call(&self.exports, &mut self.store);
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
                let allowance = Allowance { deadline: time, ..self.allowance };
                Err(outcome(&self.store, &trap, allowance))
            }
        }
    }
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
pub(crate) fn shorten(mut message: String) -> String {
    message.truncate(message.floor_char_boundary(500));
    message
}
