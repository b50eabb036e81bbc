//! Go plugins: `go.mod` names the module, `plugin.go` has what the bindings call.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result};

use super::generate;
use crate::download::run;
use crate::{toolchains, workspace_root};

/// Where the generated code expects the exports of a world.
const EXPORTS: &str = "export_wit_world";

pub(super) fn build(source: &Path, world: &str, scratch: &Path) -> Result<Vec<u8>> {
    let module = scratch.join("module");
    let options = wit_bindgen_go::Opts {
        format: wit_bindgen_go::Format::False,
        ..wit_bindgen_go::Opts::default()
    };
    generate::bindings(world, options.build(), &module)?;
    for name in ["go.mod", "go.sum"] {
        copy(&source.join(name), &module)?;
    }
    let exports = module.join(EXPORTS);
    for directory in [source.to_owned(), workspace_root().join("guest-sdk/go")] {
        for entry in fs::read_dir(&directory)? {
            let file = entry?.path();
            let name = file.to_string_lossy();
            if name.ends_with(".go") && !name.ends_with("_test.go") {
                copy(&file, &exports)?;
            }
        }
    }
    let linked = scratch.join("plugin.wasm");
    let mut go: Command = toolchains::go()?;
    go.current_dir(&module).env("GOOS", "wasip1").env("GOARCH", "wasm");
    go.args(["build", "-buildmode=c-shared", "-trimpath", "-o"]).arg(&linked);
    // The bindings' allocator asks the runtime for memory before there is a collector.
    go.arg("-ldflags=-s -w -checklinkname=0");
    run(go.arg("."))?;
    generate::component(&generate::with_world(world, fs::read(linked)?)?)
}

fn copy(file: &Path, directory: &Path) -> Result<()> {
    fs::create_dir_all(directory)?;
    let name = file.file_name().context("a file has a name")?;
    fs::copy(file, directory.join(name)).with_context(|| format!("copy {}", file.display()))?;
    Ok(())
}
