//! What is wrong with a request is said in one sentence, before ClickHouse is asked.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;

use tailwater::config::Secret;
use tailwater::serve::{Endpoint, Mirrored, MirroredColumn};

use crate::interface::{Interface, sentence};

/// An interface that mirrors `users (id, email)`, without a ClickHouse.
fn users() -> Interface {
    let interface = Interface::start("sql_max_seconds = 1");
    let column = |name: &str, kind: &str| MirroredColumn {
        name: name.to_owned(),
        kind: kind.to_owned(),
        binary: false,
    };
    interface.tables.send_replace(vec![Mirrored {
        source: "public.users".to_owned(),
        view: "users".to_owned(),
        columns: vec![column("id", "Int64"), column("email", "Nullable(String)")],
        order: vec!["id".to_owned()],
    }]);
    interface
}

/// ClickHouse is where `listener` is.
fn is_at(interface: &Interface, listener: &TcpListener) {
    interface.clickhouse.send_replace(Some(Endpoint {
        url: format!("http://{}", listener.local_addr().expect("an address")),
        user: "default".to_owned(),
        password: Secret::new(""),
        database: "shop".to_owned(),
    }));
}

#[test]
fn what_is_wrong_with_a_request_is_said() {
    let interface = users();
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    is_at(&interface, &listener);
    let pipe = "/v0/pipes/users_snapshot.json";
    let cases = [
        (404, "/v0/pipes/users_snapshot.xml".to_owned(), "is not a pipe's file; it ends in .json"),
        (404, "/v0/pipes/users_snapshot".to_owned(), "`users_snapshot` is not a pipe's file"),
        (400, format!("{pipe}?limit=few"), "`limit` is a whole number, 0 or more"),
        (400, format!("{pipe}?email=%FF"), "a query parameter is not UTF-8 once its %-codes"),
        (400, format!("{pipe}?limit=1&limit=2"), "the query parameter `limit` is given twice"),
        (400, format!("{pipe}?id=1&id.is=null"), "the column `id` is filtered twice"),
        (400, format!("{pipe}?mail=x"), "`mail` is neither a column of `users` nor a parameter"),
        (400, "/v0/sql".to_owned(), "the statement is missing: give it as `q`, or as the body"),
        (400, "/v0/sql?q=SELECT+1&format=xml".to_owned(), "`format` is one of json, csv, ndjson"),
        (400, "/v0/pipes/%FF.json".to_owned(), "the path is not UTF-8 once its %-codes"),
        (400, "/v0/dlq/%ff".to_owned(), "the path is not UTF-8 once its %-codes"),
    ];
    for (status, path, wanted) in cases {
        let response = interface.get(&path);
        assert!(sentence(&response).contains(wanted), "{path}: {}", response.text());
        assert_eq!(response.status, status, "{path}");
    }
    for (status, path, wanted) in [
        (400, "/v0/snapshot", "say which table to copy again"),
        (400, "/v0/snapshot?table=public.users&force=1", "there is no parameter `force` here"),
        (409, "/v0/snapshot?table=public.users&token=x", "this process copies no tables"),
    ] {
        let response = interface.request("POST", path, &[], b"");
        assert!(sentence(&response).contains(wanted), "{path}: {}", response.text());
        assert_eq!(response.status, status, "{path}");
    }
    let twice = interface.request("POST", "/v0/sql?q=SELECT+1", &[], b"SELECT 2");
    assert!(sentence(&twice).contains("the statement comes twice: leave out `q`, or the body"));
    let nobody = interface.request("POST", "/v0/plugins/nobody/reload", &[], b"");
    assert_eq!(sentence(&nobody), "there is no plugin `nobody`; /v0/status lists them");
    let invalid = interface.request("POST", "/v0/plugins/%ff/reload", &[], b"");
    assert_eq!((invalid.status, twice.status), (400, 400), "{}", invalid.text());
    let packed = [("Content-Encoding", "gzip")];
    let response = interface.request("POST", "/v0/sql", &packed, b"\x1f\x8b");
    assert!(sentence(&response).contains("the body of a statement is sent plain"));
    assert_eq!(response.status, 400);
}

/// As a proxy that breaks off.
#[test]
fn an_error_of_clickhouse_that_ends_too_soon_is_one_without_a_text() {
    let interface = users();
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    is_at(&interface, &listener);
    let serving = std::thread::spawn(move || {
        let (mut asking, _) = listener.accept().expect("a connection");
        let read = asking.read(&mut [0; 65_536]).expect("a statement");
        let head = "HTTP/1.1 500 Internal Server Error\r\nContent-Length: 9\r\n\r\n";
        asking.write_all(head.as_bytes()).map(|()| read).expect("it listens")
    });
    let response = interface.get("/v0/pipes/users_snapshot.json");
    let said = sentence(&response);
    assert!(said.contains("an error without a text (http status 500"), "{said}");
    assert!(serving.join().expect("it does not panic") > 0);
}

/// The kernel takes the connection of a server that hangs, and nobody answers.
#[test]
fn a_clickhouse_that_hangs_is_not_waited_for_without_end() {
    let interface = users();
    let hanging = TcpListener::bind("127.0.0.1:0").expect("a port");
    is_at(&interface, &hanging);
    let response = interface.get("/v0/pipes/users_snapshot.json");
    assert_eq!(sentence(&response), "clickhouse did not answer within 6 s");
    assert_eq!(response.status, 504);
}
