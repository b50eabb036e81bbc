//! End to end: the real binary between real services, judged from outside.

mod bad_input;
mod changes;
mod clock;
mod dead_letters;
mod engine;
mod extremes;
mod faults;
mod kafka;
mod kafka_debezium;
mod kafka_group;
mod kafka_limits;
mod kill;
mod legs;
mod names;
mod one_change;
mod other_cluster;
mod outages;
mod plugins;
mod projects;
mod reshape;
mod secrets;
mod service;
mod state;
mod storage;
mod tls;
mod tokens;
