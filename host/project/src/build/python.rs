//! Python plugins: `app.py`, with componentize-py.

use std::fs;

use anyhow::Result;

use super::Source;
use crate::command::run;
use crate::material;
use crate::toolchain::Toolchain;

pub(super) fn build(source: &Source<'_>, toolchain: &dyn Toolchain) -> Result<Vec<u8>> {
    let component = source.scratch.join("plugin.wasm");
    let guard = source.scratch.join("guard");
    material::write(&guard, material::PYTHON_GUARD)?;
    let mut command = toolchain.componentize_py()?;
    command.arg("--wit-path").arg(&source.wit).args(["--world", &source.world]);
    // The guard imports `app` and has what is called.
    command.args(["componentize", "--stub-wasi", "tailwater_guard"]);
    command.arg("--python-path").arg(guard).arg("--python-path").arg(source.directory);
    command.arg("--output").arg(&component);
    // Else Python leaves its caches among the sources.
    command.env("PYTHONDONTWRITEBYTECODE", "1");
    run(&mut command)?;
    Ok(fs::read(component)?)
}
