//! `plugin`: projects, components, and the plugins of a running instance.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use hyper::Method;
use serde::Deserialize as _;
use serde_json::Value as Json;
use tailwater_project::{Installed, Language};

use super::{complain, encoded, instance, print, unanswered};
use crate::config::{Config, Exit, InstanceArgs, PluginArgs, PluginCommand};
use crate::plugin::{self, Cost, Error, Golden, Grant, Options, Outline, Runtime, Shadow};
use crate::serve::ask;
use crate::telemetry::logging::chain;

/// How long `plugin reload` waits: a plugin is compiled before there is an answer.
const COMPILING: Duration = Duration::from_secs(120);
/// Events a call shows in `plugin bench`.
const BATCHES: [usize; 4] = [1, 16, 256, 4096];
/// And in `plugin test`.
const BATCH: [usize; 1] = [256];

/// `plugin`, whatever follows it.
pub async fn plugin(config: &Config, command: &PluginCommand) -> Exit {
    match command {
        PluginCommand::New { name, lang, role } => {
            say(new(name, *lang, *role).map_err(|error| format!("{error:#}")))
        }
        PluginCommand::Build { directory } => {
            say(build(directory).map_err(|error| format!("{error:#}")))
        }
        PluginCommand::Inspect(arguments) => say(inspect(arguments)),
        PluginCommand::Test(arguments) => match test(arguments) {
            Ok((text, exit)) => {
                print(&text);
                exit
            }
            Err(error) => refuse(&chain(&error)),
        },
        PluginCommand::Bench(arguments) => say(bench(arguments).map_err(|error| chain(&error))),
        PluginCommand::Reload { name, at } => reload(config, name, at).await,
    }
}

fn say(outcome: Result<String, String>) -> Exit {
    match outcome {
        Ok(text) => {
            print(&text);
            Exit::Done
        }
        Err(sentence) => refuse(&sentence),
    }
}

fn refuse(sentence: &str) -> Exit {
    complain(sentence);
    Exit::Failed
}

fn new(name: &str, lang: Language, role: tailwater_project::Role) -> anyhow::Result<String> {
    let project = tailwater_project::create(Path::new(""), name, lang, role)?;
    let install = match lang {
        Language::JavaScript => "run `npm install` in it, ",
        _ => "",
    };
    Ok(format!(
        "{} is made; {install}then `tailwater plugin build {name}` and `tailwater plugin test {name}`",
        project.display()
    ))
}

fn build(project: &Path) -> anyhow::Result<String> {
    let started = Instant::now();
    let component = tailwater_project::build(project, &Installed)?;
    let bytes = std::fs::metadata(&component).map_or(0, |metadata| metadata.len());
    let seconds = started.elapsed().as_secs_f64();
    Ok(format!("{} ({} KiB) in {seconds:.1} s", component.display(), bytes.div_ceil(1024)))
}

/// What `plugin inspect` prints. The error: what keeps the component from being a plugin, or its golden
/// events from being read.
fn inspect(arguments: &PluginArgs) -> Result<String, String> {
    let (file, beside) = located(&arguments.path);
    let difference = world_difference(&file);
    let text = inspection(&file).map_err(|error| chain(&error) + &difference)?;
    if !difference.is_empty() {
        let file = file.display();
        return Err(format!("{file} fits no world of the contract{difference}") + "\n" + &text);
    }
    // None are needed to look at a component.
    if arguments.golden.is_none() && !beside.exists() {
        return Ok(text);
    }
    let outlines = outlines(arguments).map_err(|error| format!("{}\n{text}", chain(&error)))?;
    let outlines = outlines.iter().map(|outline| format!("\n{outline}"));
    Ok(text + &outlines.collect::<String>())
}

fn outlines(arguments: &PluginArgs) -> Result<Vec<Outline>, Error> {
    let (options, golden) = subject(arguments)?;
    golden.outlines(&Runtime::new(plugin::compiled_code())?, &options)
}

fn inspection(file: &Path) -> Result<String, Error> {
    let runtime = Runtime::new(plugin::compiled_code())?;
    let found = plugin::inspect(&runtime, file)?;
    let needed = found.needed_grants();
    let grants = if needed.is_empty() { "none".to_owned() } else { needed.join(", ") };
    Ok(format!(
        "role     {}\nsha256   {}\nbytes    {}\nimports  {}\ngrants   {grants}",
        found.role.world(),
        found.digest,
        found.bytes,
        found.imports.join(", "),
    ))
}

/// Line by line what this program offers (`-`) and what a component imports and exports instead (`+`);
/// nothing if it fits, or is no component.
fn world_difference(file: &Path) -> String {
    let component = std::fs::read(file).unwrap_or_default();
    let lines = tailwater_project::difference(&component).unwrap_or_default();
    lines.iter().map(|line| format!("\n  {line}")).collect()
}

/// What a component makes of golden events, and what that costs.
fn test(arguments: &PluginArgs) -> Result<(String, Exit), Error> {
    let (options, golden) = subject(arguments)?;
    let report = golden.run(&Runtime::new(plugin::compiled_code())?, &options)?;
    let mut text: String = report.differences.iter().map(ToString::to_string).collect();
    text.push_str(&format!("{} events, {} differ", report.events, report.differences.len()));
    if report.events > 0 {
        let costs = golden.costs(plugin::compiled_code().as_deref(), &options, &BATCH)?;
        for Cost { nanoseconds, instructions, .. } in costs {
            text.push_str(&format!(
                "; {nanoseconds:.0} ns and {instructions:.0} instructions per event"
            ));
        }
    }
    Ok((text, if report.differences.is_empty() { Exit::Done } else { Exit::Failed }))
}

/// A table of what golden events cost by the size of a batch.
fn bench(arguments: &PluginArgs) -> Result<String, Error> {
    let (options, golden) = subject(arguments)?;
    if golden.is_empty() {
        let why = "there is no event to measure".to_owned();
        return Err(Error::Golden { path: options.path, why });
    }
    let costs = golden.costs(plugin::compiled_code().as_deref(), &options, &BATCHES)?;
    let lines = costs.iter().map(|Cost { batch, nanoseconds, instructions }| {
        format!("\n{batch:>5}  {nanoseconds:>12.1}  {instructions:>18.1}")
    });
    Ok(format!("batch  ns per event  instructions/event{}", lines.collect::<String>()))
}

/// The component and the events that are meant. It is given all that it may be granted, and the room
/// and time that an interpreter needs: its author runs it.
fn subject(arguments: &PluginArgs) -> Result<(Options, Golden), Error> {
    let (file, beside) = located(&arguments.path);
    let golden = arguments.golden.clone().unwrap_or(beside);
    let fail = |why| Error::Golden { path: golden.clone(), why };
    let text = std::fs::read_to_string(&golden).map_err(|error| fail(error.to_string()))?;
    let options = Options::of_component(&file, Grant::ALL.to_vec());
    let options = Options { memory_mb: 512, deadline_ms: 60_000, ..options };
    Ok((options, Golden::parse(&text).map_err(fail)?))
}

/// The component and its golden events; of a project's directory what was built last, and the events
/// as they are now.
fn located(path: &Path) -> (PathBuf, PathBuf) {
    match tailwater_project::output(path) {
        Ok(component) if path.is_dir() => (component, path.join("golden.jsonl")),
        _ => (path.to_owned(), plugin::golden_beside(path)),
    }
}

async fn reload(config: &Config, name: &str, at: &InstanceArgs) -> Exit {
    let (base, path) = (instance(config, at), format!("/v0/plugins/{}/reload", encoded(name)));
    match ask::<Json>(Method::POST, &base, &path, at.token.as_ref(), COMPILING).await {
        Ok(answer) => {
            print(&format!("{name}: {}", answer["result"].as_str().unwrap_or("?")));
            if let Ok(shadow) = Shadow::deserialize(&answer["shadow"]) {
                print(&shadow.to_string());
            }
            Exit::Done
        }
        Err(error) => unanswered(&error),
    }
}
