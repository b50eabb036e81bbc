//! Go plugins: `go.mod` names the module, `plugin.go` has what the bindings call.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};

use super::{Source, generate, is_source};
use crate::command::run;
use crate::material;
use crate::toolchain::Toolchain;

/// Where the generated code expects the exports of a world.
const EXPORTS: &str = "export_wit_world";

pub(super) fn build(source: &Source<'_>, toolchain: &dyn Toolchain) -> Result<Vec<u8>> {
    let mut go = toolchain.go(source.directory)?;
    let module = source.scratch.join("module");
    let options = wit_bindgen_go::Opts {
        format: wit_bindgen_go::Format::False,
        ..wit_bindgen_go::Opts::default()
    };
    generate::bindings(source, options.build(), &module)?;
    for name in ["go.mod", "go.sum"] {
        copy(&source.directory.join(name), &module)?;
    }
    let exports = module.join(EXPORTS);
    material::write(&exports, material::GO_SDK)?;
    for entry in fs::read_dir(source.directory)? {
        let file = entry?.path();
        let name = file.to_string_lossy();
        if is_source(&file) && name.ends_with(".go") && !name.ends_with("_test.go") {
            copy(&file, &exports)?;
        }
    }
    let linked = source.scratch.join("plugin.wasm");
    go.current_dir(&module).env("GOOS", "wasip1").env("GOARCH", "wasm");
    go.args(["build", "-buildmode=c-shared", "-trimpath", "-buildvcs=false", "-o"]).arg(&linked);
    // The bindings' allocator asks the runtime for memory before there is a collector. No `-s`: traps are told
    // with the names of functions, which it takes away. There is no DWARF that `-w` would take away.
    go.arg("-ldflags=-checklinkname=0");
    run(go.arg("."))?;
    generate::component(&generate::with_world(source, fs::read(linked)?)?)
}

fn copy(file: &Path, directory: &Path) -> Result<()> {
    fs::create_dir_all(directory)?;
    let name = file.file_name().context("a file has a name")?;
    fs::copy(file, directory.join(name))
        .with_context(|| format!("cannot copy {}", file.display()))?;
    Ok(())
}
