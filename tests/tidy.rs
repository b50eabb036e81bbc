//! House rules that neither rustfmt nor clippy know. Each finding names file and line.

mod sentences;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};
use tailwater_test_support::workspace_root;

/// Lines of a file, its unit tests not counted.
const LONGEST_FILE: usize = 500;
/// Lines of a plugin that comes along, its unit tests not counted: it is there to be read.
const LONGEST_PLUGIN: usize = 149;
/// Lines of a plugin's README.
const README: std::ops::RangeInclusive<usize> = 8..=15;
/// Names that say nothing about what is in the file.
const EMPTY_NAMES: [&str; 6] = ["utils", "util", "common", "helpers", "core", "misc"];
/// Where waiting is made of sleeping: the one wait, and a load that keeps a rate.
const MAY_SLEEP: [&str; 2] = ["tests/support/src/wait.rs", "tests/support/src/workload/runner.rs"];

/// A text file of the repository.
struct Source {
    path: PathBuf,
    /// Relative to the root.
    name: String,
    text: String,
}

impl Source {
    fn is_rust(&self) -> bool {
        self.path.extension().is_some_and(|extension| extension == "rs")
    }

    fn is_markdown(&self) -> bool {
        self.path.extension().is_some_and(|extension| extension == "md")
    }

    /// Where the unit tests at the file's end begin, counted in lines.
    fn code_lines(&self) -> usize {
        let mut lines = self.text.lines();
        let end = lines.position(|line| line == "#[cfg(test)]");
        end.unwrap_or_else(|| self.text.lines().count())
    }

    /// Whether the line belongs to a test.
    fn is_test(&self, line: usize) -> bool {
        self.name.starts_with("tests/") || self.name.contains("/tests") || line > self.code_lines()
    }

    /// `file:line: what` for every line that has one of the words, by the line's number from 1.
    fn lines_with(&self, words: &[String]) -> Vec<(usize, String)> {
        let mut found = Vec::new();
        for (index, line) in self.text.lines().enumerate() {
            for word in words.iter().filter(|word| line.contains(word.as_str())) {
                found.push((index + 1, format!("{}:{}: {word}", self.name, index + 1)));
            }
        }
        found
    }
}

fn sources() -> Result<Vec<Source>> {
    let root = workspace_root();
    let mut sources = Vec::new();
    for directory in ["host", "guest-sdk", "plugins", "wit", "tests", "docs", ".ci"] {
        collect(&root, &root.join(directory), &mut sources)?;
    }
    for entry in fs::read_dir(&root)? {
        let path = entry?.path();
        // In a git worktree `.git` is a file.
        if path.is_file() && !path.ends_with(".git") {
            add(&root, path, &mut sources)?;
        }
    }
    ensure!(sources.len() > 100, "only {} files were found", sources.len());
    Ok(sources)
}

fn collect(root: &Path, directory: &Path, sources: &mut Vec<Source>) -> Result<()> {
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        match path.is_dir() {
            true if path.ends_with("target") || path.ends_with("data") => {}
            true => collect(root, &path, sources)?,
            false => add(root, path, sources)?,
        }
    }
    Ok(())
}

/// What is no text is no source.
fn add(root: &Path, path: PathBuf, sources: &mut Vec<Source>) -> Result<()> {
    let this_test = path.ends_with("tests/tidy.rs") || path.ends_with("tests/sentences.rs");
    if let (false, Ok(text)) = (this_test, fs::read_to_string(&path)) {
        let name = path.strip_prefix(root)?.display().to_string();
        sources.push(Source { path, name, text });
    }
    Ok(())
}

fn ensure_none(rule: &str, findings: impl IntoIterator<Item = String>) -> Result<()> {
    let findings: Vec<String> = findings.into_iter().collect();
    ensure!(findings.is_empty(), "{rule}:\n  {}", findings.join("\n  "));
    Ok(())
}

#[test]
fn no_file_is_longer_than_one_can_keep_in_mind() -> Result<()> {
    let long = sources()?.into_iter().filter(Source::is_rust).filter_map(|source| {
        let lines = source.code_lines();
        (lines > LONGEST_FILE).then(|| format!("{}: {lines} lines", source.name))
    });
    ensure_none("at most 500 lines without the unit tests", long)
}

#[test]
fn every_plugin_that_comes_along_is_short_shown_at_work_and_explained() -> Result<()> {
    let mut findings = Vec::new();
    let mut seen = 0;
    for entry in fs::read_dir(workspace_root().join("plugins"))? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        // Events of a plugin in five languages, and what it is in the four others.
        if name == "golden" || name.starts_with("mask-email-") {
            continue;
        }
        seen += 1;
        let lines =
            |file: &str| fs::read_to_string(path.join(file)).map(|text| text.lines().count());
        if !lines("README.md").is_ok_and(|lines| README.contains(&lines)) {
            findings.push(format!("plugins/{name}/README.md: about ten lines"));
        }
        if !lines("golden.jsonl").is_ok_and(|lines| lines > 3) {
            findings.push(format!("plugins/{name}/golden.jsonl: events with what is expected"));
        }
    }
    let program = |source: &Source| {
        let ends = [".rs", ".go", ".js", ".py", ".c"].iter().any(|end| source.name.ends_with(end));
        ends && source.name.starts_with("plugins/") && !source.is_test(0)
    };
    for source in sources()?.into_iter().filter(program) {
        let lines = source.code_lines();
        if lines > LONGEST_PLUGIN {
            findings.push(format!("{}: {lines} lines", source.name));
        }
    }
    ensure!(seen > 9, "only {seen} plugins were found");
    ensure_none("a plugin is short, has golden events and a README", findings)
}

#[test]
fn every_file_is_named_after_what_is_in_it() -> Result<()> {
    let says_nothing = |source: &Source| {
        let parts = source.path.iter().filter_map(|part| Path::new(part).file_stem());
        let mut stems = parts.filter_map(|stem| stem.to_str());
        stems.any(|stem| EMPTY_NAMES.contains(&stem))
    };
    let found = sources()?.into_iter().filter(Source::is_rust).filter(says_nothing);
    ensure_none("a name says what is inside", found.map(|source| source.name))
}

#[test]
fn nothing_is_left_to_do_to_debug_or_skipped() -> Result<()> {
    let macros = ["todo", "unimplemented", "dbg"].map(|name| format!("{name}!("));
    let words = [&macros[..], &["#[ignore".to_owned()]].concat();
    let rust = sources()?.into_iter().filter(Source::is_rust);
    let found = rust.flat_map(|source| source.lines_with(&words));
    ensure_none("finished, or not there", found.map(|(_, finding)| finding))
}

#[test]
fn tests_wait_for_conditions_and_never_for_a_time() -> Result<()> {
    let words = ["thread::sleep(", "time::sleep("].map(str::to_owned);
    let mut findings = Vec::new();
    for source in sources()?.into_iter().filter(Source::is_rust) {
        if MAY_SLEEP.contains(&source.name.as_str()) {
            continue;
        }
        let found = source.lines_with(&words).into_iter();
        findings.extend(found.filter(|(line, _)| source.is_test(*line)).map(|(_, text)| text));
    }
    ensure_none("wait with `wait_until`", findings)
}

#[test]
fn no_path_of_a_developers_machine_is_written_down() -> Result<()> {
    let everywhere = ["/work/", "/root/", "/home/"].map(str::to_owned);
    let in_docs = ["/tmp/".to_owned()];
    let found = sources()?.into_iter().flat_map(|source| {
        let mut found = source.lines_with(&everywhere);
        if source.is_markdown() {
            found.extend(source.lines_with(&in_docs));
        }
        found
    });
    ensure_none("paths of no machine", found.map(|(_, finding)| finding))
}

#[test]
fn the_map_says_of_every_module_what_it_is() -> Result<()> {
    let text = fs::read_to_string(workspace_root().join("host/src/lib.rs"))?;
    let lines: Vec<&str> = text.lines().collect();
    let modules = lines.windows(2).filter(|pair| pair[1].starts_with("pub mod "));
    let bare = modules.filter(|pair| !pair[0].starts_with("/// "));
    let bare = bare.map(|pair| pair[1].to_owned());
    ensure!(text.matches("\npub mod ").count() > 10, "the map is somewhere else");
    ensure_none("a line of documentation for each module of lib.rs", bare)
}

#[test]
fn every_link_in_the_documents_leads_somewhere() -> Result<()> {
    let mut findings = Vec::new();
    let mut seen = 0;
    for source in sources()?.into_iter().filter(Source::is_markdown) {
        for (line, target) in links(&source.text) {
            seen += 1;
            if let Some(what) = broken(&source, target) {
                findings.push(format!("{}:{line}: {target}: {what}", source.name));
            }
        }
    }
    ensure!(seen > 10, "only {seen} links were found");
    ensure_none("links that resolve", findings)
}

/// Inline links outside of code, with their line.
fn links(text: &str) -> Vec<(usize, &str)> {
    let mut found = Vec::new();
    let mut in_code = false;
    for (index, line) in text.lines().enumerate() {
        in_code ^= line.trim_start().starts_with("```");
        let ends = line.split("](").skip(1).filter_map(|rest| rest.split_once(')'));
        if !in_code {
            found.extend(ends.map(|(target, _)| (index + 1, target)));
        }
    }
    found
}

fn broken(source: &Source, target: &str) -> Option<&'static str> {
    if target.contains("://") || target.starts_with("mailto:") {
        return None;
    }
    let (file, anchor) = target.split_once('#').unwrap_or((target, ""));
    let path = match file {
        "" => source.path.clone(),
        _ => source.path.parent()?.join(file),
    };
    if !path.exists() {
        return Some("there is no such file");
    }
    let text = fs::read_to_string(&path).unwrap_or_default();
    let known = anchor.is_empty() || anchors(&text).contains(anchor);
    (!known).then_some("there is no such heading")
}

/// The anchors that a reader's site makes of the headings.
fn anchors(text: &str) -> BTreeSet<String> {
    let headings = text.lines().filter_map(|line| line.trim_start_matches('#').strip_prefix(' '));
    let kept = |c: &char| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_');
    let anchor = |heading: &str| heading.trim().to_lowercase().chars().filter(kept).collect();
    headings.map(|heading| -> String { anchor(heading) }).map(|a| a.replace(' ', "-")).collect()
}
