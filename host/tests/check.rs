//! `tailwater check` against real services: each thing that is not there is one sentence with its
//! fix, and nothing is changed.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tailwater::capture::{SourceUrl, watch_slot};
use tailwater::check::{self, Finding};
use tailwater::config::{Config, Role, parse};
use tailwater::plugin::{Chain, Runtime, Stage, compiled_code};
use tailwater::serve::Readiness;
use tailwater::shutdown::Shutdown;
use tailwater::telemetry::logging::chain;
use tailwater_test_support::{
    Database, Kafka, Postgres, PostgresOptions, PostgresVersion, Proxy, SASL_USER, Scratch,
    answer_everything, binary, free_port, guests, unique_name, wait_until,
};

fn look(text: &str, role: Role) -> Vec<Finding> {
    let config: Config = parse(text, Path::new("test.toml"), &|_| None).expect(text);
    tokio::runtime::Runtime::new().expect("a runtime").block_on(check::run(&config, role))
}

/// What was found of the one item.
fn of(findings: &[Finding], item: &str) -> Result<String, String> {
    let found = findings.iter().find(|finding| finding.item == item);
    found.unwrap_or_else(|| panic!("{item} in {findings:?}")).result.clone()
}

fn source_section(url: &str, more: &str) -> String {
    format!("[source]\nurl = \"{url}\"\n{more}\n")
}

fn source(url: &str, more: &str) -> Result<String, String> {
    let findings = look(&source_section(url, more), Role::All);
    of(&findings, "source")
}

/// The sentence of a source that fails; one line, without the password.
fn complaint(url: &str, more: &str) -> String {
    let sentence = source(url, more).expect_err(more);
    assert_eq!(sentence.lines().count(), 1, "{sentence}");
    assert!(!sentence.contains("correct") && !sentence.contains("hunter2"), "{sentence}");
    sentence
}

fn shop() -> Database<'static> {
    let database = Postgres::shared(PostgresVersion::V15).create_database().expect("a database");
    database.execute("CREATE TABLE users (id int PRIMARY KEY, email text)").expect("a table");
    database
}

#[test]
fn a_source_that_is_ready_is_left_as_it_was() {
    for version in [PostgresVersion::V15, PostgresVersion::V18] {
        let database = Postgres::shared(version).create_database().unwrap();
        database.execute("CREATE TABLE users (id int PRIMARY KEY)").unwrap();
        let found = source(&database.url(), "slot = \"not_made\"").unwrap();
        assert!(found.contains("public.users") && found.contains("is created"), "{found}");
        let left = "SELECT (SELECT count(*) FROM pg_publication)::text,
             (SELECT count(*) FROM pg_replication_slots WHERE slot_name = 'not_made')::text";
        assert_eq!(database.query(left).unwrap(), [["0", "0"]]);
    }
}

#[test]
fn an_existing_publication_and_slot_are_found() {
    let database = shop();
    let slot = unique_name("check");
    database.execute("CREATE PUBLICATION p FOR TABLE users").unwrap();
    let make = format!("SELECT pg_create_logical_replication_slot('{slot}', 'pgoutput')");
    database.query(&make).unwrap();
    let more = format!("publication = \"p\"\nslot = \"{slot}\"");
    let found = source(&database.url(), &more).unwrap();
    assert!(found.contains("p exists") && found.contains(&format!("{slot} exists")), "{found}");
}

#[test]
fn a_slot_of_another_database_is_not_taken() {
    let (database, other) = (shop(), shop());
    let slot = unique_name("check");
    let make = format!("SELECT pg_create_logical_replication_slot('{slot}', 'pgoutput')");
    other.query(&make).unwrap();
    let sentence = complaint(&database.url(), &format!("slot = \"{slot}\""));
    let other = other.name();
    let wanted =
        format!("slot {slot} belongs to database {other}; choose another name with [source] slot");
    assert!(sentence.contains(&wanted), "{sentence}");
}

#[test]
fn what_the_settings_name_must_be_there() {
    let database = shop();
    database.execute("CREATE TABLE log (line text); CREATE PUBLICATION none").unwrap();
    let url = database.url();
    for (more, wanted) in [
        ("tables = [\"public.nobody\"]", "table public.nobody of [source] tables does not exist"),
        ("tables = [\"public.log\"]", "add a primary key"),
        ("exclude = [\"public.users\"]", "no table with a primary key"),
        (
            "publication = \"none\"",
            "publication none holds no table; run ALTER PUBLICATION \"none\"",
        ),
        ("slot = \"Not-A-Slot\"", "is no name for a replication slot"),
    ] {
        let sentence = complaint(&url, more);
        assert!(sentence.contains(wanted), "{more}: {sentence}");
    }
}

#[test]
fn a_user_without_the_rights_is_told_which() {
    let database = shop();
    let role = unique_name("reader");
    let login = format!("CREATE ROLE {role} LOGIN PASSWORD 'hunter2'");
    database.execute(&login).unwrap();
    let url = database.tcp_url().replace("tailwater:correct%20horse", &format!("{role}:hunter2"));
    assert!(complaint(&url, "").contains("may not replicate; run ALTER ROLE"));
    database.execute(&format!("ALTER ROLE {role} REPLICATION")).unwrap();
    assert!(complaint(&url, "").contains("GRANT CREATE ON DATABASE"));
    let name = database.name();
    database.execute(&format!("GRANT CREATE ON DATABASE {name} TO {role}")).unwrap();
    assert!(complaint(&url, "").contains("does not own table public.users, so it may not publish"));
    database.execute("CREATE PUBLICATION tailwater FOR TABLE users").unwrap();
    assert!(complaint(&url, "").contains("GRANT SELECT ON \"public\".\"users\""));
    database.execute(&format!("GRANT SELECT ON users TO {role}")).unwrap();
    source(&url, "").unwrap();
    database.execute(&format!("ALTER ROLE {role} CONNECTION LIMIT 0")).unwrap();
    let sentence = complaint(&url, "");
    assert!(sentence.contains("the source refused: too many connections for role"), "{sentence}");
    assert!(sentence.contains("; raise max_connections or max_wal_senders on the server"));
    database.execute(&format!("ALTER ROLE {role} CONNECTION LIMIT -1")).unwrap();
    database.execute(&format!("REVOKE CONNECT ON DATABASE {name} FROM PUBLIC")).unwrap();
    let sentence = complaint(&url, "");
    assert!(sentence.contains("(SQLSTATE 42501); grant the privilege or use another user"));
}

#[test]
fn a_server_that_cannot_stream_is_told_what_to_set() {
    let options = PostgresOptions { wal_level: "replica".into(), ..Default::default() };
    let postgres = Postgres::start(PostgresVersion::V15, options).unwrap();
    let database = postgres.create_database().unwrap();
    database.execute("CREATE TABLE users (id int PRIMARY KEY)").unwrap();
    let sentence = complaint(&database.url(), "");
    assert!(sentence.contains("ALTER SYSTEM SET wal_level = 'logical'"), "{sentence}");
}

/// What `/readyz` says of a slot.
fn watched(url: &str, slot: &str) -> String {
    let (readiness, shutdown) = (Readiness::default(), Shutdown::default());
    let (url, leg) = (SourceUrl::parse(url).expect("a URL"), readiness.leg("slot"));
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.spawn(watch_slot(url, slot.to_owned(), leg, Arc::default(), shutdown));
    let reason = || readiness.legs()["slot"].reason.clone();
    wait_until(Duration::from_secs(30), "a look", || reason() != "starting").expect("it looks");
    reason()
}

/// A slot that was left behind, a name that is taken, a server that is too old or no primary.
#[test]
fn a_server_that_gives_no_usable_slot_is_told_why() {
    let setting = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let settings = vec![
        setting("max_replication_slots", "1"),
        setting("max_slot_wal_keep_size", "1MB"),
        setting("wal_keep_size", "0"),
    ];
    let options = PostgresOptions { settings, ..Default::default() };
    let postgres = Postgres::start(PostgresVersion::V15, options).unwrap();
    let database = postgres.create_database().unwrap();
    database.execute("CREATE TABLE users (id int PRIMARY KEY)").unwrap();
    let url = database.url();
    database.query("SELECT pg_create_logical_replication_slot('left', 'pgoutput')").unwrap();
    let sentence = complaint(&url, "slot = \"fresh\"");
    assert!(sentence.contains("all 1 replication slots are taken, none is left for fresh"));
    for _ in 0..3 {
        database.execute("INSERT INTO users SELECT count(*) FROM users").unwrap();
        database.query("SELECT pg_switch_wal()").unwrap();
    }
    database.execute("CHECKPOINT").unwrap();
    let sentence = complaint(&url, "slot = \"left\"");
    assert!(sentence.contains("slot left lost its write-ahead log (max_slot_wal"), "{sentence}");
    let said = watched(&url, "left");
    assert!(said.contains("slot left is lost: it may lose its log"), "{said}");
    database.query("SELECT pg_drop_replication_slot('left')").unwrap();
    database.query("SELECT pg_create_physical_replication_slot('left')").unwrap();
    let sentence = complaint(&url, "slot = \"left\"");
    assert!(sentence.contains("slot left is not a logical slot of pgoutput; choose"), "{sentence}");

    let proxy = Proxy::start(postgres.port()).unwrap();
    let version = &database.query("SHOW server_version_num").unwrap()[0][0];
    proxy.damage(version.as_bytes(), format!("13{}", &version[2..]).as_bytes());
    let port = postgres.port().to_string();
    let old = database.tcp_url().replace(&port, &proxy.port().to_string());
    let sentence = complaint(&format!("{old}?sslmode=disable"), "");
    assert!(sentence.contains("the source is PostgreSQL 13; Tailwater needs 14"), "{sentence}");

    postgres.become_standby().unwrap();
    let sentence = complaint(&url, "");
    assert!(sentence.contains("the source is a standby; connect to the primary"), "{sentence}");
}

#[test]
fn an_address_or_password_that_is_wrong_is_said() {
    let database = shop();
    let port = free_port().unwrap();
    let right = database.tcp_url();
    let wrong = right.replace("correct%20horse", "hunter2");
    assert!(complaint(&wrong, "").contains("check user, password and pg_hba.conf"));
    let none = right.replace(":correct%20horse", "");
    assert!(complaint(&none, "").contains("the source asks for a password; put it into the URL"));
    let kerberos = right.replace("tailwater:correct%20horse", "kerberos");
    assert!(complaint(&kerberos, "").contains("the source asks for GSSAPI or SSPI authentication"));
    let nobody = format!("postgres://u:hunter2@127.0.0.1:{port}/d");
    assert!(complaint(&nobody, "").starts_with("cannot reach the source; check host, port and"));
    let elsewhere = right.replace(database.name(), "no_such_database");
    assert!(complaint(&elsewhere, "").contains("check the database's name"));
    assert!(
        complaint("postgres://u:hunter2@h:port/d", "").contains("the source URL cannot be used")
    );
}

/// As a service without an environment of its own does.
#[test]
fn a_url_without_a_user_needs_one_from_the_environment() {
    let mut check = std::process::Command::new(binary().unwrap());
    check.env_clear().args(["check", "--source", "postgres://127.0.0.1/d"]);
    let said = String::from_utf8(check.output().unwrap().stderr).unwrap();
    assert!(said.contains("it names no user: postgres://USER@host/database"), "{said}");
}

#[test]
fn kafka_answers_or_says_why_not() {
    let kafka = Kafka::shared();
    let findings = |section: String| {
        let findings = look(&format!("[kafka]\nprefix = \"p\"\n{section}"), Role::Sink);
        of(&findings, "kafka")
    };
    let brokers = |address: String| format!("brokers = \"{address}\"\n");
    assert!(findings(brokers(kafka.bootstrap())).unwrap().contains("brokers: 1"));
    let port = free_port().unwrap();
    let silent = findings(brokers(format!("127.0.0.1:{port}"))).unwrap_err();
    assert!(silent.contains("is kafka up and `brokers` right"), "{silent}");
    let login = format!(
        "{}[kafka.librdkafka]\n\"security.protocol\" = \"SASL_PLAINTEXT\"\n\
         \"sasl.mechanism\" = \"PLAIN\"\n\"sasl.username\" = \"{SASL_USER}\"\n\
         \"sasl.password\" = \"hunter2\"\n",
        brokers(kafka.sasl_bootstrap())
    );
    let refused = findings(login).unwrap_err();
    assert!(refused.contains("check credentials"), "{refused}");
    assert!(!refused.contains("hunter2"), "{refused}");
    let unknown = format!("{}librdkafka = {{ \"no.such\" = 1 }}\n", brokers(kafka.bootstrap()));
    let unknown = findings(unknown).unwrap_err();
    assert!(
        unknown.contains("do not make a client; check the names") && unknown.contains("no.such"),
        "{unknown}"
    );
}

#[test]
fn each_plugin_is_looked_at_by_its_own() {
    let scratch = Scratch::new("check").unwrap();
    let file = |name: &str, bytes: &[u8]| -> PathBuf {
        let path = scratch.join(name);
        std::fs::write(&path, bytes).unwrap();
        path
    };
    let files = [
        ("text", file("text.wasm", b"not wasm"), "not a WebAssembly component"),
        ("module", file("module.wasm", b"\0asm\x01\0\0\0"), "wasm-tools component new"),
        ("empty", file("empty.wasm", b"\0asm\x0d\0\x01\0"), "implements no world"),
        ("absent", scratch.join("absent.wasm"), "cannot be read"),
    ];
    let section = |(name, path, _): &(&str, PathBuf, &str)| {
        format!("[[plugin]]\nname = \"{name}\"\npath = \"{}\"\n", path.display())
    };
    let text: String = files.iter().map(section).collect();
    let findings = look(&text, Role::Sink);
    for (name, _, wanted) in &files {
        let sentence = of(&findings, &format!("plugin {name}")).unwrap_err();
        assert!(sentence.contains(wanted), "{name}: {sentence}");
        assert_eq!(sentence.lines().count(), 1, "{sentence}");
    }
}

#[test]
fn what_a_run_would_refuse_of_a_plugin_is_refused_with_its_sentence() {
    let mask = guests::plugin("mask-email").unwrap();
    let join = guests::plugin("enrich-from-state").unwrap();
    let cases = [
        (&mask, "digest = \"00ff\"", "but its section pins 00ff"),
        (&mask, "tables = [\"public.user*\"]", "`public.user*` in `tables` is no table"),
        (&mask, "deadline_ms = 0", "`deadline_ms` must be at least 1"),
        (&mask, "shadow_limit = 101", "`shadow_limit` is in percent, 100 at most"),
        (&mask, "config = { column = \"email\" }", "does not start: "),
        (&join, "", "imports `state`, which it is not granted"),
    ];
    for (path, setting, wanted) in cases {
        let text = format!("[[plugin]]\nname = \"p\"\npath = \"{}\"\n{setting}\n", path.display());
        let sentence = of(&look(&text, Role::Sink), "plugin p").expect_err(setting);
        assert!(sentence.contains(wanted), "{setting}: {sentence}");
        let config: Config = parse(&text, Path::new("test.toml"), &|_| None).unwrap();
        let runtime = Runtime::new(compiled_code()).unwrap();
        let refused = Chain::load(&runtime, config.plugin, Stage::Capture, Arc::default());
        assert_eq!(chain(&refused.err().expect(setting)), sentence, "as the run says it");
    }
}

#[test]
fn a_pattern_that_fits_no_table_is_remarked() {
    let database = shop();
    let mask = guests::plugin("mask-email").unwrap();
    let section = |name: &str, tables: &str| {
        let path = mask.display();
        format!("[[plugin]]\nname = \"{name}\"\npath = \"{path}\"\ntables = [{tables}]\n")
    };
    let plugins = [
        section("misspelt", "\"public.users\", \"public.user\""),
        section("right", "\"users\", \"public.*\""),
    ];
    let text = source_section(&database.url(), "") + &plugins.concat();
    let findings = look(&text, Role::All);
    let found = of(&findings, "plugin misspelt").unwrap();
    assert!(found.ends_with(
        "…; none of the source's tables fits `public.user` in its `tables`, most likely a typing \
         error"
    ));
    let found = of(&findings, "plugin right").unwrap();
    assert!(!found.contains("fits"), "{found}");
}

#[test]
fn a_plugin_of_the_sink_that_does_not_hear_of_what_the_capture_sets_aside_is_remarked() {
    let section = |plugin: &str, settings: &str| {
        let path = guests::plugin(plugin).unwrap();
        format!("[[plugin]]\nname = \"{plugin}\"\npath = \"{}\"\n{settings}\n", path.display())
    };
    let plugins = section("mask-email", "") + &section("drop-duplicates", "stage = \"sink\"");
    let findings = look(&(plugins + "[kafka]\nprefix = \"p\"\n"), Role::Sink);
    let found = of(&findings, "plugin drop-duplicates").unwrap();
    let remark = "it does not hear of changes that `mask-email` on the capture sets aside";
    assert!(found.contains(remark), "{found}");
    let found = of(&findings, "plugin mask-email").unwrap();
    assert!(!found.contains("hear"), "{found}");
}

#[test]
fn a_clickhouse_that_is_down_is_said_without_its_password() {
    let port = free_port().unwrap();
    let text = format!(
        "[clickhouse]\nurl = \"http://127.0.0.1:{port}\"\npassword = \"hunter2\"\n\
         [kafka]\nprefix = \"p\"\n"
    );
    let findings = look(&text, Role::Sink);
    let sentence = of(&findings, "clickhouse").unwrap_err();
    assert!(sentence.contains(&port.to_string()), "{sentence}");
    assert!(sentence.contains("does not answer") && !sentence.contains("hunter2"), "{sentence}");
    let printed = findings.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
    assert!(printed.contains("\nFAIL  clickhouse: "), "{printed}");
}

#[test]
fn another_server_in_the_place_of_clickhouse_is_told_from_it() {
    for answer in [
        "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
        "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n<html>It works!</html>",
        "HTTP/1.1 404 Not Found\r\nConnection: close\r\n\r\nno such path",
        "HTTP/1.1 302 Found\r\nLocation: /login\r\nConnection: close\r\n\r\n",
    ] {
        let address = answer_everything(answer).unwrap();
        let text = format!("[clickhouse]\nurl = \"http://{address}\"\n[kafka]\nprefix = \"p\"\n");
        let sentence = of(&look(&text, Role::Sink), "clickhouse").expect_err(answer);
        assert!(sentence.contains("is not ClickHouse, or a proxy that"), "{sentence}");
    }
}

#[test]
fn a_directory_that_cannot_be_written_to_is_said_before_the_run() {
    let scratch = Scratch::new("check").unwrap();
    std::fs::write(scratch.join("file"), "").unwrap();
    let inside = scratch.join("file").join("data");
    let told = format!("the directory {} cannot be written to (", inside.display());
    let text = format!("[kafka]\nprefix = \"p\"\n[embedded]\npath = \"{}\"\n", inside.display());
    let sentence = of(&look(&text, Role::Sink), "clickhouse").unwrap_err();
    assert!(sentence.starts_with(&told) && sentence.contains("`[embedded] path`"), "{sentence}");

    let plugin = |name: &str| {
        let path = guests::plugin(name).unwrap();
        format!("[[plugin]]\nname = \"{name}\"\npath = \"{}\"\n", path.display())
    };
    let state = format!("[state]\npath = \"{}\"\n", inside.display());
    for (text, is_needed) in [
        (format!("{}{state}", plugin("drop-duplicates")), true),
        (format!("{}{state}", plugin("mask-email")), true),
        (text.clone() + &plugin("drop-duplicates"), true),
        (text + &plugin("mask-email"), false),
        (state, false),
    ] {
        let findings = look(&text, Role::Sink);
        if is_needed {
            let sentence = of(&findings, "state").expect_err(&text);
            assert!(sentence.starts_with("the directory "), "{sentence}");
            assert!(sentence.ends_with("name another one in `[state] path`"), "{sentence}");
        } else {
            assert!(findings.iter().all(|finding| finding.item != "state"), "{findings:?}");
        }
    }
    let fresh = scratch.join("fresh/state");
    let text = format!("{}[state]\npath = \"{}\"\n", plugin("drop-duplicates"), fresh.display());
    of(&look(&text, Role::Sink), "state").unwrap();
    assert!(!scratch.join("fresh").exists(), "it only looks");
}

#[test]
fn a_section_for_a_table_that_is_not_copied_is_remarked() {
    let database = shop();
    let sections = "[clickhouse.tables.\"public.users\"]\n[clickhouse.tables.\"public.user\"]\n";
    let findings = look(&(source_section(&database.url(), "") + sections), Role::All);
    let found = of(&findings, "clickhouse").unwrap();
    assert!(found.ends_with(
        "; `public.user` in [clickhouse.tables] is none of the source's tables, most likely a typing error"
    ));
    assert_eq!(found.matches("none of").count(), 1, "{found}");
}

#[test]
fn each_role_looks_at_what_it_needs() {
    let text =
        "[source]\nurl = \"postgres://u@h:port/d\"\n[clickhouse]\nurl = \"http://127.0.0.1:1\"";
    let items = |role| look(text, role).into_iter().map(|found| found.item).collect::<Vec<_>>();
    assert_eq!(items(Role::All), ["source", "clickhouse"]);
    assert_eq!(items(Role::Capture), ["source"]);
    assert_eq!(items(Role::Sink), ["clickhouse"]);
}

#[test]
fn an_engine_that_was_not_fetched_is_said_before_the_run() {
    let text = "[kafka]\nprefix = \"p\"\n[embedded]\nlibrary = \"no/such/library.so\"\n";
    let sentence = of(&look(text, Role::Sink), "clickhouse").unwrap_err();
    assert!(sentence.starts_with("the embedded ClickHouse engine is not on this machine"));
    assert!(sentence.contains("(looked for no/such/library.so)"), "{sentence}");
}
