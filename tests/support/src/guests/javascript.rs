//! JavaScript plugins: `plugin.js`, with componentize-js; `plugin.ts` has its types taken away first.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::download::run;
use crate::{toolchains, workspace_root};

/// Parts of WASI that plugins are not given.
const DISABLED: [&str; 5] = ["stdio", "random", "clocks", "http", "fetch-event"];

/// Takes the types away and keeps lines and columns where they were.
const STRIP_TYPES: &str = "const { readFileSync, writeFileSync } = require('node:fs'); \
    const [from, to] = process.argv.slice(1); \
    const { stripTypeScriptTypes } = require('node:module'); \
    writeFileSync(to, stripTypeScriptTypes(readFileSync(from, 'utf8')));";

pub(super) fn build(source: &Path, world: &str, scratch: &Path) -> Result<Vec<u8>> {
    let modules = scratch.join("modules");
    fs::create_dir_all(&modules)?;
    for directory in [workspace_root().join("guest-sdk/js"), source.to_owned()] {
        for entry in fs::read_dir(&directory)? {
            add(&entry?.path(), &modules)?;
        }
    }
    let component = scratch.join("plugin.wasm");
    let mut command = toolchains::node()?;
    command.arg(toolchains::componentize_js()?).arg(modules.join("plugin.js"));
    command.arg("--wit").arg(workspace_root().join("wit")).args(["--world-name", world]);
    command.arg("--disable").args(DISABLED).arg("--out").arg(&component);
    run(&mut command)?;
    Ok(fs::read(component)?)
}

/// Brings a module beside the others, as JavaScript; what is none is passed over.
fn add(file: &Path, modules: &Path) -> Result<()> {
    let Some(name) = file.file_name().and_then(|name| name.to_str()) else { return Ok(()) };
    let to: PathBuf = modules.join(name);
    if name.ends_with(".js") && !name.ends_with(".test.js") {
        fs::copy(file, to)?;
    } else if name.ends_with(".ts") && !name.ends_with(".d.ts") {
        let mut node = toolchains::node()?;
        node.args(["--no-warnings", "--eval", STRIP_TYPES, "--"]).arg(file);
        run(node.arg(to.with_extension("js")))?;
    }
    Ok(())
}
