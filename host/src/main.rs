//! The program: reads the command line and the settings, and hands over.

use std::ffi::OsString;
use std::io::IsTerminal as _;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use tailwater::config::{self, Cli, Command, Config, EmbeddedCommand, Exit, RunArgs};
use tailwater::develop::Projects;
use tailwater::pipeline::Pipeline;
use tailwater::plugin::Reloads;
use tailwater::serve::{Context, Server, Tokens};
use tailwater::shutdown::{Phase, Shutdown};
use tailwater::telemetry::logging;
use tailwater::telemetry::metrics::Metrics;
use tailwater::{commands, embedded, hangup};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::{error, info, warn};

/// How long a drain waits for something to move.
const STUCK: Duration = Duration::from_secs(4);
/// How long it takes at most, so that a stop is done within five seconds also where a little moves now and then.
const LONGEST: Duration = Duration::from_millis(4_500);

/// Why a command line with a secret is refused.
const VISIBLE: &str = "the command line holds a secret that everybody on this machine can read, and \
                       it cannot be moved into the environment; set TAILWATER_SOURCE or \
                       TAILWATER_TOKEN yourself";

fn main() -> ExitCode {
    // A reload that is asked for before anybody listens is none, and not the end.
    let hangup = hangup::ignore();
    let arguments: Vec<OsString> = std::env::args_os().collect();
    let cli = config::read_arguments(&arguments).unwrap_or_else(|error| error.exit());
    let runs = matches!(cli.command, Command::Run(_));
    if !runs {
        hangup.restore();
    }
    // The engine's child process has no settings and makes its own threads.
    if let Command::Clickhouse { args } = &cli.command {
        return embedded::serve(args.clone());
    }
    if let Err(error) = config::move_secrets(&arguments).context(VISIBLE) {
        return fail(Exit::Usage, &error).into();
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = match runtime.context("cannot start the threads") {
        Ok(runtime) => runtime,
        Err(error) => {
            // There is no log yet.
            commands::complain(&format!("{error:#}"));
            return Exit::Failed.into();
        }
    };
    // Heard from here on, what was changed after the settings were read is not missed.
    let hangups = runs.then(|| runtime.block_on(async { signal(SignalKind::hangup()).ok() }));
    let config = match Config::load_for(&cli, &|name| std::env::var(name).ok()) {
        Ok(config) => config,
        Err(error) => return fail(Exit::Usage, &error.into()).into(),
    };
    logging::start(&config.log);
    runtime.block_on(dispatch(&Arc::new(cli), config, hangups.flatten())).into()
}

async fn dispatch(cli: &Arc<Cli>, config: Config, hangups: Option<Signal>) -> Exit {
    match cli.command.clone() {
        Command::Run(arguments) => run(cli, config, &arguments, hangups).await,
        Command::Plugin(command) => commands::plugin(&config, &command).await,
        Command::Dlq(command) => commands::dlq(&config, &command).await,
        Command::Snapshot(arguments) => commands::snapshot(&config, &arguments).await,
        Command::Check(arguments) => commands::check(&config, arguments.role).await,
        Command::Status(arguments) => commands::status(&config, &arguments).await,
        Command::Embedded(EmbeddedCommand::Fetch) => commands::fetch(&config).await,
        Command::Token(command) => commands::token(command),
        Command::Clickhouse { .. } => unreachable!("it was served before"),
    }
}

/// Runs the pipeline and the HTTP interface until a signal or an error ends them.
async fn run(cli: &Arc<Cli>, config: Config, arguments: &RunArgs, hangups: Option<Signal>) -> Exit {
    if let Err(error) = config.require(arguments.role) {
        return fail(Exit::Usage, &error.into());
    }
    if let Some(named) = &arguments.watch {
        let projects = Projects::of(&config, named);
        let built = tokio::task::spawn_blocking(|| build_and_follow(projects)).await;
        if let Err(error) = built.expect("a build does not panic") {
            return fail(Exit::Failed, &error);
        }
    }
    let shutdown = Shutdown::default();
    let http = config.http.clone();
    let known: Vec<String> = config.plugin.iter().map(|plugin| plugin.name.clone()).collect();
    let pipeline = match Pipeline::new(config, arguments.role, shutdown.clone()) {
        Ok(pipeline) => pipeline,
        Err(error) => return fail(Exit::Failed, &error.into()),
    };
    let Context { plugins, metrics, .. } = pipeline.context();
    end_on_signals(shutdown.clone(), metrics);
    let again = Arc::clone(cli);
    plugins.read_settings_by(known, move || read_again(&again).map(|config| config.plugin));
    let server = match Server::bind(http, pipeline.context()).await {
        Ok(server) => server,
        Err(error) => return fail(Exit::Usage, &error.into()),
    };
    if let Ok(address) = server.local_addr() {
        info!(url = %format_args!("http://{address}"), "serving");
    }
    tokio::spawn(reload_on_hangup(hangups, Arc::clone(cli), plugins, server.tokens()));
    let served = shutdown.clone();
    let serving = tokio::spawn(server.run(async move { served.reached(Phase::Drained).await }));
    let ended = pipeline.run().await;
    shutdown.advance(Phase::Drained);
    serving.await.expect("the http interface does not panic");
    match ended {
        Ok(()) => {
            info!(
                "stopped; what was acknowledged is stored, and the next start goes on from there"
            );
            Exit::Done
        }
        Err(error) => fail(Exit::Failed, &error.into()),
    }
}

fn build_and_follow(mut projects: Projects) -> anyhow::Result<()> {
    projects.build()?;
    projects.follow().context("cannot watch the plugins' sources")
}

fn read_again(cli: &Cli) -> Result<Config, String> {
    let read = Config::load(cli, &|name| std::env::var(name).ok());
    read.map_err(|error| logging::chain(&error))
}

/// SIGHUP reads the tokens, and the plugins' settings and files, again.
async fn reload_on_hangup(
    hangups: Option<Signal>,
    cli: Arc<Cli>,
    plugins: Reloads,
    tokens: Tokens,
) {
    let Some(mut hangups) = hangups else {
        error!("cannot listen for SIGHUP; reload plugins over HTTP, and restart for new tokens");
        return;
    };
    while hangups.recv().await.is_some() {
        match read_again(&cli).and_then(|config| tokens.replace(&config.http)) {
            Ok(count) => info!(tokens = count, "read the tokens again"),
            Err(why) => {
                error!(error = %why, "the settings are wrong, nothing was reloaded");
                continue;
            }
        }
        let asked = plugins.clone();
        let reloading = tokio::task::spawn_blocking(move || asked.all());
        match reloading.await.expect("reloading does not panic") {
            Ok(done) => info!(plugins = done.len(), "looked at all plugins again"),
            Err(why) => error!(error = %why, "the settings are wrong, no plugin was reloaded"),
        }
    }
}

/// The first signal drains, the second ends the process where it stands, as does a drain in which nothing
/// moves or that takes too long, whatever began it: what is not acknowledged comes again.
fn end_on_signals(shutdown: Shutdown, metrics: Arc<Metrics>) {
    let asked = Arc::<AtomicBool>::default();
    tokio::spawn(end_when_stuck(shutdown.clone(), metrics, Arc::clone(&asked)));
    let signals = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()));
    let (Ok(mut terminate), Ok(mut interrupt)) = signals else {
        error!("cannot listen for signals; only SIGKILL will end this process");
        return;
    };
    tokio::spawn(async move {
        for count in 1.. {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            if count > 1 {
                std::process::exit(Exit::Aborted as i32);
            }
            info!(
                "draining: what was read is stored and acknowledged; a second signal stops at once"
            );
            asked.store(true, Ordering::Relaxed);
            shutdown.advance(Phase::Draining);
        }
    });
}

/// Ends in order if a signal `asked` for it. Otherwise a leg has failed, which was said then.
async fn end_when_stuck(shutdown: Shutdown, metrics: Arc<Metrics>, asked: Arc<AtomicBool>) {
    shutdown.reached(Phase::Draining).await;
    let begun = Instant::now();
    let mut moved = (metrics.movements(), begun);
    while moved.1.elapsed() < STUCK && begun.elapsed() < LONGEST {
        tokio::time::sleep(STUCK / 40).await;
        if metrics.movements() != moved.0 {
            moved = (metrics.movements(), Instant::now());
        }
    }
    let asked = asked.load(Ordering::Relaxed);
    if !asked && shutdown.phase() == Phase::Drained {
        return;
    }
    warn!(
        "stopped without waiting any longer for what is on its way; it is not acknowledged, so the \
         next start reads it again"
    );
    std::process::exit(if asked { Exit::Done } else { Exit::Failed } as i32);
}

/// Says why, in one sentence: in the log where there is one, for people on the terminal.
fn fail(exit: Exit, error: &anyhow::Error) -> Exit {
    let sentence = format!("{error:#}");
    if std::io::stderr().is_terminal() || exit == Exit::Usage {
        commands::complain(&sentence);
    } else {
        error!(error = %sentence, "ended");
    }
    exit
}
