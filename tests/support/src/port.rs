//! Loopback ports.

use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result};

/// Below the ports that the system gives to outgoing connections, which could take a port between
/// its choice and the start of its server.
const FIRST: u16 = 16_384;
/// Ports of one process.
const BLOCK: u16 = 256;
/// Up to port 32,767.
const BLOCKS: u16 = 64;

/// The ports of this process, handed out one after the other. The socket's name is the claim to
/// them: it is gone with the process.
#[derive(Debug)]
struct Block {
    first: u16,
    handed_out: u16,
    _claim: UnixDatagram,
}

impl Block {
    fn claim() -> Result<Block> {
        (0..BLOCKS)
            .find_map(|number| {
                let first = FIRST + number * BLOCK;
                let name = format!("tailwater-test-ports-{first}");
                let address = SocketAddr::from_abstract_name(name).ok()?;
                let claim = UnixDatagram::bind_addr(&address).ok()?;
                Some(Block { first, handed_out: 0, _claim: claim })
            })
            .context("no block of ports is free: too many processes run tests")
    }

    fn next(&mut self) -> u16 {
        let port = self.first + self.handed_out;
        self.handed_out = (self.handed_out + 1) % BLOCK;
        port
    }
}

/// A TCP port of 127.0.0.1 on which nobody listens. It is given to nobody else until this process
/// ends or has asked for 256 more.
pub fn free_port() -> Result<u16> {
    static PORTS: Mutex<Option<Block>> = Mutex::new(None);
    let mut ports = PORTS.lock().unwrap_or_else(PoisonError::into_inner);
    let block = match &mut *ports {
        Some(block) => block,
        none => none.insert(Block::claim()?),
    };
    (0..BLOCK)
        .map(|_| block.next())
        .find(|&port| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok())
        .context("no port of this process is free")
}

/// Succeeds when something accepts connections on `port` of 127.0.0.1.
pub(crate) fn accepts_connections(port: u16) -> Result<()> {
    let address = (Ipv4Addr::LOCALHOST, port).into();
    TcpStream::connect_timeout(&address, Duration::from_secs(1))
        .with_context(|| format!("connect to 127.0.0.1:{port}"))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn ports_that_no_server_listens_on_yet_are_handed_out_once() {
        let ports: HashSet<u16> = (0..100).map(|_| free_port().unwrap()).collect();
        assert_eq!(ports.len(), 100);
    }

    #[test]
    fn no_other_process_gets_a_port_of_this_one() {
        let port = free_port().unwrap();
        let other = Block::claim().unwrap();
        assert!(!(other.first..other.first + BLOCK).contains(&port));
    }
}
