//! Counters on the host's metrics page.

use crate::bindings::transform::tailwater::plugin::metrics as host;

/// Adds to a counter of the plugin's own; see `wit/metrics.wit` for what names may be. In a native
/// test it does nothing.
pub fn add(counter: &str, delta: u64) {
    if cfg!(target_family = "wasm") {
        host::add(counter, delta);
    }
}
