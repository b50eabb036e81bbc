//! Kafka as the tests get it, asked by Kafka's own tools.

use std::path::Path;

use anyhow::ensure;
use tailwater_test_support::{Kafka, SASL_PASSWORD, SASL_USER, Scratch, unique_name};

const TOPICS: &str = "org.apache.kafka.tools.TopicCommand";

fn create_topic(kafka: &Kafka, bootstrap: &str, client: &str) -> anyhow::Result<String> {
    let scratch = Scratch::new("client")?;
    let file = scratch.join("client.properties");
    std::fs::write(&file, client)?;
    let file = file.display().to_string();
    let topic = unique_name("topic");
    let create = ["--create", "--topic", &topic, "--partitions", "2"];
    let connect = ["--bootstrap-server", bootstrap, "--command-config", &file];
    kafka.tool(TOPICS, connect.into_iter().chain(create))?;
    let topics = kafka.tool(TOPICS, connect.into_iter().chain(["--list"]))?;
    ensure!(topics.contains(&topic), "{topic} is not among {topics}");
    Ok(topic)
}

fn login(mechanism: &str, module: &str, password: &str) -> String {
    format!(
        "sasl.mechanism={mechanism}\nsasl.jaas.config=org.apache.kafka.common.security.{module} \
         required username=\"{SASL_USER}\" password=\"{password}\";\n"
    )
}

fn trust(ca: &Path) -> String {
    format!("ssl.truststore.type=PEM\nssl.truststore.location={}\n", ca.display())
}

#[test]
fn the_plain_listener_takes_anyone() {
    let kafka = Kafka::shared();
    create_topic(kafka, &kafka.bootstrap(), "").unwrap();
}

#[test]
fn the_sasl_listener_takes_plain_and_scram_and_no_wrong_password() {
    let kafka = Kafka::shared();
    let sasl = "security.protocol=SASL_PLAINTEXT\n";
    let plain = "plain.PlainLoginModule";
    let scram = "scram.ScramLoginModule";
    let bootstrap = kafka.sasl_bootstrap();
    for (mechanism, module) in [("PLAIN", plain), ("SCRAM-SHA-256", scram)] {
        let client = sasl.to_owned() + &login(mechanism, module, SASL_PASSWORD);
        create_topic(kafka, &bootstrap, &client).unwrap();
        let client = sasl.to_owned() + &login(mechanism, module, "wrong");
        let refused = create_topic(kafka, &bootstrap, &client).unwrap_err().to_string();
        assert!(refused.contains("Authentication failed"), "{refused}");
    }
}

#[test]
fn the_tls_listeners_prove_themselves_by_our_authority_only() {
    let kafka = Kafka::shared();
    let tls = "security.protocol=SSL\n".to_owned();
    create_topic(kafka, &kafka.tls_bootstrap(), &(tls.clone() + &trust(kafka.ca_file()))).unwrap();
    let unrelated = trust(&kafka.certificates().unrelated_ca);
    let refused = create_topic(kafka, &kafka.tls_bootstrap(), &(tls + &unrelated)).unwrap_err();
    assert!(refused.to_string().contains("SSL handshake failed"), "{refused}");

    let client = "security.protocol=SASL_SSL\n".to_owned()
        + &trust(kafka.ca_file())
        + &login("PLAIN", "plain.PlainLoginModule", SASL_PASSWORD);
    create_topic(kafka, &kafka.sasl_tls_bootstrap(), &client).unwrap();
}

#[test]
fn a_crash_and_a_stop_keep_the_data_and_a_drop_removes_everything() {
    let kafka = Kafka::start().unwrap();
    let bootstrap = kafka.bootstrap();
    let topic = create_topic(&kafka, &bootstrap, "").unwrap();
    let list = || kafka.tool(TOPICS, ["--bootstrap-server", &bootstrap, "--list"]).unwrap();
    kafka.crash().unwrap();
    kafka.restart().unwrap();
    assert!(list().contains(&topic));
    kafka.restart().unwrap();
    assert!(list().contains(&topic));

    let process = format!("/proc/{}", kafka.process_id().unwrap());
    let directory = kafka.ca_file().parent().unwrap().to_owned();
    assert!(Path::new(&process).exists());
    drop(kafka);
    assert!(!Path::new(&process).exists());
    assert!(!directory.exists());
}
