//! The stream of one connection: frames in, batches out, confirmations back.

use std::collections::HashMap;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tokio::runtime::Handle;
use tokio::sync::mpsc::Sender;
use tokio::sync::mpsc::error::TrySendError;
use tokio_postgres::Client;
use tokio_postgres::types::Oid;

use super::connection::Connection;
use super::error::Error;
use super::frames::{Frame, Frames};
use super::moved;
use super::outdated::Outdated;
use super::seen::Seen;
use crate::ack::SlotAck;
use crate::budget::{Budget, Room};
use crate::change::Changes;
use crate::decode::message::POSTGRES_EPOCH_MICROS;
use crate::decode::{Decoder, Step};
use crate::hop::{CopyMark, Form, Hop, LogPoint, Snapshots};
use crate::position::{Lsn, Position};
use crate::serve::Leg;
use crate::shutdown::{Phase, Shutdown};
use crate::telemetry::metrics::Metrics;

/// The server is told where we are at least this often, and at once when it asks.
const STATUS_INTERVAL: Duration = Duration::from_secs(5);
/// And not more often than this when only the confirmed position moved.
const STATUS_MIN_INTERVAL: Duration = Duration::from_millis(100);
/// A server that was silent for so long is asked for a sign of life, which it gives at once,
const ASK: Duration = Duration::from_secs(2);
/// and one that gives none by then stands still, as everybody is told. Less than the five seconds
/// within which that is promised; the connection is given up later, after `silence`.
const NOTICE: Duration = Duration::from_secs(4);
/// How long a read waits when nothing is pending.
const IDLE_READ: Duration = Duration::from_millis(50);
/// A stream whose bytes come closer together than this is a dense one,
const DENSE_GAP: Duration = Duration::from_millis(1);
/// and a dense one is left alone for so long before each read. The server writes row by row, and a
/// reader that sleeps in `read` costs both sides a wake-up for every row.
pub(super) const NAP: Duration = Duration::from_micros(250);
/// Of messages this large the socket holds a few, and the server would wait for us meanwhile.
const LARGE_MESSAGE: usize = 8 * 1024;

/// What a stream needs from the capture that runs it.
#[derive(Debug)]
pub struct Stream<'a> {
    /// In copy mode.
    pub connection: Connection,
    /// For the catalog.
    pub client: &'a Client,
    /// To run the catalog's queries on.
    pub runtime: &'a Handle,
    /// Where batches go.
    pub out: &'a Sender<Hop<LogPoint>>,
    /// What of it may be on its way.
    pub budget: &'a Budget,
    /// What may be confirmed.
    pub ack: &'a SlotAck,
    /// When to end.
    pub shutdown: &'a Shutdown,
    /// When to end for a while, between two transactions.
    pub pause: &'a AtomicBool,
    /// Whether it moves.
    pub leg: &'a Leg,
    /// Counters.
    pub metrics: &'a Metrics,
    /// How long a change may wait for company.
    pub linger: Duration,
    /// When silence means death.
    pub silence: Duration,
    /// Whether updates that move a row to another key are to tell all of it.
    pub whole_moves: bool,
    /// The decoder, resumed where the last delivery ended.
    pub decoder: Decoder,
    /// What is known of the tables since they were copied.
    pub copied: &'a Snapshots,
    /// Tables whose copies count no more.
    pub outdated: &'a Outdated,
    /// Whether any can be copied again.
    pub may_copy: bool,
    /// What tables looked like.
    pub seen: &'a Seen,
    /// What they looked like as this connection described them.
    pub forms: HashMap<Oid, Form>,
    /// The last change that went on, kept across connections.
    pub delivered: &'a mut Position,
}

/// The batch that is being filled, and the stream's clocks.
pub(super) struct State {
    frames: Frames,
    batch: Changes,
    /// Changes of the batch that are to be completed.
    moved: usize,
    /// What the batch says of copies.
    pub(super) copies: Vec<CopyMark>,
    /// When the first thing worth sending came.
    pending_since: Option<Instant>,
    /// What may be confirmed once the batch and all before it are durable.
    confirm: Lsn,
    server_end: Lsn,
    last_heard: Instant,
    last_status: Instant,
    told: Lsn,
    reply_now: bool,
    /// Whether the leg was said to stand still.
    silent: bool,
    read_timeout: Duration,
    dense: bool,
    /// Whether a large message came since the last read.
    large: bool,
}

impl State {
    fn new(confirmed: Lsn) -> State {
        let now = Instant::now();
        State {
            frames: Frames::default(),
            batch: Changes::default(),
            moved: 0,
            copies: Vec::new(),
            pending_since: None,
            confirm: confirmed,
            server_end: confirmed,
            last_heard: now,
            last_status: now,
            told: Lsn(0),
            reply_now: true,
            silent: false,
            read_timeout: Duration::ZERO,
            dense: false,
            large: false,
        }
    }

    fn confirm_up_to(&mut self, lsn: Lsn) {
        if lsn > self.confirm {
            self.confirm = lsn;
            self.pending_since.get_or_insert_with(Instant::now);
        }
    }

    fn hear_keepalive(&mut self, server_end: Lsn, reply: bool, decoder: &Decoder) {
        self.server_end = self.server_end.max(server_end);
        self.reply_now |= reply;
        // Between transactions everything before this LSN has been sent to us, and what was of no
        // interest needs no delivery: an idle slot moves on.
        if !decoder.in_transaction() {
            self.confirm_up_to(server_end);
        }
    }
}

impl Stream<'_> {
    /// Streams until told to stop or to pause; what was read by then has been sent on.
    ///
    /// # Errors
    /// The connection's or the decoder's error; everything sent on stays valid.
    pub fn run(mut self) -> Result<Connection, Error> {
        let mut state = State::new(self.ack.confirmed());
        while self.shutdown.phase() == Phase::Running && !self.may_pause() {
            self.status(&mut state)?;
            self.read(&mut state)?;
            self.decode(&mut state)?;
            while state.moved >= moved::MOST {
                self.send(&mut state)?;
                self.decode(&mut state)?;
            }
            if self.is_due(&state) {
                self.send(&mut state)?;
            }
        }
        self.send(&mut state)?;
        Ok(self.connection)
    }

    fn may_pause(&self) -> bool {
        self.pause.load(Ordering::Acquire) && !self.decoder.in_transaction()
    }

    /// Reads once, for no longer than the pending batch may wait.
    fn read(&mut self, state: &mut State) -> Result<(), Error> {
        let timeout = if state.pending_since.is_some() { self.linger } else { IDLE_READ };
        if timeout != state.read_timeout {
            self.connection.set_timeout(timeout)?;
            state.read_timeout = timeout;
        }
        let large = std::mem::take(&mut state.large);
        if state.dense && !large {
            std::thread::sleep(NAP);
        }
        match self.connection.read(state.frames.spare())? {
            Some(count) => {
                state.frames.advance(count);
                let now = Instant::now();
                state.dense = now.duration_since(state.last_heard) < DENSE_GAP;
                state.last_heard = now;
                if std::mem::take(&mut state.silent) {
                    self.leg.moving();
                }
                Ok(())
            }
            None => self.hear_nothing(state),
        }
    }

    fn hear_nothing(&self, state: &mut State) -> Result<(), Error> {
        let quiet = state.last_heard.elapsed();
        if quiet >= self.silence {
            return Err(Error::Silent(self.silence));
        }
        if quiet >= NOTICE && !state.silent {
            state.silent = true;
            self.leg.stalled("the source is silent; look at the network and at its walsender");
        }
        Ok(())
    }

    fn decode(&mut self, state: &mut State) -> Result<(), Error> {
        while let Some(frame) = state.frames.next()? {
            match frame {
                Frame::Wal { start, end, lsn, server_end } => {
                    state.server_end = state.server_end.max(server_end);
                    state.large |= end - start >= LARGE_MESSAGE;
                    let message = state.frames.slice(start, end);
                    let mut step = self.decoder.push(message, start, lsn, &mut state.batch)?;
                    while let Step::Define(relation) = step {
                        if !self.define(state, relation)? {
                            return Ok(());
                        }
                        let message = state.frames.slice(start, end);
                        step = self.decoder.push(message, start, lsn, &mut state.batch)?;
                    }
                    match step {
                        Step::Committed(end) => state.confirm_up_to(end),
                        _ => self.note_moved(state),
                    }
                    if !state.batch.is_empty() {
                        state.pending_since.get_or_insert_with(Instant::now);
                    }
                    if state.moved >= moved::MOST {
                        return Ok(());
                    }
                }
                Frame::Keepalive { server_end, reply } => {
                    state.hear_keepalive(server_end, reply, &self.decoder);
                }
                Frame::Skipped => {}
            }
        }
        if state.batch.is_empty() {
            state.frames.forget_parsed();
        }
        Ok(())
    }

    /// Completes changes whose gaps nobody behind could fill. A stop does not wait for long: what is given up
    /// comes again.
    fn complete(&mut self, state: &mut State, changes: &mut Changes) -> Result<(), Error> {
        let asked = "what the rows hold that changes came without";
        let client = self.client;
        let completed = moved::complete(client, changes, self.whole_moves);
        match self.answer(state, asked, completed)? {
            Some(()) => Ok(()),
            None => Err(Error::Abandoned),
        }
    }

    fn note_moved(&self, state: &mut State) {
        if let Some(change) = state.batch.list.last()
            && moved::may_have_gaps(&state.batch, change, self.whole_moves)
        {
            state.moved += 1;
        }
    }

    /// Waits for an answer of the catalog or the tables; nothing if the process drains first.
    pub(super) fn answer<T>(
        &mut self,
        state: &mut State,
        asked: &str,
        lookup: impl Future<Output = Result<T, Error>>,
    ) -> Result<Option<T>, Error> {
        let (runtime, begun) = (self.runtime, Instant::now());
        let mut lookup = pin!(lookup);
        loop {
            let slice = async { tokio::time::timeout(STATUS_MIN_INTERVAL, lookup.as_mut()).await };
            if let Ok(found) = runtime.block_on(slice) {
                // The source was not listened to, so it was not silent.
                state.last_heard = Instant::now();
                return Ok(Some(found?));
            }
            if begun.elapsed() >= self.silence {
                return Err(Error::Silent(self.silence));
            }
            if self.shutdown.phase() != Phase::Running {
                return Ok(None);
            }
            if begun.elapsed() >= NOTICE && !state.silent {
                state.silent = true;
                self.leg.stalled(format!(
                    "the source does not answer {asked}; look for a lock on it, and at the network"
                ));
            }
            self.status(state)?;
        }
    }

    fn is_due(&self, state: &State) -> bool {
        let waited = |since: Instant| since.elapsed() >= self.linger;
        state.pending_since.is_some_and(|since| waited(since) || state.frames.is_full())
    }

    /// Sends the batch on. While the next stage is busy the server still hears from us; it is not
    /// read from, so that it waits too.
    fn send(&mut self, state: &mut State) -> Result<(), Error> {
        if state.pending_since.take().is_none() {
            return Ok(());
        }
        let mut changes = std::mem::take(&mut state.batch);
        if !changes.is_empty() {
            changes.adopt(state.frames.take(Vec::new()));
        }
        if std::mem::take(&mut state.moved) > 0 {
            self.complete(state, &mut changes)?;
        }
        self.decoder.batch_taken();
        let position = changes.list.last().map_or(*self.delivered, |last| changes.position(last));
        self.observe(state, &changes);
        let mut copies = std::mem::take(&mut state.copies);
        let told = state.told;
        copies.extend(self.looked(told));
        let point = LogPoint { confirm: state.confirm, position, copies, ..LogPoint::default() };
        let room = self.room(state, changes.bytes())?;
        let mut hop = Hop { room: Some(room), ..Hop::new(changes, point) };
        loop {
            match self.out.try_send(hop) {
                Ok(()) => {
                    // Not before: if the connection breaks while there is no room, the batch is dropped
                    // here, and the next connection brings it again.
                    *self.delivered = position;
                    self.seen.forget_before(told);
                    return Ok(());
                }
                Err(TrySendError::Closed(_)) => return Err(Error::Abandoned),
                Err(TrySendError::Full(back)) => hop = back,
            }
            let out = self.out;
            self.wait_for(state, async { out.reserve().await.is_ok() })?;
        }
    }

    /// Waits until the batches that are on their way leave room for so many bytes.
    fn room(&mut self, state: &mut State, bytes: usize) -> Result<Room, Error> {
        loop {
            if let Some(room) = self.budget.try_take(bytes) {
                return Ok(room);
            }
            let (budget, out) = (self.budget, self.out);
            self.wait_for(state, async {
                tokio::select! {
                    _room = budget.take(bytes) => true,
                    () = out.closed() => false,
                }
            })?;
        }
    }

    /// Waits for the stages behind, for as long as the server need not hear from us. `ready` gives whether they
    /// are still there.
    fn wait_for(
        &mut self,
        state: &mut State,
        ready: impl Future<Output = bool>,
    ) -> Result<(), Error> {
        self.status(state)?;
        let waited = async { tokio::time::timeout(STATUS_MIN_INTERVAL, ready).await };
        let gone = self.runtime.block_on(waited) == Ok(false);
        state.last_heard = Instant::now();
        match gone || self.shutdown.phase() == Phase::Drained {
            true => Err(Error::Abandoned),
            false => Ok(()),
        }
    }

    fn observe(&self, state: &State, changes: &Changes) {
        self.metrics.count_changes("captured", changes);
        self.metrics.source_is_at(state.server_end);
        self.metrics.reached("captured", state.confirm);
    }

    /// Tells the server what it may forget: on its request, when that moved, and now and then.
    fn status(&mut self, state: &mut State) -> Result<(), Error> {
        let confirmed = self.ack.confirmed();
        let since = state.last_status.elapsed();
        let moved = confirmed > state.told && since >= STATUS_MIN_INTERVAL;
        let patience = ASK.min(self.silence / 2);
        let ask = state.last_heard.elapsed() >= patience;
        if !(moved || state.reply_now || since >= STATUS_INTERVAL || (ask && since >= patience)) {
            return Ok(());
        }
        let received = state.server_end.max(confirmed);
        self.connection.write_copy(&status_update(received, confirmed, ask))?;
        (state.told, state.last_status, state.reply_now) = (confirmed, Instant::now(), false);
        if self.seen.has_passed(confirmed) {
            state.pending_since.get_or_insert_with(Instant::now);
        }
        Ok(())
    }
}

/// A standby status update: written, flushed, applied, the clock, whether to answer.
#[must_use]
pub fn status_update(received: Lsn, confirmed: Lsn, ask: bool) -> Vec<u8> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let now = i64::try_from(now.as_micros()).unwrap_or(i64::MAX) - POSTGRES_EPOCH_MICROS;
    let mut update = vec![b'r'];
    for lsn in [received, confirmed, confirmed] {
        update.extend(lsn.0.to_be_bytes());
    }
    update.extend(now.to_be_bytes());
    update.push(u8::from(ask));
    update
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The server sends them amid a large transaction too, and they tell of what is behind its end.
    #[test]
    fn a_keepalive_inside_a_transaction_confirms_nothing() {
        let mut state = State::new(Lsn(0x100));
        let mut decoder = Decoder::default();
        let begin = [&b"B"[..], &0x200_u64.to_be_bytes(), &[0; 8], &[0, 0, 0, 1]].concat();
        decoder.push(&begin, 0, Lsn(0x180), &mut Changes::default()).unwrap();
        state.hear_keepalive(Lsn(0x300), true, &decoder);
        assert_eq!((state.confirm, state.server_end), (Lsn(0x100), Lsn(0x300)));
        assert!(state.pending_since.is_none() && state.reply_now);
        let end =
            [&b"C\0"[..], &0x200_u64.to_be_bytes(), &0x208_u64.to_be_bytes(), &[0; 8]].concat();
        decoder.push(&end, 0, Lsn(0x200), &mut Changes::default()).unwrap();
        state.hear_keepalive(Lsn(0x308), false, &decoder);
        assert_eq!(state.confirm, Lsn(0x308));
        assert!(state.pending_since.is_some(), "the slot of an idle database moves on");
    }
}
