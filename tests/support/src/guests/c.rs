//! C plugins: `plugin.c`, with Debian's clang, lld and wasi-libc.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::Result;

use super::generate;
use crate::download::run;
use crate::workspace_root;

/// A library without `main`; everything a caller of the module needs is exported by the bindings.
const FLAGS: [&str; 9] = [
    "--target=wasm32-wasi",
    "-mexec-model=reactor",
    "-std=c17",
    "-O3",
    "-flto",
    "-mbulk-memory",
    "-Wall",
    "-Wextra",
    "-Wl,--strip-debug",
];

/// What the bindings' names begin with.
const NAME: &str = "tailwater";

pub(super) fn build(source: &Path, world: &str, scratch: &Path) -> Result<Vec<u8>> {
    let bindings = scratch.join("bindings");
    let options = wit_bindgen_c::Opts {
        // The same names of types in both worlds, so that the helpers fit both.
        rename_world: Some(NAME.to_owned()),
        ..wit_bindgen_c::Opts::default()
    };
    generate::bindings(world, options.build(), &bindings)?;
    let module = scratch.join("plugin.wasm");
    let mut clang = Command::new("clang");
    clang.args(FLAGS).arg("-I").arg(&bindings).arg("-I").arg(workspace_root().join("guest-sdk/c"));
    clang.arg(source.join("plugin.c")).arg(bindings.join(format!("{NAME}.c")));
    // It carries the world into the module.
    clang.arg(bindings.join(format!("{NAME}_component_type.o")));
    run(clang.arg("-o").arg(&module))?;
    generate::component(&fs::read(module)?)
}
