use super::*;
use crate::table::TableName;

fn environment(name: &str) -> Option<String> {
    match name {
        "PW" => Some("hunter2 \"quoted\"".to_owned()),
        "PORT" => Some("7000".to_owned()),
        _ => None,
    }
}

fn read(text: &str) -> Result<Config, ConfigError> {
    parse(text, Path::new("t.toml"), &environment)
}

#[test]
fn mistakes_name_file_line_and_what_is_allowed() {
    let cases = [
        ("[nothing]\n", "t.toml:1: unknown key `nothing`; allowed: `source`"),
        ("\n[http]\nlisen = \"x\"\n", "t.toml:3: unknown key `lisen`; allowed: `listen`"),
        ("[log]\n\nformat = \"xml\"\n", "t.toml:3: unknown value `xml`; allowed: `text` or `json`"),
        ("[log]\nlevel = \"loud\"\n", "t.toml:2: not a log level; allowed: error, warn, info"),
        ("[log]\nlevel = \"lo=ud=er\"\n", "t.toml:2: not a log level"),
        ("[http]\nlisten = 7\n", "t.toml:2: invalid type: integer `7`; allowed: "),
        (
            "[http]\nlisten = \"localhost:7447\"\n",
            "t.toml:2: `localhost:7447` is no IP address with a port, as in 127.0.0.1:7447",
        ),
        (
            "[http]\nmax_rows = \"many\"\n",
            "t.toml:2: invalid type: string \"many\"; allowed: a whole",
        ),
        ("[http]\nmax_rows = -1\n", "t.toml:2: "),
        ("[[http.token]]\nname = \"x\"\nscopes = []\n", "t.toml:1: the key `hash` is missing"),
        ("[[http.token]]\nname = \"x\"\nhash = \"12\"\n", "t.toml:3: not a token's hash; it has"),
        ("[http]\n[[http.token]]\nscopes = [\"everything\"]\n", "t.toml:3: unknown scope"),
        ("[source]\nurl = \"${NOPE}\"\n", "t.toml:2: the environment variable `NOPE` is not set"),
        ("[source]\nurl = \"a${b\"\n", "t.toml:2: `${` without its `}`; write `$${`"),
        ("[source]\nurl = \"${b c}\"\n", "t.toml:2: between `${` and `}` stands the name"),
        (
            "[kafka]\nbroker = \"b\"\n",
            "t.toml:2: unknown key `broker`; allowed: `brokers`, `prefix`",
        ),
        ("[kafka]\ndelivery = \"twice\"\n", "t.toml:2: unknown value `twice`; allowed: `exactly"),
        ("[kafka.librdkafka]\na = 1.5\n", "t.toml:2: not the value of a setting; allowed: a text"),
        ("[clickhouse]\nuri = \"x\"\n", "t.toml:2: unknown key `uri`; allowed: `url`, `user`"),
        ("[clickhouse.tables.\"a.b\"]\nkey = 1\n", "t.toml:2: unknown key `key`; allowed: `name`"),
        (
            "[embedded]\nport = 70000\n",
            "t.toml:2: invalid value: integer `70000`; allowed: a whole number from 0 to 65535",
        ),
        ("[embedded]\ndir = \"x\"\n", "t.toml:2: unknown key `dir`; allowed: `path`"),
        ("[[plugin]]\nname = \"x\"\n", "t.toml:1: the key `path` is missing"),
        ("[[plugin]]\nstage = \"mid\"\n", "t.toml:2: unknown value `mid`; allowed: `capture` or"),
        (
            "[[plugin]]\nstage = \"m\\nid\"\n",
            "t.toml:2: unknown value `m id`; allowed: `capture` or",
        ),
        ("[source]\nsnapshot = 1\n", "t.toml:2: "),
        ("[source\n", "t.toml:1: "),
        ("a = 1\na = 2\n", "t.toml:2: duplicate key"),
        ("[http]\nlisten = \"127.0.0.1:1\"\n[http]\n", "t.toml:3: duplicate key"),
    ];
    for (text, wanted) in cases {
        let error = read(text).expect_err(text).to_string();
        assert!(error.starts_with(wanted), "{text:?} gave {error:?}");
        assert_eq!(error.lines().count(), 1, "{error:?}");
    }
}

#[test]
fn variables_fill_strings_and_a_doubled_dollar_escapes() {
    let config = read("[source]\nurl = \"p://u:${PW}@h/$${x}$PW\"\n").unwrap();
    assert_eq!(config.source.url.expose(), "p://u:hunter2 \"quoted\"@h/${x}$PW");
    let config = read("[http]\nlisten = \"127.0.0.1:${PORT}\"\n").unwrap();
    assert_eq!(config.http.listen.port(), 7000);
}

#[test]
fn no_mistake_repeats_a_secret() {
    let cases = [
        "[http]\nmax_rows = \"${PW}\"\n",
        "[log]\nformat = \"${PW}\"\n",
        "[log]\nlevel = \"a=b=${PW}\"\n",
        "[http]\nlisten = \"${PW}\"\n",
        "[[http.token]]\nname = \"x\"\nhash = \"${PW}\"\nscopes = []\n",
        "[source]\npublication = [\"${PW}\"]\n",
        "[kafka]\nlibrdkafka = \"sasl.password=hunter2\"\n",
        "[kafka.librdkafka]\n\"sasl.jaas.config\" = [\"x hunter2\"]\n",
    ];
    for text in cases {
        let error = format!("{:?}", read(text).expect_err(text));
        assert!(!error.contains("hunter2"), "{error}");
    }
    let config = read("[source]\nurl = \"postgres://u:${PW}@h/d\"\n").unwrap();
    assert!(!format!("{config:?}").contains("hunter2"));
}

#[test]
fn a_missing_file_is_a_sentence_with_its_name() {
    let error = Config::read(Path::new("no/such.toml"), &environment).expect_err("no such file");
    assert!(error.to_string().starts_with("no/such.toml: cannot be read"), "{error}");
}

#[test]
fn the_command_line_wins_over_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("c.toml");
    std::fs::write(&path, "[http]\nlisten = \"127.0.0.1:1\"\n[source]\nurl = \"postgres://f/f\"\n")
        .unwrap();
    let args = [
        "tailwater",
        "--config",
        path.to_str().unwrap(),
        "run",
        "--source",
        "postgres://c/c",
        "--listen",
        "127.0.0.1:2",
        "--data",
        "d",
    ];
    let cli = <Cli as clap::Parser>::try_parse_from(args).unwrap();
    let config = Config::load(&cli, &environment).unwrap();
    assert_eq!(config.source.url.expose(), "postgres://c/c");
    assert_eq!(config.http.listen.to_string(), "127.0.0.1:2");
    assert_eq!(config.embedded.path, Path::new("d"));
}

#[test]
fn a_public_listener_without_token_is_refused() {
    let args = ["tailwater", "run", "--source", "postgres://c/c", "--listen", "0.0.0.0:2"];
    let cli = <Cli as clap::Parser>::try_parse_from(args).unwrap();
    let error = Config::load(&cli, &environment).expect_err("unprotected").to_string();
    assert!(error.contains("0.0.0.0:2") && error.contains("[[http.token]]"), "{error}");
}

fn of(text: &str) -> Config {
    read(text).expect(text)
}

#[test]
fn every_section_lands_in_its_options() {
    let config = of(r#"
        [source]
        slot = "s"
        [kafka]
        prefix = "shop"
        librdkafka = { "sasl.password" = "${PW}", "linger.ms" = 7 }
        [clickhouse]
        database = "d"
        [clickhouse.tables."public.users"]
        name = "people"
        [embedded]
        path = "e"
        [[plugin]]
        name = "first"
        path = "1.wasm"
        config = { columns = ["email"] }
        [[plugin]]
        name = "second"
        path = "2.wasm"
        [http]
        listen = "127.0.0.1:1"
        [log]
        format = "json"
    "#);
    assert_eq!(config.source.slot, "s");
    assert_eq!(config.kafka.as_ref().unwrap().prefix.as_deref(), Some("shop"));
    assert_eq!(config.clickhouse.tables["public.users"].name.as_deref(), Some("people"));
    assert_eq!(config.embedded.path, Path::new("e"));
    let names: Vec<&str> = config.plugin.iter().map(|plugin| plugin.name.as_str()).collect();
    assert_eq!(names, ["first", "second"]);
    assert_eq!(config.log.format, logging::Format::Json);
    assert!(!format!("{config:?}").contains("hunter2"));
}

#[test]
fn without_a_file_there_is_no_kafka_and_the_engine_is_embedded() {
    let config = Config::default();
    assert!(config.kafka.is_none() && config.clickhouse.url.is_none());
    assert_eq!(config.embedded.path, Path::new("tailwater-data"));
    config.validate().unwrap();
}

#[test]
fn relative_paths_start_from_the_directory_of_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("c.toml");
    let text = r#"
        [embedded]
        library = "lib.so"
        [[plugin]]
        name = "a"
        path = "a.wasm"
        [[plugin]]
        name = "b"
        path = "/b.wasm"
        [kafka.librdkafka]
        "ssl.ca.location" = "ca.pem"
        "ssl.key.location" = "/key.pem"
        "ssl.crl.location" = "probe"
    "#;
    std::fs::write(&path, text).unwrap();
    let config = Config::read(&path, &environment).unwrap();
    let beside = |name: &str| folder.path().join(name);
    assert_eq!(config.embedded.path, beside("tailwater-data"));
    assert_eq!(config.embedded.library, Some(beside("lib.so")));
    assert_eq!(config.plugin[0].path, beside("a.wasm"));
    assert_eq!(config.plugin[1].path, Path::new("/b.wasm"));
    let settings = &config.kafka.unwrap().librdkafka;
    assert_eq!(settings["ssl.ca.location"].to_string(), beside("ca.pem").to_string_lossy());
    assert_eq!(settings["ssl.key.location"].to_string(), "/key.pem");
    assert_eq!(settings["ssl.crl.location"].to_string(), "probe");
}

#[test]
fn each_role_asks_for_what_it_needs() {
    let source = "[source]\nurl = \"postgres://u@h/shop\"\n";
    let met = [
        (source.to_owned(), Role::All),
        (format!("{source}[kafka]\n"), Role::All),
        (format!("{source}[kafka]\n"), Role::Capture),
        (format!("{source}[kafka]\n"), Role::Sink),
        ("[kafka]\nprefix = \"shop\"\n".to_owned(), Role::Sink),
        ("[kafka]\n[clickhouse]\ndatabase = \"shop\"\n".to_owned(), Role::Sink),
    ];
    for (text, role) in met {
        let config = of(&text);
        config.require(role).unwrap_or_else(|error| panic!("{text:?} for {role:?}: {error}"));
        assert_eq!(config.source_database().unwrap(), "shop");
    }
    let unmet = [
        (String::new(), Role::All, "no source database: give --source postgres://"),
        ("[kafka]\n".to_owned(), Role::Capture, "no source database: give --source"),
        (source.to_owned(), Role::Capture, "--role capture writes to Kafka, and there is no"),
        (source.to_owned(), Role::Sink, "--role sink reads from Kafka, and there is no"),
        (
            "[kafka]\n".to_owned(),
            Role::Sink,
            "without a source it is not known which topics to read: set `prefix`",
        ),
        ("[source]\nurl = \"postgres://u:${PW}@h:x/d\"\n".to_owned(), Role::All, "URL"),
    ];
    for (text, role, wanted) in unmet {
        let error = of(&text).require(role).expect_err(&text).to_string();
        assert!(error.contains(wanted), "{text:?} for {role:?} gave {error:?}");
        assert!(!error.contains("hunter2"), "{error}");
    }
}

#[test]
fn sections_that_do_not_fit_each_other_are_refused() {
    let plugin = "[[plugin]]\nname = \"x\"\npath = \"x.wasm\"\n";
    let token = format!("[[http.token]]\nname = \"x\"\nhash = \"{:064}\"\nscopes = []\n", 0);
    let cases = [
        (format!("{plugin}{plugin}"), "two [[plugin]] have the name `x`"),
        (
            format!("[[http.token]]\nname = \"\"\nhash = \"{:064}\"\nscopes = []\n", 0),
            "a [[http.token]] has an empty `name`; say whose it is",
        ),
        (plugin.replace("\"x\"", "\"\""), "a [[plugin]] has an empty `name`; give it one"),
        (token.repeat(2), "two [[http.token]] have the name `x`"),
        (
            format!("{token}{}", token.replace("\"x\"", "\"y\"")),
            "the [[http.token]] `x` and `y` have the same hash; make a token for each",
        ),
        (
            "[http]\nsql_max_rows = 0\n".to_owned(),
            "`[http] sql_max_rows` is a whole number, 1 or more",
        ),
        ("[http]\nsql_max_seconds = 0\n".to_owned(), "`[http] sql_max_seconds` is a whole"),
        ("[http]\nsql_max_memory_mb = 0\n".to_owned(), "`[http] sql_max_memory_mb` is a whole"),
        (
            "[kafka]\ntopics = \"shop\\\\..*\"\n".to_owned(),
            "is a regular expression and begins with `^`: not `shop\\..*`, but `^shop\\..*`",
        ),
        ("[kafka]\ntopics = \"\"\n".to_owned(), "`[kafka] topics` is empty; leave it out"),
        (
            "[http]\nlisten = \"0.0.0.0:2\"\n".to_owned(),
            "0.0.0.0:2 is not a loopback address, and without a token everybody",
        ),
        (
            "[kafka]\npartitions = 0\n".to_owned(),
            "`[kafka] partitions` is a whole number, 1 or more",
        ),
        ("[kafka]\npartitions = -1\n".to_owned(), "`[kafka] partitions`"),
        ("[kafka]\nreplication = 0\n".to_owned(), "`[kafka] replication` is 1 or more, or"),
        ("[kafka]\nbrokers = \" \"\n".to_owned(), "`[kafka] brokers` is empty"),
        ("[clickhouse]\nbatch_rows = 0\n".to_owned(), "`[clickhouse] batch_rows`"),
        (
            "[kafka]\nqueue_kbytes = 1\n".to_owned(),
            "max_message_bytes` is more than `queue_kbytes`",
        ),
        ("[clickhouse]\ncluster = \"c\"\n".to_owned(), "`[clickhouse] cluster` needs a server"),
        (
            "[clickhouse]\nurl = \"localhost:8123\"\n".to_owned(),
            "`[clickhouse] url` is the HTTP interface of a server: http://host:8123",
        ),
        ("[clickhouse]\nurl = \"https://h\"\n".to_owned(), "https is not supported"),
        ("[clickhouse]\nurl = \"http://u:hunter2@h\"\n".to_owned(), "keys of their own"),
        ("[clickhouse]\nurl = \"http://h?a=b\"\n".to_owned(), "[clickhouse.settings]"),
        ("[clickhouse.tables.users]\n".to_owned(), "`public.users`"),
        ("[source]\ntables = [\"users\"]\n".to_owned(), "`[source] tables`"),
        ("[source]\nexclude = [\"users\"]\n".to_owned(), "`public.users`"),
    ];
    for (text, wanted) in cases {
        let error = of(&text).validate().expect_err(&text).to_string();
        assert!(error.contains(wanted), "{text:?} gave {error:?}");
        assert!(!error.contains("hunter2"), "{error}");
    }
}

#[test]
fn a_pattern_of_topics_begins_with_its_sign_and_one_topic_needs_none() {
    for topics in ["^shop\\\\.public\\\\..*", "shop.public.users", "my-shop_1.public.users"] {
        of(&format!("[kafka]\ntopics = \"{topics}\"\n")).validate().expect(topics);
    }
}

#[test]
fn a_command_reads_no_more_settings_than_it_needs() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("c.toml");
    let text = "[http]\nlisten = \"127.0.0.1:${PORT}\"\n[source]\nurl = \"${NOPE}\"\n";
    std::fs::write(&path, text).unwrap();
    let load = |arguments: &[&str]| {
        let begins = ["tailwater", "--config", path.to_str().unwrap()];
        let cli = <Cli as clap::Parser>::try_parse_from([&begins, arguments].concat()).unwrap();
        Config::load_for(&cli, &environment).map(|config| config.http.listen.port())
    };
    for asking in
        [&["status"][..], &["dlq", "list"], &["snapshot", "a.b"], &["plugin", "reload", "x"]]
    {
        assert_eq!(load(asking).unwrap(), 7000, "{asking:?}");
        let url = [asking, &["--url", "http://h"]].concat();
        assert_eq!(load(&url).unwrap(), 7447, "{url:?}");
    }
    assert_eq!(load(&["token", "new"]).unwrap(), 7447);
    for offline in ["build", "inspect", "test", "bench"] {
        assert_eq!(load(&["plugin", offline]).unwrap(), 7447, "{offline}");
    }
    for all in [&["run"][..], &["check"], &["snapshot", "a.b", "--replace"], &["embedded", "fetch"]]
    {
        let error = load(all).expect_err("the whole file").to_string();
        assert!(error.contains("`NOPE` is not set"), "{all:?}: {error}");
    }
}

#[test]
fn names_and_urls_of_another_form_are_shown_the_right_one() {
    for (text, wanted) in [
        ("[clickhouse]\nurl = \"http://h:1/?a=1\"\n", "settings belong into [clickhouse.settings]"),
        (
            "[source]\ntables = [\"users\"]\n",
            "`[source] tables` names tables as schema.table: not `users`, but `public.users`",
        ),
    ] {
        let error = read(text).expect(text).validate().expect_err(text).to_string();
        assert!(error.contains(wanted), "{error}");
    }
}

#[test]
fn patterns_are_held_against_tables_only_where_these_are_known() {
    let plugin = |name: &str, stage: &str| {
        format!(
            "[[plugin]]\nname = \"{name}\"\npath = \"p.wasm\"\nstage = \"{stage}\"\n\
             tables = [\"public.user\"]\n"
        )
    };
    let plugins = plugin("a", "capture") + &plugin("b", "sink");
    let idle = |more: &str, role| {
        let config = read(&format!("{more}\n{plugins}")).unwrap();
        let table = TableName { schema: "public".into(), name: "users".into() };
        let found = config.idle_patterns(role, &[table]);
        found.into_iter().map(|(plugin, _)| plugin.to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(idle("", Role::All), ["a", "b"]);
    assert_eq!(idle("[kafka]", Role::All), ["a", "b"]);
    assert_eq!(idle("[kafka]\ntopics = \"^debezium\"", Role::All), ["a"]);
    assert_eq!(idle("[kafka]", Role::Capture), ["a"]);
    assert_eq!(idle("[kafka]", Role::Sink), [""; 0]);
}

#[test]
fn sections_of_tables_are_held_against_those_that_are_copied_where_these_are_known() {
    let sections = "[clickhouse.tables.\"public.users\"]\n[clickhouse.tables.\"public.user\"]\n";
    let idle = |more: &str, role| {
        let config = read(&format!("{more}\n{sections}")).unwrap();
        let table = TableName { schema: "public".into(), name: "users".into() };
        config.idle_tables(role, &[table]).join(" ")
    };
    assert_eq!(idle("", Role::All), "public.user");
    assert_eq!(idle("[kafka]", Role::All), "public.user");
    assert_eq!(idle("[kafka]\ntopics = \"^debezium\"", Role::All), "");
    assert_eq!(idle("[kafka]", Role::Capture), "");
    assert_eq!(idle("[kafka]", Role::Sink), "");
}

#[test]
fn a_sink_does_not_hear_of_what_the_capture_sets_aside_of_its_tables_beyond_kafka() {
    let unheard = |mask: &str, dedup: &str, more: &str| {
        let section = |name: &str, settings: &str| {
            format!("[[plugin]]\nname = \"{name}\"\npath = \"p.wasm\"\n{settings}\n")
        };
        let text = format!("{more}\n{}{}", section("mask", mask), section("dedup", dedup));
        let config = read(&text).unwrap();
        config.unheard_by(&config.plugin[1]).join(" ")
    };
    let sink = "stage = \"sink\"";
    assert_eq!(unheard("", sink, "[kafka]"), "mask");
    let on = |table: &str| format!("tables = [\"public.{table}\"]");
    assert_eq!(unheard(&on("users"), &format!("{sink}\n{}", on("users")), "[kafka]"), "mask");
    assert_eq!(unheard(&on("users"), &format!("{sink}\n{}", on("orders")), "[kafka]"), "");
    assert_eq!(unheard("on_error = \"halt\"", sink, "[kafka]"), "");
    assert_eq!(unheard(sink, sink, "[kafka]"), "", "one leg");
    assert_eq!(unheard("", "", "[kafka]"), "", "one leg");
    assert_eq!(unheard("", sink, ""), "", "without Kafka there is one leg");
}
