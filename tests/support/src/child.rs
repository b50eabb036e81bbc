//! Processes that do not outlive the one that wanted them.
//!
//! Every child gets a parent-death signal, so that it goes down also when this process is killed.
//! The kernel sends that signal when the *thread* that forked is gone, and test threads come and go:
//! so one thread, which lives as long as the process, starts all children. The children have their
//! own process groups, so that Ctrl-C reaches this process only and not its servers first.

use std::io;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, ExitStatus};
use std::sync::{OnceLock, mpsc};
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};
use rustix::process::{Pid, Signal, kill_process};

use crate::wait_for;

type Order = (Command, mpsc::Sender<io::Result<Child>>);

/// A command that runs `program` with `death_signal` (as `kill` names it) sent to it when this
/// process ends, as the user `user` when given.
pub(crate) fn command(program: &Path, death_signal: &str, user: Option<&str>) -> Command {
    let mut command = Command::new("setpriv");
    if let Some(user) = user {
        command.args(["--reuid", user, "--regid", user, "--init-groups"]);
    }
    command.args(["--pdeathsig", death_signal, "--"]).arg(program);
    command
}

/// A running child; dropping it kills it with the signal given at the start.
#[derive(Debug)]
pub(crate) struct Guarded {
    child: Child,
    drop_signal: Signal,
}

impl Guarded {
    /// Starts `command`, best made by [`command()`].
    pub(crate) fn spawn(mut command: Command, drop_signal: Signal) -> Result<Self> {
        command.process_group(0);
        let name = format!("start {command:?}");
        let (reply, answer) = mpsc::channel();
        starter().send((command, reply)).context("the thread that starts children is gone")?;
        let child = answer.recv().context("the thread that starts children is gone")?;
        Ok(Self { child: child.context(name)?, drop_signal })
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal; a child that has gone already is not an error.
    pub(crate) fn signal(&mut self, signal: Signal) -> Result<()> {
        if self.child.try_wait()?.is_none() {
            kill_process(Pid::from_child(&self.child), signal).context("signal a child")?;
        }
        Ok(())
    }

    pub(crate) fn has_exited(&mut self) -> Result<Option<ExitStatus>> {
        Ok(self.child.try_wait()?)
    }

    pub(crate) fn wait(&mut self, deadline: Duration, what: &str) -> Result<ExitStatus> {
        wait_for(deadline, what, || self.child.try_wait()?.context("it still runs"))
    }

    /// Polls `probe` until it succeeds; a child that ends meanwhile is an error at once. Errors carry
    /// the end of `log`, the file that the child writes to.
    pub(crate) fn wait_serving(
        &mut self,
        deadline: Duration,
        what: &str,
        log: &Path,
        mut probe: impl FnMut() -> Result<()>,
    ) -> Result<()> {
        let mut ended = None;
        let served = wait_for(deadline, what, || {
            ended = self.child.try_wait()?;
            if ended.is_some() { Ok(()) } else { probe() }
        });
        let outcome = match ended {
            Some(status) => Err(anyhow!("it ended with {status} before {what}")),
            None => served,
        };
        outcome.with_context(|| format!("{} ends with:\n{}", log.display(), log_tail(log)))
    }

    /// Sends `signal` and waits for the end; what does not end in time is killed, and an error.
    pub(crate) fn stop(&mut self, signal: Signal, deadline: Duration) -> Result<ExitStatus> {
        self.signal(signal)?;
        let ended = self.wait(deadline, &format!("process {} to stop", self.id()));
        if ended.is_err() {
            self.kill();
        }
        ended
    }

    fn kill(&mut self) {
        // Only fails for a child that is gone.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        drop(self.stop(self.drop_signal, Duration::from_secs(10)));
    }
}

/// The last lines of a log file, empty when there is none.
pub(crate) fn log_tail(file: &Path) -> String {
    let log = std::fs::read(file).unwrap_or_default();
    let log = String::from_utf8_lossy(&log);
    let lines: Vec<&str> = log.lines().collect();
    lines[lines.len().saturating_sub(30)..].join("\n")
}

fn starter() -> &'static mpsc::Sender<Order> {
    static STARTER: OnceLock<mpsc::Sender<Order>> = OnceLock::new();
    STARTER.get_or_init(|| {
        let (sender, orders) = mpsc::channel::<Order>();
        std::thread::spawn(move || {
            for (mut command, reply) in orders {
                drop(reply.send(command.spawn()));
            }
        });
        sender
    })
}
