//! A running interface on a free port of its own.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use serde_json::Value;
use tailwater::config::Secret;
use tailwater::serve::{
    Context, Endpoint, Mirrored, Options, Readiness, Server, Status, StepStatus,
};
use tailwater::shutdown::{Phase, Shutdown};
use tailwater::telemetry::metrics::Metrics;
use tailwater_test_support::{ClickHouse, HttpResponse, http_request};
use tokio::runtime::Runtime;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// The interface, and the ends that the pipeline would hold.
pub struct Interface {
    pub address: String,
    pub readiness: Readiness,
    pub metrics: Arc<Metrics>,
    pub clickhouse: watch::Sender<Option<Endpoint>>,
    pub tables: watch::Sender<Vec<Mirrored>>,
    pub status: watch::Sender<Status>,
    pub shutdown: Shutdown,
    pub serving: JoinHandle<()>,
    pub runtime: Runtime,
    context: Context,
}

/// The `[http]` section of a file with this text, on a free port.
pub fn options(text: &str) -> Options {
    let text = format!("listen = \"127.0.0.1:0\"\n{text}");
    tailwater::config::parse(&text, Path::new("test.toml"), &|_| None).expect(&text)
}

pub fn status() -> Status {
    let step = StepStatus {
        position: Some("0/16B3748".into()),
        lag_bytes: Some(7),
        ..StepStatus::default()
    };
    Status {
        role: "all".into(),
        transport: "direct".into(),
        steps: BTreeMap::from([("captured".to_owned(), step)]),
        ..Status::default()
    }
}

impl Interface {
    /// Serves with the settings of the `[http]` section `text`, without a ClickHouse.
    pub fn start(text: &str) -> Interface {
        let (clickhouse, clickhouse_seen) = watch::channel(None);
        let (tables, tables_seen) = watch::channel(Vec::new());
        let (status, status_seen) = watch::channel(status());
        let (readiness, metrics) = (Readiness::default(), Arc::new(Metrics::default()));
        let context = Context {
            clickhouse: clickhouse_seen,
            tables: tables_seen,
            status: status_seen,
            readiness: readiness.clone(),
            metrics: Arc::clone(&metrics),
            plugins: tailwater::plugin::Reloads::default(),
            dead_letters: tailwater::redrive::DeadLetters::default(),
            snapshot_requests: tailwater::snapshot_requests::SnapshotRequests::default(),
        };
        let runtime = Runtime::new().expect("a runtime");
        let server = runtime.block_on(Server::bind(options(text), context.clone())).expect("bind");
        let address = server.local_addr().expect("an address").to_string();
        let shutdown = Shutdown::default();
        let ending = shutdown.clone();
        let serving =
            runtime.spawn(server.run(async move { ending.reached(Phase::Draining).await }));
        Interface {
            address,
            readiness,
            metrics,
            clickhouse,
            tables,
            status,
            shutdown,
            serving,
            runtime,
            context,
        }
    }

    /// The same in front of the ClickHouse that tests share, over a database of that name.
    pub fn with_clickhouse(text: &str, database: &str) -> Interface {
        let (interface, server) = (Interface::start(text), ClickHouse::shared());
        interface.clickhouse.send_replace(Some(Endpoint {
            url: server.url(),
            user: server.user().to_owned(),
            password: Secret::new(server.password()),
            database: database.to_owned(),
        }));
        interface
    }

    /// POSTs a statement to `/v0/sql`; `parameters` begin with `?` or are empty.
    pub fn sql(&self, statement: &str, parameters: &str) -> HttpResponse {
        self.request("POST", &format!("/v0/sql{parameters}"), &[], statement.as_bytes())
    }

    pub fn context(&self) -> Context {
        self.context.clone()
    }

    pub fn base(&self) -> String {
        format!("http://{}", self.address)
    }

    pub fn get(&self, path: &str) -> HttpResponse {
        self.request("GET", path, &[], b"")
    }

    pub fn get_as(&self, token: &str, path: &str) -> HttpResponse {
        self.request("GET", path, &[("Authorization", &format!("Bearer {token}"))], b"")
    }

    pub fn request(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> HttpResponse {
        let url = format!("{}{path}", self.base());
        http_request(method, &url, headers, body).expect(&url)
    }
}

/// The one sentence of an error's body, after a look at its shape.
pub fn sentence(response: &HttpResponse) -> String {
    assert!(response.status >= 400, "{}: {}", response.status, response.text());
    assert_eq!(response.header("content-type"), Some("application/json"));
    let body: Value = serde_json::from_slice(&response.body)
        .unwrap_or_else(|error| panic!("{error}: {}", response.text()));
    let fields: Vec<&String> = body.as_object().expect("an object").keys().collect();
    assert_eq!(fields, ["error"], "{body}");
    let sentence = body["error"].as_str().expect("a text").to_owned();
    assert!(!sentence.is_empty() && sentence.lines().count() == 1, "{sentence:?}");
    sentence
}
