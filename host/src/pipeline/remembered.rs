//! Where a leg goes on whose plugins remember: at the place that their memory on disk is of.
//!
//! What was durable one hop on beyond that place is shown to the plugins again, so that they remember
//! it again; one hop on it is known already and changes nothing.

use std::collections::BTreeMap;
use std::sync::Arc;

use tracing::{info, warn};

use super::Error;
use super::keeper::{CAPTURE_MEMORY, Kept, Ledger, SINK_MEMORY};
use super::source::Source;
use super::transform::Transform;
use crate::capture::Resume;
use crate::hop::{Copied, LogPoint, SnapshotDone};
use crate::plugin::{MemoryError, StateStore};
use crate::position::{Lsn, Position};
use crate::table::TableName;
use crate::transport::{Checkpoint, Offsets, Starts};

/// The scope of the place in the source's log, and of the tables that were copied, which are many and change
/// seldom.
const PLACE: &str = "";
const COPIES: &str = "copies";

/// How far the capture's source has come.
pub(super) struct CaptureLedger {
    checkpoint: Checkpoint,
    copying: bool,
    /// Whether the copies are kept as they are.
    copies_kept: bool,
}

impl Ledger for CaptureLedger {
    type Point = LogPoint;

    fn advance(&mut self, point: &LogPoint) {
        self.checkpoint.advance(point);
        self.copying = point.copying_after(self.copying);
        self.copies_kept &= point.copies.is_empty();
    }

    fn progress(&mut self) -> Option<BTreeMap<String, String>> {
        if self.copying {
            return None;
        }
        let copies = !std::mem::replace(&mut self.copies_kept, true);
        let copies = copies.then(|| copies_of(&self.checkpoint));
        Some(copies.into_iter().chain([place_of(&self.checkpoint)]).collect())
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

    fn progress(&mut self) -> Option<BTreeMap<String, String>> {
        Some(self.0.clone())
    }
}

fn place_of(checkpoint: &Checkpoint) -> (String, String) {
    let place = Checkpoint { snapshots: Vec::new(), ..*checkpoint };
    let text = serde_json::to_string(&place).expect("a checkpoint is plain data");
    (PLACE.to_owned(), text)
}

fn copies_of(checkpoint: &Checkpoint) -> (String, String) {
    let text = serde_json::to_string(&checkpoint.snapshots).expect("snapshots are plain data");
    (COPIES.to_owned(), text)
}

/// Puts the plugins' memory back and moves the resume position to where it ends. `sent` is what is
/// one hop on, where that is known.
pub(super) fn resume_capture(
    store: &Arc<StateStore>,
    transform: &mut Transform,
    source: &Source,
    resume: &mut Resume,
    sent: Option<Position>,
) -> Result<Kept<CaptureLedger>, Error> {
    let known = known_checkpoint(store)?;
    let known = known.filter(|known| goes_on(known, source, sent));
    let checkpoint = match known {
        Some(known) if !has_gap(&known, source) => known,
        Some(known) if transform.keeps_state() => {
            return Err(Error::Memory(MemoryError::Behind {
                path: store.path().to_owned(),
                known: known.confirm,
                source_at: source.confirmed.unwrap_or_default(),
            }));
        }
        // A window that lacks changes is worth nothing, and an empty one drops nothing wrongly. Of a
        // state that nobody keeps nothing can be missing.
        _ => begin(store, resume, source)?,
    };
    resume.position = checkpoint.position;
    resume.snapshots.retain(|table, copied| {
        let mut known = checkpoint.snapshots.iter();
        let at = copied.consistent_at;
        known.any(|done| done.table == *table && done.copied.consistent_at == at)
    });
    resume.remembers = true;
    transform.restore(store)?;
    info!(position = %resume.position, "the plugins remember everything up to here");
    let (store, backlog) = (Arc::clone(store), transform.backlog());
    let ledger = CaptureLedger { checkpoint, copying: true, copies_kept: false };
    Ok(Kept { store, ledger, backlog, step: CAPTURE_MEMORY })
}

/// Puts the plugins' memory of all partitions back, and says where each of them ends.
pub(super) fn resume_sink(
    store: &Arc<StateStore>,
    transform: &mut Transform,
) -> Result<(Starts, Kept<SinkLedger>), Error> {
    let starts = Starts::of(&store.progress()?, transform.keeps_state());
    store.forget_scopes_but(|scope| starts.knows(scope))?;
    transform.restore(store)?;
    let (store, backlog) = (Arc::clone(store), transform.backlog());
    let kept = Kept { store, ledger: SinkLedger::default(), backlog, step: SINK_MEMORY };
    Ok((starts, kept))
}

fn known_checkpoint(store: &StateStore) -> Result<Option<Checkpoint>, Error> {
    let kept = store.progress()?;
    let parse = || -> Result<Option<Checkpoint>, serde_json::Error> {
        let Some(place) = kept.get(PLACE) else { return Ok(None) };
        let mut checkpoint: Checkpoint = serde_json::from_str(place)?;
        if let Some(copies) = kept.get(COPIES) {
            checkpoint.snapshots = serde_json::from_str(copies)?;
        }
        Ok(Some(checkpoint))
    };
    let foreign = |source| MemoryError::Foreign { path: store.path().to_owned(), source };
    Ok(parse().map_err(foreign)?)
}

/// Whether the memory is of this source and of what is one hop on. A new slot begins a new history:
/// the tables are copied, and the plugins are shown all of them again.
fn goes_on(known: &Checkpoint, source: &Source, sent: Option<Position>) -> bool {
    if !source.slot_exists || known.system != source.system {
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
fn begin(store: &StateStore, resume: &Resume, source: &Source) -> Result<Checkpoint, Error> {
    let done = |(table, copied): (&TableName, &Copied)| SnapshotDone {
        table: table.clone(),
        copied: copied.clone(),
    };
    let checkpoint = Checkpoint {
        position: resume.position,
        confirm: source.confirmed.unwrap_or_default(),
        system: source.system,
        timeline: source.log.timeline,
        snapshots: resume.snapshots.iter().map(done).collect(),
    };
    store.begin(&BTreeMap::from([place_of(&checkpoint), copies_of(&checkpoint)]))?;
    Ok(checkpoint)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capture::{self, SourceUrl};
    use crate::hop::CopyMark;

    fn source(confirmed: Option<u64>) -> Source {
        let url = SourceUrl::parse("postgres://me@db/shop").unwrap();
        let options = capture::Options::default();
        let (database, slot_exists) = ("shop".to_owned(), confirmed.is_some());
        let confirmed = confirmed.map(Lsn);
        let log = capture::Log::default();
        Source { url, options, database, slot_exists, confirmed, system: 7, log }
    }

    fn known(confirm: u64) -> Checkpoint {
        let position = Position { commit: Lsn(confirm), ordinal: 1 };
        Checkpoint { position, confirm: Lsn(confirm), system: 7, ..Checkpoint::default() }
    }

    #[test]
    fn a_memory_goes_on_with_its_slot_and_no_other() {
        assert!(goes_on(&known(5), &source(Some(5)), None));
        assert!(!goes_on(&known(5), &source(None), None), "a new slot is a new history");
        let other = Source { system: 8, ..source(Some(5)) };
        assert!(!goes_on(&known(5), &other, None), "of another cluster");
    }

    #[test]
    fn a_memory_of_what_kafka_lost_is_begun_anew() {
        let sent = |ordinal| Some(Position { commit: Lsn(5), ordinal });
        assert!(goes_on(&known(5), &source(Some(5)), sent(1)));
        assert!(goes_on(&known(5), &source(Some(5)), sent(2)), "what was sent since is made again");
        assert!(!goes_on(&known(5), &source(Some(5)), sent(0)));
    }

    #[test]
    fn a_slot_that_went_on_alone_leaves_a_gap() {
        assert!(!has_gap(&known(5), &source(Some(4))), "kept, and not yet confirmed");
        assert!(!has_gap(&known(5), &source(Some(5))));
        assert!(has_gap(&known(5), &source(Some(6))));
        assert!(
            !has_gap(&known(0), &source(Some(6))),
            "the slot was new, and is not confirmed yet"
        );
    }

    #[test]
    fn nothing_is_kept_of_a_copy_until_the_stream_goes_on() {
        let mut ledger = CaptureLedger { checkpoint: known(5), copying: true, copies_kept: true };
        assert!(ledger.progress().is_none());
        let streamed = LogPoint { confirm: Lsn(6), ..LogPoint::default() };
        ledger.advance(&streamed);
        assert!(ledger.progress().is_some());
        let mut merged = streamed.clone();
        crate::hop::Point::merge(&mut merged, LogPoint { copying: true, ..LogPoint::default() });
        ledger.advance(&merged);
        assert!(ledger.progress().is_none(), "a copy began behind what was streamed");
        ledger.advance(&LogPoint::default());
        assert!(ledger.progress().is_none(), "letters that are driven through amid it end no copy");
        ledger.advance(&streamed);
        let kept: Checkpoint = serde_json::from_str(&ledger.progress().unwrap()[""]).unwrap();
        assert_eq!(kept, Checkpoint { confirm: Lsn(6), ..known(5) });
    }

    #[test]
    fn the_copies_are_kept_again_only_when_they_change() {
        let scratch = tempfile::tempdir().unwrap();
        let store = StateStore::open(scratch.path(), "capture-x").unwrap();
        let mut ledger = CaptureLedger { checkpoint: known(5), copying: false, copies_kept: false };
        let table = TableName { schema: "public".into(), name: "users".into() };
        let done = SnapshotDone { table: table.clone(), copied: Copied::default() };
        let steps = [
            (Vec::new(), true),
            (Vec::new(), false),
            (vec![CopyMark::Complete(done)], true),
            (Vec::new(), false),
            (vec![CopyMark::Withdrawn(table)], true),
        ];
        for (confirm, (copies, is_kept)) in (6..).zip(steps) {
            ledger.advance(&LogPoint { confirm: Lsn(confirm), copies, ..LogPoint::default() });
            let progress = ledger.progress().unwrap();
            assert_eq!(progress.contains_key(COPIES), is_kept, "{confirm}");
            store.keep(&crate::plugin::Pending::default(), &progress).unwrap();
            assert_eq!(known_checkpoint(&store).unwrap().as_ref(), Some(&ledger.checkpoint));
        }
    }

    #[test]
    fn a_memory_of_another_version_ends_the_leg_with_the_way_out() {
        let scratch = tempfile::tempdir().unwrap();
        let store = StateStore::open(scratch.path(), "capture-x").unwrap();
        store.begin(&BTreeMap::from([(String::new(), "what is this".to_owned())])).unwrap();
        let error = known_checkpoint(&store).unwrap_err();
        assert_eq!(error.to_string(), "the plugins cannot remember");
        let cause = std::error::Error::source(&error).unwrap().to_string();
        assert!(cause.contains("cannot be understood; remove the file"), "{cause}");
    }
}
