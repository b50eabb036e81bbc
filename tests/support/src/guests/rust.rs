//! Rust plugins: a `cdylib` for the bare wasm target, whose SDK says in the module which world it is.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use wit_component::ComponentEncoder;

const WASM_TARGET: &str = "wasm32-unknown-unknown";
const PROFILE: &str = "plugin";

pub(super) fn build(source: &Path, feature: Option<&str>) -> Result<Vec<u8>> {
    let program = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut cargo = Command::new(program);
    cargo.args(["build", "--locked", "--lib", "--profile", PROFILE, "--target", WASM_TARGET]);
    cargo.arg("--manifest-path").arg(source.join("Cargo.toml"));
    cargo.arg("--target-dir").arg(super::target_directory());
    cargo.args(feature.into_iter().flat_map(|feature| ["--features", feature]));
    cargo.args(["--message-format", "json-render-diagnostics"]);
    let output = cargo.output().context("run cargo")?;
    ensure!(
        output.status.success(),
        "cargo ended with {}: {}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    let module = wasm_artifact(&String::from_utf8(output.stdout)?)?;
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
