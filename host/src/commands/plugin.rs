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
/// How long a call may take in both: an engine that interprets needs more than a section gives it.
const DEADLINE_MS: u64 = 10_000;

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
        PluginCommand::Test(arguments) => {
            test(arguments).unwrap_or_else(|sentence| refuse(&sentence))
        }
        PluginCommand::Bench(arguments) => say(bench(arguments)),
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
    let left = tailwater_project::events_left(project, &component).map(|events| {
        let events = events.display();
        format!("; {events} stays as it is, because the project has no golden.jsonl")
    });
    let (component, left) = (component.display(), left.unwrap_or_default());
    Ok(format!("{component} ({} KiB) in {seconds:.1} s{left}", bytes.div_ceil(1024)))
}

/// What `plugin inspect` prints. The error: what keeps the component from being a plugin, or its golden
/// events from being read.
fn inspect(arguments: &PluginArgs) -> Result<String, String> {
    let file = component(&arguments.path)?;
    let difference = world_difference(&file);
    let text = inspection(&file).map_err(|error| chain(&error) + &difference)?;
    if !difference.is_empty() {
        let file = file.display();
        return Err(format!("{file} fits no world of the contract{difference}") + "\n" + &text);
    }
    // None are needed to look at a component.
    if arguments.golden.is_none() && !events(arguments).exists() {
        return Ok(text);
    }
    let outlines = outlines(arguments).map_err(|sentence| format!("{sentence}\n{text}"))?;
    let outlines = outlines.iter().map(|outline| format!("\n{outline}"));
    Ok(text + &outlines.collect::<String>())
}

fn outlines(arguments: &PluginArgs) -> Result<Vec<Outline>, String> {
    let (options, golden) = subject(arguments)?;
    let runtime = Runtime::new(plugin::compiled_code());
    let outlines = runtime.and_then(|runtime| golden.outlines(&runtime, &options));
    outlines.map_err(|error| chain(&error))
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
fn test(arguments: &PluginArgs) -> Result<Exit, String> {
    let (options, golden) = subject(arguments)?;
    let path = &arguments.path;
    if path.is_dir() && tailwater_project::is_newer(path, &options.path) {
        let (component, path) = (options.path.display(), path.display());
        complain(&format!(
            "{component} is older than its sources; run `tailwater plugin build {path}` to test these"
        ));
    }
    let runtime = Runtime::new(plugin::compiled_code()).map_err(|error| chain(&error))?;
    let report = golden.run(&runtime, &options).map_err(|error| chain(&error))?;
    // At once: what follows takes its time.
    let differences: String = report.differences.iter().map(ToString::to_string).collect();
    if !differences.is_empty() {
        print(differences.trim_end());
    }
    let mut text = format!("{} events, {} differ", report.events, report.differences.len());
    if report.cut_off > 0 {
        text.push_str(
            "; what they cost is not measured, because it trapped, or ran out of time or memory",
        );
    } else if report.events > 0 {
        let costs = golden.costs(plugin::compiled_code().as_deref(), &options, &BATCH);
        for Cost { nanoseconds, instructions, .. } in costs.map_err(|error| chain(&error))? {
            text.push_str(&format!(
                "; {nanoseconds:.0} ns and {instructions:.0} instructions per event"
            ));
        }
    }
    print(&text);
    Ok(if report.differences.is_empty() { Exit::Done } else { Exit::Failed })
}

/// A table of what golden events cost by the size of a batch.
fn bench(arguments: &PluginArgs) -> Result<String, String> {
    let (options, golden) = subject(arguments)?;
    if golden.is_empty() {
        let path = events(arguments);
        return Err(chain(&Error::Golden { path, why: "there is no event to measure".to_owned() }));
    }
    let costs = golden.costs(plugin::compiled_code().as_deref(), &options, &BATCHES);
    let costs = costs.map_err(|error| chain(&error))?;
    let lines = costs.iter().map(|Cost { batch, nanoseconds, instructions }| {
        format!("\n{batch:>5}  {nanoseconds:>12.1}  {instructions:>18.1}")
    });
    Ok(format!("batch  ns per event  instructions/event{}", lines.collect::<String>()))
}

/// The component and the events that are meant. It is given all that it may be granted, and the room
/// and time that an interpreter needs: its author runs it.
fn subject(arguments: &PluginArgs) -> Result<(Options, Golden), String> {
    let (component, path) = (component(&arguments.path)?, events(arguments));
    let text = std::fs::read_to_string(&path).map_err(|error| error.to_string());
    let golden = text.and_then(|text| Golden::parse(&text));
    let golden = golden.map_err(|why| chain(&Error::Golden { path, why }))?;
    let options = Options::of_component(&component, Grant::ALL.to_vec());
    Ok((Options { memory_mb: 512, deadline_ms: DEADLINE_MS, ..options }, golden))
}

/// The component that is meant; of a project's directory what was built last.
fn component(path: &Path) -> Result<PathBuf, String> {
    if !path.is_dir() {
        let read = |source| chain(&Error::Read { path: path.to_owned(), source });
        return std::fs::metadata(path).map(|_| path.to_owned()).map_err(read);
    }
    let built = tailwater_project::output(path).map_err(|error| format!("{error:#}"))?;
    let path = path.display();
    match built.exists() {
        true => Ok(built),
        false => Err(format!("{path} is not built yet; run `tailwater plugin build {path}`")),
    }
}

/// The file with its golden events; of a project's directory those that its author edits.
fn events(arguments: &PluginArgs) -> PathBuf {
    let path = &arguments.path;
    let beside = || match path.is_dir() {
        true => path.join("golden.jsonl"),
        false => plugin::golden_beside(path),
    };
    arguments.golden.clone().unwrap_or_else(beside)
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
