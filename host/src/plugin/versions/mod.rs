//! The versions of a plugin's code: from a file to one that runs, and how the next one takes its place.
//!
//! A start needs the first three: the runtime, what was compiled before, and the loader, which makes of a
//! file an instance that is ready for its first batch. Then each plugin has a thread, the reloader, which
//! watches the file. What it loads is tried on golden events, by `shadow` on the last batches, and laid into
//! the handover, where the chain finds it: `chain/member/probation.rs` lets it take over, and takes it back.
//! What was taken back is in quarantine.

mod runtime;

mod compiled;

mod loader;

mod reloader;

mod shadow;

mod handover;

mod quarantine;

mod running;

mod on_request;

pub use compiled::compiled_code;
pub(crate) use handover::Handover;
pub use loader::{Inspection, Rehearsal, inspect, rehearse};
pub(crate) use loader::{Loaded, Loader, Version, load_all};
pub use on_request::Reloads;
pub(crate) use quarantine::settings;
pub use reloader::Reloaded;
pub(crate) use reloader::{Asks, Watch, follow, watch};
pub use running::{PluginStatus, Versions};
pub use runtime::Runtime;
pub(crate) use shadow::Seen;
pub use shadow::{Differing, How, Shadow};
