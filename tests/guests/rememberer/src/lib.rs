//! Counts in its state how often each row was changed and writes the count into the row, or does to the
//! state what a plugin must not do. It sees the columns `id` and `name`; a row named `poison` is the one
//! that it fails on if it is told to.

#![cfg(target_arch = "wasm32")]

use serde::Deserialize;
use tailwater_guest::{Interest, Row, Table, Transform, Verdict, export_transform, state};

#[derive(Deserialize, Default, Clone, Copy, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
enum Deed {
    /// The count replaces the name.
    #[default]
    Count,
    /// As `count`, but it traps after it has written the poison row's count.
    PanicOnPoison,
    /// As `count`, but it answers a fault after it has written the poison row's count.
    FaultOnPoison,
    /// As `fault-on-poison`, but it asks to be shown the row again.
    RetryOnPoison,
    /// Writes ever more.
    Hoard,
    /// Writes the same keys over and over.
    Overwrite,
    /// Writes and removes ever other keys.
    Churn,
    /// Reads more than its memory holds.
    ReadTooMuch,
    WriteInInit,
    /// Tells in the name what it finds outside of batches.
    ReadInSubscribe,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct Config {
    deed: Deed,
}

struct Rememberer {
    deed: Deed,
    found: String,
}

impl Transform for Rememberer {
    type Config = Config;

    fn new(Config { deed }: Config) -> Result<Self, String> {
        if deed == Deed::WriteInInit {
            state::put("a", "1")?;
        }
        Ok(Rememberer { deed, found: String::new() })
    }

    fn subscribe(&mut self, table: &Table) -> Result<Option<Interest>, String> {
        self.found = format!("{:?}", state::get_one("1"));
        Ok(table.has("name").then(|| Interest::of(["id", "name"])))
    }

    fn transform(&mut self, row: &mut Row<'_>) -> Verdict {
        let done = match self.deed {
            Deed::Count | Deed::PanicOnPoison | Deed::FaultOnPoison | Deed::RetryOnPoison => {
                self.count(row)
            }
            Deed::Hoard => (0..).try_for_each(|n| state::put(&n.to_string(), &"x".repeat(1000))),
            Deed::Overwrite => {
                (0..20_000).try_for_each(|n| state::put(&(n % 7).to_string(), &"x".repeat(10_000)))
            }
            Deed::Churn => (0..).try_for_each(|n: u64| {
                state::put(&n.to_string(), &"x".repeat(1000))?;
                state::remove(&n.to_string())
            }),
            Deed::ReadTooMuch => {
                let written = state::put("large", &"x".repeat(1 << 20));
                written.map(|()| drop(state::get(&vec!["large".to_owned(); 1 << 16])))
            }
            Deed::WriteInInit => Ok(()),
            Deed::ReadInSubscribe => {
                row.set(1, &self.found);
                state::put("1", "known")
            }
        };
        let failed = if self.deed == Deed::RetryOnPoison { Verdict::Retry } else { Verdict::Fault };
        done.map_or_else(failed, |()| Verdict::Keep)
    }
}

impl Rememberer {
    fn count(&self, row: &mut Row<'_>) -> Result<(), String> {
        let id = row.text(0).unwrap_or_default();
        let before = state::get_one(id).and_then(|count| count.parse().ok());
        let count = (before.unwrap_or(0_u64) + 1).to_string();
        state::put(id, &count)?;
        let poison = row.text(1) == Some("poison");
        assert!(!poison || self.deed != Deed::PanicOnPoison, "as asked for");
        if poison && matches!(self.deed, Deed::FaultOnPoison | Deed::RetryOnPoison) {
            return Err("the row is poison".to_owned());
        }
        row.set(1, &count);
        Ok(())
    }
}

export_transform!(Rememberer);
