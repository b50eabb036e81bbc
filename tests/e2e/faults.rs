//! A death at every named place, on every route that passes it, and a few at moments; `cargo xtask
//! soak` runs more of them.

use anyhow::{Context as _, Result};
use tailwater_tests::{Altering, Death, FAILPOINTS, Plan, Route, follow, survive};

/// Early enough to come soon, late enough to have something on its way.
const PASSAGE: u32 = 4;

fn dies_at(place: &str) -> Result<()> {
    let found = FAILPOINTS.into_iter().find(|(name, _)| *name == place);
    let (name, routes) = found.context("a named place")?;
    let once = name.starts_with("during_") || name.ends_with("_alter");
    for (route, seed) in routes.iter().copied().zip(1..) {
        let death = Death::At(name, if once { 1 } else { PASSAGE });
        let plan = Plan { seed, route, remembers: name.ends_with("_keep"), death };
        survive(plan).with_context(|| format!("{plan:?}"))?;
    }
    Ok(())
}

#[test]
fn a_death_during_the_snapshot_loses_and_doubles_nothing() -> Result<()> {
    dies_at("during_snapshot")
}

#[test]
fn a_death_during_a_plugin_swap_loses_and_doubles_nothing() -> Result<()> {
    dies_at("during_swap")
}

#[test]
fn a_death_during_a_token_reload_loses_and_doubles_nothing() -> Result<()> {
    dies_at("during_token_reload")
}

#[test]
fn a_death_around_keeping_what_plugins_remember_loses_and_doubles_nothing() -> Result<()> {
    dies_at("before_keep")?;
    dies_at("after_keep")
}

#[test]
fn a_death_around_a_send_loses_and_doubles_nothing() -> Result<()> {
    dies_at("before_send")?;
    dies_at("after_send")
}

#[test]
fn a_death_around_a_commit_loses_and_doubles_nothing() -> Result<()> {
    dies_at("before_commit")?;
    dies_at("after_commit")
}

#[test]
fn a_death_around_an_alter_loses_and_doubles_nothing() -> Result<()> {
    dies_at("before_alter")?;
    dies_at("after_alter")
}

#[test]
fn a_death_around_a_store_loses_and_doubles_nothing() -> Result<()> {
    dies_at("before_store")?;
    dies_at("after_store")
}

#[test]
fn a_death_between_store_and_slot_loses_and_doubles_nothing() -> Result<()> {
    dies_at("before_slot_advance")
}

#[test]
fn a_death_between_store_and_offsets_loses_and_doubles_nothing() -> Result<()> {
    dies_at("before_offset_commit")
}

#[test]
fn a_death_at_a_moment_loses_and_doubles_nothing() -> Result<()> {
    for (route, seed) in [Route::Direct, Route::Kafka].into_iter().zip(1..) {
        let plan = Plan { seed, route, remembers: true, death: Death::After(700) };
        survive(plan).with_context(|| format!("{plan:?}"))?;
    }
    Ok(())
}

#[test]
fn columns_that_change_amid_stops_and_deaths_are_followed() -> Result<()> {
    for seed in [7, 9] {
        let altering = Altering::of(seed);
        follow(altering).with_context(|| format!("{altering:?}"))?;
    }
    Ok(())
}
