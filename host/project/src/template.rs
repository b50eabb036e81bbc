//! `tailwater plugin new`: a project that builds, from nothing but this program.
//!
//! A project holds all that it needs of this repository: the contract and the helpers of its
//! language. A Rust project has the SDK's sources, because the SDK is on no registry, and bare bindings
//! would have every author write the loops over columns that the SDK hides. So a project builds the
//! same way for as long as its author likes, whatever becomes of Tailwater.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail, ensure};

use crate::language::{Language, Role};
use crate::material::{self, File, write_file};

/// What stands for the project's name in a template.
const NAME: &str = "plugin-name";
const NAME_MAX: usize = 64;

const README: &str = include_str!("../templates/README.md");
const IGNORED: &str = "/target/\n/node_modules/\n*.wasm\n*.part\n/plugin-name.golden.jsonl\n";

/// What a language's templates have besides what is common to all.
struct Template {
    title: &'static str,
    /// The plugin itself: where it is, and its text for each role.
    source: &'static str,
    transform: &'static str,
    dedup: &'static str,
    /// What builds it.
    files: &'static [File],
    helpers: &'static [File],
    /// What has to be installed.
    needs: &'static str,
    /// What its section of the configuration should say besides.
    settings: &'static str,
}

macro_rules! template {
    ($file:literal) => {
        include_str!(concat!("../templates/", $file))
    };
}

const RUST: Template = Template {
    title: "Rust",
    source: "src/lib.rs",
    transform: template!("rust/transform/src/lib.rs"),
    dedup: template!("rust/dedup/src/lib.rs"),
    files: &[("Cargo.toml", template!("rust/Cargo.toml"))],
    helpers: &[],
    needs: "Building needs Rust 1.95 or later with `rustup target add wasm32-unknown-unknown`. \
            `cargo test` runs the tests\nin the source, without WebAssembly. `sdk` is Tailwater's \
            SDK; a newer one comes with a newer\n`tailwater plugin new`.\n",
    settings: "",
};

const GO: Template = Template {
    title: "Go",
    source: "plugin.go",
    transform: template!("go/transform/plugin.go"),
    dedup: template!("go/dedup/plugin.go"),
    files: material::GO_MODULE,
    helpers: material::GO_SDK,
    needs: "Building needs Go 1.27.1 or later. `columns.go` has helpers for packed columns. The \
            names of package and\nmodule are those that the generated bindings look for.\n",
    settings: "",
};

const JAVASCRIPT: Template = Template {
    title: "JavaScript",
    source: "plugin.js",
    transform: template!("js/transform/plugin.js"),
    dedup: template!("js/dedup/plugin.js"),
    files: &[("package.json", template!("js/package.json"))],
    helpers: material::JS_SDK,
    needs: "Building needs Node.js 24 and, once, `npm install`. A `plugin.ts` is taken too. \
            `columns.ts` has helpers for\npacked columns.\n",
    settings: SCRIPT,
};

const PYTHON: Template = Template {
    title: "Python",
    source: "app.py",
    transform: template!("python/transform/app.py"),
    dedup: template!("python/dedup/app.py"),
    files: &[("requirements.txt", template!("python/requirements.txt"))],
    helpers: &[],
    needs: "Building needs, once, `pip install -r requirements.txt`.\n",
    settings: SCRIPT,
};

const C: Template = Template {
    title: "C",
    source: "plugin.c",
    transform: template!("c/transform/plugin.c"),
    dedup: template!("c/dedup/plugin.c"),
    files: &[],
    helpers: material::C_SDK,
    needs: "Building needs clang with lld, wasi-libc and compiler-rt for WebAssembly (Debian: \
            `clang lld wasi-libc\nlibclang-rt-dev-wasm32`). `columns.h` has helpers for packed \
            columns, `json.h` for the configuration.\n",
    settings: "",
};

/// An engine of a scripting language is inside the component.
const SCRIPT: &str = "memory_mb = 256\n";

/// Makes a project in a new directory `name` of `parent`; the directory.
///
/// # Errors
/// The name is none, the directory exists, or it cannot be written.
pub fn create(parent: &Path, name: &str, language: Language, role: Role) -> Result<PathBuf> {
    check(name)?;
    let project = parent.join(name);
    match fs::create_dir(&project) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            bail!("{} exists already; choose another name", project.display());
        }
        made => made.with_context(|| format!("cannot make the directory {}", project.display()))?,
    }
    let template = match language {
        Language::Rust => RUST,
        Language::Go => GO,
        Language::JavaScript => JAVASCRIPT,
        Language::Python => PYTHON,
        Language::C => C,
    };
    let (source, golden) = match role {
        Role::Transform => (template.transform, template!("golden/transform.jsonl")),
        Role::Dedup => (template.dedup, template!("golden/dedup.jsonl")),
    };
    let write = |file: &str, text: &str| write_file(&project.join(file), &text.replace(NAME, name));
    write(template.source, source)?;
    template.files.iter().try_for_each(|(file, text)| write(file, text))?;
    write("golden.jsonl", golden)?;
    write(".gitignore", IGNORED)?;
    write("README.md", &readme(&template, language, role))?;
    if language == Language::Rust {
        let sdk = project.join("sdk");
        material::write(&sdk.join("wit"), material::WIT)?;
        material::write(&sdk.join("guest/src"), material::RUST_SDK)?;
        write_file(&sdk.join("guest/Cargo.toml"), &sdk_manifest()?)?;
    } else {
        material::write(&project.join("wit"), material::WIT)?;
        material::write(&project, template.helpers)?;
        write("tailwater-world", &format!("{}\n", role.world()))?;
    }
    Ok(project)
}

/// A name is one of a directory, a file, a cargo and an npm package, and a plugin in the settings.
fn check(name: &str) -> Result<()> {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    let sound = name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.chars().all(plain)
        && name.len() <= NAME_MAX;
    ensure!(
        sound,
        "`{name}` cannot name a plugin: take a small letter, then small letters, digits and -, \
         {NAME_MAX} at most"
    );
    ensure!(name != "tailwater-guest", "`{name}` is the SDK's name: choose another");
    Ok(())
}

fn readme(template: &Template, language: Language, role: Role) -> String {
    let contract = if language == Language::Rust { "sdk/wit" } else { "wit" };
    README
        .replace("LANGUAGE", template.title)
        .replace("ROLE", role.world())
        .replace("EDIT", template.source)
        .replace("SETTINGS", template.settings)
        .replace("NEEDS", template.needs)
        .replace("CONTRACT", contract)
}

/// The SDK's manifest with what it has of the workspace written out.
fn sdk_manifest() -> Result<String> {
    let mut manifest: toml::Table = material::RUST_MANIFEST.parse()?;
    let workspace: toml::Table = material::WORKSPACE_MANIFEST.parse()?;
    manifest.remove("lints");
    for section in ["package", "dependencies"] {
        let shared = &workspace["workspace"][section];
        let items = manifest[section].as_table_mut().context("a section of the manifest")?;
        for (key, value) in items.iter_mut().filter(|(_, value)| is_shared(value)) {
            *value = shared.get(key).with_context(|| format!("the workspace's {key}"))?.clone();
        }
    }
    Ok(toml::to_string(&manifest)?)
}

fn is_shared(value: &toml::Value) -> bool {
    value.get("workspace").and_then(toml::Value::as_bool) == Some(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_checked_before_anything_is_written() {
        let parent = tempfile::tempdir().unwrap();
        let long = "a".repeat(NAME_MAX + 1);
        for name in ["", "Shout", "1st", "../up", "with space", "-x", "tailwater-guest", &long] {
            let error = create(parent.path(), name, Language::Rust, Role::Transform).unwrap_err();
            assert!(error.to_string().contains(name), "{error}");
        }
        assert_eq!(fs::read_dir(parent.path()).unwrap().count(), 0);
    }

    #[test]
    fn what_exists_is_left_alone() {
        let parent = tempfile::tempdir().unwrap();
        fs::create_dir(parent.path().join("shout")).unwrap();
        let error = create(parent.path(), "shout", Language::C, Role::Dedup).unwrap_err();
        assert!(error.to_string().ends_with("shout exists already; choose another name"));
        assert_eq!(fs::read_dir(parent.path().join("shout")).unwrap().count(), 0);
    }

    #[test]
    fn nothing_of_the_template_shows_in_a_project() {
        let parent = tempfile::tempdir().unwrap();
        for language in Language::ALL {
            for role in Role::ALL {
                let name = format!("{}-{}", language.name(), role.world());
                let project = create(parent.path(), &name, language, role).unwrap();
                assert_eq!(Language::of(&project), Some(language));
                let readme = fs::read_to_string(project.join("README.md")).unwrap();
                let marks = ["plugin-name", "LANGUAGE", "ROLE", "EDIT", "SETTINGS", "CONTRACT"];
                assert!(marks.iter().all(|mark| !readme.contains(mark)), "{readme}");
            }
        }
    }

    #[test]
    fn the_sdk_of_a_project_needs_no_workspace() {
        let manifest = sdk_manifest().unwrap();
        assert!(manifest.contains("wit-bindgen") && !manifest.contains("workspace"), "{manifest}");
    }
}
