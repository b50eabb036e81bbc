//! Dead letters are listed so many at a time, and who asks for them in a way that means nothing is told so.

use std::time::Duration;

use hyper::Method;
use serde_json::Value;
use tailwater::hop::{Hop, LogPoint};
use tailwater::serve::ask;
use tailwater::sink::{self, Origin, Sink};
use tailwater_test_support::{ClickHouse, unique_name};
use tokio::sync::mpsc;

use crate::interface::{Interface, sentence};

/// So many letters of the table `public.people`, in a database of their own; its name.
fn set_aside(interface: &Interface, count: u32) -> String {
    let (server, database) = (ClickHouse::shared(), unique_name("letters"));
    let options = sink::Options {
        url: Some(server.url()),
        user: server.user().to_owned(),
        password: server.password().to_owned(),
        ..sink::Options::default()
    };
    let context = interface.context();
    let origin =
        Origin { database: database.clone(), source: database.clone(), pipeline: "tests".into() };
    let leg = interface.readiness.leg("sink");
    let connecting = Sink::connect(options, origin, context.metrics, leg);
    let letters = interface.runtime.block_on(connecting).expect("a sink").letters();
    let sql = format!(
        "INSERT INTO {database}._tailwater_dead_letters (version, position, source_table, op, stage) \
         SELECT bitShiftLeft(toUInt128(number + 1), 64) + 1, concat('0/', hex(number + 1), ':1'), \
         'public.people', 'c', 'store' FROM numbers({count})"
    );
    server.query(&sql).expect(&sql);
    let (head, _leg) = mpsc::channel::<Hop<LogPoint>>(1);
    context.dead_letters.open_direct(letters, &head.downgrade(), Vec::new());
    database
}

#[test]
fn a_list_of_letters_is_as_long_as_asked_for_and_tells_how_many_more_there_are() {
    let interface = Interface::start("");
    set_aside(&interface, 103);
    for (query, listed, more) in [
        ("", 100, 3),
        ("?limit=2", 2, 101),
        ("?limit=0", 0, 103),
        ("?limit=103", 103, 0),
        ("?limit=500&table=public.people", 103, 0),
        ("?limit=2&table=public.users", 0, 0),
    ] {
        let response = interface.get(&format!("/v0/dlq{query}"));
        let answer: Value = serde_json::from_slice(&response.body).expect("it is JSON");
        let letters = answer["letters"].as_array().expect("a list");
        assert_eq!((letters.len(), answer["more"].as_u64()), (listed, Some(more)), "{query}");
        let first = letters.first().map(|letter| letter["position"].as_str());
        assert_eq!(first, (listed > 0).then_some(Some("0/01:1")), "{query}");
    }
}

#[test]
fn a_letter_that_is_named_and_not_there_is_told() {
    let interface = Interface::start("");
    set_aside(&interface, 1);
    for path in ["redrive?id=nothing", "drop?id=nothing", "drop?id=nothing&table=public.people"] {
        let response = interface.request("POST", &format!("/v0/dlq/{path}"), &[], b"");
        let wanted = "there is no dead letter nothing; /v0/dlq lists them";
        assert_eq!((response.status, &*sentence(&response)), (404, wanted), "{path}");
    }
    let listed: Value = serde_json::from_slice(&interface.get("/v0/dlq").body).expect("JSON");
    let id = listed["letters"][0]["id"].as_str().expect("an id");
    let dropped = interface.request("POST", &format!("/v0/dlq/drop?id={id}"), &[], b"");
    assert_eq!(dropped.text(), "{\"dropped\":1}");
}

#[test]
fn a_letter_of_any_length_is_shown_by_the_command() {
    let interface = Interface::start("");
    let database = set_aside(&interface, 1);
    let megabytes = 12;
    let sql = format!(
        "INSERT INTO {database}._tailwater_dead_letters (version, position, source_table, op, stage, \
         original) SELECT bitShiftLeft(toUInt128(9), 64), '0/9:0', 'public.people', 'c', 'store', \
         arrayStringConcat(arrayMap(n -> repeat('x', 1000000), range({megabytes})))"
    );
    ClickHouse::shared().query(&sql).expect(&sql);
    let ask = |path: &str| {
        let base = interface.base();
        let asking = ask::<Value>(Method::GET, &base, path, None, Duration::from_secs(60));
        interface.runtime.block_on(asking).expect(path)
    };
    let listed = ask("/v0/dlq?limit=100");
    let id = listed["letters"][1]["id"].as_str().expect("an id");
    let shown = ask(&format!("/v0/dlq/{id}"));
    assert_eq!(shown["original"].as_str().map(str::len), Some(megabytes * 1_000_000));
}

#[test]
fn a_choice_of_letters_that_means_nothing_is_refused() {
    let interface = Interface::start("");
    let asked = [
        ("GET", "?limit=many", "`limit` is a whole number, 0 or more"),
        ("GET", "?plugins=mask", "there is no parameter `plugins` here"),
        ("POST", "/redrive", "say which letters: `id`, `plugin` or `table`, or else `all=true`"),
        ("POST", "/drop", "say which letters: `id`, `plugin` or `table`, or else `all=true`"),
    ];
    for (method, query, wanted) in asked {
        let response = interface.request(method, &format!("/v0/dlq{query}"), &[], b"");
        assert_eq!((response.status, &*sentence(&response)), (400, wanted), "{method} {query}");
    }
}

#[test]
fn before_a_leg_is_up_its_letters_cannot_be_reached() {
    let interface = Interface::start("");
    let response = interface.get("/v0/dlq");
    assert_eq!(response.status, 503);
    assert!(sentence(&response).contains("no dead letters can be reached yet"));
}
