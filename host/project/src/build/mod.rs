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

use std::fs::{self, File};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::{Context as _, Result};
use sha2::{Digest as _, Sha256};

use crate::language::Language;
use crate::material;
use crate::toolchain::Toolchain;

const DEFAULT_WORLD: &str = "transform";

/// Of each project, for people.
const README: &str = "README.md";

/// Directories of a project that no source lies in.
const NO_SOURCES: [&str; 3] = ["target", "node_modules", "__pycache__"];

/// What a project's plugin makes of which changes.
const GOLDEN: &str = "golden.jsonl";

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
    // What is wrong with it no toolchain says as well.
    generate::contract(&source)?;
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
    let copy = target.with_extension(GOLDEN);
    match fs::read(project.join(GOLDEN)) {
        Ok(golden) => write_if_changed(&copy, &golden)?,
        // What is there may be the only events that the author has.
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => return Err(error).context("cannot read golden.jsonl"),
    }
    write_if_changed(&target, &component)?;
    // Newer than its sources, though it may be the same as before. Best effort: else it looks older.
    File::options()
        .write(true)
        .open(&target)
        .and_then(|file| file.set_modified(SystemTime::now()))
        .ok();
    Ok(target)
}

/// The golden events beside a component that [`build`] leaves as they are: the project has none, and these
/// are its author's, or a copy of some that are gone.
#[must_use]
pub fn events_left(project: &Path, component: &Path) -> Option<PathBuf> {
    let copy = component.with_extension(GOLDEN);
    (copy.exists() && !project.join(GOLDEN).exists()).then_some(copy)
}

/// Whether something that a project is compiled from was written after its component.
#[must_use]
pub fn is_newer(project: &Path, component: &Path) -> bool {
    let written = |path: &Path| fs::metadata(path).and_then(|metadata| metadata.modified()).ok();
    let built = written(component);
    let entries = directories(project).into_iter().flat_map(|directory| sources(&directory));
    let files = entries.filter(|path| path.is_file() && !path.ends_with(GOLDEN));
    files.filter_map(|file| written(&file)).any(|file| built.is_some_and(|built| file > built))
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
    let inner = sources(project).into_iter().filter(|path| path.is_dir());
    inner.for_each(|directory| found.extend(directories(&directory)));
    found
}

/// What lies in a directory that is compiled, in order. No link is followed to a directory, which may hold
/// itself, nor to a file that is not there, as editors leave them beside what they edit.
fn sources(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let is_led_astray = |path: &Path| path.is_symlink() && !path.is_file();
    let paths = entries.map(|entry| entry.path());
    let mut sources: Vec<_> =
        paths.filter(|path| is_source(path) && !is_led_astray(path)).collect();
    sources.sort();
    sources
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
        return sources(path).iter().try_for_each(|entry| hash_into(hasher, entry));
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
    !is_output && name != README && !name.starts_with('.') && !NO_SOURCES.contains(&name.as_str())
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
    use std::os::unix::fs::symlink;
    use std::time::Duration;

    use super::*;
    use crate::toolchain::Installed;

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

    #[test]
    fn links_and_hidden_files_are_no_sources_and_disturb_nobody() {
        let scratch = tempfile::tempdir().unwrap();
        let project = scratch.path().join("project");
        fs::create_dir_all(project.join("inner")).unwrap();
        fs::write(project.join("plugin.c"), "").unwrap();
        let before = digest(&project).unwrap();
        let link = |to: &str, name: &str| symlink(to, project.join(name)).unwrap();
        link("ann@machine.4711", ".#plugin.c");
        link("nowhere", "gone.h");
        link(".", "loop");
        fs::write(project.join(".plugin.c.swp"), "").unwrap();
        assert_eq!(digest(&project).unwrap(), before);
        assert_eq!(directories(&project), [project.clone(), project.join("inner")]);
        fs::write(scratch.path().join("shared.h"), "").unwrap();
        link("../shared.h", "shared.h");
        assert_ne!(digest(&project).unwrap(), before, "it is compiled");
    }

    #[test]
    fn a_component_is_older_than_what_was_written_since() {
        let project = tempfile::tempdir().unwrap();
        let component = project.path().join("shout.wasm");
        let write = |name: &str, seconds: u64| {
            let file = File::create(project.path().join(name)).unwrap();
            file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)).unwrap();
        };
        write("plugin.c", 1);
        write("shout.wasm", 2);
        write("golden.jsonl", 3);
        write("README.md", 3);
        assert!(!is_newer(project.path(), &component));
        write("columns.h", 3);
        assert!(is_newer(project.path(), &component));
        assert!(!is_newer(project.path(), Path::new("nowhere.wasm")));
    }

    #[test]
    fn a_world_that_is_none_is_told_with_those_that_are() {
        let project = tempfile::tempdir().unwrap();
        fs::write(project.path().join("plugin.c"), "").unwrap();
        fs::write(project.path().join("tailwater-world"), "transfrom\n").unwrap();
        let error = compile(project.path(), None, &Installed).unwrap_err().to_string();
        let named = "tailwater-world: there is no world `transfrom` in wit; take one of ";
        assert!(error.contains(named) && error.contains(", transform, "), "{error}");
    }
}
