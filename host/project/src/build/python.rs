//! Python plugins: `app.py`, with componentize-py.

use std::fs;

use anyhow::Result;

use super::Source;
use crate::command::run;
use crate::toolchain::Toolchain;

pub(super) fn build(source: &Source<'_>, toolchain: &dyn Toolchain) -> Result<Vec<u8>> {
    let component = source.scratch.join("plugin.wasm");
    let mut command = toolchain.componentize_py()?;
    command.arg("--wit-path").arg(&source.wit).args(["--world", &source.world]);
    command.args(["componentize", "--stub-wasi", "app", "--python-path"]).arg(source.directory);
    command.arg("--output").arg(&component);
    // Else Python leaves its caches among the sources.
    command.env("PYTHONDONTWRITEBYTECODE", "1");
    run(&mut command)?;
    Ok(fs::read(component)?)
}
