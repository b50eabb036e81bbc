//! What can go wrong between here and a running engine.

use std::io;
use std::path::PathBuf;
use std::process::ExitStatus;

use crate::disposition::Disposition;

/// An error of the embedded engine, from finding its library to keeping its process alive. What goes
/// wrong with a statement is not here: the engine answers it over HTTP.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The library is nowhere.
    #[error(
        "the embedded ClickHouse engine is not on this machine (looked for {}); \
         get it with `tailwater embedded fetch` (178 MB), or name a ClickHouse server in `[clickhouse] url`",
        shown(.looked)
    )]
    NoLibrary {
        /// Where it could have been.
        looked: Vec<PathBuf>,
    },
    /// No place to keep the library.
    #[error("no directory to keep the engine's library in; set TAILWATER_CACHE or HOME")]
    NoCache,
    /// The processor is too old.
    #[error(
        "the embedded ClickHouse engine needs a processor with AVX2 and BMI2 (x86-64-v3); \
         name a ClickHouse server in `[clickhouse] url` instead"
    )]
    Processor,
    /// There is no library for this kind of machine.
    #[error(
        "the embedded ClickHouse engine comes for Linux on x86-64 only; \
         name a ClickHouse server in `[clickhouse] url` instead"
    )]
    Platform,
    /// The file is no such library.
    #[error("{} is not the engine's library; get it anew with `tailwater embedded fetch`", .path.display())]
    Load {
        /// The file.
        path: PathBuf,
        /// Why.
        source: libloading::Error,
    },
    /// The library is too old.
    #[error(
        "{} has version {version}, which cannot take rows safely; get a newer one with \
         `tailwater embedded fetch`",
        .path.display()
    )]
    Version {
        /// The file.
        path: PathBuf,
        /// Its version.
        version: String,
    },
    /// The data directory cannot be used.
    #[error("cannot use {} for the embedded engine's data", .path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The data directory is in use.
    #[error(
        "{} is used by another process; stop it, or give this one its own directory in \
         `[embedded] path`",
        .path.display()
    )]
    Locked {
        /// The directory.
        path: PathBuf,
    },
    /// The engine did not open the data directory.
    #[error("the engine does not open {}; its reason is in the log above", .path.display())]
    Open {
        /// The directory.
        path: PathBuf,
    },
    /// The port cannot be had.
    #[error("cannot listen on 127.0.0.1:{port}; choose another port in `[embedded] port`")]
    Listen {
        /// The port.
        port: u16,
        /// Why.
        source: io::Error,
    },
    /// The child process cannot be started.
    #[error("cannot start the embedded engine's process")]
    Spawn(#[source] io::Error),
    /// The child process said why it cannot serve.
    #[error("{0}")]
    Refused(String),
    /// The child process could not write.
    #[error("the embedded engine cannot write to {}; make room on its disk", .path.display())]
    Disk {
        /// The data directory.
        path: PathBuf,
    },
    /// The child process ended without a word.
    #[error(
        "the embedded engine's process ended with {0} before it could serve; see the log above"
    )]
    Ended(ExitStatus),
    /// The arguments of the child process make no sense.
    #[error("`tailwater __clickhouse`: {0}")]
    Arguments(String),
    /// The download failed; a second attempt goes on where it stopped.
    #[error(
        "cannot download the engine's library from {url}; check the network (HTTPS_PROXY is honoured) and try again"
    )]
    Download {
        /// From where.
        url: &'static str,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// What was downloaded is not what was expected.
    #[error("{url} has SHA-256 {found} where {expected} is expected; try again")]
    Digest {
        /// From where.
        url: &'static str,
        /// What it should have been, in hex.
        expected: &'static str,
        /// What it is, in hex.
        found: String,
    },
    /// The library cannot be kept.
    #[error("cannot write {}; free space there, or set TAILWATER_CACHE", .path.display())]
    Keep {
        /// The file or directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl Error {
    /// What to do about it: all of them want a person.
    #[must_use]
    pub fn disposition(&self) -> Disposition {
        Disposition::Halt
    }
}

fn shown(paths: &[PathBuf]) -> String {
    let paths: Vec<String> = paths.iter().map(|path| path.display().to_string()).collect();
    paths.join(", ")
}
