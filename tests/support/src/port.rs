//! Loopback ports.

use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::time::Duration;

use anyhow::{Context as _, Result};

/// A TCP port of 127.0.0.1 that nobody listened on a moment ago.
pub fn free_port() -> Result<u16> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("bind a free port")?;
    Ok(listener.local_addr()?.port())
}

/// Succeeds when something accepts connections on `port` of 127.0.0.1.
pub(crate) fn accepts_connections(port: u16) -> Result<()> {
    let address = (Ipv4Addr::LOCALHOST, port).into();
    TcpStream::connect_timeout(&address, Duration::from_secs(1))
        .with_context(|| format!("connect to 127.0.0.1:{port}"))?;
    Ok(())
}
