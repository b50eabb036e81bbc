//! Does to the host, one by one, what a plugin must not do. It sees the columns `id` and `name`; a
//! row named `poison` is the one that some of these fail on.

#![cfg(target_arch = "wasm32")]

use std::cell::RefCell;

use serde::Deserialize;
use tailwater_guest::bindings::transform::{self, Guest};
use tailwater_guest::types::{
    Batch, Edit, Fault, Form, Interest, Packed, Patch, Table, Values, Want,
};
use tailwater_guest::{log, metrics};

#[derive(Deserialize, Clone, Copy, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
enum Deed {
    Nothing,
    LoopInInit,
    RefuseInit,
    PanicInInit,
    LoopInSubscribe,
    LoopOnPoisonTable,
    PanicInSubscribe,
    RefuseSubscribe,
    WantMissingColumn,
    WantNativeText,
    WantTooMuch,
    LoopInProcess,
    LoopOnPoison,
    PanicOnPoison,
    FaultOnPoison,
    RetryOnPoison,
    RefuseBatch,
    EatMemory,
    LeakMemory,
    OverflowStack,
    RecurseForever,
    HugeOutput,
    OutputOfAliases,
    TooFewValues,
    TooManyValues,
    ShortNulls,
    DiscardBeyond,
    DiscardTwice,
    FaultBeyond,
    EditBeyond,
    EditColumnBeyond,
    NotUtf8Packed,
    NotUtf8String,
    EndInsideCharacter,
    EndBeyondData,
    DataBeyondEnd,
    WordForNumber,
    ZerosBeforeNumber,
    NumberTooLarge,
    NullForNotNull,
    FloodLog,
    FloodLogForever,
    LogAtEachLevel,
    BadCounters,
    CountRowsAndPanic,
}

#[derive(Deserialize)]
struct Config {
    deed: Deed,
}

thread_local! {
    static DEED: RefCell<Deed> = const { RefCell::new(Deed::Nothing) };
}

struct Hostile;

fn deed() -> Deed {
    DEED.with_borrow(|deed| *deed)
}

impl Guest for Hostile {
    fn init(config: String) -> Result<(), String> {
        let config: Config = serde_json::from_str(&config).map_err(|error| error.to_string())?;
        DEED.set(config.deed);
        // As the SDK does it for those who use it whole.
        std::panic::set_hook(Box::new(|_| log::write(log::Level::Error, "it panicked")));
        match deed() {
            Deed::LoopInInit => forever(),
            Deed::RefuseInit => Err("it does not like the weather".to_owned()),
            Deed::PanicInInit => panic!("as asked for"),
            _ => Ok(()),
        }
    }

    fn subscribe(table: Table) -> Result<Option<Interest>, String> {
        let want = |name: &str, form| Want { column: name.to_owned(), old: false, form };
        let mut columns = vec![want("id", Form::Strings), want("name", Form::Strings)];
        match deed() {
            Deed::LoopInSubscribe => forever(),
            Deed::LoopOnPoisonTable if table.name == "poison" => forever(),
            Deed::PanicInSubscribe => panic!("as asked for"),
            Deed::RefuseSubscribe => return Err("it does not like the table".to_owned()),
            Deed::WantMissingColumn => columns.push(want("nowhere", Form::Packed)),
            Deed::WantNativeText => columns.push(want("name", Form::Native)),
            Deed::WantTooMuch => columns.extend((0..100_000).map(|_| want("name", Form::Packed))),
            _ => {}
        }
        Ok(Some(Interest { columns, ops: true, positions: true, times: true }))
    }

    fn process(batch: Batch) -> Result<Patch, String> {
        let rows = batch.rows;
        let Values::Strings(names) = &batch.columns[1].values else { unreachable!() };
        let poisoned = names.iter().zip(0..).find(|(name, _)| name.as_deref() == Some("poison"));
        let poisoned = poisoned.map(|(_, row)| row);
        if deed() == Deed::CountRowsAndPanic {
            return count_rows(&batch.columns[0].values);
        }
        match (deed(), poisoned) {
            (Deed::LoopOnPoison, Some(_)) => forever(),
            (Deed::PanicOnPoison, Some(_)) => explode(),
            (Deed::FaultOnPoison, Some(row)) => Ok(fault(row, false)),
            (Deed::RetryOnPoison, Some(row)) => Ok(fault(row, true)),
            (deed, _) => misbehave(deed, rows),
        }
    }
}

/// Has a name of its own to be found by.
#[inline(never)]
fn explode() -> Result<Patch, String> {
    panic!("as asked for")
}

fn misbehave(deed: Deed, rows: u32) -> Result<Patch, String> {
    let packed = |ends, data| Values::Packed(Packed { nulls: None, ends, data });
    let every = |text: &str| Values::Strings(vec![Some(text.to_owned()); rows as usize]);
    Ok(match deed {
        Deed::LoopInProcess => forever(),
        Deed::RefuseBatch => return Err("it does not like the batch".to_owned()),
        Deed::EatMemory => eat(),
        Deed::LeakMemory => leak(),
        Deed::OverflowStack => discard(vec![u32::try_from(deeper(u64::from(rows))).unwrap_or(0)]),
        Deed::RecurseForever => discard(vec![u32::try_from(recurse(u64::from(rows))).unwrap_or(0)]),
        Deed::HugeOutput => edit(1, Some(vec![0]), huge()),
        Deed::OutputOfAliases => edit(1, None, aliases()),
        Deed::TooFewValues => edit(1, None, Values::Strings(vec![None; rows as usize - 1])),
        Deed::TooManyValues => edit(1, None, Values::Strings(vec![None; rows as usize + 1])),
        Deed::ShortNulls => edit(1, None, no_nulls(rows)),
        Deed::DiscardBeyond => discard(vec![rows]),
        Deed::DiscardTwice => discard(vec![0, 0]),
        Deed::FaultBeyond => fault(rows, false),
        Deed::EditBeyond => edit(1, Some(vec![u32::MAX]), Values::Strings(vec![None])),
        Deed::EditColumnBeyond => edit(2, Some(vec![0]), Values::Strings(vec![None])),
        Deed::NotUtf8Packed => edit(1, Some(vec![0]), packed(vec![2], vec![0xC3, 0x28])),
        Deed::NotUtf8String => edit(1, Some(vec![0]), Values::Strings(vec![Some(broken())])),
        Deed::EndInsideCharacter => {
            edit(1, Some(vec![0]), packed(vec![1], "é".as_bytes().to_vec()))
        }
        Deed::EndBeyondData => edit(1, Some(vec![0]), packed(vec![9], b"short".to_vec())),
        Deed::DataBeyondEnd => edit(1, Some(vec![0]), packed(vec![2], b"longer".to_vec())),
        Deed::WordForNumber => edit(0, None, every("many")),
        Deed::ZerosBeforeNumber => edit(0, None, every("007")),
        Deed::NumberTooLarge => edit(0, None, every("9999999999")),
        Deed::NullForNotNull => edit(0, None, Values::Strings(vec![None; rows as usize])),
        Deed::FloodLog => flood(0..10_000),
        Deed::FloodLogForever => flood(0..),
        Deed::LogAtEachLevel => log_at_each_level(),
        Deed::BadCounters => count(),
        _ => discard(Vec::new()),
    })
}

fn discard(discard: Vec<u32>) -> Patch {
    Patch { discard, edits: Vec::new(), faults: Vec::new() }
}

fn edit(column: u32, rows: Option<Vec<u32>>, values: Values) -> Patch {
    Patch { discard: Vec::new(), edits: vec![Edit { column, rows, values }], faults: Vec::new() }
}

fn fault(row: u32, retryable: bool) -> Patch {
    let message = "the row is poison".to_owned();
    let faults = vec![Fault { row, message, retryable }];
    Patch { discard: Vec::new(), edits: Vec::new(), faults }
}

fn no_nulls(rows: u32) -> Values {
    let ends = vec![0; rows as usize];
    Values::Packed(Packed { nulls: Some(Vec::new()), ends, data: Vec::new() })
}

fn forever() -> ! {
    let mut count = 0_u64;
    loop {
        count = std::hint::black_box(count.wrapping_add(1));
    }
}

fn eat() -> Patch {
    let mut eaten: Vec<Vec<u8>> = Vec::new();
    loop {
        eaten.push(std::hint::black_box(vec![1; 1 << 20]));
    }
}

/// A little, for good, every time.
fn leak() -> Patch {
    std::mem::forget(std::hint::black_box(vec![1_u8; 256 << 10]));
    discard(Vec::new())
}

#[expect(unconditional_recursion, reason = "that is the deed")]
fn deeper(level: u64) -> u64 {
    let frame = std::hint::black_box([level; 64]);
    deeper(level + 1) + frame[0]
}

/// Without a frame in linear memory, so that it is the engine's own stack that ends.
fn recurse(level: u64) -> u64 {
    if level == 0 { 1 } else { recurse(level.wrapping_add(1)).rotate_left(7) ^ level }
}

fn huge() -> Values {
    let data = vec![b'x'; 24 << 20];
    Values::Packed(Packed { nulls: None, ends: vec![24 << 20], data })
}

#[expect(unsafe_code, reason = "that is the deed")]
fn broken() -> String {
    // SAFETY: nothing reads it before the host does.
    unsafe { String::from_utf8_unchecked(vec![0xC3, 0x28]) }
}

/// 256 texts that all lie in the same 16 MiB: 4 GiB for who copies them.
#[expect(unsafe_code, reason = "that is the deed")]
fn aliases() -> Values {
    let text = vec![b'x'; 16 << 20].leak();
    let (start, length) = (text.as_mut_ptr(), text.len());
    // SAFETY: nothing drops or writes them, because handing them over ends in a trap.
    let alias = |_| Some(unsafe { String::from_raw_parts(start, length, length) });
    Values::Strings((0..256).map(alias).collect())
}

fn log_at_each_level() -> Patch {
    use log::Level::{Debug, Error, Info, Trace, Warn};
    for (level, name) in
        [(Trace, "trace"), (Debug, "debug"), (Info, "info"), (Warn, "warn"), (Error, "error")]
    {
        log::write(level, name);
    }
    discard(Vec::new())
}

fn flood(lines: impl Iterator<Item = u64>) -> Patch {
    for line in lines {
        log::write(log::Level::Warn, &format!("line {line} {}", "x".repeat(10_000)));
    }
    discard(Vec::new())
}

/// A counter for each row that it ever sees.
fn count_rows(ids: &Values) -> Result<Patch, String> {
    let Values::Strings(ids) = ids else { unreachable!() };
    ids.iter().flatten().for_each(|id| metrics::add(&format!("row_{id}"), 1));
    explode()
}

fn count() -> Patch {
    for number in 0..100 {
        metrics::add(&format!("counter_{number}"), 1);
    }
    metrics::add("Not A Name", 1);
    metrics::add("", 1);
    discard(Vec::new())
}

#[cfg(target_family = "wasm")]
transform::export!(Hostile with_types_in transform);
