//! From a file to an instance that is ready for its first batch.

use std::path::Path;
use std::sync::Arc;

use wasmtime::component::InstancePre;

use crate::dead_letter::PluginVersion;
use crate::plugin::engine::{Code, Runtime};
use crate::plugin::error::Error;
use crate::plugin::instance::{self, Allowance, Instance, Outcome, Role};
use crate::plugin::limits::Guest;
use crate::plugin::options::Options;
use crate::telemetry::metrics::Metrics;

/// Loads one plugin of the configuration, again and again.
#[derive(Clone)]
pub(crate) struct Loader {
    pub(crate) runtime: Runtime,
    pub(crate) options: Arc<Options>,
    pub(crate) metrics: Arc<Metrics>,
}

/// One version of a plugin's code.
pub(crate) struct Version {
    pub(crate) id: PluginVersion,
    pub(crate) role: Role,
    code: InstancePre<Guest>,
}

/// A version with its first instance.
pub(crate) struct Loaded {
    pub(crate) version: Version,
    pub(crate) instance: Instance,
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
}

/// Looks at a component without running it.
///
/// # Errors
/// The file cannot be read, is no component, or is no plugin.
pub fn inspect(runtime: &Runtime, path: &Path) -> Result<Inspection, Error> {
    let code = runtime.code(path)?;
    let role = check(path, &code)?;
    let shape = code.component.component_type();
    let imports = shape.imports(&runtime.engine).map(|(name, _)| name.to_owned()).collect();
    Ok(Inspection { role, digest: code.digest, imports })
}

fn check(path: &Path, code: &Code) -> Result<Role, Error> {
    let path = path.to_owned();
    let imports = instance::foreign_imports(&code.component);
    if !imports.is_empty() {
        return Err(Error::Imports { path, imports });
    }
    instance::role(&code.component).map_err(|difference| Error::World { path, difference })
}

impl Loader {
    /// Reads, compiles, checks, instantiates and initialises.
    pub(crate) fn load(&self) -> Result<Loaded, Error> {
        let path = &self.options.path;
        let code = self.runtime.code(path)?;
        let role = check(path, &code)?;
        let linked = self.runtime.linker.instantiate_pre(&code.component);
        let linked = linked.map_err(|error| Error::World {
            path: path.clone(),
            difference: format!("{error:#}"),
        })?;
        let id = PluginVersion { name: self.options.name.clone(), digest: code.digest };
        let version = Version { id, role, code: linked };
        let instance = self.start(&version)?;
        Ok(Loaded { version, instance })
    }

    /// Another instance of a version.
    pub(crate) fn start(&self, version: &Version) -> Result<Instance, Error> {
        let options = &self.options;
        let allowance = Allowance {
            deadline: options.deadline(),
            memory_mb: options.memory_mb,
            output_mb: options.output_mb,
        };
        let metrics = Arc::clone(&self.metrics);
        let guest = Guest::new(&options.name, &version.id.digest, options.memory_mb, metrics);
        let config = options.config_json();
        let started = Instance::start(&version.code, version.role, guest, allowance, &config);
        started.map_err(|outcome| match outcome {
            Outcome::Shape(difference) => Error::World { path: options.path.clone(), difference },
            other => Error::Init { plugin: options.name.clone(), reason: other.to_string() },
        })
    }
}
