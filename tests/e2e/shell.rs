//! The program and its shell: what it reads for which command, and a standard error that takes nothing.

use std::fs::{self, File};
use std::io::Write as _;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use rustix::fs::{CWD, FileType, Mode, OFlags, mknodat, openat};
use rustix::process::{Pid, Signal, kill_process};
use tailwater_test_support::{Scratch, binary, free_port, http_get, wait_for};

const DEADLINE: Duration = Duration::from_secs(60);
const NOT_READY: i32 = 3;
const USAGE: i32 = 2;

/// Killed on drop.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

#[test]
fn logs_that_cannot_be_written_end_nothing() -> Result<()> {
    let scratch = Scratch::new("full")?;
    let (listen, nobody) = (format!("127.0.0.1:{}", free_port()?), free_port()?);
    let mut command = Command::new(binary()?);
    // A source that is away is logged again and again, as is the engine's start by its process.
    let source = format!("postgres://u@127.0.0.1:{nobody}/d");
    command.args(["run", "--source", &source, "--listen", &listen, "--log-level", "debug"]);
    command.current_dir(scratch.path()).stdin(Stdio::null()).stdout(Stdio::null());
    let full = File::options().write(true).open("/dev/full")?;
    let mut running = Running(command.stderr(full).spawn()?);
    wait_for(DEADLINE, "several attempts", || {
        let metrics = http_get(&format!("http://{listen}/metrics"))?.text();
        let attempts = metrics.lines().find_map(|line| {
            line.strip_prefix("tailwater_reconnects_total{step=\"captured\"} ")?.parse::<u32>().ok()
        });
        ensure!(attempts >= Some(2), "{attempts:?} attempts");
        Ok(())
    })?;
    let id = Pid::from_raw(i32::try_from(running.0.id())?).context("a process id")?;
    kill_process(id, Signal::TERM)?;
    wait_for(DEADLINE, "the end", || {
        let ended = running.0.try_wait()?.context("it runs")?;
        ensure!(ended.code() == Some(0), "it ended with {ended}");
        Ok(())
    })
}

/// The process waits for its settings while nobody has written them, and is told to read them again.
#[test]
fn a_reload_that_is_asked_for_while_it_starts_is_done_then() -> Result<()> {
    let scratch = Scratch::new("hangup")?;
    let (listen, nobody) = (format!("127.0.0.1:{}", free_port()?), free_port()?);
    let settings = format!(
        "[source]\nurl = \"postgres://u@127.0.0.1:{nobody}/d\"\n[http]\nlisten = \"{listen}\"\n"
    );
    let (pipe, file, log) = (scratch.join("it.toml"), scratch.join("file"), scratch.join("log"));
    mknodat(CWD, &pipe, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0)?;
    let mut command = Command::new(binary()?);
    command.args(["run", "--config"]).arg(&pipe).current_dir(scratch.path());
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(File::create(&log)?);
    let mut running = Running(command.spawn()?);
    let open = OFlags::WRONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let mut writing = None;
    wait_for(DEADLINE, "somebody to read the settings", || {
        writing = Some(File::from(openat(CWD, &pipe, open, Mode::empty())?));
        Ok(())
    })?;
    let id = Pid::from_raw(i32::try_from(running.0.id())?).context("a process id")?;
    kill_process(id, Signal::HUP)?;
    // What is read again is a file.
    fs::write(&file, &settings)?;
    fs::rename(&file, &pipe)?;
    writing.take().context("the pipe")?.write_all(settings.as_bytes())?;
    wait_for(DEADLINE, "the reload", || {
        ensure!(running.0.try_wait()?.is_none(), "it ended");
        let log = fs::read_to_string(&log)?;
        ensure!(log.contains("read the tokens again"), "{log}");
        Ok(())
    })
}

/// What a command says in a directory with this configuration.
fn said(config: &str, arguments: &[&str], variables: &[(&str, &str)]) -> Result<Output> {
    let scratch = Scratch::new("shell")?;
    fs::write(scratch.join("tailwater.toml"), config)?;
    let mut command = Command::new(binary()?);
    command.args(arguments).envs(variables.iter().copied()).stdin(Stdio::null());
    Ok(command.current_dir(scratch.path()).output()?)
}

#[test]
fn what_needs_no_settings_works_beside_a_file_that_is_wrong() -> Result<()> {
    // `tailwater token new` is what the sentence about this one advises.
    let public = "[http]\nlisten = \"0.0.0.0:1\"\n";
    for config in [public, "[nothing]\n", "[source]\nurl = \"${NO_SUCH_VARIABLE}\"\n"] {
        for arguments in [&["token", "new"][..], &["plugin", "new", "it", "--lang", "rust"]] {
            let output = said(config, arguments, &[])?;
            ensure!(output.status.success(), "{arguments:?} beside {config}: {output:?}");
        }
        // Of a plugin that is not there they say so.
        for look in ["inspect", "test", "bench"] {
            let output = said(config, &["plugin", look, "absent.wasm"], &[])?;
            let text = String::from_utf8_lossy(&output.stderr);
            ensure!(text.contains("absent."), "{look} beside {config}: {text}");
        }
        let output = said(config, &["check"], &[])?;
        ensure!(output.status.code() == Some(USAGE), "{output:?}");
    }
    Ok(())
}

#[test]
fn who_asks_an_instance_needs_no_more_than_its_address() -> Result<()> {
    let address = format!("127.0.0.1:{}", free_port()?);
    let config = format!(
        "[http]\nlisten = \"{address}\"\n[source]\nurl = \"postgres://u:${{NO_SUCH_VARIABLE}}@h/d\"\n"
    );
    let url = format!("http://u:geheim@{address}");
    let commands = [&["status"][..], &["dlq", "list"], &["snapshot", "public.t"]];
    for arguments in commands.into_iter().chain([&["plugin", "reload", "it"][..]]) {
        for (config, named) in [(config.as_str(), &[][..]), ("[nothing]\n", &["--url", &url])] {
            let output = said(config, &[arguments, named].concat(), &[])?;
            let text = String::from_utf8_lossy(&output.stderr);
            ensure!(output.status.code() == Some(NOT_READY), "{arguments:?} {named:?}: {text}");
            ensure!(text.contains("no answer from http://") && text.contains(&address), "{text}");
            ensure!(!text.contains("geheim"), "{text}");
        }
    }
    Ok(())
}

#[test]
fn a_command_line_that_makes_no_sense_is_said_with_what_does() -> Result<()> {
    // As an argument it is just short enough for the system, as a variable it is too long.
    let endless = format!("postgres://u:geheim@h/{}", "d".repeat(131_040));
    let source = ["--source", "postgres://u@h/d"];
    for (arguments, wanted) in [
        (&["token", "hash"][..], "cannot read a token from standard input: there is none"),
        (&["run", source[0], source[1], "--watch"], "--watch finds no project: name a directory"),
        (
            &["snapshot", "users", "--replace"],
            "names are schema.table: not `users`, but `public.users`",
        ),
        (
            &["check", "--source", &endless],
            "the command line holds a secret that everybody on this",
        ),
    ] {
        let output = said("", arguments, &[])?;
        let text = String::from_utf8_lossy(&output.stderr);
        ensure!(text.contains(wanted) && !text.contains("geheim"), "{wanted}: {text:.2000}");
        ensure!(!output.status.success(), "{output:?}");
    }
    // Room for what loads the program, and for one file of its own.
    let mut command = Command::new("sh");
    command.args(["-c", "ulimit -n 4; exec \"$0\" check"]).arg(binary()?).stdin(Stdio::null());
    let text = String::from_utf8(command.output()?.stderr)?;
    ensure!(text.contains("cannot start the threads: Too many open files"), "{text}");
    Ok(())
}

#[test]
fn a_variable_that_is_empty_counts_as_unset() -> Result<()> {
    let variables =
        ["TAILWATER_CONFIG", "TAILWATER_LOG", "TAILWATER_LOG_FORMAT", "TAILWATER_SOURCE"];
    let output = said("[source]\nurl = \"host=\"\n", &["run"], &variables.map(|name| (name, "")))?;
    let text = String::from_utf8_lossy(&output.stderr);
    // The file is read, and the URL is the one in it.
    ensure!(output.status.code() == Some(USAGE), "{text}");
    ensure!(text.contains("URL") && !text.contains("no source database"), "{text}");
    Ok(())
}
