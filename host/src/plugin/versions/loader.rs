//! From a file to an instance that is ready for its first batch.

use std::panic;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use wasmtime::component::InstancePre;

use crate::dead_letter::PluginVersion;
use crate::plugin::backtrace::Symbolizer;
use crate::plugin::error::Error;
use crate::plugin::golden;
use crate::plugin::guest::{
    Allowance, Counters, Guest, Instance, LogLines, Outcome, Role, foreign_imports,
};
use crate::plugin::options::{Grant, Options};
use crate::plugin::versions::runtime::{Code, Runtime};
use crate::telemetry::metrics::{Metrics, PluginKindLabels};

/// Loads one plugin of the configuration, again and again.
#[derive(Clone)]
pub(crate) struct Loader {
    pub(crate) runtime: Runtime,
    pub(crate) options: Arc<Options>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) lines: Arc<LogLines>,
    counters: Arc<Counters>,
}

/// One version of a plugin's code.
#[derive(Clone)]
pub(crate) struct Version {
    pub(crate) id: PluginVersion,
    pub(crate) role: Role,
    /// Whether it imports `state`: it may be granted without being wanted.
    pub(crate) imports_state: bool,
    /// Tells where in the source its code comes from.
    pub(crate) symbolizer: Arc<Symbolizer>,
    code: InstancePre<Guest>,
}

/// A version with its first instance.
pub(crate) struct Loaded {
    pub(crate) version: Version,
    pub(crate) instance: Instance,
    /// Why it is not the version that lies in the file, if it is another one.
    pub(crate) instead: Option<String>,
}

/// What a component is, found without running it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inspection {
    /// What it does.
    pub role: Role,
    /// SHA-256 of the file, hex.
    pub digest: String,
    /// What it imports.
    pub imports: Vec<String>,
    /// Size of the file.
    pub bytes: u64,
}

impl Inspection {
    /// The `grants` that its section must have.
    #[must_use]
    pub fn needed_grants(&self) -> Vec<&'static str> {
        let needed = Grant::ALL.into_iter().filter(|grant| grant.is_imported(&self.imports));
        needed.map(Grant::name).collect()
    }
}

/// Looks at a component without running it.
///
/// # Errors
/// The file cannot be read, is no component, or is no plugin.
pub fn inspect(runtime: &Runtime, path: &Path) -> Result<Inspection, Error> {
    let code = runtime.code(path)?;
    let role = check(path, &code, &Grant::ALL)?;
    let shape = code.component.component_type();
    let imports = shape.imports(&runtime.engine).map(|(name, _)| name.to_owned()).collect();
    Ok(Inspection { role, digest: code.digest, imports, bytes: code.bytes })
}

/// What a run would begin with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rehearsal {
    /// What the plugin does.
    pub role: Role,
    /// Whether something is kept for it on disk.
    pub remembers: bool,
    /// SHA-256 of the version that would run, hex.
    pub digest: String,
    /// Why that is not the version that lies in the file, if it is another one.
    pub instead: Option<String>,
}

/// Loads a plugin as a run does, `init` and golden events included, and lets it go.
///
/// # Errors
/// What a run would end with.
pub fn rehearse(runtime: &Runtime, options: &Options) -> Result<Rehearsal, Error> {
    options.check()?;
    let loaded = Loader::new(runtime.clone(), options.clone(), Arc::default()).load_to_run()?;
    let Loaded { version, instead, .. } = loaded;
    let (role, digest) = (version.role, version.id.digest);
    Ok(Rehearsal { role, remembers: options.remembers_as(role), digest, instead })
}

impl Version {
    /// What makes a version another one: its code, and the settings it runs with.
    pub(crate) fn identity(&self, options: &Options) -> String {
        Version::identity_of(&self.id.digest, options)
    }

    /// The [`identity`](Self::identity) of the version with that code.
    pub(super) fn identity_of(digest: &str, options: &Options) -> String {
        format!("{digest} {options:?}")
    }
}

/// Loads plugins, as many at once as there are cores.
///
/// # Errors
/// That of the first one that does not load; those behind it may not have been looked at.
pub(crate) fn load_all(loaders: &[Loader]) -> Result<Vec<Loaded>, Error> {
    let (queue, failed) = (Mutex::new(loaders.iter().enumerate()), AtomicBool::new(false));
    let next = || queue.lock().unwrap_or_else(PoisonError::into_inner).next();
    let work = || {
        let mut done = Vec::new();
        while !failed.load(Ordering::Relaxed)
            && let Some((index, loader)) = next()
        {
            let loaded = loader.load_to_run();
            failed.fetch_or(loaded.is_err(), Ordering::Relaxed);
            done.push((index, loaded));
        }
        done
    };
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let mut done = thread::scope(|scope| {
        let helpers: Vec<_> = (1..cores.min(loaders.len())).map(|_| scope.spawn(work)).collect();
        let mut done = work();
        for helper in helpers {
            done.extend(helper.join().unwrap_or_else(|panic| panic::resume_unwind(panic)));
        }
        done
    });
    done.sort_by_key(|(index, _)| *index);
    done.into_iter().map(|(_, loaded)| loaded).collect()
}

fn check(path: &Path, code: &Code, grants: &[Grant]) -> Result<Role, Error> {
    let path = path.to_owned();
    let imports = foreign_imports(&code.component);
    let wanted = Grant::ALL.into_iter().filter(|grant| grant.is_imported(&imports));
    let missing: Vec<Grant> = wanted.filter(|grant| !grants.contains(grant)).collect();
    if let Some(grant) = missing.first() {
        return Err(Error::NotGranted { path, grant: grant.name() });
    }
    let imports: Vec<String> =
        imports.into_iter().filter(|import| !Grant::ALL.iter().any(|g| g.covers(import))).collect();
    if !imports.is_empty() {
        return Err(Error::Imports { path, imports });
    }
    Role::of(&code.component).map_err(|difference| Error::World { path, difference })
}

impl Loader {
    pub(crate) fn new(runtime: Runtime, options: Options, metrics: Arc<Metrics>) -> Loader {
        let lines = Arc::new(LogLines::new(&options.name, &metrics));
        let counters = Arc::default();
        Loader { runtime, options: Arc::new(options), metrics, lines, counters }
    }

    /// What it logs is not written.
    pub(crate) fn muted(self) -> Loader {
        let lines = Arc::new(LogLines::muted(&self.options.name, &self.metrics));
        Loader { lines, ..self }
    }

    /// One for new versions beside the one that runs.
    pub(crate) fn yielding(self) -> Loader {
        Loader { runtime: self.runtime.yielding(), ..self }
    }

    /// Loads what a process is to begin with: the version in the file, if that makes of its golden events
    /// what they say. In the place of one in quarantine it is the one that went on instead.
    pub(crate) fn load_to_run(&self) -> Result<Loaded, Error> {
        let code = self.read()?;
        let Some(ban) = self.runtime.quarantine.find(&code.digest, &self.options) else {
            return self.tested(self.instantiate(code)?);
        };
        // A pinned file is meant and no other.
        let instead = ban.instead.as_deref().filter(|_| self.options.digest.is_none());
        // It may have been taken back itself since, where files were exchanged while nothing ran.
        let is_free = |digest: &&str| self.runtime.quarantine.find(digest, &self.options).is_none();
        let instead = instead.filter(is_free);
        let before = instead.and_then(|digest| self.runtime.code_of(digest));
        let refusal = self.runtime.quarantine.refusal(ban, &self.options);
        let Some(before) = before else { return Err(refusal) };
        let loaded = self.instantiate(before)?;
        let (plugin, why) = (&self.options.name, refusal.to_string());
        tracing::error!(
            %plugin, running = %loaded.version.id.digest, why,
            "plugin version is in quarantine, the one before goes on"
        );
        Ok(Loaded { instead: Some(why), ..loaded })
    }

    /// Reads, compiles, checks, instantiates and initialises.
    pub(crate) fn load(&self) -> Result<Loaded, Error> {
        self.instantiate(self.read()?)
    }

    /// A version that makes of the golden events beside its file what they say.
    pub(crate) fn tested(&self, loaded: Loaded) -> Result<Loaded, Error> {
        golden::self_test(&self.runtime, &self.options, &loaded.version.id.digest)?;
        Ok(loaded)
    }

    fn read(&self) -> Result<Code, Error> {
        let path = &self.options.path;
        let code = self.runtime.code(path)?;
        let pinned = self.options.digest.as_ref();
        match pinned.filter(|pinned| !pinned.eq_ignore_ascii_case(&code.digest)) {
            None => Ok(code),
            Some(pinned) => {
                let (pinned, actual) = (pinned.clone(), code.digest);
                Err(Error::Digest { path: path.clone(), pinned, actual })
            }
        }
    }

    fn instantiate(&self, code: Code) -> Result<Loaded, Error> {
        let (options, path) = (&self.options, &self.options.path);
        let role = check(path, &code, &options.grants)?;
        let linked = self.runtime.linker.instantiate_pre(&code.component);
        let linked = linked.map_err(|error| Error::World {
            path: path.clone(),
            difference: format!("{error:#}"),
        })?;
        let id = PluginVersion { name: self.options.name.clone(), digest: code.digest };
        let symbolizer = Arc::new(Symbolizer::of(path.clone(), id.digest.clone()));
        let imports = foreign_imports(&code.component);
        let imports_state = Grant::State.is_imported(&imports);
        let version = Version { id, role, imports_state, symbolizer, code: linked };
        let instance = self.start(&version)?;
        Ok(Loaded { version, instance, instead: None })
    }

    /// The first instance of a version.
    pub(crate) fn start(&self, version: &Version) -> Result<Instance, Error> {
        let options = &self.options;
        self.instance(version).map_err(|outcome| match outcome {
            Outcome::Shape(difference) => Error::World { path: options.path.clone(), difference },
            other => Error::Init { plugin: options.name.clone(), reason: other.to_string() },
        })
    }

    /// Another instance of a version.
    pub(crate) fn instance(&self, version: &Version) -> Result<Instance, Outcome> {
        let options = &self.options;
        let allowance = Allowance {
            deadline: options.deadline(),
            memory_mb: options.memory_mb,
            output_mb: options.output_mb,
        };
        let (lines, metrics) = (Arc::clone(&self.lines), Arc::clone(&self.metrics));
        let counters = Arc::clone(&self.counters);
        let guest = Guest::new(options, &version.id.digest, lines, counters, metrics);
        let config = options.config_json();
        Instance::start(&version.code, version.role, guest, allowance, &config)
    }

    /// Counts what became of a new version.
    pub(crate) fn count_reload(&self, kind: &'static str) {
        let labels = PluginKindLabels { plugin: self.options.name.clone(), kind };
        self.metrics.plugin_reloads.get_or_create(&labels).inc();
    }
}
