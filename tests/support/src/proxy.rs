//! A TCP proxy that can go deaf, as a network does that drops packets: connections stay open, and
//! nothing comes through any more. It can become slow, too, or damage what passes.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::wait_until;

/// Forwards a loopback port of its own to another one.
#[derive(Debug)]
pub struct Proxy {
    port: u16,
    /// Connections below this number are deaf.
    deaf_below: Arc<AtomicU64>,
    connections: Arc<AtomicU64>,
    /// Bytes a second that each connection forwards; zero for as many as come.
    pace: Arc<AtomicU64>,
    damage: Arc<Mutex<Option<Damage>>>,
    /// A connection over which these pass is deaf from then on.
    deafening: Arc<Mutex<Option<Vec<u8>>>>,
}

/// Bytes to put others in place of.
#[derive(Debug, Clone)]
struct Damage {
    of: Vec<u8>,
    to: Vec<u8>,
}

impl Proxy {
    /// Starts to forward to `target` of 127.0.0.1.
    pub fn start(target: u16) -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("bind a proxy")?;
        let port = listener.local_addr()?.port();
        let (deaf_below, connections) = (Arc::<AtomicU64>::default(), Arc::<AtomicU64>::default());
        let (pace, damage) = (Arc::<AtomicU64>::default(), Arc::<Mutex<Option<Damage>>>::default());
        let (deaf, counted) = (Arc::clone(&deaf_below), Arc::clone(&connections));
        let (paced, damaged) = (Arc::clone(&pace), Arc::clone(&damage));
        let deafening = Arc::<Mutex<Option<Vec<u8>>>>::default();
        let deafened = Arc::clone(&deafening);
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let number = counted.fetch_add(1, Ordering::SeqCst);
                let Ok(server) = TcpStream::connect((Ipv4Addr::LOCALHOST, target)) else {
                    continue;
                };
                // A pair that cannot be cloned is dropped, which closes it for both ends.
                if let (Ok(from), Ok(to)) = (client.try_clone(), server.try_clone()) {
                    let own = Arc::<AtomicBool>::default();
                    let limits = || Limits {
                        deaf: Arc::clone(&deaf),
                        pace: Arc::clone(&paced),
                        damage: Arc::clone(&damaged),
                        deafening: Arc::clone(&deafened),
                        own: Arc::clone(&own),
                    };
                    forward(client, server, number, limits());
                    forward(to, from, number, limits());
                }
            }
        });
        Ok(Self { port, deaf_below, connections, pace, damage, deafening })
    }

    /// The port to connect to.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Forwards so many bytes a second on each connection from now on; zero lifts the limit.
    pub fn slow_down(&self, bytes_per_second: u64) {
        self.pace.store(bytes_per_second, Ordering::SeqCst);
    }

    /// Puts `to` in place of `of`, both of one length, wherever the latter passes from now on. It does
    /// so if `of` passes in one piece, which short messages do.
    pub fn damage(&self, of: &[u8], to: &[u8]) {
        assert!(of.len() == to.len() && !of.is_empty(), "a message keeps its length");
        let damage = Damage { of: of.to_vec(), to: to.to_vec() };
        *self.damage.lock().unwrap_or_else(PoisonError::into_inner) = Some(damage);
    }

    /// Lets nothing through any more on a connection, new or old, over which these bytes come from now on, in
    /// one piece as for [`damage`](Self::damage); not them either.
    pub fn go_deaf_to(&self, bytes: &[u8]) {
        assert!(!bytes.is_empty(), "every message holds no byte");
        let deafening = bytes.to_vec();
        *self.deafening.lock().unwrap_or_else(PoisonError::into_inner) = Some(deafening);
    }

    /// Lets everything through as it is again, on connections that are not deaf.
    pub fn mend(&self) {
        *self.damage.lock().unwrap_or_else(PoisonError::into_inner) = None;
        *self.deafening.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Lets nothing through any more on the connections that are open now; new ones work.
    pub fn go_deaf(&self) {
        self.deaf_below.store(self.connections.load(Ordering::SeqCst), Ordering::SeqCst);
    }
}

/// What the connections share.
struct Limits {
    deaf: Arc<AtomicU64>,
    pace: Arc<AtomicU64>,
    damage: Arc<Mutex<Option<Damage>>>,
    deafening: Arc<Mutex<Option<Vec<u8>>>>,
    /// Whether this connection is deaf, whatever the others are.
    own: Arc<AtomicBool>,
}

impl Limits {
    fn are_deaf(&self, number: u64) -> bool {
        number < self.deaf.load(Ordering::SeqCst) || self.own.load(Ordering::SeqCst)
    }

    fn look_for_deafening(&self, bytes: &[u8]) {
        let deafening = self.deafening.lock().unwrap_or_else(PoisonError::into_inner);
        let passes = |of: &Vec<u8>| bytes.windows(of.len()).any(|window| window == of);
        if deafening.as_ref().is_some_and(passes) {
            self.own.store(true, Ordering::SeqCst);
        }
    }

    fn damage(&self, bytes: &mut [u8]) {
        let damage = self.damage.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let Some(Damage { of, to }) = damage else { return };
        let mut rest = bytes;
        while let Some(at) = rest.windows(of.len()).position(|window| window == of) {
            rest[at..at + to.len()].copy_from_slice(&to);
            rest = &mut rest[at + to.len()..];
        }
    }
}

fn forward(mut from: TcpStream, mut to: TcpStream, number: u64, limits: Limits) {
    std::thread::spawn(move || {
        let mut buffer = vec![0; 64 << 10];
        while let Ok(read @ 1..) = from.read(&mut buffer) {
            limits.look_for_deafening(&buffer[..read]);
            let deaf = limits.are_deaf(number);
            limits.damage(&mut buffer[..read]);
            if !deaf && to.write_all(&buffer[..read]).is_err() {
                break;
            }
            if let pace @ 1.. = limits.pace.load(Ordering::SeqCst) {
                let takes = Duration::from_secs_f64(read as f64 / pace as f64);
                drop(wait_until(takes, "the pace", || false));
            }
        }
        if !limits.are_deaf(number) {
            // An end that has gone already is what this is to bring about.
            drop(to.shutdown(Shutdown::Both));
        }
    });
}
