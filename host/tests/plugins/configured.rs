//! What a `[[plugin]]` section can get wrong: one clear sentence each.

use std::fs;
use std::path::Path;

use tailwater::plugin::{self, Error, Role};
use tailwater_test_support::{Scratch, guests};

use crate::chains::{RUNTIME, load, options, plugin_file};

/// The contract's other functions, for worlds that differ in one.
const PLUGIN: &str = "
    export init: func(config: string) -> result<_, string>;
    export subscribe: func(table: table) -> result<option<interest>, string>;";

fn sentence(path: &Path, settings: &str) -> String {
    let Err(error) = load(vec![options(path, settings)]) else { panic!("it was loaded") };
    let chain: Vec<String> = sources(&error).collect();
    assert!(!chain.is_empty() || !matches!(error, Error::NotAComponent { .. }));
    error.to_string()
}

fn sources(error: &Error) -> impl Iterator<Item = String> {
    let first = std::error::Error::source(error);
    std::iter::successors(first, |error| error.source()).map(ToString::to_string)
}

/// What is said about a file of that content.
fn of_file(content: &[u8]) -> String {
    of_file_with(content, "")
}

fn of_file_with(content: &[u8], settings: &str) -> String {
    let scratch = Scratch::new("plugin").expect("a directory");
    let path = scratch.join("it.wasm");
    fs::write(&path, content).expect("a file");
    let sentence = sentence(&path, settings);
    let shown = path.display().to_string();
    sentence.replace(&shown, "it.wasm")
}

fn of_world(wit: &str) -> String {
    of_file(&guests::component_of(wit, "it").expect("a component"))
}

/// A world `it` of our own package, whose types are the contract's.
fn of_contract(functions: &str) -> String {
    of_world(&format!("{}\nworld it {{ use types.{{table, interest}}; {functions} }}", types()))
}

fn types() -> String {
    let file = tailwater_test_support::workspace_root().join("wit/types.wit");
    fs::read_to_string(file).expect("the contract")
}

/// What is said about a transform that imports this function of an interface, and is granted everything.
fn of_import(interface: &str, function: &str) -> String {
    let wit = format!(
        "{}\ninterface {interface} {{ {function}; }}
        world it {{
            use types.{{table, interest, batch, patch}};
            import {interface};
            {PLUGIN}
            export process: func(batch: batch) -> result<patch, string>;
        }}",
        types()
    );
    let component = guests::component_of(&wit, "it").expect("a component");
    of_file_with(&component, "grants = ['clock', 'state']")
}

#[test]
fn a_missing_file_is_named() {
    let sentence = sentence(Path::new("nowhere/it.wasm"), "");
    assert_eq!(sentence, "plugin file nowhere/it.wasm cannot be read; check `path`");
}

#[test]
fn of_several_files_that_are_missing_the_first_is_named() {
    let missing = |number| options(Path::new(&format!("nowhere/it-{number}.wasm")), "");
    let good = options(&plugin_file("mask-email"), "");
    let plugins = std::iter::once(good).chain((0..8).map(missing)).collect();
    let Err(error) = load(plugins) else { panic!("they were loaded") };
    assert_eq!(error.to_string(), "plugin file nowhere/it-0.wasm cannot be read; check `path`");
}

#[test]
fn plugins_stand_in_the_order_of_the_configuration() {
    let names = ["mask-email-go", "filter-rows", "mask-email", "drop-duplicates", "mask-email-c"];
    let settings = |name| match name {
        "filter-rows" => "config = { where = [{ column = 'id', value = 1 }] }",
        _ => "",
    };
    let plugins = names.map(|name| options(&plugin_file(name), settings(name)));
    let loaded = load(plugins.to_vec()).expect("they load");
    let statuses = loaded.chain.versions().list();
    let order: Vec<&str> = statuses.iter().map(|status| status.name.as_str()).collect();
    assert_eq!(order, names);
}

#[test]
fn what_is_no_component_is_told_apart() {
    let hint = "it.wasm is not a WebAssembly component; make one of a core module with \
                `wasm-tools component new`";
    assert_eq!(of_file(b""), hint);
    assert_eq!(of_file(b"#!/bin/sh\necho plugin\n"), hint);
    assert_eq!(of_file(b"\0asm\x01\0\0\0"), hint, "a core module");
    let whole = fs::read(plugin_file("mask-email")).expect("the plugin");
    assert_eq!(of_file(&whole[..whole.len() / 2]), hint, "half of a file");
    let mut corrupt = whole;
    let middle = corrupt.len() / 2;
    corrupt[middle - 2000..middle].fill(0xFF);
    assert_eq!(of_file(&corrupt), hint, "corrupt bytes");
}

#[test]
fn imports_that_are_not_granted_are_named() {
    let sentence = of_world(
        "package my:plugin; interface clock { now: func() -> u64; } world it { import clock; }",
    );
    let expected = "it.wasm imports my:plugin/clock, which plugins are not given; build it without \
                    WASI (Rust: wasm32-unknown-unknown, componentize-py: --stub-wasi)";
    assert_eq!(sentence, expected);
}

#[test]
fn what_its_section_does_not_grant_is_named_with_the_line_that_does() {
    let sentence = of_world(
        "package tailwater:plugin@0.1.0; interface clock { now: func() -> s64; } \
         world it { import clock; }",
    );
    let expected = "it.wasm imports `clock`, which it is not granted; add grants = [\"clock\"] to its \
                    section if it may have it";
    assert_eq!(sentence, expected);
}

#[test]
fn a_component_of_another_world_is_told_what_differs() {
    let begin = "it.wasm implements no world of tailwater:plugin@0.1.0: ";
    let said = |functions: &str| {
        let sentence = of_contract(functions);
        assert!(sentence.starts_with(begin), "{sentence}");
        let end = "; `tailwater plugin inspect` shows all that differs";
        sentence[begin.len()..].strip_suffix(end).expect("the end").to_owned()
    };
    assert_eq!(said("export go: func();"), "it does not export `init`, `subscribe`");
    assert_eq!(said(PLUGIN), "it exports none of `process`, `rewrite` and `keys`");
    let both = "export process: func(); export keys: func();";
    assert_eq!(said(&format!("{PLUGIN}{both}")), "it exports both `process` and `keys`");
    let alone = said(&format!("{PLUGIN} export rewrite: func();"));
    assert_eq!(alone, "it exports `rewrite` without `reshape`");
    let differs = said(&format!("{PLUGIN} export process: func(rows: u32) -> u32;"));
    assert!(differs.starts_with("`process` differs: "), "{differs}");
}

#[test]
fn what_a_component_imports_is_compared_with_the_contract() {
    let cases = [
        ("clock", "now: func() -> s64", "now: func() -> u64"),
        ("metrics", "add: func(counter: string, delta: u64)", "add: func(counter: string)"),
        (
            "state",
            "get: func(keys: list<string>) -> list<option<string>>",
            "get: func(keys: list<string>) -> list<string>",
        ),
    ];
    for (interface, of_contract, other) in cases {
        let said = of_import(interface, of_contract);
        assert!(said.starts_with("plugin it does not start: "), "its functions trap: {said}");
        let said = of_import(interface, other);
        let begin = "it.wasm implements no world of tailwater:plugin@0.1.0: ";
        let import = format!("`tailwater:plugin/{interface}@0.1.0`");
        assert!(said.starts_with(begin) && said.contains(&import), "{said}");
    }
}

#[test]
fn a_config_that_does_not_fit_is_explained() {
    let said = sentence(&plugin_file("mask-email"), "config = { colums = ['email'] }");
    assert_eq!(
        said,
        "plugin mask-email does not start: config: unknown field `colums`, expected `columns` at \
         line 1 column 9; check its `config`"
    );
    let said = sentence(&plugin_file("filter-rows"), "config = { where = [] }");
    let expected =
        "plugin filter-rows does not start: `where` has no condition; check its `config`";
    assert_eq!(said, expected);
}

/// What a plugin in any language says of a config, without what goes around it.
fn refusal(plugin: &str, config: &str) -> String {
    let settings = format!("deadline_ms = 20000\nmemory_mb = 256\nconfig = {{ {config} }}");
    let said = sentence(&plugin_file(plugin), &settings);
    let begin = format!("plugin {plugin} does not start: ");
    let reason =
        said.strip_prefix(&begin).and_then(|rest| rest.strip_suffix("; check its `config`"));
    reason.unwrap_or_else(|| panic!("{said}")).to_owned()
}

#[test]
fn plugins_in_every_language_say_what_is_wrong_with_their_config() {
    let cases = [
        ("mask", "rules = [{ columns = ['a'], by = 'hash' }]", "needs `key`, a secret of 16 bytes"),
        ("filter-expression", "where = 'a +'", "`where` is no expression: invalid syntax"),
        ("filter-expression", "where = 'len(a) > 1'", "`len(a)` is no part of an expression"),
        (
            "filter-expression",
            "where = 'a > 1 and \"x\"'",
            "`\"x\"` is text where boolean is expected",
        ),
        ("filter-expression", "were = 'a > 1'", "`where` is the only setting"),
        ("drop-no-op", "ignore = ['[']", "`[` in `ignore` is no pattern"),
        ("drop-no-op", "ignored = []", "unknown field \"ignored\""),
        ("sample", "percent = 101", "`percent` is a number above 0 and up to 100"),
        ("sample", "columns = []", "`columns` is a list of column names"),
        ("sample", "part = 1", "unknown field `part`"),
        ("mask-email-py", "columns = 'email'", "`columns` is a list of column names"),
        ("mask-email-py", "columns = ['email', 1]", "`columns` is a list of column names"),
        ("mask-email-py", "column = ['email']", "unknown field `column`"),
        ("mask-email-js", "columns = 'email'", "`columns` is a list, of which each is a text"),
        ("mask-email-js", "columns = ['email', 1]", "`columns` is a list, of which each is a text"),
        ("mask-email-c", "columns = 'email'", "`columns` is a list of column names"),
        ("mask-email-go", "columns = 'email'", "config: "),
        ("mask-email", "columns = 'email'", "config: "),
    ];
    for (plugin, config, expected) in cases {
        let reason = refusal(plugin, config);
        assert!(reason.contains(expected), "{plugin} with {config}: {reason}");
    }
}

#[test]
fn a_pattern_that_is_no_table_is_explained() {
    let said = sentence(&plugin_file("mask-email"), "tables = ['public.user*']");
    assert_eq!(
        said,
        "plugin mask-email: `public.user*` in `tables` is no table; write `users`, `public.users` \
         or `public.*`, without quotes"
    );
}

#[test]
fn a_pinned_digest_is_that_of_the_file_in_either_case() {
    let file = plugin_file("mask-email");
    let digest = plugin::inspect(&RUNTIME, &file).expect("a plugin").digest;
    let upper = digest.to_uppercase();
    assert_ne!(upper, digest);
    for pinned in [&digest, &upper] {
        load(vec![options(&file, &format!("digest = '{pinned}'"))]).expect("it is that file");
    }
}

#[test]
fn a_name_is_taken_once() {
    let options = || options(&plugin_file("mask-email"), "");
    let Err(error) = load(vec![options(), options()]) else { panic!("both were loaded") };
    assert_eq!(error.to_string(), "two plugins are named mask-email; give each its own `name`");
}

#[test]
fn a_component_can_be_inspected_without_running_it() {
    let found = plugin::inspect(&RUNTIME, &plugin_file("drop-duplicates")).expect("a plugin");
    assert_eq!(found.role, Role::Dedup);
    assert_eq!(found.digest.len(), 64);
    assert!(found.imports.iter().all(|import| import.starts_with("tailwater:plugin/")));
}
