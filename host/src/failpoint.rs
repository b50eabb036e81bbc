//! Named places on the way of a change where a test lets the process die, as a power cut would:
//! `TAILWATER_FAILPOINT=after_send:3` is the third passage of `after_send`, so that the same test
//! dies the same death each time. With `TAILWATER_FAILPOINT_HOLD=FILE` it is held there instead: it makes the
//! file, and goes on once somebody has removed it. A release build has none of this: [`pass`] is empty there.

/// Every name, in the order of the steps; `tests/places.rs` holds it against the calls of [`pass`].
pub const NAMES: [&str; 19] = [
    "during_snapshot",
    "after_prepare",
    "during_swap",
    "during_token_reload",
    "before_send",
    "after_send",
    "before_commit",
    "after_commit",
    "before_alter",
    "after_alter",
    "before_store",
    "after_store",
    "before_keep",
    "after_keep",
    "before_closing",
    "before_redriven",
    "after_redriven",
    "before_slot_advance",
    "before_offset_commit",
];

/// The process passes the place of that name.
#[cfg(not(debug_assertions))]
#[inline(always)]
pub fn pass(_: &'static str) {}

/// The process passes the place of that name, and does not get farther if this is where it ends.
#[cfg(debug_assertions)]
pub fn pass(name: &'static str) {
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU32, Ordering};

    static CHOSEN: OnceLock<Option<(String, AtomicU32)>> = OnceLock::new();
    let chosen = CHOSEN.get_or_init(|| {
        let text = std::env::var("TAILWATER_FAILPOINT").ok()?;
        let (name, passage) = text.split_once(':')?;
        Some((name.to_owned(), AtomicU32::new(passage.parse().ok()?)))
    });
    if let Some((chosen, left)) = chosen
        && chosen == name
        && left.fetch_sub(1, Ordering::Relaxed) == 1
    {
        if let Ok(file) = std::env::var("TAILWATER_FAILPOINT_HOLD") {
            hold(std::path::Path::new(&file));
            return;
        }
        let this = rustix::process::getpid();
        let killed = rustix::process::kill_process(this, rustix::process::Signal::KILL);
        unreachable!("SIGKILL to the own process returned {killed:?}");
    }
}

/// Only a place on a thread of its own is one to be held at.
#[cfg(debug_assertions)]
fn hold(file: &std::path::Path) {
    std::fs::write(file, "").expect("a test names a file that can be made");
    while file.exists() {
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
}
