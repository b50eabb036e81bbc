use super::*;

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
        ("[log]\nlevel = \"lo=ud=er\"\n", "t.toml:2: "),
        ("[http]\nlisten = 7\n", "t.toml:2: invalid type: integer `7`; allowed: "),
        ("[http]\nlisten = \"nowhere\"\n", "t.toml:2: "),
        (
            "[http]\nmax_rows = \"many\"\n",
            "t.toml:2: invalid type: string \"many\"; allowed: a whole",
        ),
        ("[http]\nmax_rows = -1\n", "t.toml:2: "),
        ("[[http.token]]\nname = \"x\"\nscopes = []\n", "t.toml:1: the key `hash` is missing"),
        ("[[http.token]]\nname = \"x\"\nhash = \"12\"\n", "t.toml:3: "),
        ("[http]\n[[http.token]]\nscopes = [\"everything\"]\n", "t.toml:3: unknown scope"),
        ("[source]\nurl = \"${NOPE}\"\n", "t.toml:2: the environment variable `NOPE` is not set"),
        ("[source]\nurl = \"a${b\"\n", "t.toml:2: `${` without its `}`"),
        ("[source]\nurl = \"${b c}\"\n", "t.toml:2: between `${` and `}`"),
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
    assert_eq!(config.data.as_deref(), Some(Path::new("d")));
    assert_eq!(config.resolve(Path::new("p.wasm")), folder.path().join("p.wasm"));
}

#[test]
fn a_public_listener_without_token_is_refused() {
    let args = ["tailwater", "run", "--source", "postgres://c/c", "--listen", "0.0.0.0:2"];
    let cli = <Cli as clap::Parser>::try_parse_from(args).unwrap();
    let error = Config::load(&cli, &environment).expect_err("unprotected").to_string();
    assert!(error.contains("0.0.0.0:2") && error.contains("[[http.token]]"), "{error}");
}

#[test]
fn capturing_needs_a_source() {
    let config = Config::default();
    assert!(config.require(Role::Sink).is_ok());
    let error = config.require(Role::All).expect_err("no source").to_string();
    assert!(error.contains("--source"), "{error}");
}
