//! Tokens of a running process: `SIGHUP` reads them again, and a mistake in the file opens nothing.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use sha2::{Digest as _, Sha256};
use tailwater_test_support::{Postgres, PostgresVersion, Tailwater, http_request, wait_for};

const DEADLINE: Duration = Duration::from_secs(60);

fn section(token: &str) -> String {
    let hash = Sha256::digest(token).iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    format!("[[http.token]]\nname = \"{token}\"\nhash = \"{hash}\"\nscopes = [\"admin\"]\n\n")
}

/// What `/v0/status` answers to the token.
fn status(tailwater: &Tailwater, token: &str) -> Result<u16> {
    let url = format!("{}/v0/status", tailwater.http_url());
    let bearer = format!("Bearer {token}");
    Ok(http_request("GET", &url, &[("Authorization", &bearer)], b"")?.status)
}

fn answers(tailwater: &Tailwater, expected: [(&str, u16); 2]) -> Result<()> {
    wait_for(DEADLINE, "the tokens to be in force", || {
        for (token, wanted) in expected {
            let status = status(tailwater, token)?;
            ensure!(status == wanted, "`{token}` gets {status}, not {wanted}");
        }
        Ok(())
    })
}

fn says(tailwater: &Tailwater, words: &str) -> Result<()> {
    wait_for(DEADLINE, words, || tailwater.log().contains(words).then_some(()).context("not yet"))
}

#[test]
fn tokens_are_read_again_on_sighup_and_a_mistake_in_the_file_changes_nothing() -> Result<()> {
    let source = Postgres::shared(PostgresVersion::V15).create_database()?;
    source.execute("CREATE TABLE notes (id int PRIMARY KEY)")?;
    let base =
        format!("[source]\nurl = \"{}\"\n\n[http]\nlisten = \"{{listen}}\"\n\n", source.url());
    let tailwater = Tailwater::with_config(&(base.clone() + &section("first")))?;
    let mut process = tailwater.start()?;
    process.wait_ready(DEADLINE)?;
    answers(&tailwater, [("first", 200), ("second", 401)])?;

    tailwater.set_config(&(base.clone() + &section("second")))?;
    process.hang_up()?;
    answers(&tailwater, [("first", 401), ("second", 200)])?;

    tailwater.set_config(&(base.clone() + &section("first") + &section("first")))?;
    process.hang_up()?;
    says(&tailwater, "two [[http.token]] have the name `first`")?;
    answers(&tailwater, [("first", 401), ("second", 200)])?;

    tailwater.set_config(&base)?;
    process.hang_up()?;
    says(&tailwater, "no [[http.token]] any more")?;
    answers(&tailwater, [("first", 401), ("second", 200)])?;
    ensure!(process.terminate(DEADLINE)?.success(), "it ended badly");
    Ok(())
}
