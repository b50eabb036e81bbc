//! The time of day. A batch's commit times ([`Row::committed_at`](crate::Row::committed_at)) are the
//! same on every replay; this is not.

/// Microseconds since the Unix epoch; needs `grants = ["clock"]`.
#[must_use]
pub fn now() -> i64 {
    #[cfg(target_family = "wasm")]
    return crate::bindings::granted::tailwater::plugin::clock::now();
    #[cfg(not(target_family = "wasm"))]
    {
        use std::time::{SystemTime, UNIX_EPOCH};
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
    }
}
