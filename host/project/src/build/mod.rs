//! From source to a component.
//!
//! A project's own `wit/` is what it is built against, and its own copies of the helpers are what is
//! compiled: it stays what its author tested, whatever the program's version brings. A directory
//! without them, as the plugins of this repository are, gets those of the program.

mod c;
mod generate;
mod go;
mod javascript;
mod python;
mod rust;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use sha2::{Digest as _, Sha256};

use crate::language::Language;
use crate::material;
use crate::toolchain::Toolchain;

const DEFAULT_WORLD: &str = "transform";

/// Of each project, for people.
const README: &str = "README.md";

/// Directories of a project that no source lies in.
const NO_SOURCES: [&str; 4] = ["target", "node_modules", "__pycache__", ".git"];

/// A project that is about to be compiled in a language that needs bindings first.
struct Source<'a> {
    directory: &'a Path,
    world: String,
    /// The contract's directory.
    wit: PathBuf,
    /// A directory of its own for what lies between source and component.
    scratch: &'a Path,
}

/// Compiles a project; the component. `feature` is one of cargo's.
///
/// # Errors
/// It is no project, its toolchain is missing, or it does not compile.
pub fn compile(
    project: &Path,
    feature: Option<&str>,
    toolchain: &dyn Toolchain,
) -> Result<Vec<u8>> {
    let language = language(project)?;
    if language == Language::Rust {
        return rust::build(project, feature, toolchain);
    }
    let world = fs::read_to_string(project.join("tailwater-world"));
    let world = world.as_deref().map_or(DEFAULT_WORLD, str::trim).to_owned();
    let scratch = tempfile::tempdir().context("cannot make a temporary directory")?;
    let mut wit = project.join("wit");
    if !wit.is_dir() {
        wit = scratch.path().join("wit");
        material::write(&wit, material::WIT)?;
    }
    let source = Source { directory: project, world, wit, scratch: scratch.path() };
    match language {
        Language::Python => python::build(&source, toolchain),
        Language::Go => go::build(&source, toolchain),
        Language::JavaScript => javascript::build(&source, toolchain),
        Language::Rust | Language::C => c::build(&source, toolchain),
    }
}

/// Compiles the project in a directory into `NAME.wasm` there, `NAME` being the directory's, with its
/// golden events beside it; the file. By rename, so that a running Tailwater that watches the file
/// never sees half of it, and only when it differs, so that nothing is reloaded for nothing.
///
/// # Errors
/// As [`compile`], or the files cannot be written.
pub fn build(project: &Path, toolchain: &dyn Toolchain) -> Result<PathBuf> {
    let component = compile(project, None, toolchain)?;
    let target = output(project)?;
    if let Ok(golden) = fs::read(project.join("golden.jsonl")) {
        write_if_changed(&target.with_extension("golden.jsonl"), &golden)?;
    }
    write_if_changed(&target, &component)?;
    Ok(target)
}

/// Where [`build`] puts the component of a project.
///
/// # Errors
/// The directory does not exist, or has no name.
pub fn output(project: &Path) -> Result<PathBuf> {
    let path = project.canonicalize();
    let path = path.with_context(|| format!("there is no directory {}", project.display()))?;
    let name = path.file_name().context("the root directory is no plugin's project")?;
    let mut file = name.to_owned();
    file.push(".wasm");
    Ok(project.join(file))
}

/// Writes a file by rename, if it has other content.
///
/// # Errors
/// It cannot be written.
pub fn write_if_changed(target: &Path, content: &[u8]) -> Result<()> {
    if fs::read(target).is_ok_and(|present| present == content) {
        return Ok(());
    }
    let mut fresh = target.as_os_str().to_owned();
    fresh.push(".part");
    fs::write(&fresh, content)
        .and_then(|()| fs::rename(&fresh, target))
        .with_context(|| format!("cannot write {}", target.display()))
}

/// SHA-256, hex, of all that a project is compiled from: it changes when building again makes sense.
///
/// # Errors
/// A source cannot be read.
pub fn digest(project: &Path) -> Result<String> {
    let mut hasher = Sha256::new();
    hash_into(&mut hasher, project)?;
    Ok(hex(hasher))
}

/// The directories that a project's sources lie in, itself first.
#[must_use]
pub fn directories(project: &Path) -> Vec<PathBuf> {
    let mut found = vec![project.to_owned()];
    let entries = fs::read_dir(project).into_iter().flatten().flatten().map(|entry| entry.path());
    let inner = entries.filter(|path| path.is_dir() && is_source(path));
    inner.for_each(|directory| found.extend(directories(&directory)));
    found
}

/// SHA-256, hex, of files and directories in their order.
///
/// # Errors
/// One cannot be read.
pub fn digest_of(first: &[u8], paths: impl IntoIterator<Item = PathBuf>) -> Result<String> {
    let mut hasher = Sha256::new();
    hasher.update(first);
    paths.into_iter().try_for_each(|path| hash_into(&mut hasher, &path))?;
    Ok(hex(hasher))
}

fn hex(hasher: Sha256) -> String {
    hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

fn hash_into(hasher: &mut Sha256, path: &Path) -> Result<()> {
    hasher.update(path.as_os_str().as_encoded_bytes());
    if path.is_dir() {
        let mut entries: Vec<_> =
            fs::read_dir(path)?.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?;
        entries.retain(|entry| is_source(entry));
        entries.sort();
        return entries.iter().try_for_each(|entry| hash_into(hasher, entry));
    }
    let content = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    hasher.update((content.len() as u64).to_le_bytes());
    hasher.update(content);
    Ok(())
}

/// What is built lies among the sources, and what only people read.
fn is_source(path: &Path) -> bool {
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let is_output = [".wasm", ".part", ".golden.jsonl"].iter().any(|end| name.ends_with(end));
    !is_output && name != README && !NO_SOURCES.contains(&name.as_str())
}

fn language(project: &Path) -> Result<Language> {
    Language::of(project).with_context(|| {
        format!(
            "{} is no plugin's project: it has no Cargo.toml, go.mod, plugin.js, plugin.ts, app.py \
             or plugin.c; make one with `tailwater plugin new`",
            project.display()
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_project_is_built_again_for_its_sources_and_nothing_else() {
        let project = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| fs::write(project.path().join(name), text).unwrap();
        write("plugin.c", "");
        write("golden.jsonl", "");
        let before = digest(project.path()).unwrap();
        for name in ["README.md", "shout.wasm", "shout.golden.jsonl", "shout.wasm.part"] {
            write(name, "more");
            assert_eq!(digest(project.path()).unwrap(), before, "{name}");
        }
        for name in ["plugin.c", "golden.jsonl", "columns.h"] {
            let before = digest(project.path()).unwrap();
            write(name, "more");
            assert_ne!(digest(project.path()).unwrap(), before, "{name}");
        }
    }
}
