//! `/v0/snapshot`: a table is copied again, for who may administer.

use axum::extract::{Extension, RawQuery, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::{Json, Router, routing};
use serde_json::json;

use super::access::Caller;
use super::answer::Refusal;
use super::parameters;
use super::routes::App;
use super::token::Scope;
use crate::snapshot_requests::Refused;

pub(super) fn routes() -> Router<App> {
    Router::new().route("/v0/snapshot", routing::post(snapshot))
}

async fn snapshot(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
    RawQuery(query): RawQuery,
) -> Result<Response, Refusal> {
    caller.require(&Scope::Admin)?;
    let mut query = parameters::parse(query.as_deref())?;
    let table = parameters::take(&mut query, "table")?;
    let table = table.ok_or_else(|| Refusal::bad("say which table to copy again: `table`"))?;
    parameters::none_left(&query)?;
    app.context.snapshot_requests.ask(table.clone()).await?;
    Ok(Json(json!({ "copying": table })).into_response())
}

impl From<Refused> for Refusal {
    fn from(refused: Refused) -> Refusal {
        let status = match refused {
            Refused::NoCapture | Refused::Unreadable(_) => StatusCode::CONFLICT,
            Refused::Unknown(_) => StatusCode::NOT_FOUND,
            Refused::Ended | Refused::Busy => StatusCode::SERVICE_UNAVAILABLE,
        };
        Refusal::new(status, refused.to_string())
    }
}
