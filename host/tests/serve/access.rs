//! Who may ask what.

use std::path::Path;

use tailwater::serve::{Options, Server, hash_token, new_token};
use tailwater_test_support::http_request;

use crate::interface::{Interface, options, sentence};

/// `[[http.token]]` sections for tokens that are called as their owners.
fn tokens(of: &[(&str, &str)]) -> String {
    let section = |(name, scopes): &(&str, &str)| {
        format!(
            "[[token]]\nname = \"{name}\"\nhash = \"{}\"\nscopes = [{scopes}]\n",
            hash_token(name)
        )
    };
    of.iter().map(section).collect()
}

fn guarded() -> Interface {
    Interface::start(&tokens(&[
        ("one", "\"pipe:users_snapshot\""),
        ("every", "\"pipe:*\""),
        ("analyst", "\"sql\""),
        ("operator", "\"admin\""),
        ("scraper", "\"metrics\""),
        ("none", ""),
    ]))
}

const PATHS: [(&str, &[&str]); 7] = [
    ("/v0/pipes/users_snapshot.json", &["one", "every"]),
    ("/v0/pipes/orders_snapshot.json", &["every"]),
    ("/v0/sql?q=SELECT+1", &["analyst"]),
    ("/v0/status", &["operator"]),
    ("/v0/dlq", &["operator"]),
    ("/v0/dlq/0", &["operator"]),
    ("/metrics", &["operator", "scraper"]),
];

#[test]
fn every_path_is_open_to_its_scopes_and_to_no_other() {
    let interface = guarded();
    for (path, may) in PATHS {
        for name in ["one", "every", "analyst", "operator", "scraper", "none"] {
            let response = interface.get_as(name, path);
            // 404, 409 and 503: past the guard, where no table, letter and ClickHouse are.
            match may.contains(&name) {
                true => assert!([200, 404, 409, 503].contains(&response.status), "{name} {path}"),
                false => {
                    assert_eq!(response.status, 403, "{name} {path}");
                    let sentence = sentence(&response);
                    let said = format!("the token `{name}` lacks the scope `");
                    assert!(sentence.contains(&said), "{sentence}");
                }
            }
        }
    }
}

#[test]
fn without_a_token_only_health_is_told() {
    let interface = guarded();
    for (path, _) in PATHS {
        let response = interface.get(path);
        assert_eq!(response.status, 401, "{path}");
        assert_eq!(response.header("www-authenticate"), Some("Bearer realm=\"tailwater\""));
        assert!(sentence(&response).contains("?token="));
    }
    assert_eq!(interface.get("/livez").status, 200);
    assert_eq!(interface.get("/readyz").status, 503);
    assert_eq!(interface.get("/no/such/path").status, 404);
}

#[test]
fn health_is_told_whatever_token_comes_along() {
    let interface = guarded();
    for header in ["Bearer nobody", "Basic nobody", "Bearer none"] {
        for (path, status) in [("/livez", 200), ("/readyz", 503), ("/livez?token=nobody", 200)] {
            let response = interface.request("GET", path, &[("Authorization", header)], b"");
            assert_eq!(response.status, status, "{header} {path}: {}", response.text());
        }
    }
}

#[test]
fn a_path_that_is_no_text_is_refused_after_a_look_at_who_asks() {
    let interface = guarded();
    let paths = [
        ("GET", "/v0/pipes/%FF.json", "every"),
        ("GET", "/v0/dlq/%ff", "operator"),
        ("POST", "/v0/plugins/%ff/reload", "operator"),
    ];
    for (method, path, may) in paths {
        for (token, status) in [(may, 400), ("none", 403), ("nobody", 401)] {
            let headers = [("Authorization", &*format!("Bearer {token}"))];
            let response = interface.request(method, path, &headers, b"");
            let said = sentence(&response);
            assert_eq!(response.status, status, "{token} {path}: {said}");
            let of_path = said == "the path is not UTF-8 once its %-codes are decoded";
            assert_eq!(of_path, status == 400, "{token} {path}: {said}");
        }
        assert_eq!(interface.request(method, path, &[], b"").status, 401, "{path}");
    }
}

#[test]
fn a_wrong_token_is_refused_wherever_it_stands() {
    let interface = guarded();
    let hash = hash_token("operator");
    for wrong in ["operato", "operator2", "OPERATOR", "", hash.as_str()] {
        let response = interface.get_as(wrong, "/v0/status");
        assert_eq!(response.status, 401, "{wrong:?}");
        let said = if wrong.is_empty() { "Bearer <token>" } else { "this token is not known here" };
        assert!(sentence(&response).contains(said), "{wrong:?}: {}", response.text());
        assert!(!response.text().contains(&hash));
        assert_eq!(interface.get(&format!("/v0/status?token={wrong}")).status, 401);
    }
    for header in ["Basic operator", "operator", "Bearer"] {
        let response = interface.request("GET", "/v0/status", &[("Authorization", header)], b"");
        assert_eq!(response.status, 401, "{header}");
        assert!(sentence(&response).contains("is not of the form `Bearer <token>`"));
    }
}

#[test]
fn a_token_may_stand_in_the_header_or_in_the_query() {
    let interface = guarded();
    assert_eq!(interface.get_as("operator", "/v0/status").status, 200);
    assert_eq!(interface.get("/v0/status?token=operator").status, 200);
    let headers = [("Authorization", "bearer  operator")];
    assert_eq!(interface.request("GET", "/v0/status", &headers, b"").status, 200);
    let wrong = [("Authorization", "Bearer nobody")];
    let both = interface.request("GET", "/v0/status?token=operator", &wrong, b"");
    assert_eq!(both.status, 401, "the header counts");
    assert_eq!(interface.get("/v0/status?token=operator&token=none").status, 400);
}

#[test]
fn a_made_token_opens_by_the_hash_that_is_stored() {
    let token = new_token();
    let hash = hash_token(&token);
    let interface = Interface::start(&format!(
        "[[token]]\nname = \"made\"\nhash = \"{hash}\"\nscopes = [\"admin\"]\n"
    ));
    assert_eq!(interface.get_as(&token, "/v0/status").status, 200);
    assert_eq!(interface.get_as(&hash, "/v0/status").status, 401);
}

#[test]
fn without_tokens_everything_is_open_but_only_by_a_local_name() {
    let interface = Interface::start("");
    assert_eq!(interface.get("/v0/status").status, 200);
    assert_eq!(interface.get("/metrics").status, 200);
    // What a browser sends for a page whose name was pointed at this machine.
    let url = format!("{}/v0/status", interface.base());
    let rebound = raw(&interface, "GET /v0/status HTTP/1.1\r\nHost: evil.example\r\n\r\n");
    assert!(rebound.starts_with("HTTP/1.1 403 "), "{rebound}");
    assert!(rebound.contains("only to `localhost` or an IP address"), "{rebound}");
    assert_eq!(http_request("GET", &url, &[], b"").unwrap().status, 200);
    // No browser leaves the name out, as old probes do; an empty one is none that is local.
    for (head, status) in
        [("GET /readyz HTTP/1.0\r\n\r\n", 503), ("GET /v0/status HTTP/1.0\r\n\r\n", 200)]
    {
        let answer = raw(&interface, head);
        assert!(answer.starts_with(&format!("HTTP/1.0 {status} ")), "{answer}");
    }
    let empty = raw(&interface, "GET /v0/status HTTP/1.1\r\nHost:\r\n\r\n");
    assert!(empty.starts_with("HTTP/1.1 403 "), "{empty}");
}

#[test]
fn without_tokens_no_web_page_of_another_site_is_answered() {
    let interface = Interface::start("");
    let own = interface.base();
    let port = interface.address.rsplit(':').next().expect("a port");
    let other_name = format!("http://localhost:{port}");
    let tls = own.replace("http://", "https://");
    let foreign: [&[(&str, &str)]; 11] = [
        &[("Origin", "https://evil.example")],
        &[("Origin", "null")],
        &[("Origin", "")],
        &[("Origin", "http://127.0.0.1")],
        &[("Origin", "http://127.0.0.1:1")],
        &[("Origin", &other_name)],
        &[("Origin", &tls)],
        &[("Origin", &own), ("Sec-Fetch-Site", "same-site")],
        &[("Origin", &own), ("Origin", "https://evil.example")],
        &[("Sec-Fetch-Site", "cross-site")],
        &[("Sec-Fetch-Site", "none"), ("Sec-Fetch-Site", "cross-site")],
    ];
    let paths = [
        ("POST", "/v0/dlq/drop?all=true"),
        ("POST", "/v0/dlq/redrive?all=true"),
        ("POST", "/v0/snapshot?table=public.users"),
        ("POST", "/v0/plugins/mask/reload"),
        ("POST", "/v0/sql"),
        ("GET", "/v0/sql?q=SELECT+1"),
        ("GET", "/v0/status"),
    ];
    for (method, path) in paths {
        for headers in foreign {
            let response = interface.request(method, path, headers, b"");
            let about = format!("{method} {path} {headers:?}: {}", response.text());
            assert_eq!(response.status, 403, "{about}");
            assert!(sentence(&response).contains("no web page of another site"), "{about}");
            assert!(sentence(&response).contains("a proxy in front that adds CORS"), "{about}");
            assert!(response.header("access-control-allow-origin").is_none(), "{about}");
        }
        let ours: [&[(&str, &str)]; 3] = [
            &[("Origin", &own), ("Sec-Fetch-Site", "same-origin")],
            &[("Sec-Fetch-Site", "none")],
            &[],
        ];
        for headers in ours {
            let response = interface.request(method, path, headers, b"");
            assert_ne!(response.status, 403, "{method} {path} {headers:?}: {}", response.text());
        }
    }
    // A page that knows a token may ask with it.
    let page = [("Origin", "https://evil.example"), ("Authorization", "Bearer operator")];
    assert_eq!(guarded().request("GET", "/v0/status", &page, b"").status, 200);
}

fn raw(interface: &Interface, head: &str) -> String {
    use std::io::{Read as _, Write as _};
    let mut stream = std::net::TcpStream::connect(&interface.address).expect("connect");
    let head = head.replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).expect("send");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("receive");
    answer
}

#[test]
fn a_public_address_needs_a_token() {
    let mut public = options("");
    public.listen = "0.0.0.0:0".parse().unwrap();
    let interface = Interface::start("");
    let context = interface.context();
    let error = interface.runtime.block_on(Server::bind(public, context)).unwrap_err().to_string();
    assert!(error.contains("is not a loopback address, and without a token"), "{error}");
    let mut guarded = options(&tokens(&[("one", "\"sql\"")]));
    guarded.listen = "0.0.0.0:0".parse().unwrap();
    let context = interface.context();
    assert!(interface.runtime.block_on(Server::bind(guarded, context)).is_ok());
}

#[test]
fn a_taken_address_is_named() {
    let interface = Interface::start("");
    let mut taken = options("");
    taken.listen = interface.address.parse().unwrap();
    let context = interface.context();
    let error = interface.runtime.block_on(Server::bind(taken, context)).unwrap_err().to_string();
    assert!(error.contains(&interface.address), "{error}");
    assert!(error.contains("set another address by --listen"), "{error}");
}

#[test]
fn settings_of_the_interface_that_contradict_each_other_are_named() {
    let interface = Interface::start("");
    let bind = |text: &str| {
        let binding = Server::bind(options(text), interface.context());
        interface.runtime.block_on(binding).expect_err(text).to_string()
    };
    let error = bind("default_rows = 20000");
    assert!(error.contains("(20000) is more than `max_rows` (10000)"), "{error}");
    let text = tokens(&[("one", "\"everything\"")]);
    let read = tailwater::config::parse::<Options>(&text, Path::new("t.toml"), &|_| None);
    let error = read.unwrap_err().to_string();
    let wanted =
        "unknown scope `everything`; allowed: `pipe:<name>`, `pipe:*`, `sql`, `metrics`, `admin`";
    assert!(error.contains(wanted), "{error}");
}
