//! The broker's configuration.

use std::fs;

use anyhow::Result;

use super::{SASL_PASSWORD, SASL_USER};
use crate::{Certificates, Scratch, free_port};

#[derive(Debug)]
pub(super) struct Ports {
    pub(super) plain: u16,
    pub(super) sasl: u16,
    /// Where clients find that listener.
    pub(super) sasl_advertised: u16,
    pub(super) tls: u16,
    pub(super) sasl_tls: u16,
    controller: u16,
}

impl Ports {
    pub(super) fn free() -> Result<Self> {
        let sasl = free_port()?;
        Ok(Self {
            plain: free_port()?,
            sasl,
            sasl_advertised: sasl,
            tls: free_port()?,
            sasl_tls: free_port()?,
            controller: free_port()?,
        })
    }

    pub(super) fn clients(&self) -> [u16; 4] {
        [self.plain, self.sasl, self.tls, self.sasl_tls]
    }
}

pub(super) fn address(port: u16) -> String {
    format!("127.0.0.1:{port}")
}

/// `server.properties` of a single node; writes the key store beside it.
pub(super) fn server(
    ports: &Ports,
    scratch: &Scratch,
    certificates: &Certificates,
) -> Result<String> {
    let key_store = scratch.join("broker.pem");
    let key = fs::read_to_string(&certificates.key)?;
    fs::write(&key_store, key + &fs::read_to_string(&certificates.certificate)?)?;
    let mut text = SINGLE_NODE.to_owned();
    text.push_str(&listeners(ports));
    for listener in ["sasl", "sasltls"] {
        text.push_str(&logins(listener));
    }
    for listener in ["tls", "sasltls"] {
        text.push_str(&format!(
            "listener.name.{listener}.ssl.keystore.type=PEM\n\
             listener.name.{listener}.ssl.keystore.location={}\n",
            key_store.display()
        ));
    }
    text.push_str(&format!("log.dirs={}\n", scratch.join("logs").display()));
    Ok(text)
}

/// Everything has one replica here, and a group need not wait for members still to come.
const SINGLE_NODE: &str = "\
process.roles=broker,controller
node.id=1
controller.listener.names=CONTROLLER
inter.broker.listener.name=PLAIN
listener.security.protocol.map=PLAIN:PLAINTEXT,SASL:SASL_PLAINTEXT,TLS:SSL,SASLTLS:SASL_SSL,\
CONTROLLER:PLAINTEXT
sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-256
auto.create.topics.enable=false
group.initial.rebalance.delay.ms=0
offsets.topic.replication.factor=1
offsets.topic.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=4
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
";

fn listeners(ports: &Ports) -> String {
    let clients = |sasl| {
        format!(
            "PLAIN://{},SASL://{},TLS://{},SASLTLS://{}",
            address(ports.plain),
            address(sasl),
            address(ports.tls),
            address(ports.sasl_tls),
        )
    };
    let (here, advertised) = (clients(ports.sasl), clients(ports.sasl_advertised));
    let controller = address(ports.controller);
    format!(
        "listeners={here},CONTROLLER://{controller}\n\
         advertised.listeners={advertised}\n\
         controller.quorum.bootstrap.servers={controller}\n"
    )
}

/// Without a section for each enabled mechanism the broker exits.
fn logins(listener: &str) -> String {
    const SECURITY: &str = "org.apache.kafka.common.security";
    format!(
        "listener.name.{listener}.plain.sasl.jaas.config=\
         {SECURITY}.plain.PlainLoginModule required user_{SASL_USER}=\"{SASL_PASSWORD}\";\n\
         listener.name.{listener}.scram-sha-256.sasl.jaas.config=\
         {SECURITY}.scram.ScramLoginModule required;\n"
    )
}
