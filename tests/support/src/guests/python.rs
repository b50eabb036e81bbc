//! Python plugins: `app.py`, with componentize-py.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::Result;

use crate::download::run;
use crate::{toolchains, workspace_root};

pub(super) fn build(source: &Path, world: &str, scratch: &Path) -> Result<Vec<u8>> {
    let component = scratch.join("plugin.wasm");
    let mut command: Command = toolchains::componentize_py()?;
    command.arg("--wit-path").arg(workspace_root().join("wit")).args(["--world", world]);
    command.args(["componentize", "--stub-wasi", "app", "--python-path"]).arg(source);
    command.arg("--output").arg(&component);
    // Else Python leaves its caches among the sources.
    command.env("PYTHONDONTWRITEBYTECODE", "1");
    run(&mut command)?;
    Ok(fs::read(component)?)
}
