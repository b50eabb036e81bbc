//! What probes, scrapers and `tailwater status` are told.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use serde_json::{Value, json};
use tailwater::commands;
use tailwater::config::{Config, Exit, InstanceArgs, Secret};
use tailwater::serve::{Mirrored, MirroredColumn, fetch_status};
use tailwater::shutdown::Phase;
use tailwater_test_support::wait_until;

use crate::interface::{Interface, sentence};

fn body(interface: &Interface, path: &str) -> Value {
    serde_json::from_slice(&interface.get(path).body).expect(path)
}

#[test]
fn ready_only_while_every_leg_moves() {
    let interface = Interface::start("");
    assert_eq!(interface.get("/livez").text(), "live\n");
    assert_eq!(interface.get("/readyz").status, 503, "no leg yet");
    let capture = interface.readiness.leg("capture");
    let sink = interface.readiness.leg("sink");
    let waiting = json!([
        { "name": "capture", "reason": "starting" },
        { "name": "sink", "reason": "starting" },
    ]);
    assert_eq!(body(&interface, "/readyz"), json!({ "ready": false, "waiting": waiting }));
    capture.moving();
    sink.moving();
    assert_eq!(interface.get("/readyz").status, 200);
    assert_eq!(body(&interface, "/readyz"), json!({ "ready": true, "waiting": [] }));
    sink.stalled("clickhouse does not answer");
    assert_eq!(interface.get("/readyz").status, 503);
    assert_eq!(body(&interface, "/readyz")["waiting"][0]["reason"], "clickhouse does not answer");
    assert_eq!(interface.get("/livez").status, 200, "alive all the same");
}

#[test]
fn metrics_are_in_the_open_format() {
    let interface = Interface::start("");
    interface.metrics.slot_safe.set(1);
    let response = interface.get("/metrics");
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    assert_eq!(response.header("content-type"), Some(kind));
    let text = response.text();
    assert!(text.contains("\ntailwater_slot_safe 1\n"), "{text}");
    assert!(text.ends_with("# EOF\n"), "{text}");
}

#[test]
fn the_status_comes_back_as_it_was_and_can_be_printed() {
    let interface = Interface::start("");
    interface.readiness.leg("capture").moving();
    let column = MirroredColumn { name: "id".into(), kind: "Int64".into(), binary: false };
    interface.tables.send_replace(vec![Mirrored {
        source: "public.users".into(),
        view: "users".into(),
        columns: vec![column],
        order: vec!["id".into()],
    }]);
    let status = interface.runtime.block_on(fetch_status(&interface.base(), None)).unwrap();
    assert_eq!(status.version, env!("CARGO_PKG_VERSION"));
    assert!(status.readiness["capture"].moving);
    assert_eq!(status.tables[0].pipe(), "users_snapshot");
    let printed = status.to_string();
    for part in ["transport direct", "capture: moving", "captured: at 0/16B3748", "users_snapshot"]
    {
        assert!(printed.contains(part), "{printed}");
    }
}

#[test]
fn the_status_command_tells_the_shell_whether_it_is_ready() {
    let interface = Interface::start("");
    let leg = interface.readiness.leg("capture");
    let mut config = Config::default();
    config.http.listen = interface.address.parse().unwrap();
    let run = || {
        let arguments = InstanceArgs { url: None, token: None };
        interface.runtime.block_on(commands::status_text(&config, &arguments)).unwrap()
    };
    let (printed, exit) = run();
    assert_eq!(exit, Exit::NotReady);
    assert!(printed.contains("leg capture: starting"), "{printed}");
    leg.moving();
    assert_eq!(run().1, Exit::Done);
}

#[test]
fn a_status_that_cannot_be_had_is_one_sentence() {
    let text = "[[token]]\nname = \"a\"\nhash = \"";
    let hash = tailwater::serve::hash_token("right");
    let interface = Interface::start(&format!("{text}{hash}\"\nscopes = [\"admin\"]\n"));
    let base = interface.base();
    let ask = |base: &str, token: Option<&str>| {
        let token = token.map(Secret::new);
        interface.runtime.block_on(fetch_status(base, token.as_ref()))
    };
    assert!(ask(&base, Some("right")).is_ok());
    let refused = ask(&base, Some("wrong-token")).unwrap_err().to_string();
    assert!(refused.contains("401") && !refused.contains("wrong-token"), "{refused}");
    assert!(ask(&base, None).unwrap_err().to_string().contains("this needs a token: send"));
    let free = tailwater_test_support::free_port().unwrap();
    for (answer, wanted) in
        [("404 Not Found", "not tailwater"), ("200 OK", "not tailwater's answer")]
    {
        let other = TcpListener::bind("127.0.0.1:0").unwrap();
        let base = format!("http://{}", other.local_addr().unwrap());
        let serving = std::thread::spawn(move || {
            let (mut asking, _) = other.accept().unwrap();
            let read = asking.read(&mut [0; 4096]).unwrap();
            let answer = format!("HTTP/1.1 {answer}\r\nContent-Length: 2\r\n\r\nno");
            asking.write_all(answer.as_bytes()).map(|()| read).unwrap()
        });
        let refused = ask(&base, None).unwrap_err().to_string();
        assert!(serving.join().unwrap() > 0 && refused.ends_with(wanted), "{refused}");
    }
    let silent = ask(&format!("http://127.0.0.1:{free}"), None).unwrap_err().to_string();
    assert!(silent.contains("is tailwater running there? give its address"), "{silent}");
}

#[test]
fn unknown_paths_and_pipes_are_404_with_a_sentence() {
    let interface = Interface::start("");
    for path in ["/", "/v0", "/v1/sql", "/metrics/", "/v0/pipes/", "/v0/pipes/a/b.json"] {
        let response = interface.get(path);
        assert_eq!(response.status, 404, "{path}");
        let said = sentence(&response);
        assert!(said.starts_with("no such path; there are /v0/pipes/<table>_snapshot"), "{path}");
    }
    for (path, wanted) in [
        (
            "/v0/pipes/users_snapshot.json",
            "there is no pipe `users_snapshot`; every mirrored table has one",
        ),
        ("/v0/pipes/users_snapshot.xml", ".parquet"),
        ("/v0/pipes/users_snapshot", ".parquet"),
        ("/v0/pipes/..%2f..%2fetc%2fpasswd.json", "no pipe"),
    ] {
        let response = interface.get(path);
        assert_eq!(response.status, 404, "{path}");
        assert!(sentence(&response).contains(wanted), "{path}: {}", response.text());
    }
    for (method, path) in [("POST", "/livez"), ("DELETE", "/v0/sql"), ("PUT", "/v0/status")] {
        let response = interface.request(method, path, &[], b"");
        assert_eq!(response.status, 405, "{method} {path}");
        assert!(sentence(&response).contains("this path takes GET"));
    }
}

#[test]
fn before_clickhouse_is_there_questions_wait_for_nothing() {
    let interface = Interface::start("");
    let response = interface.get("/v0/sql?q=SELECT+1");
    assert_eq!(response.status, 503);
    assert!(sentence(&response).contains("clickhouse is not started yet"));
}

#[test]
fn a_shutdown_ends_idle_connections_at_once_and_the_server() {
    let interface = Interface::start("");
    let mut idle = TcpStream::connect(&interface.address).unwrap();
    idle.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    idle.write_all(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    let mut answer = [0; 12];
    idle.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"HTTP/1.1 200");
    interface.shutdown.advance(Phase::Draining);
    wait_until(Duration::from_secs(10), "the server to end", || interface.serving.is_finished())
        .unwrap();
    assert!(TcpStream::connect(&interface.address).is_err());
}
