//! A killed process leaves no server behind.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use tailwater_test_support::{Kafka, Postgres, PostgresOptions, PostgresVersion, wait_until};

const MARK: &str = "servers:";

/// The process to be killed: not a test by itself.
#[test]
#[ignore = "run by the test below, and killed"]
fn starts_servers_and_waits() {
    let options = PostgresOptions::default();
    let postgres = std::thread::spawn(|| Postgres::start(PostgresVersion::V18, options));
    // The thread that asked for the server is gone by now, and the server must not be.
    let postgres = postgres.join().unwrap().unwrap();
    let kafka = Kafka::start().unwrap();
    postgres.execute("postgres", "SELECT 1").unwrap();
    let directory = postgres.socket_directory().parent().unwrap().display().to_string();
    let (postgres_id, kafka_id) = (postgres.process_id().unwrap(), kafka.process_id().unwrap());
    println!("\n{MARK} {postgres_id} {kafka_id} {directory}");
    std::thread::park();
}

#[test]
fn a_killed_process_leaves_no_server_behind() {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "starts_servers_and_waits", "--ignored", "--nocapture"])
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
