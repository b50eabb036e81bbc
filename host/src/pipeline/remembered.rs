//! Where a leg goes on whose plugins remember: at the place that their memory on disk is of.
//!
//! What was durable one hop on beyond that place is shown to the plugins again, so that they remember
//! it again; one hop on it is known already and changes nothing.

use std::collections::{BTreeMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;

use tracing::{info, warn};

use super::keeper::{Kept, Ledger};
use super::source::Source;
use super::transform::Transform;
use super::{Error, Pipeline};
use crate::capture::Resume;
use crate::hop::{LogPoint, SnapshotDone};
use crate::plugin::{MemoryError, Store};
use crate::position::{Lsn, Position};
use crate::table::TableName;
use crate::transport::{Checkpoint, Offsets, Starts};

/// How far the capture's source has come.
pub(super) struct CaptureLedger {
    checkpoint: Checkpoint,
    /// While tables are copied no start could go on: it would copy them again, from the first row.
    streamed: bool,
}

impl Ledger for CaptureLedger {
    type Point = LogPoint;

    fn advance(&mut self, point: &LogPoint) {
        self.checkpoint.advance(point);
        self.streamed |= point.is_streamed();
    }

    fn progress(&self) -> Option<BTreeMap<String, String>> {
        self.streamed.then(|| progress(&self.checkpoint))
    }
}

/// How far each partition was read, by the name of its memory.
#[derive(Default)]
pub(super) struct SinkLedger(BTreeMap<String, String>);

impl Ledger for SinkLedger {
    type Point = Offsets;

    fn advance(&mut self, point: &Offsets) {
        self.0.extend(point.scopes().map(|(scope, next)| (scope, next.to_string())));
    }

    fn progress(&self) -> Option<BTreeMap<String, String>> {
        Some(self.0.clone())
    }
}

fn progress(checkpoint: &Checkpoint) -> BTreeMap<String, String> {
    let text = serde_json::to_string(checkpoint).expect("a checkpoint is plain data");
    BTreeMap::from([(String::new(), text)])
}

impl Pipeline {
    /// Opens the memory of a leg's plugins, if one of them remembers anything.
    pub(super) fn open_memory(
        &self,
        transform: &Transform,
        leg: &str,
        name: &str,
    ) -> Result<Option<Arc<Store>>, Error> {
        let remembering: HashSet<&str> = transform.remembering().collect();
        if remembering.is_empty() {
            return Ok(None);
        }
        let store = Store::open(&self.memory_directory(), &format!("{leg}-{name}"))?;
        store.forget_plugins_but(&remembering)?;
        Ok(Some(Arc::new(store)))
    }

    fn memory_directory(&self) -> PathBuf {
        let directory = self.config.state.path.clone();
        directory.unwrap_or_else(|| self.config.embedded.path.join("plugin-state"))
    }
}

/// Puts the plugins' memory back and moves the resume position to where it ends. `sent` is what is
/// one hop on, where that is known.
pub(super) fn resume_capture(
    store: Option<&Arc<Store>>,
    transform: &mut Transform,
    source: &Source,
    resume: &mut Resume,
    sent: Option<Position>,
) -> Result<Option<Kept<CaptureLedger>>, Error> {
    let Some(store) = store else { return Ok(None) };
    let known = known_checkpoint(store)?;
    let known = known.filter(|known| goes_on(known, source, sent));
    let known = match known {
        Some(known) if has_gap(&known, source) && transform.has_state() => {
            return Err(Error::Memory(MemoryError::Behind {
                path: store.path().to_owned(),
                known: known.confirm.to_string(),
                source_at: source.confirmed.unwrap_or_default().to_string(),
            }));
        }
        known => known.filter(|known| !has_gap(known, source)),
    };
    let checkpoint = match known {
        Some(known) => known,
        None => begin(store, resume, source)?,
    };
    resume.position = checkpoint.position;
    resume.snapshots.retain(|table, at| {
        let mut known = checkpoint.snapshots.iter();
        known.any(|done| done.table == *table && done.consistent_at == *at)
    });
    resume.remembers = true;
    transform.restore(store)?;
    info!(position = %resume.position, "the plugins remember everything up to here");
    Ok(Some(Kept {
        store: Arc::clone(store),
        ledger: CaptureLedger { checkpoint, streamed: false },
    }))
}

/// Puts the plugins' memory of all partitions back, and says where each of them ends.
pub(super) fn resume_sink(
    store: Option<&Arc<Store>>,
    transform: &mut Transform,
) -> Result<Option<(Starts, Kept<SinkLedger>)>, Error> {
    let Some(store) = store else { return Ok(None) };
    let starts = Starts::of(&store.progress()?, transform.has_state());
    store.forget_scopes_but(|scope| starts.knows(scope))?;
    transform.restore(store)?;
    Ok(Some((starts, Kept { store: Arc::clone(store), ledger: SinkLedger::default() })))
}

fn known_checkpoint(store: &Store) -> Result<Option<Checkpoint>, Error> {
    let text = store.progress()?.remove("");
    let parse = |text: String| {
        serde_json::from_str(&text)
            .map_err(|source| MemoryError::Foreign { path: store.path().to_owned(), source })
    };
    Ok(text.map(parse).transpose()?)
}

/// Whether the memory is of this source and of what is one hop on. A new slot begins a new history:
/// the tables are copied, and the plugins are shown all of them again.
fn goes_on(known: &Checkpoint, source: &Source, sent: Option<Position>) -> bool {
    if !source.slot_exists || known.system != Some(source.system) {
        return false;
    }
    let goes_on = sent.is_none_or(|sent| known.position <= sent);
    if !goes_on {
        warn!(
            remembered = %known.position,
            "Kafka has lost what the plugins remember; they begin anew with what is sent again"
        );
    }
    goes_on
}

/// Whether the source has forgotten changes that the plugins were never shown.
fn has_gap(known: &Checkpoint, source: &Source) -> bool {
    known.confirm > Lsn::default() && source.confirmed.is_some_and(|now| now > known.confirm)
}

/// Begins without a memory, at the place that the resume has.
fn begin(store: &Store, resume: &Resume, source: &Source) -> Result<Checkpoint, Error> {
    let done =
        |(table, at): (&TableName, &Lsn)| SnapshotDone { table: table.clone(), consistent_at: *at };
    let checkpoint = Checkpoint {
        position: resume.position,
        confirm: source.confirmed.unwrap_or_default(),
        system: Some(source.system),
        snapshots: resume.snapshots.iter().map(done).collect(),
    };
    store.begin(&progress(&checkpoint))?;
    Ok(checkpoint)
}
