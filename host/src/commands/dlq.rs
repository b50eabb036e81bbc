//! `dlq list`, `show`, `redrive` and `drop`: asked of a running instance.

use hyper::Method;
use serde_json::Value as Json;

use super::{encoded, instance, print, unanswered};
use crate::config::{Config, DlqChoice, DlqCommand, Exit};
use crate::serve::ask;

/// `dlq`
pub async fn dlq(config: &Config, command: &DlqCommand) -> Exit {
    let (method, path, at) = match command {
        DlqCommand::List { limit, choice, at } => {
            (Method::GET, format!("?limit={limit}&{}", query(choice)), at)
        }
        DlqCommand::Show { id, at } => (Method::GET, format!("/{}", encoded(id)), at),
        DlqCommand::Redrive { choice, at } => {
            (Method::POST, format!("/redrive?{}", query(choice)), at)
        }
        DlqCommand::Drop { choice, at } => (Method::POST, format!("/drop?{}", query(choice)), at),
    };
    let (base, path) = (instance(config, at), format!("/v0/dlq{path}"));
    match ask::<Json>(method, &base, &path, at.token.as_ref(), super::LONG).await {
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

/// One line a letter of a list, and one for those that are not in it; what is no list as `name  value`.
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
    let lines: Vec<String> = match (answer["letters"].as_array(), answer["more"].as_u64()) {
        (Some(letters), Some(0)) if letters.is_empty() => vec!["no dead letters".to_owned()],
        (Some(letters), Some(0)) => letters.iter().map(line).collect(),
        (Some(letters), Some(more)) => {
            let all = letters.len() as u64 + more;
            let last = format!("and {more} more; --limit {all} lists all");
            letters.iter().map(line).chain([last]).collect()
        }
        _ => {
            let fields = answer.as_object().into_iter().flatten();
            fields.map(|(name, value)| format!("{name}  {}", plain(value))).collect()
        }
    };
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_list_ends_with_how_many_letters_are_not_in_it() {
        let letter = json!({ "id": "1f", "position": "0/5:1", "table": "public.t", "op": "c" });
        let listed =
            |letters: &[Json], more: u64| text(&json!({ "letters": letters, "more": more }));
        assert_eq!(listed(&[], 0), "no dead letters");
        assert!(listed(std::slice::from_ref(&letter), 0).starts_with("1f  0/5:1  public.t  c"));
        let cut = listed(&[letter.clone(), letter], 7);
        assert_eq!(cut.lines().nth(2), Some("and 7 more; --limit 9 lists all"));
    }
}
