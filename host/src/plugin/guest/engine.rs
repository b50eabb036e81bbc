//! The WebAssembly engine: one per process, with its clock and what plugins may import.

use std::thread;
use std::time::Duration;

use wasmtime::component::Linker;
use wasmtime::{Config, Engine, OptLevel};

use crate::plugin::guest::bindings::{clock, log, metrics, state};
use crate::plugin::guest::imports::Guest;

/// The epoch's tick: what deadlines are rounded up to.
pub(crate) const TICK: Duration = Duration::from_millis(10);

/// Whether an engine counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Metering {
    /// It does not: counting costs time.
    Off,
    /// The instructions that plugins execute.
    Instructions,
}

/// Starts an engine, whose clock ticks as long as it lives.
pub(crate) fn start(metering: Metering) -> wasmtime::Result<Engine> {
    let engine = Engine::new(&config(metering))?;
    start_ticker(&engine);
    Ok(engine)
}

/// What components are linked with.
pub(crate) fn linker(engine: &Engine) -> wasmtime::Result<Linker<Guest>> {
    let mut linker = Linker::new(engine);
    log::add_to_linker::<_, Guest>(&mut linker, |guest| guest)?;
    metrics::add_to_linker::<_, Guest>(&mut linker, |guest| guest)?;
    clock::add_to_linker::<_, Guest>(&mut linker, |guest| guest)?;
    state::add_to_linker::<_, Guest>(&mut linker, |guest| guest)?;
    Ok(linker)
}

fn config(metering: Metering) -> Config {
    let mut config = Config::new();
    config.wasm_component_model(true);
    // Plugins are plain functions; the machinery for async ones would quadruple a call's cost.
    config.concurrency_support(false);
    config.epoch_interruption(true);
    if metering == Metering::Instructions {
        config.consume_fuel(true);
        // Their number is the same however well they are compiled, and this is faster.
        config.cranelift_opt_level(OptLevel::None);
    }
    config
}

fn start_ticker(engine: &Engine) {
    let weak = engine.weak();
    let tick = move || {
        while let Some(engine) = weak.upgrade() {
            engine.increment_epoch();
            drop(engine);
            thread::sleep(TICK);
        }
    };
    let builder = thread::Builder::new().name("plugin-clock".to_owned());
    builder.spawn(tick).expect("a service can start a thread");
}
