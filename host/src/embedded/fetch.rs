//! `tailwater embedded fetch`: the engine's library, downloaded once, checked and kept in the cache.

use std::fs::{self, File};
use std::io::{self, IsTerminal as _, Read as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use flate2::read::GzDecoder;
use sha2::{Digest as _, Sha256};
use tar::Archive;

use super::error::Error;
use super::locate::{FILE, cached_library, find_library, is_named};
use super::options::Options;

/// A package that holds the library.
struct Package {
    url: &'static str,
    /// Hex.
    sha256: &'static str,
}

/// The version that [`locate`](super::locate) looks for, as it is published.
const PINNED: Package = Package {
    url: "https://registry.npmjs.org/@chdb/lib-linux-x64-gnu/-/\
          lib-linux-x64-gnu-26.7.3-stable.1.tgz",
    sha256: "c0d32b129e988f2b9a9a31c9141aecf5e1e2453f9a079efc4d36ab8e3f92b2ad",
};

/// The engine's library, downloaded into the cache unless it is on this machine already. `curl` does
/// it, so that a machine's settings for proxies hold.
///
/// # Errors
/// [`Error::NoLibrary`] if the settings name a file that is not there; [`Error::Platform`],
/// [`Error::NoCache`], [`Error::Download`], [`Error::Digest`], [`Error::Keep`].
pub fn fetch(options: &Options) -> Result<PathBuf, Error> {
    let named = options.library.as_deref();
    match find_library(named) {
        Err(Error::NoLibrary { .. }) if named.is_none() && !is_named() => {}
        found => return found,
    }
    if cfg!(not(all(target_os = "linux", target_arch = "x86_64"))) {
        return Err(Error::Platform);
    }
    let library = cached_library()?;
    install(&PINNED, &library)?;
    Ok(library)
}

/// Puts the package's library where it is kept; another process that does the same is waited for.
fn install(package: &Package, library: &Path) -> Result<(), Error> {
    let keep = |path: &Path| {
        let path = path.to_owned();
        move |source| Error::Keep { path, source }
    };
    let directory = library.parent().unwrap_or(library);
    fs::create_dir_all(directory).map_err(keep(directory))?;
    let lock = File::create(directory.join("lock")).map_err(keep(directory))?;
    lock.lock().map_err(keep(directory))?;
    if library.is_file() {
        return Ok(());
    }
    let (packed, unpacked) = (library.with_extension("tgz"), library.with_extension("part"));
    download(package, &packed)?;
    unpack(&packed, &unpacked).map_err(keep(&unpacked))?;
    fs::rename(&unpacked, library).map_err(keep(library))?;
    fs::remove_file(&packed).map_err(keep(&packed))
}

/// Downloads the package, from where an earlier attempt stopped. A wrong one does not stay.
fn download(package: &Package, file: &Path) -> Result<(), Error> {
    let failed = |cause: String| Error::Download { url: package.url, source: cause.into() };
    let mut curl = Command::new("curl");
    curl.args(["--fail", "--location", "--retry", "3", "--continue-at", "-", "--output"]);
    curl.arg(file).arg(package.url);
    if io::stderr().is_terminal() {
        curl.arg("--progress-bar").stderr(Stdio::inherit());
    } else {
        curl.args(["--silent", "--show-error"]);
    }
    let output = curl.output().map_err(|error| failed(format!("curl does not run: {error}")))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        let reason = said.lines().last().map_or(output.status.to_string(), str::to_owned);
        return Err(failed(reason));
    }
    let found = sha256(file).map_err(|source| Error::Keep { path: file.to_owned(), source })?;
    if found != package.sha256 {
        fs::remove_file(file).map_err(|source| Error::Keep { path: file.to_owned(), source })?;
        return Err(Error::Digest { url: package.url, expected: package.sha256, found });
    }
    Ok(())
}

/// In hex.
fn sha256(file: &Path) -> io::Result<String> {
    let (mut file, mut hasher) = (File::open(file)?, Sha256::new());
    let mut buffer = vec![0; 1 << 20];
    loop {
        match file.read(&mut buffer)? {
            0 => break,
            length => hasher.update(&buffer[..length]),
        }
    }
    Ok(hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

fn unpack(packed: &Path, unpacked: &Path) -> io::Result<()> {
    let mut archive = Archive::new(GzDecoder::new(File::open(packed)?));
    for entry in archive.entries()? {
        let mut entry = entry?;
        if entry.path()?.file_name().is_some_and(|name| name == FILE) {
            return io::copy(&mut entry, &mut File::create(unpacked)?).map(drop);
        }
    }
    Err(io::Error::new(io::ErrorKind::NotFound, format!("the package holds no {FILE}")))
}

#[cfg(test)]
mod tests {
    use flate2::Compression;
    use flate2::write::GzEncoder;

    use super::*;

    /// A package at a URL, which a test does not need back.
    fn package(directory: &Path, member: &str, sha256: Option<&'static str>) -> Package {
        let file = directory.join("package.tgz");
        let compressed = GzEncoder::new(File::create(&file).expect("a file"), Compression::fast());
        let mut archive = tar::Builder::new(compressed);
        let mut header = tar::Header::new_gnu();
        header.set_size(7);
        archive.append_data(&mut header, member, &b"library"[..]).expect("a member");
        archive.into_inner().and_then(GzEncoder::finish).expect("a package");
        let digest = super::sha256(&file).expect("a file");
        Package {
            url: format!("file://{}", file.display()).leak(),
            sha256: sha256.unwrap_or(digest.leak()),
        }
    }

    fn refusal(package: &Package, library: &Path) -> String {
        let error = anyhow::Error::new(install(package, library).expect_err("no library"));
        assert!(!library.is_file(), "it is there");
        format!("{error:#}")
    }

    #[test]
    fn the_library_of_a_package_is_kept_and_nothing_else_stays() {
        let folder = tempfile::tempdir().expect("a directory");
        let library = folder.path().join("cache/version/libchdb.so");
        let package = package(folder.path(), "package/libchdb.so", None);
        install(&package, &library).expect("it is fetched");
        assert_eq!(fs::read(&library).expect("it is there"), b"library");
        install(&package, &library).expect("it is there already");
        let kept = fs::read_dir(library.parent().expect("a directory")).expect("a directory");
        let kept = kept.map(|entry| entry.expect("an entry").file_name()).filter(|n| n != "lock");
        assert_eq!(kept.collect::<Vec<_>>(), ["libchdb.so"]);
    }

    #[test]
    fn what_keeps_the_library_from_being_fetched_is_said() {
        let folder = tempfile::tempdir().expect("a directory");
        let library = folder.path().join("cache/libchdb.so");
        let nowhere = Package { url: "file:///nowhere.tgz", sha256: "" };
        let said = refusal(&nowhere, &library);
        assert!(said.starts_with("cannot download the engine's library from file:///"), "{said}");
        assert!(said.contains("try again: curl: "), "{said}");
        let other = package(folder.path(), "package/libchdb.so", Some("00"));
        let said = refusal(&other, &library);
        assert!(said.contains(" where 00 is expected; try again"), "{said}");
        assert!(!library.with_extension("tgz").exists(), "a wrong package would be taken again");
        let empty = package(folder.path(), "package/README.md", None);
        let said = refusal(&empty, &library);
        assert!(
            said.starts_with("cannot write ")
                && said.ends_with(": the package holds no libchdb.so"),
            "{said}"
        );
        fs::write(folder.path().join("file"), "no directory").expect("a file");
        let said = refusal(&other, &folder.path().join("file/cache/libchdb.so"));
        assert!(
            said.starts_with("cannot write ")
                && said.contains("; free space there, or set TAILWATER_CACHE"),
            "{said}"
        );
    }
}
