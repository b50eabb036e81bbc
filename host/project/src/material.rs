//! What a project has from this repository, as text inside the program: a user has only the binary.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};

/// A file's name and its text.
pub(crate) type File = (&'static str, &'static str);

macro_rules! files {
    ($directory:literal: $($name:literal),+ $(,)?) => {
        &[$(($name, include_str!(concat!("../../../", $directory, "/", $name)))),+]
    };
}

/// The contract.
pub(crate) const WIT: &[File] = files!(
    "wit": "clock.wit", "log.wit", "metrics.wit", "shapes.wit", "state.wit", "types.wit",
    "world.wit",
);

/// The Rust SDK but for its manifest, whose versions are the workspace's.
pub(crate) const RUST_SDK: &[File] = files!(
    "guest-sdk/src": "bindings/dedup.rs", "bindings/granted.rs", "bindings/mod.rs",
    "bindings/reshape.rs", "bindings/transform.rs", "clock.rs", "compare.rs", "condition.rs",
    "lib.rs", "log.rs", "metrics.rs", "moment.rs", "plugin.rs", "reshape.rs", "row.rs", "shown.rs", "state.rs",
    "testing.rs",
);

/// What the manifests of the SDK and of the workspace say.
pub(crate) const RUST_MANIFEST: &str = include_str!("../../../guest-sdk/Cargo.toml");
pub(crate) const WORKSPACE_MANIFEST: &str = include_str!("../../../Cargo.toml");

/// The headers for C.
pub(crate) const C_SDK: &[File] = files!("guest-sdk/c": "columns.h", "json.h");

/// The helpers for Go.
pub(crate) const GO_SDK: &[File] = files!("guest-sdk/go": "columns.go");

/// The module of the Go bindings, and the digests of what it needs.
pub(crate) const GO_MODULE: &[File] = files!("guest-sdk/go": "go.mod", "go.sum");

/// The helpers for JavaScript and TypeScript.
pub(crate) const JS_SDK: &[File] = files!("guest-sdk/js": "columns.ts");

/// What the exports of plugins in JavaScript and in Python are called through. They are not of a project.
pub(crate) const JS_GUARD: &[File] = files!("guest-sdk/guards": "tailwater-guard.js");
pub(crate) const PYTHON_GUARD: &[File] = files!("guest-sdk/guards": "tailwater_guard.py");

/// Answers the WASI functions that the runtimes of C and Go link, without WASI.
pub(crate) const NO_WASI: &str = include_str!("../../../guest-sdk/no-wasi.wat");

/// Writes files into a directory, which is made if need be.
pub(crate) fn write(directory: &Path, files: &[File]) -> Result<()> {
    for (name, text) in files {
        write_file(&directory.join(name), text)?;
    }
    Ok(())
}

pub(crate) fn write_file(file: &Path, text: &str) -> Result<()> {
    fs::create_dir_all(file.parent().context("a file lies in a directory")?)
        .and_then(|()| fs::write(file, text))
        .with_context(|| format!("cannot write {}", file.display()))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::PathBuf;

    use super::*;

    #[test]
    fn nothing_of_the_repository_is_left_out() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        for (directory, files) in [
            ("wit", WIT),
            ("guest-sdk/src", RUST_SDK),
            ("guest-sdk/c", C_SDK),
            ("guest-sdk/js", JS_SDK),
            ("guest-sdk/guards", [JS_GUARD, PYTHON_GUARD].concat().as_slice()),
        ] {
            let directory = root.join(directory);
            let there = files_below(&directory).into_iter();
            let there = there.map(|file| file.strip_prefix(&directory).unwrap().to_owned());
            let there: BTreeSet<PathBuf> = there.filter(|file| is_for_plugins(file)).collect();
            let known: BTreeSet<PathBuf> = files.iter().map(|(name, _)| name.into()).collect();
            assert_eq!(there, known, "{}", directory.display());
        }
    }

    /// Readmes and the tests of the helpers stay in the repository.
    fn is_for_plugins(file: &Path) -> bool {
        let name = file.to_string_lossy();
        !name.ends_with(".md") && !name.ends_with(".test.js")
    }

    fn files_below(directory: &Path) -> Vec<PathBuf> {
        let entries = fs::read_dir(directory).expect("the directory");
        let paths = entries.map(|entry| entry.expect("an entry").path());
        paths.flat_map(|path| if path.is_dir() { files_below(&path) } else { vec![path] }).collect()
    }
}
