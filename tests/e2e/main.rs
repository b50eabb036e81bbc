//! End to end: the real binary between real services, judged from outside.

mod bad_input;
mod changes;
mod engine;
mod extremes;
mod kill;
mod one_change;
mod other_cluster;
mod plugins;
mod service;
mod tls;
