//! Tables that are to be copied again, asked for over HTTP and obeyed by the capture.
//!
//! A request ends the life of the leg in order. The next life takes back that the table's copy is
//! complete, where that is recorded, before it reads anything; then it copies the table, as any that
//! was never copied whole. So whatever dies in between, the copy is taken again.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{oneshot, watch};

use crate::table::TableName;

/// Why a table is not copied again.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The role has no capture.
    #[error("this process copies no tables; ask the one that captures")]
    NoCapture,
    /// The capture starts, or copies.
    #[error(
        "tables are being copied, or the capture starts; ask again when `/readyz` says that it streams"
    )]
    Busy,
    /// There is no such copy.
    #[error("no copy of a table `{0}` is complete; names are schema.table, as in public.users")]
    Unknown(String),
    /// The source would not let it be read.
    #[error("{0}; the table was left as it is")]
    Unreadable(String),
    /// The process ended, or marking the table failed.
    #[error("no capture marked the table before it failed; ask again once the process is up")]
    Ended,
}

/// One table, and who waits for the answer.
#[derive(Debug)]
pub struct SnapshotRequest {
    /// As it was asked for: `schema.table`.
    pub table: String,
    done: oneshot::Sender<Result<(), Refused>>,
}

impl SnapshotRequest {
    /// Tells who asked that the table is marked, so that it will be copied, or that there is no copy of it.
    pub fn answer(self, marked: bool) {
        let SnapshotRequest { table, done } = self;
        // Who asked may have gone.
        done.send(if marked { Ok(()) } else { Err(Refused::Unknown(table)) }).ok();
    }

    /// Tells who asked why the table cannot be copied.
    pub fn refuse(self, why: String) {
        self.done.send(Err(Refused::Unreadable(why))).ok();
    }
}

/// The requests of a process. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct SnapshotRequests(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    captures: AtomicBool,
    /// The tables whose copies are complete, by name; none known while tables are copied.
    copied: Mutex<Option<HashSet<String>>>,
    waiting: watch::Sender<Vec<SnapshotRequest>>,
}

impl SnapshotRequests {
    /// From now on there is a capture that obeys.
    pub fn open(&self) {
        self.0.captures.store(true, Ordering::Relaxed);
    }

    /// The capture streams, and these tables are copied.
    pub fn streams<'a>(&self, copied: impl Iterator<Item = &'a TableName>) {
        let names = copied.map(ToString::to_string).collect();
        *self.0.copied.lock().unwrap_or_else(PoisonError::into_inner) = Some(names);
    }

    /// The capture copies tables; to end it now would make it copy them from their beginning.
    pub fn copies(&self) {
        *self.0.copied.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// There is no capture any more.
    pub fn close(&self) {
        self.0.captures.store(false, Ordering::Relaxed);
        drop(self.take());
    }

    /// Asks for a table; returns once it is marked, and its copy about to begin.
    ///
    /// # Errors
    /// [`Refused`]
    pub async fn ask(&self, table: String) -> Result<(), Refused> {
        if !self.0.captures.load(Ordering::Relaxed) {
            return Err(Refused::NoCapture);
        }
        match &*self.0.copied.lock().unwrap_or_else(PoisonError::into_inner) {
            None => return Err(Refused::Busy),
            Some(copied) if !copied.contains(&table) => return Err(Refused::Unknown(table)),
            Some(_) => {}
        }
        let (done, answer) = oneshot::channel();
        self.0.waiting.send_modify(|waiting| waiting.push(SnapshotRequest { table, done }));
        answer.await.unwrap_or(Err(Refused::Ended))
    }

    /// Resolves as soon as a request waits.
    pub async fn asked(&self) {
        let mut watch = self.0.waiting.subscribe();
        // The sender lives in `self`, so the wait cannot fail.
        let _asked = watch.wait_for(|waiting| !waiting.is_empty()).await;
    }

    /// Whether a request waits.
    #[must_use]
    pub fn is_asked(&self) -> bool {
        !self.0.waiting.borrow().is_empty()
    }

    /// The requests that wait; each has to be answered.
    #[must_use]
    pub fn take(&self) -> Vec<SnapshotRequest> {
        let mut taken = Vec::new();
        self.0.waiting.send_modify(|waiting| taken = std::mem::take(waiting));
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_request_is_answered_by_the_capture_that_takes_it() {
        let requests = SnapshotRequests::default();
        let ask = |table: &str| requests.ask(table.to_owned());
        assert_eq!(ask("public.users").await, Err(Refused::NoCapture));
        requests.open();
        let busy = ask("public.users").await.unwrap_err().to_string();
        assert!(busy.starts_with("tables are being copied, or the capture starts"), "{busy}");
        let name = |name: &str| TableName { schema: "public".into(), name: name.into() };
        requests.streams([name("users"), name("user"), name("x")].iter());
        let typo = Refused::Unknown("public.usr".into());
        assert_eq!(ask("public.usr").await, Err(typo), "and the stream goes on");
        let capture = async {
            requests.asked().await;
            let mut taken = requests.take();
            while taken.len() < 3 {
                requests.asked().await;
                taken.extend(requests.take());
            }
            assert!(!requests.is_asked());
            for request in taken {
                match request.table.as_str() {
                    "public.users" => request.answer(true),
                    "public.user" => request.answer(false),
                    _ => drop(request),
                }
            }
        };
        let (marked, unknown, ended, ()) =
            tokio::join!(ask("public.users"), ask("public.user"), ask("public.x"), capture);
        assert_eq!(marked, Ok(()));
        assert_eq!(unknown, Err(Refused::Unknown("public.user".into())));
        let ended = ended.unwrap_err().to_string();
        assert!(ended.starts_with("no capture marked the table"), "{ended}");
    }
}
