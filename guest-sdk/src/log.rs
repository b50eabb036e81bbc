//! Lines for the operator's log. They never hold a row's values.

use crate::bindings::transform::tailwater::plugin::log as host;

pub use host::Level;

/// Writes a line. In a native test it goes to standard error.
pub fn write(level: Level, message: &str) {
    if cfg!(target_family = "wasm") {
        host::write(level, message);
    } else {
        eprint(level, message);
    }
}

#[expect(clippy::print_stderr, reason = "a native test has no host to log to")]
fn eprint(level: Level, message: &str) {
    eprintln!("{level:?}: {message}");
}
