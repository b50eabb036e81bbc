//! `cargo xtask services`: the real services for exploring by hand.

use anyhow::Result;
use tailwater_test_support::{
    Kafka, Postgres, PostgresOptions, PostgresVersion, SASL_PASSWORD, SASL_USER,
};

use crate::interrupt::Interrupt;
use crate::steps;

pub(crate) fn run() -> Result<()> {
    let interrupt = Interrupt::install()?;
    steps::setup()?;
    interrupt.check()?;
    let start = |version| Postgres::start(version, PostgresOptions::default());
    let postgres = [start(PostgresVersion::V15)?, start(PostgresVersion::V18)?];
    let kafka = Kafka::start()?;
    for server in &postgres {
        println!("PostgreSQL {:?}", server.version());
        println!("    unix socket     {}", server.url("postgres"));
        println!("    TCP             {}", server.tcp_url("postgres"));
        println!("    log             {}", server.log_file().display());
    }
    println!("authority of PostgreSQL V15 {}", postgres[0].certificates().ca.display());
    println!("Kafka");
    println!("    plain           {}", kafka.bootstrap());
    println!("    SASL            {}", kafka.sasl_bootstrap());
    println!("    TLS             {}", kafka.tls_bootstrap());
    println!("    SASL over TLS   {}", kafka.sasl_tls_bootstrap());
    println!("    user, password  {SASL_USER}, {SASL_PASSWORD}");
    println!("    authority       {}", kafka.ca_file().display());
    println!("    log             {}", kafka.log_file().display());
    println!("Ctrl-C stops them.");
    interrupt.wait_set();
    Ok(())
}
