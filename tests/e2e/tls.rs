//! TLS and passwords between the source and us, with libpq's words.

use std::path::Path;
use std::time::Duration;

use anyhow::{Result, ensure};
use tailwater_test_support::{Database, Postgres, PostgresVersion, Tailwater, wait_for};

use crate::bad_input::{FAILED, ends_with};

const DEADLINE: Duration = Duration::from_secs(60);

/// A database of a server with TLS that lets nobody in over TCP without SCRAM.
fn source() -> Result<Database<'static>> {
    let source = Postgres::shared(PostgresVersion::V15).create_database()?;
    source.execute("CREATE TABLE notes (id int PRIMARY KEY)")?;
    source.execute("INSERT INTO notes VALUES (1)")?;
    Ok(source)
}

fn url(source: &Database<'_>, mode: &str, root: Option<&Path>) -> String {
    let root = root.map(|root| format!("&sslrootcert={}", root.display())).unwrap_or_default();
    format!("{}?sslmode={mode}{root}", source.tcp_url())
}

/// Runs until a streamed row is served; every connection must have been encrypted or not.
fn streams(source: &Database<'_>, url: &str, encrypted: &str) -> Result<()> {
    let tailwater = Tailwater::with_source(url)?;
    let mut process = tailwater.start()?;
    process.wait_ready(DEADLINE)?;
    source.execute("INSERT INTO notes VALUES (2)")?;
    wait_for(DEADLINE, "both rows", || {
        let answer = tailwater.get("/v0/pipes/notes_snapshot.ndjson")?;
        ensure!(answer.text() == "{\"id\":1}\n{\"id\":2}\n", "{}", answer.text());
        Ok(())
    })?;
    let kinds = "SELECT DISTINCT s.ssl::text FROM pg_stat_ssl s JOIN pg_stat_activity a USING (pid)
        WHERE a.application_name = 'tailwater' AND a.datname = current_database()";
    ensure!(source.query(kinds)? == [[encrypted]], "{:?}", source.query(kinds)?);
    ensure!(process.terminate(DEADLINE)?.success(), "it ended badly");
    Ok(())
}

#[test]
fn verify_full_streams_with_the_right_authority() -> Result<()> {
    let source = source()?;
    let root = source.postgres().certificates().ca.clone();
    streams(&source, &url(&source, "verify-full", Some(&root)), "true")
}

#[test]
fn require_encrypts_without_an_authority() -> Result<()> {
    let source = source()?;
    streams(&source, &url(&source, "require", None), "true")
}

#[test]
fn disable_does_not_encrypt() -> Result<()> {
    let source = source()?;
    streams(&source, &url(&source, "disable", None), "false")
}

#[test]
fn another_authority_is_refused_whenever_one_is_named() -> Result<()> {
    let source = source()?;
    let other = source.postgres().certificates().unrelated_ca.clone();
    for mode in ["require", "verify-ca", "verify-full"] {
        let tailwater = Tailwater::with_source(&url(&source, mode, Some(&other)))?;
        let said = ["TLS with the source failed", "check sslmode and sslrootcert"];
        ends_with(&tailwater, FAILED, &said)?;
    }
    Ok(())
}

#[test]
fn a_root_certificate_that_is_not_there_is_named() -> Result<()> {
    let source = source()?;
    let missing = url(&source, "verify-full", Some(Path::new("missing.pem")));
    ends_with(&Tailwater::with_source(&missing)?, FAILED, &["certificate file missing.pem"])
}

#[test]
fn a_server_without_tls_is_refused_when_tls_is_required() -> Result<()> {
    let source = Postgres::shared(PostgresVersion::V18).create_database()?;
    source.execute("CREATE TABLE notes (id int PRIMARY KEY)")?;
    let said = ["the source offers no TLS but sslmode requires it", "sslmode=prefer"];
    ends_with(&Tailwater::with_source(&url(&source, "require", None))?, FAILED, &said)
}
