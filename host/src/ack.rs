//! Step 7, `ack`: the only code that lets a source forget.
//!
//! A point `P` of a source (an LSN of the slot, offsets of a consumer) may be acknowledged once
//! everything up to it is durable one hop on. [`Durable`] is the proof: it can be made only from
//! [`Delivered`], which the Kafka producer builds after a commit, or from [`Stored`], which the
//! ClickHouse sink builds after an insert. Nobody else can construct either, so "durable before
//! ack" is checked by the compiler.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::hop::{LogPoint, Point};
use crate::plugin::Delta;
use crate::position::Lsn;
use crate::sink::Stored;
use crate::transport::Delivered;

/// Proof that everything up to the point is durable one hop on.
#[derive(Debug)]
pub struct Durable<P>(P);

impl<P> Durable<P> {
    /// The point that may now be acknowledged.
    pub fn into_point(self) -> P {
        self.0
    }
}

impl<P: Point> Durable<P> {
    /// The point, to be looked at.
    pub fn point(&self) -> &P {
        &self.0
    }

    /// What the plugins remember of everything up to the point.
    pub fn take_remembered(&mut self) -> Vec<Delta> {
        self.0.take_remembered()
    }
}

impl<P> From<Delivered<P>> for Durable<P> {
    fn from(delivered: Delivered<P>) -> Self {
        Durable(delivered.into_point())
    }
}

impl<P> From<Stored<P>> for Durable<P> {
    fn from(stored: Stored<P>) -> Self {
        Durable(stored.into_point())
    }
}

/// The slot's acknowledged position, shared between the stage that makes changes durable and the
/// capture thread that tells the server. It only moves forward.
#[derive(Debug, Clone, Default)]
pub struct SlotAck(Arc<AtomicU64>);

impl SlotAck {
    /// Starts at what the slot has confirmed already.
    pub fn start_at(&self, confirmed: Lsn) {
        self.0.fetch_max(confirmed.0, Ordering::AcqRel);
    }

    /// Moves to the point, unless it is already past it; gives where that is.
    pub fn advance(&self, durable: impl Into<Durable<LogPoint>>) -> Lsn {
        let point = durable.into().into_point();
        let before = self.0.fetch_max(point.confirm.0, Ordering::AcqRel);
        Lsn(before).max(point.confirm)
    }

    /// What may be confirmed to the server.
    #[must_use]
    pub fn confirmed(&self) -> Lsn {
        Lsn(self.0.load(Ordering::Acquire))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_slot_position_never_moves_back() {
        let ack = SlotAck::default();
        ack.start_at(Lsn(10));
        let at = |lsn| Durable(LogPoint { confirm: Lsn(lsn), ..LogPoint::default() });
        ack.advance(at(30));
        ack.advance(at(20));
        assert_eq!(ack.confirmed(), Lsn(30));
    }
}
