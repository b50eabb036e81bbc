//! The text of a configuration file becomes settings, and every mistake in it one sentence with its
//! line. No sentence repeats a value that may be secret.

use std::ops::Range;
use std::path::Path;

use serde::de::DeserializeOwned;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::ConfigError;
use super::secret::{REDACTED, is_secret_key};

/// How `${NAME}` finds its value; `std::env::var` outside tests.
pub type Environment<'e> = &'e dyn Fn(&str) -> Option<String>;

/// Reads `text` as a `T`; `path` only names it in errors.
///
/// # Errors
/// [`ConfigError::Invalid`] with the line of the first mistake.
pub fn parse<T: DeserializeOwned>(
    text: &str,
    path: &Path,
    environment: Environment<'_>,
) -> Result<T, ConfigError> {
    read(text, path, environment, &|_| true)
}

/// As [`parse`], but nothing is read that is not in one of these sections.
pub(super) fn parse_sections<T: DeserializeOwned>(
    text: &str,
    path: &Path,
    environment: Environment<'_>,
    sections: &[&str],
) -> Result<T, ConfigError> {
    read(text, path, environment, &|section| sections.contains(&section))
}

fn read<T: DeserializeOwned>(
    text: &str,
    path: &Path,
    environment: Environment<'_>,
    is_read: &dyn Fn(&str) -> bool,
) -> Result<T, ConfigError> {
    let fail = |span: Option<Range<usize>>, what: String| ConfigError::Invalid {
        path: path.to_owned(),
        line: span.map_or(1, |span| line_of(text, span.start)),
        what,
    };
    let mut table =
        DeTable::parse(text).map_err(|error| fail(error.span(), error.message().to_owned()))?;
    let sections = std::mem::take(table.get_mut()).into_iter();
    *table.get_mut() = sections.filter(|(section, _)| is_read(section.get_ref())).collect();
    let mut reading = Reading { environment, secrets: Vec::new() };
    reading.table(table.get_mut(), false).map_err(|(span, what)| fail(Some(span), what))?;
    let secrets = reading.secrets;
    T::deserialize(toml::Deserializer::from(table)).map_err(|error| {
        let sentence = hide(&secrets, explain(error.message()));
        // It repeats a value that may have lines.
        fail(error.span(), sentence.replace(['\n', '\r'], " "))
    })
}

fn line_of(text: &str, offset: usize) -> usize {
    1 + text.bytes().take(offset).filter(|byte| *byte == b'\n').count()
}

type Mistake = (Range<usize>, String);

/// One walk over the document: fills in `${NAME}` and remembers what must not be repeated.
struct Reading<'e> {
    environment: Environment<'e>,
    secrets: Vec<String>,
}

impl Reading<'_> {
    fn table(&mut self, table: &mut DeTable<'_>, secret: bool) -> Result<(), Mistake> {
        for (key, value) in table.iter_mut() {
            // Any setting of librdkafka may be a password or hold one.
            let secret = secret || key.get_ref() == "librdkafka";
            match value.get_mut() {
                DeValue::Table(table) => self.table(table, secret)?,
                _ => {
                    let of_key = is_secret_key(key.get_ref()) || key.get_ref() == "url";
                    self.value(value, secret || of_key)?;
                }
            }
        }
        Ok(())
    }

    fn value(&mut self, value: &mut Spanned<DeValue<'_>>, secret: bool) -> Result<(), Mistake> {
        let span = value.span();
        match value.get_mut() {
            DeValue::String(text) => {
                let filled = interpolate(text, self.environment).map_err(|what| (span, what))?;
                if secret || filled.is_some() {
                    self.secrets.push(filled.clone().unwrap_or_else(|| text.to_string()));
                }
                if let Some(filled) = filled {
                    *text = filled.into();
                }
                Ok(())
            }
            DeValue::Array(items) => items.iter_mut().try_for_each(|item| self.value(item, secret)),
            DeValue::Table(table) => self.table(table, false),
            DeValue::Integer(_)
            | DeValue::Float(_)
            | DeValue::Boolean(_)
            | DeValue::Datetime(_) => Ok(()),
        }
    }
}

/// `text` with every `${NAME}` replaced, or `None` when nothing needed it. `$${` is a plain `${`.
fn interpolate(text: &str, environment: Environment<'_>) -> Result<Option<String>, String> {
    if !text.contains("${") {
        return Ok(None);
    }
    let mut filled = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("${") {
        if let Some(before) = rest[..at].strip_suffix('$') {
            filled.push_str(before);
            filled.push_str("${");
            rest = &rest[at + 2..];
            continue;
        }
        filled.push_str(&rest[..at]);
        let (name, after) = rest[at + 2..]
            .split_once('}')
            .ok_or("`${` without its `}`; write `$${` for a plain `${`")?;
        filled.push_str(&lookup(name, environment)?);
        rest = after;
    }
    filled.push_str(rest);
    Ok(Some(filled))
}

fn lookup(name: &str, environment: Environment<'_>) -> Result<String, String> {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '_';
    if name.is_empty() || !name.chars().all(plain) {
        return Err("between `${` and `}` stands the name of an environment variable: letters, \
                    digits and `_`; write `$${` for a plain `${`"
            .to_owned());
    }
    environment(name).ok_or_else(|| {
        format!("the environment variable `{name}` is not set; set it, or write the value here")
    })
}

/// serde's sentence in the words of the file.
fn explain(message: &str) -> String {
    for (theirs, ours) in
        [("unknown field ", "unknown key "), ("unknown variant ", "unknown value ")]
    {
        let Some(rest) = message.strip_prefix(theirs) else {
            continue;
        };
        return match rest.split_once(", expected ") {
            Some((name, allowed)) => {
                format!("{ours}{name}; allowed: {}", allowed.trim_start_matches("one of "))
            }
            None => format!("{ours}{}", rest.replace(", there are no fields", "; none is allowed")),
        };
    }
    if let Some(rest) = message.strip_prefix("missing field ") {
        return format!("the key {rest} is missing");
    }
    if message.contains("untagged enum Setting") {
        return "not the value of a setting; allowed: a text, a whole number, true or false".into();
    }
    match message.split_once(", expected ") {
        Some((found, expected)) => format!("{found}; allowed: {}", in_words(expected)),
        None => message.to_owned(),
    }
}

fn in_words(expected: &str) -> &str {
    match expected {
        "u16" => "a whole number from 0 to 65535",
        "u32" | "u64" | "usize" => "a whole number, 0 or more",
        "i8" | "i16" | "i32" | "i64" | "isize" => "a whole number",
        "f32" | "f64" => "a number",
        "a boolean" => "true or false",
        "a sequence" => "a list: [\"…\", \"…\"]",
        other => other,
    }
}

/// Takes every secret out of a sentence, in the forms in which serde prints values.
fn hide(secrets: &[String], mut sentence: String) -> String {
    for secret in secrets.iter().filter(|secret| !secret.is_empty()) {
        sentence = sentence.replace(&format!("{secret:?}"), REDACTED);
        sentence = sentence.replace(&format!("`{secret}`"), REDACTED);
        // A short secret would turn ordinary words into stars, and so give itself away.
        if secret.len() >= 4 {
            sentence = sentence.replace(secret.as_str(), REDACTED);
        }
    }
    sentence
}
