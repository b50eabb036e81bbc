//! The parent's side of the engine: its process is started, watched and started again.
//!
//! The socket is made here and inherited by every child, so its port stays the same and clients
//! that come while there is no child wait instead of being refused.

use std::io::{BufRead as _, BufReader, Read};
use std::net::{Ipv4Addr, TcpListener};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rand::distr::{Alphanumeric, SampleString as _};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use tokio::sync::oneshot;
use tracing::{error, info, warn};

use super::error::Error;
use super::locate::find_library;
use super::options::Options;
use super::process::PASSWORD;
use super::server::USER;
use super::write::DISK_FAILED;
use crate::backoff::Backoff;

/// A child that ends sooner than this is started again only after a while.
const QUICK_END: Duration = Duration::from_secs(10);
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// How long an orderly stop may take.
const STOP_PATIENCE: Duration = Duration::from_secs(30);

/// The running engine. Dropping it stops the process without waiting; a kill of this process ends it
/// at once.
pub struct Engine {
    url: String,
    password: String,
    control: Arc<Control>,
    ended: Option<oneshot::Receiver<()>>,
}

impl Engine {
    /// Starts the engine and waits until it serves.
    ///
    /// # Errors
    /// The library is absent (the text says how to get it) or does not run on this machine, or the
    /// data directory cannot be used, for example because another process does.
    pub async fn start(options: Options) -> Result<Engine, Error> {
        // Looked for here as well, so that no process is started in vain.
        let library = find_library(options.library.as_deref())?;
        let port = options.port;
        let listen = |source| Error::Listen { port, source };
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).map_err(listen)?;
        let url = format!("http://{}", listener.local_addr().map_err(listen)?);
        let password = Alphanumeric.sample_string(&mut rand::rng(), 32);
        let control = Arc::new(Control::default());
        let start = Start { options, library, listener, password: password.clone() };
        let (ready, started) = oneshot::channel();
        let (end, ended) = oneshot::channel();
        let supervisor = Supervisor { start, control: Arc::clone(&control) };
        std::thread::Builder::new()
            .name("embedded-engine".to_owned())
            .spawn(move || {
                supervisor.run(ready);
                // Nobody may wait for it any more.
                end.send(()).ok();
            })
            .map_err(Error::Spawn)?;
        let engine = Engine { url, password, control, ended: Some(ended) };
        started.await.expect("the supervisor reports the first start")?;
        Ok(engine)
    }

    /// `http://127.0.0.1:PORT`, the same for the engine's whole life.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The user to log in as.
    #[must_use]
    pub fn user(&self) -> &str {
        USER
    }

    /// The user's password, made anew at every start.
    #[must_use]
    pub fn password(&self) -> &str {
        &self.password
    }

    /// The process id of the running child, if one runs.
    #[must_use]
    pub fn process_id(&self) -> Option<u32> {
        self.control.lock().child.as_ref().map(|child| child.id)
    }

    /// Lets statements in work come to their end, then ends the process; kills it after 30 seconds.
    pub async fn shutdown(mut self) {
        self.control.stop(Signal::TERM);
        let Some(mut ended) = self.ended.take() else { return };
        if tokio::time::timeout(STOP_PATIENCE, &mut ended).await.is_err() {
            warn!("the embedded engine did not stop in time; killing it");
            self.control.stop(Signal::KILL);
            // The kernel keeps this promise.
            drop(ended.await);
        }
    }
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine").field("url", &self.url).finish_non_exhaustive()
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.control.stop(Signal::TERM);
    }
}

/// What the engine's owner and the thread that watches the child share.
#[derive(Debug, Default)]
struct Control {
    state: Mutex<State>,
    stopping: Condvar,
}

#[derive(Debug, Default)]
struct State {
    stopping: bool,
    child: Option<Running>,
}

#[derive(Debug)]
struct Running {
    id: u32,
    /// Never means another process, unlike the id.
    process: OwnedFd,
}

impl Control {
    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn stop(&self, signal: Signal) {
        let mut state = self.lock();
        state.stopping = true;
        if let Some(child) = &state.child {
            // Fails only for a child that has ended already.
            pidfd_send_signal(&child.process, signal).ok();
        }
        self.stopping.notify_all();
    }

    /// Waits; true if it is time to stop.
    fn pause(&self, pause: Duration) -> bool {
        let state = self.lock();
        let waited = self.stopping.wait_timeout_while(state, pause, |state| !state.stopping);
        waited.unwrap_or_else(PoisonError::into_inner).0.stopping
    }
}

/// All that a start of the child needs.
struct Start {
    options: Options,
    library: PathBuf,
    listener: TcpListener,
    password: String,
}

impl Start {
    fn command(&self) -> Result<Command, Error> {
        let options = &self.options;
        // What runs now, even if the file was replaced meanwhile.
        let program = options.program.clone().unwrap_or_else(|| "/proc/self/exe".into());
        let mut command = Command::new(program);
        command.arg("__clickhouse").arg("--inherit");
        command.arg("--path").arg(&options.path).arg("--library").arg(&self.library);
        command.args(["--parent", &std::process::id().to_string()]);
        let statements = options.concurrent_statements.to_string();
        command.args(["--concurrent-statements", &statements]);
        if let Some(megabytes) = options.memory_mb {
            command.args(["--memory-mb", &megabytes.to_string()]);
        }
        if let Some(threads) = options.threads {
            command.args(["--threads", &threads.to_string()]);
        }
        // Of its surroundings the engine gets nothing that it could take for settings.
        command.env_clear().env(PASSWORD, &self.password).env("TZ", "UTC");
        command.env("HOME", options.path.join("tailwater.home"));
        let socket = self.listener.try_clone().map_err(Error::Spawn)?;
        command.stdin(OwnedFd::from(socket)).stdout(Stdio::piped()).stderr(Stdio::piped());
        // A Ctrl-C of the terminal is for the parent, which still has rows to store.
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        Ok(command)
    }

    fn child(&self) -> Result<(Child, Running), Error> {
        let mut child = self.command()?.spawn().map_err(Error::Spawn)?;
        match pidfd_open(Pid::from_child(&child), PidfdFlags::empty()) {
            Ok(process) => {
                let id = child.id();
                Ok((child, Running { id, process }))
            }
            Err(error) => {
                // Without a handle nobody could stop it.
                drop(child.kill());
                drop(child.wait());
                Err(Error::Spawn(error.into()))
            }
        }
    }
}

/// The thread that starts children and waits for them. A child dies with the thread that started
/// it, so this one lives until the last child has ended.
struct Supervisor {
    start: Start,
    control: Arc<Control>,
}

impl Supervisor {
    fn run(self, first: oneshot::Sender<Result<(), Error>>) {
        let mut child = match self.begin() {
            Ok(child) => child,
            Err(error) => return drop(first.send(Err(error))),
        };
        drop(first.send(Ok(())));
        let mut backoff = Backoff::new(FIRST_PAUSE, LONGEST_PAUSE);
        loop {
            let begun = Instant::now();
            let status = child.wait();
            self.control.lock().child = None;
            loop {
                if begun.elapsed() > QUICK_END {
                    backoff.reset();
                }
                let pause = backoff.pause(&mut rand::rng());
                if self.control.lock().stopping || self.control.pause(pause) {
                    return;
                }
                match status.as_ref().ok().and_then(|status| self.failed_disk(*status)) {
                    Some(cause) => warn!(%cause, "the embedded engine ended; starting it again"),
                    None => warn!(?status, "the embedded engine ended; starting it again"),
                }
                match self.begin() {
                    Ok(begun) => break child = begun,
                    Err(error) => error!(%error, "the embedded engine does not start"),
                }
            }
        }
    }

    /// Starts a child and waits until it serves.
    fn begin(&self) -> Result<Child, Error> {
        let (mut child, running) = self.start.child()?;
        let id = running.id;
        let output = child.stdout.take().expect("it is piped");
        forward(child.stderr.take().expect("it is piped"));
        let mut state = self.control.lock();
        if state.stopping {
            pidfd_send_signal(&running.process, Signal::KILL).ok();
        }
        state.child = Some(running);
        drop(state);
        match self.greeting(output) {
            Ok(()) => {
                info!(process = id, path = %self.start.options.path.display(), "embedded engine");
                Ok(child)
            }
            Err(greeting) => {
                let ended = child.wait().map_err(Error::Spawn);
                self.control.lock().child = None;
                let status = ended?;
                Err(greeting.or(self.failed_disk(status)).unwrap_or(Error::Ended(status)))
            }
        }
    }

    /// The error of a child that ended because a write failed.
    fn failed_disk(&self, status: ExitStatus) -> Option<Error> {
        let path = || self.start.options.path.clone();
        (status.code() == Some(DISK_FAILED)).then(|| Error::Disk { path: path() })
    }

    /// The child's one line; an error without a value if there was none.
    fn greeting(&self, output: impl Read) -> Result<(), Option<Error>> {
        let mut line = String::new();
        if BufReader::new(output).read_line(&mut line).is_err() {
            return Err(None);
        }
        match line.trim_end().split_once(' ') {
            Some(("ready", _)) => Ok(()),
            Some(("failed", reason)) => Err(Some(Error::Refused(reason.to_owned()))),
            _ => Err(None),
        }
    }
}

/// Puts the child's log lines among this process's own.
fn forward(output: impl Read + Send + 'static) {
    std::thread::spawn(move || {
        for line in BufReader::new(output).split(b'\n').map_while(Result::ok) {
            let line = String::from_utf8_lossy(&line);
            if !line.trim().is_empty() {
                info!(target: "tailwater::embedded", "{}", line.trim_end());
            }
        }
    });
}
