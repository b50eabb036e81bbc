//! Plain HTTP to the engine.

use tailwater_test_support::{ClickHouse, HttpResponse, http_request, unique_name};
use url::form_urlencoded::Serializer;

/// A database of the test's own.
pub fn database(clickhouse: &ClickHouse) -> String {
    let name = unique_name("embedded");
    clickhouse.query(&format!("CREATE DATABASE {name}")).expect("a database");
    name
}

/// Posts a body beside a statement in the URL.
pub fn post(clickhouse: &ClickHouse, sql: &str, body: &[u8]) -> HttpResponse {
    post_with(clickhouse, &[("query", sql)], &[], body)
}

pub fn post_with(
    clickhouse: &ClickHouse,
    parameters: &[(&str, &str)],
    more: &[(&str, &str)],
    body: &[u8],
) -> HttpResponse {
    let query = Serializer::new(String::new()).extend_pairs(parameters).finish();
    let mut headers =
        vec![("X-ClickHouse-User", clickhouse.user()), ("X-ClickHouse-Key", clickhouse.password())];
    headers.extend_from_slice(more);
    let url = format!("{}/?{query}", clickhouse.url());
    http_request("POST", &url, &headers, body).expect("an answer")
}

/// The answer's body; what is no success fails the test.
pub fn done(answer: HttpResponse) -> Vec<u8> {
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.body
}
