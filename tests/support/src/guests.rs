//! Plugins, built from source into components.
//!
//! As `tailwater plugin build` builds them, but with toolchains of pinned versions. What is built lies
//! in `target/plugins/<name>.wasm`, beside the digest of everything it was built from: nothing is built
//! twice.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use tailwater_project::{Language, compile, digest_of, write_if_changed};
use wit_component::{ComponentEncoder, StringEncoding};
use wit_parser::{LiftLowerAbi, ManglingAndAbi, Resolve};

use crate::toolchains::{self, Pinned};
use crate::workspace_root;

/// What plugins in a language are built from besides their own directories.
fn inputs(language: Language) -> &'static [&'static str] {
    match language {
        Language::Rust => &["Cargo.toml", "Cargo.lock", "rust-toolchain.toml", "guest-sdk"],
        Language::Python => {
            &["wit", "guest-sdk/guards/tailwater_guard.py", "host/project/src/build/python.rs"]
        }
        Language::Go => {
            &["wit", "guest-sdk/go", "guest-sdk/no-wasi.wat", "host/project/src/build/go.rs"]
        }
        Language::JavaScript => &[
            "wit",
            "guest-sdk/js",
            "guest-sdk/guards/tailwater-guard.js",
            "host/project/src/build/javascript.rs",
        ],
        Language::C => &["wit", "guest-sdk/c", "guest-sdk/no-wasi.wat"],
    }
}

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

/// Another part of a component, to be put behind it: a module that nothing uses, of so many functions
/// that take a compiler a moment each. It makes a component one that takes long to compile and does what
/// it did.
#[must_use]
pub fn idle_module(functions: u32) -> Vec<u8> {
    /// One parameter, one result, both `i32`.
    const TYPES: &[u8] = &[1, 0x60, 1, 0x7f, 1, 0x7f];
    /// `local.get 0; i32.const 7; i32.rotl; local.get 0; i32.mul; local.set 0`
    const STEP: &[u8] = &[0x20, 0, 0x41, 7, 0x77, 0x20, 0, 0x6c, 0x21, 0];
    let mut body = vec![0];
    body.extend(STEP.repeat(100));
    body.extend([0x20, 0, 0x0b]);
    let mut bodies = leb(functions);
    (0..functions).for_each(|_| bodies.extend(sized(&body)));
    let mut kinds = leb(functions);
    kinds.resize(kinds.len() + functions as usize, 0);
    let mut module = b"\0asm\x01\0\0\0".to_vec();
    for (id, content) in [(1, TYPES), (3, &kinds), (10, &bodies)] {
        module.push(id);
        module.extend(sized(content));
    }
    [vec![1], sized(&module)].concat()
}

/// Behind its length.
fn sized(content: &[u8]) -> Vec<u8> {
    let len = u32::try_from(content.len()).expect("a part is small");
    [&leb(len), content].concat()
}

/// A number as WebAssembly writes it.
fn leb(mut number: u32) -> Vec<u8> {
    let mut bytes = Vec::new();
    loop {
        let low = u8::try_from(number & 0x7f).expect("seven bits");
        number >>= 7;
        bytes.push(if number > 0 { low | 0x80 } else { low });
        if number == 0 {
            return bytes;
        }
    }
}

fn sources(plugins: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(plugins)?.collect::<Result<Vec<_>, _>>()?;
    let mut sources: Vec<PathBuf> = entries.into_iter().map(|entry| entry.path()).collect();
    sources.retain(|source| Language::of(source).is_some());
    sources.sort();
    Ok(sources)
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
    let language = Language::of(source)
        .with_context(|| format!("{} is a plugin in no known language", source.display()))?;
    let digest = source_digest(language, source)?;
    if target.exists() && fs::read_to_string(&proof).is_ok_and(|known| known == digest) {
        return Ok(target);
    }
    let component =
        compile(source, feature, &Pinned).with_context(|| format!("build {}", source.display()))?;
    write_if_changed(&target, &component)?;
    fs::write(proof, digest)?;
    Ok(target)
}

fn source_digest(language: Language, source: &Path) -> Result<String> {
    let root = workspace_root();
    let shared = inputs(language).iter().map(|input| root.join(input));
    digest_of(toolchains::VERSIONS.concat().as_bytes(), shared.chain([source.to_owned()]))
}

pub(crate) fn target_directory() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| workspace_root().join("target"), PathBuf::from)
}
