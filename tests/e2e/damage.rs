//! A broken box between the source and us, which changes what passes: it is noticed, said, and nothing
//! is stored of it.

use anyhow::{Result, ensure};
use tailwater_test_support::{Postgres, PostgresVersion};

use crate::bad_input::{FAILED, ends_with};
use crate::legs::{DEADLINE, behind_proxy, serves};

#[test]
fn what_was_damaged_on_its_way_from_the_source_ends_the_run_and_is_read_again() -> Result<()> {
    let source = Postgres::shared(PostgresVersion::V18).create_database()?;
    source.execute("CREATE TABLE notes (id int PRIMARY KEY, body text)")?;
    source.execute("INSERT INTO notes VALUES (1, 'copied')")?;
    let (proxy, tailwater) = behind_proxy(&source, "")?;

    proxy.damage(b"1\tcopied\n", b"1 copied\n".as_ref());
    let said = "capture stopped: the snapshot of public.notes cannot be read: a COPY line came with \
                1 columns where 2 were asked for";
    ends_with(&tailwater, FAILED, &[said])?;
    proxy.mend();
    let copied = "{\"id\":1,\"body\":\"copied\"}\n";
    let process = tailwater.start()?;
    serves(&tailwater, "notes", copied)?;
    ensure!(process.terminate(DEADLINE)?.success(), "it ended badly");

    source.execute("INSERT INTO notes VALUES (2, 'streamed')")?;
    let id = source.query("SELECT 'notes'::regclass::oid::int")?[0][0].parse::<u32>()?;
    let insert = |kind: u8, id: u32| [&[kind], &id.to_be_bytes()[..], b"N\0\x02"].concat();
    let cannot = "capture stopped: the replication stream cannot be decoded: ";
    for (damaged, said) in [
        (insert(b'?', id), "malformed pgoutput message: unknown message type 0x3f".to_owned()),
        (insert(b'I', 7), "the stream changed relation 7 without describing it first".to_owned()),
    ] {
        proxy.damage(&insert(b'I', id), &damaged);
        ends_with(&tailwater, FAILED, &[&format!("{cannot}{said}")])?;
    }
    proxy.mend();
    let _process = tailwater.start()?;
    serves(&tailwater, "notes", &format!("{copied}{{\"id\":2,\"body\":\"streamed\"}}\n"))
}
