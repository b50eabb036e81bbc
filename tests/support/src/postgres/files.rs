//! The files of a cluster, and whom they belong to.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use anyhow::Result;

use super::PostgresOptions;
use crate::Certificates;
use crate::download::run;

/// Trust on the unix socket, passwords over TCP, for databases and replication.
pub(super) const ACCESS: &str = "\
local all all trust
local replication all trust
host all all 127.0.0.1/32 scram-sha-256
host replication all 127.0.0.1/32 scram-sha-256
";

/// A user who would have to come with a ticket.
pub(super) const KERBEROS: &str = "host all kerberos 127.0.0.1/32 gss\n";

/// What a test server has in common: fast instead of safe against power loss, room for many slots.
const SETTINGS: &str = "
listen_addresses = '127.0.0.1'
fsync = off
full_page_writes = off
timezone = 'UTC'
log_timezone = 'UTC'
max_connections = 200
max_replication_slots = 250
max_wal_senders = 100
max_logical_replication_workers = 8
max_prepared_transactions = 20
shared_buffers = 64MB
wal_sender_timeout = 60s
max_wal_size = 4GB
";

pub(super) fn configuration(options: &PostgresOptions, port: u16, sockets: &Path) -> String {
    let own = [
        setting("port", &port.to_string()),
        setting("unix_socket_directories", &sockets.display().to_string()),
        setting("wal_level", &options.wal_level),
    ];
    let further = options.settings.iter().map(|(name, value)| setting(name, value));
    SETTINGS.to_owned() + &own.into_iter().chain(further).collect::<String>()
}

pub(super) fn tls(certificates: &Certificates) -> String {
    setting("ssl", "on")
        + &setting("ssl_cert_file", &certificates.certificate.display().to_string())
        + &setting("ssl_key_file", &certificates.key.display().to_string())
}

fn setting(name: &str, value: &str) -> String {
    format!("{name} = '{}'\n", value.replace('\'', "''"))
}

pub(super) fn append(file: &Path, text: &str) -> Result<()> {
    fs::File::options().append(true).open(file)?.write_all(text.as_bytes())?;
    Ok(())
}

/// Makes an empty directory that belongs to `user`.
pub(super) fn give_directory(path: &Path, user: Option<&str>) -> Result<()> {
    fs::create_dir(path)?;
    give(path, user)
}

/// Gives a private key to `user`, readable for nobody else, as the server insists.
pub(super) fn give_key(path: &Path, user: Option<&str>) -> Result<()> {
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
    give(path, user)
}

fn give(path: &Path, user: Option<&str>) -> Result<()> {
    if let Some(user) = user {
        run(Command::new("chown").arg(format!("{user}:{user}")).arg(path))?;
    }
    Ok(())
}
