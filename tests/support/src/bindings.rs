//! The Rust bindings of the contract, which the SDK has as source.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use wit_bindgen_core::{Files, WorldGenerator as _};
use wit_bindgen_rust::{Opts, WithOption};
use wit_parser::Resolve;

use crate::workspace_root;

/// A world of the contract, and what its bindings take from those of `transform`.
const WORLDS: [(&str, &[&str]); 3] = [
    ("transform", &[]),
    ("dedup", &["types", "log", "metrics"]),
    ("reshape", &["types", "log", "metrics"]),
];

/// No plugin is of this world: it is a list of what the host grants by name.
const GRANTED: &str = "
    package tailwater:granted;

    world granted {
        import tailwater:plugin/state@0.1.0;
        import tailwater:plugin/clock@0.1.0;
    }
";

/// The files of the SDK's bindings, and the text that belongs into each.
///
/// # Errors
/// The contract cannot be parsed, or a world cannot be expressed in Rust.
pub fn generated() -> Result<Vec<(PathBuf, String)>> {
    let mut files = Vec::new();
    for (world, shared) in WORLDS {
        let options = Opts {
            pub_export_macro: true,
            default_bindings_module: Some(format!("tailwater_guest::bindings::{world}")),
            with: shared.iter().map(|interface| of_transform(interface)).collect(),
            ..Opts::default()
        };
        files.push(generate(world, None, options)?);
    }
    files.push(generate("granted", Some(GRANTED), Opts::default())?);
    Ok(files)
}

fn of_transform(interface: &str) -> (String, WithOption) {
    let path = format!("super::transform::tailwater::plugin::{interface}");
    (format!("tailwater:plugin/{interface}@0.1.0"), WithOption::Path(path))
}

fn generate(world: &str, package: Option<&str>, options: Opts) -> Result<(PathBuf, String)> {
    let root = workspace_root();
    let mut resolve = Resolve::default();
    let (contract, _) = resolve.push_path(root.join("wit"))?;
    let package = package.map(|text| resolve.push_str(world, text)).transpose()?;
    let id = resolve.select_world(&[package.unwrap_or(contract)], Some(world))?;
    let mut files = Files::default();
    let options = Opts { generate_all: true, format: true, ..options };
    options.build().generate(&mut resolve, id, &mut files)?;
    let (_, text) = files.iter().next().with_context(|| format!("no bindings of {world}"))?;
    let file = root.join("guest-sdk/src/bindings").join(world).with_extension("rs");
    Ok((file, String::from_utf8(text.to_vec())?))
}

/// Writes them.
///
/// # Errors
/// As [`generated`], or a file cannot be written.
pub fn write() -> Result<()> {
    for (file, text) in generated()? {
        fs::write(&file, text).with_context(|| format!("cannot write {}", file.display()))?;
    }
    Ok(())
}
