//! Readers of what strangers send over HTTP, for `cargo xtask fuzz`.

use std::collections::HashSet;

use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri, header};

use super::access::presented;
use super::tables::{Mirrored, MirroredColumn};
use super::token::{Scope, Token, TokenHash, find, hash_token};
use super::{filter, guard, parameters};

/// A query string: what it asks for is SQL that only names columns and parameters.
pub fn query_string(text: &str) {
    let column = |(name, kind): (&str, &str)| MirroredColumn {
        name: name.into(),
        kind: kind.into(),
        binary: false,
    };
    let columns = [
        ("id", "Int64"),
        ("name", "LowCardinality(Nullable(String))"),
        ("it`s", "Nullable(DateTime64(6, 'UTC'))"),
        ("list", "Array(Nullable(Int32))"),
        ("is.is", "Bool"),
    ];
    let table = Mirrored {
        source: "public.t".into(),
        view: "t".into(),
        columns: columns.map(column).into(),
        order: vec!["id".into()],
    };
    let Ok(mut given) = parameters::parse(Some(text)) else { return };
    for name in ["limit", "offset", "token"] {
        if parameters::take(&mut given, name).is_err() {
            return;
        }
    }
    let Ok((sql, values)) = filter::filters(&table, given) else { return };
    // What is left once the parts that we write are gone is nothing.
    let mut rest = sql.replace(" WHERE ", " AND ");
    for (index, column) in table.columns.iter().enumerate() {
        let name = crate::sink::quoted(&column.name);
        for kind in ["Int64", "String", "DateTime64(6, 'UTC')", "Bool"] {
            let parameter = format!("{{f{index}:{kind}}}");
            rest = rest.replace(&format!(" AND {name} = {parameter}"), "");
            rest = rest.replace(&format!(" AND toString({name}) = {parameter}"), "");
        }
        rest = rest.replace(&format!(" AND isNull({name})"), "");
        rest = rest.replace(&format!(" AND isNotNull({name})"), "");
    }
    assert_eq!(rest, "");
    assert!(values.len() <= table.columns.len());
}

/// A statement for `/v0/sql`: what passes begins with a word that reads and calls nothing refused.
pub fn guard(text: &str) {
    let refused: HashSet<String> = ["file", "url", "remote"].map(str::to_owned).into();
    if guard::check(text, &refused).is_err() {
        return;
    }
    let lower = text.to_ascii_lowercase();
    let reads = ["select", "with", "show", "desc", "explain", "exists"];
    assert!(reads.iter().any(|word| lower.contains(word)), "{text:?}");
    // With no quote and no comment there is nothing that it could have been hidden in.
    if !lower.contains(['\'', '"', '`', '-', '/']) {
        let call = |name: &str| {
            lower.match_indices(name).any(|(at, _)| {
                let before = lower[..at].trim_end().chars().next_back();
                let starts = before.is_none_or(|char| "(,=+*".contains(char));
                starts && lower[at + name.len()..].trim_start().starts_with('(')
            })
        };
        assert!(!refused.iter().any(|name| call(name)), "{text:?}");
    }
}

/// A token, a hash, or what brings one along: the very token is found, a hash is printed as it was read, and what a
/// header or a query presents is a part of it.
pub fn token(text: &str) {
    if let Ok(value) = HeaderValue::from_str(text) {
        is_presented(text, &HeaderMap::from_iter([(header::AUTHORIZATION, value)]), "/");
    }
    is_presented(text, &HeaderMap::new(), &format!("/?{text}"));
    let known = Token {
        name: "known".into(),
        hash: hash_token("the very token").try_into().expect("a hash"),
        scopes: vec![Scope::AnyPipe],
    };
    let presented = Token { hash: hash_token(text).try_into().expect("a hash"), ..known.clone() };
    let tokens = [known, presented];
    assert_eq!(find(&tokens[..1], text).is_some(), text == "the very token");
    assert!(find(&tokens, text).is_some());
    if TokenHash::try_from(text.to_owned()).is_ok() {
        assert!(text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit()), "{text:?}");
    }
    if let Ok(scope) = Scope::try_from(text.to_owned()) {
        assert_eq!(scope.to_string(), text);
    }
}

/// What is refused gets a sentence of ours, without what was sent; a token that is taken was sent.
fn is_presented(text: &str, headers: &HeaderMap, uri: &str) {
    let Ok(uri) = uri.parse::<Uri>() else { return };
    match presented(headers, &uri) {
        Ok(Some(token)) if !headers.is_empty() => {
            assert!(text.ends_with(char::is_whitespace) || text.ends_with(&token), "{text:?}");
            assert!(text.get(..7).is_some_and(|scheme| scheme.eq_ignore_ascii_case("bearer ")));
            assert_eq!(token, token.trim());
        }
        Ok(Some(token)) => assert!(token.len() <= text.len()),
        Ok(None) => assert!(headers.is_empty() && !text.starts_with("token=")),
        Err(refusal) => {
            let status = refusal.status;
            assert!([StatusCode::UNAUTHORIZED, StatusCode::BAD_REQUEST].contains(&status));
            assert_eq!(refusal.sentence.lines().count(), 1, "{}", refusal.sentence);
        }
    }
}
