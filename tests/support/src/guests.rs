//! Plugins, built from source into components.
//!
//! A directory with a `Cargo.toml` is a Rust plugin: a `cdylib` for the bare wasm target, made a
//! component here. One with an `app.py` is a Python plugin, whose `tailwater-world` file, if there
//! is one, names the world it targets. What is built lies in `target/plugins/<name>.wasm`, beside
//! the digest of everything it was built from: nothing is built twice.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};
use sha2::{Digest as _, Sha256};
use wit_component::{ComponentEncoder, StringEncoding};
use wit_parser::{LiftLowerAbi, ManglingAndAbi, Resolve};

use crate::{setup, workspace_root};

const WASM_TARGET: &str = "wasm32-unknown-unknown";
const PROFILE: &str = "plugin";
const DEFAULT_WORLD: &str = "transform";

/// What every Rust guest is built from besides its own directory.
const RUST_INPUTS: [&str; 5] =
    ["Cargo.toml", "Cargo.lock", "rust-toolchain.toml", "guest-sdk", "wit"];

/// Builds every plugin in `plugins/`; the files, in the order of their names.
///
/// # Errors
/// One does not build.
pub fn plugins() -> Result<Vec<PathBuf>> {
    sources(&workspace_root().join("plugins"))?.iter().map(|source| build(source, None)).collect()
}

/// Builds `plugins/<name>`.
///
/// # Errors
/// It does not build.
pub fn plugin(name: &str) -> Result<PathBuf> {
    build(&workspace_root().join("plugins").join(name), None)
}

/// Builds `plugins/<name>`, a Rust plugin, with one of its cargo features: another version of it.
///
/// # Errors
/// It does not build.
pub fn plugin_with_feature(name: &str, feature: &str) -> Result<PathBuf> {
    build(&workspace_root().join("plugins").join(name), Some(feature))
}

/// Builds `tests/guests/<name>`, a program that is for tests only.
///
/// # Errors
/// It does not build.
pub fn test_guest(name: &str) -> Result<PathBuf> {
    build(&workspace_root().join("tests/guests").join(name), None)
}

/// A component of a world of any WIT package, whose functions all trap: for what is no plugin.
///
/// # Errors
/// The text is not WIT, or has no such world.
pub fn component_of(wit: &str, world: &str) -> Result<Vec<u8>> {
    let mut resolve = Resolve::default();
    let package = resolve.push_str("test.wit", wit)?;
    let world = resolve.select_world(&[package], Some(world))?;
    let mut module =
        wit_component::dummy_module(&resolve, world, ManglingAndAbi::Legacy(LiftLowerAbi::Sync));
    wit_component::embed_component_metadata(&mut module, &resolve, world, StringEncoding::UTF8)?;
    ComponentEncoder::default().validate(true).module(&module)?.encode()
}

fn sources(plugins: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(plugins)?.collect::<Result<Vec<_>, _>>()?;
    let mut sources: Vec<PathBuf> = entries.into_iter().map(|entry| entry.path()).collect();
    sources.retain(|source| is_rust(source) || is_python(source));
    sources.sort();
    Ok(sources)
}

fn is_rust(source: &Path) -> bool {
    source.join("Cargo.toml").exists()
}

fn is_python(source: &Path) -> bool {
    source.join("app.py").exists()
}

/// Builds one, unless what is there was built from the same sources.
fn build(source: &Path, feature: Option<&str>) -> Result<PathBuf> {
    let package = source.file_name().context("a plugin's directory has a name")?;
    let mut name = package.to_owned();
    if let Some(feature) = feature {
        name.push("-");
        name.push(feature);
    }
    let output = target_directory().join("plugins");
    fs::create_dir_all(&output)?;
    let target = output.join(name).with_extension("wasm");
    let proof = target.with_extension("sources");
    // One for all features, because cargo has one place for them all.
    let lock = File::create(output.join(package).with_extension("lock"))?;
    lock.lock().with_context(|| format!("lock {}", target.display()))?;
    let digest = source_digest(source)?;
    if target.exists() && fs::read_to_string(&proof).is_ok_and(|known| known == digest) {
        return Ok(target);
    }
    let component =
        if is_rust(source) { build_rust(source, feature) } else { build_python(source, &target) };
    let component = component.with_context(|| format!("build {}", source.display()))?;
    write_if_changed(&target, &component)?;
    fs::write(proof, digest)?;
    Ok(target)
}

fn source_digest(source: &Path) -> Result<String> {
    let root = workspace_root();
    let mut hasher = Sha256::new();
    hasher.update(setup::COMPONENTIZE_PY);
    let shared = RUST_INPUTS.iter().map(|input| root.join(input));
    for input in shared.chain([source.to_owned()]) {
        hash_into(&mut hasher, &input)?;
    }
    Ok(hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

fn hash_into(hasher: &mut Sha256, path: &Path) -> Result<()> {
    hasher.update(path.as_os_str().as_encoded_bytes());
    if path.is_dir() {
        let mut entries: Vec<_> =
            fs::read_dir(path)?.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?;
        entries.sort();
        return entries.iter().try_for_each(|entry| hash_into(hasher, entry));
    }
    let content = fs::read(path).with_context(|| format!("read {}", path.display()))?;
    hasher.update((content.len() as u64).to_le_bytes());
    hasher.update(content);
    Ok(())
}

fn target_directory() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| workspace_root().join("target"), PathBuf::from)
}

fn build_rust(source: &Path, feature: Option<&str>) -> Result<Vec<u8>> {
    let program = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut cargo = Command::new(program);
    cargo.args(["build", "--locked", "--lib", "--profile", PROFILE, "--target", WASM_TARGET]);
    cargo.arg("--manifest-path").arg(source.join("Cargo.toml"));
    cargo.arg("--target-dir").arg(target_directory());
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
        .and_then(|mut encoder| encoder.encode())
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

fn build_python(source: &Path, target: &Path) -> Result<Vec<u8>> {
    let world = fs::read_to_string(source.join("tailwater-world"));
    let world = world.as_deref().map_or(DEFAULT_WORLD, str::trim);
    let fresh = target.with_extension("wasm.part");
    let mut command: Command = setup::componentize_py()?;
    command.arg("--wit-path").arg(workspace_root().join("wit")).args(["--world", world]);
    command.args(["componentize", "--stub-wasi", "app", "--python-path"]).arg(source);
    command.arg("--output").arg(&fresh);
    // Else Python leaves its caches among the sources.
    command.env("PYTHONDONTWRITEBYTECODE", "1");
    let output = command.output().context("run componentize-py")?;
    if !output.status.success() {
        bail!("componentize-py failed: {}", String::from_utf8_lossy(&output.stderr));
    }
    let component = fs::read(&fresh)?;
    fs::remove_file(&fresh)?;
    Ok(component)
}

/// By rename, so that a running Tailwater that watches the file never sees half of it, and only when
/// it differs, so that nothing is reloaded for nothing.
fn write_if_changed(target: &Path, component: &[u8]) -> Result<()> {
    if fs::read(target).is_ok_and(|present| present == component) {
        return Ok(());
    }
    let fresh = target.with_extension("wasm.part");
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
