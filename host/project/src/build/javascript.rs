//! JavaScript plugins: `plugin.js`, with componentize-js; `plugin.ts` has its types taken away first.

use std::fs;
use std::path::Path;

use anyhow::{Result, ensure};

use super::{Source, is_source};
use crate::command::run;
use crate::material;
use crate::toolchain::Toolchain;

/// Parts of WASI that plugins are not given.
const DISABLED: [&str; 5] = ["stdio", "random", "clocks", "http", "fetch-event"];

/// Takes the types away and keeps lines and columns where they were.
const STRIP_TYPES: &str = "const { readFileSync, writeFileSync } = require('node:fs'); \
    const [from, to] = process.argv.slice(1); \
    const { stripTypeScriptTypes } = require('node:module'); \
    writeFileSync(to, stripTypeScriptTypes(readFileSync(from, 'utf8')));";

pub(super) fn build(source: &Source<'_>, toolchain: &dyn Toolchain) -> Result<Vec<u8>> {
    let mut command = toolchain.node()?;
    let componentize = toolchain.componentize_js(source.directory)?;
    let (helpers, modules) = (source.scratch.join("helpers"), source.scratch.join("modules"));
    material::write(&helpers, material::JS_SDK)?;
    fs::create_dir_all(&modules)?;
    for directory in [helpers.as_path(), source.directory] {
        for entry in fs::read_dir(directory)? {
            add(&entry?.path(), &modules, toolchain)?;
        }
    }
    material::write(&modules, material::JS_GUARD)?;
    let component = source.scratch.join("plugin.wasm");
    // The guard imports `plugin.js` and has what is called.
    command.arg(componentize).arg(modules.join("tailwater-guard.js"));
    command.arg("--wit").arg(&source.wit).args(["--world-name", &source.world]);
    command.arg("--disable").args(DISABLED).arg("--out").arg(&component);
    run(&mut command)?;
    Ok(fs::read(component)?)
}

/// Brings a module beside the others, as JavaScript; what is none is passed over.
fn add(file: &Path, modules: &Path, toolchain: &dyn Toolchain) -> Result<()> {
    let name = file.file_name().and_then(|name| name.to_str());
    let Some(name) = name.filter(|_| is_source(file)) else { return Ok(()) };
    let to = modules.join(name);
    if name.ends_with(".js") && !name.ends_with(".test.js") {
        fs::copy(file, to)?;
    } else if name.ends_with(".ts") && !name.ends_with(".d.ts") {
        let same = file.with_extension("js");
        ensure!(
            !same.exists(),
            "{} and {} are the same module; remove the second one if it was made of the first, else the \
             first",
            file.display(),
            same.display()
        );
        let mut node = toolchain.node()?;
        node.args(["--no-warnings", "--eval", STRIP_TYPES, "--"]).arg(file);
        run(node.arg(to.with_extension("js")))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::toolchain::Installed;

    #[test]
    fn two_files_that_would_be_one_module_are_refused() {
        let project = tempfile::tempdir().unwrap();
        let (typed, plain) = (project.path().join("plugin.ts"), project.path().join("plugin.js"));
        fs::write(&typed, "").unwrap();
        fs::write(plain, "").unwrap();
        let said = add(&typed, project.path(), &Installed).unwrap_err().to_string();
        assert!(said.contains("plugin.js are the same module; remove the second one"), "{said}");
    }
}
