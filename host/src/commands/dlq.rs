//! `dlq list`, `show`, `redrive` and `drop`: asked of a running instance.

use hyper::Method;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value as Json;

use super::{own_url, print, unanswered};
use crate::config::{Config, DlqChoice, DlqCommand, Exit};
use crate::serve::ask;

/// `dlq`
pub async fn dlq(config: &Config, command: &DlqCommand) -> Exit {
    let (method, path, at) = match command {
        DlqCommand::List { choice, at } => (Method::GET, format!("?{}", query(choice)), at),
        DlqCommand::Show { id, at } => (Method::GET, format!("/{}", encoded(id)), at),
        DlqCommand::Redrive { choice, at } => {
            (Method::POST, format!("/redrive?{}", query(choice)), at)
        }
        DlqCommand::Drop { choice, at } => (Method::POST, format!("/drop?{}", query(choice)), at),
    };
    let url = at.url.clone().unwrap_or_else(|| own_url(config.http.listen));
    let url = format!("{}/v0/dlq{path}", url.trim_end_matches('/'));
    match ask::<Json>(method, &url, at.token.as_ref(), super::LONG).await {
        Ok(answer) => {
            print(&text(&answer));
            // A letter that is still there is what the caller has to know.
            let kept = ["failed", "elsewhere", "gone"];
            let kept = kept.iter().any(|kept| answer[*kept].as_u64() > Some(0));
            if kept { Exit::Failed } else { Exit::Done }
        }
        Err(error) => unanswered(&error),
    }
}

fn query(choice: &DlqChoice) -> String {
    let named = [("id", &choice.id), ("plugin", &choice.plugin), ("table", &choice.table)];
    let named = named.into_iter().filter_map(|(name, value)| Some((name, value.as_deref()?)));
    let all = choice.all.then_some(("all", "true"));
    let pairs = named.chain(all).map(|(name, value)| format!("{name}={}", encoded(value)));
    pairs.collect::<Vec<_>>().join("&")
}

fn encoded(text: &str) -> String {
    utf8_percent_encode(text, NON_ALPHANUMERIC).to_string()
}

/// One line a letter; what is no list as `name  value`.
fn text(answer: &Json) -> String {
    let plain = |value: &Json| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let line = |letter: &Json| {
        let fields =
            ["id", "position", "table", "op", "kept", "stage", "plugin", "digest", "reason"];
        let cut = |name| {
            plain(&letter[name]).chars().take(if name == "digest" { 12 } else { 500 }).collect()
        };
        fields.map(|name| -> String { cut(name) }).join("  ")
    };
    match answer {
        Json::Array(letters) if letters.is_empty() => "no dead letters".to_owned(),
        Json::Array(letters) => letters.iter().map(line).collect::<Vec<_>>().join("\n"),
        Json::Object(fields) => {
            let line = |(name, value): (&String, &Json)| format!("{name}  {}", plain(value));
            fields.iter().map(line).collect::<Vec<_>>().join("\n")
        }
        other => other.to_string(),
    }
}
