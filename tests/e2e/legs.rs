//! The two halves as processes of their own, joined by nothing but Kafka.

use anyhow::{Result, ensure};
use tailwater_test_support::{
    ClickHouse, Database, Kafka, Proxy, Tailwater, unique_name, wait_for,
};

use std::time::Duration;

/// How long anything may take on a busy machine.
pub(crate) const DEADLINE: Duration = Duration::from_secs(120);

/// What both halves are told of Kafka.
#[derive(Debug, Clone)]
pub(crate) struct Link {
    /// First part of the topics' names, and the last of the group's.
    pub(crate) prefix: String,
    /// The whole section `[kafka]`, subsections included.
    section: String,
}

impl Link {
    /// Over the plain listener, with further lines of the section.
    pub(crate) fn plain(kafka: &Kafka, more: &str) -> Link {
        Link::over(&kafka.bootstrap(), more)
    }

    /// Over any listener.
    pub(crate) fn over(brokers: &str, more: &str) -> Link {
        Link::below(unique_name("legs"), brokers, more)
    }

    /// The same topics with other settings.
    pub(crate) fn below(prefix: String, brokers: &str, more: &str) -> Link {
        let section = format!("[kafka]\nbrokers = \"{brokers}\"\nprefix = \"{prefix}\"\n{more}\n");
        Link { prefix, section }
    }

    /// The topic of a table in `public`.
    pub(crate) fn topic(&self, table: &str) -> String {
        format!("{}.public.{table}", self.prefix)
    }

    /// The consumer group.
    pub(crate) fn group(&self) -> String {
        format!("tailwater-{}", self.prefix)
    }

    /// PostgreSQL to Kafka; `more` are further lines of `[source]`.
    pub(crate) fn capture(&self, source: &Database<'_>, more: &str) -> Result<Tailwater> {
        role("capture", &self.capture_sections(source, more))
    }

    /// The same with further sections.
    pub(crate) fn capture_with(&self, source: &Database<'_>, sections: &str) -> Result<Tailwater> {
        role("capture", &format!("{}{sections}", self.capture_sections(source, "")))
    }

    /// Gives such a capture other further sections.
    pub(crate) fn set_capture(
        &self,
        capture: &Tailwater,
        source: &Database<'_>,
        sections: &str,
    ) -> Result<()> {
        set(capture, &format!("{}{sections}", self.capture_sections(source, "")))
    }

    fn capture_sections(&self, source: &Database<'_>, more: &str) -> String {
        format!("[source]\nurl = \"{}\"\n{more}\n{}", source.url(), self.section)
    }

    /// Kafka to an embedded engine of its own.
    pub(crate) fn sink(&self) -> Result<Tailwater> {
        role("sink", &self.section)
    }

    /// The same with further sections.
    pub(crate) fn sink_with(&self, sections: &str) -> Result<Tailwater> {
        role("sink", &format!("{}{sections}", self.section))
    }

    /// Kafka to a server that several share.
    pub(crate) fn sink_into(&self, clickhouse: &ClickHouse) -> Result<Tailwater> {
        role("sink", &self.sink_sections(clickhouse))
    }

    /// Gives such a sink the settings of this link.
    pub(crate) fn set_sink(&self, sink: &Tailwater, clickhouse: &ClickHouse) -> Result<()> {
        set(sink, &self.sink_sections(clickhouse))
    }

    /// Both in one process.
    pub(crate) fn both(&self, source: &Database<'_>, clickhouse: &ClickHouse) -> Result<Tailwater> {
        role("all", &format!("{}{}", self.capture_sections(source, ""), server(clickhouse)))
    }

    fn sink_sections(&self, clickhouse: &ClickHouse) -> String {
        format!("{}{}", self.section, server(clickhouse))
    }
}

fn server(clickhouse: &ClickHouse) -> String {
    let (url, user, password) = (clickhouse.url(), clickhouse.user(), clickhouse.password());
    format!("[clickhouse]\nurl = \"{url}\"\nuser = \"{user}\"\npassword = \"{password}\"\n")
}

fn role(role: &str, sections: &str) -> Result<Tailwater> {
    let arguments = ["run", "--role", role, "--config", "tailwater.toml"];
    let tailwater = Tailwater::with_arguments(arguments)?;
    set(&tailwater, sections)?;
    Ok(tailwater)
}

fn set(tailwater: &Tailwater, sections: &str) -> Result<()> {
    tailwater.set_config(&format!("{sections}\n[http]\nlisten = \"{{listen}}\"\n"))
}

/// The whole way in one process, from a source behind a proxy; `more` are further lines of `[source]`.
pub(crate) fn behind_proxy(source: &Database<'_>, more: &str) -> Result<(Proxy, Tailwater)> {
    let port = source.postgres().port();
    let proxy = Proxy::start(port)?;
    let url = source.tcp_url().replace(&port.to_string(), &proxy.port().to_string());
    let tailwater = Tailwater::with_config(&format!(
        "[source]\nurl = \"{url}?sslmode=disable\"\n{more}\n\n[http]\nlisten = \"{{listen}}\"\n"
    ))?;
    Ok((proxy, tailwater))
}

/// Waits for exactly these rows of a snapshot pipe, as lines of JSON.
pub(crate) fn serves(tailwater: &Tailwater, table: &str, expected: &str) -> Result<()> {
    wait_for(DEADLINE, "the rows in the snapshot pipe", || {
        let answer = tailwater.get(&format!("/v0/pipes/{table}_snapshot.ndjson"))?;
        ensure!(answer.text() == expected, "{} {}", answer.status, answer.text());
        Ok(())
    })
}

/// Waits until the log says so.
pub(crate) fn says(tailwater: &Tailwater, text: &str) -> Result<()> {
    wait_for(DEADLINE, "a sentence in the log", || {
        let log = tailwater.log();
        ensure!(log.contains(text), "`{text}` is not in:\n{log}");
        Ok(())
    })
}
