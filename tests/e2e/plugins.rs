//! Plugins in the running binary: swapped under load, broken, hostile.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use sha2::{Digest as _, Sha256};
use tailwater_test_support::workload::Runner;
use tailwater_test_support::{
    Database, Kafka, Postgres, PostgresVersion, Tailwater, guests, http_request, unique_name,
    wait_for,
};
use tailwater_tests::{Audit, Emails, each_change_once, read_committed, wait_equal, wait_sent};

/// To compile Python takes most of a minute on a machine that is busy.
const DEADLINE: Duration = Duration::from_secs(300);
const RATE: u64 = 1_500;

/// Puts a component where the running process looks, by rename as a careful deployer does.
fn install(component: &Path, tailwater: &Tailwater) -> Result<()> {
    let fresh = tailwater.directory().join("fresh");
    fs::copy(component, &fresh)?;
    fs::rename(fresh, tailwater.directory().join("plugin.wasm"))?;
    Ok(())
}

fn config(source: &Database<'_>, plugin: &str) -> String {
    format!(
        "[source]\nurl = \"{}\"\n\n[http]\nlisten = \"{{listen}}\"\n\n\
         [[plugin]]\nname = \"guest\"\npath = \"plugin.wasm\"\n{plugin}",
        source.url()
    )
}

fn tailwater(source: &Database<'_>, plugin: &str) -> Result<Tailwater> {
    Tailwater::with_config(&config(source, plugin))
}

/// Waits until that many reloads ended well.
fn wait_generation(tailwater: &Tailwater, generation: u64) -> Result<()> {
    wait_for(DEADLINE, "the new version to run", || {
        let status: serde_json::Value = serde_json::from_str(&tailwater.get("/v0/status")?.text())?;
        let found = status["plugins"][0]["generation"].as_u64();
        ensure!(found == Some(generation), "generation {found:?}");
        Ok(())
    })
}

fn wait_metric(tailwater: &Tailwater, wanted: &str) -> Result<()> {
    wait_for(DEADLINE, wanted, || {
        let metrics = tailwater.get("/metrics")?.text();
        ensure!(metrics.lines().any(|line| line.starts_with(wanted)), "it is not there yet");
        Ok(())
    })
}

#[test]
fn a_plugin_swapped_under_load_for_one_in_another_language_loses_and_doubles_nothing() -> Result<()>
{
    let (rust, python) = (guests::plugin("mask-email")?, guests::plugin("mask-email-py")?);
    let source = Postgres::shared(PostgresVersion::V15).create_database()?;
    let workload = Runner::start(&source.url(), 7, RATE)?;
    let tailwater = tailwater(&source, "deadline_ms = 10000\nmemory_mb = 256\n")?;
    install(&rust, &tailwater)?;
    let mut process = tailwater.start()?;
    process.wait_ready(DEADLINE)?;
    install(&python, &tailwater)?;
    wait_generation(&tailwater, 2)?;
    fs::write(tailwater.directory().join("plugin.wasm"), b"not a component at all")?;
    wait_metric(
        &tailwater,
        "tailwater_plugin_reloads_total{plugin=\"guest\",kind=\"rejected\"} 1",
    )?;
    ensure!(tailwater.log().contains("the running one goes on"), "the log:\n{}", tailwater.log());
    install(&rust, &tailwater)?;
    wait_generation(&tailwater, 3)?;
    workload.stop()?;
    wait_equal(&source, &tailwater.http_url(), Emails::Masked, DEADLINE)?;
    ensure!(process.terminate(DEADLINE)?.success(), "it ended badly");
    Ok(())
}

/// What the records of a topic say of the plugins that saw them, partition by partition, without repetition.
fn stamps(bootstrap: &str, topic: &str) -> Result<Vec<(i32, String)>> {
    let mut stamps = Vec::new();
    for record in read_committed(bootstrap, topic)? {
        let origin = record.headers.iter().find(|(name, _)| name == "tailwater.origin");
        let (_, origin) = origin.context("find where the record comes from")?;
        let plugins = origin.split(' ').nth(2).context("find the plugins")?;
        stamps.push((record.partition, plugins.to_owned()));
    }
    // Stable, so those of a partition stay in order.
    stamps.sort_by_key(|(partition, _)| *partition);
    stamps.dedup();
    Ok(stamps)
}

#[test]
fn a_swap_under_load_sends_each_change_once_and_the_records_say_which_version_saw_them()
-> Result<()> {
    let (rust, c) = (guests::plugin("mask-email")?, guests::plugin("mask-email-c")?);
    let source = Postgres::shared(PostgresVersion::V18).create_database()?;
    let bootstrap = Kafka::shared().bootstrap();
    let workload = Runner::start(&source.url(), 8, RATE)?;
    let audit = Audit::install(&source)?;
    let prefix = unique_name("swap");
    let kafka = format!(
        "exclude = [\"public.audit\"]\n\n\
         [kafka]\nbrokers = \"{bootstrap}\"\nprefix = \"{prefix}\"\npartitions = 2\n\n[http]"
    );
    let tailwater = Tailwater::with_config(&config(&source, "").replace("[http]", &kafka))?;
    install(&rust, &tailwater)?;
    let mut process = tailwater.start()?;
    process.wait_ready(DEADLINE)?;
    wait_sent(&tailwater, &source)?;
    let mark = audit.mark()?;
    install(&c, &tailwater)?;
    wait_generation(&tailwater, 2)?;
    // More of it comes to the new version.
    wait_sent(&tailwater, &source)?;
    workload.stop()?;
    wait_sent(&tailwater, &source)?;
    wait_equal(&source, &tailwater.http_url(), Emails::Masked, DEADLINE)?;
    ensure!(process.terminate(DEADLINE)?.success(), "it ended badly");
    let topic = format!("{prefix}.public.users");
    each_change_once(&audit.histories("users", mark)?, &bootstrap, &topic)?;
    let stamp = |component: &Path| -> Result<String> {
        let digest = Sha256::digest(fs::read(component)?);
        let digits = digest[..6].iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        Ok(format!("guest@{digits}"))
    };
    let (before, after) = (stamp(&rust)?, stamp(&c)?);
    let wanted = [0, 1].map(|partition| [(partition, before.clone()), (partition, after.clone())]);
    let found = stamps(&bootstrap, &topic)?;
    ensure!(found == wanted.concat(), "{found:?}");
    Ok(())
}

/// What a POST to the plugin's reload path is answered.
fn ask_to_reload(tailwater: &Tailwater, plugin: &str) -> Result<(u16, serde_json::Value)> {
    let url = format!("{}/v0/plugins/{plugin}/reload", tailwater.http_url());
    let answer = http_request("POST", &url, &[], b"")?;
    Ok((answer.status, serde_json::from_str(&answer.text())?))
}

#[test]
fn a_plugins_settings_are_read_again_over_http_and_by_a_signal() -> Result<()> {
    let source = poisoned()?;
    let settings =
        |mail: &str| config(&source, &format!("[plugin.config]\ncolumns = [\"{mail}\"]\n"));
    let tailwater = Tailwater::with_config(&settings("nowhere"))?;
    install(&guests::plugin("mask-email")?, &tailwater)?;
    let mut process = tailwater.start()?;
    process.wait_ready(DEADLINE)?;
    let (status, answer) = ask_to_reload(&tailwater, "guest")?;
    ensure!(status == 200 && answer["result"] == "unchanged", "{status} {answer}");
    ensure!(ask_to_reload(&tailwater, "nobody")?.0 == 404, "there is no such plugin");
    tailwater.set_config(&settings("name"))?;
    let (status, answer) = ask_to_reload(&tailwater, "guest")?;
    ensure!(status == 200 && answer["result"] == "accepted", "{status} {answer}");
    source.execute("INSERT INTO people VALUES (4, 'a@x.org')")?;
    wait_generation(&tailwater, 2)?;
    tailwater.set_config("[source")?;
    let (status, answer) = ask_to_reload(&tailwater, "guest")?;
    ensure!(status == 409 && answer["error"].is_string(), "{status} {answer}");
    tailwater.set_config(&settings("elsewhere"))?;
    process.hang_up()?;
    wait_metric(
        &tailwater,
        "tailwater_plugin_reloads_total{plugin=\"guest\",kind=\"accepted\"} 2",
    )?;
    source.execute("INSERT INTO people VALUES (5, 'b@x.org')")?;
    serves(
        &tailwater,
        "{\"id\":1,\"name\":\"Ada\"}\n{\"id\":2,\"name\":\"poison\"}\n\
         {\"id\":3,\"name\":\"Hiro\"}\n{\"id\":4,\"name\":\"a***@x.org\"}\n\
         {\"id\":5,\"name\":\"b@x.org\"}\n",
    )?;
    ensure!(process.terminate(DEADLINE)?.success(), "it ended badly");
    Ok(())
}

#[test]
fn a_pattern_that_fits_no_table_is_warned_of_once() -> Result<()> {
    let source = poisoned()?;
    let tables = "tables = [\"public.people\", \"public.peopel\"]\n";
    let tailwater = tailwater(&source, tables)?;
    install(&guests::plugin("mask-email")?, &tailwater)?;
    let mut process = tailwater.start()?;
    process.wait_ready(DEADLINE)?;
    let log = tailwater.log();
    let warnings: Vec<&str> = log
        .lines()
        .filter(|line| line.contains("fits a pattern in the plugin's `tables`"))
        .collect();
    let [warning] = warnings[..] else { bail!("{log}") };
    ensure!(warning.contains("WARN") && warning.contains("public.peopel"), "{warning}");
    ensure!(process.terminate(DEADLINE)?.success(), "it ended badly");
    Ok(())
}

/// A table of three rows, one of which is the one that hostile guests fail on.
fn poisoned() -> Result<Database<'static>> {
    let source = Postgres::shared(PostgresVersion::V18).create_database()?;
    source.execute("CREATE TABLE people (id int PRIMARY KEY, name text)")?;
    source.execute("INSERT INTO people VALUES (1, 'Ada'), (2, 'poison'), (3, 'Hiro')")?;
    Ok(source)
}

fn serves(tailwater: &Tailwater, expected: &str) -> Result<()> {
    wait_for(DEADLINE, "the rows in the snapshot pipe", || {
        let answer = tailwater.get("/v0/pipes/people_snapshot.ndjson")?;
        ensure!(answer.text() == expected, "{} {}", answer.status, answer.text());
        Ok(())
    })
}

fn dead_letters(tailwater: &Tailwater, expected: u64) -> Result<()> {
    let query = "/v0/sql?format=ndjson&q=SELECT%20count()%20AS%20n%20FROM%20_tailwater_dead_letters%20FINAL";
    let answer = tailwater.get(query)?;
    ensure!(answer.text().trim() == format!("{{\"n\":{expected}}}"), "{}", answer.text());
    Ok(())
}

/// The row at fault becomes a dead letter, the others go on.
fn sets_the_poison_row_aside(deed: &str) -> Result<()> {
    let hostile = guests::test_guest("hostile")?;
    let source = poisoned()?;
    let plugin = format!("deadline_ms = 200\n[plugin.config]\ndeed = \"{deed}\"\n");
    let tailwater = tailwater(&source, &plugin)?;
    install(&hostile, &tailwater)?;
    let mut process = tailwater.start()?;
    process.wait_ready(DEADLINE)?;
    serves(&tailwater, "{\"id\":1,\"name\":\"Ada\"}\n{\"id\":3,\"name\":\"Hiro\"}\n")?;
    dead_letters(&tailwater, 1)?;
    ensure!(!tailwater.log().contains("poison"), "a row value is in the log");
    ensure!(process.terminate(DEADLINE)?.success(), "it ended badly");
    Ok(())
}

#[test]
fn an_endless_loop_costs_its_row_and_nothing_else() -> Result<()> {
    sets_the_poison_row_aside("loop-on-poison")
}

#[test]
fn a_panic_costs_its_row_and_nothing_else() -> Result<()> {
    sets_the_poison_row_aside("panic-on-poison")
}

#[test]
fn a_memory_bomb_halts_the_pipeline_when_asked_to_and_nothing_is_lost() -> Result<()> {
    let (hostile, identity) = (guests::test_guest("hostile")?, guests::test_guest("identity")?);
    let source = poisoned()?;
    let tailwater = tailwater(
        &source,
        "on_error = \"halt\"\nmemory_mb = 16\n[plugin.config]\ndeed = \"eat-memory\"\n",
    )?;
    install(&hostile, &tailwater)?;
    let status = tailwater.run_to_end(DEADLINE)?;
    let log = tailwater.log();
    ensure!(status.code() == Some(1), "it ended with {status}:\n{log}");
    ensure!(log.contains("guest") && log.contains("memory"), "the log:\n{log}");
    ensure!(!log.contains("poison"), "a row value is in the log");
    tailwater.set_config(&config(&source, ""))?;
    install(&identity, &tailwater)?;
    let mut process = tailwater.start()?;
    process.wait_ready(DEADLINE)?;
    serves(
        &tailwater,
        "{\"id\":1,\"name\":\"Ada\"}\n{\"id\":2,\"name\":\"poison\"}\n{\"id\":3,\"name\":\"Hiro\"}\n",
    )
}
