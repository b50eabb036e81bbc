//! A new version takes over while events flow.
//!
//! The directory is watched, because an atomic rename replaces the file itself. When it has been
//! quiet for a moment the file's digest decides whether there is anything to do. Everything slow
//! (reading, compiling, `init`, its golden events, a look at the last batches) happens on the watching
//! thread while the running version goes on; the chain swaps at its next batch. A version that does not load
//! changes nothing.

use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::thread;
use std::time::Duration;

use notify::event::{AccessKind, AccessMode};
use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher};

use crate::plugin::digest;
use crate::plugin::error::Error;
use crate::plugin::golden;
use crate::plugin::guest::Role;
use crate::plugin::options::Options;
use crate::plugin::versions::handover::Handover;
use crate::plugin::versions::loader::{Loaded, Loader, Version};
use crate::plugin::versions::shadow::{self, Shadow};
use crate::telemetry::logging::chain;

/// How long the directory must be quiet: a build writes its output in pieces.
const QUIET: Duration = Duration::from_millis(100);

/// Watches until it is dropped.
pub(crate) struct Watch(Arc<Mutex<RecommendedWatcher>>);

/// Both ends of how the thread that loads new versions is asked: before it listens, too.
pub(crate) type Asks = (Sender<Ask>, Receiver<Ask>);

struct Reloader {
    loader: Loader,
    handover: Arc<Handover>,
    role: Role,
    /// Whether the version that the process began with has a state.
    has_state: bool,
    /// Gone when the chain is.
    watcher: Weak<Mutex<RecommendedWatcher>>,
    /// The directory that it watches.
    watched: PathBuf,
    /// What was looked at last: the file's digest, its settings, and the digest of its golden events,
    /// which may be mended while the file stays as it is. Empty: nothing yet.
    looked_at: String,
    /// What of that came out last of the version that runs: its golden events may change under it.
    sound: String,
}

/// What the thread is asked for.
pub(crate) enum Ask {
    /// The file may have changed.
    Look,
    /// Somebody wants to know what becomes of it.
    Reload {
        /// Other settings.
        options: Option<Box<Options>>,
        answer: Sender<Result<Reloaded, String>>,
    },
}

/// What a reload came to.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase", tag = "result")]
pub enum Reloaded {
    /// The version runs already, or is about to.
    Unchanged,
    /// It takes over at the next batch.
    Accepted {
        /// SHA-256 of the component, hex.
        digest: String,
        /// What it made of the last batches beside the version before, if that was compared.
        #[serde(skip_serializing_if = "Option::is_none")]
        shadow: Option<Shadow>,
    },
}

/// Begins to watch a plugin's file, which may be replaced while it is loaded.
pub(crate) fn watch(options: &Options) -> Result<(Watch, Asks), Error> {
    let directory = directory_of(&options.path);
    let fail = |source| Error::Watch { path: directory.clone(), source };
    let (asking, asked) = mpsc::channel();
    let looking = asking.clone();
    let forward = move |event: notify::Result<notify::Event>| {
        if event.map_or(true, |event| may_change(event.kind)) {
            // The thread ends before the watcher only when the process does.
            looking.send(Ask::Look).ok();
        }
    };
    let mut watcher = notify::recommended_watcher(forward).map_err(fail)?;
    watcher.watch(&directory, RecursiveMode::NonRecursive).map_err(fail)?;
    Ok((Watch(Arc::new(Mutex::new(watcher))), (asking, asked)))
}

fn directory_of(file: &Path) -> PathBuf {
    match file.parent() {
        Some(parent) if parent != Path::new("") => parent.to_owned(),
        _ => PathBuf::from("."),
    }
}

/// Loads a new version whenever it is asked for.
pub(crate) fn follow(
    loader: Loader,
    role: Role,
    handover: Arc<Handover>,
    watch: &Watch,
    asked: Receiver<Ask>,
) {
    let has_state = loader.options.has_state();
    let name = format!("reload-{}", loader.options.name);
    let (watcher, watched) = (Arc::downgrade(&watch.0), directory_of(&loader.options.path));
    let (looked_at, sound) = (String::new(), String::new());
    let loader = loader.yielding();
    let reloader =
        Reloader { loader, handover, role, has_state, watcher, watched, looked_at, sound };
    let builder = thread::Builder::new().name(name);
    builder.spawn(move || reloader.follow(&asked)).expect("a service can start a thread");
}

/// Reading the file makes events too; only those after a write count.
fn may_change(kind: EventKind) -> bool {
    match kind {
        EventKind::Access(access) => access == AccessKind::Close(AccessMode::Write),
        _ => true,
    }
}

impl Reloader {
    fn follow(mut self, asked: &Receiver<Ask>) {
        let mut next = asked.recv().ok();
        while let Some(ask) = next.take() {
            match ask {
                Ask::Reload { options, answer } => {
                    let adopted = options.map_or(Ok(()), |options| self.adopt(*options));
                    let done = match adopted {
                        Ok(()) => self.reload(),
                        Err(error) => Err(self.reject(&chain(&error))),
                    };
                    // Who asked may have gone.
                    answer.send(done).ok();
                }
                Ask::Look => {
                    // Until it has been quiet for a moment, or somebody asks.
                    loop {
                        match asked.recv_timeout(QUIET) {
                            Ok(Ask::Look) => {}
                            Ok(ask) => break next = Some(ask),
                            Err(_) => break,
                        }
                    }
                    self.look();
                }
            }
            next = next.or_else(|| asked.recv().ok());
        }
    }

    /// Takes over other settings, and watches the file where it lies by them.
    fn adopt(&mut self, options: Options) -> Result<(), Error> {
        if options.stage != self.loader.options.stage {
            return Err(Error::StageChanged { plugin: options.name });
        }
        // Before the file is read, so that no change of it is missed.
        let watching = self.watch_at(directory_of(&options.path));
        self.loader.options = Arc::new(options);
        // That there is no such file is told when it is read.
        if self.loader.options.path.exists() { watching } else { Ok(()) }
    }

    fn watch_at(&mut self, directory: PathBuf) -> Result<(), Error> {
        let Some(watcher) = self.watcher.upgrade().filter(|_| directory != self.watched) else {
            return Ok(());
        };
        let mut watcher = watcher.lock().unwrap_or_else(PoisonError::into_inner);
        let watching = watcher.watch(&directory, RecursiveMode::NonRecursive);
        watching.map_err(|source| Error::Watch { path: directory.clone(), source })?;
        // It may be gone, and with it the watch.
        watcher.unwatch(&self.watched).ok();
        self.watched = directory;
        Ok(())
    }

    /// Looks at the file and its golden events unless it did already.
    fn look(&mut self) {
        // The file is missing for a moment while it is replaced.
        let Ok(digest) = self.digest() else { return };
        if self.with_golden(&Version::identity_of(&digest, &self.loader.options)) != self.looked_at
        {
            // What it came to is in the log and in the status.
            self.reload().ok();
        }
    }

    fn digest(&self) -> std::io::Result<String> {
        digest::of_file(&self.loader.options.path).map(|(digest, _)| digest)
    }

    fn with_golden(&self, identity: &str) -> String {
        let golden = digest::of_file(&golden::beside(&self.loader.options.path));
        let digest = golden.map(|(digest, _)| digest).unwrap_or_default();
        format!("{identity} {digest}")
    }

    fn reload(&mut self) -> Result<Reloaded, String> {
        let options = &self.loader.options;
        if let Ok(digest) = self.digest() {
            let identity = Version::identity_of(&digest, options);
            self.looked_at = self.with_golden(&identity);
            if self.handover.is_accepted(&identity) {
                return self.test_again(&digest);
            }
            let quarantine = &self.loader.runtime.quarantine;
            if let Some(ban) = quarantine.find(&digest, options) {
                quarantine.goes_on(&ban, options, &self.handover.accepted());
                return Err(self.reject(&chain(&quarantine.refusal(ban, options))));
            }
        }
        match self.load() {
            Ok(loaded) => {
                let shadow = self.compare(&loaded).map_err(|why| self.reject(&why))?;
                Ok(self.hand_over(loaded, shadow))
            }
            Err(error) => Err(self.reject(&chain(&error))),
        }
    }

    /// The version runs already, or is about to. Its golden events may be others than those that it was
    /// tested on, and a start would refuse it for them.
    fn test_again(&mut self, digest: &str) -> Result<Reloaded, String> {
        let (runtime, options) = (&self.loader.runtime, &self.loader.options);
        if self.sound != self.looked_at
            && let Err(error) = golden::self_test(runtime, options, digest)
        {
            let (plugin, why) = (&options.name, chain(&error));
            tracing::error!(
                %plugin, why, "plugin version goes on, but the next start will refuse it"
            );
            let why = format!("{why}; the version goes on, but the next start will refuse it");
            self.handover.fail(why.clone());
            return Err(why);
        }
        self.sound.clone_from(&self.looked_at);
        self.handover.settle();
        Ok(Reloaded::Unchanged)
    }

    fn load(&self) -> Result<Loaded, Error> {
        self.loader.options.check()?;
        if self.loader.options.has_state() != self.has_state {
            return Err(Error::GrantChanged { plugin: self.loader.options.name.clone() });
        }
        let loaded = self.loader.load()?;
        if (loaded.version.role == Role::Dedup) != (self.role == Role::Dedup) {
            return Err(Error::RoleChanged {
                path: self.loader.options.path.clone(),
                old: self.role.world(),
                new: loaded.version.role.world(),
            });
        }
        self.loader.tested(loaded)
    }

    /// Shows the new version the last batches of the running one, if that is asked for. The error: too
    /// much differs, or it does not start for it.
    fn compare(&self, loaded: &Loaded) -> Result<Option<Shadow>, String> {
        let options = &self.loader.options;
        self.handover.tell(None);
        if options.shadow_batches == 0 {
            return Ok(None);
        }
        let (plugin, digest) = (&options.name, &loaded.version.id.digest);
        let seen = self.handover.seen();
        let shadow = if self.role == Role::Dedup || self.has_state {
            Shadow::skipped(digest, "what it did depends on what it remembered then")
        } else if seen.is_empty() {
            Shadow::skipped(digest, "the version before has seen no batch since it compares")
        } else {
            shadow::run(&self.loader, &loaded.version, &seen).map_err(|error| chain(&error))?
        };
        self.handover.tell(Some(shadow.clone()));
        if let Some(why) = &shadow.skipped {
            tracing::info!(%plugin, %digest, %why, "new plugin version is not compared");
            return Ok(Some(shadow));
        }
        let Shadow { batches, rows, discarded, changed, routed, faults, .. } = shadow;
        tracing::info!(
            %plugin, %digest, batches, rows, discarded, changed, routed, faults,
            "new plugin version is compared with the running one"
        );
        for differing in &shadow.first {
            tracing::info!(%plugin, %differing, "new plugin version makes something else of a row");
        }
        if shadow.exceeds(options.shadow_limit) {
            let (differing, running) = (shadow.differing(), self.handover.accepted());
            let why = format!("it made something else of {differing} of {rows} rows");
            self.loader.runtime.quarantine.put(digest, options, &why, &running);
            return Err(format!(
                "{differing} of {rows} rows of the last batches differ from what the running version \
                 made of them, more than shadow_limit = {}; it is in quarantine",
                options.shadow_limit
            ));
        }
        Ok(Some(shadow))
    }

    fn hand_over(&self, loaded: Loaded, shadow: Option<Shadow>) -> Reloaded {
        let plugin = &self.loader.options.name;
        let digest = loaded.version.id.digest.clone();
        tracing::info!(%plugin, %digest, "new plugin version takes over at the next batch");
        let identity = loaded.version.identity(&self.loader.options);
        self.handover.offer(identity, self.loader.clone(), loaded);
        self.loader.count_reload("accepted");
        Reloaded::Accepted { digest, shadow }
    }

    fn reject(&self, why: &str) -> String {
        let plugin = &self.loader.options.name;
        tracing::error!(%plugin, why, "new plugin version is rejected, the running one goes on");
        self.loader.count_reload("rejected");
        self.handover.fail(why.to_owned());
        why.to_owned()
    }
}
