//! C plugins: `plugin.c`, with clang, lld and wasi-libc.

use std::fs;

use anyhow::Result;

use super::{Source, generate};
use crate::command::run;
use crate::material;
use crate::toolchain::Toolchain;

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
    // Traps are told with file and line.
    "-gline-tables-only",
];

/// What the bindings' names begin with.
const NAME: &str = "tailwater";

pub(super) fn build(source: &Source<'_>, toolchain: &dyn Toolchain) -> Result<Vec<u8>> {
    let bindings = source.scratch.join("bindings");
    let options = wit_bindgen_c::Opts {
        // The same names of types in both worlds, so that the helpers fit both.
        rename_world: Some(NAME.to_owned()),
        ..wit_bindgen_c::Opts::default()
    };
    let mut clang = toolchain.clang()?;
    generate::bindings(source, options.build(), &bindings)?;
    // The project's own copies come first: clang looks beside the source.
    let helpers = source.scratch.join("helpers");
    material::write(&helpers, material::C_SDK)?;
    let module = source.scratch.join("plugin.wasm");
    clang.args(FLAGS).arg("-I").arg(&bindings).arg("-I").arg(helpers);
    // One source makes one component, wherever it is built.
    clang.arg("-ffile-compilation-dir=.");
    for directory in [source.directory, source.scratch] {
        clang.arg(format!("-ffile-prefix-map={}=.", directory.display()));
    }
    clang.arg(source.directory.join("plugin.c")).arg(bindings.join(format!("{NAME}.c")));
    // It carries the world into the module.
    clang.arg(bindings.join(format!("{NAME}_component_type.o")));
    run(clang.arg("-o").arg(&module))?;
    generate::component(&fs::read(module)?)
}
