//! The dead letters of one leg, and the way back into it.

use std::collections::VecDeque;

use futures_util::future::BoxFuture;
use tokio::sync::mpsc::WeakSender;
use tokio::sync::oneshot;
use tokio::task::spawn_blocking;

use super::{Redriven, Refused};
use crate::change::Changes;
use crate::dead_letter::{DeadLetter, changes_of};
use crate::hop::{Hop, Outcome, Redrive};
use crate::plugin::{Scope, Versions};
use crate::sink::{self, Chosen, Summary};
use crate::transport::{self, Entry, Starts};

/// Letters that go through together.
const PAGE: usize = 256;
/// What their originals may take together, unless there is only one.
const PAGE_BYTES: usize = 16 << 20;

/// The dead letters of one leg.
pub(super) struct Desk {
    home: Home,
    forward: Forward,
    plugins: Vec<Versions>,
    /// Whose memory is here, if it is kept by partition.
    starts: Option<Starts>,
}

/// Where letters are kept.
pub(super) enum Home {
    ClickHouse(Box<sink::Letters>),
    Kafka(transport::Letters),
}

/// Puts changes at the head of the leg; false: the leg has ended.
type Forward = Box<dyn Fn(Changes, Redrive) -> BoxFuture<'static, bool> + Send + Sync>;

/// Letters with their ids, page by page, all of a page of one plugin, by position.
enum Pages {
    ClickHouse {
        letters: Box<sink::Letters>,
        chosen: Chosen,
        last: Option<Box<(String, DeadLetter)>>,
    },
    Kafka {
        letters: transport::Letters,
        open: VecDeque<Entry>,
    },
}

type Page = Vec<(String, DeadLetter)>;

fn plugin_of(letter: &DeadLetter) -> Option<&str> {
    letter.plugin.as_ref().map(|plugin| plugin.name.as_str())
}

impl Desk {
    pub(super) fn new<P: Default + Send + 'static>(
        home: Home,
        head: &WeakSender<Hop<P>>,
        plugins: Vec<Versions>,
        starts: Option<Starts>,
    ) -> Desk {
        let head = head.clone();
        let forward = move |changes, redrive| -> BoxFuture<'static, bool> {
            // A strong sender would keep the leg from ending.
            let head = head.upgrade();
            let hop = Hop { redrive: Some(redrive), ..Hop::new(changes, P::default()) };
            Box::pin(async move {
                let Some(head) = head else { return false };
                head.send(hop).await.is_ok()
            })
        };
        Desk { home, forward: Box::new(forward), plugins, starts }
    }

    /// The letters in Kafka, if these are.
    pub(super) fn topic(&self) -> Option<transport::Letters> {
        match &self.home {
            Home::Kafka(letters) => Some(letters.clone()),
            Home::ClickHouse(_) => None,
        }
    }

    /// The first letters by position, and how many there are in all.
    pub(super) async fn list(
        &self,
        chosen: &Chosen,
        limit: usize,
        values: bool,
    ) -> Result<(Vec<Summary>, u64), Refused> {
        let kept = |kept: &str, letter: Summary| Summary { kept: kept.to_owned(), ..letter };
        match &self.home {
            Home::ClickHouse(letters) => {
                let found = letters.list(chosen, limit, values).await?;
                let total = match found.len() < limit {
                    true => found.len() as u64,
                    false => letters.count(chosen).await?,
                };
                Ok((found.into_iter().map(|letter| kept("clickhouse", letter)).collect(), total))
            }
            Home::Kafka(letters) => {
                let mut open = open(letters, chosen).await?;
                let total = open.len() as u64;
                open.sort_by_key(|entry| entry.letter.position);
                open.truncate(limit);
                let mut found: Vec<Summary> = open.iter().map(summary).collect();
                if values {
                    let originals = whole(letters, open).await?;
                    for letter in &mut found {
                        let original = originals.iter().find(|(id, _)| *id == letter.id);
                        letter.original = original.map(|(_, whole)| whole.original.clone());
                    }
                } else {
                    found.iter_mut().for_each(|letter| letter.backtrace = None);
                }
                Ok((found.into_iter().map(|letter| kept("kafka", letter)).collect(), total))
            }
        }
    }

    pub(super) async fn discard(&self, chosen: &Chosen) -> Result<u64, Refused> {
        let letters = match &self.home {
            Home::ClickHouse(letters) => return Ok(sink::Letters::drop(letters, chosen).await?),
            Home::Kafka(letters) => letters,
        };
        let open = open(letters, chosen).await?.into();
        let mut pages = Pages::Kafka { letters: letters.clone(), open };
        let mut dropped = 0;
        while let Some(page) = pages.next().await? {
            let outcome = self.drive(page, Scope::default(), true).await?;
            dropped += outcome.closed.len() as u64;
        }
        Ok(dropped)
    }

    pub(super) async fn redrive(
        &self,
        chosen: &Chosen,
        done: &mut Redriven,
    ) -> Result<(), Refused> {
        let mut pages = self.pages(chosen).await?;
        while let Some(page) = pages.next().await? {
            let plugin = page.first().and_then(|(_, letter)| plugin_of(letter));
            if let Some(plugin) = plugin.filter(|plugin| !self.has(plugin)) {
                if chosen.plugin.is_some() || chosen.id.is_some() {
                    return Err(Refused::NoPlugin(plugin.to_owned()));
                }
                // Those of others are not kept waiting.
                done.gone += page.len();
                continue;
            }
            for page in by_scope(page) {
                let count = page.len();
                let Some(scope) = self.scope(&page) else {
                    done.elsewhere += count;
                    continue;
                };
                let failed = self.drive(page, scope, false).await?.failed;
                done.redriven += count - failed;
                done.failed += failed;
            }
        }
        Ok(())
    }

    async fn pages(&self, chosen: &Chosen) -> Result<Pages, Refused> {
        Ok(match &self.home {
            Home::ClickHouse(letters) => {
                Pages::ClickHouse { letters: letters.clone(), chosen: chosen.clone(), last: None }
            }
            Home::Kafka(letters) => {
                let mut open = open(letters, chosen).await?;
                open.retain(|entry| entry.redrivable);
                Pages::Kafka { letters: letters.clone(), open: open.into() }
            }
        })
    }

    fn has(&self, plugin: &str) -> bool {
        self.plugins.iter().flat_map(Versions::list).any(|known| known.name == plugin)
    }

    /// The memory that the plugins have of the letters, which are of one scope; none if it is not here.
    fn scope(&self, page: &Page) -> Option<Scope> {
        let Some(((_, letter), starts)) = page.first().zip(self.starts.as_ref()) else {
            return Some(Scope::default());
        };
        match letter.plugin {
            Some(_) => starts.current(letter.scope()).map(Scope::from),
            None => Some(Scope::default()),
        }
    }

    async fn drive(&self, page: Page, scope: Scope, dropped: bool) -> Result<Outcome, Refused> {
        let (ids, letters): (Vec<String>, Vec<DeadLetter>) = page.into_iter().unzip();
        let changes = if dropped { Changes::default() } else { changes_of(&letters) };
        let (done, told) = oneshot::channel();
        let redrive = Redrive { letters, ids, dropped, scope, done };
        if !(self.forward)(changes, redrive).await {
            return Err(Refused::Ended);
        }
        let outcome = told.await.map_err(|_| Refused::Ended)?;
        if let Home::Kafka(letters) = &self.home {
            letters.note_closed(outcome.closed.clone());
        }
        Ok(outcome)
    }
}

impl Pages {
    async fn next(&mut self) -> Result<Option<Page>, Refused> {
        match self {
            Pages::ClickHouse { letters, chosen, last } => {
                let mut page = letters.page(chosen, last.as_deref(), PAGE, PAGE_BYTES).await?;
                let first = page.first().map(|(_, letter)| plugin_of(letter).map(str::to_owned));
                let Some(first) = first else { return Ok(None) };
                let other =
                    |(_, letter): &(String, DeadLetter)| plugin_of(letter) != first.as_deref();
                page.truncate(page.iter().position(other).unwrap_or(page.len()));
                *last = page.last().cloned().map(Box::new);
                Ok(Some(page))
            }
            Pages::Kafka { letters, open } => {
                while let Some(first) = open.pop_front() {
                    let mut bytes = first.bytes;
                    let more = open.iter().take(PAGE - 1).take_while(|next| {
                        bytes += next.bytes;
                        plugin_of(&next.letter) == plugin_of(&first.letter) && bytes <= PAGE_BYTES
                    });
                    let more = more.count();
                    let together = std::iter::once(first).chain(open.drain(..more)).collect();
                    let page = whole(letters, together).await?;
                    if !page.is_empty() {
                        return Ok(Some(page));
                    }
                }
                Ok(None)
            }
        }
    }
}

/// In parts of one scope each; the order stays within each.
fn by_scope(page: Page) -> Vec<Page> {
    let mut parts: Vec<Page> = Vec::new();
    for (id, letter) in page {
        let part = parts.iter_mut().find(|part| part[0].1.scope() == letter.scope());
        match part {
            Some(part) => part.push((id, letter)),
            None => parts.push(vec![(id, letter)]),
        }
    }
    parts
}

async fn open(letters: &transport::Letters, chosen: &Chosen) -> Result<Vec<Entry>, Refused> {
    let (letters, chosen) = (letters.clone(), chosen.clone());
    let wanted = move |id: &str, letter: &DeadLetter| {
        let fits = |wanted: Option<&String>, is: &str| wanted.is_none_or(|wanted| wanted == is);
        fits(chosen.id.as_ref(), id)
            && fits(chosen.plugin.as_ref(), plugin_of(letter).unwrap_or_default())
            && fits(chosen.table.as_ref(), &letter.table)
    };
    let reading = spawn_blocking(move || letters.open(wanted));
    Ok(reading.await.expect("reading a topic does not panic")?)
}

async fn whole(letters: &transport::Letters, entries: Vec<Entry>) -> Result<Page, Refused> {
    let letters = letters.clone();
    let reading = spawn_blocking(move || letters.whole(&entries));
    Ok(reading.await.expect("reading a topic does not panic")?)
}

fn summary(entry: &Entry) -> Summary {
    let Entry { id, letter, redrivable, .. } = entry;
    let stage = serde_json::to_value(letter.stage).expect("a stage is a word");
    let plugin = letter.plugin.as_ref();
    Summary {
        id: id.clone(),
        position: letter.position.to_string(),
        table: letter.table.clone(),
        op: letter.op.clone(),
        stage: stage.as_str().unwrap_or_default().to_owned(),
        plugin: plugin.map(|plugin| plugin.name.clone()).unwrap_or_default(),
        digest: plugin.map(|plugin| plugin.digest.clone()).unwrap_or_default(),
        reason: letter.reason.clone(),
        redrivable: *redrivable,
        kept: String::new(),
        backtrace: letter.backtrace.clone(),
        original: None,
    }
}
