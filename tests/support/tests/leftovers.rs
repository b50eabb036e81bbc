//! A killed process leaves no server behind.

use std::io::{BufRead as _, BufReader, Write as _, stdout};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};
use tailwater_test_support::{Kafka, Postgres, PostgresOptions, PostgresVersion, wait_until};

const MARK: &str = "servers:";
/// Set in the process that is to be killed.
const VICTIM: &str = "TAILWATER_TEST_VICTIM";

/// What the process to be killed does instead of the test.
fn start_servers_and_wait() -> Result<()> {
    let options = PostgresOptions::default();
    let starter = std::thread::spawn(|| Postgres::start(PostgresVersion::V18, options));
    // The thread that asked for the server is gone by now, and the server must not be.
    let postgres = starter.join().map_err(|_| anyhow!("starting PostgreSQL panicked"))??;
    let kafka = Kafka::start()?;
    postgres.execute("postgres", "SELECT 1")?;
    let directory = postgres.socket_directory();
    let directory = directory.parent().context("find the server's directory")?.display();
    let ids = postgres.process_id().zip(kafka.process_id());
    let (postgres_id, kafka_id) = ids.context("find the servers' processes")?;
    writeln!(stdout(), "\n{MARK} {postgres_id} {kafka_id} {directory}")?;
    loop {
        std::thread::park();
    }
}

#[test]
fn a_killed_process_leaves_no_server_behind() {
    if std::env::var_os(VICTIM).is_some() {
        return start_servers_and_wait().unwrap();
    }
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "a_killed_process_leaves_no_server_behind", "--nocapture"])
        .env(VICTIM, "1")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let output = BufReader::new(child.stdout.take().unwrap());
    let line = output.lines().map_while(Result::ok).find(|line| line.starts_with(MARK)).unwrap();
    let words: Vec<&str> = line.split(' ').skip(1).collect();
    let [postgres, kafka, directory] = words[..] else { panic!("{line}") };
    let alive = |id: &str| Path::new("/proc").join(id).exists();
    assert!(alive(postgres) && alive(kafka));
    child.kill().unwrap();
    child.wait().unwrap();
    wait_until(Duration::from_secs(20), "both servers to be gone", || {
        !alive(postgres) && !alive(kafka)
    })
    .unwrap();
    assert!(Path::new(directory).exists());
    tailwater_test_support::sweep_scratch();
    assert!(!Path::new(directory).exists());
}
