//! Directories of what only this user is to read: they hold the source's rows, or code that is trusted.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::Path;

use rustix::fs::{Access, AtFlags, CWD, accessat};

/// Makes a directory, and those that it lies in, as far as they are not there. What is there stays as open
/// as its owner made it.
///
/// # Errors
/// What the system says.
pub fn create(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// Opens a file to read and write, or makes it: its directory may be older, and open to others.
///
/// # Errors
/// What the system says.
pub fn open_file(path: &Path) -> io::Result<File> {
    File::options().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)
}

/// Whether this user may write into a directory, or make it, which is not tried.
///
/// # Errors
/// Why not.
pub fn may_write(path: &Path) -> io::Result<()> {
    // What is not there is made in the nearest one that is.
    for directory in path.ancestors() {
        let here = directory.as_os_str().is_empty();
        let directory = if here { Path::new(".") } else { directory };
        match fs::metadata(directory) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
            Ok(found) if !found.is_dir() => return Err(io::ErrorKind::NotADirectory.into()),
            Ok(_) => {
                let needed = Access::WRITE_OK | Access::EXEC_OK;
                return Ok(accessat(CWD, directory, needed, AtFlags::EACCESS)?);
            }
        }
    }
    Err(io::ErrorKind::NotFound.into())
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn what_is_made_is_closed_to_others_and_what_was_there_stays() {
        let scratch = tempfile::tempdir().unwrap();
        let (there, made) = (scratch.path().join("there"), scratch.path().join("there/a/b"));
        fs::create_dir(&there).unwrap();
        fs::set_permissions(&there, Permissions::from_mode(0o755)).unwrap();
        create(&made).unwrap();
        open_file(&made.join("file")).unwrap();
        assert_eq!(mode(&there), 0o755);
        assert_eq!(mode(made.parent().unwrap()), 0o700);
        assert_eq!((mode(&made), mode(&made.join("file"))), (0o700, 0o600));
        create(&made).unwrap();
    }

    #[test]
    fn a_file_that_is_opened_again_keeps_what_is_in_it() {
        let scratch = tempfile::tempdir().unwrap();
        let file = scratch.path().join("file");
        fs::write(&file, "kept").unwrap();
        open_file(&file).unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap(), "kept");
    }

    #[test]
    fn a_directory_that_cannot_be_made_is_known_before() {
        let scratch = tempfile::tempdir().unwrap();
        let fresh = scratch.path().join("a/b");
        may_write(&fresh).unwrap();
        assert!(!fresh.parent().unwrap().exists(), "it only looks");
        may_write(Path::new("not-there-yet")).unwrap();
        fs::write(scratch.path().join("a"), "").unwrap();
        let error = may_write(&fresh).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotADirectory, "{error}");
    }
}
