//! Compares the shop's table with its copy, row by row and column by column, as text. The copy's
//! e-mail addresses are masked, by the rule that [`masked`] states again.

use std::collections::BTreeMap;
use std::fmt;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use tailwater_test_support::{Database, HttpResponse, Tailwater, http_request};

const COLUMNS: [&str; 11] = [
    "id",
    "name",
    "email",
    "address",
    "phone_number",
    "email_verified",
    "onboarded",
    "deleted",
    "lang",
    "created_at",
    "updated_at",
];
const ID: usize = 0;
const EMAIL: usize = 2;
const UPDATED_AT: usize = 10;
/// What the first version of the plugin writes, and what the second does.
const MASKS: [&str; 2] = ["***", "..."];
const TIME: &str = "YYYY-MM-DD HH24:MI:SS.US";
/// Rows of one query: an answer is held in memory.
const PAGE: usize = 50_000;
/// Differences that are shown in full; of the others only the row is named.
const SHOWN: usize = 20;

type Row = Vec<Option<String>>;

/// How source and copy compare.
#[derive(Debug, Default)]
pub(super) struct Comparison {
    pub(super) rows: usize,
    /// Rows whose address the plugin's first and second version masked.
    pub(super) masked: [usize; 2],
    differences: Vec<Difference>,
}

/// One row that differs.
#[derive(Debug, PartialEq)]
struct Difference {
    id: i64,
    what: String,
}

impl Comparison {
    /// Compares the tables as they are now. Rows that were changed after `swapped_at` must have gone
    /// through the plugin's second version.
    pub(super) fn make(
        source: &Database<'_>,
        tailwater: &Tailwater,
        swapped_at: Option<&str>,
    ) -> Result<Self> {
        let mut comparison = Self::default();
        let mut copies = copies(tailwater)?;
        let mut after = i64::MIN;
        loop {
            let page = originals(source, after)?;
            let Some((last, _)) = page.last() else { break };
            after = *last;
            for (id, row) in &page {
                let found = copies.remove(id).unwrap_or_default();
                comparison.add(*id, row, &found, swapped_at);
            }
        }
        for (id, found) in copies {
            let what = format!("is in the copy ({} times), not in the source", found.len());
            comparison.differences.push(Difference { id, what });
        }
        Ok(comparison)
    }

    pub(super) fn is_equal(&self) -> bool {
        self.differences.is_empty()
    }

    fn add(&mut self, id: i64, row: &Row, found: &[Row], swapped_at: Option<&str>) {
        self.rows += 1;
        let what = match found {
            [] => Some("is not in the copy".to_owned()),
            [copy] => self.unlike(row, copy, swapped_at),
            _ => Some(format!("is {} times in the copy", found.len())),
        };
        self.differences.extend(what.map(|what| Difference { id, what }));
    }

    /// What of the row is not as it should be.
    fn unlike(&mut self, row: &Row, copy: &Row, swapped_at: Option<&str>) -> Option<String> {
        let updated_at = row[UPDATED_AT].as_deref();
        let may_be_first = swapped_at.is_none_or(|swapped_at| updated_at <= Some(swapped_at));
        let mut unlike = Vec::new();
        for (index, column) in COLUMNS.iter().enumerate() {
            let (wanted, found) =
                (row[index].as_deref(), copy.get(index).and_then(Option::as_deref));
            let holds = match index {
                EMAIL => self.is_masked(wanted, found, may_be_first),
                _ => wanted == found,
            };
            if !holds {
                unlike.push(format!("{column} is {found:?} for {wanted:?}"));
            }
        }
        (!unlike.is_empty()).then(|| unlike.join(", "))
    }

    fn is_masked(&mut self, wanted: Option<&str>, found: Option<&str>, first: bool) -> bool {
        let Some((wanted, found)) = wanted.zip(found) else { return wanted == found };
        let by = MASKS.iter().position(|mask| masked(wanted, mask) == found);
        if let Some(by) = by {
            self.masked[by] += 1;
        }
        by == Some(1) || (by == Some(0) && first)
    }
}

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {} rows differ", self.differences.len(), self.rows)?;
        for Difference { id, what } in self.differences.iter().take(SHOWN) {
            write!(f, "\n  user {id}: {what}")?;
        }
        if let [first, rest @ ..] = self.differences.get(SHOWN..).unwrap_or_default() {
            write!(f, "\n  and users {}", first.id)?;
            rest.iter().try_for_each(|difference| write!(f, ", {}", difference.id))?;
        }
        Ok(())
    }
}

/// The first character and the domain, with `mask` between them.
fn masked(address: &str, mask: &str) -> String {
    let (name, domain) = address.rfind('@').map_or((address, ""), |at| address.split_at(at));
    name.chars().take(1).chain(mask.chars()).chain(domain.chars()).collect()
}

/// The next page of the source's rows, by id.
fn originals(source: &Database<'_>, after: i64) -> Result<Vec<(i64, Row)>> {
    let columns = COLUMNS.map(|column| match column {
        "id" | "email_verified" | "onboarded" | "deleted" => format!("{column}::text"),
        "created_at" | "updated_at" => {
            format!("to_char({column} AT TIME ZONE 'UTC', '{TIME}')")
        }
        _ => column.to_owned(),
    });
    let sql = format!(
        "SELECT json_build_array({}) FROM users WHERE id > {after} ORDER BY id LIMIT {PAGE}",
        columns.join(", ")
    );
    source.query(&sql)?.iter().map(|line| row(serde_json::from_str(&line[0])?)).collect()
}

/// The source's clock, in the form of [`COLUMNS`]' times.
pub(super) fn clock(source: &Database<'_>) -> Result<String> {
    let sql = format!("SELECT to_char(clock_timestamp() AT TIME ZONE 'UTC', '{TIME}')");
    source.query(&sql)?.pop().and_then(|mut row| row.pop()).context("ask for the time")
}

/// All rows of the copy, by id.
fn copies(tailwater: &Tailwater) -> Result<BTreeMap<i64, Vec<Row>>> {
    let columns = COLUMNS.map(|column| match column {
        "id" | "email_verified" | "onboarded" | "deleted" | "created_at" | "updated_at" => {
            format!("toString({column})")
        }
        _ => column.to_owned(),
    });
    let mut copies: BTreeMap<i64, Vec<Row>> = BTreeMap::new();
    let mut offset = 0;
    loop {
        let sql = format!(
            "SELECT [{}] AS cells FROM users ORDER BY id LIMIT {PAGE} OFFSET {offset}",
            columns.join(", ")
        );
        let answer = ask(tailwater, &sql)?;
        let mut lines = 0;
        for line in answer.text().lines() {
            let mut line: Value = serde_json::from_str(line).context("parse an answer's line")?;
            let (id, cells) = row(line["cells"].take())?;
            copies.entry(id).or_default().push(cells);
            lines += 1;
        }
        if lines < PAGE {
            return Ok(copies);
        }
        offset += lines;
    }
}

fn ask(tailwater: &Tailwater, sql: &str) -> Result<HttpResponse> {
    let url = tailwater.http_url() + "/v0/sql?format=ndjson";
    let answer = http_request("POST", &url, &[("Content-Type", "text/plain")], sql.as_bytes())?;
    ensure!(answer.status == 200, "{} {}", answer.status, answer.text());
    Ok(answer)
}

fn row(cells: Value) -> Result<(i64, Row)> {
    let cells: Row = serde_json::from_value(cells).context("find a row's cells")?;
    ensure!(cells.len() == COLUMNS.len(), "a row has {} cells", cells.len());
    let id = cells[ID].as_deref().context("find a row's id")?;
    Ok((id.parse()?, cells))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row_with(email: &str, updated_at: &str) -> Row {
        let mut row = vec![None; COLUMNS.len()];
        row[EMAIL] = Some(email.to_owned());
        row[UPDATED_AT] = Some(updated_at.to_owned());
        row
    }

    fn differences(copies: &[Row], swapped_at: Option<&str>) -> Vec<Difference> {
        let mut comparison = Comparison::default();
        comparison.add(7, &row_with("łucja.1@example.com", "2026-01-02"), copies, swapped_at);
        comparison.differences
    }

    #[test]
    fn a_row_is_equal_when_masked_by_the_version_of_its_time() {
        let first = [row_with("ł***@example.com", "2026-01-02")];
        let second = [row_with("ł...@example.com", "2026-01-02")];
        assert_eq!(differences(&first, None), []);
        assert_eq!(differences(&first, Some("2026-01-02")), []);
        assert_eq!(differences(&second, Some("2026-01-01")), []);
        assert_eq!(differences(&first, Some("2026-01-01")).len(), 1);
    }

    #[test]
    fn what_is_bare_doubled_missing_or_stale_is_a_difference() {
        let bare = row_with("łucja.1@example.com", "2026-01-02");
        let masked = row_with("ł***@example.com", "2026-01-02");
        let stale = row_with("ł***@example.com", "2026-01-01");
        assert_eq!(differences(&[bare], None).len(), 1);
        assert_eq!(differences(&[masked.clone(), masked], None).len(), 1);
        assert_eq!(differences(&[], None).len(), 1);
        let named = differences(&[stale], None).pop().unwrap();
        assert_eq!(named.id, 7);
        assert!(named.what.starts_with("updated_at is "), "{}", named.what);
    }
}
