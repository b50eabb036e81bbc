//! A TCP proxy that can go deaf, as a network does that drops packets: connections stay open, and
//! nothing comes through any more.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context as _, Result};

/// Forwards a loopback port of its own to another one.
#[derive(Debug)]
pub struct Proxy {
    port: u16,
    /// Connections below this number are deaf.
    deaf_below: Arc<AtomicU64>,
    connections: Arc<AtomicU64>,
}

impl Proxy {
    /// Starts to forward to `target` of 127.0.0.1.
    pub fn start(target: u16) -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("bind a proxy")?;
        let port = listener.local_addr()?.port();
        let (deaf_below, connections) = (Arc::<AtomicU64>::default(), Arc::<AtomicU64>::default());
        let (deaf, counted) = (Arc::clone(&deaf_below), Arc::clone(&connections));
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let number = counted.fetch_add(1, Ordering::SeqCst);
                let Ok(server) = TcpStream::connect((Ipv4Addr::LOCALHOST, target)) else {
                    continue;
                };
                // A pair that cannot be cloned is dropped, which closes it for both ends.
                if let (Ok(from), Ok(to)) = (client.try_clone(), server.try_clone()) {
                    forward(client, server, number, Arc::clone(&deaf));
                    forward(to, from, number, Arc::clone(&deaf));
                }
            }
        });
        Ok(Self { port, deaf_below, connections })
    }

    /// The port to connect to.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Lets nothing through any more on the connections that are open now; new ones work.
    pub fn go_deaf(&self) {
        self.deaf_below.store(self.connections.load(Ordering::SeqCst), Ordering::SeqCst);
    }
}

fn forward(mut from: TcpStream, mut to: TcpStream, number: u64, deaf_below: Arc<AtomicU64>) {
    std::thread::spawn(move || {
        let mut buffer = vec![0; 64 << 10];
        while let Ok(read @ 1..) = from.read(&mut buffer) {
            let deaf = number < deaf_below.load(Ordering::SeqCst);
            if !deaf && to.write_all(&buffer[..read]).is_err() {
                break;
            }
        }
        if number >= deaf_below.load(Ordering::SeqCst) {
            // An end that has gone already is what this is to bring about.
            drop(to.shutdown(Shutdown::Both));
        }
    });
}
