//! The plugins of a leg, which go from life to life, and what they remember.

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Arc;

use tokio::sync::mpsc::{Receiver, Sender};
use tokio::task::{JoinHandle, block_in_place};
use tracing::warn;

use super::keeper::Kept;
use super::remembered::{self, CaptureLedger, SinkLedger};
use super::source::Source;
use super::transform::Transform;
use super::{Error, Pipeline};
use crate::capture::Resume;
use crate::dead_letter::OpenLetters;
use crate::hop::{Hop, Point};
use crate::plugin::{self, Stage, StateStore, Versions};
use crate::position::Position;
use crate::transport::Starts;

/// Why the plugins are there when a life begins.
const GIVEN_BACK: &str = "every life of a leg gives the plugins back";

/// The stage at work, which has the plugins meanwhile.
pub(super) type Transforming = JoinHandle<(Transform, Result<(), plugin::Error>)>;

/// The plugins of one leg.
pub(super) struct Plugins {
    /// None while a life has them.
    transform: Option<Transform>,
    /// What they remember, if one of them remembers anything.
    memory: Option<Memory>,
}

/// The memory of a leg's plugins, which stays open from life to life.
struct Memory {
    directory: PathBuf,
    /// What it is called there.
    name: String,
    open: Option<Arc<StateStore>>,
}

impl Memory {
    /// Opened by the first life, when all that tells of a leg is up: the disk may stand still.
    fn store(&mut self, remembering: &HashSet<&str>) -> Result<Arc<StateStore>, Error> {
        if let Some(store) = &self.open {
            return Ok(Arc::clone(store));
        }
        // It must not hold up the rest of the process.
        let store = block_in_place(|| StateStore::open(&self.directory, &self.name))?;
        store.forget_plugins_but(remembering)?;
        Ok(Arc::clone(self.open.insert(Arc::new(store))))
    }
}

impl Plugins {
    /// Which versions run, chain by chain.
    pub(super) fn versions(&self) -> Vec<Versions> {
        self.transform.as_ref().expect(GIVEN_BACK).versions()
    }

    /// Puts their memory back and moves the resume position to where it ends. `sent` is what is one hop on,
    /// where that is known.
    pub(super) fn resume_capture(
        &mut self,
        source: &Source,
        resume: &mut Resume,
        sent: Option<Position>,
    ) -> Result<Option<Kept<CaptureLedger>>, Error> {
        let transform = self.transform.as_mut().expect(GIVEN_BACK);
        let Some(memory) = &mut self.memory else { return Ok(None) };
        let store = memory.store(&transform.remembering().collect())?;
        remembered::resume_capture(&store, transform, source, resume, sent).map(Some)
    }

    /// Puts their memory of all partitions back, and says where each of them ends.
    pub(super) fn resume_sink(&mut self) -> Result<Option<(Starts, Kept<SinkLedger>)>, Error> {
        let transform = self.transform.as_mut().expect(GIVEN_BACK);
        let Some(memory) = &mut self.memory else { return Ok(None) };
        let store = memory.store(&transform.remembering().collect())?;
        remembered::resume_sink(&store, transform).map(Some)
    }

    /// Starts the stage, as [`Transform::spawn`] says.
    pub(super) fn spawn<P: Point>(
        &mut self,
        input: Receiver<Hop<P>>,
        output: Sender<Hop<P>>,
        open: Option<OpenLetters>,
    ) -> Transforming {
        self.transform.take().expect(GIVEN_BACK).spawn(input, output, open)
    }

    /// Waits for the end of the stage, and has the plugins again.
    pub(super) async fn come_back(
        &mut self,
        transforming: Transforming,
    ) -> Result<(), plugin::Error> {
        let (transform, ended) = transforming.await.expect("the transform does not panic");
        self.transform = Some(transform);
        ended
    }
}

impl Pipeline {
    /// Loads the plugins of these stages. Their memory is named after the leg and `name`.
    pub(super) fn plugins(
        &self,
        stages: &[Stage],
        leg: &str,
        name: &str,
    ) -> Result<Plugins, Error> {
        let metrics = self.report.metrics();
        let transform = Transform::load(&self.plugins, &self.config.plugin, stages, metrics)?;
        self.report.plugins(stages, transform.versions());
        for options in transform.deduplicating() {
            let unheard = self.config.unheard_by(options).join(", ");
            if !unheard.is_empty() {
                warn!(
                    plugin = options.name,
                    unheard,
                    "a plugin of the sink that tells duplicates does not hear of what plugins of the \
                     capture set aside; a redrive of it may bring an older value back"
                );
            }
        }
        let memory = transform.remembering().next().is_some().then(|| Memory {
            directory: self.config.plugin_memory(),
            name: format!("{leg}-{name}"),
            open: None,
        });
        Ok(Plugins { transform: Some(transform), memory })
    }
}
