//! Where files are kept that can be fetched or made again: the embedded engine's library, and the compiled
//! code of plugins.

use std::ffi::OsString;
use std::path::PathBuf;

/// `$TAILWATER_CACHE`, else `$XDG_CACHE_HOME/tailwater`, else `~/.cache/tailwater`, whether it is there or not;
/// none where the environment names none of them.
#[must_use]
pub fn directory() -> Option<PathBuf> {
    named_by(|name| std::env::var_os(name))
}

/// A variable that is set to nothing is not set.
fn named_by(environment: impl Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
    let set = |name| environment(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    set("TAILWATER_CACHE")
        .or_else(|| set("XDG_CACHE_HOME").map(|base| base.join("tailwater")))
        .or_else(|| set("HOME").map(|home| home.join(".cache/tailwater")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_variable_names_the_cache_and_an_empty_one_does_not() {
        let named = |set: &[(&str, &str)]| {
            let value = |name: &str| set.iter().find(|(of, _)| *of == name).map(|(_, value)| value);
            named_by(|name| value(name).map(OsString::from))
        };
        let home = ("HOME", "/h");
        let system = ("XDG_CACHE_HOME", "/var/cache");
        let own = ("TAILWATER_CACHE", "/tailwater");
        assert_eq!(named(&[own, system, home]), Some("/tailwater".into()));
        assert_eq!(named(&[system, home]), Some("/var/cache/tailwater".into()));
        assert_eq!(named(&[home]), Some("/h/.cache/tailwater".into()));
        let empty = [("TAILWATER_CACHE", ""), ("XDG_CACHE_HOME", ""), home];
        assert_eq!(named(&empty), Some("/h/.cache/tailwater".into()));
        assert_eq!(named(&[]), None);
    }
}
