//! The table versions that records of ours name, out of the topic that describes them.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use rustc_hash::FxHashMap;

use super::{Error, Options, compacted};
use crate::table::Table;

/// How long a table version's description may come after its first record, where that was written without
/// transactions. With one, the description is before the end of its topic, which [`compacted::read`] waits for.
const PATIENCE: Duration = Duration::from_secs(30);
/// Between two looks for it.
const PAUSE: Duration = Duration::from_millis(250);

/// The table versions that our own records name.
pub(super) struct Schemas {
    options: Options,
    topic: String,
    /// None is what this version cannot read, because one after it wrote it.
    known: FxHashMap<u64, Option<Arc<Table>>>,
    /// What was waited for in vain, and when it was last looked for.
    missing: FxHashMap<u64, Instant>,
}

impl Schemas {
    /// What is in a topic; nothing of it is read yet.
    pub(super) fn of(topic: String, options: &Options) -> Schemas {
        let (known, missing) = (FxHashMap::default(), FxHashMap::default());
        Schemas { options: options.clone(), topic, known, missing }
    }

    /// A table version, if the topic has it. One that is new is waited for; one that was waited for in
    /// vain is looked for now and then, so that its records cost no more than any other dead letters.
    pub(super) fn resolve(&mut self, fingerprint: u64) -> Result<Option<Arc<Table>>, Error> {
        if let Some(known) = self.known.get(&fingerprint) {
            return Ok(known.clone());
        }
        let missed = self.missing.get(&fingerprint).map(Instant::elapsed);
        if missed.is_some_and(|since| since < PATIENCE) {
            return Ok(None);
        }
        let patience = if missed.is_some() { Duration::ZERO } else { PATIENCE };
        let deadline = Instant::now() + patience;
        loop {
            self.read()?;
            if let Some(known) = self.known.get(&fingerprint) {
                return Ok(known.clone());
            }
            if Instant::now() >= deadline {
                break;
            }
            thread::sleep(PAUSE);
        }
        if missed.is_none() {
            let (fingerprint, topic) = (format!("{fingerprint:016x}"), &self.topic);
            tracing::warn!(
                fingerprint,
                topic,
                "a table version is missing; its records are set aside"
            );
        }
        self.missing.insert(fingerprint, Instant::now());
        Ok(None)
    }

    fn read(&mut self) -> Result<(), Error> {
        let known = &mut self.known;
        compacted::read(&self.options, &self.topic, |key, value| {
            match serde_json::from_slice::<Table>(value.unwrap_or_default()) {
                Ok(table) => _ = known.insert(table.fingerprint, Some(Arc::new(table))),
                Err(_) => {
                    let key = std::str::from_utf8(key).ok();
                    let key = key.and_then(|key| u64::from_str_radix(key, 16).ok());
                    key.into_iter().for_each(|key| _ = known.entry(key).or_default());
                }
            }
        })
    }
}
