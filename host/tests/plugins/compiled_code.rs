//! The cache of compiled code.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use tailwater::plugin::{Role, Runtime, inspect};
use tailwater_test_support::Scratch;

use crate::chains::{load, options, plugin_file};

fn runtime(cache: &Path) -> Runtime {
    Runtime::new(Some(cache.to_owned())).expect("this machine runs WebAssembly")
}

fn files(cache: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(cache).expect("the cache");
    entries.map(|entry| entry.expect("an entry").path()).collect()
}

/// A second engine that takes the only cached code, although the file of the plugin is another's.
fn is_taken(cache: &Path) -> bool {
    let [code] = &files(cache)[..] else { panic!("one file of code") };
    let before = fs::metadata(code).expect("its metadata").modified().expect("a time");
    inspect(&runtime(cache), &plugin_file("mask-email")).expect("a plugin");
    let after = fs::metadata(code).expect("its metadata").modified().expect("a time");
    before == after
}

#[test]
fn code_is_compiled_once_and_private() {
    let scratch = Scratch::new("code").expect("a directory");
    let cache = scratch.join("cache");
    inspect(&runtime(&cache), &plugin_file("mask-email")).expect("a plugin");
    let mode = fs::metadata(&cache).expect("it was made").permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
    assert!(is_taken(&cache));
    inspect(&runtime(&cache), &plugin_file("filter-rows")).expect("a plugin");
    assert_eq!(files(&cache).len(), 2, "each plugin has its own");
}

#[test]
fn damaged_code_is_compiled_again() {
    let scratch = Scratch::new("code").expect("a directory");
    let cache = scratch.join("cache");
    inspect(&runtime(&cache), &plugin_file("mask-email")).expect("a plugin");
    let code = files(&cache).pop().expect("its code");
    let whole = fs::read(&code).expect("its code");
    let mut damaged = whole.clone();
    damaged[whole.len() / 2] ^= 1;
    for content in [&damaged[..], &whole[..whole.len() / 2], b""] {
        fs::write(&code, content).expect("a damaged file");
        inspect(&runtime(&cache), &plugin_file("mask-email")).expect("a plugin");
        assert!(fs::read(&code).expect("its code") == whole, "it was not replaced");
    }
}

#[test]
fn code_that_others_can_write_is_not_run() {
    let scratch = Scratch::new("code").expect("a directory");
    let cache = scratch.join("cache");
    let role = |plugin| inspect(&runtime(&cache), &plugin_file(plugin)).expect("a plugin").role;
    assert_eq!(role("mask-email"), Role::Transform);
    let code = files(&cache).pop().expect("its code");
    assert_eq!(role("drop-duplicates"), Role::Dedup);
    let other = files(&cache).into_iter().find(|file| *file != code).expect("its code");
    fs::copy(other, &code).expect("a copy");
    assert_eq!(role("mask-email"), Role::Dedup, "what lies there is run");
    fs::set_permissions(&cache, fs::Permissions::from_mode(0o777)).expect("it is ours");
    assert_eq!(role("mask-email"), Role::Transform);
    assert_eq!(files(&cache).len(), 2, "and nothing is written there");
}

#[test]
fn code_that_stands_in_for_a_plugin_is_not_run() {
    let scratch = Scratch::new("code").expect("a directory");
    let cache = scratch.join("cache");
    inspect(&runtime(&cache), &plugin_file("mask-email")).expect("a plugin");
    let code = fs::read(files(&cache).pop().expect("its code")).expect("its code");
    assert!(is_taken(&cache), "as it is it runs");
    let file = scratch.join("it.cwasm");
    let checksum = 32;
    for content in [&code[..], &code[..code.len() - checksum]] {
        fs::write(&file, content).expect("a file");
        let Err(error) = load(vec![options(&file, "")]) else { panic!("it was loaded") };
        let expected = format!(
            "{} is not a WebAssembly component; make one of a core module with `wasm-tools \
             component new`",
            file.display()
        );
        assert_eq!(error.to_string(), expected);
    }
}
