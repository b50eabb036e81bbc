//! Which of the URL's servers it is. A URL may name several hosts, and a name several addresses, of
//! which `target_session_attrs` wants one: queries, the replication stream and the copies of one
//! session must all go to that.

use std::io;
use std::net::SocketAddr;

use tokio::net::lookup_host;
use tokio::time::timeout;
use tokio_postgres::Client;
use tokio_postgres::config::Host;

use super::catalog;
use super::connection::ANSWER_TIMEOUT;
use super::error::Error;
use super::source_url::{Endpoint, SourceUrl};

/// Connects for queries to the first server that has what the URL asks for, and gives the URL of that
/// one alone.
///
/// # Errors
/// Why the last of them cannot be used.
pub async fn reach(url: &SourceUrl) -> Result<(Client, SourceUrl), Error> {
    let mut last = None;
    for endpoint in url.endpoints() {
        let places = match addresses(endpoint).await {
            Ok(places) => places,
            Err(error) => {
                last = Some(error);
                continue;
            }
        };
        for place in places {
            let only = url.only(&place);
            match timeout(ANSWER_TIMEOUT, catalog::connect(&only)).await {
                Ok(Ok(client)) => return Ok((client, only)),
                Ok(Err(error)) => last = Some(error),
                Err(_) => last = Some(Error::Silent(ANSWER_TIMEOUT)),
            }
        }
    }
    Err(last.expect("a URL that was parsed names a host"))
}

/// The endpoint at each address of its name.
async fn addresses(endpoint: Endpoint) -> Result<Vec<Endpoint>, Error> {
    let (Host::Tcp(name), None) = (&endpoint.host, endpoint.address) else {
        return Ok(vec![endpoint]);
    };
    let unreachable = |source| Error::Unreachable { endpoint: endpoint.to_string(), source };
    let found = lookup_host((name.as_str(), endpoint.port)).await.map_err(unreachable)?;
    let at = |address: SocketAddr| Endpoint { address: Some(address.ip()), ..endpoint.clone() };
    let places: Vec<Endpoint> = found.map(at).collect();
    match places.is_empty() {
        true => {
            Err(unreachable(io::Error::new(io::ErrorKind::NotFound, "the name has no address")))
        }
        false => Ok(places),
    }
}
