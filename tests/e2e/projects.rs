//! Plugins' projects, from the template to a tested component, with nothing but the binary and the
//! language's own toolchain.

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use tailwater_test_support::{
    Postgres, PostgresVersion, Scratch, Tailwater, binary, guests, toolchains, wait_for,
    workspace_root,
};

const DEADLINE: Duration = Duration::from_secs(120);

/// A directory in which somebody writes plugins.
pub struct Author {
    scratch: Scratch,
    path: OsString,
}

impl Author {
    pub fn new() -> Result<Author> {
        let scratch = Scratch::new("author")?;
        let path = toolchains::on_path(&scratch.join("bin"))?;
        Ok(Author { scratch, path })
    }

    fn project(&self, name: &str) -> PathBuf {
        self.scratch.join(name)
    }

    /// A new project, with what its language's package manager would install.
    pub fn create(&self, language: &str, role: &str, name: &str) -> Result<PathBuf> {
        self.succeed(&["new", "--lang", language, "--role", role, name])?;
        let project = self.project(name);
        if language == "js" {
            symlink(toolchains::node_modules()?, project.join("node_modules"))?;
        }
        Ok(project)
    }

    /// Runs `tailwater plugin` with these arguments.
    fn plugin(&self, arguments: &[&str]) -> Result<Output> {
        let mut command = Command::new(binary()?);
        command.arg("plugin").args(arguments).current_dir(self.scratch.path());
        command.env("PATH", &self.path);
        // What the repository's plugins depend on is there already.
        command.env("CARGO_NET_OFFLINE", "true").env("CARGO_TARGET_DIR", target());
        command.output().context("run tailwater")
    }

    pub fn succeed(&self, arguments: &[&str]) -> Result<String> {
        let output = self.plugin(arguments)?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let (printed, said) = (text(&output.stdout), text(&output.stderr));
        ensure!(output.status.success(), "{arguments:?}: {}\n{printed}{said}", output.status);
        Ok(printed)
    }

    /// What it says when it refuses.
    fn refusal(&self, arguments: &[&str]) -> Result<String> {
        let output = self.plugin(arguments)?;
        ensure!(output.status.code() == Some(1), "{arguments:?}: {}", output.status);
        Ok(String::from_utf8(output.stderr)?)
    }
}

/// One for all, so that what the SDK depends on is compiled once.
fn target() -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR");
    target.map_or_else(|| workspace_root().join("target"), PathBuf::from).join("projects")
}

/// The right to make and build projects in Rust, for one test at a time. To cargo the SDK of each is the
/// same crate, `sdk/guest` of its workspace: two projects that take turns in one target directory are
/// linked with each other's copy, and the component's line tables name whose.
pub fn cargo_alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn passes_its_golden_events_and_takes_its_settings(language: &str, role: &str) -> Result<()> {
    let author = Author::new()?;
    // Another name in each role: they share cargo's directory.
    let name = format!("first-{role}");
    let project = author.create(language, role, &name)?;
    author.succeed(&["build", &name])?;
    let component = project.join(&name).with_extension("wasm");
    let inspected = author.succeed(&["inspect", &component.to_string_lossy()])?;
    ensure!(inspected.contains(&format!("role     {role}\n")), "{inspected}");
    ensure!(
        inspected.contains("\ntable    public.") && inspected.contains("\n  wants    "),
        "{inspected}"
    );
    for tested in [&*name, &*component.to_string_lossy()] {
        let report = author.succeed(&["test", tested])?;
        ensure!(report.contains("events, 0 differ; "), "{report}");
        ensure!(report.contains("instructions per event"), "{report}");
    }
    // JavaScript and Python are snapshots of an engine that was started, and no two starts are the same.
    if ["rust", "go", "c"].contains(&language) {
        let first = fs::read(&component)?;
        fs::remove_file(&component)?;
        author.succeed(&["build", &name])?;
        ensure!(fs::read(&component)? == first, "it is another component when it is built again");
    }
    other_columns_are_taken(&author, &name, &project)?;
    other_settings_are_refused(&author, &name, &project)?;
    differences_are_shown(&author, &name, &project)
}

/// The same events, of a table whose columns are called otherwise than what the template is for.
fn other_columns_are_taken(author: &Author, name: &str, project: &Path) -> Result<()> {
    let file = project.join("golden.jsonl");
    let golden = fs::read_to_string(&file)?;
    let of_titles = golden.replace("\"name\"", "\"title\"");
    let config = "{\"config\": {\"columns\": [\"title\", \"id\"]}}";
    let configured = of_titles.replace("{\"config\": {}}", config);
    ensure!(of_titles != golden && configured != of_titles, "{golden}");
    fs::write(&file, configured)?;
    let report = author.succeed(&["test", name])?;
    ensure!(report.contains("events, 0 differ; "), "{report}");
    Ok(fs::write(&file, golden)?)
}

fn other_settings_are_refused(author: &Author, name: &str, project: &Path) -> Result<()> {
    let file = project.join("golden.jsonl");
    let golden = fs::read_to_string(&file)?;
    let mut cases = vec![
        (r#"{"columns": "name"}"#, "config: "),
        (r#"{"columns": ["name", 1]}"#, "config: "),
        (r#"{"colums": ["name"]}"#, "unknown field"),
    ];
    if name.ends_with("dedup") {
        // Without a column every update would say nothing new.
        cases.push((r#"{"columns": []}"#, "config: `columns` names one column at least"));
    }
    for (config, expected) in cases {
        fs::write(&file, format!("{{\"config\": {config}}}"))?;
        let said = author.refusal(&["test", name])?;
        ensure!(said.contains(expected), "{name} with {config}: {said}");
    }
    Ok(fs::write(&file, golden)?)
}

/// Golden events that say something else fail, and show what.
fn differences_are_shown(author: &Author, name: &str, project: &Path) -> Result<()> {
    let file = project.join("golden.jsonl");
    let golden = fs::read_to_string(&file)?.replace("\"bob\"}}]", "\"nobody\"}}]");
    fs::write(&file, golden.replace("\"bob\", \"seen\": \"3\"}}]", "\"nobody\"}}]"))?;
    let output = author.plugin(&["test", name])?;
    let printed = String::from_utf8(output.stdout)?;
    ensure!(output.status.code() == Some(1) && printed.contains(", 1 differ"), "{printed}");
    ensure!(printed.contains("  - {") && printed.contains("nobody"), "{printed}");
    Ok(())
}

#[test]
fn a_new_project_in_rust_passes_its_golden_events_and_takes_its_settings() -> Result<()> {
    let _cargo = cargo_alone();
    passes_its_golden_events_and_takes_its_settings("rust", "transform")?;
    passes_its_golden_events_and_takes_its_settings("rust", "dedup")
}

#[test]
fn a_new_project_in_go_passes_its_golden_events_and_takes_its_settings() -> Result<()> {
    passes_its_golden_events_and_takes_its_settings("go", "transform")?;
    passes_its_golden_events_and_takes_its_settings("go", "dedup")
}

#[test]
fn a_new_project_in_javascript_passes_its_golden_events_and_takes_its_settings() -> Result<()> {
    passes_its_golden_events_and_takes_its_settings("js", "transform")?;
    passes_its_golden_events_and_takes_its_settings("js", "dedup")
}

#[test]
fn a_new_project_in_python_passes_its_golden_events_and_takes_its_settings() -> Result<()> {
    passes_its_golden_events_and_takes_its_settings("python", "transform")?;
    passes_its_golden_events_and_takes_its_settings("python", "dedup")
}

#[test]
fn a_new_project_in_c_passes_its_golden_events_and_takes_its_settings() -> Result<()> {
    passes_its_golden_events_and_takes_its_settings("c", "transform")?;
    passes_its_golden_events_and_takes_its_settings("c", "dedup")
}

#[test]
fn a_new_rust_projects_own_tests_pass() -> Result<()> {
    let _cargo = cargo_alone();
    let author = Author::new()?;
    for role in ["transform", "dedup"] {
        let name = format!("tested-{role}");
        author.succeed(&["new", "--lang", "rust", "--role", role, &name])?;
        let mut cargo = Command::new("cargo");
        cargo.args(["test", "--lib", "--quiet"]).current_dir(author.project(&name));
        cargo.env("CARGO_NET_OFFLINE", "true").env("CARGO_TARGET_DIR", target());
        let output = cargo.output()?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stdout));
    }
    Ok(())
}

#[test]
fn a_trap_of_a_new_rust_project_is_told_with_file_and_line() -> Result<()> {
    let cargo = cargo_alone();
    let author = Author::new()?;
    author.succeed(&["new", "--lang", "rust", "trapping"])?;
    let project = author.project("trapping");
    let file = project.join("src/lib.rs");
    let before = "let trimmed = text";
    let text = fs::read_to_string(&file)?
        .replace(before, &format!("assert_ne!(text, \"poison\");\n                {before}"));
    let line = text.lines().position(|line| line.contains("poison")).context("the line")? + 1;
    fs::write(&file, text)?;
    author.succeed(&["build", "trapping"])?;
    drop(cargo);
    let source = Postgres::shared(PostgresVersion::V18).create_database()?;
    source.execute("CREATE TABLE users (id bigint PRIMARY KEY, name text)")?;
    source.execute("INSERT INTO users VALUES (1, 'poison')")?;
    let component = project.join("trapping.wasm");
    let tailwater = Tailwater::with_config(&format!(
        "[source]\nurl = \"{}\"\n\n[http]\nlisten = \"{{listen}}\"\n\n\
         [[plugin]]\nname = \"trapping\"\npath = \"{}\"\n",
        source.url(),
        component.display()
    ))?;
    let mut process = tailwater.start()?;
    process.wait_ready(DEADLINE)?;
    wait_for(DEADLINE, "the dead letter", || {
        let listed = tailwater.get("/v0/dlq")?.text();
        let letters: serde_json::Value = serde_json::from_str(&listed)?;
        let id = letters["letters"][0]["id"].as_str().context("a letter")?.to_owned();
        let letter = tailwater.get(&format!("/v0/dlq/{id}"))?.text();
        ensure!(letter.contains(&format!("src/lib.rs:{line})")), "{letter}");
        Ok(())
    })?;
    ensure!(process.terminate(DEADLINE)?.success(), "it ended badly");
    Ok(())
}

#[test]
fn a_bench_has_a_line_for_each_size_of_a_batch() -> Result<()> {
    let author = Author::new()?;
    author.succeed(&["new", "--lang", "c", "benched"])?;
    author.succeed(&["build", "benched"])?;
    let table = author.succeed(&["bench", "benched"])?;
    let batches: Vec<&str> =
        table.lines().skip(1).filter_map(|line| line.split_whitespace().next()).collect();
    ensure!(batches == ["1", "16", "256", "4096"], "{table}");
    let costs = table.lines().skip(1).flat_map(|line| line.split_whitespace().skip(1));
    for cost in costs {
        ensure!(cost.parse::<f64>()? > 0.0, "{table}");
    }
    fs::write(author.project("benched").join("golden.jsonl"), "")?;
    let said = author.refusal(&["bench", "benched"])?;
    ensure!(said.contains("there is no event to measure"), "{said}");
    // Other programs of this user watch all that it may.
    let script = "echo 0 > /proc/sys/user/max_inotify_instances && exec \"$0\" \"$@\"";
    let mut run = Command::new("unshare");
    run.args(["--user", "--map-root-user", "sh", "-c", script]).arg(binary()?);
    run.args(["run", "--source", "postgres://u@h/d", "--watch", "benched"]);
    let output = run.current_dir(author.scratch.path()).env("PATH", &author.path).output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(said.contains("cannot watch the plugins' sources: "), "{said}");
    Ok(())
}

#[test]
fn what_does_not_compile_is_told_in_the_compilers_words() -> Result<()> {
    let author = Author::new()?;
    author.succeed(&["new", "--lang", "c", "broken"])?;
    fs::write(author.project("broken").join("plugin.c"), "int main(void) { return nothing; }\n")?;
    let said = author.refusal(&["build", "broken"])?;
    ensure!(said.contains("plugin.c:1:") && said.contains("nothing"), "{said}");
    ensure!(!author.project("broken").join("broken.wasm").exists(), "there is a component");
    let said = author.refusal(&["test", "broken"])?;
    ensure!(
        said.contains("broken is not built yet; run `tailwater plugin build broken`"),
        "{said}"
    );
    for command in ["inspect", "bench"] {
        ensure!(author.refusal(&[command, "broken"])?.contains("is not built yet"), "{command}");
        let said = author.refusal(&[command, "nope"])?;
        ensure!(said.contains("plugin file nope cannot be read; check `path`"), "{said}");
    }
    Ok(())
}

#[test]
fn a_component_older_than_its_sources_is_told_and_so_is_why_it_has_no_figures() -> Result<()> {
    let author = Author::new()?;
    author.succeed(&["new", "--lang", "c", "stale"])?;
    author.succeed(&["build", "stale"])?;
    let project = author.project("stale");
    let said = |output: &Output| String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(!said(&author.plugin(&["test", "stale"])?).contains("older"), "it was just built");
    let file = project.join("plugin.c");
    let text = fs::read_to_string(&file)?;
    fs::write(&file, text.replace("*patch = (tailwater_patch_t){0};", "__builtin_trap();"))?;
    let told = "stale.wasm is older than its sources; run `tailwater plugin build stale`";
    let output = author.plugin(&["test", "stale"])?;
    ensure!(output.status.success() && said(&output).contains(told), "{}", said(&output));
    author.succeed(&["build", "stale"])?;
    let output = author.plugin(&["test", "stale"])?;
    let printed = String::from_utf8_lossy(&output.stdout);
    ensure!(output.status.code() == Some(1) && !said(&output).contains("older"), "{printed}");
    ensure!(printed.contains("it trapped: ") && printed.contains("is not measured"), "{printed}");
    fs::write(&file, &text)?;
    fs::remove_file(project.join("golden.jsonl"))?;
    let own = project.join("stale.golden.jsonl");
    fs::write(&own, "what its author wrote")?;
    let output = author.plugin(&["build", "stale"])?;
    let printed = String::from_utf8_lossy(&output.stdout);
    let told = "stale.golden.jsonl stays as it is, because the project has no golden.jsonl";
    ensure!(output.status.success() && printed.contains(told), "{printed}");
    ensure!(fs::read_to_string(&own)? == "what its author wrote", "it is another file");
    Ok(())
}

#[test]
fn a_toolchain_that_is_missing_is_named_with_what_to_install() -> Result<()> {
    let mut author = Author::new()?;
    let nothing = author.project("nothing");
    fs::create_dir(&nothing)?;
    for (language, advice) in [
        ("rust", "rustup"),
        ("go", "go.dev/dl"),
        ("js", "nodejs.org"),
        ("python", "pip install componentize-py"),
        ("c", "apt-get install clang"),
    ] {
        author.succeed(&["new", "--lang", language, language])?;
        let path = std::mem::replace(&mut author.path, nothing.clone().into());
        let said = author.refusal(&["build", language])?;
        author.path = path;
        ensure!(said.contains("not installed") && said.contains(advice), "{said}");
        ensure!(said.lines().count() == 1, "{said}");
    }
    let said = author.refusal(&["build", "js"])?;
    ensure!(said.contains("run `npm install` in js"), "{said}");
    Ok(())
}

#[test]
fn names_directories_and_languages_that_cannot_be_are_refused_in_a_sentence() -> Result<()> {
    let author = Author::new()?;
    author.succeed(&["new", "--lang", "c", "twice"])?;
    let said = author.refusal(&["new", "--lang", "go", "twice"])?;
    ensure!(said.contains("twice exists already; choose another name"), "{said}");
    let said = author.refusal(&["new", "--lang", "go", "No/Name"])?;
    ensure!(said.contains("`No/Name` cannot name a plugin"), "{said}");
    let said = author.refusal(&["build", "bin"])?;
    ensure!(said.contains("bin is no plugin's project"), "{said}");
    let output = author.plugin(&["new", "--lang", "cobol", "x"])?;
    let said = String::from_utf8(output.stderr)?;
    ensure!(output.status.code() == Some(2) && said.contains("one of rust, go"), "{said}");
    Ok(())
}

#[test]
fn what_fits_no_world_is_shown_line_by_line() -> Result<()> {
    let author = Author::new()?;
    let world = "package a:b; world it { export init: func(config: string) -> result<_, string>; \
                 export process: func(rows: u32) -> u32; }";
    fs::write(author.project("other.wasm"), guests::component_of(world, "it")?)?;
    let said = author.refusal(&["inspect", "other.wasm"])?;
    ensure!(said.contains("it does not export `subscribe`"), "{said}");
    let lines: Vec<&str> = said.lines().skip(1).collect();
    let expected = [
        "  - export process: func(batch: batch) -> result<patch, string>",
        "  + export process: func(rows: u32) -> u32",
        "  - export subscribe: func(table: table) -> result<option<interest>, string>",
    ];
    ensure!(lines == expected, "{said}");
    let world = world.replace("export process", "export subscribe: func(); export process");
    fs::write(author.project("other.wasm"), guests::component_of(&world, "it")?)?;
    let said = author.refusal(&["inspect", "other.wasm"])?;
    ensure!(said.contains("other.wasm fits no world of the contract\n  - "), "{said}");
    Ok(())
}

/// A directory with the compiler in it, as it is on the path, which notes each time what it is shown.
fn noting_its_environment(compiler: &str, path: &str, seen: &Path) -> Result<Scratch> {
    let scratch = Scratch::new("noting")?;
    let file = scratch.join(compiler);
    let script =
        format!("#!/bin/sh\nenv >> '{}'\nPATH='{path}' exec {compiler} \"$@\"\n", seen.display());
    fs::write(&file, script)?;
    fs::set_permissions(&file, fs::Permissions::from_mode(0o755))?;
    Ok(scratch)
}

fn wait_names(tailwater: &Tailwater, expected: &str) -> Result<()> {
    wait_for(DEADLINE, "the names in the snapshot pipe", || {
        let answer = tailwater.get("/v0/pipes/users_snapshot.ndjson")?;
        ensure!(answer.text() == expected, "{} {}", answer.status, answer.text());
        Ok(())
    })
}

#[test]
fn a_watched_project_is_built_run_and_built_again_when_it_changes() -> Result<()> {
    let source = Postgres::shared(PostgresVersion::V15).create_database()?;
    source.execute("CREATE TABLE users (id bigint PRIMARY KEY, name text)")?;
    source.execute("INSERT INTO users VALUES (1, ' ann ')")?;
    let (url, listen) = (source.url(), "{listen}");
    let run = ["run", "--source", &url, "--listen", listen, "--data", "data", "--watch", "trim"];
    let tailwater = Tailwater::with_arguments(run)?;
    let mut new = Command::new(binary()?);
    new.args(["plugin", "new", "--lang", "c", "trim"]).current_dir(tailwater.directory());
    ensure!(new.status()?.success(), "no project was made");
    let (seen, path) = (tailwater.directory().join("seen"), std::env::var("PATH")?);
    let bin = noting_its_environment("clang", &path, &seen)?;
    let found = format!("{}:{path}", bin.path().display());
    let secrets = [("TAILWATER_TOKEN", "tw_the-key"), ("PATH", found.as_str())];
    let mut process = tailwater.start_with(&secrets)?;
    process.wait_ready(DEADLINE)?;
    let (shown, own) = (fs::read_to_string(&seen)?, format!("/proc/{}/environ", process.id()));
    let own = String::from_utf8(fs::read(own)?)?;
    for secret in [format!("TAILWATER_SOURCE={url}"), "TAILWATER_TOKEN=tw_the-key".to_owned()] {
        ensure!(own.contains(&secret), "the program itself has no {secret}");
    }
    ensure!(shown.contains("PATH=") && !shown.contains("TAILWATER_"), "a compiler sees {shown}");
    wait_names(&tailwater, "{\"id\":1,\"name\":\"ann\"}\n")?;

    let project = tailwater.directory().join("trim");
    let (file, golden) = (project.join("plugin.c"), project.join("golden.jsonl"));
    let text = fs::read_to_string(&file)?;
    fs::write(&file, text.replace("(void)error;", "(void)mistake;"))?;
    wait_for(DEADLINE, "the compiler's complaint", || {
        ensure!(tailwater.log().contains("undeclared identifier 'mistake'"), "not yet");
        Ok(())
    })?;
    fs::write(&golden, fs::read_to_string(&golden)?.replace("\" ann \"", "\"..ann.\""))?;
    fs::write(&file, text.replace("' '", "'.'"))?;
    wait_for(DEADLINE, "the new version", || {
        ensure!(tailwater.log().contains("new plugin version takes over"), "not yet");
        Ok(())
    })?;
    source.execute("INSERT INTO users VALUES (2, '.bob.')")?;
    wait_names(&tailwater, "{\"id\":1,\"name\":\"ann\"}\n{\"id\":2,\"name\":\"bob\"}\n")?;
    ensure!(process.terminate(DEADLINE)?.success(), "it ended badly");
    Ok(())
}
