//! Where the compilers come from.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Result, bail, ensure};

use crate::command::run;

const WASM_TARGET: &str = "wasm32-unknown-unknown";
/// The first version that the bindings compile with.
const GO_VERSION: (u32, u32, u32) = (1, 27, 1);
/// The first version that takes types away without a warning.
const NODE_VERSION: u32 = 24;
const COMPONENTIZE_JS: &str = "node_modules/@bytecodealliance/componentize-js/src/cli.js";

/// The programs that compile plugins. Each answer is a command to which arguments are added.
pub trait Toolchain {
    /// Cargo, with a compiler for `wasm32-unknown-unknown`.
    ///
    /// # Errors
    /// It is not there; the sentence says what to install.
    fn cargo(&self) -> Result<Command>;

    /// Go; `module` is the module it will compile.
    ///
    /// # Errors
    /// As for [`cargo`](Self::cargo).
    fn go(&self, module: &Path) -> Result<Command>;

    /// Node.js.
    ///
    /// # Errors
    /// As for [`cargo`](Self::cargo).
    fn node(&self) -> Result<Command>;

    /// The program of componentize-js, for [`node`](Self::node).
    ///
    /// # Errors
    /// As for [`cargo`](Self::cargo).
    fn componentize_js(&self, project: &Path) -> Result<PathBuf>;

    /// `componentize-py`.
    ///
    /// # Errors
    /// As for [`cargo`](Self::cargo).
    fn componentize_py(&self) -> Result<Command>;

    /// Clang, with what it links for `wasm32-wasi`.
    ///
    /// # Errors
    /// As for [`cargo`](Self::cargo).
    fn clang(&self) -> Result<Command>;
}

/// What is installed on the machine, found as a shell finds it.
#[derive(Debug, Clone, Copy, Default)]
pub struct Installed;

impl Toolchain for Installed {
    fn cargo(&self) -> Result<Command> {
        let cargo = found("cargo", "--version", "Rust is not installed; get it from rustup.rs")?;
        let mut rustc = command("rustc");
        let libraries = run(rustc.args(["--print", "target-libdir", "--target", WASM_TARGET]));
        let is_there = libraries.is_ok_and(|path| Path::new(path.trim()).exists());
        ensure!(is_there, "Rust lacks the plugins' target; run `rustup target add {WASM_TARGET}`");
        Ok(cargo)
    }

    fn go(&self, module: &Path) -> Result<Command> {
        let (major, minor, patch) = GO_VERSION;
        let advice =
            format!("Go {major}.{minor}.{patch} or later is not installed; get it from go.dev/dl");
        let mut go = found("go", "version", &advice)?;
        // Go fetches the toolchain that the module asks for, unless it is told not to.
        let version = run(command("go").current_dir(module).args(["env", "GOVERSION"]));
        let Ok(version) = version else { bail!("{advice}") };
        ensure!(go_version(version.trim()) >= GO_VERSION, "{advice}: this is {}", version.trim());
        go.env("GOWORK", "off");
        Ok(go)
    }

    fn node(&self) -> Result<Command> {
        let advice =
            format!("Node.js {NODE_VERSION} or later is not installed; get it from nodejs.org");
        let node = found("node", "--version", &advice)?;
        let version = run(command("node").arg("--version"))?;
        let version = version.trim();
        ensure!(node_version(version) >= NODE_VERSION, "{advice}: this is {version}");
        Ok(node)
    }

    fn componentize_js(&self, project: &Path) -> Result<PathBuf> {
        let program = project.join(COMPONENTIZE_JS);
        let directory = project.display();
        ensure!(
            program.exists(),
            "componentize-js is not installed; run `npm install` in {directory}"
        );
        Ok(program)
    }

    fn componentize_py(&self) -> Result<Command> {
        let advice = "componentize-py is not installed; run `pip install componentize-py==0.25.1`";
        found("componentize-py", "--version", advice)
    }

    fn clang(&self) -> Result<Command> {
        let advice = "clang and lld are not installed; on Debian run `apt-get install clang lld \
                      wasi-libc libclang-rt-dev-wasm32`";
        found("wasm-ld", "--version", advice)?;
        found("clang", "--version", advice)
    }
}

/// All variables of Tailwater's own begin so. Some hold passwords and tokens.
const OWN_VARIABLES: &str = "TAILWATER_";

/// The program's command. A compiler runs build scripts and macros that strangers wrote, so it sees none of
/// Tailwater's own variables.
fn command(program: &str) -> Command {
    let mut command = Command::new(program);
    for (name, _) in std::env::vars_os() {
        if name.as_encoded_bytes().starts_with(OWN_VARIABLES.as_bytes()) {
            command.env_remove(name);
        }
    }
    command
}

/// The program's command, if it can be run.
fn found(program: &str, version: &str, advice: &str) -> Result<Command> {
    let mut trial = command(program);
    trial.arg(version).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    ensure!(trial.status().is_ok_and(|status| status.success()), "{advice}");
    Ok(command(program))
}

/// Of `go1.27.3`.
fn go_version(text: &str) -> (u32, u32, u32) {
    let mut parts = text.trim_start_matches("go").split(['.', ' ', '-', 'r']);
    let mut next = || parts.next().and_then(|part| part.parse().ok()).unwrap_or(0);
    (next(), next(), next())
}

/// Of `v24.19.0`.
fn node_version(text: &str) -> u32 {
    let major = text.trim_start_matches('v').split('.').next();
    major.and_then(|major| major.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_of_node_are_compared_by_number() {
        assert_eq!(node_version("v24.19.0"), NODE_VERSION);
        assert!(node_version("v100.0.0") > NODE_VERSION);
        assert!(
            node_version("v9.11.2") < NODE_VERSION && node_version("24-nightly") < NODE_VERSION
        );
    }

    #[test]
    fn versions_of_go_are_compared_by_number() {
        assert_eq!(go_version("go1.27.3"), (1, 27, 3));
        assert!(go_version("go1.28rc1") > GO_VERSION);
        assert!(go_version("go1.9.7") < GO_VERSION);
        assert!(go_version("devel") < GO_VERSION);
    }
}
