//! The plugins' memory on disk: an embedded database (redb) of one leg, with how far the leg's source had
//! come when the memory was so.
//!
//! One transaction of the database holds what a run of batches changed and the place that they
//! reach. It is committed after everything up to that place is durable one hop on, and before the source
//! may forget it; so whatever a process dies of, memory and place on disk belong together, what the
//! source has forgotten is in them, and what is not in them comes again from the source.

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use redb::{Database, DatabaseError, ReadableDatabase, ReadableTable, TableDefinition};

use crate::directories;
use crate::disposition::Disposition;
use crate::plugin::memory::window::{Kept, Mark, WindowDelta};
use crate::plugin::memory::{Changed, Pending};
use crate::position::{Lsn, Position};

/// What the database may keep of its file in memory: the plugins' memory is in memory already.
const CACHE_BYTES: usize = 8 << 20;

/// What a file's name does not hold as it is.
pub(crate) const IN_FILE_NAMES: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_');

/// How far the source has come, by scope.
const PROGRESS: TableDefinition<'_, &str, &str> = TableDefinition::new("progress");
/// What windows mark rows under.
const SECRET: TableDefinition<'_, (), [u8; 16]> = TableDefinition::new("secret");
/// Values by plugin, scope and key.
const STATE: TableDefinition<'_, (&str, &str, &str), &str> = TableDefinition::new("state");
/// By plugin and scope: the first row's number and the youngest commit.
const WINDOWS: TableDefinition<'_, (&str, &str), (u64, i64)> = TableDefinition::new("windows");
/// By plugin, scope and number: mark, position, commit time, key.
const ROWS: TableDefinition<'_, (&str, &str, u64), RowOnDisk> = TableDefinition::new("rows");
/// By plugin, scope and table: where it was emptied last.
const EMPTIED: TableDefinition<'_, (&str, &str, u64, u64), (u64, u64)> =
    TableDefinition::new("emptied");

type RowOnDisk = (u64, u64, u64, u64, i64, Option<(u64, u64)>);

/// What goes wrong with it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Another process has it open.
    #[error(
        "the plugins' memory in {} is used by another process; stop it, or give this one its own \
         directory in [state] path",
        path.display()
    )]
    InUse {
        /// The file.
        path: PathBuf,
    },
    /// The directory cannot be made.
    #[error(
        "the directory {} for the plugins' memory cannot be made; check [state] path",
        path.display()
    )]
    Directory {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It cannot be read or written.
    #[error("the plugins' memory in {} cannot be read or written", path.display())]
    Disk {
        /// The file.
        path: PathBuf,
        /// Why.
        source: Box<redb::Error>,
    },
    /// What is there was not written by this release.
    #[error(
        "the plugins' memory in {} cannot be understood; remove the file to begin without",
        path.display()
    )]
    Foreign {
        /// The file.
        path: PathBuf,
        /// Why.
        source: serde_json::Error,
    },
    /// The source went on without the plugins.
    #[error(
        "the plugins' memory in {} ends at {known}, but the source has forgotten everything before \
         {source_at}: it went on without them; remove the file to let them begin anew, from here on",
        path.display()
    )]
    Behind {
        /// The file.
        path: PathBuf,
        /// Where the memory ends.
        known: Lsn,
        /// Where the source begins.
        source_at: Lsn,
    },
}

impl Error {
    /// All of them need a person.
    #[must_use]
    pub fn disposition(&self) -> Disposition {
        Disposition::Halt
    }
}

/// What is kept for a plugin in one scope.
#[derive(Debug, Default)]
pub(crate) struct Remembered {
    pub(crate) state: Vec<(Box<str>, Box<str>)>,
    pub(crate) window: WindowDelta,
}

/// The memory of one leg's plugins on disk.
pub struct StateStore {
    database: Database,
    path: PathBuf,
    secret: [u8; 16],
}

impl StateStore {
    /// Opens or makes the memory of that name.
    ///
    /// # Errors
    /// Another process has it, or the disk is in the way.
    pub fn open(directory: &Path, name: &str) -> Result<StateStore, Error> {
        directories::create(directory)
            .map_err(|source| Error::Directory { path: directory.to_owned(), source })?;
        let name = utf8_percent_encode(name, IN_FILE_NAMES);
        let path = directory.join(format!("{name}.redb"));
        let disk = |error| Error::Disk { path: path.clone(), source: Box::new(error) };
        // The database would make its file as the umask says.
        directories::open_file(&path).map_err(|error| disk(error.into()))?;
        let mut builder = Database::builder();
        let opened = builder.set_cache_size(CACHE_BYTES).create(&path);
        let database = opened.map_err(|error| match error {
            DatabaseError::DatabaseAlreadyOpen => Error::InUse { path: path.clone() },
            other => disk(other.into()),
        })?;
        let mut store = StateStore { database, path, secret: [0; 16] };
        store.secret = store.write(|tables| {
            make_tables(tables)?;
            let mut secret = tables.open_table(SECRET)?;
            let known = secret.get(())?.map(|known| known.value());
            let known = known.unwrap_or_else(rand::random);
            secret.insert((), known)?;
            Ok(known)
        })?;
        Ok(store)
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn secret(&self) -> [u8; 16] {
        self.secret
    }

    /// How far the source had come, by scope.
    ///
    /// # Errors
    /// The disk.
    pub fn progress(&self) -> Result<BTreeMap<String, String>, Error> {
        let read = || -> Result<_, redb::Error> {
            let tables = self.database.begin_read()?;
            let mut found = BTreeMap::new();
            for entry in tables.open_table(PROGRESS)?.iter()? {
                let (scope, text) = entry?;
                found.insert(scope.value().to_owned(), text.value().to_owned());
            }
            Ok(found)
        };
        read().map_err(|error| self.disk(error))
    }

    /// Forgets everything, and begins at a place.
    ///
    /// # Errors
    /// The disk.
    pub fn begin(&self, progress: &BTreeMap<String, String>) -> Result<(), Error> {
        self.write(|tables| {
            tables.delete_table(STATE)?;
            tables.delete_table(WINDOWS)?;
            tables.delete_table(ROWS)?;
            tables.delete_table(EMPTIED)?;
            tables.delete_table(PROGRESS)?;
            make_tables(tables)?;
            write_progress(tables, progress)
        })
    }

    /// Keeps what changed, together with how far the source has come.
    ///
    /// # Errors
    /// The disk; then nothing was kept.
    pub fn keep(
        &self,
        pending: &Pending,
        progress: &BTreeMap<String, String>,
    ) -> Result<(), Error> {
        self.write(|tables| {
            for ((plugin, scope), changed) in &pending.0 {
                write_changed(tables, plugin, scope, changed)?;
            }
            write_progress(tables, progress)
        })
    }

    /// Drops from what is pending the removals of what is not on the disk: a plugin that writes and removes as
    /// many keys as a copy has rows leaves no more than it may hold.
    ///
    /// # Errors
    /// The disk.
    pub(crate) fn drop_needless(&self, pending: &mut Pending) -> Result<(), Error> {
        let mut look = || -> Result<(), redb::Error> {
            let state = self.database.begin_read()?.open_table(STATE)?;
            for ((plugin, scope), changed) in &mut pending.0 {
                let removed = changed.state.iter().filter(|(_, value)| value.is_none());
                let removed: Vec<Box<str>> = removed.map(|(key, _)| key.clone()).collect();
                for key in removed {
                    if state.get((&**plugin, &**scope, &*key))?.is_none() {
                        changed.state.remove(&key);
                    }
                }
            }
            Ok(())
        };
        look().map_err(|error| self.disk(error))
    }

    /// Forgets plugins that are not among these: what they remembered ends at a place that is past.
    ///
    /// # Errors
    /// The disk.
    pub fn forget_plugins_but(&self, plugins: &HashSet<&str>) -> Result<(), Error> {
        self.write(|tables| retain(tables, |plugin, _| plugins.contains(plugin)))
    }

    /// Forgets scopes that are not among these.
    ///
    /// # Errors
    /// The disk.
    pub fn forget_scopes_but(&self, knows: impl Fn(&str) -> bool) -> Result<(), Error> {
        self.write(|tables| {
            tables.open_table(PROGRESS)?.retain(|scope, _| knows(scope))?;
            retain(tables, |_, scope| knows(scope))
        })
    }

    /// What is kept for a plugin, by scope.
    pub(crate) fn load(&self, plugin: &str) -> Result<BTreeMap<String, Remembered>, Error> {
        let after = format!("{plugin}\0");
        let read = || -> Result<_, redb::Error> {
            let tables = self.database.begin_read()?;
            let mut all: BTreeMap<String, Remembered> = BTreeMap::new();
            for entry in tables.open_table(WINDOWS)?.range((plugin, "")..(&*after, ""))? {
                let (key, value) = entry?;
                let of = all.entry(key.value().1.to_owned()).or_default();
                (of.window.first, of.window.newest) = value.value();
            }
            for entry in tables.open_table(STATE)?.range((plugin, "", "")..(&*after, "", ""))? {
                let (key, value) = entry?;
                let (_, scope, key) = key.value();
                let entry = (key.into(), value.value().into());
                of_scope(&mut all, scope).state.push(entry);
            }
            let rows = (plugin, "", 0)..(&*after, "", 0);
            for entry in tables.open_table(ROWS)?.range(rows)? {
                let (key, value) = entry?;
                let (_, scope, number) = key.value();
                let row = (number, from_disk(value.value()));
                of_scope(&mut all, scope).window.rows.push(row);
            }
            let emptied = (plugin, "", 0, 0)..(&*after, "", 0, 0);
            for entry in tables.open_table(EMPTIED)?.range(emptied)? {
                let (key, at) = entry?;
                let (_, scope, high, low) = key.value();
                let at = (Mark(high, low), position(at.value()));
                of_scope(&mut all, scope).window.emptied.push(at);
            }
            Ok(all)
        };
        read().map_err(|error| self.disk(error))
    }

    fn write<T>(
        &self,
        write: impl FnOnce(&redb::WriteTransaction) -> Result<T, redb::Error>,
    ) -> Result<T, Error> {
        let all = || {
            let tables = self.database.begin_write()?;
            let written = write(&tables)?;
            tables.commit()?;
            Ok(written)
        };
        all().map_err(|error| self.disk(error))
    }

    fn disk(&self, source: redb::Error) -> Error {
        Error::Disk { path: self.path.clone(), source: Box::new(source) }
    }
}

/// Every scope has a line for its window, which came first.
fn of_scope<'a>(all: &'a mut BTreeMap<String, Remembered>, scope: &str) -> &'a mut Remembered {
    all.get_mut(scope).expect("they are written in one transaction")
}

fn make_tables(tables: &redb::WriteTransaction) -> Result<(), redb::Error> {
    tables.open_table(PROGRESS)?;
    tables.open_table(STATE)?;
    tables.open_table(WINDOWS)?;
    tables.open_table(ROWS)?;
    tables.open_table(EMPTIED)?;
    Ok(())
}

/// Keeps only the memories, by plugin and scope, for which `stays` holds.
fn retain(
    tables: &redb::WriteTransaction,
    stays: impl Fn(&str, &str) -> bool,
) -> Result<(), redb::Error> {
    tables.open_table(STATE)?.retain(|(plugin, scope, _), _| stays(plugin, scope))?;
    tables.open_table(WINDOWS)?.retain(|(plugin, scope), _| stays(plugin, scope))?;
    tables.open_table(ROWS)?.retain(|(plugin, scope, _), _| stays(plugin, scope))?;
    tables.open_table(EMPTIED)?.retain(|(plugin, scope, _, _), _| stays(plugin, scope))?;
    Ok(())
}

fn write_progress(
    tables: &redb::WriteTransaction,
    progress: &BTreeMap<String, String>,
) -> Result<(), redb::Error> {
    let mut table = tables.open_table(PROGRESS)?;
    for (scope, text) in progress {
        table.insert(scope.as_str(), text.as_str())?;
    }
    Ok(())
}

fn write_changed(
    tables: &redb::WriteTransaction,
    plugin: &str,
    scope: &str,
    changed: &Changed,
) -> Result<(), redb::Error> {
    let mut state = tables.open_table(STATE)?;
    for (key, value) in &changed.state {
        match value {
            Some(value) => drop(state.insert((plugin, scope, &**key), &**value)?),
            None => drop(state.remove((plugin, scope, &**key))?),
        }
    }
    tables.open_table(WINDOWS)?.insert((plugin, scope), (changed.first, changed.newest))?;
    let mut rows = tables.open_table(ROWS)?;
    let gone = (plugin, scope, 0)..(plugin, scope, changed.first);
    rows.retain_in(gone, |_, _| false)?;
    for (number, row) in &changed.rows {
        rows.insert((plugin, scope, *number), to_disk(row))?;
    }
    let mut emptied = tables.open_table(EMPTIED)?;
    for (Mark(high, low), at) in &changed.emptied {
        emptied.insert((plugin, scope, *high, *low), (at.commit.0, at.ordinal))?;
    }
    Ok(())
}

fn to_disk((Mark(high, low), kept): &(Mark, Kept)) -> RowOnDisk {
    let Kept { position: Position { commit, ordinal }, committed_at, key } = kept;
    (*high, *low, commit.0, *ordinal, *committed_at, key.map(|Mark(high, low)| (high, low)))
}

fn from_disk((high, low, commit, ordinal, committed_at, key): RowOnDisk) -> (Mark, Kept) {
    let key = key.map(|(high, low)| Mark(high, low));
    (Mark(high, low), Kept { position: position((commit, ordinal)), committed_at, key })
}

fn position((commit, ordinal): (u64, u64)) -> Position {
    Position { commit: Lsn(commit), ordinal }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use crate::plugin::memory::Delta;

    fn refusal(directory: &Path) -> String {
        let Err(error) = StateStore::open(directory, "it") else { panic!("it opened") };
        error.to_string()
    }

    #[test]
    fn a_file_in_the_place_of_the_directory_is_said() {
        let scratch = tempfile::tempdir().unwrap();
        let file = scratch.path().join("state");
        fs::write(&file, "a file").unwrap();
        let said = refusal(&file);
        assert!(said.contains("for the plugins' memory cannot be made"), "{said}");
    }

    #[test]
    fn what_plugins_remember_is_closed_to_others() {
        let scratch = tempfile::tempdir().unwrap();
        let directory = scratch.path().join("state");
        let store = StateStore::open(&directory, "it").unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&directory), mode(store.path())), (0o700, 0o600));
    }

    #[test]
    fn a_removal_is_pending_only_of_what_is_on_the_disk() {
        let scratch = tempfile::tempdir().unwrap();
        let store = StateStore::open(scratch.path(), "it").unwrap();
        let removing = |key: &str| {
            let mut delta = Delta::writing(key, String::new());
            delta.state[0].1 = None;
            delta
        };
        let mut pending = Pending::default();
        pending.add(Delta::writing("kept", "a".into()));
        store.keep(&pending, &BTreeMap::new()).unwrap();
        let mut pending = Pending::default();
        pending.add(removing("kept"));
        pending.add(Delta::writing("passing", "b".into()));
        pending.add(removing("passing"));
        pending.add(Delta::writing("new", "c".into()));
        assert_eq!(pending.entries(), 3);
        store.drop_needless(&mut pending).unwrap();
        assert_eq!(pending.entries(), 2);
        store.keep(&pending, &BTreeMap::new()).unwrap();
        let kept = store.load("p").unwrap();
        let state: Vec<_> = kept.values().flat_map(|of| &of.state).collect();
        assert_eq!(state, [&("new".into(), "c".into())]);
    }

    #[test]
    fn a_damaged_file_is_refused_and_left_as_it_is() {
        let scratch = tempfile::tempdir().unwrap();
        let file = scratch.path().join("it.redb");
        fs::write(&file, "no database").unwrap();
        let said = refusal(scratch.path());
        assert!(said.contains("it.redb cannot be read or written"), "{said}");
        assert_eq!(fs::read(&file).unwrap(), b"no database");
    }
}
