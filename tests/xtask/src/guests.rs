//! Builds the plugins from source into `target/plugins/<name>.wasm`.
//!
//! A directory below `plugins/` with a `Cargo.toml` is a Rust plugin: a `cdylib` for the bare wasm
//! target, made a component here. One with an `app.py` is a Python plugin, whose `tailwater-world`
//! file, if there is one, names the world it targets.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail, ensure};
use tailwater_test_support::{setup, workspace_root};
use wit_component::ComponentEncoder;

use crate::steps;

const WASM_TARGET: &str = "wasm32-unknown-unknown";
const DEFAULT_WORLD: &str = "transform";

/// Builds every plugin below `root`; the files, in the order of their names.
pub(crate) fn build_guests(root: &Path) -> Result<Vec<PathBuf>> {
    let output = steps::plugins_directory();
    fs::create_dir_all(&output)?;
    let mut built = Vec::new();
    for source in sources(&root.join("plugins"))? {
        let name = source.file_name().context("a plugin's directory has a name")?;
        let target = output.join(name).with_extension("wasm");
        let outcome = if source.join("Cargo.toml").exists() {
            build_rust(&source, &[], &target)
        } else if source.join("app.py").exists() {
            build_python(root, &source, &target)
        } else {
            continue;
        };
        outcome.with_context(|| format!("build the plugin in {}", source.display()))?;
        built.push(target);
    }
    Ok(built)
}

fn sources(plugins: &Path) -> Result<Vec<PathBuf>> {
    if !plugins.exists() {
        return Ok(Vec::new());
    }
    let entries = fs::read_dir(plugins)?.collect::<Result<Vec<_>, _>>()?;
    let mut sources: Vec<PathBuf> = entries.into_iter().map(|entry| entry.path()).collect();
    sources.sort();
    Ok(sources)
}

/// Builds the Rust plugin `name` with one of its cargo features; the file.
pub(crate) fn build_variant(name: &str, feature: &str) -> Result<PathBuf> {
    let source = workspace_root().join("plugins").join(name);
    let target = steps::plugins_directory().join(format!("{name}-{feature}.wasm"));
    build_rust(&source, &["--features", feature], &target)?;
    Ok(target)
}

fn build_rust(source: &Path, arguments: &[&str], target: &Path) -> Result<()> {
    let mut cargo = steps::cargo();
    cargo.args(["build", "--release", "--lib", "--target", WASM_TARGET]);
    cargo.args(arguments).arg("--manifest-path").arg(source.join("Cargo.toml"));
    cargo.arg("--target-dir").arg(steps::target_directory());
    cargo.args(["--message-format", "json-render-diagnostics"]).stderr(Stdio::inherit());
    let output = cargo.output().context("run cargo")?;
    ensure!(output.status.success(), "cargo ended with {}", output.status);
    let module = wasm_artifact(&String::from_utf8(output.stdout)?)?;
    let component = ComponentEncoder::default()
        .validate(true)
        .module(&fs::read(module)?)
        .and_then(|mut encoder| encoder.encode())
        .context("make a component of the module")?;
    write_if_changed(target, &component)
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

fn build_python(root: &Path, source: &Path, target: &Path) -> Result<()> {
    let world = fs::read_to_string(source.join("tailwater-world"));
    let world = world.as_deref().map_or(DEFAULT_WORLD, str::trim);
    let fresh = target.with_extension("wasm.new");
    let mut command: Command = setup::componentize_py()?;
    command.arg("--wit-path").arg(root.join("wit")).args(["--world", world]);
    command.args(["componentize", "--stub-wasi", "app", "--python-path"]).arg(source);
    command.arg("--output").arg(&fresh);
    let output = command.output().context("run componentize-py")?;
    if !output.status.success() {
        bail!("componentize-py failed: {}", String::from_utf8_lossy(&output.stderr));
    }
    let component = fs::read(&fresh)?;
    fs::remove_file(&fresh)?;
    write_if_changed(target, &component)
}

/// By rename, so that a running Tailwater that watches the file never sees half of it, and only when
/// it differs, so that nothing is reloaded for nothing.
fn write_if_changed(target: &Path, component: &[u8]) -> Result<()> {
    if fs::read(target).is_ok_and(|present| present == component) {
        return Ok(());
    }
    let fresh = target.with_extension("wasm.new");
    fs::write(&fresh, component)?;
    fs::rename(&fresh, target).with_context(|| format!("write {}", target.display()))
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
