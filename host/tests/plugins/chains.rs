//! Chains of plugins, configured as users do.

use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};

use tailwater::change::Changes;
use tailwater::dead_letter::DeadLetter;
use tailwater::plugin::{Chain, Error, Options, Runtime, Stage};
use tailwater::telemetry::metrics::Metrics;
use tailwater_test_support::guests;

/// One engine for the whole process, as in the service.
pub static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| {
    let cache = Path::new(env!("CARGO_TARGET_TMPDIR")).join("compiled-plugins");
    Runtime::new(Some(cache)).expect("this machine runs WebAssembly")
});

/// A chain and its metrics.
pub struct Loaded {
    pub chain: Chain,
    pub metrics: Arc<Metrics>,
}

/// `[[plugin]]` of that file with these further settings.
pub fn options(path: &Path, settings: &str) -> Options {
    let name = path.file_stem().expect("a file").to_string_lossy();
    let text = format!("name = '{name}'\npath = '{}'\n{settings}", path.display());
    toml::from_str(&text).expect("valid settings")
}

pub fn load(options: Vec<Options>) -> Result<Loaded, Error> {
    let metrics = Arc::new(Metrics::default());
    let chain = Chain::load(&RUNTIME, options, Stage::Capture, Arc::clone(&metrics))?;
    Ok(Loaded { chain, metrics })
}

/// A chain of one plugin of `plugins/`.
pub fn plugin(name: &str, settings: &str) -> Loaded {
    load(vec![options(&plugin_file(name), settings)]).expect("the plugin loads")
}

pub fn plugin_file(name: &str) -> PathBuf {
    guests::plugin(name).expect("the plugin builds")
}

pub fn test_guest_file(name: &str) -> PathBuf {
    guests::test_guest(name).expect("the guest builds")
}

impl Loaded {
    /// Runs a batch through; what was set aside.
    pub fn run(&mut self, changes: &mut Changes) -> Vec<DeadLetter> {
        self.chain.transform(changes).expect("no plugin halts")
    }

    /// Runs a batch through; its lines. Nothing may be set aside.
    pub fn lines(&mut self, mut changes: Changes) -> Vec<String> {
        let dead_letters = self.run(&mut changes);
        assert_eq!(dead_letters, []);
        crate::batch::lines(&changes)
    }
}
