//! The paths.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{
    DefaultBodyLimit, Extension, FromRequest as _, Path, RawQuery, Request, State,
};
use axum::http::{StatusCode, header};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde_json::json;

use super::access::{Caller, identify};
use super::answer::Refusal;
use super::clickhouse::ClickHouse;
use super::guard::TableFunctions;
use super::token::{Scope, Tokens};
use super::{Context, Options, dlq, filter, parameters, pipe, snapshot, sql, tail};

/// The longest SQL statement, in bytes.
const STATEMENT_BYTES: usize = 256 * 1024;

/// How long a statement may take to come.
const BODY: Duration = Duration::from_secs(30);

/// What every handler has.
#[derive(Debug, Clone)]
pub(super) struct App {
    pub(super) options: Arc<Options>,
    pub(super) tokens: Tokens,
    pub(super) context: Context,
    pub(super) clickhouse: ClickHouse,
    pub(super) table_functions: TableFunctions,
    started: Instant,
}

pub(super) fn router(options: Options, tokens: Tokens, context: Context) -> Router {
    let app = App {
        options: Arc::new(options),
        tokens,
        clickhouse: ClickHouse::new(context.clickhouse.clone()),
        table_functions: TableFunctions::default(),
        context,
        started: Instant::now(),
    };
    Router::new()
        .route("/livez", get(|| async { "live\n" }))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .route("/v0/status", get(status))
        .route("/v0/pipes/{file}", get(pipe))
        .route("/v0/sql", get(sql_get).post(sql_post))
        .route("/v0/plugins/{name}/reload", post(reload))
        .merge(dlq::routes())
        .merge(snapshot::routes())
        .fallback(|| async { Refusal::absent(PATHS) })
        .method_not_allowed_fallback(|| async {
            Refusal::new(
                StatusCode::METHOD_NOT_ALLOWED,
                "this path takes GET (or POST, for sql, reload, redrive, drop and snapshot)",
            )
        })
        .layer(DefaultBodyLimit::max(STATEMENT_BYTES))
        .layer(from_fn_with_state(app.clone(), identify))
        .layer(from_fn(log))
        .with_state(app)
}

const PATHS: &str = "no such path; there are /v0/pipes/<table>_snapshot.json (csv, ndjson, \
                     parquet), /v0/sql?q=, /v0/status, /v0/dlq, /livez, /readyz and /metrics";

/// One line for each request. The query stays out of it: it may hold a token or a row's values.
async fn log(request: Request, next: Next) -> Response {
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let began = Instant::now();
    let response = next.run(request).await;
    let (status, elapsed) = (response.status().as_u16(), began.elapsed());
    tracing::debug!(%method, path, status, ms = elapsed.as_millis(), "answered");
    response
}

async fn readyz(State(app): State<App>) -> Response {
    let legs = app.context.readiness.legs();
    let ready = app.context.readiness.is_ready();
    let waiting: Vec<_> = legs
        .iter()
        .filter(|(_, leg)| !leg.moving)
        .map(|(name, leg)| json!({ "name": name, "reason": leg.reason }))
        .collect();
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(json!({ "ready": ready, "waiting": waiting }))).into_response()
}

async fn metrics(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
) -> Result<Response, Refusal> {
    caller.require(&Scope::Metrics)?;
    let content_type = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    Ok(([(header::CONTENT_TYPE, content_type)], app.context.metrics.expose()).into_response())
}

async fn status(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
) -> Result<Response, Refusal> {
    caller.require(&Scope::Admin)?;
    let mut status = app.context.status.borrow().clone();
    status.version = env!("CARGO_PKG_VERSION").to_owned();
    status.uptime_seconds = app.started.elapsed().as_secs();
    status.readiness = app.context.readiness.legs();
    status.tables.clone_from(&app.context.tables.borrow());
    Ok(Json(status).into_response())
}

async fn reload(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
    name: Result<Path<String>, PathRejection>,
) -> Result<Response, Refusal> {
    caller.require(&Scope::Admin)?;
    let name = parameters::part(name)?;
    let (plugins, asked) = (app.context.plugins.clone(), name.clone());
    let reloading = tokio::task::spawn_blocking(move || plugins.one(&asked));
    let reloaded = reloading.await.expect("reloading does not panic");
    match reloaded {
        None => Err(Refusal::absent(format!("there is no plugin `{name}`; /v0/status lists them"))),
        Some(Ok(reloaded)) => Ok(Json(reloaded).into_response()),
        Some(Err(why)) => Err(Refusal::new(StatusCode::CONFLICT, why)),
    }
}

async fn pipe(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
    file: Result<Path<String>, PathRejection>,
    RawQuery(query): RawQuery,
) -> Result<Response, Refusal> {
    if file.is_err() {
        caller.require(&Scope::AnyPipe)?;
    }
    let file = parameters::part(file)?;
    let (name, format) = pipe::split_name(&file)?;
    // Before the look-up: who may not read a pipe does not learn whether it exists.
    caller.require(&Scope::Pipe(name.to_owned()))?;
    let table = app.context.tables.borrow().iter().find(|table| table.pipe() == name).cloned();
    let table = table.ok_or_else(|| {
        Refusal::absent(format!(
            "there is no pipe `{name}`; every mirrored table has one, `<table>_snapshot`"
        ))
    })?;
    let mut parameters = parameters::parse(query.as_deref())?;
    parameters.retain(|(key, _)| key != "token");
    let database = app.clickhouse.database()?;
    let statement = pipe::statement(&table, &database, format, parameters, &app.options)?;
    let response = app.clickhouse.ask(&statement).await;
    let response = response.map_err(|error| filter::refusal(&table, error))?;
    Ok(tail::through(response, format.content_type(), pipe::first_byte(&app.options)))
}

async fn sql_get(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
    RawQuery(query): RawQuery,
) -> Result<Response, Refusal> {
    caller.require(&Scope::Sql)?;
    let mut parameters = parameters::parse(query.as_deref())?;
    let text = parameters::take(&mut parameters, "q")?.ok_or_else(|| {
        Refusal::bad("the statement is missing: give it as `q`, or as the body of a POST")
    })?;
    answer_sql(&app, &text, parameters).await
}

async fn sql_post(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
    RawQuery(query): RawQuery,
    request: Request,
) -> Result<Response, Refusal> {
    caller.require(&Scope::Sql)?;
    if request.headers().contains_key(header::CONTENT_ENCODING) {
        return Err(Refusal::bad("the body of a statement is sent plain, without encoding"));
    }
    let body = body_of(request, BODY).await?;
    let mut parameters = parameters::parse(query.as_deref())?;
    let text = match parameters::take(&mut parameters, "q")? {
        None => body,
        Some(text) if body.is_empty() => text,
        Some(_) => {
            return Err(Refusal::bad("the statement comes twice: leave out `q`, or the body"));
        }
    };
    answer_sql(&app, &text, parameters).await
}

/// The body of a request as a text, if it comes in time.
async fn body_of(request: Request, patience: Duration) -> Result<String, Refusal> {
    let body = tokio::time::timeout(patience, String::from_request(request, &())).await;
    let body = body.map_err(|_| {
        let status = StatusCode::REQUEST_TIMEOUT;
        Refusal::new(status, format!("the body did not come within {patience:?}"))
    })?;
    body.map_err(|_| {
        Refusal::bad(format!("the body is one statement in UTF-8, at most {STATEMENT_BYTES} bytes"))
    })
}

async fn answer_sql(
    app: &App,
    text: &str,
    parameters: Vec<(String, String)>,
) -> Result<Response<Body>, Refusal> {
    let format = sql::format(parameters)?;
    let refused = app.table_functions.of(&app.clickhouse).await?;
    let statement = sql::statement(text, &refused, format, &app.options)?;
    let response = app.clickhouse.ask(&statement).await?;
    Ok(tail::through(response, format.content_type(), pipe::first_byte(&app.options)))
}

#[cfg(test)]
mod tests {
    use axum::body::Bytes;
    use futures_util::stream;

    use super::*;

    #[tokio::test]
    async fn a_body_that_does_not_come_is_not_waited_for() {
        let silent = stream::pending::<Result<Bytes, std::io::Error>>();
        let request = Request::new(Body::from_stream(silent));
        let refused = body_of(request, Duration::from_millis(5)).await.unwrap_err();
        let answer = refused.into_response();
        assert_eq!(answer.status(), StatusCode::REQUEST_TIMEOUT);
        let said = axum::body::to_bytes(answer.into_body(), 1000).await.unwrap();
        let said = String::from_utf8_lossy(&said);
        assert!(said.contains("the body did not come within 5ms"), "{said}");
    }
}
