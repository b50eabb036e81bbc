//! The query string and parts of the path, strictly: a value that is not UTF-8 is refused, not repaired.

use std::num::ParseIntError;
use std::str::FromStr;

use axum::extract::Path;
use axum::extract::rejection::PathRejection;
use percent_encoding::percent_decode;

use super::answer::Refusal;

/// The parameters in the order they came, decoded.
pub(super) fn parse(query: Option<&str>) -> Result<Vec<(String, String)>, Refusal> {
    let pairs = query.unwrap_or("").split('&').filter(|pair| !pair.is_empty());
    pairs
        .map(|pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            Ok((decode(key)?, decode(value)?))
        })
        .collect()
}

fn decode(text: &str) -> Result<String, Refusal> {
    let spaced = text.replace('+', " ");
    percent_decode(spaced.as_bytes())
        .decode_utf8()
        .map(std::borrow::Cow::into_owned)
        .map_err(|_| Refusal::bad("a query parameter is not UTF-8 once its %-codes are decoded"))
}

/// Takes the one parameter of that name out; twice is a mistake.
pub(super) fn take(
    parameters: &mut Vec<(String, String)>,
    name: &str,
) -> Result<Option<String>, Refusal> {
    let Some(at) = parameters.iter().position(|(key, _)| key == name) else {
        return Ok(None);
    };
    let (_, value) = parameters.remove(at);
    if parameters.iter().any(|(key, _)| key == name) {
        return Err(Refusal::bad(format!("the query parameter `{name}` is given twice")));
    }
    Ok(Some(value))
}

/// Passes if nothing is left of the parameters but the token.
pub(super) fn none_left(parameters: &[(String, String)]) -> Result<(), Refusal> {
    match parameters.iter().find(|(key, _)| key != "token") {
        Some((unknown, _)) => Err(Refusal::bad(format!("there is no parameter `{unknown}` here"))),
        None => Ok(()),
    }
}

/// A part of the path, decoded. Who asks is looked at before: so a handler takes what came of it.
pub(super) fn part(found: Result<Path<String>, PathRejection>) -> Result<String, Refusal> {
    let wrong = |_| Refusal::bad("the path is not UTF-8 once its %-codes are decoded");
    found.map(|Path(part)| part).map_err(wrong)
}

/// Takes a whole number out, as [`take`] does.
pub(super) fn number<T: FromStr<Err = ParseIntError>>(
    parameters: &mut Vec<(String, String)>,
    name: &str,
) -> Result<Option<T>, Refusal> {
    let wrong = |_| Refusal::bad(format!("`{name}` is a whole number, 0 or more"));
    take(parameters, name)?.map(|text| text.parse()).transpose().map_err(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_decoded_once() {
        let parsed = parse(Some("a=%2527&b=x+y%2B&c&&d=%C3%A9=%00")).unwrap();
        let wanted = [("a", "%27"), ("b", "x y+"), ("c", ""), ("d", "é=\0")];
        assert_eq!(parsed, wanted.map(|(key, value)| (key.to_owned(), value.to_owned())));
    }

    #[test]
    fn bytes_that_are_no_text_are_refused() {
        assert!(parse(Some("a=%FF")).is_err());
    }

    #[test]
    fn a_doubled_parameter_is_refused() {
        let mut parameters = parse(Some("limit=1&limit=2")).unwrap();
        assert!(take(&mut parameters, "limit").is_err());
    }
}
