//! No version runs that does not make of the golden events beside its file what they say.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use crate::plugin::digest;
use crate::plugin::error::Error;
use crate::plugin::golden::Golden;
use crate::plugin::options::Options;
use crate::plugin::versions::{self, Runtime};

/// Tests a version on the golden events that lie beside its file, if there are any. A version that passed
/// them on this machine, with these settings, is not tested again.
pub(crate) fn self_test(runtime: &Runtime, options: &Options, digest: &str) -> Result<(), Error> {
    let path = beside(&options.path);
    let fail = |why| Error::Golden { path: path.clone(), why };
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(fail(error.to_string())),
    };
    let test = digest::of(format!("{} {text}", versions::settings(options)));
    if runtime.has_passed(digest, &test) {
        return Ok(());
    }
    let report = Golden::parse(&text).map_err(fail)?.run_muted(runtime, options)?;
    let (plugin, events) = (&options.name, report.events);
    tracing::debug!(%plugin, %digest, events, "plugin was shown its golden events");
    match report.differences.first() {
        None => {
            runtime.note_passed(digest, &test);
            Ok(())
        }
        Some(first) => {
            let (wrong, all) = (report.differences.len(), report.events);
            Err(fail(format!("{wrong} of {all} events became something else; {first}")))
        }
    }
}

/// Where a component's golden events lie: `mask.golden.jsonl` beside `mask.wasm`.
#[must_use]
pub fn beside(component: &Path) -> PathBuf {
    component.with_extension("golden.jsonl")
}
