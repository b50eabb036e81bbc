//! An engine that cannot start says why, and what to do about it.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use tailwater::embedded::{Engine, Options};
use tailwater_test_support::{Scratch, binary, setup};
use tokio::runtime::Runtime;

/// The engine's functions, of which only the version is asked before it is judged.
const FUNCTIONS: [&str; 23] = [
    "set_signal_handlers_enabled",
    "connect",
    "close_conn",
    "classify_query_n",
    "query_with_params_n",
    "stream_query_with_params_n",
    "stream_fetch_result",
    "stream_cancel_query",
    "stream_insert_with_params_n",
    "stream_append",
    "stream_done",
    "stream_insert_error",
    "destroy_insert_stream",
    "destroy_query_result",
    "result_buffer",
    "result_length",
    "result_elapsed",
    "result_rows_read",
    "result_storage_rows_read",
    "result_storage_bytes_read",
    "result_rows_written",
    "result_bytes_written",
    "result_error",
];

/// A library of the engine's interface that is of an older version.
fn old_library(scratch: &Scratch) -> PathBuf {
    let names = FUNCTIONS.map(|name| format!("void chdb_{name}(void) {{}}\n"));
    let code =
        format!("{}const char *chdb_version(void) {{ return \"25.8.1\"; }}\n", names.concat());
    let (file, library) = (scratch.join("old.c"), scratch.join("old.so"));
    fs::write(&file, code).expect("a file");
    let mut compiler = Command::new("cc");
    compiler.args(["-shared", "-fPIC", "-o"]).arg(&library).arg(&file);
    assert!(compiler.status().expect("cc runs").success(), "the old library does not compile");
    library
}

/// Why an engine with its data in `data`, and else these settings, does not start.
fn refusal(data: &Path, settings: Options) -> String {
    let program = settings.program.or_else(|| Some(binary().expect("the program")));
    let options = Options { path: data.to_owned(), program, ..settings };
    let started = Runtime::new().expect("a runtime").block_on(Engine::start(options));
    let error = anyhow::Error::new(started.expect_err("it does not start"));
    let said = format!("{error:#}");
    assert_eq!(said.lines().count(), 1, "{said}");
    said
}

#[test]
fn an_engine_that_cannot_start_says_why() {
    let scratch = Scratch::new("starts").expect("a directory");
    let (data, nowhere) = (scratch.join("data"), scratch.join("nowhere.so"));
    let library = setup::chdb_library().expect("the library");
    let with = |library: &Path| Options { library: Some(library.to_owned()), ..Options::default() };
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = taken.local_addr().expect("an address").port();
    let run_by = |program: &str| Options { program: Some(program.into()), ..with(&library) };
    fs::write(scratch.join("file"), "no directory").expect("a file");
    let inside_a_file = scratch.join("file/data");
    let (small, foreign) = (scratch.join("small"), scratch.join("foreign"));
    let on_a_full_disk = scratch.join("on-a-full-disk");
    let program = binary().expect("the program");
    let script = format!("#!/bin/sh\nulimit -f 0\nexec {} \"$@\"\n", program.display());
    fs::write(&on_a_full_disk, script).expect("a script");
    fs::set_permissions(&on_a_full_disk, fs::Permissions::from_mode(0o700)).expect("a script");
    fs::create_dir_all(foreign.join("metadata")).expect("a directory");
    fs::write(foreign.join("metadata/x.sql"), "no statement").expect("a file");
    let cases = [
        (
            &small,
            run_by(on_a_full_disk.to_str().expect("a plain path")),
            format!("the embedded engine cannot write to {}; make room", small.display()),
        ),
        (
            &foreign,
            with(&library),
            format!("the engine does not open {}; its reason", foreign.display()),
        ),
        (
            &data,
            with(&nowhere),
            format!("is not on this machine (looked for {}); get it", nowhere.display()),
        ),
        (&data, with(&scratch.join("file")), "is not the engine's library; get it anew".to_owned()),
        (
            &data,
            with(&old_library(&scratch)),
            "old.so has version 25.8.1, which cannot take rows safely".to_owned(),
        ),
        (
            &inside_a_file,
            with(&library),
            "for the embedded engine's data: Not a directory".to_owned(),
        ),
        (
            &data,
            Options { port, ..with(&library) },
            format!("cannot listen on 127.0.0.1:{port}; choose another port"),
        ),
        (
            &data,
            run_by("/no/such/program"),
            "cannot start the embedded engine's process: No such file".to_owned(),
        ),
        (
            &data,
            run_by("/bin/false"),
            "the embedded engine's process ended with exit status: 1 before".to_owned(),
        ),
    ];
    for (data, settings, wanted) in cases {
        let said = refusal(data, settings);
        assert!(said.contains(&wanted), "{wanted}: {said}");
    }
}

#[test]
fn what_the_engine_keeps_is_for_its_user_alone() {
    let scratch = Scratch::new("starts").expect("a directory");
    let data = scratch.join("a/data");
    let library = Some(setup::chdb_library().expect("the library"));
    let program = Some(binary().expect("the program"));
    let options = Options { path: data.clone(), program, library, ..Options::default() };
    let runtime = Runtime::new().expect("a runtime");
    let engine = runtime.block_on(Engine::start(options)).expect("it starts");
    runtime.block_on(engine.shutdown());
    let mode = fs::metadata(&data).expect("the directory").permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
}

/// Whoever calls the engine's hidden command by hand.
#[test]
fn arguments_of_the_engines_process_that_make_no_sense_are_said() {
    let mut program = Command::new(binary().expect("the program"));
    let output = program.args(["__clickhouse", "--pat", "x"]).output().expect("it runs");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.starts_with("failed `tailwater __clickhouse`: error: unexpected"), "{said}");
    assert!(!output.status.success());
    let parent = std::process::id().to_string();
    for (parent, wanted) in [
        (&*parent, "set TAILWATER_CLICKHOUSE_PASSWORD to the password to ask for"),
        ("1", "the process that started this one is gone"),
    ] {
        let mut program = Command::new(binary().expect("the program"));
        program.args(["__clickhouse", "--path", "x", "--parent", parent]);
        let output = program.env_remove("TAILWATER_CLICKHOUSE_PASSWORD").output().expect("it runs");
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(said.contains(wanted), "{said}");
    }
}

/// A bare service: neither a home nor a cache.
#[test]
fn a_fetch_without_a_place_to_keep_the_library_says_what_to_set() {
    let mut program = Command::new(binary().expect("the program"));
    let output = program.env_clear().args(["embedded", "fetch"]).output().expect("it runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("no directory to keep the engine's library in; set TAILWATER"), "{said}");
    assert!(!output.status.success());
    let scratch = Scratch::new("fetch").expect("a directory");
    let mut program = Command::new(binary().expect("the program"));
    program.env_clear().env("TAILWATER_CACHE", scratch.path()).env("PATH", scratch.path());
    let output = program.args(["embedded", "fetch"]).output().expect("it runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("curl does not run: No such file"), "{said}");
}
