//! PostgreSQL servers.
//!
//! A server listens on a unix socket (trusted) and on TCP (SCRAM; TLS offered by version 15); the
//! data directory belongs to an unprivileged user when we are root, because the server refuses root.

mod database;
mod files;
mod session;

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result};
use rustix::process::Signal;

pub use self::database::Database;
pub use self::session::Session;
use crate::child::{self, Guarded};
use crate::download::run;
use crate::{Certificates, Scratch, free_port, setup, unique_name};

/// The user that TCP connections log in as, a superuser, with this password.
const TCP_USER: &str = "tailwater";
const TCP_PASSWORD: &str = "correct horse";

const START_DEADLINE: Duration = Duration::from_secs(60);
const STOP_DEADLINE: Duration = Duration::from_secs(30);

/// The majors that are tested.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PostgresVersion {
    /// Debian 12's.
    V15,
    /// The newest; this build of it has no TLS.
    V18,
}

/// How a server is set up.
#[derive(Debug, Clone)]
pub struct PostgresOptions {
    /// `wal_level`; `logical` by default.
    pub wal_level: String,
    /// Further lines of `postgresql.conf`, as name and value.
    pub settings: Vec<(String, String)>,
}

impl Default for PostgresOptions {
    fn default() -> Self {
        Self { wal_level: "logical".into(), settings: Vec::new() }
    }
}

/// A running server, stopped and removed on drop.
#[derive(Debug)]
pub struct Postgres {
    server: Mutex<Option<Guarded>>,
    version: PostgresVersion,
    installation: PathBuf,
    user: Option<&'static str>,
    port: u16,
    certificates: Certificates,
    // Last, so that the server is down before its directory goes.
    scratch: Scratch,
}

impl Postgres {
    /// The server of this process with the default options, started at first use. Whoever stops or
    /// crashes a server starts one of their own.
    pub fn shared(version: PostgresVersion) -> &'static Self {
        static V15: OnceLock<Postgres> = OnceLock::new();
        static V18: OnceLock<Postgres> = OnceLock::new();
        let server = match version {
            PostgresVersion::V15 => &V15,
            PostgresVersion::V18 => &V18,
        };
        server.get_or_init(|| {
            Self::start(version, PostgresOptions::default())
                .unwrap_or_else(|error| panic!("PostgreSQL {version:?} must start: {error:#}"))
        })
    }

    /// Makes a new cluster and starts it.
    #[expect(clippy::needless_pass_by_value, reason = "options are written at the call")]
    pub fn start(version: PostgresVersion, options: PostgresOptions) -> Result<Self> {
        let scratch = Scratch::new("pg")?;
        let user = rustix::process::geteuid().is_root().then_some("postgres");
        let certificates = Certificates::generate(scratch.path())?;
        let postgres = Self {
            server: Mutex::new(None),
            version,
            installation: installation(version, &scratch, user)?,
            user,
            port: free_port()?,
            certificates,
            scratch,
        };
        postgres.initialise(&options)?;
        postgres.restart()?;
        let role = format!("CREATE ROLE {TCP_USER} SUPERUSER LOGIN PASSWORD '{TCP_PASSWORD}'");
        postgres.execute("postgres", &role)?;
        Ok(postgres)
    }

    /// The major.
    #[must_use]
    pub fn version(&self) -> PostgresVersion {
        self.version
    }

    /// A libpq URL over the unix socket, logging in as the superuser `postgres`.
    #[must_use]
    pub fn url(&self, database: &str) -> String {
        let directory = self.socket_directory();
        format!(
            "postgres:///{database}?host={}&port={}&user=postgres",
            directory.display(),
            self.port
        )
    }

    /// A libpq URL over TCP with a superuser's name and password; no `sslmode` is set.
    #[must_use]
    pub fn tcp_url(&self, database: &str) -> String {
        let password = TCP_PASSWORD.replace(' ', "%20");
        format!("postgres://{TCP_USER}:{password}@127.0.0.1:{}/{database}", self.port)
    }

    /// Name and password of the superuser that [`tcp_url`](Self::tcp_url) logs in as.
    #[must_use]
    pub fn tcp_login(&self) -> (&'static str, &'static str) {
        (TCP_USER, TCP_PASSWORD)
    }

    /// The TCP port of 127.0.0.1, which names the unix socket too.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The directory of the unix socket.
    #[must_use]
    pub fn socket_directory(&self) -> PathBuf {
        self.scratch.join("socket")
    }

    /// The certificates that version 15 uses; `sslmode=verify-full` holds with their `ca` as
    /// `sslrootcert`.
    #[must_use]
    pub fn certificates(&self) -> &Certificates {
        &self.certificates
    }

    /// The process id of the server, when it runs.
    #[must_use]
    pub fn process_id(&self) -> Option<u32> {
        self.server.lock().unwrap_or_else(PoisonError::into_inner).as_ref().map(Guarded::id)
    }

    /// The file that the server logs to.
    #[must_use]
    pub fn log_file(&self) -> PathBuf {
        self.scratch.join("server.log")
    }

    /// A program of this version, for example `pg_recvlogical`.
    #[must_use]
    pub fn program(&self, name: &str) -> PathBuf {
        self.installation.join("bin").join(name)
    }

    /// A new empty database with a name of its own.
    pub fn create_database(&self) -> Result<Database<'_>> {
        let name = unique_name("db");
        self.execute("postgres", &format!("CREATE DATABASE {name}"))?;
        Ok(Database::new(self, name))
    }

    /// A database that is there already.
    #[must_use]
    pub fn database(&self, name: &str) -> Database<'_> {
        Database::new(self, name.to_owned())
    }

    /// Runs SQL statements, each in its own transaction unless they say otherwise.
    pub fn execute(&self, database: &str, sql: &str) -> Result<()> {
        self.psql(database, sql)?;
        Ok(())
    }

    /// Runs a query; rows of PostgreSQL's text forms, NULL as the empty string. Not for values with
    /// tabs or newlines in them.
    pub fn query(&self, database: &str, sql: &str) -> Result<Vec<Vec<String>>> {
        let text = self.psql(database, sql)?;
        Ok(text.lines().map(|line| line.split('\t').map(str::to_owned).collect()).collect())
    }

    fn psql(&self, database: &str, sql: &str) -> Result<String> {
        let mut psql = Command::new(self.program("psql"));
        psql.args(["-X", "-q", "-A", "-t", "-F", "\t", "-v", "ON_ERROR_STOP=1", "-d"]);
        psql.arg(self.url(database)).env("PGCLIENTENCODING", "UTF8");
        // By file descriptor, since a command line is limited in length.
        let file = self.scratch.join(&unique_name("sql"));
        fs::write(&file, sql)?;
        let output = run(psql.arg("-f").arg(&file));
        fs::remove_file(&file)?;
        output
    }

    /// Shuts down in order: sessions are ended, walsenders send what there is.
    pub fn stop(&self) -> Result<()> {
        self.end(Signal::INT)
    }

    /// Shuts down at once, as a crash does: recovery at the next start.
    pub fn crash(&self) -> Result<()> {
        self.end(Signal::QUIT)
    }

    fn end(&self, signal: Signal) -> Result<()> {
        let server = self.server.lock().unwrap_or_else(PoisonError::into_inner).take();
        server.map_or(Ok(()), |mut server| server.stop(signal, STOP_DEADLINE).map(drop))
    }

    /// Starts the server again, after an orderly stop if it runs; data, port and socket stay.
    pub fn restart(&self) -> Result<()> {
        self.stop()?;
        let mut command = child::command(&self.program("postgres"), "QUIT", self.user);
        let log = fs::File::options().create(true).append(true).open(self.log_file())?;
        command.arg("-D").arg(self.data()).stdout(log.try_clone()?).stderr(log);
        let mut server = Guarded::spawn(command, Signal::QUIT)?;
        let what = "PostgreSQL to accept connections";
        server.wait_serving(START_DEADLINE, what, &self.log_file(), || {
            self.execute("postgres", "SELECT 1")
        })?;
        *self.server.lock().unwrap_or_else(PoisonError::into_inner) = Some(server);
        Ok(())
    }

    /// Restarts as the standby of a primary that is not there: it can only be read from.
    pub fn become_standby(&self) -> Result<()> {
        self.stop()?;
        fs::write(self.data().join("standby.signal"), "")?;
        self.restart()
    }

    /// Copies the server's files while it is down, for [`restore`](Self::restore).
    pub fn back_up(&self) -> Result<()> {
        self.stop()?;
        let mut cp = Command::new("cp");
        run(cp.arg("--archive").arg(self.data()).arg(self.scratch.join("backup")))?;
        self.restart()
    }

    /// Puts back the files as [`back_up`](Self::back_up) found them, and starts the server.
    pub fn restore(&self) -> Result<()> {
        self.stop()?;
        fs::remove_dir_all(self.data())?;
        fs::rename(self.scratch.join("backup"), self.data())?;
        self.restart()
    }

    /// Restarts as a standby that is promoted before anybody can connect: all of the log is replayed, and
    /// goes on as another timeline.
    pub fn promote(&self) -> Result<()> {
        self.stop()?;
        let settings = "hot_standby = off\nrestore_command = 'false'\n";
        files::append(&self.data().join("postgresql.conf"), settings)?;
        fs::write(self.data().join("recovery.signal"), "")?;
        self.restart()
    }

    /// Ends every walsender of the server; how many there were.
    pub fn kill_walsenders(&self) -> Result<usize> {
        let sql = "SELECT pg_terminate_backend(pid) FROM pg_stat_replication";
        Ok(self.query("postgres", sql)?.len())
    }

    fn data(&self) -> PathBuf {
        self.scratch.join("data")
    }

    fn initialise(&self, options: &PostgresOptions) -> Result<()> {
        files::give_directory(&self.socket_directory(), self.user)?;
        files::give_directory(&self.data(), self.user)?;
        files::give_key(&self.certificates.key, self.user)?;
        let mut initdb = child::command(&self.program("initdb"), "KILL", self.user);
        initdb.args(["--username=postgres", "--auth=trust", "--no-sync", "--encoding=UTF8"]);
        initdb.args(["--locale=C.UTF-8", "--pgdata"]).arg(self.data());
        // The server's user may not enter the directory we happen to be in.
        run(initdb.current_dir("/"))?;
        let mut configuration = files::configuration(options, self.port, &self.socket_directory());
        if self.version == PostgresVersion::V15 {
            configuration.push_str(&files::tls(&self.certificates));
        }
        files::append(&self.data().join("postgresql.conf"), &configuration)?;
        // Only Debian's build knows the method.
        let kerberos = if self.version == PostgresVersion::V15 { files::KERBEROS } else { "" };
        fs::write(self.data().join("pg_hba.conf"), format!("{kerberos}{}", files::ACCESS))?;
        Ok(())
    }
}

/// Where the programs are. PostgreSQL 18 is cached below a home directory, which the server's
/// unprivileged user may not enter: it gets a copy, of the whole wheel because the programs find
/// their libraries beside it.
fn installation(
    version: PostgresVersion,
    scratch: &Scratch,
    user: Option<&str>,
) -> Result<PathBuf> {
    match (version, user) {
        (PostgresVersion::V15, _) => Ok("/usr/lib/postgresql/15".into()),
        (PostgresVersion::V18, None) => setup::postgres_18(),
        (PostgresVersion::V18, Some(_)) => {
            let installed = setup::postgres_18()?;
            let wheel = installed.ancestors().nth(2).context("an installation in a wheel")?;
            let copy = scratch.join("wheel");
            let mut cp = Command::new("cp");
            run(cp.args(["--recursive", "--preserve=mode,links"]).arg(wheel).arg(&copy))?;
            Ok(copy.join(installed.strip_prefix(wheel)?))
        }
    }
}
