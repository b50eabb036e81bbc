//! PostgreSQL as the tests get it.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Result, ensure};
use tailwater_test_support::workload::Runner;
use tailwater_test_support::{Postgres, PostgresOptions, PostgresVersion, wait_until};

fn serves_sql_over_socket_and_password(version: PostgresVersion, major: &str) -> Result<()> {
    let postgres = Postgres::shared(version);
    let database = postgres.create_database()?;
    database.execute("CREATE TABLE t (a int, b text); INSERT INTO t VALUES (1, 'x')")?;
    assert_eq!(database.query("SELECT * FROM t")?, [["1", "x"]]);
    let settings = "SELECT current_setting('server_version'), current_setting('wal_level')";
    let settings = database.query(settings)?;
    assert!(settings[0][0].starts_with(major), "{settings:?}");
    assert_eq!(settings[0][1], "logical");

    let ca = &postgres.certificates().ca;
    let over_plain_tcp = psql(postgres, &database.tcp_url(), "disable", ca, TLS_IN_USE)?;
    assert_eq!(over_plain_tcp, "f");
    let wrong = database.tcp_url().replace("correct", "wrong");
    let refused = psql(postgres, &wrong, "disable", ca, TLS_IN_USE).expect_err("wrong password");
    assert!(refused.to_string().contains("password authentication failed"), "{refused}");
    Ok(())
}

#[test]
fn version_15_proves_itself_by_our_authority_only() {
    let postgres = Postgres::shared(PostgresVersion::V15);
    let url = postgres.tcp_url("postgres");
    let over_tls = psql(postgres, &url, "verify-full", &postgres.certificates().ca, TLS_IN_USE);
    assert_eq!(over_tls.unwrap(), "t");
    let unrelated = &postgres.certificates().unrelated_ca;
    let refused = psql(postgres, &url, "verify-full", unrelated, TLS_IN_USE);
    assert!(refused.unwrap_err().to_string().contains("certificate verify failed"));
}

const TLS_IN_USE: &str = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()";

fn psql(postgres: &Postgres, url: &str, mode: &str, ca: &Path, sql: &str) -> Result<String> {
    let output = Command::new(postgres.program("psql"))
        .args(["-X", "-A", "-t", "-d", url, "-c", sql])
        .env("PGSSLMODE", mode)
        .env("PGSSLROOTCERT", ca)
        .output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

#[test]
fn version_15_serves_sql_over_socket_and_password() {
    serves_sql_over_socket_and_password(PostgresVersion::V15, "15.").unwrap();
}

#[test]
fn version_18_serves_sql_over_socket_and_password() {
    serves_sql_over_socket_and_password(PostgresVersion::V18, "18.").unwrap();
}

#[test]
fn a_crash_and_a_stop_keep_the_data_and_a_drop_removes_everything() {
    let options = PostgresOptions { wal_level: "replica".into(), ..PostgresOptions::default() };
    let postgres = Postgres::start(PostgresVersion::V15, options).unwrap();
    let database = postgres.create_database().unwrap();
    database.execute("CREATE TABLE t (a int); INSERT INTO t VALUES (1)").unwrap();
    assert_eq!(database.query("SHOW wal_level").unwrap(), [["replica"]]);
    postgres.crash().unwrap();
    assert!(database.query("SELECT 1").is_err());
    postgres.restart().unwrap();
    assert_eq!(database.query("SELECT a FROM t").unwrap(), [["1"]]);
    postgres.stop().unwrap();
    postgres.restart().unwrap();
    assert_eq!(database.query("SELECT a FROM t").unwrap(), [["1"]]);

    let process = format!("/proc/{}", postgres.process_id().unwrap());
    let directory = postgres.socket_directory().parent().unwrap().to_owned();
    assert!(Path::new(&process).exists());
    drop(postgres);
    assert!(!Path::new(&process).exists());
    assert!(!directory.exists());
}

#[test]
fn walsenders_of_a_database_can_be_killed() {
    let postgres = Postgres::shared(PostgresVersion::V15);
    let database = postgres.create_database().unwrap();
    let slot = database.name();
    let receive = |arguments: &[&str]| {
        let mut command = Command::new(postgres.program("pg_recvlogical"));
        command.args(["-d", &database.url(), "--slot", slot]).args(arguments);
        command.spawn().unwrap()
    };
    assert!(receive(&["--create-slot", "-P", "test_decoding"]).wait().unwrap().success());
    let mut receiver = receive(&["--start", "--no-loop", "-f", "/dev/null"]);
    wait_until(Duration::from_secs(20), "a walsender to be killed", || {
        database.kill_walsenders().unwrap() == 1
    })
    .unwrap();
    assert!(!receiver.wait().unwrap().success());
    wait_until(Duration::from_secs(20), "the slot to be idle and dropped", || {
        database.drop_idle_slots().unwrap() == 1
    })
    .unwrap();
}

#[test]
fn the_shops_workload_changes_rows_and_counts_them() {
    let database = Postgres::shared(PostgresVersion::V18).create_database().unwrap();
    let runner = Runner::start(&database.url(), 1, 5_000).unwrap();
    wait_until(Duration::from_secs(30), "the workload to change 2,000 rows", || {
        runner.counts().total() > 3_000
    })
    .unwrap();
    let counts = runner.stop().unwrap();
    let rows = database.query("SELECT count(*) FROM users").unwrap();
    assert_eq!(rows[0][0], (counts.inserts - counts.deletes).to_string());
    assert!(counts.updates > 0);
}
