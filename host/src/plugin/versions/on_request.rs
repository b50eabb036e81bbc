//! Reloading on request: over HTTP, by a signal, from the command line.

use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use crate::plugin::error::Error;
use crate::plugin::options::Options;
use crate::plugin::versions::reloader::Reloaded;
use crate::plugin::versions::running::Versions;

type Reread = Box<dyn Fn() -> Result<Vec<Options>, String> + Send + Sync>;

/// All plugins of the process; cheap to clone.
#[derive(Clone, Default)]
pub struct Reloads(Arc<Shared>);

#[derive(Default)]
struct Shared {
    chains: Mutex<Vec<Versions>>,
    reread: OnceLock<(HashSet<String>, Reread)>,
}

impl fmt::Debug for Reloads {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reloads").finish_non_exhaustive()
    }
}

impl Reloads {
    /// Takes in chains whose plugins may be reloaded from now on.
    pub fn watch(&self, chains: impl IntoIterator<Item = Versions>) {
        self.0.chains.lock().unwrap_or_else(PoisonError::into_inner).extend(chains);
    }

    /// Says which plugins the settings had at the start, in whatever stage, and how to read them again. The
    /// first one counts.
    pub fn read_settings_by(
        &self,
        known: impl IntoIterator<Item = String>,
        reread: impl Fn() -> Result<Vec<Options>, String> + Send + Sync + 'static,
    ) {
        self.0.reread.get_or_init(|| (known.into_iter().collect(), Box::new(reread)));
    }

    /// Reads the settings again and reloads one plugin. Blocks while it compiles; none if there is no
    /// such plugin.
    ///
    /// # Errors
    /// The settings are wrong, or why the new version is not taken.
    #[must_use]
    pub fn one(&self, name: &str) -> Option<Result<Reloaded, String>> {
        let settings = match self.settings() {
            Ok(settings) => settings,
            Err(why) => return Some(Err(why)),
        };
        let chain = self.chains().into_iter().find(|chain| runs(chain, name))?;
        reload(&chain, name, settings.as_deref())
    }

    /// Reads the settings again and reloads all plugins that run; what became of each. Plugins that were
    /// added to the settings or removed from them need a restart.
    ///
    /// # Errors
    /// The settings are wrong; nothing was reloaded.
    pub fn all(&self) -> Result<BTreeMap<String, Result<Reloaded, String>>, String> {
        let settings = self.settings()?;
        let mut done = BTreeMap::new();
        for chain in self.chains() {
            for plugin in chain.list() {
                if let Some(result) = reload(&chain, &plugin.name, settings.as_deref()) {
                    done.insert(plugin.name, result);
                }
            }
        }
        let known = self.0.reread.get().map(|(known, _)| known);
        for plugin in settings.into_iter().flatten().map(|options| options.name) {
            if known.is_some_and(|known| !known.contains(&plugin)) {
                let why = Error::SectionNew { plugin: plugin.clone() }.to_string();
                tracing::error!(plugin, why, "plugin is not loaded");
                done.insert(plugin, Err(why));
            }
        }
        Ok(done)
    }

    /// None if there is no way to read them again.
    fn settings(&self) -> Result<Option<Vec<Options>>, String> {
        self.0.reread.get().map(|(_, reread)| reread()).transpose()
    }

    fn chains(&self) -> Vec<Versions> {
        self.0.chains.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

fn runs(chain: &Versions, plugin: &str) -> bool {
    chain.list().iter().any(|running| running.name == plugin)
}

fn reload(
    chain: &Versions,
    plugin: &str,
    settings: Option<&[Options]>,
) -> Option<Result<Reloaded, String>> {
    let Some(settings) = settings else { return chain.reload(plugin, None) };
    let section = settings.iter().find(|options| options.name == plugin);
    let Some(section) = section else {
        let why = Error::SectionGone { plugin: plugin.to_owned() }.to_string();
        tracing::error!(plugin, why, "plugin is not reloaded, it goes on as it is");
        return Some(Err(why));
    };
    chain.reload(plugin, Some(section))
}
