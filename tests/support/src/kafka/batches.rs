//! What the broker's segments on the disk tell of a topic's batches.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};

/// Where the parts of a batch's header are: its length counts from behind itself.
const LENGTH: usize = 8;
const BEHIND_LENGTH: usize = 12;
const ATTRIBUTES: usize = 21;
const RECORDS: usize = 57;

/// The attributes' bit of a batch with which a transaction ends.
const CONTROL: u16 = 1 << 5;
/// Codecs by the number in the attributes' lowest bits.
const CODECS: [&str; 5] = ["none", "gzip", "snappy", "lz4", "zstd"];

/// How many records of a topic are in batches of which codec.
pub(super) fn records_by_codec(logs: &Path, topic: &str) -> Result<BTreeMap<&'static str, u32>> {
    let mut records = BTreeMap::new();
    for partition in fs::read_dir(logs)? {
        let partition = partition?;
        let name = partition.file_name().to_string_lossy().into_owned();
        let number = name.strip_prefix(topic).and_then(|rest| rest.strip_prefix('-'));
        if number.is_none_or(|number| number.parse::<u32>().is_err()) {
            continue;
        }
        for file in fs::read_dir(partition.path())? {
            let file = file?.path();
            if file.extension().is_some_and(|extension| extension == "log") {
                count(&fs::read(&file)?, &mut records)
                    .with_context(|| format!("read {}", file.display()))?;
            }
        }
    }
    Ok(records)
}

fn count(segment: &[u8], records: &mut BTreeMap<&'static str, u32>) -> Result<()> {
    let mut rest = segment;
    while !rest.is_empty() {
        ensure!(rest.len() > RECORDS + 4, "it ends within a batch");
        let attributes = u16::from_be_bytes([rest[ATTRIBUTES], rest[ATTRIBUTES + 1]]);
        if attributes & CONTROL == 0 {
            let codec = CODECS.get(usize::from(attributes & 7)).context("no codec is called so")?;
            *records.entry(*codec).or_default() += number(&rest[RECORDS..]);
        }
        let length = BEHIND_LENGTH + number(&rest[LENGTH..]) as usize;
        rest = rest.get(length..).context("it ends within a batch")?;
    }
    Ok(())
}

fn number(bytes: &[u8]) -> u32 {
    u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
}
