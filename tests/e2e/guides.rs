//! The plugins that reshape tables in the guides: as they are shown there, with nothing added, they are
//! built by their language's toolchain, and make the same of the same events.

use std::fs;

use anyhow::{Context as _, Result, ensure};
use tailwater_test_support::workspace_root;

use crate::projects::{Author, cargo_alone};

/// What the plugin of each guide makes of which changes. It drops `city`, and derives `initial` of `name`,
/// which the update leaves alone.
const GOLDEN: &str = r#"{"config": {}}
{"table": "public.users", "columns": [["id", "bigint"], ["name", "text"], ["city", "text"]], "key": ["id"]}
{"table": "public.users", "op": "c", "after": {"id": "1", "name": "élodie", "city": "Lyon"}, "expect": [{"table": "public.users", "op": "c", "after": {"id": "1", "name": "élodie", "initial": "é"}}]}
{"table": "public.users", "op": "c", "after": {"id": "2", "name": "", "city": "Lyon"}, "expect": [{"table": "public.users", "op": "c", "after": {"id": "2", "name": "", "initial": ""}}]}
{"table": "public.users", "op": "c", "after": {"id": "3", "name": null, "city": null}, "expect": [{"table": "public.users", "op": "c", "after": {"id": "3", "name": null, "initial": null}}]}
{"table": "public.users", "op": "u", "after": {"id": "1", "city": "Paris"}, "expect": [{"table": "public.users", "op": "u", "after": {"id": "1"}}]}
{"table": "public.users", "op": "d", "before": {"id": "1"}, "expect": [{"table": "public.users", "op": "d", "before": {"id": "1"}}]}
"#;

/// The first code of a document behind these words, before the section ends.
fn shown_behind(words: &str, document: &str, fence: &str) -> Result<String> {
    let text = fs::read_to_string(workspace_root().join("docs").join(document))?;
    let code = || {
        let (_, rest) = text.split_once(words)?;
        let section = rest.split("\n## ").next()?;
        let (_, rest) = section.split_once(&format!("\n```{fence}\n"))?;
        Some(rest.split_once("\n```")?.0.to_owned() + "\n")
    };
    code().with_context(|| format!("docs/{document} shows no {fence} behind {words:?}"))
}

/// What a guide shows.
fn reshaping(guide: &str, fence: &str) -> Result<String> {
    shown_behind("**To reshape tables**", &format!("plugins/{guide}.md"), fence)
}

/// Puts a plugin in the place of the template's, in the file that it is called there or that its author
/// calls it.
fn does_what_it_is_said_to(language: &str, template: &str, file: &str, plugin: &str) -> Result<()> {
    let author = Author::new()?;
    let project = author.create(language, "transform", "guided")?;
    fs::remove_file(project.join(template))?;
    fs::write(project.join(file), plugin)?;
    if language != "rust" {
        fs::write(project.join("tailwater-world"), "reshape\n")?;
    }
    fs::write(project.join("golden.jsonl"), GOLDEN)?;
    author.succeed(&["build", "guided"])?;
    let report = author.succeed(&["test", "guided"])?;
    ensure!(report.contains("5 events, 0 differ; "), "{report}");
    Ok(())
}

#[test]
fn the_rust_guides_reshaping_plugin_works_and_is_what_the_contracts_page_shows() -> Result<()> {
    let plugin = reshaping("rust", "rust")?;
    let functions = shown_behind("## Reshaping tables", "PLUGINS.md", "rust")?;
    let plain = |text: &str| text.lines().map(str::trim).collect::<Vec<_>>().join("\n");
    ensure!(plain(&plugin).contains(&plain(&functions)), "{functions}");
    let _cargo = cargo_alone();
    does_what_it_is_said_to("rust", "src/lib.rs", "src/lib.rs", &plugin)
}

#[test]
fn the_go_guides_reshaping_plugin_works() -> Result<()> {
    does_what_it_is_said_to("go", "plugin.go", "plugin.go", &reshaping("go", "go")?)
}

#[test]
fn the_javascript_guides_reshaping_plugin_works_in_typescript() -> Result<()> {
    does_what_it_is_said_to("js", "plugin.js", "plugin.ts", &reshaping("javascript", "ts")?)
}

#[test]
fn the_python_guides_reshaping_plugin_works() -> Result<()> {
    does_what_it_is_said_to("python", "app.py", "app.py", &reshaping("python", "python")?)
}

#[test]
fn the_c_guides_reshaping_plugin_works() -> Result<()> {
    does_what_it_is_said_to("c", "plugin.c", "plugin.c", &reshaping("c", "c")?)
}
