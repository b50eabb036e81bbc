//! The real `tailwater` binary as a process to be watched, killed and started again.

use std::ffi::OsString;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::sync::OnceLock;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use rustix::process::Signal;

use crate::child::{self, Guarded};
use crate::download::run;
use crate::{HttpResponse, Scratch, free_port, http_get, setup};

/// How the binary is to be run; each [`Tailwater`] has its own working directory, which stays while
/// processes of it come and go.
#[derive(Debug)]
pub struct Tailwater {
    binary: PathBuf,
    arguments: Vec<OsString>,
    variables: Vec<(String, String)>,
    port: u16,
    scratch: Scratch,
}

impl Tailwater {
    /// `tailwater run --config FILE` with that text; a `{listen}` in it becomes the free loopback
    /// address that [`http_url`](Self::http_url) names.
    pub fn with_config(text: &str) -> Result<Self> {
        let tailwater = Self::with_arguments(["run", "--config", "tailwater.toml"])?;
        tailwater.set_config(text)?;
        Ok(tailwater)
    }

    /// `tailwater run --source URL` with a free loopback address and a data directory of its own.
    pub fn with_source(url: &str) -> Result<Self> {
        let listen = "{listen}";
        Self::with_arguments(["run", "--source", url, "--listen", listen, "--data", "data"])
    }

    /// `tailwater` with these arguments; `{listen}` as in [`with_config`](Self::with_config).
    pub fn with_arguments<'a>(arguments: impl IntoIterator<Item = &'a str>) -> Result<Self> {
        Self::of_binary(binary()?, arguments)
    }

    /// [`with_arguments`](Self::with_arguments) for a binary that is built already.
    pub fn of_binary<'a>(
        binary: PathBuf,
        arguments: impl IntoIterator<Item = &'a str>,
    ) -> Result<Self> {
        let port = free_port()?;
        let listen = address(port);
        let arguments =
            arguments.into_iter().map(|text| text.replace("{listen}", &listen).into()).collect();
        let scratch = Scratch::new("run")?;
        Ok(Self { binary, arguments, variables: Vec::new(), port, scratch })
    }

    /// Replaces the configuration file, for the next start.
    pub fn set_config(&self, text: &str) -> Result<()> {
        let text = text.replace("{listen}", &address(self.port));
        fs::write(self.directory().join("tailwater.toml"), text)?;
        Ok(())
    }

    /// Sets an environment variable of the process.
    #[must_use]
    pub fn variable(mut self, name: &str, value: &str) -> Self {
        self.variables.push((name.into(), value.into()));
        self
    }

    /// The working directory.
    #[must_use]
    pub fn directory(&self) -> &Path {
        self.scratch.path()
    }

    /// `http://127.0.0.1:port`, without a slash at the end.
    #[must_use]
    pub fn http_url(&self) -> String {
        format!("http://{}", address(self.port))
    }

    /// GETs a path that begins with a slash.
    pub fn get(&self, path: &str) -> Result<HttpResponse> {
        http_get(&(self.http_url() + path))
    }

    /// The file with everything that the processes printed, one after the other.
    #[must_use]
    pub fn log_file(&self) -> PathBuf {
        self.scratch.join("tailwater.log")
    }

    /// What the processes printed so far.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read(self.log_file())
            .map_or_else(|_| String::new(), |log| String::from_utf8_lossy(&log).into_owned())
    }

    /// The last lines of [`log`](Self::log).
    #[must_use]
    pub fn log_tail(&self) -> String {
        child::log_tail(&self.log_file())
    }

    /// Starts a process and does not wait for anything.
    pub fn start(&self) -> Result<TailwaterProcess<'_>> {
        self.start_with(&[])
    }

    /// [`start`](Self::start) with environment variables for this one life.
    pub fn start_with(&self, variables: &[(&str, &str)]) -> Result<TailwaterProcess<'_>> {
        let mut command = child::command(&self.binary, "KILL", None);
        let log = File::options().create(true).append(true).open(self.log_file())?;
        command.args(&self.arguments).current_dir(self.directory());
        command.envs(self.variables.iter().map(|(name, value)| (name, value)));
        command.envs(variables.iter().copied());
        command.stdin(std::process::Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let guarded = Guarded::spawn(command, Signal::KILL)?;
        Ok(TailwaterProcess { tailwater: self, guarded })
    }

    /// Runs to the end, within `deadline`; the exit status. What it printed is in [`log`](Self::log).
    pub fn run_to_end(&self, deadline: Duration) -> Result<ExitStatus> {
        self.start()?.wait_exit(deadline)
    }
}

/// A running process; killed on drop.
#[derive(Debug)]
pub struct TailwaterProcess<'a> {
    tailwater: &'a Tailwater,
    guarded: Guarded,
}

impl TailwaterProcess<'_> {
    /// The process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.guarded.id()
    }

    /// Whether it has not ended yet.
    pub fn is_running(&mut self) -> Result<bool> {
        Ok(self.guarded.has_exited()?.is_none())
    }

    /// Waits until `/readyz` answers 200; an early end of the process is an error at once.
    pub fn wait_ready(&mut self, deadline: Duration) -> Result<()> {
        self.wait_ready_unless(deadline, || false)
    }

    /// [`wait_ready`](Self::wait_ready) that returns at once when `interrupted`.
    pub fn wait_ready_unless(
        &mut self,
        deadline: Duration,
        interrupted: impl Fn() -> bool,
    ) -> Result<()> {
        let tailwater = self.tailwater;
        let log = tailwater.log_file();
        self.guarded.wait_serving(deadline, "tailwater to be ready", &log, || {
            if interrupted() {
                return Ok(());
            }
            let answer = tailwater.get("/readyz")?;
            ensure!(answer.status == 200, "{} {}", answer.status, answer.text());
            Ok(())
        })
    }

    /// SIGKILL, and waits for the end.
    pub fn kill9(mut self) -> Result<()> {
        self.guarded.stop(Signal::KILL, Duration::from_secs(10)).map(drop)
    }

    /// SIGTERM, and waits for the end; what does not end within `deadline` is killed, and an error.
    pub fn terminate(mut self, deadline: Duration) -> Result<ExitStatus> {
        let ended = self.guarded.stop(Signal::TERM, deadline);
        ended.with_context(|| format!("its log ends with:\n{}", self.tailwater.log_tail()))
    }

    /// Sends a signal and returns at once.
    pub fn signal_terminate(&mut self) -> Result<()> {
        self.guarded.signal(Signal::TERM)
    }

    /// SIGHUP: read the plugins' settings and files again.
    pub fn hang_up(&mut self) -> Result<()> {
        self.guarded.signal(Signal::HUP)
    }

    /// Waits for it to end by itself.
    pub fn wait_exit(mut self, deadline: Duration) -> Result<ExitStatus> {
        let ended = self.guarded.wait(deadline, "tailwater to end");
        ended.with_context(|| format!("its log ends with:\n{}", self.tailwater.log_tail()))
    }
}

fn address(port: u16) -> String {
    format!("127.0.0.1:{port}")
}

/// The root of the project's workspace.
#[must_use]
pub fn workspace_root() -> PathBuf {
    let support = Path::new(env!("CARGO_MANIFEST_DIR"));
    support.ancestors().nth(2).unwrap_or(support).to_owned()
}

/// The binary under test: `$TAILWATER_BIN`, else the one that cargo builds now. Fetches the engine
/// too, which the binary looks for in the cache.
pub fn binary() -> Result<PathBuf> {
    static BINARY: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let found = BINARY.get_or_init(|| build().map_err(|error| format!("{error:#}")));
    found.clone().map_err(anyhow::Error::msg)
}

fn build() -> Result<PathBuf> {
    setup::chdb_library()?;
    if let Some(path) = std::env::var_os("TAILWATER_BIN") {
        return Ok(path.into());
    }
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.args(["build", "--quiet", "--workspace", "--bin", "tailwater"]);
    run(command.current_dir(workspace_root()))?;
    let target = std::env::var_os("CARGO_TARGET_DIR").map(PathBuf::from);
    Ok(target.unwrap_or_else(|| workspace_root().join("target")).join("debug/tailwater"))
}
