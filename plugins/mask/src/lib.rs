//! Masks columns whose names fit a pattern: by a keyed hash, whole, or all but their ends.

use hmac::{Hmac, KeyInit, Mac};
use serde::Deserialize;
use sha2::Sha256;
use std::collections::BTreeMap;
use tailwater_guest::{Interest, Row, Table, Transform, Verdict, export_transform, types};

/// What stands for hidden characters, however many.
const MASK: &str = "***";

/// Its settings.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The secret of the hash, at least 16 bytes: who knows it can tell what a hash is of.
    #[serde(default)]
    key: String,
    /// The first rule that fits a column is the one that counts.
    rules: Vec<Rule>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Rule {
    /// Names, in which a `*` stands for any characters.
    columns: Vec<String>,
    by: By,
    /// By `partial`: characters that are shown at the front.
    #[serde(default)]
    first: usize,
    /// By `partial`: characters that are shown at the end.
    #[serde(default)]
    last: usize,
}

#[derive(Deserialize, Clone, Copy, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
enum By {
    /// HMAC-SHA-256 in hex: equal values stay equal, so joins and counts work.
    Hash,
    /// Text becomes `***`, everything else NULL.
    Redact,
    /// `***` and what `first` and `last` leave; a value that they would show whole is hidden whole.
    Partial,
}

/// The plugin.
pub struct Mask {
    rules: Vec<Rule>,
    hash: Option<Hmac<Sha256>>,
    /// By table id, of each wanted column its rule and whether it is text.
    tables: BTreeMap<u32, Vec<(usize, bool)>>,
}

impl Transform for Mask {
    type Config = Config;

    fn new(Config { key, rules }: Config) -> Result<Self, String> {
        if rules.iter().all(|rule| rule.columns.is_empty()) {
            return Err("`rules` names no columns".to_owned());
        }
        if rules.iter().any(|rule| rule.by != By::Partial && rule.first + rule.last > 0) {
            return Err("`first` and `last` belong to a rule by \"partial\"".to_owned());
        }
        let hashes = rules.iter().any(|rule| rule.by == By::Hash);
        if hashes && key.len() < 16 {
            return Err("a rule by \"hash\" needs `key`, a secret of 16 bytes or more".to_owned());
        }
        let hash = hashes.then(|| Hmac::new_from_slice(key.as_bytes()).expect("any length does"));
        Ok(Mask { rules, hash, tables: BTreeMap::new() })
    }

    /// The old row is asked for too: it travels on in the envelope's `before`.
    fn subscribe(&mut self, table: &Table) -> Result<Option<Interest>, String> {
        let mut masked = Vec::new();
        for column in &table.columns {
            let fits = |rule: &Rule| rule.columns.iter().any(|wild| matches(wild, &column.name));
            let Some(rule) = self.rules.iter().position(fits) else { continue };
            let text = is_text(&column.type_name);
            check(self.rules[rule].by, column, text)
                .map_err(|why| format!("{}.{}.{why}", table.schema, table.name))?;
            masked.push((&column.name, (rule, text)));
        }
        let names = || masked.iter().map(|(name, _)| *name);
        let interest = names().fold(Interest::of(names()), Interest::old);
        let rules = || masked.iter().map(|(_, rule)| *rule);
        self.tables.insert(table.id, rules().chain(rules()).collect());
        Ok((!masked.is_empty()).then_some(interest))
    }

    fn transform(&mut self, row: &mut Row<'_>) -> Verdict {
        for (column, (rule, text)) in self.tables[&row.table()].iter().enumerate() {
            let Some(value) = row.text(column) else { continue };
            let rule = &self.rules[*rule];
            match (rule.by, &self.hash) {
                (By::Hash, Some(hash)) => row.set(column, &hex(hash, value)),
                (By::Partial, _) => row.write(column, |out| partial(value, rule, out)),
                _ if *text => row.set(column, MASK),
                _ => row.set_null(column),
            }
        }
        Verdict::Keep
    }
}

/// Whether a column can hold what a rule makes of it.
fn check(by: By, column: &types::Column, text: bool) -> Result<(), String> {
    let (name, type_name) = (&column.name, &column.type_name);
    match by {
        By::Redact | By::Partial if column.key => {
            Err(format!("{name} is part of the key, which only \"hash\" leaves distinct"))
        }
        By::Redact if !text && !column.nullable => {
            Err(format!("{name} is {type_name} and not null, so it cannot be redacted"))
        }
        By::Hash | By::Partial if !text => {
            Err(format!("{name} is {type_name}: only \"redact\" masks what is no text"))
        }
        _ => Ok(()),
    }
}

fn is_text(type_name: &str) -> bool {
    let is_array = type_name.ends_with("[]");
    type_name.starts_with("character") && !is_array || ["text", "citext"].contains(&type_name)
}

fn matches(pattern: &str, name: &str) -> bool {
    let Some((before, after)) = pattern.split_once('*') else { return pattern == name };
    let Some(rest) = name.strip_prefix(before) else { return false };
    rest.char_indices().map(|(at, _)| at).chain([rest.len()]).any(|at| matches(after, &rest[at..]))
}

fn hex(hash: &Hmac<Sha256>, value: &str) -> String {
    let digest = hash.clone().chain_update(value).finalize().into_bytes();
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn partial(value: &str, rule: &Rule, out: &mut String) {
    let hidden = value.chars().count().checked_sub(rule.first + rule.last);
    let (first, last) = if hidden > Some(0) { (rule.first, rule.last) } else { (0, 0) };
    out.extend(value.chars().take(first));
    out.push_str(MASK);
    out.extend(value.chars().skip(value.chars().count() - last));
}

export_transform!(Mask);

#[cfg(test)]
mod tests;
