//! Dead letters in an operator's hands: looked at, driven through again, dropped.
//!
//! What is driven through again enters the running leg as any batch does, at the plugin that failed, and
//! is closed once it is stored. Each change has the position it always had, which ClickHouse takes for
//! its version: it never overtakes a newer version of its row, and a second drive of the same letter,
//! after a crash between the two, writes the same version again.

use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

use futures_util::future::BoxFuture;
use serde::Serialize;
use tokio::sync::mpsc::WeakSender;
use tokio::sync::{Mutex, oneshot};

use crate::change::Changes;
use crate::dead_letter::{DeadLetter, changes_of};
use crate::hop::{Hop, Redrive};
use crate::plugin::Versions;
use crate::sink::{self, Chosen, Letters, Summary};

/// Letters that go through together.
const PAGE: usize = 256;

/// The dead letters that the process can reach; cheap to clone.
#[derive(Clone, Default)]
pub struct DeadLetters(Arc<RwLock<Option<Arc<Desk>>>>);

struct Desk {
    letters: Letters,
    forward: Forward,
    plugins: Vec<Versions>,
    /// One drive at a time.
    turn: Mutex<()>,
}

/// Puts changes at the head of the leg; false: the leg has ended.
type Forward = Box<dyn Fn(Changes, Redrive) -> BoxFuture<'static, bool> + Send + Sync>;

/// What came of a drive.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Redriven {
    /// Letters whose changes are stored now.
    pub redriven: usize,
    /// Letters that failed again, and are kept.
    pub failed: usize,
}

/// Why nothing was done, or not all of it.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// The process writes to no ClickHouse.
    #[error(
        "no dead letters are kept here: those of a capture leg are in Kafka's topic \
         `<prefix>.tailwater.dead-letters`; ask the process that writes to ClickHouse"
    )]
    Elsewhere,
    /// The process is about to end.
    #[error("the leg is ending; what was not driven through is kept, so ask again after the start")]
    Ended,
    /// The plugin that failed is gone.
    #[error(
        "the plugin `{0}` is not configured any more; configure a fixed one under this name, or drop \
         its letters"
    )]
    NoPlugin(String),
    /// ClickHouse has trouble.
    #[error("the dead letters cannot be read or removed: {}", .0.sentence())]
    Store(#[from] sink::Error),
}

impl fmt::Debug for DeadLetters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DeadLetters").finish_non_exhaustive()
    }
}

impl DeadLetters {
    /// Says where letters are kept, where changes enter the leg, and which plugins it has. Said again
    /// when the leg begins anew.
    pub fn open<P: Default + Send + 'static>(
        &self,
        letters: Letters,
        head: WeakSender<Hop<P>>,
        plugins: Vec<Versions>,
    ) {
        let forward = move |changes, redrive| -> BoxFuture<'static, bool> {
            // A strong sender would keep the leg from ending.
            let head = head.upgrade();
            let hop = Hop { redrive: Some(redrive), ..Hop::new(changes, P::default()) };
            Box::pin(async move {
                let Some(head) = head else { return false };
                head.send(hop).await.is_ok()
            })
        };
        let (forward, turn) = (Box::new(forward), Mutex::default());
        let desk = Arc::new(Desk { letters, forward, plugins, turn });
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Some(desk);
    }

    /// Letters by position, `limit` at most; `values`: with what the rows hold.
    ///
    /// # Errors
    /// [`Refused::Elsewhere`], [`Refused::Store`].
    pub async fn list(
        &self,
        chosen: &Chosen,
        limit: usize,
        values: bool,
    ) -> Result<Vec<Summary>, Refused> {
        Ok(self.desk()?.letters.list(chosen, limit, values).await?)
    }

    /// Removes letters for good; how many.
    ///
    /// # Errors
    /// [`Refused::Elsewhere`], [`Refused::Store`].
    pub async fn drop(&self, chosen: &Chosen) -> Result<u64, Refused> {
        let desk = self.desk()?;
        let _turn = desk.turn.lock().await;
        let dropped = desk.letters.drop(chosen).await?;
        tracing::warn!(dropped, ?chosen, "dead letters were dropped on request");
        Ok(dropped)
    }

    /// Drives letters through again; returns when what they became is stored.
    ///
    /// # Errors
    /// [`Refused`]; what came through before that stays stored.
    pub async fn redrive(&self, chosen: &Chosen) -> Result<Redriven, Refused> {
        let desk = self.desk()?;
        let _turn = desk.turn.lock().await;
        let (mut done, mut last) = (Redriven::default(), None);
        loop {
            let page = desk.letters.page(chosen, last.as_ref(), PAGE).await?;
            let Some((_, first)) = page.first() else { break };
            let plugin = first.plugin.as_ref().map(|plugin| plugin.name.clone());
            if let Some(plugin) = plugin.as_ref().filter(|plugin| !desk.has(plugin)) {
                return Err(Refused::NoPlugin(plugin.clone()));
            }
            let is_first = |letter: &DeadLetter| {
                letter.plugin.as_ref().map(|plugin| &plugin.name) == plugin.as_ref()
            };
            let together = page.into_iter().take_while(|(_, letter)| is_first(letter));
            let (ids, letters): (Vec<String>, Vec<DeadLetter>) = together.unzip();
            last = ids.last().cloned().zip(letters.last().cloned());
            let count = letters.len();
            let failed = desk.drive(letters, ids).await?;
            done.redriven += count - failed;
            done.failed += failed;
        }
        let Redriven { redriven, failed } = done;
        tracing::info!(redriven, failed, ?chosen, "dead letters were driven through again");
        Ok(done)
    }

    fn desk(&self) -> Result<Arc<Desk>, Refused> {
        let desk = self.0.read().unwrap_or_else(PoisonError::into_inner).clone();
        desk.ok_or(Refused::Elsewhere)
    }
}

impl Desk {
    fn has(&self, plugin: &str) -> bool {
        self.plugins.iter().flat_map(Versions::list).any(|known| known.name == plugin)
    }

    /// How many failed again.
    async fn drive(&self, letters: Vec<DeadLetter>, ids: Vec<String>) -> Result<usize, Refused> {
        let changes = changes_of(&letters);
        let (done, told) = oneshot::channel();
        if !(self.forward)(changes, Redrive { letters, ids, done }).await {
            return Err(Refused::Ended);
        }
        told.await.map_err(|_| Refused::Ended)
    }
}
