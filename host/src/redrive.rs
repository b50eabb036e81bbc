//! Dead letters in an operator's hands: looked at, driven through again, dropped.
//!
//! What is driven through again enters the leg that gave up on it as any batch does, at the plugin that
//! failed, and is closed once what it became is durable one hop on. Each change has the position it
//! always had, which ClickHouse takes for its version: it never overtakes a newer version of its row, and
//! a second drive of the same letter, after a crash between the two, writes the same version again. Into
//! Kafka it goes in one transaction with the record that closes it, so there is no second drive.

mod desk;

use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

use serde::Serialize;
use tokio::sync::Mutex;
use tokio::sync::mpsc::WeakSender;

use crate::hop::{Hop, LogPoint};
use crate::plugin::Versions;
use crate::position::Position;
use crate::sink::{self, Chosen, Summary};
use crate::telemetry::logging::chain;
use crate::transport::{self, Offsets, Starts};
use desk::{Desk, Home};

/// Letters that a list has at the most, unless it is asked for more or less.
pub const LISTED: usize = 100;

/// The dead letters that the process can reach; cheap to clone.
#[derive(Clone, Default)]
pub struct DeadLetters(Arc<Shared>);

#[derive(Default)]
struct Shared {
    desks: RwLock<Desks>,
    /// One drive at a time.
    turn: Mutex<()>,
}

#[derive(Default)]
struct Desks {
    /// Of the leg into Kafka.
    sent: Option<Arc<Desk>>,
    /// Of the leg into ClickHouse.
    stored: Option<Arc<Desk>>,
}

/// A list of letters without what their rows hold.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Listed {
    /// By position.
    pub letters: Vec<Summary>,
    /// How many there are besides.
    pub more: u64,
}

/// What came of a drive.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Redriven {
    /// Letters whose changes are durable one hop on now.
    pub redriven: usize,
    /// Letters that failed again, and are kept.
    pub failed: usize,
    /// Letters that were left alone: what plugins remember of their partitions is with another process
    /// of the group.
    pub elsewhere: usize,
    /// Letters that were left alone: the plugin that failed on them is not configured any more.
    pub gone: usize,
}

/// Why nothing was done, or not all of it.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// No leg is up yet.
    #[error("no dead letters can be reached yet: the leg that keeps them is starting; ask again")]
    Starting,
    /// The process is about to end, or begins its leg anew.
    #[error("the leg is ending; what was not driven through is kept, so ask again after the start")]
    Ended,
    /// The plugin that failed is gone, and its letters were asked for by its name or by theirs.
    #[error(
        "the plugin `{0}` is not configured any more; configure a fixed one under this name, or drop \
         its letters"
    )]
    NoPlugin(String),
    /// ClickHouse has trouble.
    #[error("the dead letters cannot be read or removed: {}", .0.sentence())]
    Store(#[from] sink::Error),
    /// Kafka has trouble.
    #[error("the dead letters in Kafka cannot be read: {}", chain(.0))]
    Topic(#[from] transport::Error),
}

impl fmt::Debug for DeadLetters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DeadLetters").finish_non_exhaustive()
    }
}

impl DeadLetters {
    /// Those of the leg from PostgreSQL to ClickHouse.
    pub fn open_direct(
        &self,
        letters: sink::Letters,
        head: &WeakSender<Hop<LogPoint>>,
        plugins: Vec<Versions>,
    ) {
        let desk = Desk::new(Home::ClickHouse(Box::new(letters)), head, plugins, None);
        self.desks_mut().stored = Some(Arc::new(desk));
    }

    /// Those of the leg from PostgreSQL, this database, to Kafka. Said again when the leg begins anew.
    pub fn open_sent(
        &self,
        kafka: &transport::Options,
        database: &str,
        head: &WeakSender<Hop<LogPoint>>,
        plugins: Vec<Versions>,
    ) {
        let mut desks = self.desks_mut();
        // What was closed a moment ago is known to the letters of the leg's life before.
        let known = desks.sent.as_ref().and_then(|desk| desk.topic());
        let letters = known.unwrap_or_else(|| transport::Letters::of(kafka, database));
        let desk = Desk::new(Home::Kafka(letters), head, plugins, None);
        desks.sent = Some(Arc::new(desk));
    }

    /// Those of the leg from Kafka to ClickHouse; `starts` if its plugins remember.
    pub fn open_stored(
        &self,
        letters: sink::Letters,
        head: &WeakSender<Hop<Offsets>>,
        plugins: Vec<Versions>,
        starts: Option<Starts>,
    ) {
        let desk = Desk::new(Home::ClickHouse(Box::new(letters)), head, plugins, starts);
        self.desks_mut().stored = Some(Arc::new(desk));
    }

    /// The first letters by position, `limit` at most.
    ///
    /// # Errors
    /// [`Refused::Starting`], [`Refused::Store`], [`Refused::Topic`].
    pub async fn list(&self, chosen: &Chosen, limit: usize) -> Result<Listed, Refused> {
        let (mut letters, mut total) = (Vec::new(), 0);
        for desk in self.desks()? {
            let (found, count) = desk.list(chosen, limit, false).await?;
            letters.extend(found);
            total += count;
        }
        let position = |letter: &Summary| letter.position.parse::<Position>().unwrap_or_default();
        letters.sort_by_cached_key(|letter| (position(letter), letter.id.clone()));
        letters.truncate(limit);
        let more = total.saturating_sub(letters.len() as u64);
        Ok(Listed { letters, more })
    }

    /// One letter with what its row holds, if there is one of that id.
    ///
    /// # Errors
    /// As [`DeadLetters::list`].
    pub async fn show(&self, id: &str) -> Result<Option<Summary>, Refused> {
        let chosen = Chosen { id: Some(id.to_owned()), ..Chosen::default() };
        for desk in self.desks()? {
            let (found, _) = desk.list(&chosen, 1, true).await?;
            if let Some(letter) = found.into_iter().next() {
                return Ok(Some(letter));
            }
        }
        Ok(None)
    }

    /// Removes letters for good; how many. Those in Kafka are closed: their records stay in the topic.
    ///
    /// # Errors
    /// [`Refused`] but for [`Refused::NoPlugin`].
    pub async fn drop(&self, chosen: &Chosen) -> Result<u64, Refused> {
        let (desks, chosen) = (self.desks()?, chosen.clone());
        self.to_the_end(async move {
            let mut dropped = 0;
            for desk in desks {
                dropped += desk.discard(&chosen).await?;
            }
            tracing::warn!(dropped, ?chosen, "dead letters were dropped on request");
            Ok(dropped)
        })
        .await
    }

    /// Drives letters through again; returns when what they became is durable one hop on: those of
    /// the leg into Kafka in its topics, the others in ClickHouse.
    ///
    /// # Errors
    /// [`Refused`]; what came through before that stays.
    pub async fn redrive(&self, chosen: &Chosen) -> Result<Redriven, Refused> {
        let (desks, chosen) = (self.desks()?, chosen.clone());
        self.to_the_end(async move {
            let mut done = Redriven::default();
            for desk in desks {
                desk.redrive(&chosen, &mut done).await?;
            }
            let Redriven { redriven, failed, elsewhere, gone } = done;
            tracing::info!(
                redriven,
                failed,
                elsewhere,
                gone,
                ?chosen,
                "dead letters were driven through again"
            );
            Ok(done)
        })
        .await
    }

    /// One at a time, and to its end if who asked goes meanwhile: what is on its way is not closed yet, and
    /// another drive would send it again.
    async fn to_the_end<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, Refused>> + Send + 'static,
    ) -> Result<T, Refused> {
        let letters = self.clone();
        let doing = tokio::spawn(async move {
            let _turn = letters.0.turn.lock().await;
            work.await
        });
        doing.await.unwrap_or(Err(Refused::Ended))
    }

    /// In the order of the way.
    fn desks(&self) -> Result<Vec<Arc<Desk>>, Refused> {
        let desks = self.0.desks.read().unwrap_or_else(PoisonError::into_inner);
        let open: Vec<_> = desks.sent.iter().chain(&desks.stored).map(Arc::clone).collect();
        if open.is_empty() { Err(Refused::Starting) } else { Ok(open) }
    }

    fn desks_mut(&self) -> std::sync::RwLockWriteGuard<'_, Desks> {
        self.0.desks.write().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    #[tokio::test]
    async fn before_a_leg_is_up_no_letter_can_be_reached() {
        let letters = DeadLetters::default();
        let refused = letters.list(&Chosen::default(), 1).await.unwrap_err();
        assert!(refused.to_string().contains("can be reached yet"), "{refused}");
        assert!(letters.redrive(&Chosen::default()).await.is_err());
    }

    #[tokio::test]
    async fn a_drive_whose_asker_goes_ends_before_the_next_one_begins() {
        let letters = DeadLetters::default();
        let (end, ended) = tokio::sync::oneshot::channel::<()>();
        let begun = Arc::new(tokio::sync::Notify::new());
        let begins = Arc::clone(&begun);
        let asker = letters.clone();
        let first = tokio::spawn(async move {
            asker
                .to_the_end(async move {
                    begins.notify_one();
                    drop(ended.await);
                    Ok(())
                })
                .await
        });
        begun.notified().await;
        first.abort();
        assert!(first.await.unwrap_err().is_cancelled());
        let mut second = std::pin::pin!(letters.to_the_end(async { Ok(2) }));
        assert!(second.as_mut().now_or_never().is_none());
        tokio::task::yield_now().await;
        assert!(second.as_mut().now_or_never().is_none(), "the first one goes on");
        end.send(()).unwrap();
        assert_eq!(second.await.unwrap(), 2);
    }

    #[test]
    fn letters_in_a_server_that_has_trouble_are_refused_with_its_reason() {
        let (task, detail) = ("read dead letters".to_owned(), "nonsense".to_owned());
        let refused = Refused::from(sink::Error::Answer { task, detail }).to_string();
        assert!(refused.contains("cannot be read or removed"), "{refused}");
    }

    #[tokio::test]
    async fn letters_in_a_broker_that_is_away_are_refused_with_its_reason() {
        let (head, _legs) = tokio::sync::mpsc::channel(1);
        let kafka = "brokers = \"127.0.0.1:1\"\n[librdkafka]\n\"no.such.setting\" = \"x\"";
        let kafka: transport::Options = toml::from_str(kafka).unwrap();
        let letters = DeadLetters::default();
        letters.open_sent(&kafka, "shop", &head.downgrade(), Vec::new());
        let refused = letters.list(&Chosen::default(), 1).await.unwrap_err();
        let said = refused.to_string();
        assert!(said.contains("letters in Kafka cannot be read: the kafka settings"), "{said}");
    }
}
