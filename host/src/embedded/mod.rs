//! The embedded ClickHouse engine: `libchdb` behind ClickHouse's HTTP interface, in a child process.
//!
//! The child is this program once more (`tailwater __clickhouse`), because an engine that crashes, or
//! is told `SYSTEM SHUTDOWN`, takes its process along. Everything else talks to it exactly as to a
//! ClickHouse server.
//!
//! ```text
//! engine    the parent's side: starts the child, keeps it alive
//! process   the child: loads the library, opens the data, serves
//! server    connections and requests     request, upload   what comes in
//! run       one statement                answer, header    what goes out
//! library   the C interface          write             ends the process when the disk fails
//!                                    merges            gives the engine's merges a low priority
//! ```

mod answer;
mod block;
mod engine;
mod error;
mod fetch;
#[cfg(fuzzing)]
pub mod fuzzing;
mod header;
mod library;
mod locate;
mod merges;
mod options;
mod process;
mod refusal;
mod request;
mod run;
mod running;
mod server;
mod statement;
mod upload;
mod write;

pub use engine::Engine;
pub use error::Error;
pub use fetch::fetch;
pub use locate::find_library;
pub use options::Options;
pub use process::serve;
