//! `run --watch`: builds the plugins' projects again whenever their sources change.
//!
//! It ends where reloading begins: a build that succeeds replaces the component by a rename, which the
//! running chain notices like any other new version. A build that fails is told on standard error, and the
//! version that runs goes on.

use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use tailwater_project::{Installed, Language};

use crate::commands::complain;
use crate::config::Config;

/// How long the sources must be quiet: an editor saves a file in several steps.
const QUIET: Duration = Duration::from_millis(100);

/// Projects that are built when they change.
pub struct Projects(Vec<Project>);

struct Project {
    directory: PathBuf,
    /// The digest of the sources that were built last, whether or not they compiled.
    seen: String,
}

impl Projects {
    /// Those named, or, if none is, those in which the configured plugins lie.
    #[must_use]
    pub fn of(config: &Config, named: &[PathBuf]) -> Projects {
        let configured = || config.plugin.iter().filter_map(|plugin| project_of(&plugin.path));
        let directories = if named.is_empty() { configured().collect() } else { named.to_owned() };
        let project = |directory| Project { directory, seen: String::new() };
        Projects(directories.into_iter().map(project).collect())
    }

    /// Builds them all.
    ///
    /// # Errors
    /// There is none, or one does not build.
    pub fn build(&mut self) -> anyhow::Result<()> {
        anyhow::ensure!(
            !self.0.is_empty(),
            "--watch finds no project: name a directory that `tailwater plugin new` made"
        );
        self.0.iter_mut().try_for_each(Project::build)
    }

    /// Follows their sources on a thread of its own until the process ends.
    ///
    /// # Errors
    /// They cannot be watched.
    pub fn follow(self) -> notify::Result<()> {
        let (sender, changed) = mpsc::channel();
        let watcher = notify::recommended_watcher(move |_| {
            // The thread ends only with the process.
            sender.send(()).ok();
        })?;
        let mut following = Following { projects: self.0, watcher };
        following.watch()?;
        let builder = thread::Builder::new().name("build".to_owned());
        builder.spawn(move || following.follow(&changed)).map_err(notify::Error::io)?;
        Ok(())
    }
}

struct Following {
    projects: Vec<Project>,
    watcher: RecommendedWatcher,
}

impl Following {
    /// Every directory by itself: a compiler's own, with thousands of files, are not among them.
    fn watch(&mut self) -> notify::Result<()> {
        let sources =
            self.projects.iter().flat_map(|p| tailwater_project::directories(&p.directory));
        for directory in sources.collect::<Vec<_>>() {
            self.watcher.watch(&directory, RecursiveMode::NonRecursive)?;
        }
        Ok(())
    }

    fn follow(mut self, changed: &Receiver<()>) {
        while changed.recv().is_ok() {
            while changed.recv_timeout(QUIET).is_ok() {}
            for project in &mut self.projects {
                if let Err(error) = project.build() {
                    complain(&format!("{error:#}"));
                }
            }
            // There may be new directories.
            if let Err(error) = self.watch() {
                complain(&format!("cannot watch the sources: {error}"));
            }
        }
    }
}

impl Project {
    /// Unless nothing has changed.
    fn build(&mut self) -> anyhow::Result<()> {
        let digest = tailwater_project::digest(&self.directory)?;
        if digest == self.seen {
            return Ok(());
        }
        self.seen = digest;
        let started = Instant::now();
        let component = tailwater_project::build(&self.directory, &Installed)?;
        let milliseconds = started.elapsed().as_millis();
        tracing::info!(component = %component.display(), milliseconds, "plugin built");
        Ok(())
    }
}

/// The project that a component was built in and lies in.
fn project_of(component: &Path) -> Option<PathBuf> {
    let parent = component.parent()?;
    let directory = if parent == Path::new("") { Path::new(".") } else { parent };
    let output = tailwater_project::output(directory).ok()?;
    let is_its_own = output.file_name() == component.file_name();
    (is_its_own && Language::of(directory).is_some()).then(|| directory.to_owned())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_component_belongs_to_the_project_it_was_built_in() {
        let scratch = tempfile::tempdir().unwrap();
        let project = scratch.path().join("shout");
        fs::create_dir(&project).unwrap();
        let component = project.join("shout.wasm");
        assert_eq!(project_of(&component), None, "there is no source");
        fs::write(project.join("plugin.c"), "").unwrap();
        assert_eq!(project_of(&component), Some(project.clone()));
        assert_eq!(project_of(&project.join("other.wasm")), None);
    }

    #[test]
    fn without_a_project_there_is_nothing_to_watch() {
        let error = Projects::of(&Config::default(), &[]).build().unwrap_err();
        assert!(error.to_string().contains("name a directory"), "{error}");
    }
}
