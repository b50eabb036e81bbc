//! `/v0/dlq`: the dead letters, for who may administer.

use axum::extract::rejection::PathRejection;
use axum::extract::{Extension, Path, RawQuery, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde_json::json;

use super::access::Caller;
use super::answer::Refusal;
use super::parameters;
use super::routes::App;
use super::token::Scope;
use crate::redrive::{LISTED, Refused};
use crate::sink::Chosen;

pub(super) fn routes() -> Router<App> {
    Router::new()
        .route("/v0/dlq", get(list))
        .route("/v0/dlq/redrive", post(redrive))
        .route("/v0/dlq/drop", post(drop_letters))
        .route("/v0/dlq/{id}", get(show))
}

async fn list(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
    RawQuery(query): RawQuery,
) -> Result<Response, Refusal> {
    caller.require(&Scope::Admin)?;
    let mut query = parameters::parse(query.as_deref())?;
    let limit = parameters::number(&mut query, "limit")?.unwrap_or(LISTED);
    let (chosen, _) = choose(query)?;
    Ok(Json(app.context.dead_letters.list(&chosen, limit).await?).into_response())
}

async fn show(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
    id: Result<Path<String>, PathRejection>,
) -> Result<Response, Refusal> {
    caller.require(&Scope::Admin)?;
    let id = parameters::part(id)?;
    let found = app.context.dead_letters.show(&id).await?;
    Ok(Json(found.ok_or_else(|| absent(&id))?).into_response())
}

fn absent(id: &str) -> Refusal {
    Refusal::absent(format!("there is no dead letter {id}; /v0/dlq lists them"))
}

/// Who names a letter by its id means that one, and should learn that there is none.
async fn is_there(app: &App, chosen: &Chosen) -> Result<(), Refusal> {
    let Some(id) = &chosen.id else { return Ok(()) };
    match app.context.dead_letters.list(chosen, 1).await?.letters.is_empty() {
        true => Err(absent(id)),
        false => Ok(()),
    }
}

async fn redrive(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
    RawQuery(query): RawQuery,
) -> Result<Response, Refusal> {
    caller.require(&Scope::Admin)?;
    let chosen = choose_for_sure(query.as_deref())?;
    is_there(&app, &chosen).await?;
    Ok(Json(app.context.dead_letters.redrive(&chosen).await?).into_response())
}

async fn drop_letters(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
    RawQuery(query): RawQuery,
) -> Result<Response, Refusal> {
    caller.require(&Scope::Admin)?;
    let chosen = choose_for_sure(query.as_deref())?;
    is_there(&app, &chosen).await?;
    let dropped = app.context.dead_letters.drop(&chosen).await?;
    Ok(Json(json!({ "dropped": dropped })).into_response())
}

/// Which letters, and whether all were asked for.
fn choose(mut query: Vec<(String, String)>) -> Result<(Chosen, bool), Refusal> {
    let mut take = |name| parameters::take(&mut query, name);
    let (id, plugin, table) = (take("id")?, take("plugin")?, take("table")?);
    let all = take("all")?.is_some_and(|all| all == "true");
    parameters::none_left(&query)?;
    Ok((Chosen { id, plugin, table }, all))
}

/// As [`choose`]; who names nothing has to say that all are meant.
fn choose_for_sure(query: Option<&str>) -> Result<Chosen, Refusal> {
    let (chosen, all) = choose(parameters::parse(query)?)?;
    if all == (chosen == Chosen::default()) {
        return Ok(chosen);
    }
    Err(Refusal::bad("say which letters: `id`, `plugin` or `table`, or else `all=true`"))
}

impl From<Refused> for Refusal {
    fn from(refused: Refused) -> Refusal {
        let status = match refused {
            Refused::NoPlugin(_) => StatusCode::CONFLICT,
            Refused::Starting | Refused::Ended => StatusCode::SERVICE_UNAVAILABLE,
            Refused::Store(_) | Refused::Topic(_) => StatusCode::BAD_GATEWAY,
        };
        Refusal::new(status, refused.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_letters_are_meant_only_when_that_is_said() {
        assert!(choose_for_sure(None).is_err());
        assert!(choose_for_sure(Some("all=true&plugin=mask")).is_err());
        assert!(choose_for_sure(Some("plugins=mask")).is_err());
        assert_eq!(choose_for_sure(Some("all=true&token=x")).unwrap(), Chosen::default());
        let chosen = choose_for_sure(Some("plugin=mask")).unwrap();
        assert_eq!(chosen.plugin.as_deref(), Some("mask"));
    }
}
