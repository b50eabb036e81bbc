//! Masks e-mail addresses: `jane@example.com` becomes `j***@example.com`.

use serde::Deserialize;
use tailwater_guest::{Interest, Row, Table, Transform, Verdict, export_transform};

/// What stands for the hidden characters.
const MASK: &str = if cfg!(feature = "dots") { "..." } else { "***" };

/// Which columns hold addresses; what a table does not have is passed over.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Column names.
    pub columns: Vec<String>,
}

impl Default for Config {
    fn default() -> Self {
        Config { columns: vec!["email".to_owned()] }
    }
}

/// The plugin.
pub struct MaskEmail(Config);

impl Transform for MaskEmail {
    type Config = Config;

    fn new(config: Config) -> Result<Self, String> {
        Ok(MaskEmail(config))
    }

    /// The old row is asked for too: it travels on in the envelope's `before`.
    fn subscribe(&mut self, table: &Table) -> Result<Option<Interest>, String> {
        let present = || self.0.columns.iter().filter(|column| table.has(column));
        let interest = present().fold(Interest::of(present()), Interest::old);
        Ok(present().next().map(|_| interest))
    }

    fn transform(&mut self, row: &mut Row<'_>) -> Verdict {
        for column in 0..row.columns() {
            if let Some(address) = row.text(column) {
                row.write(column, |masked| mask(address, masked));
            }
        }
        Verdict::Keep
    }
}

/// Keeps the first character and the domain; text without an `@` keeps its first character only.
fn mask(address: &str, masked: &mut String) {
    let (local, domain) = address.rfind('@').map_or((address, ""), |at| address.split_at(at));
    masked.extend(local.chars().next());
    masked.push_str(MASK);
    masked.push_str(domain);
}

export_transform!(MaskEmail);

#[cfg(test)]
mod tests {
    use super::*;

    fn masked(address: &str) -> String {
        let mut masked = String::new();
        mask(address, &mut masked);
        masked
    }

    #[test]
    fn the_first_character_and_the_domain_stay() {
        assert_eq!(masked("jane@example.com"), "j***@example.com");
        assert_eq!(masked("\"a@b\"@example.com"), "\"***@example.com");
        assert_eq!(masked("élodie@example.fr"), "é***@example.fr");
    }

    #[test]
    fn what_is_no_address_is_hidden_too() {
        assert_eq!(masked("12345"), "1***");
        assert_eq!(masked("@example.com"), "***@example.com");
        assert_eq!(masked(""), "***");
    }
}
