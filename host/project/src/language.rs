//! The languages of plugins, and their roles.

use std::path::Path;
use std::str::FromStr;

/// The language of a plugin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Language {
    /// Has a `Cargo.toml`.
    Rust,
    /// Has a `go.mod`.
    Go,
    /// Has a `plugin.js` or a `plugin.ts`.
    JavaScript,
    /// Has an `app.py`.
    Python,
    /// Has a `plugin.c`.
    C,
}

impl Language {
    /// All there are.
    pub const ALL: [Language; 5] =
        [Language::Rust, Language::Go, Language::JavaScript, Language::Python, Language::C];

    /// As on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Language::Rust => "rust",
            Language::Go => "go",
            Language::JavaScript => "js",
            Language::Python => "python",
            Language::C => "c",
        }
    }

    /// What the project in a directory is written in, by the files it has.
    #[must_use]
    pub fn of(project: &Path) -> Option<Language> {
        let is_there =
            |language: &Language| language.marks().iter().any(|file| project.join(file).is_file());
        Language::ALL.into_iter().find(is_there)
    }

    fn marks(self) -> &'static [&'static str] {
        match self {
            Language::Rust => &["Cargo.toml"],
            Language::Go => &["go.mod"],
            Language::JavaScript => &["plugin.js", "plugin.ts"],
            Language::Python => &["app.py"],
            Language::C => &["plugin.c"],
        }
    }
}

impl FromStr for Language {
    type Err = String;

    fn from_str(text: &str) -> Result<Language, String> {
        let found = Language::ALL.into_iter().find(|language| language.name() == text);
        found.ok_or_else(|| "a language is one of rust, go, js, python and c".to_owned())
    }
}

/// What a plugin does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// It changes and drops rows.
    Transform,
    /// It tells duplicates.
    Dedup,
}

impl Role {
    /// All that there are templates for.
    pub const ALL: [Role; 2] = [Role::Transform, Role::Dedup];

    /// Its world in `wit/`, and its name on the command line.
    #[must_use]
    pub fn world(self) -> &'static str {
        match self {
            Role::Transform => "transform",
            Role::Dedup => "dedup",
        }
    }
}

impl FromStr for Role {
    type Err = String;

    fn from_str(text: &str) -> Result<Role, String> {
        let found = Role::ALL.into_iter().find(|role| role.world() == text);
        found.ok_or_else(|| "a role is one of transform and dedup".to_owned())
    }
}
