//! Rust plugins: a `cdylib` for the bare wasm target, whose SDK says in the module which world it is.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use wit_component::ComponentEncoder;

use crate::command::run;
use crate::toolchain::Toolchain;

const WASM_TARGET: &str = "wasm32-unknown-unknown";
const PROFILE: &str = "plugin";

pub(super) fn build(
    source: &Path,
    feature: Option<&str>,
    toolchain: &dyn Toolchain,
) -> Result<Vec<u8>> {
    let mut cargo = toolchain.cargo()?;
    cargo.args(["build", "--lib", "--profile", PROFILE, "--target", WASM_TARGET]);
    cargo.arg("--manifest-path").arg(source.join("Cargo.toml"));
    cargo.args(feature.into_iter().flat_map(|feature| ["--features", feature]));
    let messages = run(cargo.args(["--message-format", "json-render-diagnostics"]))?;
    let module = wasm_artifact(&messages)?;
    ComponentEncoder::default()
        .validate(true)
        .module(&fs::read(module)?)
        .and_then(|encoder| encoder.encode())
        .context("make a component of the module")
}

/// The last `.wasm` file that cargo's messages name: dependencies come before what needs them.
fn wasm_artifact(messages: &str) -> Result<PathBuf> {
    let mut found = None;
    for line in messages.lines() {
        let message: serde_json::Value = serde_json::from_str(line)?;
        let files = message["filenames"].as_array().into_iter().flatten();
        found = files
            .filter_map(|file| file.as_str())
            .filter(|file| file.ends_with(".wasm"))
            .map(PathBuf::from)
            .next_back()
            .or(found);
    }
    let hint = "cargo made no .wasm file: the plugin needs `[lib] crate-type = [\"cdylib\"]`";
    found.context(hint)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_plugins_own_module_is_taken_among_cargos_messages() {
        let messages = r#"{"reason":"compiler-artifact","filenames":["/t/libsdk.rlib"]}
{"reason":"compiler-artifact","filenames":["/t/plugin.wasm","/t/libplugin.rlib"]}
{"reason":"build-finished","success":true}"#;
        assert_eq!(wasm_artifact(messages).unwrap(), Path::new("/t/plugin.wasm"));
        let error = wasm_artifact(r#"{"reason":"build-finished"}"#).unwrap_err();
        assert!(error.to_string().contains("cdylib"));
    }
}
