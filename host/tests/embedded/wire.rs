//! The `clickhouse` crate as it comes, compressed and not: what it sends is understood.

use clickhouse::sql::Identifier;
use clickhouse::{Client, Compression, Row};
use serde::{Deserialize, Serialize};
use tailwater_test_support::ClickHouse;
use tokio::runtime::Runtime;

use crate::requests::database;

#[derive(Debug, Clone, PartialEq, Row, Serialize, Deserialize)]
struct Note {
    id: u64,
    body: String,
    tags: Vec<String>,
    score: Option<f64>,
}

fn notes() -> Vec<Note> {
    let note = |id: u64| Note {
        id,
        body: format!("\n\n;\0'{id}"),
        tags: vec![";".into(); (id % 3) as usize],
        score: id.is_multiple_of(2).then_some(0.5),
    };
    (0..2_000).map(note).collect()
}

fn client(clickhouse: &ClickHouse, compression: Compression) -> Client {
    Client::default()
        .with_url(clickhouse.url())
        .with_user(clickhouse.user())
        .with_password(clickhouse.password())
        .with_compression(compression)
        .with_database(database(clickhouse))
}

async fn talk(client: &Client) -> clickhouse::error::Result<()> {
    let make = "CREATE TABLE ? (id UInt64, body String, tags Array(String), score Nullable(Float64)) \
                ENGINE = MergeTree ORDER BY id";
    client.query(make).bind(Identifier("notes")).execute().await?;
    let mut insert = client.insert::<Note>("notes").await?;
    for note in notes() {
        insert.write(&note).await?;
    }
    insert.end().await?;
    let all = client.query("SELECT ?fields FROM notes ORDER BY id").fetch_all::<Note>().await?;
    assert_eq!(all, notes());
    let hostile = "\n\n;\0'5";
    let found = client.query("SELECT id FROM notes WHERE body = ?").bind(hostile);
    assert_eq!(found.fetch_one::<u64>().await?, 5);
    let found = client
        .query("SELECT id FROM notes WHERE body = {body:String} AND id IN {ids:Array(UInt64)}")
        .param("body", hostile)
        .param("ids", vec![4u64, 5]);
    assert_eq!(found.fetch_all::<u64>().await?, [5]);
    // An insert that is dropped in the middle leaves nothing.
    let mut insert = client.insert::<Note>("notes").await?;
    insert.write(&notes()[0]).await?;
    drop(insert);
    let count = client.query("SELECT count() FROM notes").fetch_one::<u64>().await?;
    assert_eq!(count, 2_000);
    let error = client.query("SELECT * FROM nothing").execute().await.expect_err("no such table");
    assert!(error.to_string().contains("UNKNOWN_TABLE"), "{error}");
    let broken = "SELECT throwIf(number = 300000) FROM numbers(1000000)";
    assert!(client.query(broken).fetch_all::<u8>().await.is_err(), "an error in mid-stream");
    Ok(())
}

#[test]
fn the_crates_requests_are_understood_with_lz4() {
    let clickhouse = ClickHouse::shared();
    let client = client(clickhouse, Compression::Lz4);
    Runtime::new().expect("a runtime").block_on(talk(&client)).expect("all of it works");
}

#[test]
fn the_crates_requests_are_understood_without_compression() {
    let clickhouse = ClickHouse::shared();
    let client = client(clickhouse, Compression::None);
    Runtime::new().expect("a runtime").block_on(talk(&client)).expect("all of it works");
}
