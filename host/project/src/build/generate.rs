//! What wit-bindgen makes of the contract, for the languages that compile it as source.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};
use wit_bindgen_core::{Files, WorldGenerator};
use wit_component::{ComponentEncoder, StringEncoding};
use wit_parser::{Resolve, WorldId};

use super::Source;
use crate::material;

/// Writes a language's bindings of the project's world into `directory`.
pub(super) fn bindings(
    source: &Source<'_>,
    mut generator: Box<dyn WorldGenerator>,
    directory: &Path,
) -> Result<()> {
    let (mut resolve, world) = contract(source)?;
    let mut files = Files::default();
    generator.generate(&mut resolve, world, &mut files)?;
    for (name, content) in files.iter() {
        let file = directory.join(name);
        fs::create_dir_all(file.parent().context("a file lies in a directory")?)?;
        fs::write(&file, content).with_context(|| format!("cannot write {}", file.display()))?;
    }
    Ok(())
}

/// Writes into a module which world it is of.
pub(super) fn with_world(source: &Source<'_>, mut module: Vec<u8>) -> Result<Vec<u8>> {
    let (resolve, world) = contract(source)?;
    wit_component::embed_component_metadata(&mut module, &resolve, world, StringEncoding::UTF8)?;
    Ok(module)
}

/// Makes a component of a module that was linked against WASI.
pub(super) fn component(module: &[u8]) -> Result<Vec<u8>> {
    ComponentEncoder::default()
        .validate(true)
        .module(module)?
        .adapter("wasi_snapshot_preview1", &wat::parse_str(material::NO_WASI)?)?
        .encode()
        .context("make a component of the module")
}

/// The project's contract, and the world of it that the plugin is of.
pub(super) fn contract(source: &Source<'_>) -> Result<(Resolve, WorldId)> {
    let mut resolve = Resolve::default();
    let (package, _) = resolve.push_path(&source.wit)?;
    let world = resolve.select_world(&[package], Some(&source.world));
    let world = world.ok().with_context(|| {
        // What all of them have is of no role.
        let worlds = resolve.packages[package].worlds.keys().filter(|world| *world != "plugin");
        let mut worlds: Vec<&str> = worlds.map(String::as_str).collect();
        worlds.sort_unstable();
        format!(
            "{}: there is no world `{}` in wit; take one of {}",
            source.directory.join("tailwater-world").display(),
            source.world,
            worlds.join(", ")
        )
    })?;
    Ok((resolve, world))
}
