//! Whatever goes wrong, no secret is told: not by logs, answers, metrics, dead letters, nor to those
//! who list the machine's processes.

use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use tailwater_test_support::{
    ClickHouse, Kafka, Postgres, PostgresVersion, SASL_PASSWORD, SASL_USER, Tailwater, free_port,
    http_request, unique_name, wait_for,
};
use tailwater_tests::read_committed;

use crate::legs::{DEADLINE, serves};

const TOKEN: &str = "tw_the-key-to-everything";
const SOURCE_PASSWORD: &str = "correct horse";
/// As it stands in a URL.
const IN_A_URL: &str = "correct%20horse";
/// No service takes this one.
const WRONG: &str = "no-such-word";

/// Every line of `text` that tells a secret.
fn sweep(place: &str, text: &str) -> Result<()> {
    let clickhouse = ClickHouse::shared().password();
    let secrets = [SOURCE_PASSWORD, IN_A_URL, SASL_PASSWORD, clickhouse, TOKEN, WRONG];
    for secret in secrets {
        let told = text.lines().find(|line| line.contains(secret));
        ensure!(told.is_none(), "{place} tells `{secret}`: {told:?}");
    }
    Ok(())
}

/// A process and all that it started, by `/proc`.
fn family(id: u32) -> Result<Vec<u32>> {
    let mut family = vec![id];
    let mut next = 0;
    while let Some(parent) = family.get(next).copied() {
        for thread in fs::read_dir(format!("/proc/{parent}/task")).into_iter().flatten() {
            let children = fs::read_to_string(thread?.path().join("children")).unwrap_or_default();
            family.extend(children.split_whitespace().map_while(|id| id.parse::<u32>().ok()));
        }
        next += 1;
    }
    Ok(family)
}

fn read(path: impl AsRef<Path>) -> Result<String> {
    let path = path.as_ref();
    let bytes = fs::read(path).with_context(|| path.display().to_string())?;
    Ok(String::from_utf8_lossy(&bytes).replace('\0', "\n"))
}

/// What everybody may list of the processes; of the children also what only their user may read.
fn processes_are_silent(id: u32) -> Result<()> {
    for member in family(id)? {
        let commands = read(format!("/proc/{member}/cmdline"))?;
        ensure!(!commands.is_empty(), "process {member} has ended");
        sweep("the process list", &commands)?;
        if member != id {
            sweep("a child's environment", &read(format!("/proc/{member}/environ"))?)?;
        }
    }
    Ok(())
}

/// The settings with these three passwords; everything that can hold a secret holds one.
#[derive(Clone, Copy)]
struct Settings<'a> {
    source: &'a str,
    kafka: &'a str,
    clickhouse: &'a str,
    brokers: &'a str,
    prefix: &'a str,
}

impl Settings<'_> {
    fn text(&self) -> String {
        let hash = tailwater_hash(TOKEN);
        let (url, user) = (ClickHouse::shared().url(), ClickHouse::shared().user());
        format!(
            "[source]\nurl = \"{}\"\n\n[kafka]\nbrokers = \"{}\"\nprefix = \"{}\"\n\
             partitions = 1\nmax_message_bytes = 200000\n\n[kafka.librdkafka]\n\
             \"security.protocol\" = \"SASL_PLAINTEXT\"\n\"sasl.mechanism\" = \"SCRAM-SHA-256\"\n\
             \"sasl.username\" = \"{SASL_USER}\"\n\"sasl.password\" = \"{}\"\n\n\
             [clickhouse]\nurl = \"{url}\"\nuser = \"{user}\"\npassword = \"{}\"\n\n\
             [http]\nlisten = \"{{listen}}\"\n\n[[http.token]]\nname = \"tests\"\n\
             hash = \"{hash}\"\nscopes = [\"admin\", \"sql\", \"pipe:*\"]\n",
            self.source, self.brokers, self.prefix, self.kafka, self.clickhouse,
        )
    }
}

/// What `tailwater token hash` prints.
fn tailwater_hash(token: &str) -> String {
    use sha2::{Digest as _, Sha256};
    Sha256::digest(token.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Everything that the interface tells, with the token and without.
fn answers_are_silent(tailwater: &Tailwater) -> Result<()> {
    let everywhere = "SELECT%20*%20FROM%20system.";
    let tables = ["processes", "settings", "query_log", "users", "named_collections", "tables"];
    let tables = tables.map(|table| format!("/v0/sql?q={everywhere}{table}&format=ndjson"));
    let paths = [
        "/livez",
        "/readyz",
        "/metrics",
        "/v0/status",
        "/v0/pipes/notes_snapshot.json",
        "/v0/pipes/notes_snapshot.json?id=x",
        "/v0/pipes/nothing_snapshot.json",
        "/v0/sql?q=SELECT%20nothing",
        "/v0/sql?q=DROP%20TABLE%20notes",
        "/v0/sql?format=csv&q=SELECT%20*%20FROM%20_tailwater_dead_letters",
        "/v0/plugins/nothing/reload",
    ];
    let bearer = format!("Bearer {TOKEN}");
    for path in paths.into_iter().map(str::to_owned).chain(tables) {
        let url = format!("{}{path}", tailwater.http_url());
        let joint = if path.contains('?') { '&' } else { '?' };
        let wrong = format!("{url}{joint}token={WRONG}");
        for (url, headers) in
            [(&url, &[("Authorization", bearer.as_str())][..]), (&url, &[]), (&wrong, &[])]
        {
            let method = if path.ends_with("reload") { "POST" } else { "GET" };
            let answer = http_request(method, url, headers, b"")?;
            sweep(&path, &answer.text())?;
            for (name, value) in &answer.headers {
                sweep(&format!("{path}, {name}"), value)?;
            }
        }
    }
    Ok(())
}

/// With the trace of every library.
fn loud(text: &str) -> Result<Tailwater> {
    let tailwater = Tailwater::with_config(text)?;
    Ok(tailwater.variable("TAILWATER_LOG", "trace").variable("RUST_BACKTRACE", "full"))
}

#[test]
fn no_secret_is_told_while_all_goes_well_nor_when_services_refuse_or_are_gone() -> Result<()> {
    let source = Postgres::shared(PostgresVersion::V15).create_database()?;
    source.execute("CREATE TABLE notes (id int PRIMARY KEY, body text)")?;
    source.execute("INSERT INTO notes VALUES (1, 'one'), (2, repeat(md5('2'), 20000))")?;
    ensure!(source.tcp_url().contains(IN_A_URL), "another password is swept for");
    let (kafka, prefix) = (Kafka::shared(), unique_name("secrets"));
    let (brokers, url) = (kafka.sasl_bootstrap(), source.tcp_url());
    let right = Settings {
        source: &url,
        kafka: SASL_PASSWORD,
        clickhouse: ClickHouse::shared().password(),
        brokers: &brokers,
        prefix: &prefix,
    };
    let tailwater = loud(&right.text())?;
    let mut process = tailwater.start()?;
    process.wait_ready(DEADLINE)?;
    let bearer = format!("Bearer {TOKEN}");
    wait_for(DEADLINE, "the row that fits", || {
        let url = format!("{}/v0/pipes/notes_snapshot.ndjson", tailwater.http_url());
        let answer = http_request("GET", &url, &[("Authorization", &bearer)], b"")?;
        ensure!(answer.text().contains("one"), "{} {}", answer.status, answer.text());
        Ok(())
    })?;
    let letters = read_committed(&kafka.bootstrap(), &format!("{prefix}.tailwater.dead-letters"))?;
    ensure!(!letters.is_empty(), "no row was set aside");
    sweep("a dead letter", &format!("{letters:?}"))?;
    answers_are_silent(&tailwater)?;
    processes_are_silent(process.id())?;
    ensure!(process.terminate(DEADLINE)?.success(), "it ended badly");
    sweep("the log", &tailwater.log())?;

    let wrong_url = url.replace(IN_A_URL, WRONG);
    for (what, wrong) in [
        ("source", Settings { source: &wrong_url, ..right }),
        ("kafka", Settings { kafka: WRONG, ..right }),
        ("clickhouse", Settings { clickhouse: WRONG, ..right }),
    ] {
        let refused = loud(&wrong.text())?;
        let status = refused.run_to_end(DEADLINE)?;
        ensure!(status.code() == Some(1), "{what}: it ended with {status}");
        sweep(what, &refused.log())?;
    }

    let (nowhere, gone) = (free_port()?, format!("127.0.0.1:{}", free_port()?));
    let unreachable = format!("postgres://u:{WRONG}@127.0.0.1:{nowhere}/d");
    for wrong in [Settings { source: &unreachable, ..right }, Settings { brokers: &gone, ..right }]
    {
        let waiting = loud(&wrong.text())?;
        let process = waiting.start()?;
        wait_for(DEADLINE, "the reason in /readyz", || {
            let answer = waiting.get("/readyz")?;
            let told =
                answer.text().contains("cannot reach") || answer.text().contains("is kafka up");
            ensure!(told, "{} {}", answer.status, answer.text());
            Ok(())
        })?;
        answers_are_silent(&waiting)?;
        processes_are_silent(process.id())?;
        ensure!(process.terminate(DEADLINE)?.success(), "it ended badly");
        sweep("the log", &waiting.log())?;
    }
    Ok(())
}

#[test]
fn a_password_on_the_command_line_leaves_the_process_list() -> Result<()> {
    let source = Postgres::shared(PostgresVersion::V15).create_database()?;
    source.execute("CREATE TABLE notes (id int PRIMARY KEY, body text)")?;
    source.execute("INSERT INTO notes VALUES (1, 'one')")?;
    let tailwater = Tailwater::with_source(&source.tcp_url())?;
    let mut process = tailwater.start()?;
    process.wait_ready(DEADLINE)?;
    let family = family(process.id())?;
    ensure!(family.len() > 1, "the engine is no child: {family:?}");
    let commands = read(format!("/proc/{}/cmdline", process.id()))?;
    ensure!(commands.contains("run\n--listen\n"), "the other arguments stay: {commands}");
    processes_are_silent(process.id())?;
    serves(&tailwater, "notes", "{\"id\":1,\"body\":\"one\"}\n")?;
    ensure!(process.terminate(DEADLINE)?.success(), "it ended badly");
    sweep("the log", &tailwater.log())
}

#[test]
fn a_token_on_the_command_line_leaves_the_process_list() -> Result<()> {
    // Takes connections and says nothing, so that the command has to wait.
    let silent = TcpListener::bind("127.0.0.1:0")?;
    let url = format!("http://{}", silent.local_addr()?);
    let tailwater = Tailwater::with_arguments(["status", "--url", &url, "--token", TOKEN])?;
    let process = tailwater.start()?;
    let (_connection, _) = silent.accept()?;
    ensure!(read(format!("/proc/{}/cmdline", process.id()))?.contains(&url), "another process");
    processes_are_silent(process.id())
}

#[test]
fn a_mistyped_command_line_is_not_repeated_with_its_password() -> Result<()> {
    let url = format!("postgres://u:{WRONG}@h/d");
    for arguments in [["run", &url], ["run", &format!("--sorce={url}")]] {
        let tailwater = Tailwater::with_arguments(arguments)?;
        let status = tailwater.run_to_end(Duration::from_secs(20))?;
        ensure!(status.code() == Some(2), "it ended with {status}");
        ensure!(tailwater.log().contains("unexpected argument"), "{}", tailwater.log());
        sweep("the terminal", &tailwater.log())?;
    }
    Ok(())
}
