//! The engine's own process: `tailwater __clickhouse`.
//!
//! It says one line on standard output, `ready PORT` or `failed REASON`, and serves until SIGTERM.

use std::ffi::OsString;
use std::fs::{self, File, TryLockError};
use std::io::{self, IsTerminal as _, Write as _};
use std::net::{Ipv4Addr, TcpListener};
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Parser;
use rustix::process::{Resource, Rlimit, Signal, getppid, getrlimit, setrlimit};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Semaphore, mpsc, watch};

use super::error::Error;
use super::library::{Connection, Library};
use super::locate::find_library;
use super::server::{self, Server};
use super::{merges, write};
use crate::directories;

/// The environment variable with the password that clients must know.
pub(super) const PASSWORD: &str = "TAILWATER_CLICKHOUSE_PASSWORD";
/// How long a predecessor that was just killed may take to let go of the data.
const LOCK_PATIENCE: Duration = Duration::from_secs(10);
const LOCK_INTERVAL: Duration = Duration::from_millis(50);
/// Open files that the engine may have, beside three for each of its threads.
const OPEN_FILES: u64 = 262_144;
/// The engine needs half a megabyte of stack.
const STACK: usize = 4 << 20;
/// Threads beside those of statements: for cancelling.
const SPARE_THREADS: usize = 8;

/// The child's command line.
#[derive(Debug, Parser)]
#[command(name = "tailwater __clickhouse", no_binary_name = true)]
struct Arguments {
    /// The data directory.
    #[arg(long)]
    path: PathBuf,
    /// The engine's library.
    #[arg(long)]
    library: Option<PathBuf>,
    /// The port of 127.0.0.1.
    #[arg(long, default_value_t = 0)]
    port: u16,
    /// Standard input is the socket to listen on.
    #[arg(long, conflicts_with = "port")]
    inherit: bool,
    /// End with this process.
    #[arg(long)]
    parent: Option<i32>,
    #[arg(long)]
    memory_mb: Option<u64>,
    #[arg(long)]
    threads: Option<u32>,
    #[arg(long, default_value_t = 32)]
    concurrent_statements: u32,
}

/// Runs the engine's process to its end. To be called before the process has threads of its own.
/// Clients must know the password in `$TAILWATER_CLICKHOUSE_PASSWORD`.
#[must_use]
pub fn serve(arguments: Vec<OsString>) -> ExitCode {
    match Arguments::try_parse_from(arguments)
        .map_err(|error| Error::Arguments(error.to_string()))
        .and_then(|arguments| run(&arguments))
    {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(&format!("failed {}", sentence(&error).replace('\n', " ")));
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<(), Error> {
    die_with(arguments.parent)?;
    start_log();
    let password = std::env::var(PASSWORD)
        .map_err(|_| Error::Arguments(format!("set {PASSWORD} to the password to ask for")))?;
    let listener = listener(arguments)?;
    let library = find_library(arguments.library.as_deref())?;
    let library = absolute(&library)?;
    let path = create(&arguments.path)?;
    let _lock = lock(&path)?;
    let home = empty_home(&path)?;
    raise_open_files();
    write::guard();
    let library = Library::load(&library)?;
    let keep = |source| Error::Directory { path: home.clone(), source };
    // The engine reads settings from its working directory.
    std::env::set_current_dir(&home).map_err(keep)?;
    // The engine runs as long as one session is open.
    let root = open(library, &path, arguments)?;
    let served = serve_requests(library, &path, arguments, password, listener);
    drop(root);
    served
}

fn sentence(error: &Error) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

/// The one line that the parent waits for. It may be gone; then nobody minds.
fn say(line: &str) {
    let mut out = io::stdout();
    drop(writeln!(out, "{line}").and_then(|()| out.flush()));
}

/// The signal comes when the thread that started this process ends, which lives as long as its
/// process.
fn die_with(parent: Option<i32>) -> Result<(), Error> {
    let Some(parent) = parent else { return Ok(()) };
    let signal = Some(Signal::KILL);
    rustix::process::set_parent_process_death_signal(signal)
        .map_err(|error| Error::Spawn(error.into()))?;
    // It may have ended before the line above.
    match getppid().map(|found| found.as_raw_nonzero().get()) {
        Some(found) if found == parent => Ok(()),
        _ => Err(Error::Arguments("the process that started this one is gone".to_owned())),
    }
}

fn start_log() {
    let terminal = io::stderr().is_terminal();
    let lines = tracing_subscriber::fmt().with_writer(io::stderr).with_ansi(terminal);
    // Its parent puts its own time on every line. What cannot be logged is lost: saying so would panic.
    let lines = lines.without_time().with_target(false).log_internal_errors(false);
    drop(lines.try_init());
}

fn listener(arguments: &Arguments) -> Result<TcpListener, Error> {
    let port = arguments.port;
    let listener = if arguments.inherit {
        io::stdin().as_fd().try_clone_to_owned().map(TcpListener::from)
    } else {
        TcpListener::bind((Ipv4Addr::LOCALHOST, port))
    };
    let listener = listener.and_then(|listener| {
        listener.set_nonblocking(true)?;
        Ok(listener)
    });
    listener.map_err(|source| Error::Listen { port, source })
}

fn absolute(path: &Path) -> Result<PathBuf, Error> {
    fs::canonicalize(path).map_err(|source| Error::Directory { path: path.to_owned(), source })
}

fn create(path: &Path) -> Result<PathBuf, Error> {
    let failed = |source| Error::Directory { path: path.to_owned(), source };
    directories::create(path).map_err(failed)?;
    absolute(path)
}

/// The engine has a lock of its own, whose reason it prints and does not tell.
fn lock(path: &Path) -> Result<File, Error> {
    let failed = |source| Error::Directory { path: path.to_owned(), source };
    let file = File::create(path.join("tailwater.lock")).map_err(failed)?;
    let deadline = Instant::now() + LOCK_PATIENCE;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::Error(source)) => return Err(failed(source)),
            Err(TryLockError::WouldBlock) if Instant::now() < deadline => {
                std::thread::sleep(LOCK_INTERVAL);
            }
            Err(TryLockError::WouldBlock) => {
                return Err(Error::Locked { path: path.to_owned() });
            }
        }
    }
}

fn empty_home(path: &Path) -> Result<PathBuf, Error> {
    let home = path.join("tailwater.home");
    let failed = |source| Error::Directory { path: home.clone(), source };
    directories::create(&home).map_err(failed)?;
    Ok(home)
}

fn raise_open_files() {
    let now = getrlimit(Resource::Nofile);
    let most = now.maximum.unwrap_or(OPEN_FILES).min(OPEN_FILES);
    if now.current.is_some_and(|current| current < most) {
        // Without it the engine still works, for fewer statements at a time.
        setrlimit(Resource::Nofile, Rlimit { current: Some(most), maximum: now.maximum }).ok();
    }
}

/// Arguments of every session; those of the first one start the engine.
fn session_arguments(path: &Path, arguments: &Arguments) -> Vec<String> {
    let mut given = vec![format!("--path={}", path.display())];
    given.extend(arguments.threads.map(|threads| format!("--max_threads={threads}")));
    given
}

fn open(library: Library, path: &Path, arguments: &Arguments) -> Result<Connection, Error> {
    let mut given = session_arguments(path, arguments);
    given.push(match arguments.memory_mb {
        Some(megabytes) => format!("--max_server_memory_usage={}", megabytes << 20),
        None => "--max_server_memory_usage_to_ram_ratio=0.5".to_owned(),
    });
    given.extend(
        [
            "--mark_cache_size=67108864",
            "--uncompressed_cache_size=0",
            "--index_mark_cache_size=16777216",
        ]
        .map(str::to_owned),
    );
    library.connect(&given).ok_or_else(|| Error::Open { path: path.to_owned() })
}

fn serve_requests(
    library: Library,
    path: &Path,
    arguments: &Arguments,
    password: String,
    listener: TcpListener,
) -> Result<(), Error> {
    let statements = arguments.concurrent_statements.max(1) as usize;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .max_blocking_threads(statements + SPARE_THREADS)
        .thread_stack_size(STACK)
        .enable_all()
        .build()
        .map_err(Error::Spawn)?;
    let session: Arc<[String]> = session_arguments(path, arguments).into();
    let (abandoned, cancelled) = mpsc::unbounded_channel();
    let server = Arc::new(Server {
        library,
        arguments: Arc::clone(&session),
        password,
        places: Arc::new(Semaphore::new(statements)),
        reading_places: Arc::new(Semaphore::new((statements * 3 / 4).max(1))),
        abandoned,
    });
    runtime.block_on(async {
        let port = listener.local_addr().map_err(Error::Spawn)?.port();
        let listener = tokio::net::TcpListener::from_std(listener).map_err(Error::Spawn)?;
        let stop = stop_on_signal()?;
        tokio::spawn(server::cancel_abandoned(library, session, cancelled));
        tokio::spawn(merges::yield_to_the_rest());
        say(&format!("ready {port}"));
        server.serve(listener, stop).await;
        Ok(())
    })
}

fn stop_on_signal() -> Result<watch::Receiver<bool>, Error> {
    let mut terminate = signal(SignalKind::terminate()).map_err(Error::Spawn)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(Error::Spawn)?;
    let (stop, stopped) = watch::channel(false);
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        stop.send_replace(true);
    });
    Ok(stopped)
}
