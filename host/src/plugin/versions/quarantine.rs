//! Versions that were rolled back, or refused for what they did: none of them runs again by itself, not
//! after a restart either.
//!
//! Each is a file of its own beside the plugins' memory, so that a person can read why and lift it by
//! removing the file. It is known by its code and by the settings that bear on what it does: a mended
//! build is another version, and so is the same one with other settings.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use percent_encoding::utf8_percent_encode;
use serde::{Deserialize, Serialize};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime as _, SystemTime};

use crate::directories;
use crate::plugin::digest;
use crate::plugin::error::Error;
use crate::plugin::memory::IN_FILE_NAMES;
use crate::plugin::options::Options;
use crate::plugin::versions::loader::Version;

/// The versions in quarantine; cheap to clone.
#[derive(Clone, Default)]
pub(crate) struct Quarantine(Arc<Inner>);

#[derive(Default)]
struct Inner {
    /// Where they are kept.
    directory: Option<PathBuf>,
    /// Those that could not be kept there, for as long as the process lives.
    here: Mutex<HashMap<String, Ban>>,
}

/// Why a version is in quarantine, as it is in its file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Ban {
    /// Name in the configuration.
    plugin: String,
    /// SHA-256 of the component, hex.
    digest: String,
    /// ISO 8601, in UTC.
    since: String,
    why: String,
    /// SHA-256 of the version that went on instead, if it had the same settings.
    pub(crate) instead: Option<String>,
}

impl Quarantine {
    /// Kept in a directory that is made when there is something to keep.
    pub(crate) fn kept_in(directory: PathBuf) -> Quarantine {
        Quarantine(Arc::new(Inner { directory: Some(directory), here: Mutex::default() }))
    }

    /// Takes in a version; `running` is the identity of the one that goes on.
    pub(crate) fn put(&self, digest: &str, options: &Options, why: &str, running: &str) {
        let ban = Ban {
            plugin: options.name.clone(),
            digest: digest.to_owned(),
            since: now(),
            why: why.to_owned(),
            instead: code_of(running, options),
        };
        self.keep(options, ban);
    }

    fn keep(&self, options: &Options, ban: Ban) {
        let key = key(&ban.digest, options);
        let Some(file) = self.file(&ban.digest, options) else {
            self.here().insert(key, ban);
            return;
        };
        if let Err(error) = write(&file, &ban) {
            let (plugin, file) = (&options.name, file.display());
            tracing::warn!(
                %plugin, %file, %error,
                "the quarantine of a plugin version is not written down, it ends with the process"
            );
            self.here().insert(key, ban);
        }
    }

    /// Notes which version goes on now instead of one in quarantine, for the next start.
    pub(crate) fn goes_on(&self, ban: &Ban, options: &Options, running: &str) {
        let instead = code_of(running, options);
        if ban.instead != instead {
            self.keep(options, Ban { instead, ..ban.clone() });
        }
    }

    /// Why a version is in quarantine, if it is.
    pub(crate) fn find(&self, digest: &str, options: &Options) -> Option<Ban> {
        let here = self.here().get(&key(digest, options)).cloned();
        here.or_else(|| {
            let text = fs::read(self.file(digest, options)?).ok()?;
            let unknown = |what: &str| format!("its file does not say {what}");
            // Whatever somebody made of the file: it is there.
            Some(serde_json::from_slice(&text).unwrap_or_else(|_| Ban {
                plugin: options.name.clone(),
                digest: digest.to_owned(),
                since: unknown("when"),
                why: unknown("why"),
                instead: None,
            }))
        })
    }

    /// What is said of a version that is not loaded for it.
    pub(crate) fn refusal(&self, ban: Ban, options: &Options) -> Error {
        let file = self.file(&ban.digest, options).filter(|file| file.exists());
        let lift = file.map_or_else(
            || "restart to try it again".to_owned(),
            |file| format!("remove {} to try it again", file.display()),
        );
        let Ban { plugin, digest, since, why, .. } = ban;
        Error::Quarantined { plugin, digest, since, why, lift }
    }

    fn file(&self, digest: &str, options: &Options) -> Option<PathBuf> {
        let directory = self.0.directory.as_ref()?;
        let plugin = utf8_percent_encode(&options.name, IN_FILE_NAMES);
        Some(directory.join(format!("{plugin}-{}.json", &key(digest, options)[..16])))
    }

    fn here(&self) -> MutexGuard<'_, HashMap<String, Ban>> {
        self.0.here.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The SHA-256 of a version, by its identity, if it has these settings.
fn code_of(identity: &str, options: &Options) -> Option<String> {
    let digest = identity.split_whitespace().next().unwrap_or_default();
    (Version::identity_of(digest, options) == identity).then(|| digest.to_owned())
}

/// By rename: a reader never sees half of it.
fn write(file: &Path, ban: &Ban) -> io::Result<()> {
    let directory = file.parent().expect("it lies in the directory");
    directories::create(directory)?;
    let unfinished = file.with_extension("part");
    let mut writing = directories::open_file(&unfinished)?;
    writing.set_len(0)?;
    writing.write_all(&serde_json::to_vec_pretty(ban)?)?;
    writing.sync_all()?;
    fs::rename(unfinished, file)
}

fn now() -> String {
    let mut text = String::new();
    // Writing to memory does not fail.
    SystemTime.format_time(&mut Writer::new(&mut text)).ok();
    text
}

/// The file is a part of it: two chains may have plugins of one name.
fn key(digest: &str, options: &Options) -> String {
    let (name, path) = (&options.name, options.path.display());
    digest::of(format!("{digest} {name} {path} {}", settings(options)))
}

/// All that bears on what a version does, in a form that releases have in common: one that brings another
/// setting knows the versions again.
pub(crate) fn settings(options: &Options) -> String {
    let Options { stage, tables, on_error, grants, memory_mb, deadline_ms, output_mb, .. } =
        options;
    let Options { batch_rows, retries, window_keys, window_seconds, state_mb, .. } = options;
    let Options { breaker_rows, breaker_percent, probation_rows, probation_seconds, .. } = options;
    let Options { probation_fault_percent, shadow_batches, shadow_limit, .. } = options;
    let mut text =
        format!("{stage:?} {tables:?} {on_error:?} {grants:?} {}", options.config_json());
    let numbers = [
        u64::from(*memory_mb),
        *deadline_ms,
        u64::from(*output_mb),
        u64::from(*batch_rows),
        u64::from(*retries),
        *window_keys as u64,
        u64::from(*window_seconds),
        u64::from(*state_mb),
        *breaker_rows,
        u64::from(*breaker_percent),
        *probation_rows,
        *probation_seconds,
        u64::from(*probation_fault_percent),
        u64::from(*shadow_batches),
        u64::from(*shadow_limit),
    ];
    for number in numbers {
        // Writing to memory does not fail.
        write!(text, " {number}").ok();
    }
    text
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn options(settings: &str) -> Options {
        toml::from_str(&format!("name = 'a/b'\npath = 'it.wasm'\n{settings}")).unwrap()
    }

    #[test]
    fn what_is_in_quarantine_is_known_to_the_next_process_until_its_file_is_removed() {
        let scratch = tempfile::tempdir().unwrap();
        let before = Quarantine::kept_in(scratch.path().join("kept"));
        let it = options("");
        before.put("bad", &it, "it failed", &Version::identity_of("good", &it));
        let after = Quarantine::kept_in(scratch.path().join("kept"));
        let ban = after.find("bad", &it).expect("it is kept");
        assert_eq!((ban.instead.as_deref(), ban.why.as_str()), (Some("good"), "it failed"));
        assert!(after.find("mended", &it).is_none(), "another build");
        assert!(after.find("bad", &options("retries = 9")).is_none(), "other settings");
        let elsewhere = Options { path: "other.wasm".into(), ..it.clone() };
        assert!(after.find("bad", &elsewhere).is_none(), "a plugin of that name elsewhere");
        let said = after.refusal(ban, &it).to_string();
        let file = said.split_whitespace().find(|word| word.ends_with(".json")).expect(&said);
        fs::write(file, "what is this").unwrap();
        let unknown = before.find("bad", &it).expect("it is there all the same");
        assert!(unknown.why.contains("does not say why"), "{unknown:?}");
        fs::remove_file(file).unwrap();
        assert!(before.find("bad", &it).is_none() && after.find("bad", &it).is_none());
    }

    #[test]
    fn what_is_said_of_a_version_is_closed_to_others() {
        let scratch = tempfile::tempdir().unwrap();
        let directory = scratch.path().join("kept");
        let it = options("");
        let quarantine = Quarantine::kept_in(directory.clone());
        for why in ["a longer reason", "a reason"] {
            quarantine.put("bad", &it, why, "");
            assert_eq!(quarantine.find("bad", &it).expect("it is kept").why, why);
        }
        let file = quarantine.file("bad", &it).expect("it has a file");
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&directory), mode(&file)), (0o700, 0o600));
    }

    #[test]
    fn without_a_place_it_lasts_as_long_as_the_process() {
        let scratch = tempfile::tempdir().unwrap();
        let file = scratch.path().join("file");
        fs::write(&file, "").unwrap();
        for quarantine in [Quarantine::default(), Quarantine::kept_in(file)] {
            let it = options("");
            quarantine.put(
                "bad",
                &it,
                "it failed",
                &Version::identity_of("good", &options("retries = 9")),
            );
            let ban = quarantine.find("bad", &it).expect("it is known");
            assert_eq!(ban.instead, None, "the one before had other settings");
            let said = quarantine.refusal(ban, &it).to_string();
            assert!(said.contains("with these settings is in quarantine since 2"), "{said}");
            assert!(said.ends_with("or restart to try it again"), "{said}");
        }
    }
}
