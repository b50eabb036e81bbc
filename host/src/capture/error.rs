//! What can go wrong between us and the source, and what to do about it.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use tokio_postgres::error::SqlState;

use super::options::Options;
use crate::decode;
use crate::disposition::Disposition;
use crate::position::Lsn;
use crate::table::TableName;

/// An error of the capture stage.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The source URL cannot be used.
    #[error("the source URL cannot be used: {0}")]
    Url(String),
    /// A certificate or key file cannot be used.
    #[error("certificate file {path}: {reason}")]
    Certificate {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// TLS failed.
    #[error("TLS with the source failed; check sslmode and sslrootcert")]
    Tls(#[source] rustls::Error),
    /// `sslmode` asks for TLS and the server has none.
    #[error(
        "the source offers no TLS but sslmode requires it; enable ssl on the server or use \
         sslmode=prefer"
    )]
    TlsRefused,
    /// No host of the URL answered.
    #[error("cannot reach the source at {endpoint}; check host, port and that PostgreSQL runs")]
    Unreachable {
        /// `host:port` or the socket's path.
        endpoint: String,
        /// The last attempt's error.
        #[source]
        source: io::Error,
    },
    /// The connection broke.
    #[error("the connection to the source broke")]
    Io(#[from] io::Error),
    /// Nothing came for too long.
    #[error("the source was silent for {0:?}; taking the connection for dead")]
    Silent(Duration),
    /// The server ended the stream.
    #[error("the source ended the replication stream")]
    Ended,
    /// The server refused the credentials in a way we do not speak.
    #[error("the source asks for {0} authentication, which is not supported; use scram-sha-256")]
    Authentication(&'static str),
    /// The server asks for a password and the URL has none.
    #[error("the source asks for a password; put it into the URL: postgres://user:PASSWORD@host/…")]
    NoPassword,
    /// The server answered with an error.
    #[error("{}", server_sentence(.code, .message))]
    Server {
        /// SQLSTATE.
        code: String,
        /// The server's words.
        message: String,
    },
    /// The server sent something the protocol does not allow here.
    #[error("unexpected message `{0}` from the source")]
    Protocol(char),
    /// A query failed.
    #[error("{}", query_sentence(.0))]
    Query(#[source] tokio_postgres::Error),
    /// The stream is not what pgoutput defines.
    #[error("the replication stream cannot be decoded")]
    Decode(#[from] decode::Error),
    /// A COPY line of a snapshot is not what was asked for.
    #[error("the snapshot of {table} cannot be read")]
    Snapshot {
        /// Which table.
        table: TableName,
        /// What was wrong.
        #[source]
        source: decode::copy::Width,
    },
    /// The connection that exported the snapshot is gone.
    #[error(
        "the snapshot that tables are copied from ended with its connection; the rest will be copied \
         from a newer one"
    )]
    SnapshotEnded,
    /// Tables are not any more what the snapshot shows.
    #[error("{tables} changed while tables were copied, and will be copied from a newer snapshot")]
    Changed {
        /// Which.
        tables: String,
    },
    /// The publication was dropped; until it is there again the server streams nothing, without a word.
    #[error(
        "publication {publication} was dropped while slot {slot} was in use, so changes are missing; run \
         SELECT pg_drop_replication_slot('{slot}') and start again: every table is then copied anew"
    )]
    Unpublished {
        /// Its name.
        publication: String,
        /// The slot's.
        slot: String,
    },
    /// Another server took over.
    #[error(
        "the source went from timeline {from} to {to}: what it has is compared with what is stored"
    )]
    Promoted {
        /// The timeline so far.
        from: u32,
        /// The one now.
        to: u32,
    },
    /// The slot is farther than this process told it, which had lost its connection meanwhile.
    #[error("slot {slot} went on to {confirmed} meanwhile: that is compared with what is stored")]
    Overtaken {
        /// The slot.
        slot: String,
        /// Where it is.
        confirmed: Lsn,
    },
    /// A precondition does not hold; the text says which and how to fix it.
    #[error("{0}")]
    Precondition(String),
    /// The next stage is gone.
    #[error("the pipeline behind the capture ended")]
    Abandoned,
}

impl Error {
    /// Whether waiting can help.
    #[must_use]
    pub fn disposition(&self) -> Disposition {
        match self {
            Error::Unreachable { .. }
            | Error::Io(_)
            | Error::Silent(_)
            | Error::Ended
            | Error::SnapshotEnded
            | Error::Promoted { .. }
            | Error::Overtaken { .. }
            | Error::Changed { .. } => Disposition::Retry,
            Error::Server { code, .. } if passing(code) => Disposition::Retry,
            Error::Query(error) if query_passing(error) => Disposition::Retry,
            Error::Url(_)
            | Error::Certificate { .. }
            | Error::Tls(_)
            | Error::TlsRefused
            | Error::Authentication(_)
            | Error::NoPassword
            | Error::Server { .. }
            | Error::Protocol(_)
            | Error::Unpublished { .. }
            | Error::Query(_)
            | Error::Decode(_)
            | Error::Snapshot { .. }
            | Error::Abandoned
            | Error::Precondition(_) => Disposition::Halt,
        }
    }

    /// The publication of these options was dropped.
    #[must_use]
    pub fn unpublished(options: &Options) -> Error {
        Error::Unpublished { publication: options.publication.clone(), slot: options.slot.clone() }
    }

    /// The SQLSTATE, if the server sent one.
    #[must_use]
    pub fn code(&self) -> Option<&str> {
        match self {
            Error::Server { code, .. } => Some(code),
            Error::Query(error) => error.code().map(SqlState::code),
            _ => None,
        }
    }

    /// Whether another connection has the slot.
    #[must_use]
    pub fn is_slot_in_use(&self) -> bool {
        self.code() == Some("55006")
    }
}

impl From<tokio_postgres::Error> for Error {
    fn from(error: tokio_postgres::Error) -> Self {
        Error::Query(error)
    }
}

/// Classes 08 (connection), 53 (resources), 57 (shutdown, crash), 58 (system); 40 (serialization);
/// 55006 (slot still in use by our own former connection); 55P03 (table locked by somebody else); 42710 and
/// 23505 (another process made what was not there at the same moment).
fn passing(code: &str) -> bool {
    ["55006", "55P03", "42710", "23505"].contains(&code)
        || ["08", "40", "53", "57", "58"].contains(&code.get(..2).unwrap_or_default())
}

fn query_passing(error: &tokio_postgres::Error) -> bool {
    match error.code() {
        Some(code) => passing(code.code()),
        // No SQLSTATE: the connection itself failed.
        None => {
            error.is_closed()
                || std::error::Error::source(error).is_some_and(|s| s.is::<io::Error>())
        }
    }
}

/// The server's words, and for what users meet most, what to do.
fn server_sentence(code: &str, message: &str) -> String {
    let advice = match code {
        "28P01" | "28000" => "; check user, password and pg_hba.conf",
        "3D000" => "; check the database's name in the source URL",
        "42501" => "; grant the privilege or use another user",
        "53300" => "; raise max_connections or max_wal_senders on the server",
        "53400" => {
            "; raise max_replication_slots on the server and restart it, or drop a slot that is not \
             used: to copy tables takes one besides the pipeline's own"
        }
        "55006" => "; another process streams from this slot: stop it, or set [source] slot",
        "55P03" => {
            "; another session keeps a table locked, as VACUUM FULL does: see pg_locks, and wait for it \
             or end it"
        }
        _ => "",
    };
    format!("the source refused: {message} (SQLSTATE {code}){advice}")
}

fn query_sentence(error: &tokio_postgres::Error) -> String {
    match error.as_db_error() {
        Some(db) => server_sentence(db.code().code(), db.message()),
        None if error.is_closed() => "the connection to the source closed".to_owned(),
        None => "cannot reach the source; check host, port and that PostgreSQL runs".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};

    use super::*;

    #[test]
    fn what_users_meet_most_comes_with_what_to_do() {
        for (code, advice) in [
            ("28P01", "; check user, password and pg_hba.conf"),
            ("3D000", "; check the database's name in the source URL"),
            ("53400", "; raise max_replication_slots on the server and restart it, or drop a slot"),
            ("42P01", ""),
        ] {
            let said = Error::Server { code: code.into(), message: "no".into() }.to_string();
            let begin = format!("the source refused: no (SQLSTATE {code}){advice}");
            assert!(said.starts_with(&begin), "{said}");
        }
    }

    /// A server that lets everybody in, and goes away when it is asked for anything.
    #[tokio::test]
    async fn a_connection_for_queries_that_ends_is_told_from_one_that_does_not_come_about() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let url = format!("host=127.0.0.1 port={port} user=u sslmode=disable");
        let serving = std::thread::spawn(move || {
            let (mut asked, _) = listener.accept().expect("a connection");
            let mut length = [0; 4];
            asked.read_exact(&mut length).expect("the start-up");
            let mut rest = vec![0; u32::from_be_bytes(length) as usize - 4];
            asked.read_exact(&mut rest).expect("the start-up");
            // AuthenticationOk and ReadyForQuery.
            asked.write_all(b"R\0\0\0\x08\0\0\0\0Z\0\0\0\x05I").expect("it listens");
            asked.read_exact(&mut [0]).expect("a query");
        });
        let (client, connection) =
            tokio_postgres::connect(&url, tokio_postgres::NoTls).await.expect("it lets us in");
        let driving = tokio::spawn(connection);
        let error = client.batch_execute("SELECT 1").await.expect_err("it goes away");
        assert_eq!(Error::Query(error).to_string(), "the connection to the source closed");
        drop(driving.await.expect("it does not panic"));
        serving.join().expect("it does not panic");
        let refused = tokio_postgres::connect(&url, tokio_postgres::NoTls).await;
        let said = Error::Query(refused.err().expect("nobody listens")).to_string();
        assert_eq!(said, "cannot reach the source; check host, port and that PostgreSQL runs");
    }

    #[test]
    fn a_wrong_password_halts_and_a_shutdown_is_waited_out() {
        let server =
            |code: &str| Error::Server { code: code.into(), message: "x".into() }.disposition();
        assert_eq!(server("28P01"), Disposition::Halt);
        assert_eq!(server("57P01"), Disposition::Retry);
        assert_eq!(server("55006"), Disposition::Retry);
        assert_eq!(server("55P03"), Disposition::Retry);
        assert_eq!(server("42501"), Disposition::Halt);
    }
}
