//! Compares the shop's `users` table with its copy, row by row, as text.

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use tailwater_test_support::{Database, http_get, wait_for};

/// What the copy should hold of the e-mail addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Emails {
    /// As they are.
    Plain,
    /// As the plugin `mask-email` leaves them.
    Masked,
}

impl Emails {
    fn sql(self) -> &'static str {
        match self {
            Emails::Plain => "email",
            Emails::Masked => r"regexp_replace(email, '^(.)[^@]*@', '\1***@')",
        }
    }
}

const SOURCE: &str = r"SELECT concat_ws('|', id, name, {email}, coalesce(address, '\N'),
        coalesce(phone_number, '\N'), email_verified::text, onboarded::text, deleted::text, lang,
        to_char(created_at AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS.US'),
        to_char(updated_at AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS.US'))
    FROM users";

const COPY: &str = r"SELECT concat_ws('|', toString(id), name, email, ifNull(address, '\\N'),
        ifNull(phone_number, '\\N'), toString(email_verified), toString(onboarded),
        toString(deleted), lang, toString(created_at), toString(updated_at)) AS line
    FROM users";

/// How source and copy differ.
#[derive(Debug, Default)]
pub struct Difference {
    /// Rows of the source, all of them.
    pub rows: usize,
    /// Rows of the source that the copy lacks.
    pub missing: Vec<String>,
    /// Rows of the copy that the source lacks.
    pub surplus: Vec<String>,
    /// Rows that the copy holds more than once.
    pub doubled: usize,
}

impl Difference {
    pub(crate) fn of(rows: &[String], copied: &[String]) -> Difference {
        let (wanted, found) = (BTreeSet::from_iter(rows), BTreeSet::from_iter(copied));
        Difference {
            rows: rows.len(),
            missing: wanted.difference(&found).map(|row| (*row).clone()).collect(),
            surplus: found.difference(&wanted).map(|row| (*row).clone()).collect(),
            doubled: copied.len() - found.len(),
        }
    }

    /// No difference at all.
    #[must_use]
    pub fn is_none(&self) -> bool {
        self.missing.is_empty() && self.surplus.is_empty() && self.doubled == 0
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sample =
            |rows: &[String]| rows.iter().take(3).cloned().collect::<Vec<_>>().join("\n  ");
        write!(
            f,
            "{} of {} rows missing, {} surplus, {} doubled\nmissing:\n  {}\nsurplus:\n  {}",
            self.missing.len(),
            self.rows,
            self.surplus.len(),
            self.doubled,
            sample(&self.missing),
            sample(&self.surplus)
        )
    }
}

/// Compares the tables as they are now.
pub fn differences(source: &Database<'_>, http_url: &str, emails: Emails) -> Result<Difference> {
    compare(source, &SOURCE.replace("{email}", emails.sql()), http_url, COPY)
}

/// Compares what two queries answer: one column of the source, and `line` of the copy.
pub(crate) fn compare(
    source: &Database<'_>,
    source_sql: &str,
    http_url: &str,
    copy_sql: &str,
) -> Result<Difference> {
    let rows: Vec<String> = source.query(source_sql)?.into_iter().flatten().collect();
    Ok(Difference::of(&rows, &query(http_url, copy_sql)?))
}

/// Waits until the copy equals the source, which must no longer change; the number of rows.
pub fn wait_equal(
    source: &Database<'_>,
    http_url: &str,
    emails: Emails,
    deadline: Duration,
) -> Result<usize> {
    wait_for(deadline, "the copy to equal the source", || {
        let difference = differences(source, http_url, emails)?;
        ensure!(difference.is_none(), "{difference}");
        Ok(difference.rows)
    })
}

/// The first column of a query's answer.
fn query(http_url: &str, sql: &str) -> Result<Vec<String>> {
    let encoded = utf8_percent_encode(sql, NON_ALPHANUMERIC);
    let answer = http_get(&format!("{http_url}/v0/sql?format=ndjson&q={encoded}"))?;
    ensure!(answer.status == 200, "{} {}", answer.status, answer.text());
    let line = |line: &str| -> Result<String> {
        let row: serde_json::Value =
            serde_json::from_str(line).context("parse an answer's line")?;
        Ok(row["line"].as_str().context("find `line`")?.to_owned())
    };
    answer.text().lines().map(line).collect()
}
