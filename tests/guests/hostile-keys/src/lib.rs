//! A dedup plugin whose answers are wrong.

#![cfg(target_arch = "wasm32")]

use std::cell::RefCell;

use serde::Deserialize;
use tailwater_guest::bindings::dedup::{self, Guest};
use tailwater_guest::types::{Batch, Fault, Interest, Packed, RowKeys, Table, Values};

#[derive(Deserialize, Clone, Copy, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
enum Deed {
    OneKeyForAll,
    NoKeys,
    TooFewKeys,
    TooManyKeys,
    NotUtf8,
    FaultBeyond,
    RetryFirst,
    Panic,
}

#[derive(Deserialize)]
struct Config {
    deed: Deed,
}

thread_local! {
    static DEED: RefCell<Option<Deed>> = const { RefCell::new(None) };
}

struct Hostile;

impl Guest for Hostile {
    fn init(config: String) -> Result<(), String> {
        let config: Config = serde_json::from_str(&config).map_err(|error| error.to_string())?;
        DEED.set(Some(config.deed));
        Ok(())
    }

    fn subscribe(_: Table) -> Result<Option<Interest>, String> {
        Ok(Some(Interest { columns: Vec::new(), ops: false, positions: false, times: false }))
    }

    fn keys(batch: Batch) -> Result<RowKeys, String> {
        let rows = batch.rows as usize;
        let deed = DEED.with_borrow(|deed| deed.expect("init was called"));
        let count = match deed {
            Deed::TooFewKeys => rows - 1,
            Deed::TooManyKeys => rows + 1,
            Deed::Panic => panic!("as asked for"),
            _ => rows,
        };
        let key = (deed != Deed::NoKeys).then(|| "same".to_owned());
        let values = match deed {
            Deed::NotUtf8 => {
                let ends = (1..).take(rows).collect();
                Values::Packed(Packed { nulls: None, ends, data: vec![0xFF; rows] })
            }
            _ => Values::Strings(vec![key; count]),
        };
        let fault = |row, retryable| Fault { row, message: "as asked for".to_owned(), retryable };
        let faults = match deed {
            Deed::FaultBeyond => vec![fault(batch.rows, false)],
            Deed::RetryFirst => vec![fault(0, true)],
            _ => Vec::new(),
        };
        Ok(RowKeys { values, faults })
    }
}

#[cfg(target_family = "wasm")]
dedup::export!(Hostile with_types_in dedup);
